"""One plain training loop: clip, schedule, early stop, history, and a checkpoint to go on from.

Read :func:`fit` first, from top to bottom; everything else here serves one of its lines.
"""

from __future__ import annotations

import copy
import math
import numbers
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from lstm_lib.checkpoints import Checkpoint, load, restore, save, settings
from lstm_lib.devices import find_device, random_state, seeded, set_random_state
from lstm_lib.recurrent import TORCH

__all__ = ["Diverged", "History", "find_device", "fit", "load", "predict", "save"]

Inputs = Tensor | tuple[Tensor, ...]
"""What a model is called with: one tensor, or several, such as ``(x, lengths)``."""

Batch = tuple[tuple[Tensor, ...], Tensor]
"""Inputs, always as a tuple, and targets."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Prediction and targets in, a tensor with one number out."""

Task = Callable[[torch.Generator, int], tuple[Inputs, Tensor]]
"""A task that makes its own batches: a generator and a step in, ``(inputs, targets)`` out."""

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
"""The optimizers that :func:`fit` knows by name."""


class Diverged(FloatingPointError):
    """A loss or a gradient became infinite or NaN. ``history`` holds the steps before that one."""

    history: History


@dataclass(repr=False)
class History:
    """What happened during :func:`fit`. Entry ``k`` of ``loss``, ``lr`` and ``grad_norm`` belongs to step ``k``.

    Attributes
    ----------
    loss : list of float
        Loss of each batch, before the update that it causes.
    lr : list of float
        Learning rate of each update (of the optimizer's first group of parameters).
    grad_norm : list of float
        Euclidean norm of the whole gradient at each step, before clipping.
    validation_step : list of int
        How many updates had been made at each validation.
    validation_loss : list of float
        The loss on the validation set then.
    stopped_early : bool
        Whether patience ran out before the steps did.
    diverged : str, optional
        At which step which value became infinite or NaN; None if none did. Entries end before that step.
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    validation_step: list[int] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    stopped_early: bool = False
    diverged: str | None = None

    @property
    def step(self) -> list[int]:
        """The steps, counted from 0: the abscissa of ``loss``, ``lr`` and ``grad_norm``."""
        return list(range(len(self.loss)))

    @property
    def best_loss(self) -> float | None:
        """The smallest validation loss; None before the first validation."""
        return min(self.validation_loss, default=None)

    @property
    def best_step(self) -> int | None:
        """How many updates had been made when ``best_loss`` was reached, the first time."""
        return self.validation_step[self._best()] if self.validation_loss else None

    @property
    def waited(self) -> int:
        """How many validations came after the best one."""
        return len(self.validation_loss) - 1 - self._best() if self.validation_loss else 0

    def _best(self) -> int:
        return self.validation_loss.index(min(self.validation_loss))

    def _end_at(self, steps: int) -> None:
        """Forget what came after so many steps."""
        for column in (self.loss, self.lr, self.grad_norm):
            del column[steps:]
        validations = sum(step <= steps for step in self.validation_step)
        del self.validation_step[validations:], self.validation_loss[validations:]

    def __repr__(self) -> str:
        loss = f", loss {self.loss[0]:.4g} → {self.loss[-1]:.4g}" if self.loss else ""
        best = f", best validation {self.best_loss:.4g} at {self.best_step}" if self.validation_loss else ""
        end = ", stopped early" * self.stopped_early + (f", diverged ({self.diverged})" if self.diverged else "")
        return f"History({len(self.loss)} steps{loss}{best}{end})"


def fit(
    model: nn.Module | Callable[[], nn.Module],
    train: tuple[Inputs, Tensor] | Task,
    *,
    steps: int,
    loss: Loss,
    batch_size: int = 32,
    lr: float = 1e-3,
    optimizer: str | Callable[..., torch.optim.Optimizer] = "adam",
    clip: float | None = None,
    schedule: Callable[[int], float] | None = None,
    validation: tuple[Inputs, Tensor] | None = None,
    validate_every: int = 50,
    patience: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    progress: bool = True,
    seeds: Iterable[int] | None = None,
) -> History | list[tuple[nn.Module, History]]:
    """Train a model, in place, for a number of steps; or many at once, one for each seed.

    The same arguments give the same numbers, bit for bit on a CPU: the batches and all dropout follow from
    ``seed`` alone, and the caller's random state is left as it was. The model ends on ``device``, in eval mode,
    with the weights that did best on ``validation``, or with the last ones if there is none.

    With ``seeds``, ``model`` is a function that builds one. Each seed's model is built under that seed and trained
    on its batches, all in one pass (:func:`torch.func.vmap`), and each gets the numbers that it gets alone, up to
    rounding: clipping, early stop, best weights and history are its own. Only dropout draws other numbers. Whether
    one pass is also the faster way depends on the machine: it gives up PyTorch's kernel for the fused sweep.

    What stops a run half-way, Ctrl-C included, carries ``history`` (with ``seeds``, ``results``: what would have
    been returned); a notebook has it in ``sys.last_value``. All is as after the last complete step, its validation
    included: history, weights, buffers, each module's mode (train or eval), and the checkpoint, which is written.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Called as ``model(inputs)``, or ``model(*inputs)`` where ``inputs`` is a tuple. With ``seeds``,
        ``model()`` returns a new model, the same but for its weights, whose recurrent layers are the library's
        (PyTorch's take no replicas) and read no packed sequences (which cannot be stacked).
    train : (inputs, targets) or callable
        Tensors that count examples along their first dimension. Each epoch takes all of them once, in a new order;
        a batch that reaches past the end of an epoch goes on in the next, so that all batches have the same size.
        Or a function ``task(generator, step)`` that makes the batch ``(inputs, targets)`` of a step, drawing from
        that generator only; how large it is, is then its own affair.
    steps : int
        Updates to make in all, those that a checkpoint holds included.
    loss : callable
        ``loss(prediction, targets)``, such as :func:`torch.nn.functional.mse_loss`; a tensor with one number.
    batch_size : int
        Examples per step; all of them where there are fewer.
    lr : float
        Learning rate.
    optimizer : {"adam", "adamw", "sgd"} or callable
        Or ``optimizer(parameters, lr=lr)``, such as ``functools.partial(torch.optim.SGD, momentum=0.9)``.
    clip : float, optional
        Where the gradient is longer than this, shorten it to this [1]_. Its norm is recorded all the same.
    schedule : callable, optional
        ``schedule(step)`` is the factor on ``lr`` at that step, counted from 0, those of a checkpoint included.
    validation : (inputs, targets), optional
        Examples held out. Their loss is taken in eval mode over all of them at once.
    validate_every : int
        Steps from one validation to the next. (None after the last step, unless it falls due then.)
    patience : int, optional
        Stop after so many validations in a row without a new best one.
    device : str or torch.device
        See :func:`find_device`.
    seed : int
        Seed of batches and dropout. The first weights are the caller's: seed PyTorch before building the model.
    checkpoint : path, optional
        A file that keeps the run, written every ``checkpoint_every`` steps and at the end. Where it exists, the
        run goes on from it, to the numbers that an unbroken run gets (on a CPU). ``steps`` may be more than
        before; ``patience``, ``device``, ``checkpoint_every`` and ``progress`` are free; all else must be as it
        was. Delete the file to start anew.
    checkpoint_every : int
        Steps from one write to the next.
    progress : bool
        Show a bar on stderr that goes when done. ``LSTM_LIB_PROGRESS=0`` in the environment hides all of them.
    seeds : iterable of int, optional
        Train one model for each, instead of one for ``seed``. The optimizer must act on each number by itself, as
        those known by name do. One that diverges stops and keeps the weights from before; its history's
        ``diverged`` tells, and so does a ``RuntimeWarning``. Not with ``checkpoint``.

    Returns
    -------
    History or list of (torch.nn.Module, History)
        With ``seeds``, each seed's model, in eval mode, and its history.

    Raises
    ------
    Diverged
        A :class:`FloatingPointError`: a loss, or the norm of a gradient, is infinite or NaN. Clipping does not
        repair that (NaN scaled is NaN), and the model keeps the weights from before. Never with ``seeds``.
    ValueError, TypeError
        An argument without sense; targets of another shape than the output, where PyTorch's loss would only warn;
        a checkpoint that is damaged, of another model or of another run; a model that cannot be trained in one
        pass, with ``seeds``. No step has been made then.

    References
    ----------
    .. [1] Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> line = nn.Linear(1, 1)
    >>> history = fit(line, (x, 3 * x - 1), steps=300, loss=nn.functional.mse_loss, lr=0.05)
    >>> print(f"{line.weight.item():.2f} {line.bias.item():.2f}")
    3.00 -1.00
    """
    # Before any work: does it all make sense?
    steps, batch_size, validate_every, patience, checkpoint_every, lr, clip, seed = _numbers(
        steps=steps,
        batch_size=batch_size,
        validate_every=validate_every,
        patience=patience,
        checkpoint_every=checkpoint_every,
        lr=lr,
        clip=clip,
        seed=seed,
    )
    if not callable(loss):
        raise TypeError(f"loss must be a function such as torch.nn.functional.mse_loss, got {loss!r}")
    if not (schedule is None or callable(schedule)):
        raise TypeError(f"schedule must be a function of the step, got {schedule!r}")
    if patience is not None and validation is None:
        raise ValueError(f"patience must come with validation=(inputs, targets), got {patience} without")
    if validation is not None and validate_every > steps:
        raise ValueError(f"validate_every must be at most steps={steps} to validate at all, got {validate_every}")
    device = find_device(device)
    if seeds is not None:
        if checkpoint is not None:
            raise ValueError(f"checkpoint must be None with seeds, which leave none, got {str(checkpoint)!r}")
        return _fit_replicas(
            _build(model, seeds, device),
            train,
            steps=steps,
            loss=loss,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            clip=clip,
            schedule=schedule,
            validation=validation,
            validate_every=validate_every,
            patience=patience,
            device=device,
            progress=progress,
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module (or, with seeds, a function), got {_kind(model)}")
    dtypes = {p.dtype for p in model.parameters()}
    batch = _batches(train, batch_size, seed, dtypes)
    held_out = None if validation is None else _pair("validation", validation, dtypes)

    model.to(device)
    updater = _optimizer(optimizer, model.parameters(), lr)
    base_lr = [group["lr"] for group in updater.param_groups]
    history, best = History(), None
    if held_out is not None:
        with seeded(seed, device):  # what cannot be validated is told before the first step
            _outputs(model, tuple(x[:1] for x in held_out[0]), 1, device)

    with seeded(seed, device), _mode(model, training=True):
        # Is there a run to go on with?
        if checkpoint is not None:
            keeper = Checkpoint(
                checkpoint,
                settings(
                    model,
                    updater,
                    loss,
                    {"train": batch(0), "validation": held_out},
                    seed=seed,
                    clip=clip,
                    batch_size=batch_size,
                    validate_every=validate_every,
                ),
            )
            if saved := keeper.read(model, steps, lambda step: base_lr[0] * _factor(schedule, step)):
                with keeper.whole():
                    updater.load_state_dict(saved["optimizer"])
                    history, best = History(**saved["history"]), saved["best"]
                    set_random_state(device, saved["random"])
                    restore(model, saved["model"])

        def keep() -> None:
            keeper.write(
                model=model.state_dict(),
                optimizer=updater.state_dict(),
                history=asdict(history),
                best=best,
                random=random_state(device),
            )

        start = step = len(history.loss)
        patience = math.inf if patience is None else patience
        with _bar(step, steps, progress) as bar:
            done = step, best, random_state(device), _copy(_state(model)), {}
            try:
                while step < steps and history.waited < patience:
                    # Forward: how wrong is the model on this batch?
                    inputs, targets = _to(device, *batch(step))
                    with _same_shape() if step == start else nullcontext():
                        error = _one_number(loss(model(*inputs), targets))
                    value = error.item()
                    if not math.isfinite(value):
                        raise Diverged(f"step {step}: the loss is {value}")

                    # Backward: which way is better, and how steep is it?
                    model.zero_grad()
                    error.backward()
                    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip is None else clip).item()
                    if not math.isfinite(norm):
                        raise Diverged(f"step {step}: the norm of the gradient is {norm}, which no clip repairs")

                    # Update.
                    for group, base in zip(updater.param_groups, base_lr, strict=True):
                        group["lr"] = base * _factor(schedule, step)
                    updater.step()
                    history.loss.append(value)
                    history.lr.append(float(updater.param_groups[0]["lr"]))
                    history.grad_norm.append(norm)
                    step += 1

                    # Validate: is this the best model so far?
                    if held_out is not None and step % validate_every == 0:
                        value = _held_out_loss(model, held_out, loss, device)
                        if not math.isfinite(value):
                            raise Diverged(f"after step {step - 1}: the validation loss is {value}")
                        history.validation_step.append(step)
                        history.validation_loss.append(value)
                        if history.best_step == step:
                            best = copy.deepcopy(model.state_dict())
                    moments = updater.state if checkpoint is not None else {}
                    moments = {p: _copy(values) for p, values in moments.items()}
                    done = step, best, random_state(device), _copy(_state(model)), moments

                    # Keep: all that the next step depends on, and the best weights.
                    last = step == steps or history.waited >= patience
                    if checkpoint is not None and (last or step % checkpoint_every == 0):
                        keep()
                    bar.set_postfix_str(f"loss {history.loss[-1]:.3g}", refresh=False)
                    bar.update()
            except BaseException as problem:
                # Back to the last complete step: what is left of the run belongs together.
                step, best, random, tensors, moments = done
                history._end_at(step)
                problem.history = history
                try:
                    _put(model, tensors)
                    updater.state.clear()
                    updater.state.update(moments)
                    set_random_state(device, random)
                    if checkpoint is not None and step > start:
                        keep()
                except Exception as another:  # which must not hide the problem
                    problem.add_note(f"fit could not go back to its last step, or write its checkpoint: {another}")
                history.diverged = str(problem) if isinstance(problem, Diverged) else None
                raise

    if best is not None:
        model.load_state_dict(best)
    model.eval()
    history.stopped_early = step < steps
    return history


# Many seeds in one pass ----------------------------------------------------------------------------------------


def _build(build: Callable[[], nn.Module], seeds: Iterable[int], device: torch.device) -> dict[int, nn.Module]:
    """One model per seed, built under it."""
    try:
        seeds = list(seeds)
    except TypeError:
        raise TypeError(f"seeds must be an iterable of whole numbers such as range(3), got {seeds!r}") from None
    seeds = [_numbers(seed=seed)[0] for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be at least one, all different, got {seeds}")
    if isinstance(build, nn.Module) or not callable(build):
        raise TypeError(f"model must be a function that builds a model, with seeds, got {_kind(build)}")
    models = {}
    for seed in seeds:
        with seeded(seed, torch.device("cpu")):
            models[seed] = build()
        if not isinstance(models[seed], nn.Module):
            raise TypeError(f"model must return a torch.nn.Module, got {_kind(models[seed])}")
        for name, module in models[seed].named_modules():
            if type(module) in TORCH:
                kind = type(module).__name__
                raise TypeError(
                    f"model must have lstm_lib's {kind} as its {name or 'layer'}, got PyTorch's, "
                    "whose kernel takes no replicas"
                )
        models[seed].to(device)
        inside = [module for _, module in models[seed].named_modules(remove_duplicate=False)]
        own = [id(p) for module in set(inside) for p in module.parameters(recurse=False)]
        if len(set(inside)) < len(inside) and len(set(own)) < len(own):  # functional_call mixes them up
            raise ValueError(
                "model must not have a module under two names and tied weights at once with seeds, got both"
            )
    if len({repr(model) for model in models.values()}) > 1:
        raise ValueError("model must build the same for every seed, got models that differ in more than weights")
    learning = [id(p) for model in models.values() for p in model.parameters() if p.requires_grad]
    if len(set(learning)) < len(learning):
        raise ValueError("model must build new parameters at each call, got some that two models share")
    return models


def _fit_replicas(
    models: dict[int, nn.Module],
    train: tuple[Inputs, Tensor] | Task,
    *,
    steps: int,
    loss: Loss,
    batch_size: int,
    lr: float,
    optimizer: str | Callable[..., torch.optim.Optimizer],
    clip: float | None,
    schedule: Callable[[int], float] | None,
    validation: tuple[Inputs, Tensor] | None,
    validate_every: int,
    patience: int | None,
    device: torch.device,
    progress: bool,
) -> list[tuple[nn.Module, History]]:
    """:func:`fit`, line by line, on parameters that have one more dimension in front: the replica's."""
    seeds, replicas = list(models), list(models.values())
    weights, buffers = stack_module_state(replicas)
    skeleton = copy.deepcopy(replicas[0])
    dtypes = {p.dtype for p in weights.values()}
    batches = [_batches(train, batch_size, seed, dtypes) for seed in seeds]
    held_out = None if validation is None else _pair("validation", validation, dtypes)
    updater = _optimizer(optimizer, weights.values(), lr)
    base_lr = [group["lr"] for group in updater.param_groups]
    histories, patience = [History() for _ in seeds], math.inf if patience is None else patience
    running = list(range(len(seeds)))  # replicas that still learn; those that ended go along unrecorded
    ended: dict[int, dict[str, Tensor]] = {}  # a replica's best weights, or those from before it diverged

    def error(weights: dict, buffers: dict, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, dict]:
        state = weights | buffers
        value = _one_number(loss(functional_call(skeleton, state, inputs), targets)).squeeze()
        return value, {name: state[name] for name in buffers}  # as the model left them

    def errors(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, targets = zip(*(_to(device, *batch(step)) for batch in batches), strict=True)
        inputs = tuple(torch.stack(parts) for parts in zip(*inputs, strict=True))
        return vmap(error, randomness="different")(weights, _copy(buffers), inputs, torch.stack(targets))

    def outputs(inputs: tuple[Tensor, ...]) -> Tensor:
        inputs = tuple(part.to(device) for part in inputs)
        with _mode(skeleton, training=False), torch.no_grad():
            output = vmap(lambda state: functional_call(skeleton, state, inputs), randomness="different")
            return output(weights | buffers)

    def end_diverged(values: list[float], what: str) -> None:
        for k in [k for k in running if not math.isfinite(values[k])]:
            histories[k]._end_at(step)
            histories[k].diverged = f"{what} is {values[k]}"
            ended[k] = _replica(k, state)
            running.remove(k)

    def results() -> list[tuple[nn.Module, History]]:
        for k, model in enumerate(replicas):
            _put(model, ended[k] if k in ended else _replica(k, state))
        return list(zip(replicas, histories, strict=True))

    with seeded(seeds[0], device):  # what cannot run as one pass is told before the first step
        skeleton.train()
        example = held_out and tuple(x[:1] for x in held_out[0])
        try:
            with _same_shape():
                errors(0)
            if example:
                outputs(example)
        except Exception as problem:
            inputs, targets = _to(device, *batches[0](0))
            with _same_shape():  # in its own words, where it does not run alone either
                _one_number(loss(skeleton(*inputs), targets))
            if example:
                _outputs(skeleton, example, 1, device)
            raise TypeError(
                "model and loss must run under torch.func.vmap to be trained with seeds, which packs no sequences "
                f"and lets nothing hang on a value, got {_kind(problem)}: {problem}"
            ) from problem

    done, state = 0, _copy(weights | buffers)
    with seeded(seeds[0], device), _bar(0, steps, progress) as bar:
        try:
            for step in range(steps):
                found, changed = errors(step)
                end_diverged(losses := found.tolist(), f"step {step}: the loss")

                updater.zero_grad()
                found.sum().backward()  # no replica's loss depends on another's weights
                grads = [p.grad for p in weights.values() if p.grad is not None]
                norm = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in grads]).norm(dim=0)
                end_diverged(norms := norm.tolist(), f"step {step}: the norm of the gradient")
                if clip is not None:
                    shorter = (clip / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
                    for g in grads:
                        g.mul_(shorter.view(-1, *[1] * (g.dim() - 1)))

                for group, base in zip(updater.param_groups, base_lr, strict=True):
                    group["lr"] = base * _factor(schedule, step)
                updater.step()
                buffers = _copy(changed)
                for k in running:
                    histories[k].loss.append(losses[k])
                    histories[k].lr.append(float(updater.param_groups[0]["lr"]))
                    histories[k].grad_norm.append(norms[k])

                if held_out is not None and (step + 1) % validate_every == 0:
                    parts = zip(*(x.split(256) for x in held_out[0]), strict=True)
                    predictions, wanted = torch.cat([outputs(part) for part in parts], 1), held_out[1].to(device)
                    with torch.no_grad():
                        values = [_one_number(loss(each, wanted)).item() for each in predictions]
                    end_diverged(values, f"after step {step}: the validation loss")
                    for k in running:
                        histories[k].validation_step.append(step + 1)
                        histories[k].validation_loss.append(values[k])
                        if histories[k].best_step == step + 1:
                            ended[k] = _replica(k, weights | buffers)
                    running = [k for k in running if histories[k].waited < patience]
                done, state = step + 1, _copy(weights | buffers)
                if not running:
                    break
                bar.update()
        except BaseException as problem:
            for k in running:
                ended.pop(k, None)
                histories[k]._end_at(done)
            problem.results = results()
            raise

    if told := [f"seed {seed}, {h.diverged}" for seed, h in zip(seeds, histories, strict=True) if h.diverged]:
        warnings.warn(f"{len(told)} of {len(seeds)} replicas diverged: {'; '.join(told)}", RuntimeWarning, 3)
    trained = results()
    for model, history in trained:
        model.eval()
        history.stopped_early = history.diverged is None and len(history.loss) < steps
    return trained


def _replica(k: int, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return _copy({name: value[k] for name, value in state.items()})


def predict(
    model: nn.Module, inputs: Inputs, batch_size: int = 256, device: str | torch.device | None = None
) -> Tensor:
    """What the model says about each example: in eval mode, without gradients, in batches.

    Parameters
    ----------
    model : torch.nn.Module
        Called as in :func:`fit`; its prediction counts examples along the first dimension. Its modules keep the
        mode (train or eval) that they were in.
    inputs : Tensor or tuple of Tensor
        They count examples along the first dimension.
    batch_size : int
        Examples at a time.
    device : str or torch.device, optional
        Move the model there first (see :func:`find_device`); None leaves it where it is.

    Returns
    -------
    Tensor
        All predictions, in order, on the CPU.

    Raises
    ------
    ValueError, TypeError
        Inputs that are no tensors, none, of different lengths, or of another dtype than the model's parameters.

    Examples
    --------
    >>> predict(nn.Linear(3, 2), torch.zeros(1000, 3)).shape
    torch.Size([1000, 2])
    """
    (batch_size,) = _numbers(batch_size=batch_size)
    inputs = _tensors("inputs", inputs, {p.dtype for p in model.parameters()})
    _check_lengths("inputs", inputs)
    if device is not None:
        model.to(find_device(device))
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    return _outputs(model, inputs, batch_size, place).cpu()


# Batches -------------------------------------------------------------------------------------------------------


def _batches(
    train: tuple[Inputs, Tensor] | Task, batch_size: int, seed: int, dtypes: set[torch.dtype]
) -> Callable[[int], Batch]:
    """Batch ``step`` as a function of seed and step alone, so that a run can go on anywhere."""
    if callable(train):
        return lambda step: _pair("train", train(_generator(seed, step), step), dtypes, same_length=False)
    inputs, targets = _pair("train", train, dtypes)
    count = len(targets)
    size = min(batch_size, count)

    @lru_cache(maxsize=2)
    def order(epoch: int) -> Tensor:
        return torch.randperm(count, generator=_generator(seed, epoch))

    def batch(step: int) -> Batch:
        epoch, start = divmod(step * size, count)
        chosen = order(epoch)[start : start + size]
        if len(chosen) < size:
            chosen = torch.cat([chosen, order(epoch + 1)[: size - len(chosen)]])
        return tuple(x[chosen] for x in inputs), targets[chosen]

    return batch


def _generator(seed: int, number: int) -> torch.Generator:
    """A generator for one step or epoch. On a CPU it takes 32 bits of a seed: the hash mixes both into them."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{number}".encode()))


def _to(device: torch.device, inputs: tuple[Tensor, ...], targets: Tensor) -> Batch:
    return tuple(x.to(device) for x in inputs), targets.to(device)


def _pair(name: str, pair: tuple[Inputs, Tensor], dtypes: set[torch.dtype], same_length: bool = True) -> Batch:
    """``(inputs, targets)``, checked, the inputs always as a tuple."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name} must be (inputs, targets), got {_kind(pair)}")
    inputs, (targets,) = _tensors(f"{name} inputs", pair[0], dtypes), _tensors(f"{name} targets", pair[1], dtypes)
    if same_length:
        _check_lengths(f"{name} inputs and targets", (*inputs, targets))
    return inputs, targets


def _tensors(name: str, value: Inputs, dtypes: set[torch.dtype]) -> tuple[Tensor, ...]:
    tensors = tuple(value) if isinstance(value, tuple | list) else (value,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be tensors (torch.as_tensor makes one), got {_kind(tensor)}")
        if dtypes and tensor.is_floating_point() and tensor.dtype not in dtypes:
            raise TypeError(
                f"{name} must be {' or '.join(sorted(map(str, dtypes)))} as the model's parameters are, "
                f"got {tensor.dtype}"
            )
    return tensors


def _check_lengths(name: str, tensors: tuple[Tensor, ...]) -> None:
    lengths = [len(tensor) if tensor.dim() else 0 for tensor in tensors]
    if not lengths or min(lengths) < 1 or len(set(lengths)) > 1:
        raise ValueError(
            f"{name} must hold the same number of examples, at least 1, "
            f"got {' and '.join(map(str, lengths)) or 'none'}"
        )


# The model and what it is trained with -------------------------------------------------------------------------


def _optimizer(
    choice: str | Callable[..., torch.optim.Optimizer], parameters: Iterable[Tensor], lr: float
) -> torch.optim.Optimizer:
    make = OPTIMIZERS.get(choice) if isinstance(choice, str) else choice
    if not callable(make):
        raise ValueError(
            f"optimizer must be one of {', '.join(OPTIMIZERS)} or a function of (parameters, lr=…), got {choice!r}"
        )
    made = make(parameters, lr=lr)
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {_kind(made)}")
    return made


def _factor(schedule: Callable[[int], float] | None, step: int) -> float:
    factor = 1.0 if schedule is None else float(schedule(step))
    if not 0 <= factor < math.inf:
        raise ValueError(f"schedule must return a finite factor, 0 or more, got {factor} at step {step}")
    return factor


def _one_number(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else _kind(value)
        raise ValueError(f"loss must return a tensor with one number, got {shape}")
    return value


@contextmanager
def _same_shape() -> Iterator[None]:
    """Raise where PyTorch's losses only warn: that they broadcast, and so compare each example with all others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        try:
            yield
        except UserWarning as problem:
            sizes = re.findall(r"Size\((\[[\d, ]*\])\)", str(problem))
            raise ValueError(f"targets must have the shape of the output, {sizes[1]}, got {sizes[0]}") from None


def _held_out_loss(model: nn.Module, held_out: Batch, loss: Loss, device: torch.device) -> float:
    inputs, targets = held_out
    with torch.no_grad():
        return _one_number(loss(_outputs(model, inputs, 256, device), targets.to(device))).item()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once, those that no ``state_dict`` holds included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _copy(state: dict) -> dict:
    return {key: x.detach().clone() if isinstance(x, Tensor) else x for key, x in state.items()}


@torch.no_grad()
def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, tensor in _state(model).items():
        tensor.copy_(values[name])


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...], batch_size: int, device: torch.device) -> Tensor:
    with _mode(model, training=False), torch.no_grad():
        outputs = [
            model(*(part.to(device) for part in parts))
            for parts in zip(*(x.split(batch_size) for x in inputs), strict=True)
        ]
    if not isinstance(outputs[0], Tensor):
        raise TypeError(f"model must return a tensor with one prediction per example, got {_kind(outputs[0])}")
    return torch.cat(outputs)


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Train or eval mode; afterwards each module is back in its own, whatever happened."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, before in modes:
            module.training = before


def _bar(start: int, steps: int, progress: bool) -> tqdm:
    """On stderr. Not ``tqdm.auto``: its widget would be an output of the notebook, and never the same twice."""
    hidden = not progress or os.environ.get("LSTM_LIB_PROGRESS") == "0"
    return tqdm(initial=start, total=steps, unit="step", leave=False, disable=hidden)


def _numbers(**values: float | None) -> list[float | None]:
    """As Python's own: ``lr`` and ``clip`` measure, ``seed`` is a whole number, the others count from 1."""
    found = []
    for name, value in values.items():
        kind, need = numbers.Integral, "a whole number, 1 or more"
        if name in ("lr", "clip"):
            kind, need = numbers.Real, "a finite number above 0"
        elif name == "seed":
            need = "a whole number from 0 to 2**64 − 1"
        if value is not None or name not in ("clip", "patience"):
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name} must be {need}, got {value!r}")
            value = float(value) if kind is numbers.Real else int(value)
            if not (0 <= value < 2**64 if name == "seed" else 0 < value < math.inf):
                raise ValueError(f"{name} must be {need}, got {value!r}")
        found.append(value)
    return found


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")

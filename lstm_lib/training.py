"""One plain training loop: clip, schedule, early stop, history, and a checkpoint to go on from.

Read :func:`fit` first, from top to bottom; everything else here serves one of its lines.
"""

from __future__ import annotations

import copy
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from lstm_lib.checkpoints import Checkpoint, load, save, settings

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

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


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
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    validation_step: list[int] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    stopped_early: bool = False

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

    def __repr__(self) -> str:
        loss = f", loss {self.loss[0]:.4g} → {self.loss[-1]:.4g}" if self.loss else ""
        best = f", best validation {self.best_loss:.4g} at {self.best_step}" if self.validation_loss else ""
        return f"History({len(self.loss)} steps{loss}{best}{', stopped early' if self.stopped_early else ''})"


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

    Parameters
    ----------
    model : torch.nn.Module or callable
        Called as ``model(inputs)``, or ``model(*inputs)`` where ``inputs`` is a tuple. With ``seeds``,
        ``model()`` returns a new model, whose recurrent layers are the library's (PyTorch's take no replicas).
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
        those known by name do. Not with ``checkpoint``.

    Returns
    -------
    History or list of (torch.nn.Module, History)
        With ``seeds``, each seed's model, in eval mode, and its history.

    Raises
    ------
    Diverged
        A :class:`FloatingPointError`: a loss, or the norm of a gradient, is infinite or NaN. Clipping does not
        repair that (NaN scaled is NaN); the update is not made, and the model keeps the weights from before it.
    ValueError, TypeError
        An argument without sense; a checkpoint that is damaged, of another model or of another run.

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
    _check_numbers(
        steps=steps,
        batch_size=batch_size,
        validate_every=validate_every,
        patience=patience,
        checkpoint_every=checkpoint_every,
        lr=lr,
        clip=clip,
        seed=seed,
    )
    if patience is not None and validation is None:
        raise ValueError(f"patience: got {patience} without a validation set, need validation=(inputs, targets)")
    if validation is not None and validate_every > steps:
        raise ValueError(f"validate_every: got {validate_every}, need at most steps={steps} to validate at all")
    device = find_device(device)
    if seeds is not None:
        if checkpoint is not None:
            raise ValueError(f"checkpoint: got {str(checkpoint)!r} with seeds, which leave none; need one of them")
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
        raise TypeError(f"model: got {_kind(model)}, need a torch.nn.Module (or, with seeds, a function)")
    dtypes = {p.dtype for p in model.parameters()}
    batch = _batches(train, batch_size, seed, dtypes)
    held_out = None if validation is None else _pair("validation", validation, dtypes)

    model.to(device)
    updater = _optimizer(optimizer, model.parameters(), lr)
    base_lr = [group["lr"] for group in updater.param_groups]
    history, best = History(), None

    with _randomness_of(seed, device):
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
                model.load_state_dict(saved["model"])
                updater.load_state_dict(saved["optimizer"])
                history, best = History(**saved["history"]), saved["best"]
                _set_random_state(device, saved["random"])

        model.train()
        step, patience = len(history.loss), math.inf if patience is None else patience
        with _bar(step, steps, progress) as bar:
            while step < steps and history.waited < patience:
                # Forward: how wrong is the model on this batch?
                inputs, targets = _to(device, *batch(step))
                error = _one_number(loss(model(*inputs), targets))
                value = error.item()
                if not math.isfinite(value):
                    raise Diverged(f"step {step}: the loss is {value}", history)

                # Backward: which way is better, and how steep is it?
                model.zero_grad()
                error.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip is None else clip).item()
                if not math.isfinite(norm):
                    raise Diverged(
                        f"step {step}: the norm of the gradient is {norm}, which no clipping repairs "
                        f"(the loss is {value:.4g})",
                        history,
                    )

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
                        raise Diverged(f"after step {step - 1}: the validation loss is {value}", history)
                    history.validation_step.append(step)
                    history.validation_loss.append(value)
                    if history.best_step == step:
                        best = {name: weight.clone() for name, weight in model.state_dict().items()}

                # Keep: all that the next step depends on, and the best weights.
                last = step == steps or history.waited >= patience
                if checkpoint is not None and (last or step % checkpoint_every == 0):
                    keeper.write(
                        model=model.state_dict(),
                        optimizer=updater.state_dict(),
                        history=asdict(history),
                        best=best,
                        random=_random_state(device),
                    )
                bar.set_postfix_str(f"loss {history.loss[-1]:.3g}", refresh=False)
                bar.update()

    if best is not None:
        model.load_state_dict(best)
    model.eval()
    history.stopped_early = step < steps
    return history


# Many seeds in one pass ----------------------------------------------------------------------------------------


def _build(build: Callable[[], nn.Module], seeds: Iterable[int], device: torch.device) -> dict[int, nn.Module]:
    """One model per seed, built under it."""
    seeds = list(seeds)
    for seed in seeds:
        _check_numbers(seed=seed)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: got {seeds}, need at least one, all different")
    if isinstance(build, nn.Module) or not callable(build):
        raise TypeError(f"model: got {_kind(build)} with seeds, need a function that builds a model")
    models = {}
    for seed in seeds:
        with _randomness_of(seed, torch.device("cpu")):
            models[seed] = build()
        if not isinstance(models[seed], nn.Module):
            raise TypeError(f"model: it returned {_kind(models[seed])}, need a torch.nn.Module")
        for name, module in models[seed].named_modules():
            if type(module) in (nn.LSTM, nn.GRU, nn.RNN):
                raise TypeError(
                    f"model: its {name or 'layer'} is PyTorch's {type(module).__name__}, whose kernel "
                    f"takes no replicas; need lstm_lib's {type(module).__name__}"
                )
        models[seed].to(device)
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
    skeleton = copy.deepcopy(replicas[0]).to("meta")
    dtypes = {p.dtype for p in weights.values()}
    batches = [_batches(train, batch_size, seed, dtypes) for seed in seeds]
    held_out = None if validation is None else _pair("validation", validation, dtypes)
    updater = _optimizer(optimizer, weights.values(), lr)
    base_lr = [group["lr"] for group in updater.param_groups]
    histories, best = [History() for _ in seeds], [None for _ in seeds]
    patience = math.inf if patience is None else patience

    def error(weights: dict, buffers: dict, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return _one_number(loss(functional_call(skeleton, (weights, buffers), inputs), targets)).squeeze()

    def output(weights: dict, buffers: dict, inputs: tuple[Tensor, ...]) -> Tensor:
        return functional_call(skeleton, (weights, buffers), inputs)

    def finite(values: list[float], what: str, of: Iterable[int]) -> None:
        for k in of:
            if not math.isfinite(values[k]):
                raise Diverged(f"seed {seeds[k]}, {what} is {values[k]}", histories[k])

    with _randomness_of(seeds[0], device), _bar(0, steps, progress) as bar:
        skeleton.train()
        running = list(range(len(seeds)))  # replicas that still learn; those that stopped go along unrecorded
        for step in range(steps):
            inputs, targets = zip(*(_to(device, *batch(step)) for batch in batches), strict=True)
            inputs = tuple(torch.stack(parts) for parts in zip(*inputs, strict=True))
            errors = vmap(error, randomness="different")(weights, buffers, inputs, torch.stack(targets))
            finite(losses := errors.tolist(), f"step {step}: the loss", running)

            updater.zero_grad()
            errors.sum().backward()  # no replica's loss depends on another's weights
            grads = [p.grad for p in weights.values() if p.grad is not None]
            norm = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
            finite(
                norms := norm.tolist(),
                f"step {step}: the norm of the gradient, which no clipping repairs,",
                running,
            )
            if clip is not None:
                shorter = (clip / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
                for g in grads:
                    g.mul_(shorter.view(-1, *[1] * (g.dim() - 1)))

            for group, base in zip(updater.param_groups, base_lr, strict=True):
                group["lr"] = base * _factor(schedule, step)
            updater.step()
            for k in running:
                histories[k].loss.append(losses[k])
                histories[k].lr.append(float(updater.param_groups[0]["lr"]))
                histories[k].grad_norm.append(norms[k])

            if held_out is not None and (step + 1) % validate_every == 0:
                skeleton.eval()
                with torch.no_grad():
                    parts = [
                        vmap(output, in_dims=(0, 0, None), randomness="different")(
                            weights, buffers, tuple(part.to(device) for part in parts)
                        )
                        for parts in zip(*(x.split(256) for x in held_out[0]), strict=True)
                    ]
                    outputs, wanted = torch.cat(parts, 1), held_out[1].to(device)
                    values = [_one_number(loss(outputs[k], wanted)).item() for k in range(len(seeds))]
                skeleton.train()
                finite(values, f"after step {step}: the validation loss", running)
                for k in running:
                    histories[k].validation_step.append(step + 1)
                    histories[k].validation_loss.append(values[k])
                    if histories[k].best_step == step + 1:
                        best[k] = _replica(k, weights, buffers)
                running = [k for k in running if histories[k].waited < patience]
                if not running:
                    break
            bar.update()

    for k, (model, history) in enumerate(zip(replicas, histories, strict=True)):
        model.load_state_dict(_replica(k, weights, buffers) if best[k] is None else best[k])
        model.eval()
        history.stopped_early = len(history.loss) < steps
    return list(zip(replicas, histories, strict=True))


def _replica(k: int, *stacked: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[k].detach().clone() for state in stacked for name, value in state.items()}


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
    _check_numbers(batch_size=batch_size)
    inputs = _tensors("inputs", inputs, {p.dtype for p in model.parameters()})
    _check_lengths("inputs", inputs)
    if device is not None:
        model.to(find_device(device))
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    return _outputs(model, inputs, batch_size, place).cpu()


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name.

    Parameters
    ----------
    name : str or torch.device
        ``"auto"`` (CUDA where there is one, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` …

    Returns
    -------
    torch.device
        With its number, where it has one.

    Raises
    ------
    ValueError
        If there is no such device here.

    Examples
    --------
    >>> find_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=torch.device(name)).device
    except (RuntimeError, AssertionError, TypeError) as problem:
        here = ["auto", "cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
        raise ValueError(f"device: got {str(name)!r}, need one that is here: {', '.join(here)}") from problem


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
        raise TypeError(f"{name}: got {_kind(pair)}, need (inputs, targets)")
    inputs, (targets,) = _tensors(f"{name} inputs", pair[0], dtypes), _tensors(f"{name} targets", pair[1], dtypes)
    if same_length:
        _check_lengths(f"{name} inputs and targets", (*inputs, targets))
    return inputs, targets


def _tensors(name: str, value: Inputs, dtypes: set[torch.dtype]) -> tuple[Tensor, ...]:
    tensors = tuple(value) if isinstance(value, tuple | list) else (value,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {_kind(tensor)}, need a tensor (torch.as_tensor makes one)")
        if dtypes and tensor.is_floating_point() and tensor.dtype not in dtypes:
            raise TypeError(
                f"{name}: got {tensor.dtype}, need {' or '.join(sorted(map(str, dtypes)))} "
                "as the model's parameters have it"
            )
    return tensors


def _check_lengths(name: str, tensors: tuple[Tensor, ...]) -> None:
    lengths = [len(tensor) if tensor.dim() else 0 for tensor in tensors]
    if not lengths or min(lengths) < 1 or len(set(lengths)) > 1:
        raise ValueError(
            f"{name}: got {' and '.join(map(str, lengths)) or 'no'} examples, "
            "need the same number in each, at least 1"
        )


# The model and what it is trained with -------------------------------------------------------------------------


def _optimizer(
    choice: str | Callable[..., torch.optim.Optimizer], parameters: Iterable[Tensor], lr: float
) -> torch.optim.Optimizer:
    make = OPTIMIZERS.get(choice) if isinstance(choice, str) else choice
    if not callable(make):
        raise ValueError(
            f"optimizer: got {choice!r}, need one of {', '.join(OPTIMIZERS)}, or a function of (parameters, lr=…)"
        )
    made = make(parameters, lr=lr)
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(f"optimizer: it returned {_kind(made)}, need a torch.optim.Optimizer")
    return made


def _factor(schedule: Callable[[int], float] | None, step: int) -> float:
    factor = 1.0 if schedule is None else float(schedule(step))
    if not 0 <= factor < math.inf:
        raise ValueError(f"schedule: got {factor} at step {step}, need a finite factor, 0 or more")
    return factor


def _one_number(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else _kind(value)
        raise ValueError(f"loss: it returned {shape}, need a tensor with one number")
    return value


def _held_out_loss(model: nn.Module, held_out: Batch, loss: Loss, device: torch.device) -> float:
    inputs, targets = held_out
    with torch.no_grad():
        return _one_number(loss(_outputs(model, inputs, 256, device), targets.to(device))).item()


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...], batch_size: int, device: torch.device) -> Tensor:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            outputs = [
                model(*(part.to(device) for part in parts))
                for parts in zip(*(x.split(batch_size) for x in inputs), strict=True)
            ]
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(outputs[0], Tensor):
        raise TypeError(f"model: it returned {_kind(outputs[0])}, need a tensor with one prediction per example")
    return torch.cat(outputs)


def _bar(start: int, steps: int, progress: bool) -> tqdm:
    """On stderr. Not ``tqdm.auto``: its widget would be an output of the notebook, and never the same twice."""
    hidden = not progress or os.environ.get("LSTM_LIB_PROGRESS") == "0"
    return tqdm(initial=start, total=steps, unit="step", leave=False, disable=hidden)


def _check_numbers(**numbers: float | None) -> None:
    """``lr`` and ``clip`` measure, ``seed`` is a whole number, the others count and start at 1."""
    for name, value in numbers.items():
        if value is None and name in ("clip", "patience"):
            continue
        kind, need = int, "a whole number, 1 or more"
        if name in ("lr", "clip"):
            kind, need = float | int, "a finite number above 0"
        elif name == "seed":
            need = "a whole number, 0 or more"
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name}: got {value!r}, need {need}")
        if not (0 < value < math.inf or (value == 0 and name == "seed")):
            raise ValueError(f"{name}: got {value!r}, need {need}")


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


# Randomness ----------------------------------------------------------------------------------------------------


@contextmanager
def _randomness_of(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers that follow from the seed; afterwards the caller's go on as if nothing had been."""
    callers = _random_state(device)
    _set_random_state(device, {name: torch.Generator(name).manual_seed(seed).get_state() for name in callers})
    try:
        yield
    finally:
        _set_random_state(device, callers)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def _set_random_state(device: torch.device, state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])

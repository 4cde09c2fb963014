"""Weights and training runs in files: written whole or not at all, read without executing anything in them.

:func:`save` writes a model's ``state_dict``, never the model itself, which is code as well as numbers. What
``torch.save(model, path)`` wrote is read with ``weights_only=True`` once each class in it is said to be safe: a
layer's own, and for a variant of ``LSTM`` two more.

>>> from lstm_lib import LSTM, cells
>>> file = BytesIO()
>>> torch.save(LSTM(3, 5, peephole=True), file)
>>> with torch.serialization.safe_globals([LSTM, cells.LSTMVariant, frozenset]):  # or add_safe_globals, for good
...     layer = torch.load(BytesIO(file.getvalue()), weights_only=True)
>>> layer.weight_co_l0.shape
torch.Size([5])
"""

from __future__ import annotations

import copy
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

from lstm_lib import files

FORMAT = "lstm_lib checkpoint 1"
"""What a checkpoint says of itself."""

ENTRIES = {
    **dict.fromkeys(("settings", "model", "optimizer", "history", "random"), dict),
    "best": dict | None,
    **dict.fromkeys(("loss", "lr", "grad_norm", "validation_step", "validation_loss"), list),
}
"""What else it holds, and of which kind; lists are its history's."""

RENEW = "delete it to start the run anew, or put a whole copy in its place"


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model's weights to a file, whole or not at all.

    Parameters
    ----------
    model : torch.nn.Module
    path : path
        The file; its folder is made if need be. It holds the plain ``model.state_dict()``, so
        ``torch.load(path, weights_only=True)`` reads it as well as :func:`load`.

    Raises
    ------
    ValueError
        If the model has extra state (``get_extra_state``) that ``weights_only=True`` does not read. No file is
        written.

    Examples
    --------
    >>> import tempfile
    >>> first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(first, f"{folder}/weights.pt")
    ...     load(second, f"{folder}/weights.pt")
    >>> torch.equal(first.weight, second.weight)
    True
    """
    files.write(path, _packed("model", model.state_dict()))


def load(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Read weights that :func:`save` wrote into a model of the same shape, on whatever device that is.

    Parameters
    ----------
    model : torch.nn.Module
    path : path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, holds no weights, or those of another model; it says what differs.

    After this or any other error, such as one of the model's own ``set_extra_state``, the model is as it was.
    """
    state = _read("path", path, "save or fetch it again")
    if not isinstance(state, dict) or not all(isinstance(state[k], Tensor) or _is_extra(k) for k in state):
        kind = "a checkpoint of fit (which only fit reads)" if _is_checkpoint(state) else "something else"
        raise ValueError(f"path must hold the weights of a model, as save writes them, got {kind} in {path}")
    _check_same("path", path, _differences(state, model))
    restore(model, state)


def restore(model: nn.Module, state: dict) -> None:
    """Load a ``state_dict``, or leave the model as it was and raise what went wrong.

    Parameters
    ----------
    model : torch.nn.Module
    state : dict
    """
    before = copy.deepcopy(model.state_dict())
    try:
        model.load_state_dict(state)
    except BaseException:
        model.load_state_dict(before)
        raise


class Checkpoint:
    """The file that keeps a run of :func:`lstm_lib.training.fit`.

    Parameters
    ----------
    path : path
        The file, of one run at a time; it need not exist yet, and its folder is made. What a killed run left
        beside it, half written, is removed.
    settings : dict
        What decides the run's numbers, as :func:`settings` tells it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict) -> None:
        self.path, self.settings = Path(path), settings
        if self.path.is_dir():
            raise ValueError(f"checkpoint must be the name of a file, got the folder {path}")
        self.path.parent.mkdir(parents=True, exist_ok=True)  # where that fails, no step is lost
        for part in files.leftovers(self.path):
            part.unlink(missing_ok=True)

    def write(self, **state: object) -> None:
        """Put this state in the place of the last one."""
        state["optimizer"] = _plain(state["optimizer"])
        content = {"format": FORMAT, "settings": self.settings, **state}
        files.write(self.path, _packed("model and optimizer", content))

    def read(self, model: nn.Module, steps: int, lr: Callable[[int], float]) -> dict | None:
        """The last state, or None if there is no file yet.

        Parameters
        ----------
        model : torch.nn.Module
            The model to go on with. It is not changed.
        steps : int
            How far to go.
        lr : callable
            The learning rate at a step, to be compared with that of the steps already made.

        Raises
        ------
        ValueError
            If the file is damaged, or of another model or run; it says what differs. If there is none, and none
            could be written of this model that can be read again.
        """
        if not self.path.exists():
            _packed("model and optimizer", [self.settings, model.state_dict()])
            return None
        saved = _read("checkpoint", self.path, RENEW)
        if not _is_checkpoint(saved):
            raise ValueError(
                f"checkpoint must be a file that fit wrote, or none, got something else in {self.path}"
            )
        with self.whole():
            history = saved["history"]
            for name, kind in ENTRIES.items():
                if not isinstance(entry := history[name] if kind is list else saved[name], kind):
                    raise TypeError(f"{name} is of type {type(entry).__name__}")
            states = [state for state in (saved["model"], saved["best"]) if state is not None]
            other = [line for state in states for line in _differences(state, model)]
        _check_same("checkpoint", self.path, other)
        differ = []
        for name in {**saved["settings"], **self.settings}:
            then, now = saved["settings"].get(name), self.settings.get(name)
            if not _same(then, now):
                differ.append(f"{name}: {_only(then, now)} then, {_only(now, then)} now")
        for step, rate in enumerate(history["lr"]):
            if not differ and lr(step) != rate:
                differ.append(f"schedule: lr {rate} at step {step} then, {lr(step)} now")
        if (done := len(history["loss"])) > steps:
            differ.append(f"steps: {done} done then, {steps} asked for now")
        if differ:
            raise ValueError(
                f"checkpoint must be of a run with the same arguments, got {self.path} of another run:\n  "
                + "\n  ".join(differ)
                + "\n(delete the file to start anew)"
            )
        return saved

    def whole(self) -> AbstractContextManager[None]:
        """A context in which all that goes wrong is a ``ValueError``: the file is damaged."""
        return _whole("checkpoint", self.path, RENEW)


def settings(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable,
    data: dict[str, tuple[tuple[Tensor, ...], Tensor] | None],
    **others: float | None,
) -> dict:
    """What decides a run's numbers, as plain values: functions by their names, data by shape and mean size.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
        Before its first step.
    loss : callable
    data : dict
        By name, ``(inputs, targets)`` that tell one data set from another, or None.
    **others
        Numbers, taken as they are.

    Returns
    -------
    dict
        With one entry per setting; an error names it by its key.

    Examples
    --------
    >>> line = nn.Linear(2, 1)
    >>> found = settings(line, torch.optim.SGD(line.parameters(), lr=0.1), nn.functional.mse_loss, {}, seed=0)
    >>> found["seed"], found["optimizer"], found["lr"], found["momentum"], found["loss"]
    (0, 'SGD', 0.1, 0, 'mse_loss')
    """
    found = {**others, "optimizer": type(optimizer).__name__}
    for number, group in enumerate(optimizer.param_groups):
        where = f" of parameter group {number}" if number else ""
        found |= {name + where: value for name, value in group.items() if name != "params"}
    found |= {"loss": getattr(loss, "__qualname__", type(loss).__qualname__), "model": repr(model)}
    for name, pair in data.items():
        for number, tensor in enumerate((*pair[0], pair[1]) if pair else ()):
            what = f"{name} inputs {number}" if number < len(pair[0]) else f"{name} targets"
            found[what] = _describe(tensor)
            found[f"{what}, mean size"] = tensor.cpu().double().nan_to_num().abs().mean().item()
    return _plain(found)


def _same(then: object, now: object) -> bool:
    """Equal; or all but equal, for a mean may differ in its last digits from machine to machine."""
    if isinstance(then, float) and isinstance(now, float):
        return math.isclose(then, now, rel_tol=1e-6)
    return then == now


def _only(text: object, other: object) -> str:
    """The value; of one that takes many lines (a model) only those that the other lacks."""
    lines = str(text).splitlines()
    return str(text) if len(lines) < 2 else " ".join(x.strip() for x in lines if x not in str(other).splitlines())


def _plain(value: object) -> object:
    """NumPy's numbers as Python's, for ``weights_only=True`` reads no others."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value.item() if hasattr(value, "item") and not isinstance(value, Tensor) else value


def _is_checkpoint(content: object) -> bool:
    return isinstance(content, dict) and content.get("format") == FORMAT


def _is_extra(name: object) -> bool:
    """Whether an entry of a ``state_dict`` is from a module's ``get_extra_state``: not a tensor, as it may be."""
    return str(name).rpartition(".")[2] == "_extra_state"


def _differences(state: dict, model: nn.Module) -> list[str]:
    """Which entries are not those of the model, in words."""
    there, here = (
        {name: "extra state" if _is_extra(name) else _describe(value) for name, value in entries.items()}
        for entries in (state, model.state_dict())
    )
    return [
        f"{name}: {there.get(name, 'absent')} in the file, {here.get(name, 'absent')} in the model"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]


def _check_same(name: str, path: str | os.PathLike[str], differ: list[str]) -> None:
    if differ:
        raise ValueError(
            f"{name} must hold the weights of this model, got {path} of another model:\n  " + "\n  ".join(differ)
        )


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "")


def _packed(name: str, content: object) -> bytes:
    """As a file's bytes, which can be read again without executing anything, or else ``name`` is to blame."""
    file = BytesIO()
    try:
        torch.save(content, file)
        torch.load(BytesIO(file.getvalue()), map_location="cpu", weights_only=True)
    except Exception as problem:
        raise ValueError(
            f"{name} must hold tensors and plain values, which weights_only=True reads, got others ({problem})"
        ) from problem
    return file.getvalue()


def _read(name: str, path: str | os.PathLike[str], advice: str) -> object:
    content = BytesIO(Path(path).read_bytes())
    with _whole(name, path, advice):
        with zipfile.ZipFile(content) as records:  # torch.load compares no checksums
            if broken := records.testzip():
                raise zipfile.BadZipFile(f"{broken} fails its checksum")
        content.seek(0)
        return torch.load(content, map_location="cpu", weights_only=True)


@contextmanager
def _whole(name: str, path: str | os.PathLike[str], advice: str) -> Iterator[None]:
    try:
        yield
    except Exception as problem:
        raise ValueError(
            f"{name} must be a whole file of PyTorch's, got {path}, which is damaged or something else "
            f"({type(problem).__name__}: {problem}); {advice}"
        ) from problem

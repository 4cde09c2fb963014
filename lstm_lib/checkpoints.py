"""Weights and training runs in files: written whole or not at all, read without executing anything in them."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

FORMAT = "lstm_lib checkpoint 1"
"""What a checkpoint says of itself."""


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model's weights to a file, whole or not at all.

    Parameters
    ----------
    model : torch.nn.Module
    path : path
        The file; its folder is made if need be. It holds the plain ``model.state_dict()``, so
        ``torch.load(path, weights_only=True)`` reads it as well as :func:`load`.

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
    _write(Path(path), model.state_dict())


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
        If it is damaged, holds no weights, or those of another model; it says what differs. The model is then as
        it was.
    """
    state = _read(Path(path), "save or fetch it again")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        kind = "a checkpoint of fit, which only fit reads" if _is_checkpoint(state) else "something else"
        raise ValueError(f"path: {path} holds {kind}; need the weights of a model, as save writes them")
    _check_same_model(path, state, model)
    model.load_state_dict(state)


class Checkpoint:
    """The file that keeps a run of :func:`lstm_lib.training.fit`.

    Parameters
    ----------
    path : path
        The file; it need not exist yet. What a killed run left beside it, half written, is removed.
    settings : dict
        What decides the run's numbers, as :func:`settings` tells it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict) -> None:
        self.path, self.settings = Path(path), settings
        if self.path.is_dir():
            raise ValueError(f"checkpoint: {path} is a folder, need the name of a file")
        _part(self.path).unlink(missing_ok=True)

    def write(self, **state: object) -> None:
        """Put this state in the place of the last one."""
        state["optimizer"] = _plain(state["optimizer"])
        _write(self.path, {"format": FORMAT, "settings": self.settings, **state})

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
            If the file is damaged, or of another model or run; it says what differs.
        """
        if not self.path.exists():
            return None
        saved = _read(self.path, "delete it to start the run anew, or put a whole copy in its place")
        if not _is_checkpoint(saved):
            raise ValueError(f"checkpoint: {self.path} holds something else; need a file that fit wrote, or none")
        _check_same_model(self.path, saved["model"], model)
        differ = []
        for name in {**saved["settings"], **self.settings}:
            then, now = saved["settings"].get(name), self.settings.get(name)
            if not _same(then, now):
                differ.append(f"{name}: {_only(then, now)} then, {_only(now, then)} now")
        for step, rate in enumerate(saved["history"]["lr"]):
            if not differ and lr(step) != rate:
                differ.append(f"schedule: lr {rate} at step {step} then, {lr(step)} now")
        done = len(saved["history"]["loss"])
        if done > steps:
            differ.append(f"steps: {done} done then, {steps} asked for now")
        if differ:
            raise ValueError(
                f"checkpoint: {self.path} is of another run:\n  "
                + "\n  ".join(differ)
                + "\nneed the same arguments, or another file (delete this one to start anew)"
            )
        return saved


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


def _check_same_model(path: str | os.PathLike[str], state: dict[str, Tensor], model: nn.Module) -> None:
    ours = model.state_dict()
    differ = [
        f"{name}: {_describe(state.get(name))} in the file, {_describe(ours.get(name))} in the model"
        for name in {**state, **ours}
        if _describe(state.get(name)) != _describe(ours.get(name))
    ]
    if differ:
        raise ValueError(f"model: {path} holds the weights of another model:\n  " + "\n  ".join(differ))


def _describe(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "")


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _write(path: Path, content: dict) -> None:
    """Write beside the file, to the disk, then rename: at every instant the name stands for all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)  # always the same name, so that killed runs leave one at most
    try:
        with open(part, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _read(path: Path, advice: str) -> object:
    content = BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as records:  # torch.load compares no checksums
            if broken := records.testzip():
                raise zipfile.BadZipFile(f"{broken} fails its checksum")
        content.seek(0)
        return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise ValueError(f"{path} is damaged, or no file of PyTorch's ({problem}): {advice}") from problem

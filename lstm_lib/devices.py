"""Where the numbers are computed, and where the random ones come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["find_device", "random_state", "seeded", "set_random_state"]


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
        If there is no such device here, or it computes nothing (``"meta"``).

    Examples
    --------
    >>> find_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.zeros((), device=torch.device(name))
        probe.item()
    except (RuntimeError, AssertionError, TypeError) as problem:
        here = ["auto", "cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
        raise ValueError(f"device must be one that is here ({', '.join(here)}), got {str(name)!r}") from problem
    return probe.device


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers that follow from a seed; afterwards the caller's go on as if nothing had been.

    Parameters
    ----------
    seed : int
    device : torch.device
        Whose numbers they are, and the CPU's too.

    Examples
    --------
    >>> cpu = torch.device("cpu")
    >>> with seeded(3, cpu):
    ...     first = torch.rand(2)
    >>> with seeded(3, cpu):
    ...     torch.equal(first, torch.rand(2))
    True
    """
    callers = random_state(device)
    set_random_state(device, {name: torch.Generator(name).manual_seed(seed).get_state() for name in callers})
    try:
        yield
    finally:
        set_random_state(device, callers)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Where PyTorch's random numbers stand, on the CPU and on ``device``: for :func:`set_random_state`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(device: torch.device, state: dict[str, Tensor]) -> None:
    """Go on from a :func:`random_state`. It may come from a device of another kind: then only the CPU's counts."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])

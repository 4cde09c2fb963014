"""What is refused, in one dialect: "x must be …, got …"."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

if TYPE_CHECKING:  # the other way round: cells check their options here
    from lstm_lib.cells import Cell

GATES = frozenset({"input", "forget", "output", "input_activation", "output_activation"})
"""What an LSTM can be ``without``."""


class InputError(ValueError, TypeError, RuntimeError):
    """A layer was called with what it cannot run on.

    It is a ``ValueError`` and a ``TypeError`` as Python has them, and a ``RuntimeError`` as ``torch.nn``'s layers
    raise it: code that catches any of the three goes on working.
    """


def flag(name: str, value: object) -> None:
    """Refuse what is not True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_came(value)}")


def whole(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not a whole number of at least ``least``."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {_came(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {_came(value)}")


def probability(name: str, value: object, certain: bool = False) -> None:
    """Refuse what is not a number from 0 to below 1, or to 1 where that is allowed."""
    need = f"{name} must be a number from 0 to {'1' if certain else 'below 1'}, got {_came(value)}"
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(need)
    if not (0 <= value < 1 or (certain and value == 1)):
        raise ValueError(need)


def check_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Refuse an option of a layer that has the wrong type or range.

    Parameters
    ----------
    arguments : dict
        A constructor's ``locals()``, or some options by name.

    Returns
    -------
    dict
        The options, as PyTorch's constructor takes them.

    Raises
    ------
    TypeError, ValueError
    """
    options = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
    for name, value in options.items():
        if name in ("input_size", "hidden_size", "num_layers", "proj_size"):
            whole(name, value, least=0 if name == "proj_size" else 1)
            if name == "proj_size" and value >= options["hidden_size"]:
                size = options["hidden_size"]
                raise ValueError(f"proj_size must be smaller than hidden_size = {size}, got {_came(value)}")
        elif name in ("bias", "batch_first", "bidirectional", "residual"):
            flag(name, value)
        elif name in ("dropout", "weight_drop"):
            probability(name, value, certain=name == "dropout")
        elif name == "nonlinearity" and value not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {_came(value)}")
        elif name == "dtype" and value is not None:
            if not isinstance(value, torch.dtype):
                raise TypeError(f"dtype must be a torch.dtype, got {_came(value)}")
            if not (value.is_floating_point or value.is_complex):
                raise ValueError(f"dtype must be a floating-point type, got {_came(value)}")
    return options


def check_variant(
    peephole: bool, coupled: bool, layer_norm: bool, zoneout: object, variational_dropout: float, without: object
) -> tuple[tuple[float, float], frozenset[str]]:
    """Refuse the options of an LSTM's variant that have the wrong type or range, or contradict each other.

    Returns
    -------
    zoneout : tuple of float
    without : frozenset of str

    Raises
    ------
    TypeError, ValueError
    """
    for name, value in (("peephole", peephole), ("coupled", coupled), ("layer_norm", layer_norm)):
        flag(name, value)
    if not isinstance(zoneout, tuple | list) or len(zoneout) != 2:
        raise TypeError(f"zoneout must be two probabilities (p_h, p_c), got {zoneout!r}")
    for p in zoneout:
        probability("zoneout", p)
    probability("variational_dropout", variational_dropout)
    if isinstance(without, str) or not isinstance(without, Iterable):
        raise TypeError(f"without must be a set of names, as {{'forget'}}; got {without!r}")
    without = frozenset(without)
    gone = without & {"input", "forget", "output"}
    if unknown := without - GATES:
        raise ValueError(f"without must be among {sorted(GATES)}, got {sorted(map(str, unknown))}")
    if coupled and gone - {"output"}:
        raise ValueError(
            f"coupled sets i = 1 − f, so it needs both gates; without takes away {sorted(gone - {'output'})}"
        )
    if peephole and len(gone) == 3:
        raise ValueError("peephole lets the gates see the cell, and without leaves no gate that could")
    return tuple(zoneout), without


def check_call(
    cell: Cell, layer: nn.RNNBase, input: Tensor | PackedSequence, hx: object = None, weight: Tensor | None = None
) -> None:
    """Refuse what a layer cannot run on; a few microseconds where all is well.

    Parameters
    ----------
    cell : Cell
        The unit, which knows its states.
    layer : torch.nn.RNNBase
    input, hx
        What the layer is called with. Under autocast, any two of the dtypes that it converts go together.
    weight : Tensor, optional
        One of the layer's weights, for device and dtype, where it is known: reading it may compute it anew.

    Raises
    ------
    InputError
        The message names the argument, what it must be and what came.
    """
    weight = layer.weight_ih_l0 if weight is None else weight
    states = dict(zip(cell.states, cell.sizes(layer), strict=True))
    batch_sizes = None
    if isinstance(input, PackedSequence):
        data, batch_sizes = input.data, input.batch_sizes
    elif isinstance(input, Tensor):
        data = input
    else:
        raise InputError(f"input must be a Tensor or a PackedSequence, got {type(input).__name__}")
    shape = data.shape
    if len(shape) not in ((2,) if batch_sizes is not None else (2, 3)) or shape[-1] != layer.input_size:
        dims, size = "batch, seq_len" if layer.batch_first else "seq_len, batch", layer.input_size
        came = "shape" if batch_sizes is None else "packed data of shape"
        raise InputError(
            f"input must be ({dims}, {size}), unbatched (seq_len, {size}) or packed; got {came} {tuple(shape)}"
        )
    batched = len(shape) == 3
    if shape[1 if batched and layer.batch_first else 0] == 0:
        raise InputError(f"input must have at least one time step, got shape {tuple(shape)}: seq_len is 0")
    if data.device != weight.device:
        raise InputError(f"input must be on {weight.device} as the layer is, got {data.device}")
    if data.dtype != weight.dtype and not (_autocasts(data) and _autocasts(weight)):
        raise InputError(f"input must be {weight.dtype} as the layer is, got {data.dtype}")
    if hx is None:
        return

    given = (hx,) if len(states) == 1 else hx
    if (
        not isinstance(given, tuple | list | Tensor)
        or (isinstance(given, Tensor) and given.dim() == 0)
        or len(given) != len(states)
        or not all(isinstance(s, Tensor) for s in given)
    ):
        names = ", ".join(f"{name}_0" for name in states)
        wanted = "a Tensor" if len(states) == 1 else f"a tuple ({names}) of Tensors"
        came = type(hx).__name__
        if isinstance(hx, tuple | list):
            came += f" of {len(hx)}: ({', '.join(type(s).__name__ for s in hx)})"
        raise InputError(f"hx must be {wanted}, got {came}")
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    if batch_sizes is not None:
        batch = (int(batch_sizes[0]),)
    else:
        batch = (shape[0 if layer.batch_first else 1],) if batched else ()
    for (name, size), s in zip(states.items(), given, strict=True):
        if s.shape != (rows, *batch, size):
            dims = "num_layers × num_directions, " + ("batch, " if batch else "") + "size"
            raise InputError(
                f"hx: {name}_0 must be ({dims}) = {(rows, *batch, size)}, got {tuple(s.shape)}"
                + (" (batch_first does not apply to hx)" if layer.batch_first else "")
            )
        if s.device != data.device:
            raise InputError(f"hx: {name}_0 must be on {data.device} as input is, got {s.device}")
        if s.dtype != data.dtype and not (_autocasts(s) and _autocasts(data)):
            raise InputError(f"hx: {name}_0 must be {data.dtype} as input is, got {s.dtype}")


def check_sequence(layer: nn.Module, x: object, states: dict[str, tuple[object, tuple[int, ...]]]) -> None:
    """Refuse what a layer of one direction, which takes no packed sequences, cannot run on.

    Parameters
    ----------
    layer : torch.nn.Module
        With ``weight_ih_l0``, ``input_size`` and ``batch_first``.
    x
        What it is to read.
    states : dict
        Each initial state that is given, by name: what came, and its shape for one sequence.

    Raises
    ------
    TypeError, ValueError
    """
    weight = layer.weight_ih_l0
    for name, t in {"x": x, **{name: s for name, (s, _) in states.items()}}.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a Tensor, got {type(t).__name__}")
        if t.device != weight.device:
            raise ValueError(f"{name} must be on {weight.device} as the layer is, got {t.device}")
        if t.dtype != weight.dtype and not (_autocasts(t) and _autocasts(weight)):
            raise ValueError(f"{name} must be {weight.dtype} as the layer is, got {t.dtype}")
    batched = x.dim() == 3
    if x.dim() not in (2, 3) or x.shape[-1] != layer.input_size or x.shape[batched and layer.batch_first] == 0:
        dims, size = "batch, seq_len" if layer.batch_first else "seq_len, batch", layer.input_size
        need = f"({dims}, {size}) or unbatched (seq_len, {size}), seq_len at least 1"
        raise ValueError(f"x must be {need}, got {tuple(x.shape)}")
    batch = (x.shape[0 if layer.batch_first else 1],) if batched else ()
    for name, (s, size) in states.items():
        if s.shape != (1, *batch, *size):
            raise ValueError(f"{name} must be {(1, *batch, *size)}, got {tuple(s.shape)}")


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast makes of ``x``; None where it leaves it alone, as it leaves double precision."""
    return torch.get_autocast_dtype(x.device.type) if _autocasts(x) else None


def _autocasts(x: Tensor) -> bool:
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # not known for "meta"
    return on and x.is_floating_point() and x.dtype != torch.float64


def _came(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"

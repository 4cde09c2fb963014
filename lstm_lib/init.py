"""How a layer starts: forget bias, chrono initialization, orthogonal recurrence; all in place."""

import math
import numbers

import torch
from torch import Tensor, nn

from lstm_lib import cells


@torch.no_grad()
def forget_bias_(layer: nn.LSTM, value: float = 1.0) -> nn.LSTM:
    """Set the bias of every forget gate, so that an undisturbed cell keeps σ(``value``) of itself in each step.

    PyTorch's LSTM has two biases that add, ``bias_ih`` and ``bias_hh``. Their *sum* is set: ``bias_ih`` gets
    ``value`` and ``bias_hh`` zero. Half of a cell is left after ln 2 / −ln σ(``value``) steps: 1 step at 0 (about
    where PyTorch starts), 2.2 at 1, 14 at 3, 280 at 6.

    Parameters
    ----------
    layer : torch.nn.LSTM
        Changed in place, all layers and directions.
    value : float
        The bias b of f = σ(… + b). 1 is the usual advice: Gers, Schmidhuber & Cummins 2000 began with positive
        biases, Jozefowicz, Zaremba & Sutskever 2015 measured what a 1 brings.

    Returns
    -------
    torch.nn.LSTM
        ``layer``.

    Raises
    ------
    TypeError
        If ``layer`` is not an LSTM, or ``value`` not a number.
    ValueError
        If it has no bias or is without its forget gate, or ``value`` is not finite.

    Examples
    --------
    >>> layer = forget_bias_(nn.LSTM(3, 2), 1.0)
    >>> (layer.bias_ih_l0 + layer.bias_hh_l0)[2:4]  # the blocks are i, f, g, o
    tensor([1., 1.], grad_fn=<SliceBackward0>)
    """
    _check_gate(layer, "f")
    _check_number("value", value)
    if not math.isfinite(value):
        raise ValueError(f"value must be finite, got {value}")
    for suffix in _suffixes(layer):
        _set_bias(layer, suffix, "f", value)
    return layer


@torch.no_grad()
def chrono_(layer: nn.RNNBase, max_lag: float, generator: torch.Generator | None = None) -> nn.RNNBase:
    """Give the units memories of all lengths up to ``max_lag``: chrono initialization, Tallec & Ollivier 2018.

    A gate of value f forgets over about 1 / (1 − f) steps. For that to be T it needs f = 1 − 1/T, hence a bias
    b = ln(f / (1 − f)) = ln(T − 1). With T spread evenly from 2 to ``max_lag``:

    - LSTM: b_f ~ ln U(1, ``max_lag`` − 1) and b_i = −b_f, so that i starts near 1 − f.
    - GRU: PyTorch's update gate keeps, h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t−1}, so z stands where f does and 1 − z
      where i does, and b_z ~ ln U(1, ``max_lag`` − 1). Where a gate overwrites, as in many texts, the sign is
      minus.

    As in :func:`forget_bias_` it is the sum of PyTorch's two biases that is set. All other parameters stay.

    Parameters
    ----------
    layer : torch.nn.LSTM or torch.nn.GRU
        Changed in place, all layers and directions.
    max_lag : float
        The longest dependency to expect, in steps, at least 2: T_max of the paper.
    generator : torch.Generator, optional
        Where the draws come from; PyTorch's default generator of the CPU if not given, so that a layer starts the
        same on every device.

    Returns
    -------
    torch.nn.RNNBase
        ``layer``.

    Raises
    ------
    TypeError
        If ``layer`` is an RNN, which has no gate to set, or ``max_lag`` is not a number.
    ValueError
        If it has no bias or is without its forget gate, or ``max_lag`` is below 2 or not finite.

    Examples
    --------
    >>> layer = chrono_(nn.LSTM(3, 64), 100)
    >>> forget = (layer.bias_ih_l0 + layer.bias_hh_l0)[64:128]
    >>> bool(forget.min() >= 0), bool(forget.max() <= math.log(99))
    (True, True)
    """
    keep = next((gate for gate in ("f", "z") if gate in cells.of(layer).blocks), "f")
    _check_gate(layer, keep)
    _check_number("max_lag", max_lag)
    if not 2 <= max_lag < math.inf:
        raise ValueError(f"max_lag must be a finite number of steps, at least 2, got {max_lag}")
    for suffix in _suffixes(layer):
        bias = torch.empty(layer.hidden_size, device=generator.device if generator else "cpu")
        bias.uniform_(1, max_lag - 1, generator=generator).log_()  # b ~ ln U(1, T_max − 1)
        _set_bias(layer, suffix, keep, bias)
        if keep == "f":
            _set_bias(layer, suffix, "i", -bias)  # b_i = −b_f
    return layer


@torch.no_grad()
def orthogonal_recurrent_(layer: nn.RNNBase, generator: torch.Generator | None = None) -> nn.RNNBase:
    """Make each gate's recurrent matrix orthogonal: it turns h and neither stretches nor shrinks it.

    Saxe, McClelland & Ganguli 2014 (arXiv 1312.6120). Each block of ``weight_hh`` on its own; with ``proj_size``
    a block is (hidden_size, proj_size) and its columns are orthonormal.

    Parameters
    ----------
    layer : torch.nn.LSTM, torch.nn.GRU or torch.nn.RNN
        Changed in place, all layers and directions.
    generator : torch.Generator, optional
        Where the draws come from; PyTorch's default generator if not given.

    Returns
    -------
    torch.nn.RNNBase
        ``layer``.

    Raises
    ------
    TypeError
        If ``layer`` is not a recurrent layer.

    Examples
    --------
    >>> w = orthogonal_recurrent_(nn.RNN(3, 4)).weight_hh_l0
    >>> torch.allclose(w @ w.T, torch.eye(4), atol=1e-6)
    True
    """
    cell = cells.of(layer)
    for suffix in _suffixes(layer):
        weight = getattr(layer, f"weight_hh{suffix}")
        for block in cell.blocks:
            nn.init.orthogonal_(weight[cell.rows(block, layer.hidden_size)], generator=generator)
    return layer


def _check_gate(layer: nn.RNNBase, gate: str) -> None:
    cell = cells.of(layer)
    if gate not in cell.blocks:
        raise TypeError(f"layer must have the gate {gate}, got {type(layer).__name__}, which knows none")
    if gate not in cell.gates:  # its block is there and not read: what is set there would do nothing, in silence
        raise ValueError(f"layer must have the gate {gate}, got {layer}, which is without it")


def _check_number(name: str, value: float) -> None:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")


def _suffixes(layer: nn.RNNBase) -> list[str]:
    """``_l0``, ``_l0_reverse``, ``_l1`` …: the ends of the parameters' names, one per layer and direction."""
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    return [f"_l{k}{direction}" for k in range(layer.num_layers) for direction in directions]


def _set_bias(layer: nn.RNNBase, suffix: str, block: str, value: Tensor | float) -> None:
    """Make the sum of a block's two biases ``value``."""
    if not layer.bias:
        raise ValueError("layer has no bias to set: it was made with bias=False")
    rows = cells.of(layer).rows(block, layer.hidden_size)
    getattr(layer, f"bias_ih{suffix}")[rows] = torch.as_tensor(value).to(layer.bias_ih_l0)
    getattr(layer, f"bias_hh{suffix}")[rows] = 0

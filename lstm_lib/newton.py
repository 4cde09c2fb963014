"""All steps at once: the states of a nonlinear recurrent network by Newton's method over the whole sequence.

The states s_1 … s_T of a layer solve s_t = F(s_{t-1}, x_t), one equation per step. From a guess ŝ of all of them,
Newton's method puts the tangent of F in its place, with A_t = ∂F/∂s at ŝ_{t-1}:

    s_t = F(ŝ_{t-1}, x_t) + A_t (s_{t-1} − ŝ_{t-1}).

That is a linear recurrence, which a scan solves in log2 T levels, and all A_t are made at once. A step whose
predecessors are right becomes right, so T iterations always suffice in exact arithmetic; where a network forgets
its mistakes, a few do. Lim et al. 2024 (DEER); Gonzalez et al. 2024 (ELK); Danieli et al. 2025 (ParaRNN).
"""

from __future__ import annotations

import math
from copy import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacfwd, jvp, vmap
from torch.nn.functional import linear

from lstm_lib import cells, unroll
from lstm_lib.cells import Cell, State
from lstm_lib.scan import matrix_scan


class Newton:
    """A sweep for :func:`lstm_lib.unroll.run`: one layer in one direction over time, all steps at once.

    Parameters
    ----------
    jacobian : {"full", "unit"}
        What a step's derivative keeps: all of it, (n, n) for n numbers of state; or of each unit only what its own
        h and c do to its own h and c, (hidden_size, 2, 2), at hidden_size² in place of hidden_size³ a step and in
        more iterations (ParaRNN makes networks of which this is the whole).
    tolerance : float
        The last correction, the largest change of a number of state, is at most this.
    most : int
        Iterations before the sweep gives up.

    Attributes
    ----------
    corrections : list of list of float
        Of each sweep so far, in the order of layers and directions, the correction of each iteration.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    def __init__(self, jacobian: str = "full", tolerance: float = 1e-6, most: int = 100) -> None:
        if jacobian not in ("full", "unit"):
            raise ValueError(f"jacobian must be 'full' or 'unit', got {jacobian!r}")
        if not tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {tolerance}")
        if not most >= 1:
            raise ValueError(f"most must be at least 1, got {most}")
        self.jacobian, self.tolerance, self.most = jacobian, tolerance, most
        self.corrections: list[list[float]] = []

    def __call__(
        self,
        cell: Cell,
        w: SimpleNamespace,
        x: Tensor,
        state: State,
        masks: dict[str, Tensor],
        keep_gates: bool = False,
    ) -> dict[str, Tensor]:
        """See :func:`lstm_lib.unroll.loop`; the gates carry no gradient, and the states a first one only.

        Raises
        ------
        RuntimeError
            If ``most`` iterations leave a larger correction than ``tolerance``, or one overflows.
        ValueError
            If the units of the cell do not stay apart where ``jacobian`` is ``"unit"``.
        """
        step = _Step(cell, w, cell.project(x, w), masks, [s.shape[-1] for s in state])
        s_0 = torch.cat(state, -1)
        with torch.no_grad():
            s = self._solve(step, s_0)
        # One more iteration at the solution, where the tangent is exact, gives every derivative: with A held,
        # ds_t = ∂F/∂(x, w) + A_t ds_{t-1}.
        before = torch.cat([s_0.unsqueeze(0), s[:-1]])
        a = step.full(before.detach())
        b = step(before) - torch.cat([torch.zeros_like(s[:1]), _times(a[1:], before[1:])])
        s = _Once.apply(matrix_scan(torch.cat([torch.zeros_like(a[:1]), a[1:]]), b, torch.zeros_like(s_0)))
        found = dict(zip(cell.states, s.split(step.sizes, -1), strict=True))
        if keep_gates:
            with torch.no_grad():
                found |= dict(zip(cell.gates, step.gates(before), strict=True))
        return found

    def _solve(self, step: _Step, s_0: Tensor) -> Tensor:
        """The states from a constant guess, (seq_len, batch, n)."""
        derivative, apart, joined = step.full, _same, _same
        if self.jacobian == "unit":
            derivative, apart, joined = step.own, step.apart, _joined
        s, log = s_0.expand(step.seq_len, *s_0.shape), []
        self.corrections.append(log)
        for _ in range(self.most):
            before = torch.cat([s_0.unsqueeze(0), s[:-1]])
            a = derivative(before)
            b = apart(step(before)) - _times(a, apart(before))
            new = joined(matrix_scan(a, b, apart(s_0)))
            log.append((new - s).abs().max().item())
            s = new
            if not self.tolerance < log[-1] < math.inf:
                break
        if not log[-1] <= self.tolerance:
            raise RuntimeError(
                f"Newton's method did not settle: after {len(log)} of at most {self.most} iterations it changes "
                f"the states by {log[-1]:.3g}, where tolerance is {self.tolerance:.3g}"
            )
        return s


class _Step:
    """F of all steps at once, states side by side, (seq_len, batch, n), and its derivatives by the state."""

    def __init__(
        self, cell: Cell, w: SimpleNamespace, x: Tensor, masks: dict[str, Tensor], sizes: list[int]
    ) -> None:
        self.cell, self.w, self.x, self.masks, self.sizes, self.seq_len = cell, w, x, masks, sizes, len(x)

    def _one(self, s: Tensor, x: Tensor, masks: dict[str, Tensor], w: SimpleNamespace) -> tuple[Tensor, State]:
        state, gates = self.cell.step(x, s.split(self.sizes, -1), w, **masks)
        return torch.cat(state, -1), gates

    def __call__(self, before: Tensor) -> Tensor:
        return self._one(before, self.x, self.masks, self.w)[0]

    def gates(self, before: Tensor) -> State:
        return self._one(before, self.x, self.masks, self.w)[1]

    def full(self, before: Tensor) -> Tensor:
        """A, (seq_len, batch, n, n)."""

        def derivative(s: Tensor, x: Tensor, masks: dict[str, Tensor]) -> Tensor:
            return jacfwd(lambda s: self._one(s, x, masks, self.w)[0])(s)

        return vmap(vmap(derivative))(before, self.x, self.masks)

    def own(self, before: Tensor) -> Tensor:
        """Of each unit what its own states do to its own states, (seq_len, batch, hidden_size, k, k)."""
        h, k = before[..., : self.sizes[0]], len(self.sizes)
        if set(self.sizes) != {h.shape[-1]} or getattr(self.cell, "layer_norm", False):
            raise ValueError(
                'jacobian must be "full" where a projection or a layer norm mixes the units, got "unit"'
            )
        # With the diagonals of W_hh alone, and what the others say held in the bias, each unit sees nobody else.
        # One tangent for all units is then one for each.
        blocks = self.w.weight_hh.unflatten(0, (-1, h.shape[-1]))
        w = copy(self.w)
        w.weight_hh = (blocks * torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)).flatten(0, 1)
        others = linear(h, self.w.weight_hh - w.weight_hh, self.w.bias_hh)
        tangents = torch.eye(k, dtype=h.dtype, device=h.device).repeat_interleave(h.shape[-1], 1)  # (k, n)

        def derivative(s: Tensor, x: Tensor, others: Tensor, masks: dict[str, Tensor]) -> Tensor:
            own = copy(w)
            own.bias_hh = others
            return vmap(lambda v: jvp(lambda s: self._one(s, x, masks, own)[0], (s,), (v,))[1])(tangents)

        by_state = vmap(vmap(derivative))(before, self.x, others, self.masks)  # (seq_len, batch, k, n)
        return by_state.unflatten(-1, (k, -1)).permute(0, 1, 4, 3, 2)

    def apart(self, s: Tensor) -> Tensor:
        """States side by side, (…, n), unit by unit, (…, hidden_size, k)."""
        return s.unflatten(-1, (len(self.sizes), -1)).transpose(-1, -2)


def _joined(s: Tensor) -> Tensor:
    return s.transpose(-1, -2).flatten(-2)


def _same(s: Tensor) -> Tensor:
    return s


def _times(a: Tensor, s: Tensor) -> Tensor:
    return (a @ s.unsqueeze(-1)).squeeze(-1)


class _Once(torch.autograd.Function):
    """Nothing, which can be differentiated once: what a second derivative of A adds would be missing."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        return s.view_as(s)

    @staticmethod
    def backward(ctx: Any, ds: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph must be False: Newton's method over time gives first derivatives only"
            )
        return ds


def parallel_in_time(
    layer: nn.RNNBase, x: unroll.Sequence, hx: unroll.Hidden | None = None, **options: Any
) -> tuple[unroll.Sequence, unroll.Hidden]:
    """What ``layer(x, hx)`` returns, found for all steps at once.

    Parameters
    ----------
    layer : torch.nn.RNNBase
        A recurrent layer, PyTorch's or the library's.
    x : Tensor or PackedSequence
        As the layer takes it.
    hx : Tensor or tuple of Tensor, optional
        The initial state, zeros if not given.
    **options
        Of :class:`Newton`.

    Returns
    -------
    out, state
        As the layer's, within the tolerance; with exact first derivatives. A second one raises.

    Raises
    ------
    RuntimeError
        If the iterations do not settle.
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> layer, x = nn.LSTM(3, 5), torch.randn(100, 2, 3)
    >>> out, (h_n, c_n) = parallel_in_time(layer, x)
    >>> torch.allclose(out, layer(x)[0], atol=1e-5)
    True
    """
    return unroll.run(cells.of(layer), layer, x, hx, sweep=Newton(**options), keep_gates=False)[:2]

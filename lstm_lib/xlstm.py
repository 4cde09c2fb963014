"""xLSTM's two cells: sLSTM, whose units read each other, and mLSTM, whose memory is a matrix.

Both have an exponential input gate, i_t = exp(ĩ_t), and divide what they have stored by how much they have stored.
Stored are sums with weights exp(…), which leave the range of any float; so both keep them multiplied by exp(−m_t),
where m_t is the largest logarithm among those weights. The output does not depend on m, nor does its gradient, so
m is a constant to autograd.

These are the cells of section 2 of Beck et al. 2024, without the blocks that the paper stacks them in.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from lstm_lib.checks import check_options, check_sequence, whole

FORGET = ("sigmoid", "exp")
MODES = ("recurrent", "parallel", "chunked")


class _Layer(nn.Module):
    """What both share: options, checks, the layout of inputs and states."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int,
        batch_first: bool,
        forget: str,
        forget_bias: float,
    ) -> None:
        check_options({"input_size": input_size, "hidden_size": hidden_size, "batch_first": batch_first})
        whole("num_heads", num_heads)
        if hidden_size % num_heads:
            raise ValueError(f"num_heads must divide hidden_size = {hidden_size}, got {num_heads}")
        if forget not in FORGET:
            raise ValueError(f"forget must be 'sigmoid' or 'exp', got {forget!r}")
        super().__init__()
        self.input_size, self.hidden_size, self.num_heads = input_size, hidden_size, num_heads
        self.batch_first, self.forget, self.forget_bias = batch_first, forget, float(forget_bias)

    def reset_parameters(self) -> None:
        """All uniform within ±1/√hidden_size, but for the biases of the forget gate."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.hidden_size**-0.5), self.hidden_size**-0.5)
        with torch.no_grad():
            self.bias_ih_l0[self._forget_rows()] = self.forget_bias

    def _forget_rows(self) -> slice:
        raise NotImplementedError

    def _log_f(self, f: Tensor) -> Tensor:
        return logsigmoid(f) if self.forget == "sigmoid" else f

    def _log_i(self, i: Tensor) -> Tensor:
        return i  # the gate is exp(ĩ); another gate is another logarithm

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def _run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        raise NotImplementedError

    def forward(self, x: Tensor, hx: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The layer over a sequence.

        Parameters
        ----------
        x : Tensor
            (seq_len, batch, input_size); (batch, seq_len, input_size) with ``batch_first``; or unbatched
            (seq_len, input_size).
        hx : tuple of Tensor, optional
            The initial states, shaped as the class tells. If not given, nothing is stored yet: all are zero but m,
            which is −∞. With m = 0 instead, the first ĩ may be so far below it that all underflows.

        Returns
        -------
        out : Tensor
            Every h_t, (seq_len, batch, hidden_size), or as ``x`` is; of the weights' dtype, under autocast too.
        hx_n : tuple of Tensor
            The last states, as ``hx``.

        Raises
        ------
        TypeError, ValueError
            If ``x`` or ``hx`` does not fit the layer.
        """
        sizes = self._sizes()
        if hx is not None and not (isinstance(hx, tuple | list) and len(hx) == len(sizes)):
            raise TypeError(f"hx must be a tuple ({', '.join(sizes)}) of Tensors, got {type(hx).__name__}")
        given = {} if hx is None else {name: (s, sizes[name]) for name, s in zip(sizes, hx, strict=True)}
        check_sequence(self, x, given)
        batched, turned = x.dim() == 3, self.batch_first and x.dim() == 3
        x = x.transpose(0, 1) if turned else x if batched else x.unsqueeze(1)
        dtype = self.weight_ih_l0.dtype  # under autocast too: many small steps add up
        if hx is None:
            states = [x.new_zeros(x.shape[1], *size, dtype=dtype) for size in sizes.values()]
            states[-1] = states[-1] - torch.inf  # m: nothing is stored, so nothing has a weight
        else:
            states = [(s[0] if batched else s).to(dtype) for s in hx]
        with torch.autocast(x.device.type, enabled=False):
            out, states = self._run(x.to(dtype), states)
        out = out.transpose(0, 1) if turned else out if batched else out.squeeze(1)
        return out, tuple(s.unsqueeze(0) if batched else s for s in states)

    def extra_repr(self) -> str:
        """The arguments that it was made with."""
        options = f"{self.input_size}, {self.hidden_size}, num_heads={self.num_heads}, forget={self.forget!r}"
        return options + ", batch_first=True" * self.batch_first


class SLSTM(_Layer):
    """The scalar memory of xLSTM: Beck et al. 2024, section 2.2.

    c_t = f_t ⊙ c_{t-1} + i_t ⊙ z_t, n_t = f_t ⊙ n_{t-1} + i_t and h_t = o_t ⊙ c_t / n_t, with i_t = exp(ĩ_t),
    f_t = σ(f̃_t) or exp(f̃_t), z_t = tanh(z̃_t), o_t = σ(õ_t), each pre-activation W x_t + R h_{t-1} + b. So c / n is
    a mean of all z so far, and h_t lies between −1 and 1. Units of one head read each other through R.

    Stored are c and n times exp(−m_t), with m_t = max(log f_t + m_{t-1}, ĩ_t); from nothing stored, n ≥ 1 there.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of the input, units.
    num_heads : int
        R is block diagonal, a block for each head; it divides ``hidden_size``.
    batch_first : bool
        Batch before time.
    forget : {"sigmoid", "exp"}
        The forget gate.
    forget_bias : float
        Where the biases of the forget gate start.
    device, dtype : optional
        Of the parameters: ``weight_ih_l0`` (4 hidden_size, input_size) and ``bias_ih_l0``, rows i, f, z, o, and
        ``weight_hh_l0`` (4 hidden_size, hidden_size / num_heads), in which each gate's rows go head by head.

    States are h, c, n and m, each (1, batch, hidden_size), or (1, hidden_size) unbatched.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range.

    Examples
    --------
    >>> layer, x = SLSTM(3, 6, num_heads=2), torch.randn(7, 2, 3)
    >>> out, states = layer(x)
    >>> first, states_3 = layer(x[:3])
    >>> torch.allclose(layer(x[3:], states_3)[0], out[3:], atol=1e-6)
    True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int = 1,
        batch_first: bool = False,
        *,
        forget: str = "sigmoid",
        forget_bias: float = 3.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_options({"dtype": dtype})
        super().__init__(input_size, hidden_size, num_heads, batch_first, forget, forget_bias)
        rows, kind = 4 * hidden_size, {"device": device, "dtype": dtype}
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, input_size, **kind))
        self.weight_hh_l0 = nn.Parameter(torch.empty(rows, hidden_size // num_heads, **kind))
        self.bias_ih_l0 = nn.Parameter(torch.empty(rows, **kind))
        self.reset_parameters()

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("h", "c", "n", "m"), (self.hidden_size,))

    def _forget_rows(self) -> slice:
        return slice(self.hidden_size, 2 * self.hidden_size)

    def _heads(self, t: Tensor) -> Tensor:
        """(…, batch, k hidden_size) as (…, num_heads, batch, k units of a head)."""
        parts = t.unflatten(-1, (-1, self.num_heads, self.hidden_size // self.num_heads))
        return parts.movedim(-2, -4).flatten(-2)

    def _run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        recurrent = self._heads(self.weight_hh_l0.mT)  # (num_heads, units, 4 units)
        h, c, n, m = map(self._heads, states)
        out = []
        for x_t in self._heads(linear(x, self.weight_ih_l0, self.bias_ih_l0)):
            i, f, z, o = torch.baddbmm(x_t, h, recurrent).chunk(4, -1)
            log_i, log_f = self._log_i(i), self._log_f(f) + m
            m = torch.maximum(log_f, log_i).detach()
            i, f = torch.exp(log_i - m), torch.exp(log_f - m)
            c, n = torch.addcmul(f * c, i, torch.tanh(z)), torch.addcmul(i, f, n)
            h = torch.sigmoid(o) * c / n
            out.append(h)
        h, c, n, m = (t.movedim(-3, -2).flatten(-2) for t in (torch.stack(out), c, n, m))
        return h, [h[-1], c, n, m]


class MLSTM(_Layer):
    """The matrix memory of xLSTM: Beck et al. 2024, section 2.3.

    C_t = f_t C_{t-1} + i_t v_t k_tᵀ, n_t = f_t n_{t-1} + i_t k_t and h_t = o_t ⊙ C_t q_t / max(abs(n_tᵀ q_t), 1)
    in each head, with numbers i_t = exp(ĩ_t), f_t = σ(f̃_t) or exp(f̃_t), and d = hidden_size / num_heads numbers
    in each of q, v, o = σ(õ) and k, which is divided by √d (its bias, too, as in the authors' program). All are
    computed from x_t: nothing waits for h_{t-1}.

    Stored are C and n times exp(−m_t), with m_t = max(log f_t + m_{t-1}, ĩ_t); so the 1 becomes exp(−m_t).

    Parameters
    ----------
    input_size, hidden_size, num_heads, batch_first, forget, forget_bias
        As for :class:`SLSTM`; each head has a memory of its own.
    mode : {"parallel", "recurrent", "chunked"}
        All steps at once, with seq_len² numbers for each head, as attention has them; one after the other, with
        the state alone; or ``chunk_size`` steps at once, one chunk after the other.
    chunk_size : int
        Steps of a chunk.
    device, dtype : optional
        Of the parameters: ``weight_ih_l0`` (4 hidden_size + 2 num_heads, input_size) and ``bias_ih_l0``, rows
        q, k, v, o, i, f.

    States are C, (1, batch, num_heads, d, d), n, (1, batch, num_heads, d), and m, (1, batch, num_heads); without
    ``batch`` unbatched.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range.

    Examples
    --------
    >>> layer, x = MLSTM(3, 6, num_heads=2), torch.randn(7, 2, 3)
    >>> at_once, states = layer(x)
    >>> layer.mode = "recurrent"
    >>> torch.allclose(layer(x)[0], at_once, atol=1e-6)
    True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int = 1,
        batch_first: bool = False,
        *,
        mode: str = "parallel",
        chunk_size: int = 64,
        forget: str = "sigmoid",
        forget_bias: float = 3.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_options({"dtype": dtype})
        if mode not in MODES:
            raise ValueError(f"mode must be 'recurrent', 'parallel' or 'chunked', got {mode!r}")
        whole("chunk_size", chunk_size)
        super().__init__(input_size, hidden_size, num_heads, batch_first, forget, forget_bias)
        self.mode, self.chunk_size = mode, chunk_size
        rows, kind = 4 * hidden_size + 2 * num_heads, {"device": device, "dtype": dtype}
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, input_size, **kind))
        self.bias_ih_l0 = nn.Parameter(torch.empty(rows, **kind))
        self.reset_parameters()

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        heads, d = self.num_heads, self.hidden_size // self.num_heads
        return {"C": (heads, d, d), "n": (heads, d), "m": (heads,)}

    def _forget_rows(self) -> slice:
        return slice(-self.num_heads, None)

    def _run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        pre, heads = linear(x, self.weight_ih_l0, self.bias_ih_l0), self.num_heads
        *wide, i, f = pre.split([self.hidden_size] * 4 + [heads] * 2, -1)
        q, k, v, o = (t.unflatten(-1, (heads, -1)) for t in wide)  # (seq_len, batch, heads, d)
        k, i, f = k / k.shape[-1] ** 0.5, self._log_i(i), self._log_f(f)
        if self.mode == "recurrent":
            out, states = _recurrent(q, k, v, i, f, states)
        else:
            size, parts = self.chunk_size if self.mode == "chunked" else len(x), []
            for part in zip(*(t.split(size) for t in (q, k, v, i, f)), strict=True):
                h, states = _at_once(*part, states)
                parts.append(h)
            out = torch.cat(parts)
        return (torch.sigmoid(o) * out).flatten(-2), states


def _divisor(nq: Tensor, m: Tensor) -> Tensor:
    """max(|nᵀq|, 1) where n is kept times exp(−m); above zero where exp(−m) is not."""
    return torch.maximum(nq.abs(), torch.exp(-m).clamp_min(torch.finfo(m.dtype).tiny))


def _recurrent(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, log_f: Tensor, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """One step after the other: the equations of section 2.3, kept in range by m."""
    C, n, m = states
    out = []
    for q_t, k_t, v_t, i_t, f_t in zip(q, k, v, i, log_f, strict=True):
        m_t = torch.maximum(f_t + m, i_t).detach()
        write, keep, m = torch.exp(i_t - m_t)[..., None], torch.exp(f_t + m - m_t)[..., None], m_t
        C = keep[..., None] * C + (write * v_t)[..., :, None] * k_t[..., None, :]
        n = keep * n + write * k_t
        read, nq = (C @ q_t[..., None]).squeeze(-1), (n * q_t).sum(-1)
        out.append(read / _divisor(nq, m)[..., None])
    return torch.stack(out), [C, n, m]


def _at_once(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, log_f: Tensor, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """All steps at once: v_s with weight (q_tᵀ k_s) D_ts, where log D_ts = log f_{s+1} + … + log f_t + ĩ_s."""
    C, n, m_0 = states
    q, k, v = (t.movedim(0, -2) for t in (q, k, v))  # (batch, heads, seq_len, d)
    i, total = i.movedim(0, -1), log_f.movedim(0, -1).cumsum(-1)
    later = torch.ones(len(log_f), len(log_f), dtype=torch.bool, device=q.device).triu(1)
    log_D = (total[..., :, None] - total[..., None, :] + i[..., None, :]).masked_fill(later, -torch.inf)
    before = total + m_0[..., None]  # what was stored before the first step
    m = torch.maximum(log_D.amax(-1), before).detach()
    D, old = torch.exp(log_D - m[..., None]), torch.exp(before - m)[..., None]
    weights = (q @ k.mT) * D
    read, nq = weights @ v + old * (q @ C.mT), weights.sum(-1) + (old * (q @ n[..., None])).squeeze(-1)
    D_end, old_end = D[..., -1, :, None], old[..., -1, :]
    states = [old_end[..., None] * C + (D_end * v).mT @ k, old_end * n + (D_end * k).sum(-2), m[..., -1]]
    return (read / _divisor(nq, m)[..., None]).movedim(-2, 0), states

"""Linear recurrences: h_t = a_t ⊙ h_{t-1} + b_t, one step after another or all at once; minLSTM and minGRU.

Units that see each other have a matrix for a: :func:`matrix_scan`.

Where the gates see the input only, a and b are known for all steps before the first one is taken. Two steps are
then one step with a = a_2 ⊙ a_1 and b = a_2 ⊙ b_1 + b_2, and T steps take log2 T levels of whole-tensor products
instead of T small ones.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import linear, logsigmoid

from lstm_lib.checks import check_options, check_sequence

MODES = ("auto", "sequential", "parallel")


def scan(a: Tensor, b: Tensor, h_0: Tensor, mode: str = "auto") -> Tensor:
    """h_t = a_t ⊙ h_{t-1} + b_t for t = 1 … seq_len.

    Parameters
    ----------
    a, b : Tensor
        (seq_len, …), of one shape, real or complex. The parallel scan multiplies the a of neighbouring steps: it
        is accurate where they are at most 1 in size, as gates are; where they are larger, such a product may
        overflow though no h_t does.
    h_0 : Tensor
        (…), the state before the first step. Its dtype and device are those of a and b: nothing is promoted.
    mode : {"auto", "sequential", "parallel"}
        A loop in order, or the odd-even scan of log2 seq_len levels. ``"auto"`` is parallel for at least 64
        steps of at most 64 numbers, where calling costs more than computing, and off the CPU; sequential
        elsewhere. Seen on one CPU thread, forward and backward, the parallel scan is 0.6 times as fast as the
        loop for 16 steps and about as fast for 64; for 1024 it is 5.6 times as fast with 16 numbers in a step,
        4.6 with 64, 2.2 with 256, 1.1 with 1024 and 0.7 with 4096. On two threads it falls behind earlier, from
        64 to 256 numbers.

    Returns
    -------
    Tensor
        Every h_t, (seq_len, …). All its derivatives are exact, in reverse and in forward mode, and under the
        transforms of :mod:`torch.func`.

    Raises
    ------
    TypeError, ValueError
        If the shapes, dtypes or devices do not fit, there is no step, or the mode is unknown.

    References
    ----------
    .. [1] Blelloch 1990, "Prefix sums and their applications".

    Examples
    --------
    >>> scan(torch.full((4,), 0.5), torch.ones(4), torch.tensor(0.0))
    tensor([1.0000, 1.5000, 1.7500, 1.8750])
    """
    _check_mode(mode)
    for name, t in (("a", a), ("b", b), ("h_0", h_0)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} must be a Tensor, got {type(t).__name__}")
    shapes = a.dim() > 0 and len(a) > 0 and a.shape == b.shape and a.shape[1:] == h_0.shape
    kinds = a.dtype == b.dtype == h_0.dtype and (a.is_floating_point() or a.is_complex())
    if not (shapes and kinds and a.device == b.device == h_0.device):
        need = "(seq_len, …), (seq_len, …), (…), seq_len at least 1, of one real or complex dtype, on one device"
        came = ", ".join(f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in (a, b, h_0))
        raise ValueError(f"a, b and h_0 must be {need}, got {came}")
    if mode == "auto":
        parallel = a.device.type != "cpu" or (len(a) >= 64 and h_0.numel() <= 64)
    else:
        parallel = mode == "parallel"
    return _run(a, b, h_0, parallel)


def matrix_scan(a: Tensor, b: Tensor, h_0: Tensor) -> Tensor:
    """h_t = A_t h_{t-1} + b_t for t = 1 … seq_len, all at once: log2 seq_len levels of products of matrices.

    Parameters
    ----------
    a : Tensor
        (seq_len, …, n, n). The scan multiplies the matrices of neighbouring steps, at n³ each.
    b : Tensor
        (seq_len, …, n).
    h_0 : Tensor
        (…, n), the state before the first step.

    Returns
    -------
    Tensor
        Every h_t, (seq_len, …, n), with all derivatives.

    Raises
    ------
    ValueError
        If the shapes do not fit, or there is no step.

    Examples
    --------
    >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(4, 2, 2)
    >>> matrix_scan(turn, torch.zeros(4, 2), torch.tensor([1.0, 0.0])) + 0.0
    tensor([[ 0.,  1.],
            [-1.,  0.],
            [ 0., -1.],
            [ 1.,  0.]])
    """
    if a.dim() < 3 or not len(a) or a.shape != (*b.shape, *b.shape[-1:]) or h_0.shape != b.shape[1:]:
        came = ", ".join(str(tuple(t.shape)) for t in (a, b, h_0))
        raise ValueError(f"a, b and h_0 must be (seq_len, …, n, n), (seq_len, …, n), (…, n), got {came}")
    return _odd_even(a, torch.cat([_at(b[:1], a[:1], h_0), b[1:]]), torch.matmul, _at)


def _at(b: Tensor, a: Tensor, h: Tensor) -> Tensor:
    return b + (a @ h.unsqueeze(-1)).squeeze(-1)


def _run(a: Tensor, b: Tensor, h_0: Tensor, parallel: bool) -> Tensor:
    # Forward mode takes the operations as they are. With a rule in the Function only the first derivative would be
    # right: PyTorch drops in silence what a second forward mode makes of the rule.
    return (_Scan.forward if forward_ad._current_level >= 0 else _Scan.apply)(a, b, h_0, parallel)


class _Scan(torch.autograd.Function):
    """Its backward pass is the scan in the other direction: g_t = dh_t + ā_{t+1} ⊙ g_{t+1}, ā the conjugate."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, h_0: Tensor, parallel: bool) -> Tensor:
        if not parallel:
            return _sequential(a, b, h_0)
        return _odd_even(a, torch.cat([torch.addcmul(b[:1], a[:1], h_0), b[1:]]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        a, _, h_0, ctx.parallel = inputs
        ctx.save_for_backward(a, h_0, output)

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        a, h_0, h = ctx.saved_tensors
        after = torch.cat([a[1:], torch.zeros_like(a[:1])]).flip(0).conj()
        g = _run(after, dh.flip(0), torch.zeros_like(h_0), ctx.parallel).flip(0)
        before = torch.cat([h_0.unsqueeze(0), h[:-1]])
        return g * before.conj(), g, a[0].conj() * g[0], None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, a: Tensor, b: Tensor, h_0: Tensor, parallel: bool) -> tuple[Tensor, int]:
        a, b, h_0 = (
            t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip((a, b, h_0), in_dims[:3], strict=True)
        )
        return _Scan.apply(a.movedim(0, 1), b.movedim(0, 1), h_0, parallel), 1  # time stays in front


def _sequential(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    out = []
    for a_t, b_t in zip(a.unbind(), b.unbind(), strict=True):
        h = torch.addcmul(b_t, a_t, h)
        out.append(h)
    return torch.stack(out)


def _odd_even(a: Tensor, b: Tensor, product: Callable = torch.mul, at: Callable = torch.addcmul) -> Tensor:
    """The scan from zero: pairs of steps by half as many steps, then the step in the middle of each pair."""
    if len(a) == 1:
        return b
    pairs = len(a) // 2
    first, second = slice(0, 2 * pairs, 2), slice(1, None, 2)
    ends = _odd_even(product(a[second], a[first]), at(b[second], a[second], b[first]), product, at)
    n = (len(a) - 1) // 2
    between = at(b[2::2], a[2::2], ends[:n])
    return torch.cat([b[:1], torch.stack([ends[:n], between], 1).view(2 * n, *b.shape[1:]), ends[n:]])


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be 'auto', 'sequential' or 'parallel', got {mode!r}")


class _Min(nn.Module):
    """A layer whose gates see the input only: ``coefficients`` makes a and b, ``scan`` does the rest."""

    blocks: tuple[str, ...]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        batch_first: bool = False,
        *,
        bias: bool = True,
        mode: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_options(locals())
        _check_mode(mode)
        super().__init__()
        self.input_size, self.hidden_size, self.batch_first, self.mode = input_size, hidden_size, batch_first, mode
        rows = len(self.blocks) * hidden_size
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, input_size, device=device, dtype=dtype))
        self.bias_ih_l0 = nn.Parameter(torch.empty(rows, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All uniform within ±1/√hidden_size, as PyTorch's recurrent layers start."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.hidden_size**-0.5), self.hidden_size**-0.5)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of h_t = a_t ⊙ h_{t-1} + b_t, each (…, hidden_size), from x (…, input_size)."""
        raise NotImplementedError

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The layer over a sequence.

        Parameters
        ----------
        x : Tensor
            (seq_len, batch, input_size); (batch, seq_len, input_size) with ``batch_first``; or unbatched
            (seq_len, input_size).
        h0 : Tensor, optional
            The initial state, (1, batch, hidden_size), or (1, hidden_size) unbatched; zeros if not given.

        Returns
        -------
        out : Tensor
            Every h_t, (seq_len, batch, hidden_size), or as ``x`` is; of the weights' dtype, under autocast too.
        h_n : Tensor
            The last h_t, as ``h0``.

        Raises
        ------
        TypeError, ValueError
            If ``x`` or ``h0`` does not fit the layer.
        """
        check_sequence(self, x, {} if h0 is None else {"h0": (h0, (self.hidden_size,))})
        turned = self.batch_first and x.dim() == 3
        a, b = self.coefficients(x.transpose(0, 1) if turned else x)
        dtype = self.weight_ih_l0.dtype  # under autocast too: many small steps add up
        h_0 = a.new_zeros(a.shape[1:], dtype=dtype) if h0 is None else h0[0].to(dtype)
        out = scan(a.to(dtype), b.to(dtype), h_0, self.mode)
        return (out.transpose(0, 1) if turned else out), out[-1:]

    def extra_repr(self) -> str:
        """The arguments that it was made with."""
        options = f"{self.input_size}, {self.hidden_size}, mode={self.mode!r}"
        return options + ", batch_first=True" * self.batch_first + ", bias=False" * (self.bias_ih_l0 is None)


class MinGRU(_Min):
    """The GRU whose update gate sees the input only: Feng et al. 2024, section 3.1.

    h_t = (1 − z_t) ⊙ h_{t-1} + z_t ⊙ n_t with z_t = σ(W_z x_t + b_z) and n_t = W_n x_t + b_n. An update gate of 1
    *overwrites* here, as in the paper.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of the input, units.
    batch_first : bool
        Batch before time.
    bias : bool
        Whether there are biases.
    mode : {"auto", "sequential", "parallel"}
        See :func:`scan`.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range.

    Examples
    --------
    >>> out, h_n = MinGRU(3, 5)(torch.randn(7, 2, 3))
    >>> out.shape, h_n.shape
    (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    blocks = ("z", "n")

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class: a = 1 − z, b = z ⊙ n."""
        z, n = linear(x, self.weight_ih_l0, self.bias_ih_l0).chunk(2, -1)
        z = torch.sigmoid(z)
        return 1 - z, z * n


class MinLSTM(_Min):
    """The LSTM whose gates see the input only, and share what there is: Feng et al. 2024, section 3.2.

    h_t = f'_t ⊙ h_{t-1} + i'_t ⊙ g_t with f' = f / (f + i), i' = i / (f + i), f_t = σ(W_f x_t + b_f),
    i_t = σ(W_i x_t + b_i) and g_t = W_g x_t + b_g. There is one state and no output gate.

    Parameters
    ----------
    input_size, hidden_size, batch_first, bias, mode, device, dtype
        As for :class:`MinGRU`.

    Raises
    ------
    TypeError, ValueError
        If an option has the wrong type or range.

    Examples
    --------
    >>> layer, x = MinLSTM(3, 5), torch.randn(7, 2, 3)
    >>> out, h_n = layer(x)
    >>> first, h_3 = layer(x[:3])
    >>> torch.allclose(layer(x[3:], h_3)[0], out[3:], atol=1e-6)
    True
    """

    blocks = ("i", "f", "g")

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class: a = f', b = i' ⊙ g."""
        i, f, g = linear(x, self.weight_ih_l0, self.bias_ih_l0).chunk(3, -1)
        odds = logsigmoid(f) - logsigmoid(i)  # f / (f + i) = σ(log f − log i), also where both underflow
        return torch.sigmoid(odds), torch.sigmoid(-odds) * g

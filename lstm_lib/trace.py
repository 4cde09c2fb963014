"""What the gates did, and how far back a layer still feels its input."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lstm_lib import cells, fused
from lstm_lib.cells import Cell, State
from lstm_lib.checks import check_call
from lstm_lib.unroll import Hidden, Sequence, loop, reverse_time, run, transforms

SMALL = 1024
"""Up to so many units in a batch a CPU spends a step on calls, not on products, which may well be made twice."""


class Trace(SimpleNamespace):
    """Every gate and state at every step, from :func:`trace`.

    One attribute per gate and state of the unit: ``i, f, g, o, h, c`` for an LSTM, ``r, z, n, h`` for a GRU, ``h``
    for an RNN, each (num_layers, num_directions, seq_len, batch, size). ``vars(trace)`` has them by name.

    Attributes
    ----------
    out : Tensor or PackedSequence
        What the layer returns as its output. ``h[-1]`` is the same, directions side by side, but for a layer with
        ``residual=True``, whose output is h and what goes past it.
    lengths : Tensor
        (batch,), the steps of each sequence. What lies past the end of a packed one is zero.
    """

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(f"this Trace has {', '.join(vars(self))}; no {name}")

    def __repr__(self) -> str:
        shapes = {name: tuple(getattr(value, "data", value).shape) for name, value in vars(self).items()}
        return f"Trace({', '.join(f'{name}: {shape}' for name, shape in shapes.items())})"


@torch.no_grad()
def trace(layer: nn.RNNBase, x: Sequence, hx: Hidden | None = None) -> Trace:
    """Run a layer and keep every gate and state of every step.

    The layer's equations are computed from its weights, so PyTorch's layers can be traced as they are, and nothing
    about them changes: no hook is set, mode, gradients and random numbers stay. Dropout between layers is off,
    whatever the layer's mode: a trace shows what the layer computes in evaluation. For gates with gradients, call
    ``run`` itself.

    Parameters
    ----------
    layer : torch.nn.LSTM, torch.nn.GRU or torch.nn.RNN
        PyTorch's own or the library's.
    x, hx
        As the layer takes them.

    Returns
    -------
    Trace
        In the order of time and of the given batch, also for the backward direction, packed and ``batch_first``
        input; unbatched input has a batch of 1. ``out`` is the layer's output.

    Raises
    ------
    TypeError, ValueError
        If ``layer`` is not a recurrent layer, or ``x`` or ``hx`` does not fit it.

    Examples
    --------
    >>> layer, x = nn.LSTM(3, 5), torch.randn(7, 2, 3)
    >>> t = trace(layer, x)
    >>> t.f.shape, torch.allclose(t.h[-1, 0], layer(x)[0], atol=1e-6)
    (torch.Size([1, 1, 7, 2, 5]), True)
    """
    out, _, steps = run(cells.of(layer), layer, x, hx, training=False, sweep=_gates)
    seq_len, batch = steps["h"].shape[2:4]
    lengths = pad_packed_sequence(x)[1] if isinstance(x, PackedSequence) else torch.full((batch,), seq_len)
    return Trace(**steps, out=out, lengths=lengths)


def _gates(
    cell: Cell, w: SimpleNamespace, x: Tensor, state: State, masks: dict[str, Tensor], keep_gates: bool
) -> dict[str, Tensor]:
    """One layer in one direction: each gate and state (seq_len, batch, size) by name, the faster way."""
    small = x.shape[1] * w.weight_hh.shape[-1] <= SMALL and x.device.type == "cpu"
    if small and type(cell) in (cells.LSTM, cells.GRU, cells.RNN) and "Vmap" not in transforms():
        return _replay(cell, w, x, state)
    slow = getattr(w, "weight_hr", None) is not None or transforms() not in ([], ["Vmap"])
    sweep = loop if slow else fused.sweep
    return sweep(cell, w, x, state, masks, keep_gates)


def _replay(cell: Cell, w: SimpleNamespace, x: Tensor, state: State) -> dict[str, Tensor]:
    """Each h from PyTorch's kernel. With every h_{t-1} known, all steps make their gates at once."""
    if isinstance(cell, cells.RNN):
        kernel = torch.rnn_tanh if cell.activation is torch.tanh else torch.rnn_relu
    else:
        kernel = torch.lstm if isinstance(cell, cells.LSTM) else torch.gru
    first = [s.unsqueeze(0) for s in state]
    weights = [p for name in cell.parameters if (p := getattr(w, name)) is not None]
    h = kernel(
        x,
        first if len(first) > 1 else first[0],
        weights,
        w.bias_ih is not None,
        num_layers=1,
        dropout=0.0,
        train=False,
        bidirectional=False,
        batch_first=False,
    )[0]
    before = torch.cat([first[0], h[:-1]])
    zero = [torch.zeros_like(s) for s in state[1:]]
    (_, *c), gates = cell.step(cell.project(x, w), (before, *zero), w)  # from c = 0 a step makes i ⊙ g
    steps = dict(zip(cell.gates + cell.states, (*gates, h, *c), strict=True))
    if c:
        last = state[1]
        for c_t, f_t in zip(steps["c"].unbind(), steps["f"].unbind(), strict=True):
            last = c_t.addcmul_(f_t, last)  # c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    return steps


def gradient_by_lag(layer: nn.RNNBase, x: Sequence) -> Tensor:
    """How strongly the last hidden state still depends on the input of k steps before.

    Entry k is ‖∂h_T / ∂x_{T−k}‖_F, the root of the sum of squares over all pairs of an output unit and an input
    feature, where h_T is the top layer's last hidden state; then the mean over the batch. It is exact: one
    backward pass per unit. Dropout is off, initial states are zero, and nothing about the layer changes.

    Parameters
    ----------
    layer : torch.nn.LSTM, torch.nn.GRU or torch.nn.RNN
        PyTorch's own or the library's; of one direction, since a backward direction's last step is the first.
    x : Tensor or PackedSequence
        As the layer takes it. A packed sequence's lags count from its own end, and it has a share in the mean of
        those lags that it has.

    Returns
    -------
    Tensor
        (seq_len,), entry 0 for the last input.

    Raises
    ------
    TypeError, ValueError
        If ``layer`` is not a recurrent layer of one direction, ``x`` does not fit it, or the batch is empty.

    Examples
    --------
    A linear unit that halves its state in each step:

    >>> layer = nn.RNN(1, 1, nonlinearity="relu", bias=False)
    >>> _ = nn.init.ones_(layer.weight_ih_l0), nn.init.constant_(layer.weight_hh_l0, 0.5)
    >>> gradient_by_lag(layer, torch.ones(4, 1, 1))
    tensor([1.0000, 0.5000, 0.2500, 0.1250])
    """
    cell = cells.of(layer)
    check_call(cell, layer, x)
    if layer.bidirectional:
        raise ValueError("layer must have one direction: the lag from the end means nothing in the backward one")
    if isinstance(x, PackedSequence):
        seq, lengths = pad_packed_sequence(x)
    else:
        seq = x.unsqueeze(1) if x.dim() == 2 else x.transpose(0, 1) if layer.batch_first else x
        lengths = torch.full((seq.shape[1],), seq.shape[0])
    if seq.shape[1] == 0:
        raise ValueError(f"x must hold at least one sequence, got shape {tuple(x.shape)}: the batch is empty")

    # The loop and not the kernel: cuDNN's has no backward pass in evaluation mode, which turns dropout off.
    with torch.inference_mode(False), torch.enable_grad():
        seq = seq.detach().clone().requires_grad_()
        packed = pack_padded_sequence(seq, lengths, enforce_sorted=False)
        _, state, _ = run(cell, layer, packed, training=False)
        h = (state if isinstance(state, Tensor) else state[0])[-1]
        squares = torch.zeros(seq.shape[:2], dtype=torch.float64)
        units = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
        for some in units.split(64):  # as many units at once as memory bears: each takes a copy of the gradient
            grads = some[:, None].expand(-1, *h.shape)
            (grad,) = torch.autograd.grad(h, seq, grads, retain_graph=True, is_grads_batched=True)
            squares += grad.cpu().double().square().sum((0, -1))  # double: in float32 the square of 1e-30 is zero
    norms = reverse_time(squares.sqrt(), lengths)  # (lag, batch), zero beyond a sequence's length
    share = torch.arange(len(norms))[:, None] < lengths
    return (norms.sum(1) / share.sum(1)).to(h.dtype).to(h.device)


def memory(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of one prediction per sequence to each of its inputs.

    Its norm over the features, ``memory(score, x).norm(dim=-1)``, is the connectivity of Madsen 2019: how strongly
    the present prediction still hangs on each past input, to first order. Nothing about the model changes, and no
    gradient is left in its parameters.

    Parameters
    ----------
    score : callable
        From inputs like ``x`` to one number for each sequence, (batch,), such as a logit at the last step. The
        sequences of a batch must not act on one another (no batch norm in training mode).
    x : Tensor
        (batch, seq_len, features), floating point: embedded or one-hot where the inputs are symbols.

    Returns
    -------
    Tensor
        (batch, seq_len, features), ∂score_n / ∂x_{n,t}; zero where the score does not depend on an input.

    Raises
    ------
    TypeError
        If ``x`` is not a floating-point tensor.
    ValueError
        If ``x`` has another number of axes, or ``score`` does not return one number per sequence that depends on
        ``x``.

    Examples
    --------
    A score that looks at the last step and, half as much, at the one before:

    >>> memory(lambda x: x[:, -1, 0] + x[:, -2, 0] / 2, torch.zeros(1, 3, 1)).norm(dim=-1)
    tensor([[0.0000, 0.5000, 1.0000]])
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating-point tensor, got {kind}: embed symbols first")
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, seq_len, features), got shape {tuple(x.shape)}")
    # PyTorch's own loop on a GPU: cuDNN has no backward pass in evaluation mode.
    with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        x = x.detach().clone().requires_grad_()
        scores = score(x)
        if not isinstance(scores, Tensor) or scores.shape != x.shape[:1]:
            got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"score must return one number for each of the {len(x)} sequences, got {got}")
        if not scores.requires_grad:
            raise ValueError("score must depend on x by operations that have a gradient; its result has none")
        (grad,) = torch.autograd.grad(scores.sum(), x)
    return grad

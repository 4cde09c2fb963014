"""Any cell over time: layers, directions, dropout, packed sequences.

:func:`run` is the readable way, a loop over time that shows every gate at every step.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lstm_lib import cells
from lstm_lib.cells import Cell, State
from lstm_lib.checks import autocast_dtype, check_call

Sequence = Tensor | PackedSequence
Hidden = Tensor | tuple[Tensor, ...]
Sweep = Callable[[Cell, SimpleNamespace, Tensor, State, dict[str, Tensor], bool], dict[str, Tensor]]
"""One layer in one direction over time, as :func:`loop`."""


def loop(
    cell: Cell, w: SimpleNamespace, x: Tensor, state: State, masks: dict[str, Tensor], keep_gates: bool
) -> dict[str, Tensor]:
    """One layer in one direction over time, the readable way; any cell, projected or not.

    Parameters
    ----------
    cell, w, x, state, masks, keep_gates
        As :func:`lstm_lib.fused.sweep` takes them.

    Returns
    -------
    dict of str to Tensor
        Each state, and each gate if they are kept, by name, (seq_len, batch, size). All carry gradients.
    """
    return walk(cell, w, cell.project(x, w), state, masks, keep_gates)


def walk(
    cell: Cell, w: SimpleNamespace, x: Tensor, state: State, masks: dict[str, Tensor], keep_gates: bool
) -> dict[str, Tensor]:
    """:func:`loop` from inputs that are projected already, (seq_len, batch, blocks × hidden_size)."""
    history = []
    for t, x_t in enumerate(x):
        state, gates = cell.step(x_t, state, w, **{name: mask[t] for name, mask in masks.items()})
        history.append(gates + state if keep_gates else state)
    names = cell.gates + cell.states if keep_gates else cell.states
    return {name: torch.stack(values) for name, values in zip(names, zip(*history, strict=True), strict=True)}


def run(
    cell: Cell,
    layer: nn.RNNBase,
    x: Sequence,
    hx: Hidden | None = None,
    *,
    training: bool | None = None,
    sweep: Sweep = loop,
    keep_gates: bool = True,
) -> tuple[Sequence, Hidden, dict[str, Tensor]]:
    """Take a cell over time with a layer's weights, and keep every gate on the way.

    The loop that ``torch.nn.LSTM`` hides: one product projects the inputs of all steps, then each step is one call
    of ``cell.step``. It is differentiable, and slower than PyTorch's kernel.

    Parameters
    ----------
    cell : Cell
        The equations; ``cells.of(layer)`` for the layer's own.
    layer : torch.nn.RNNBase
        Gives the weights and the options: ``num_layers``, ``bidirectional``, ``batch_first``, ``dropout``,
        ``proj_size``, and of the library's LSTM ``weight_drop`` and ``residual``. It is not changed.
    x : Tensor or PackedSequence
        (seq_len, batch, input_size), or (batch, seq_len, input_size) with ``batch_first``; unbatched
        (seq_len, input_size); or packed. What would come of the padding reaches neither result nor gradient.
    hx : Tensor or tuple of Tensor, optional
        The initial state as PyTorch takes it, zeros if not given.
    training : bool, optional
        Whether dropout and zoneout draw, as in training; as ``layer.training`` says if not given.
    sweep : callable
        What takes one layer in one direction over time: :func:`loop`, or :func:`lstm_lib.fused.sweep`, which is
        faster and whose gates carry no gradient.
    keep_gates : bool
        Whether to return the gates beside the states.

    Returns
    -------
    out : Tensor or PackedSequence
        As ``layer(x, hx)[0]``.
    state : Tensor or tuple of Tensor
        As ``layer(x, hx)[1]``.
    steps : dict of str to Tensor
        Each gate and each state by name, always (num_layers, num_directions, seq_len, batch, size), in the order
        of time and of the given batch for both directions, and zero past the end of a packed sequence.

    Raises
    ------
    TypeError, ValueError
        If ``x`` or ``hx`` does not fit the layer, or the layer's weights do not fit the cell.

    Examples
    --------
    >>> layer, x = nn.GRU(3, 5, bidirectional=True), torch.randn(7, 2, 3)
    >>> out, h_n, steps = run(cells.GRU(), layer, x)
    >>> torch.allclose(out, layer(x)[0], atol=1e-6), steps["z"].shape
    (True, torch.Size([1, 2, 7, 2, 5]))
    """
    cells.of(layer)  # refuses what is not a recurrent layer
    directions = 2 if layer.bidirectional else 1
    # Each weight is read once: reading it may compute it, where it is parametrized.
    weights = [cell.weights(layer, k, d == 1) for k in range(layer.num_layers) for d in range(directions)]
    rows, width = len(weights[0].weight_hh), cell.width(layer.hidden_size)
    if rows != width:
        raise ValueError(
            f"cell must fit the layer's weights of {rows} rows, got {type(cell).__name__}, which needs {width}"
        )
    check_call(cell, layer, x, hx, weights[0].weight_ih)
    training = layer.training if training is None else training

    packed, lengths = isinstance(x, PackedSequence), None
    if packed:
        seq, lengths = pad_packed_sequence(PackedSequence(x.data, x.batch_sizes))  # the longest first
        lengths = lengths.to(seq.device)
    elif x.dim() == 2:
        seq = x.unsqueeze(1)
    else:
        seq = x.transpose(0, 1) if layer.batch_first else x
    rows = len(weights)
    if hx is None:
        state = [seq.new_zeros(rows, seq.shape[1], size) for size in cell.sizes(layer)]
    else:
        state = [s if s.dim() == 3 else s.unsqueeze(1) for s in ((hx,) if len(cell.states) == 1 else hx)]
        if packed and x.sorted_indices is not None:
            state = [s[:, x.sorted_indices] for s in state]
    if dtype := autocast_dtype(seq):
        seq, state = seq.to(dtype), [s.to(dtype) for s in state]
        for w in weights:
            vars(w).update({name: p if p is None else p.to(dtype) for name, p in vars(w).items()})

    sweeps, last = [], []
    with torch.autocast(seq.device.type, enabled=False) if dtype else nullcontext():
        for k in range(layer.num_layers):
            below = seq
            if k > 0:
                seq = dropout(seq, layer.dropout, training)
            seq = cell.drop_input(seq, training)
            for d in range(directions):
                row = k * directions + d
                w = weights[row]
                w.weight_hh = dropout(w.weight_hh, getattr(layer, "_weight_drop", 0.0), training)
                start = tuple(s[row] for s in state)
                masks = cell.masks(seq, layer.hidden_size, training, layer.proj_size)
                there = reverse_time(seq, lengths) if d else seq
                sweep_once = partial(sweep, cell, w, keep_gates=keep_gates)
                if packed:
                    steps, end = _packed(sweep_once, cell.states, there, start, masks, x.batch_sizes, lengths)
                else:
                    steps = sweep_once(x=there, state=start, masks=masks)
                    end = [steps[name][-1] for name in cell.states]
                last.append(end)
                sweeps.append({name: reverse_time(s, lengths) for name, s in steps.items()} if d else steps)
            seq = torch.cat([steps["h"] for steps in sweeps[-directions:]], -1) if directions > 1 else steps["h"]
            if getattr(layer, "_residual", False) and seq.shape == below.shape:
                seq = seq + below

    steps = {
        name: _stack([steps[name] for steps in sweeps]).unflatten(0, (layer.num_layers, directions))
        for name in cell.gates + cell.states
        if name in sweeps[0]
    }
    last = tuple(torch.stack(s) for s in zip(*last, strict=True))
    if packed:
        data = pack_padded_sequence(seq, lengths.cpu()).data
        out = PackedSequence(data, x.batch_sizes, x.sorted_indices, x.unsorted_indices)
        if x.unsorted_indices is not None:
            last = tuple(s[:, x.unsorted_indices] for s in last)
            steps = {name: value[:, :, :, x.unsorted_indices] for name, value in steps.items()}
    elif x.dim() == 2:
        out, last = seq.squeeze(1), tuple(s.squeeze(1) for s in last)
    else:
        out = seq.transpose(0, 1) if layer.batch_first else seq
    return out, last if len(last) > 1 else last[0], steps


def _packed(
    sweep: Callable[..., dict[str, Tensor]],
    names: tuple[str, ...],
    x: Tensor,
    state: State,
    masks: dict[str, Tensor],
    batch_sizes: Tensor,
    lengths: Tensor,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """A sweep over sequences of several lengths, the longest first: its steps, and each sequence's last states.

    To run those that have ended on over their padding, in one sweep, is the faster way. But states may overflow
    there, and the gradient of what nobody looks at, zero times infinity, is not a number. Then, and where nobody
    can look at values, those that have ended are left behind.
    """
    if x.device.type != "meta" and not transforms() and not torch.compiler.is_compiling():
        steps = sweep(x=x, state=state, masks=masks)
        if all(torch.isfinite(steps[name]).all() for name in names):
            row = torch.arange(len(lengths), device=x.device)
            end = [steps[name][lengths - 1, row] for name in names]
            ended = torch.arange(len(x), device=x.device)[:, None, None] >= lengths[:, None]
            return {name: s.masked_fill(ended, 0) for name, s in steps.items()}, end
    pieces, ended, t = [], [], 0
    sizes, counts = torch.unique_consecutive(batch_sizes, return_counts=True)
    for n, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        ended.append([s[n:] for s in state])
        part = {name: mask[t : t + count, :n] for name, mask in masks.items()}
        steps = sweep(x=x[t : t + count, :n], state=tuple(s[:n] for s in state), masks=part)
        state = tuple(steps[name][-1] for name in names)
        pieces.append({name: pad(s, (0, 0, 0, x.shape[1] - n)) for name, s in steps.items()})
        t += count
    end = [torch.cat(parts[::-1]) for parts in zip(*ended, state, strict=True)]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}, end


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)  # one needs no copy


def transforms() -> list[str]:
    """The transforms of ``torch.func`` around this call, the outermost first: "Vmap", "Grad", "Jvp" and others.

    PyTorch keeps these stacks to itself; there is no public way to ask.
    """
    if torch.compiler.is_compiling():  # which cannot look into the stack
        return []
    levels = [level.key().name for level in torch._C._functorch.get_interpreter_stack() or ()]
    return levels + ["Jvp"] * (torch.autograd.forward_ad._current_level >= 0)


def reverse_time(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Reverse each sequence within its own length; padding stays where it is.

    Parameters
    ----------
    x : Tensor
        (seq_len, batch, …).
    lengths : Tensor, optional
        (batch,), steps of each sequence; all of them if not given.

    Examples
    --------
    >>> reverse_time(torch.tensor([[1, 1], [2, 2], [3, 0]]), torch.tensor([3, 2]))
    tensor([[3, 2],
            [2, 1],
            [1, 0]])
    """
    if lengths is None:
        return x.flip(0)
    t = torch.arange(len(x), device=x.device)[:, None]
    return x[torch.where(t < lengths, lengths - 1 - t, t), torch.arange(x.shape[1], device=x.device)]

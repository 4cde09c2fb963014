"""Fast forward and hand-written backward: one engine over time, one pointwise part per unit.

Autograd over a loop keeps a node and a tensor for each operation of each step. Here the whole sweep of one layer
in one direction is a single node, ``_Sweep``. The engine makes the products that take a block of steps at once;
a *unit* walks through the block, and makes what a step needs: V h_{t-1} or Vᵀ da, and all that lies between two
products. For an LSTM, with the sums a = W_ih x_t + b + W_hh h_{t-1} in blocks, and U, V for W_ih, W_hh with
their rows in the engine's order:

====================================  ==========================================================================
forward, t = 1 … T                    backward, t = T … 1, from dh, dc: the loss differentiated by h_t, c_t
====================================  ==========================================================================
a = U x_t + b, a block at once        dU = Σ da x_tᵀ, db = Σ da, dx_t = Uᵀ da: of a block of steps at once
a += V h_{t-1}                        dh_{t-1} = Vᵀ da, and what reaches h_{t-1} from outside; dV = Σ da h_{t-1}ᵀ
o, i, f = σ(a_o), σ(a_i), σ(a_f)      da_o = dh y o (1 − o), da_i = dc g i (1 − i), da_f = dc c_{t-1} f (1 − f)
g = tanh(a_g)                         da_g = dc i (1 − g²)
c_t = f c_{t-1} + i g                 dc_{t-1} = dc f, and what reaches c_{t-1} from outside
h_t = o y, y = tanh(c_t)              dc += dh o (1 − y²), before the three lines above that read it
====================================  ==========================================================================

On a CPU an LSTM's step is one compiled call beside its product, and of a small layer a block of steps is one
call, products and all (:mod:`lstm_lib.kernels`). Elsewhere, and for other units, it is some of PyTorch's
operations. Then each da is dh or dc times a factor that depends on the forward pass alone: the unit forms these
factors for a whole block at once, and a step back is a few products with them.

To follow one number from the loss to an entry of W_hh, begin in ``_Sweep.backward``. ``grads`` holds what
reaches each h_t and c_t from outside the sweep; ``carried`` holds dh and dc as they come back through the steps
after. The unit's ``backward``, or the kernel that it calls, adds the two and turns them into da, in ``d``, step
by step from the last; da V is the next dh. After each block of steps, the engine adds h_{t-1}ᵀ da, over its
steps and its batch, to ``dv``. This is the gradient of Vᵀ; transposed, it is that of V, and autograd, which saw
V made of W_hh, puts the rows back in order. Where something stands between V h_{t-1} and the sums, as layer norm
does, ``through``, the gradient of V h_{t-1}, takes the place of da in these two products.

A block of about a megabyte stays in the cache. Rows of the weights are rearranged on the way in, and autograd
takes the gradients back: the LSTM's are o, i, f, g, so that one sigmoid covers three blocks and the three that
share dc lie together; the GRU's are r, z, W_hn h + b_hn, W_in x + b_in: U has rows of zeros for the third, and V
has no rows for the fourth.

This backward pass has no graph of its own. Where one is asked for (``create_graph``), or many passes at once
(``is_grads_batched``, ``torch.func``), the readable loop is differentiated instead.

Time is dimension −3 throughout. A dimension in front of it counts replicas (:func:`torch.func.vmap`): their
products are one batched product.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from lstm_lib import cells
from lstm_lib.cells import Cell, State
from lstm_lib.unroll import transforms, walk

BLOCK = 1 << 20
"""Bytes of gates that are worked on at a time: what stays in a core's cache."""

SMALL = 1 << (21 if torch.backends.mkl.is_available() else 16)
"""Multiplications in an LSTM's recurrent product up to which our own is the faster.

Measured beside MKL. Another library may use hardware that our loops cannot, as Apple's does.
"""

LARGE = 1 << 20
"""Multiplications in a product beyond which oneDNN makes up for what asking it costs, by measurement."""

through_sigmoid = torch.ops.aten.sigmoid_backward.grad_input  # d · y (1 − y), in one pass
through_tanh = torch.ops.aten.tanh_backward.grad_input  # d · (1 − y²)


def sweep(
    cell: Cell,
    w: SimpleNamespace,
    x: Tensor,
    state: State,
    masks: dict[str, Tensor] | None = None,
    keep_gates: bool = False,
) -> dict[str, Tensor]:
    """One layer in one direction over time.

    Parameters
    ----------
    cell : Cell
        An LSTM, an LSTM1997, an LSTMVariant, a GRU or an RNN; of no class derived from these.
    w : types.SimpleNamespace
        From ``cell.weights``.
    x : Tensor
        Input of the layer, (seq_len, batch, input_size).
    state : tuple of Tensor
        The state before the first step, in the order of ``cell.states``, each (batch, hidden_size).
    masks : dict of str to Tensor, optional
        From ``cell.masks``, each (seq_len, batch, hidden_size).
    keep_gates : bool
        Return the gates as well. They carry no gradient.

    Returns
    -------
    dict of str to Tensor
        Each state, and each gate if they are kept, by name, (seq_len, batch, hidden_size).

    Raises
    ------
    TypeError
        If the engine does not know the cell, or its h is projected (:func:`lstm_lib.unroll.loop` takes both).

    Examples
    --------
    >>> layer, x = torch.nn.LSTM(3, 5), torch.randn(7, 2, 3)
    >>> cell, zeros = cells.LSTM(), torch.zeros(2, 5)
    >>> steps = sweep(cell, cell.weights(layer), x, (zeros, zeros))
    >>> torch.allclose(steps["h"], layer(x)[0], atol=1e-6)
    True
    """
    if getattr(w, "weight_hr", None) is not None:
        raise TypeError(
            "w must be of a layer that does not project, got weight_hr (proj_size): unroll.loop takes it"
        )
    unit = unit_of(cell, tuple(masks or ()))
    x, u, v, b, *extras = unit.arrange(w, x)
    tensors = [x, u, v, b, *extras, *(masks or {}).values(), *state]
    apply = _uncompiled if "torch._dynamo" in sys.modules else _Sweep.apply
    *states, gates = apply(unit, keep_gates or _learns(tensors), *tensors)
    steps = dict(zip(cell.states, states, strict=True))
    if keep_gates:
        blocks = dict(zip(unit.blocks + unit.kept, blocks_of(gates, unit.count), strict=True))
        steps |= {name: blocks[name] for name in cell.gates}
    return steps


class _Sweep(torch.autograd.Function):
    """The engine. Arguments: unit, keep, x, U, V, b, then those of ``unit.names``."""

    @staticmethod
    def forward(
        unit: "Unit", keep: bool, x: Tensor, u: Tensor | None, v: Tensor, b: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        work = unit.by_name(rest)
        *_, seq_len, batch, _ = x.shape
        hidden, rows = v.shape[-1], v.shape[-2]
        lead = (*x.shape[:-3], seq_len, batch)
        size, width = unit.count * hidden, len(unit.blocks) * hidden
        n = _block_length(x, batch * size)
        gates = x.new_empty((*lead[:-2], seq_len if keep else min(n, seq_len), batch, size))
        states = [x.new_empty((*lead, hidden)) for _ in unit.states]
        before = [work[name + "_0"] for name in unit.states]
        vt = v.transpose(-1, -2).contiguous()
        unit = unit.compiled(gates)
        unit.begin(gates, states, work)
        for start in range(0, seq_len, n):
            stop = min(start + n, seq_len)
            block = gates[..., start:stop, :, :] if keep else gates[..., : stop - start, :, :]
            unit.take(_project(x[..., start:stop, :, :], u, b), block[..., :width], work)
            if keep or start == 0:  # a view costs as much as an operation: not again where the memory is the same
                views = unit.forward_views(block, rows)
            now = [s[..., start:stop, :, :] for s in states]
            masks = {name: work[name][..., start:stop, :, :] for name in unit.masks}
            unit.forward(range(start, stop), views, vt, before, now, masks, work)
            before = [s.select(-3, -1) for s in now]
        return (*states, gates)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.unit, keep, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[-1])
        if keep:  # x only where there is U: where x came projected, no gradient needs it
            x, u, *rest = tensors
            ctx.save_for_backward(None if u is None else x, u, *rest, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        """Gradients of all arguments, from those of each state at all steps; the last, of the gates, is None."""
        unit, needs = ctx.unit, ctx.needs_input_grad[2:]
        tensors = ctx.saved_tensors  # arguments, then results: the states and the gates
        count = len(unit.states) + 1
        many = any(g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in grads)
        if many or torch.is_grad_enabled() or transforms():  # is_grads_batched, create_graph, torch.func
            return None, None, *_readable_backward(unit, tensors[:-count], grads[:-1])
        *states, gates = tensors[-count:]
        x, u, v, _, *rest = tensors[:-count]
        work = unit.by_name(rest)
        seq_len, batch = gates.shape[-3:-1]
        rows = v.shape[-2]
        n = _block_length(gates, gates.shape[-1] * batch)
        initial = [work[name + "_0"] for name in unit.states]
        width = len(unit.blocks) * v.shape[-1]
        dx = gates.new_empty((*gates.shape[:-1], width if u is None else u.shape[-1])) if needs[0] else None
        # Those of the weights gather transposed, as xᵀ d, and are turned at the end.
        du = None if u is None else torch.zeros_like(u.transpose(-1, -2)).contiguous()
        dv = torch.zeros_like(v.transpose(-1, -2)).contiguous()
        db = None if not needs[3] else gates.new_zeros((*v.shape[:-2], width))
        extra = {name: torch.zeros_like(work[name]) for name in unit.extras if name not in unit.sources}
        carried = [torch.zeros_like(s, memory_format=torch.contiguous_format) for s in initial]  # dh, dc
        unit = unit.compiled(gates)
        space = unit.workspace(gates, min(n, seq_len), rows)
        unit.begin_back(space, gates, states, grads, carried, v, work, extra)
        for start in reversed(range(0, seq_len, n)):
            stop = min(start + n, seq_len)
            block = gates[..., start:stop, :, :]
            now = [s[..., start:stop, :, :] for s in states]
            before = [_before(s, s_0, start, stop) for s, s_0 in zip(states, initial, strict=True)]
            masks = {name: work[name][..., start:stop, :, :] for name in unit.masks}
            outside = [None if g is None else g[..., start:stop, :, :] for g in grads[:-1]]
            carried, d, through, seen = unit.backward(
                range(start, stop), space, block, now, before, outside, carried, v, masks, work, extra
            )
            # ``through`` is d where V h is added as it is; of a GRU, d without its last block.
            _accumulate(dv, seen, through)
            if du is not None:
                _accumulate(du, x[..., start:stop, :, :], d)
            if dx is not None:
                _unproject(d, u, dx[..., start:stop, :, :])
            if db is not None:
                db += d.sum((-3, -2))
        grads_by_name = extra | {name + "_0": d for name, d in zip(unit.states, carried, strict=True)}
        du = None if du is None else du.transpose(-1, -2)
        return (None, None, dx, du, dv.transpose(-1, -2), db, *(grads_by_name.get(name) for name in unit.names))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, unit: "Unit", keep: bool, *tensors: Tensor | None) -> tuple:
        def front(t: Tensor | None, dim: int | None) -> Tensor | None:
            if t is None:
                return None
            return t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)

        if tensors[0].dim() > 3 + (in_dims[2] is not None):
            raise NotImplementedError("vmap within vmap: the fused sweep takes one dimension of replicas")
        replicas = [front(t, dim) for t, dim in zip(tensors, in_dims[2:], strict=True)]
        out = _Sweep.apply(unit, keep or _learns(tensors), *replicas)
        return out, (0,) * len(out)


def _learns(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a backward pass may come, which needs the gates of all steps."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _readable_backward(unit: "Unit", tensors: tuple, grads: tuple) -> list[Tensor | None]:
    """What ``_Sweep.backward`` computes, slower: differentiable as often as one likes, and under any vmap."""
    _, _, v, _, *rest = tensors
    if tensors[0] is None:  # zeros in its place, to be added to: the derivative is the same
        lead = unit.by_name(rest)["source_x"].shape[:-1]
        tensors = (v.new_zeros((*lead, v.shape[-2])), *tensors[1:])
    given = [k for k, t in enumerate(tensors) if t is not None]

    def states(*values: Tensor) -> tuple[Tensor, ...]:
        """The states that the engine computes, by the cell's own steps."""
        by_place = dict(zip(given, values, strict=True))
        x, u, v, b, *rest = (by_place.get(k) for k in range(len(tensors)))
        work = unit.by_name(rest)
        x = linear(x, u, b) if u is not None else x + unit.projected(work)
        masks = {name: work[name] for name in unit.masks}
        state = tuple(work[name + "_0"] for name in unit.states)
        return tuple(walk(unit.cell, *unit.unarrange(x, v, b, work), state, masks, False).values())

    kind = v.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        every = torch.func.vmap(states) if v.dim() == 3 else states
        out, pull = torch.func.vjp(every, *(tensors[k] for k in given))
        found = pull(tuple(torch.zeros_like(s) if g is None else g for s, g in zip(out, grads, strict=True)))
    by_place = dict(zip(given, found, strict=True))
    names = ("x", "u", "v", "b", *unit.names)
    return [None if name in unit.sources else by_place.get(k) for k, name in enumerate(names)]


@torch._disable_dynamo  # torch.compiler.disable would load the compiler with the library
def _uncompiled(*args: Any) -> tuple[Tensor, ...]:
    """The sweep inside a torch.compile: unrolled, its loop would take minutes, and its in-place steps go wrong."""
    return _Sweep.apply(*args)


def _block_length(x: Tensor, numbers: int) -> int:
    replicas = x.shape[0] if x.dim() == 4 else 1
    return max(1, BLOCK // max(1, replicas * numbers * x.element_size()))  # an empty batch has no bytes


def _project(x: Tensor, u: Tensor | None, b: Tensor | None) -> Tensor:
    """W_ih x + b of a block of steps, or the block itself where it is projected already."""
    if u is None:
        return x
    flat, ut = x.flatten(-3, -2), u.transpose(-1, -2)
    if u.dim() == 2 and products(flat, ut)[0] is onednn:
        sums = onednn(flat, ut, bias=b)
    else:
        sums = flat.new_empty((*flat.shape[:-1], u.shape[-2]))  # autocast leaves alone what has an ``out``
        if b is None:
            torch.matmul(flat, ut, out=sums)
        elif u.dim() == 2:
            torch.addmm(b, flat, ut, out=sums)
        else:
            torch.baddbmm(b.unsqueeze(-2), flat, ut, out=sums)
    return sums.unflatten(-2, x.shape[-3:-1])


def _unproject(d: Tensor, u: Tensor | None, out: Tensor) -> None:
    """From the gradient of a block's :func:`_project` to that of its inputs."""
    if u is None or u.dim() == 3:
        out.copy_(d if u is None else (d.flatten(-3, -2) @ u).unflatten(-2, d.shape[-3:-1]))
    else:
        d = d.flatten(0, 1)
        products(d, u)[0](d, u, out=out.flatten(0, 1))


def products(a: Tensor, w: Tensor) -> tuple[Callable, Callable]:
    """What gives a w, and what adds it to a total, for any ``a`` of this one's shape and dtype.

    Where oneDNN is the faster, it makes the large ones. Shape and processor decide, no clock: numbers repeat.
    """
    if w.dim() == 3:
        return torch.bmm, add_bmm
    if (
        a.shape[-2] * w.numel() > LARGE
        and a.dtype == w.dtype == torch.float32
        and w.device.type == "cpu"
        and type(w) in (Tensor, torch.nn.Parameter)
        and not torch.jit.is_tracing()
        and torch.backends.mkldnn.enabled
        and has_onednn()
    ):
        return onednn, add_onednn
    return torch.mm, Tensor.addmm_


@cache
def has_onednn() -> bool:
    """Whether this is an AMD processor with AVX-512, which oneDNN uses there, and MKL, behind torch.mm, does not.

    What asks oneDNN is private to PyTorch: where it has gone, all products are torch.mm's.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    try:
        from llvmlite.binding import get_host_cpu_features  # as light as numba is heavy

        amd = get_host_cpu_features().get("sse4a", False)  # Intel's have no such instructions
        one = torch.ones(1, 1, dtype=torch.float32, device="cpu")  # whatever is the default at this moment
        onednn(one, one)
    except (ImportError, OSError, AttributeError, TypeError, RuntimeError):
        return False
    return amd


def onednn(a: Tensor, b: Tensor, out: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    if not (b.is_contiguous() or b.T.is_contiguous()):
        b = b.contiguous()  # with gaps between its rows oneDNN takes the slowest of its ways, by a factor of 2,000
    product = torch.ops.mkldnn._linear_pointwise.default(a, b.T, bias, "none", [], "")
    return product if out is None else out.copy_(product)


def add_onednn(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return total.add_(onednn(a, b))


class _Product(torch.autograd.Function):
    """a b by oneDNN, and the gradients by whatever is the fastest for them."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return onednn(a, b)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple:
        a, b = ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return product(d, b.mT) if by_a else None, product(a.mT, d) if by_b else None


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b for autograd, by what :func:`products` finds; differentiable as often as one likes."""
    if torch.compiler.is_compiling() or products(a, b)[0] is not onednn or torch.is_autocast_enabled("cpu"):
        return a @ b
    if transforms() or any(torch._C._functorch.is_legacy_batchedtensor(t) for t in (a, b)):
        return a @ b
    return _Product.apply(a, b)


def add_bmm(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """total += a b of every replica. ``baddbmm_`` takes one after another where total is not contiguous."""
    return total.add_(torch.bmm(a, b))


def _accumulate(total: Tensor, x: Tensor, d: Tensor) -> None:
    """total += xᵀ d, over steps and batch."""
    x, d = x.flatten(-3, -2).transpose(-1, -2), d.flatten(-3, -2)
    (products(x, d)[1] if total.dim() == 2 else Tensor.baddbmm_)(total, x, d)


def _before(s: Tensor, s_0: Tensor, start: int, stop: int) -> Tensor:
    """The state before each step of a block."""
    if start > 0:
        return s[..., start - 1 : stop - 1, :, :]
    return torch.cat([s_0.unsqueeze(-3), s[..., : stop - 1, :, :]], -3)


def blocks_of(x: Tensor, count: int) -> list[Tensor]:
    return list(x.chunk(count, -1))


class Unit:
    """A cell as the engine runs it: how its tensors lie, and its step forward and back.

    Attributes
    ----------
    blocks : tuple of str
        Of the sums, in the engine's order.
    kept : tuple of str
        What else the backward pass wants of a step, beside the gates.
    cell : Cell
        Whose equations these are.
    states, extras, masks : tuple of str
        What comes after x, U, V, b, by name: extras and masks, then the initial states.
    sources : tuple of str
        Those of the extras from which x was made, where it comes projected: ``_readable_backward`` makes it anew
        from them, so that the engine need not keep it.

    Its methods share ``work``, a dictionary for one pass, forward or back: the tensors of ``names``, and what
    one of them leaves there for another.
    """

    blocks: tuple[str, ...]
    kept: tuple[str, ...] = ()
    states: tuple[str, ...] = ("h",)
    extras: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __init__(self, cell: Cell, masks: tuple[str, ...] = ()) -> None:
        self.cell, self.masks = cell, masks

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.extras, *self.masks, *(s + "_0" for s in self.states))

    @property
    def count(self) -> int:
        return len(self.blocks + self.kept)

    def by_name(self, tensors: Any) -> dict[str, Tensor]:
        return dict(zip(self.names, tensors, strict=True))

    def arrange(self, w, x):
        """x, U, V, b and the extras, from the layer's weights."""
        raise NotImplementedError

    def unarrange(self, x, v, b, work):
        """What the cell's own step reads: weights, and the projected inputs of all steps."""
        raise NotImplementedError

    def projected(self, work: dict) -> Tensor:
        """The projected x, from the sources."""
        raise NotImplementedError

    def compiled(self, gates: Tensor) -> "Unit":
        """What computes the same faster, where it can."""
        return self

    # A block of steps by PyTorch's operations ------------------------------------------------------------------

    def forward_views(self, block: Tensor, rows: int) -> list:
        """Of each step, what ``step`` works on."""
        return [block[..., :rows].unbind(-3), *self.parts(block)]

    def take(self, sums: Tensor, gates: Tensor, work: dict) -> None:
        """Keep the projected inputs of a block for ``forward``: where its gates will be, or in ``work``."""
        gates.copy_(sums)

    def begin(self, gates, states, work):
        """Before the first block: put into ``work`` what all blocks need."""
        work["one"] = gates.new_ones(1)  # for a variant's 1 − f: a number costs more than the operation

    def forward(self, steps, views, vt, before, now, masks, work):
        """A block of steps, from their projected inputs to their gates and states."""
        _, add_product = products(before[0], vt)
        states = zip(*(s.unbind(-3) for s in now), strict=True)
        for new, pre, *parts in zip(states, *views, *map(each_step, masks.values()), strict=False):
            self.step(add_product, pre, vt, parts, before, new, work)
            before = new

    def begin_back(self, space, gates, states, grads, carried, v, work, extra):
        """Before the first block back, the last in time: put into ``work`` what all of them need."""

    def backward(self, steps, space, gates, now, before, outside, carried, v, masks, work, extra):
        """A block of steps back.

        Parameters
        ----------
        steps : range
            Their numbers.
        space : tuple or Tensor
            From ``workspace``.
        gates, now, before : Tensor, list of Tensor
            The gates of these steps, each state, and each state before them, (…, steps, batch, size).
        outside : list of Tensor or None
            The gradients that reach the states of these steps from outside.
        carried : list of Tensor
            Those that reach the last states from the steps after them, (…, batch, hidden_size).
        v, masks, work : Tensor, dict, dict
            V; each mask of these steps; see the class.
        extra : dict
            The gradients of the extras, to be added to.

        Returns
        -------
        carried : list of Tensor
        d, through : Tensor
            The gradients of the sums, and of the recurrent product.
        seen : Tensor
            What the recurrent product saw of h.
        """
        *space, views = space
        count = len(steps)
        f, d, through = (part[..., :count, :, :] for part in space)
        rows = v.shape[-2]
        total = work["total"] = torch.empty_like(carried[0])
        work["wide"] = total.unsqueeze(-2)  # the same numbers, to be multiplied with several blocks at once
        more = self.factors(f, gates, now, before, work, masks)
        put, add_product = products(carried[0], v)
        dh, dc = (*carried, None)[:2]
        grad_h, grad_c = (*outside, None)[:2]
        # Entry k of these reaches the state *before* step k of the block, to which step k sends its own, too.
        out_h, out_c = [None] * (count + 1), [None] * (count + 1)
        if grad_h is not None:  # dh gathers in a copy of these gradients: autograd may want its own again
            out_h[1:] = grad_h.clone(memory_format=torch.contiguous_format).unbind(-3)
            dh = out_h[-1].add_(dh)
        if grad_c is not None:
            out_c[1:] = grad_c.unbind(-3)
            dc = dc + out_c[-1]
        each = list(zip(out_h, out_c, *views, *more, *map(each_step, masks.values()), strict=False))[:count]
        for outside_h, outside_c, d_product, *parts in reversed(each):
            past, dc = self.back(parts, dh, dc, work)
            if outside_c is not None:
                dc = dc + outside_c
            dh = self.carry(put, add_product, past, outside_h, d_product, v, parts)
        self.extra_grads(extra, d, before, work)
        carried = [dh] if dc is None else [dh, dc.clone()]  # it may lie where the next block writes
        width = len(self.blocks) * v.shape[-1]
        return carried, d[..., :width], through[..., :rows], self.seen(before[0], masks)

    def workspace(self, gates, n, rows):
        """Room for ``n`` steps back: factors, gradients, those of the product; views of each step."""
        f, d, through, views = self.room(gates, n)
        return f, d, through, [through[..., :rows].unbind(-3), *views]

    def room(self, gates, n):
        """f, d, through, and the views that ``back`` takes of each step: see ``workspace``."""
        raise NotImplementedError

    def step(self, add_product, pre, vt, parts, before, now, work):
        """One step, in place: to ``pre`` comes V h_{t-1}; then gates go into ``parts``, the states into ``now``.

        ``parts`` are this step's blocks, then its masks.
        """
        raise NotImplementedError

    def factors(self, f, gates, now, before, work, masks):
        """Fill ``f`` with the factors of a block of steps; gives a list of what else ``back`` needs, by step."""
        raise NotImplementedError

    def back(self, parts, dh, dc, work):
        """One step back: da, from dh and dc; gives what reaches h_{t-1} past the product, or None, and dc_{t-1}.

        ``parts`` are this step's views of ``room``, then what ``factors`` gave, then its masks.
        """
        raise NotImplementedError

    def parts(self, block: Tensor) -> list:
        """Of each step, its blocks as ``step`` takes them."""
        return []

    def seen(self, h, masks):
        """What the recurrent product sees of h."""
        return h

    def extra_grads(self, extra, d, before, work):
        """Add a block's part of the gradients of the extras."""

    def carry(self, put, add_product, past, outside, d_product, v, parts):
        """dh of the step before: from outside, past the product, and through it. May overwrite ``outside``."""
        if outside is None:
            outside, past = past, None
        if outside is None:
            return put(d_product, v)
        if past is not None:
            outside += past
        return add_product(outside, d_product, v)


class RNNUnit(Unit):
    blocks = ("h",)

    def __init__(self, cell: Cell, masks: tuple[str, ...] = ()) -> None:
        super().__init__(cell, masks)
        self.tanh = cell.activation is torch.tanh
        self.activation = torch.tanh if self.tanh else partial(torch.clamp, min=0)  # relu takes no ``out``

    def arrange(self, w, x):
        return x, w.weight_ih, w.weight_hh, None if w.bias_ih is None else w.bias_ih + w.bias_hh

    def unarrange(self, x, v, b, work):
        return SimpleNamespace(weight_hh=v, bias_hh=None), x

    def step(self, add_product, pre, vt, parts, before, now, work):
        self.activation(add_product(pre, before[0], vt), out=now[0])

    def room(self, gates, n):
        f, d = room_for(gates, n, gates.shape[-1]), room_for(gates, n, gates.shape[-1])
        return f, d, d, [f.unbind(-3), d.unbind(-3)]

    def factors(self, f, gates, now, before, work, masks):
        (h,) = now
        f.copy_(1 - h * h if self.tanh else h > 0)
        return []

    def back(self, parts, dh, dc, work):
        f, d = parts
        torch.mul(dh, f, out=d)
        return None, dc


class GRUUnit(Unit):
    blocks = ("r", "z", "hn", "n")

    def arrange(self, w, x):
        def spread(a: Tensor, b: Tensor | None = None) -> Tensor:
            r, z, n = a.chunk(3)
            hn = torch.zeros_like(n)
            if b is not None:
                br, bz, hn = b.chunk(3)
                r, z = r + br, z + bz
            return torch.cat([r, z, hn, n])

        b = None if w.bias_ih is None else spread(w.bias_ih, w.bias_hh)
        return x, spread(w.weight_ih), w.weight_hh, b

    def unarrange(self, x, v, b, work):
        r, z, _, n = x.chunk(4, -1)  # the third is b_hn at every step, for its rows of U are zeros
        zeros = torch.zeros_like(v[: 2 * v.shape[-1], 0])
        bias = None if b is None else torch.cat([zeros, b.chunk(4)[2]])
        return SimpleNamespace(weight_hh=v, bias_hh=bias), torch.cat([r, z, n], -1)

    def parts(self, block: Tensor) -> list:
        r, z, hn, n = blocks_of(block, 4)
        return [p.unbind(-3) for p in (block[..., : 2 * r.shape[-1]], r, z, hn, n)]

    def step(self, add_product, pre, vt, parts, before, now, work):
        rz, r, z, hn, n = parts
        add_product(pre, before[0], vt)
        rz.sigmoid_()
        n.addcmul_(r, hn).tanh_()  # n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
        torch.lerp(n, before[0], z, out=now[0])  # h = n + z ⊙ (h_{t-1} − n)

    def room(self, gates, n):
        hidden = gates.shape[-1] // 4
        f, d = room_for(gates, n, 5 * hidden), room_for(gates, n, 5 * hidden)
        views = [f.unflatten(-1, (5, hidden)), d.unflatten(-1, (5, hidden)), d[..., 4 * hidden :]]
        return f, d, d, [p.unbind(gates.dim() - 3) for p in views]

    def factors(self, f, gates, now, before, work, masks):
        r, z, hn, n = blocks_of(gates, 4)
        fr, fz, fhn, fn, keep = blocks_of(f, 5)
        torch.mul(1 - z, 1 - n * n, out=fn)
        torch.mul(fn, r, out=fhn)
        torch.mul(fhn * (1 - r), hn, out=fr)
        torch.mul((before[0] - n) * z, 1 - z, out=fz)
        keep.copy_(z)
        return []

    def back(self, parts, dh, dc, work):
        f, d, direct = parts
        torch.mul(dh.unsqueeze(-2), f, out=d)
        return direct, dc


class LSTMUnit(Unit):
    """c = f ⊙ c_{t-1} + i ⊙ g, h = o ⊙ tanh(c)."""

    blocks = ("o", "i", "f", "g")
    kept = ("y",)  # tanh(c), which is slow to compute a second time
    states = ("h", "c")
    gradients = 5  # in blocks: of the four sums, and of c_{t-1}

    def arrange(self, w, x):
        h = w.weight_hh.shape[-1]
        b = None if w.bias_ih is None else (w.bias_ih + w.bias_hh).roll(h, 0)
        return x, w.weight_ih.roll(h, 0), w.weight_hh.roll(h, 0), b

    def unarrange(self, x, v, b, work):
        h = v.shape[-1]
        return SimpleNamespace(weight_hh=v.roll(-h, 0), bias_hh=None, weight_hr=None), x.roll(-h, -1)

    def compiled(self, gates):
        return by_kernels(self, gates, CompiledLSTM, SmallLSTM)

    def parts(self, block):
        o, i, f, g, y, *_ = blocks_of(block, self.count)
        return [p.unbind(-3) for p in (block[..., : 3 * o.shape[-1]], o, i, f, g, y)]

    def step(self, add_product, pre, vt, parts, before, now, work):
        oif, o, i, f, g, y = parts
        (h_, c_), (h, c) = before, now
        add_product(pre, h_, vt)
        oif.sigmoid_()
        g.tanh_()
        torch.mul(f, c_, out=c).addcmul_(i, g)  # c = f ⊙ c_{t-1} + i ⊙ g
        torch.mul(o, torch.tanh(c, out=y), out=h)  # h = o ⊙ tanh(c)

    def room(self, gates, n):
        """Factors fc, fo, fi, ff, fg and the forget gate; gradients of o, i, f, g, c_{t-1}.

        What dc multiplies lies together.
        """
        hidden = gates.shape[-1] // self.count
        f, d = room_for(gates, n, 6 * hidden), room_for(gates, n, self.gradients * hidden)
        views = [f[..., :hidden], f[..., hidden : 2 * hidden], f[..., 2 * hidden :].unflatten(-1, (4, hidden))]
        d_ifgc, d_c = d[..., hidden : 5 * hidden].unflatten(-1, (4, hidden)), d[..., 4 * hidden : 5 * hidden]
        views += [d[..., :hidden], d_ifgc, d_c]
        return f, d, d, [p.unbind(gates.dim() - 3) for p in views]

    def factors(self, f, gates, now, before, work, masks):
        o, i, forget, g, y, *_ = blocks_of(gates, self.count)
        fc, fo, fi, ff, fg, keep = blocks_of(f, 6)
        through_tanh(o, y, grad_input=fc)  # ∂h/∂c = o (1 − tanh²(c))
        through_sigmoid(y, o, grad_input=fo)  # ∂h/∂a_o = tanh(c) o (1 − o)
        through_sigmoid(g, i, grad_input=fi)  # ∂c/∂a_i = g i (1 − i)
        through_sigmoid(before[1], forget, grad_input=ff)  # ∂c/∂a_f = c_{t-1} f (1 − f)
        through_tanh(i, g, grad_input=fg)  # ∂c/∂a_g = i (1 − g²)
        keep.copy_(forget)  # ∂c/∂c_{t-1} = f
        return []

    def back(self, parts, dh, dc, work):
        fc, fo, factors, d_o, d_ifgc, d_c = parts
        torch.mul(dh, fo, out=d_o)  # da_o
        torch.addcmul(dc, dh, fc, out=work["total"])  # all that reaches c_t
        torch.mul(work["wide"], factors, out=d_ifgc)  # da_i, da_f, da_g, and what goes on to c_{t-1}
        return None, d_c


class CompiledLSTM(LSTMUnit):
    """The same by :mod:`lstm_lib.kernels`: a step in one call beside its product.

    The kernels' arrays are the tensors' own memory, made once for a pass, that of ``sums`` once for a block:
    what a kernel writes, the next product reads, and the other way round.
    """

    def begin(self, gates, states, work):
        gates = split(gates, self.count)
        # In kernels.forward's order: sums, which ``take`` puts there, gates, h, c, c_0.
        work["arrays"] = [None, array(gates, 5), *(array(s, 4) for s in states), array(work["c_0"], 3)]

    def take(self, sums, gates, work):
        work["sums"], work["arrays"][0] = sums, array(split(sums, 4), 5)

    def forward_views(self, block, rows):
        return ()

    def forward(self, steps, views, vt, before, now, masks, work):
        kernel, arrays, (_, add_product) = kernels().forward, work["arrays"], products(before[0], vt)
        sums, earlier = work["sums"].unbind(-3), (before[0], *now[0].unbind(-3))
        for k, (t, pre, h_) in enumerate(zip(steps, sums, earlier, strict=False)):
            add_product(pre, h_, vt)
            kernel(t, k, *arrays)

    def workspace(self, gates, n, rows):
        """Room for ``d`` alone."""
        return room_for(gates, n, rows)

    def begin_back(self, space, gates, states, grads, carried, v, work, extra):
        c, to_h, to_c = states[1], *grads[:2]
        # In kernels.backward's order: gates, c, c_0, to_h, to_c, dh, dc (carried's memory), d (that of space).
        work["arrays"] = [array(split(gates, self.count), 5), array(c, 4), array(work["c_0"], 3)]
        work["arrays"] += [array(g, 4, c) for g in (to_h, to_c)] + [array(s, 3) for s in carried]
        work["arrays"].append(array(split(space, 4), 5))

    def backward(self, steps, space, gates, now, before, outside, carried, v, masks, work, extra):
        """See :class:`Unit`; ``outside`` is among the arrays, as ``to_h`` and ``to_c`` of all steps."""
        d = space[..., : len(steps), :, :]
        self.walk_back(steps, d, carried[0], v, masks, work)
        return carried, d, d, before[0]

    def walk_back(self, steps, through, dh, v, masks, work):
        """The steps of a block, from the last: each fills its ``through``, and ``dh`` becomes ``through`` V."""
        kernel, arrays, (put, _) = kernels().backward, work["arrays"], products(dh, v)
        for k, (t, da) in reversed(list(enumerate(zip(steps, through.unbind(-3), strict=True)))):
            kernel(t, k, *arrays)  # dh, dc → da, and dc of the step before
            put(da, v, out=dh)  # dh of the step before


class SmallLSTM(CompiledLSTM):
    """The same of a layer whose products are small: a block of steps in one call, products and all."""

    def forward(self, steps, views, vt, before, now, masks, work):
        kernels().forward_small(steps.start, steps.stop, array(vt, 3), array(work["h_0"], 3), *work["arrays"])

    def begin_back(self, space, gates, states, grads, carried, v, work, extra):
        super().begin_back(space, gates, states, grads, carried, v, work, extra)
        work["vt"] = array(v.mT, 3)  # turned once for all blocks

    def walk_back(self, steps, through, dh, v, masks, work):
        kernels().backward_small(steps.start, steps.stop, work["vt"], *work["arrays"])


def can_compile(gates: Tensor) -> bool:
    """Whether the compiled kernels can work on these: numbers of a CPU, in single or double precision."""
    fits = gates.device.type == "cpu" and gates.dtype in (torch.float32, torch.float64)
    return fits and type(gates) is Tensor and not torch.jit.is_tracing() and kernels() is not None


def by_kernels(unit: Unit, gates: Tensor, large: type[Unit], small: type[Unit]) -> Unit:
    """The unit by the compiled kernels, where they can: ``small`` where its recurrent product is our own."""
    if not can_compile(gates):
        return unit
    batch, hidden = gates.shape[-2], gates.shape[-1] // unit.count  # of one network: replicas do not count
    kind = small if 4 * batch * hidden**2 <= SMALL else large
    return kind(unit.cell, unit.masks)


def array(x: Tensor | None, dims: int, like: Tensor | None = None) -> np.ndarray:
    """A tensor as the kernels take it, its own memory if it is contiguous; None becomes an array of length 0.

    Networks come first, one where there are no replicas. None becomes one of the dtype of ``like``, for a kernel
    is compiled anew for each combination of dtypes.
    """
    if x is None:
        return like.new_empty((0,) * dims).numpy()
    return (x if x.dim() == dims else x.unsqueeze(0)).contiguous().numpy(force=True)


def split(x: Tensor, count: int) -> Tensor:
    """With a dimension for the blocks."""
    return x.unflatten(-1, (count, -1))


@cache
def kernels() -> ModuleType | None:
    """The compiled kernels; None without numba, or where it may not work, or does not know one of our options."""
    try:
        from lstm_lib import kernels as compiled  # not with the library: half a second

        if not hasattr(compiled.sigmoid, "py_func"):  # NUMBA_DISABLE_JIT
            return None
        compiled.sigmoid(np.float32(0))  # only now would numba say that it does not know one of our options
    except (ImportError, OSError, RuntimeError, KeyError):
        return None
    return compiled


def room_for(gates: Tensor, n: int, size: int) -> Tensor:
    """Room for ``n`` steps."""
    return gates.new_empty((*gates.shape[:-3], n, gates.shape[-2], size))


def each_step(mask: Tensor) -> Any:
    """A view of each step; the same one where all steps share it."""
    return [mask.select(-3, 0)] * mask.shape[-3] if mask.stride(-3) == 0 else mask.unbind(-3)


def unit_of(cell: Cell, masks: tuple[str, ...]) -> Unit:
    """What the engine runs for a cell."""
    if type(cell) in (cells.LSTMVariant, cells.LSTM1997):
        from lstm_lib.fused_variants import VariantUnit  # which is made of the units here

        return VariantUnit(cell, masks)
    for kind, unit in ((cells.LSTM, LSTMUnit), (cells.GRU, GRUUnit), (cells.RNN, RNNUnit)):
        if type(cell) is kind:  # a class derived from it may have another step
            return unit(cell, masks)
    raise TypeError(f"cell must be an LSTM, a GRU or an RNN, got {type(cell).__name__}")

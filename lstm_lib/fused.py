"""Fast forward and hand-written backward: one engine over time, one pointwise part per unit.

Autograd over a loop keeps a node and a tensor for each operation of each step. Here the whole sweep of one layer
in one direction is a single node, ``_Sweep``. The engine does everything that is a matrix product; a
*kernel* does the rest, elementwise:

* forward, a block of steps at a time: project the inputs of the block in one product; then, step by step, add
  W_hh h_{t-1} and let the kernel turn pre-activations into gates, in place.
* backward: the gradient of each pre-activation is dh_t or dc_t times a factor that only the forward pass knows.
  The kernel forms these factors for a whole block at once; what is left for a step is a few products with them.
  The weights' gradients are one product per block.

A block of about a megabyte stays in the cache. Rows of the weights are rearranged on the way in, and autograd
takes the gradients back: the LSTM's are o, i, f, g, so that one sigmoid covers three blocks and the three that
share dc lie together; the GRU's are r, z, W_hn h + b_hn, W_in x + b_in, with zeros where one product has nothing
to add.

This backward pass has no graph of its own. Where one is asked for (``create_graph``), or many passes at once
(``is_grads_batched``, ``torch.func``), the readable loop is differentiated instead.

Time is dimension −3 throughout. A dimension in front of it counts replicas (:func:`torch.func.vmap`): their
products are one batched product.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from lstm_lib import cells
from lstm_lib.cells import Cell, State
from lstm_lib.unroll import transforms, walk

BLOCK = 1 << 20
"""Bytes of gates that are worked on at a time: what stays in a core's cache."""

EPS = 1e-5

_through_sigmoid = torch.ops.aten.sigmoid_backward.grad_input  # d · y (1 − y), in one pass
_through_tanh = torch.ops.aten.tanh_backward.grad_input  # d · (1 − y²)


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
        An LSTM, an LSTMVariant, a GRU or an RNN.
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
        If the cell has no kernel here, or its h is projected (``unroll.run`` takes both).

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
    kernel = _kernel(cell, tuple(masks or ()))
    x, u, v, b, *extras = kernel.arrange(cell, w, x)
    tensors = [x, u, v, b, *extras, *(masks or {}).values(), *state]
    apply = _uncompiled if "torch._dynamo" in sys.modules else _Sweep.apply
    *states, gates = apply(kernel, keep_gates or _learns(tensors), *tensors)
    steps = dict(zip(cell.states, states, strict=True))
    if keep_gates:
        blocks = dict(zip(kernel.blocks + kernel.kept, _rows(gates, kernel.count), strict=True))
        steps |= {name: blocks[name] for name in cell.gates}
    return steps


class _Sweep(torch.autograd.Function):
    """The engine. Arguments: kernel, keep, x, U, V, b, then the kernel's extras, masks and states by name."""

    @staticmethod
    def forward(
        kernel: "_Kernel", keep: bool, x: Tensor, u: Tensor | None, v: Tensor, b: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        work = kernel.by_name(rest)
        *_, seq_len, batch, _ = x.shape
        hidden, rows = v.shape[-1], v.shape[-2]
        lead = (*x.shape[:-3], seq_len, batch)
        width, sums = kernel.count * hidden, len(kernel.blocks) * hidden
        n = _block_length(x, batch * width)
        gates = x.new_empty((*lead[:-2], seq_len if keep else min(n, seq_len), batch, width))
        states = [x.new_empty((*lead, hidden)) for _ in kernel.states]
        work["one"] = x.new_ones(1)  # a number among the operands costs more than the operation
        before = [work[name + "_0"] for name in kernel.states]
        steps = list(zip(*(s.unbind(-3) for s in states), strict=True))
        every_mask = [_each_step(work[name]) for name in kernel.masks]
        vt = v.transpose(-1, -2).contiguous()
        multiply = Tensor.addmm_ if v.dim() == 2 else _add_bmm
        for start in range(0, seq_len, n):
            stop = min(start + n, seq_len)
            block = gates[..., start:stop, :, :] if keep else gates[..., : stop - start, :, :]
            _project(x[..., start:stop, :, :], u, b, block[..., :sums])
            if keep or start == 0:  # a view costs as much as an operation: not again where the memory is the same
                views = [block[..., :rows].unbind(-3), *kernel.forward_views(block)]
            masks = [mask[start:stop] for mask in every_mask]
            for now, pre, *parts in zip(steps[start:stop], *views, *masks, strict=keep):
                kernel.step(multiply, pre, vt, parts, before, now, work)
                before = now
        return (*states, gates)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.kernel, keep, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[-1])
        if keep:
            x, u, *rest = tensors
            ctx.save_for_backward(None if u is None else x, u, *rest, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        kernel, needs = ctx.kernel, ctx.needs_input_grad[2:]
        tensors = ctx.saved_tensors
        count = len(kernel.states) + 1
        many = any(g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in grads)
        if many or torch.is_grad_enabled() or transforms():  # is_grads_batched, create_graph, torch.func
            return None, None, *_readable_backward(kernel, tensors[:-count], grads[:-1])
        *states, gates = tensors[-count:]
        x, u, v, _, *rest = tensors[:-count]
        work = kernel.by_name(rest) | {"v": v}
        seq_len, batch = gates.shape[-3:-1]
        rows = v.shape[-2]
        n = _block_length(gates, gates.shape[-1] * batch)
        initial = [work[name + "_0"] for name in kernel.states]
        grad_h, grad_c = (*grads[:-1], None)[:2]
        width = len(kernel.blocks) * v.shape[-1]
        dx = gates.new_empty((*gates.shape[:-1], width if u is None else u.shape[-1])) if needs[0] else None
        du = None if u is None else torch.zeros_like(u.transpose(-1, -2)).contiguous()
        dv = torch.zeros_like(v.transpose(-1, -2)).contiguous()
        db = None if not needs[3] else gates.new_zeros((*v.shape[:-2], width))
        work["total"] = torch.empty_like(initial[0])
        work["wide"] = work["total"].unsqueeze(-2)
        extra = {name: torch.zeros_like(work[name]) for name in kernel.extras if name not in kernel.sources}

        # dh gathers in a copy of its gradients from outside: autograd may want its own again
        out_h = (
            [None, *[None] * seq_len]
            if grad_h is None
            else [None, *grad_h.clone(memory_format=torch.contiguous_format).unbind(-3)]
        )
        dh = torch.zeros_like(initial[0]) if grad_h is None else out_h.pop()
        dc = torch.zeros_like(initial[0]) if grad_c is None else grad_c.select(-3, seq_len - 1)
        out_c = [None] * seq_len if grad_c is None else [None, *grad_c.unbind(-3)[:-1]]
        product, multiply = (torch.mm, Tensor.addmm_) if v.dim() == 2 else (torch.bmm, _add_bmm)
        every_mask = [_each_step(work[name]) for name in kernel.masks]
        *space, views = kernel.workspace(gates, min(n, seq_len))
        views = [space[2][..., :rows].unbind(-3), *views]
        for start in reversed(range(0, seq_len, n)):
            stop = min(start + n, seq_len)
            now = [s[..., start:stop, :, :] for s in states]
            before = [_before(s, s_0, start, stop) for s, s_0 in zip(states, initial, strict=True)]
            f, d, through = (part[..., : stop - start, :, :] for part in space)
            more = kernel.factors(f, gates[..., start:stop, :, :], now, before, work, start, stop)
            masks = [mask[start:stop] for mask in every_mask]
            carried = list(zip(out_h[start:stop], out_c[start:stop], *views, *more, *masks, strict=False))
            for outside, grad_before, sums, *parts in reversed(carried):
                past, dc = kernel.back(parts, dh, dc, work)
                if grad_before is not None:
                    dc = dc + grad_before
                dh = kernel.carry(product, multiply, past, outside, sums, v, parts)
            h_before = kernel.seen(before[0], work, start, stop)
            _accumulate(dv, h_before, through[..., :rows])
            total = d[..., :width]
            if du is not None:
                _accumulate(du, x[..., start:stop, :, :], total)
            if dx is not None:
                dx[..., start:stop, :, :] = total if u is None else _times(total, u)
            if db is not None:
                db += total.sum((-3, -2))
            kernel.extra_grads(extra, d, before, work, start, stop)
            dc = dc.clone()  # it may lie where the next block writes
        grads_by_name = extra | {kernel.states[0] + "_0": dh} | ({"c_0": dc} if len(kernel.states) > 1 else {})
        du = None if du is None else du.transpose(-1, -2)
        return (None, None, dx, du, dv.transpose(-1, -2), db, *(grads_by_name.get(name) for name in kernel.names))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, kernel: "_Kernel", keep: bool, *tensors: Tensor | None) -> tuple:
        def front(t: Tensor | None, dim: int | None) -> Tensor | None:
            if t is None:
                return None
            return t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)

        if tensors[0].dim() > 3 + (in_dims[2] is not None):
            raise NotImplementedError("vmap within vmap: the fused sweep takes one dimension of replicas")
        replicas = [front(t, dim) for t, dim in zip(tensors, in_dims[2:], strict=True)]
        out = _Sweep.apply(kernel, keep or _learns(tensors), *replicas)
        return out, (0,) * len(out)


def _learns(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a backward pass may come, which needs the gates of all steps."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _readable_backward(kernel: "_Kernel", tensors: tuple, grads: tuple) -> list[Tensor | None]:
    """What :meth:`_Sweep.backward` computes, slower: differentiable as often as one likes, and under any vmap."""
    _, _, v, _, *rest = tensors
    if tensors[0] is None:  # zeros in its place, to be added to: the derivative is the same
        lead = kernel.by_name(rest)["source_x"].shape[:-1]
        tensors = (v.new_zeros((*lead, v.shape[-2])), *tensors[1:])
    given = [k for k, t in enumerate(tensors) if t is not None]

    def states(*values: Tensor) -> tuple[Tensor, ...]:
        """The states that the engine computes, by the unit's own steps."""
        by_place = dict(zip(given, values, strict=True))
        x, u, v, b, *rest = (by_place.get(k) for k in range(len(tensors)))
        work = kernel.by_name(rest)
        x = linear(x, u, b) if u is not None else x + kernel.projected(work)
        masks = {name: work[name] for name in kernel.masks}
        state = tuple(work[name + "_0"] for name in kernel.states)
        return tuple(walk(kernel.cell, *kernel.unarrange(x, v, b, work), state, masks, False).values())

    kind = v.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        every = torch.func.vmap(states) if v.dim() == 3 else states
        out, pull = torch.func.vjp(every, *(tensors[k] for k in given))
        found = pull(tuple(torch.zeros_like(s) if g is None else g for s, g in zip(out, grads, strict=True)))
    by_place = dict(zip(given, found, strict=True))
    names = ("x", "u", "v", "b", *kernel.names)
    return [None if name in kernel.sources else by_place.get(k) for k, name in enumerate(names)]


@torch._disable_dynamo  # torch.compiler.disable would load the compiler with the library
def _uncompiled(*args: Any) -> tuple[Tensor, ...]:
    """The sweep inside a torch.compile: unrolled, its loop would take minutes, and its in-place steps go wrong."""
    return _Sweep.apply(*args)


def _block_length(x: Tensor, numbers: int) -> int:
    replicas = x.shape[0] if x.dim() == 4 else 1
    return max(1, BLOCK // max(1, replicas * numbers * x.element_size()))  # an empty batch has no bytes


def _project(x: Tensor, u: Tensor | None, b: Tensor | None, out: Tensor) -> None:
    """W_ih x + b of a block of steps, or the block itself where it is projected already."""
    if u is None:
        out.copy_(x)
        return
    x, ut = x.flatten(-3, -2), u.transpose(-1, -2)
    if u.dim() == 3:  # a block of replicas cannot be flattened in place
        products = torch.bmm(x, ut).view_as(out)
        out.copy_(products) if b is None else torch.add(products, b[:, None, None], out=out)
    else:
        flat = out.flatten(-3, -2)
        torch.mm(x, ut, out=flat) if b is None else torch.addmm(b, x, ut, out=flat)


def _add_bmm(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """total += a b of every replica. ``baddbmm_`` takes one after another where total is not contiguous."""
    return total.add_(torch.bmm(a, b))


def _accumulate(total: Tensor, x: Tensor, d: Tensor) -> None:
    """total += xᵀ d, over steps and batch."""
    (torch.Tensor.addmm_ if total.dim() == 2 else torch.Tensor.baddbmm_)(
        total, x.flatten(-3, -2).transpose(-1, -2), d.flatten(-3, -2)
    )


def _times(d: Tensor, u: Tensor) -> Tensor:
    return (d.flatten(-3, -2) @ u).unflatten(-2, d.shape[-3:-1])


def _before(s: Tensor, s_0: Tensor, start: int, stop: int) -> Tensor:
    """The state before each step of a block."""
    if start > 0:
        return s[..., start - 1 : stop - 1, :, :]
    return torch.cat([s_0.unsqueeze(-3), s[..., : stop - 1, :, :]], -3)


def _rows(x: Tensor, count: int) -> list[Tensor]:
    return list(x.chunk(count, -1))


class _Kernel:
    """What the engine needs to know of a unit.

    Attributes
    ----------
    blocks : tuple of str
        Of the pre-activations, in the engine's order.
    kept : tuple of str
        What else the backward pass wants of a step, beside the gates.
    cell : Cell
        The unit itself.
    states, extras, masks : tuple of str
        What comes after x, U, V, b, by name: extras and masks, then the initial states.
    sources : tuple of str
        Those of the extras that x was made from, where it comes projected: for second derivatives only, which save
        the engine from keeping it.
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

    def arrange(self, cell, w, x):
        """x, U, V, b and the extras, from the layer's weights."""
        raise NotImplementedError

    def unarrange(self, x, v, b, work):
        """What the cell's own step reads: weights, and the projected inputs of all steps."""
        raise NotImplementedError

    def projected(self, work: dict) -> Tensor:
        """The projected x, from the sources."""
        raise NotImplementedError

    def workspace(self, gates, n):
        """For ``n`` steps of the backward pass: factors, gradients, those of the product, views of each step."""
        raise NotImplementedError

    def seen(self, h, work, start, stop):
        """What the recurrent product sees of h."""
        return h

    def extra_grads(self, extra, d, before, work, start, stop):
        """Add a block's part of the gradients of the extras."""

    def carry(self, product, multiply, past, outside, sums, v, parts):
        """dh of the step before: from outside, past the product, and through it. Overwrites the first two."""
        if outside is None:
            outside, past = past, None
        if outside is None:
            return product(sums, v)
        if past is not None:
            outside += past
        return multiply(outside, sums, v)


class _RNN(_Kernel):
    blocks = ("h",)

    def __init__(self, cell: Cell, masks: tuple[str, ...] = ()) -> None:
        super().__init__(cell, masks)
        self.tanh = cell.activation is torch.tanh
        self.activation = torch.tanh if self.tanh else partial(torch.clamp, min=0)  # relu takes no ``out``

    def arrange(self, cell, w, x):
        return x, w.weight_ih, w.weight_hh, None if w.bias_ih is None else w.bias_ih + w.bias_hh

    def unarrange(self, x, v, b, work):
        return SimpleNamespace(weight_hh=v, bias_hh=None), x

    def forward_views(self, block: Tensor) -> list:
        return []

    def step(self, multiply, pre, vt, parts, before, now, work):
        self.activation(multiply(pre, before[0], vt), out=now[0])

    def workspace(self, gates, n):
        f, d = _blocks(gates, n, gates.shape[-1]), _blocks(gates, n, gates.shape[-1])
        return f, d, d, [f.unbind(-3), d.unbind(-3)]

    def factors(self, f, gates, now, before, work, start, stop):
        (h,) = now
        f.copy_(1 - h * h if self.tanh else h > 0)
        return []

    def back(self, parts, dh, dc, work):
        f, d = parts
        torch.mul(dh, f, out=d)
        return None, dc


class _GRU(_Kernel):
    blocks = ("r", "z", "hn", "n")

    def arrange(self, cell, w, x):
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

    def forward_views(self, block: Tensor) -> list:
        r, z, hn, n = _rows(block, 4)
        return [p.unbind(-3) for p in (block[..., : 2 * r.shape[-1]], r, z, hn, n)]

    def step(self, multiply, pre, vt, parts, before, now, work):
        rz, r, z, hn, n = parts
        multiply(pre, before[0], vt)
        rz.sigmoid_()
        n.addcmul_(r, hn).tanh_()  # n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
        torch.lerp(n, before[0], z, out=now[0])  # h = n + z ⊙ (h_{t-1} − n)

    def workspace(self, gates, n):
        hidden = gates.shape[-1] // 4
        f, d = _blocks(gates, n, 5 * hidden), _blocks(gates, n, 5 * hidden)
        views = [f.unflatten(-1, (5, hidden)), d.unflatten(-1, (5, hidden)), d[..., 4 * hidden :]]
        return f, d, d, [p.unbind(gates.dim() - 3) for p in views]

    def factors(self, f, gates, now, before, work, start, stop):
        r, z, hn, n = _rows(gates, 4)
        fr, fz, fhn, fn, keep = _rows(f, 5)
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


_NAMES = {"ci": "weight_ci", "cf": "weight_cf", "co": "weight_co"}
_NAMES |= {"ln_hh": "weight_ln_hh", "ln_c": "weight_ln_c", "ln_c_bias": "bias_ln_c"}


class _LSTM(_Kernel):
    """The LSTM and its variants; see :class:`lstm_lib.cells.LSTMVariant` for the equations."""

    blocks = ("o", "i", "f", "g")
    kept = ("y",)  # tanh(c), which is slow to compute a second time
    states = ("h", "c")

    def __init__(self, cell: Cell, masks: tuple[str, ...] = ()) -> None:
        super().__init__(cell, masks)
        self.peephole = getattr(cell, "peephole", False)
        self.coupled = getattr(cell, "coupled", False)
        self.layer_norm = getattr(cell, "layer_norm", False)
        self.without = frozenset({"forget"} if isinstance(cell, cells.LSTM1997) else getattr(cell, "without", ()))
        self.sources = ("source_x", "source_u", "source_ln", "source_b") * self.layer_norm
        self.extras = tuple(_NAMES)[:3] * self.peephole + tuple(_NAMES)[3:] * self.layer_norm + self.sources
        self.plain = not (self.extras or masks or self.coupled or self.without)

    def arrange(self, cell, w, x):
        h = w.weight_hh.shape[-1]
        extras = []
        if self.peephole:
            extras += [p.unsqueeze(0) for p in (w.weight_ci, w.weight_cf, w.weight_co)]
        u, v = w.weight_ih.roll(h, 0), w.weight_hh.roll(h, 0)
        b = None if w.bias_ih is None else (w.bias_ih + w.bias_hh).roll(h, 0)
        if self.layer_norm:
            sources = x, u, w.weight_ln_ih.roll(h, 0), b
            extras += [p.unsqueeze(0) for p in (w.weight_ln_hh.roll(h, 0), w.weight_ln_c, w.bias_ln_c)]
            extras += sources
            return self.projected(dict(zip(self.sources, sources, strict=True))), None, v, None, *extras
        return x, u, v, b, *extras

    def unarrange(self, x, v, b, work):
        h = v.shape[-1]
        w = SimpleNamespace(weight_hh=v.roll(-h, 0), bias_hh=None, weight_hr=None)
        for name in _NAMES.keys() & self.extras:
            value = work[name].squeeze(0)
            setattr(w, _NAMES[name], value.roll(-h, 0) if name == "ln_hh" else value)
        return w, x.roll(-h, -1)

    def projected(self, work: dict) -> Tensor:
        x, u, gain, b = (work[name] for name in self.sources)
        return self.cell.project(x, SimpleNamespace(weight_ih=u, weight_ln_ih=gain, bias_ih=b))

    # Forward ---------------------------------------------------------------------------------------------------

    def forward_views(self, block: Tensor) -> list:
        o, i, f, g, y = _rows(block, self.count)
        return [p.unbind(-3) for p in (block[..., : 3 * o.shape[-1]], o, i, f, g, y)]

    def step(self, multiply, pre, vt, parts, before, now, work):
        if self.plain:
            oif, o, i, f, g, y = parts
            (h_0, c_0), (h, c) = before, now
            multiply(pre, h_0, vt)
            oif.sigmoid_()
            g.tanh_()
            torch.mul(f, c_0, out=c).addcmul_(i, g)  # c = f ⊙ c_{t-1} + i ⊙ g
            torch.mul(o, torch.tanh(c, out=y), out=h)  # h = o ⊙ tanh(c)
        else:
            self.variant_step(multiply, pre, vt, parts, before, now, work)

    def variant_step(self, multiply, pre, vt, parts, before, now, work):
        oif, o, i, f, g, y, *masks = parts
        mask = dict(zip(self.masks, masks, strict=True))
        (h_0, c_0), (h, c) = before, now
        seen = h_0 * mask["drop_h"] if "drop_h" in mask else h_0
        if self.layer_norm:
            pre += _norm(seen @ vt, work["ln_hh"])
        else:
            multiply(pre, seen, vt)
        if self.peephole:
            i.addcmul_(c_0, work["ci"])
            f.addcmul_(c_0, work["cf"])
            oif[..., o.shape[-1] :].sigmoid_()
        else:
            oif.sigmoid_()
        if self.coupled:
            torch.sub(work["one"], f, out=i)
        for name, gate in (("input", i), ("forget", f)):
            if name in self.without:
                gate.fill_(1)
        if "input_activation" not in self.without:
            g.tanh_()
        torch.mul(f, c_0, out=c).addcmul_(i, g)
        if self.peephole:
            o.addcmul_(c, work["co"]).sigmoid_()
        if "output" in self.without:
            o.fill_(1)
        s = c
        if self.layer_norm:
            s = _norm(c, work["ln_c"], work["ln_c_bias"])
        if "output_activation" in self.without:
            y.copy_(s)
        else:
            torch.tanh(s, out=y)
        torch.mul(o, y, out=h)
        if "zone_h" in mask:
            h.lerp_(h_0, mask["zone_h"])
        if "zone_c" in mask:
            c.lerp_(c_0, mask["zone_c"])

    # Backward --------------------------------------------------------------------------------------------------

    def workspace(self, gates, n):
        hidden, wide = gates.shape[-1] // self.count, (4, gates.shape[-1] // self.count)
        f, d = _blocks(gates, n, 6 * hidden), _blocks(gates, n, (5 + self.layer_norm) * hidden)
        through, past = d, d[..., 4 * hidden : 5 * hidden]
        views = [
            f[..., :hidden],
            f[..., hidden : 2 * hidden],
            f[..., 2 * hidden :].unflatten(-1, wide),
            d[..., :hidden],
            d[..., hidden : 5 * hidden].unflatten(-1, wide),
            past,
        ]
        if self.layer_norm:
            through = _blocks(gates, n, 4 * hidden)
            views += [through, d[..., : 4 * hidden], d[..., 5 * hidden :]]
        return f, d, through, [p.unbind(gates.dim() - 3) for p in views]

    def factors(self, f, gates, now, before, work, start, stop):
        o, i, forget, g, y = _rows(gates, self.count)
        (_, c), (h_0, c_0) = now, before
        mask = {name: work[name][..., start:stop, :, :] for name in self.masks}
        if "zone_c" in mask:
            c = torch.addcmul(forget * c_0, i, g)
        fc, fo, fi, ff, fg, keep = _rows(f, 6)
        if "output_activation" in self.without:
            fc.copy_(o)
        else:
            _through_tanh(o, y, grad_input=fc)  # ∂h/∂c = o (1 − tanh²(c))
        _through_sigmoid(y, o, grad_input=fo)  # ∂h/∂a_o = tanh(c) o (1 − o)
        _through_sigmoid(g, i, grad_input=fi)  # ∂c/∂a_i = g i (1 − i)
        _through_sigmoid(c_0 - g if self.coupled else c_0, forget, grad_input=ff)  # ∂c/∂a_f = c_{t-1} f (1 − f)
        if "input_activation" in self.without:
            fg.copy_(i)
        else:
            _through_tanh(i, g, grad_input=fg)  # ∂c/∂a_g = i (1 − g²)
        keep.copy_(forget)  # ∂c/∂c_{t-1} = f
        for name, part in (("output", fo), ("input", fi), ("forget", ff)):
            if name in self.without or (self.coupled and name == "input"):
                part.zero_()
        if "zone_h" in mask:
            f[..., : 2 * o.shape[-1]].unflatten(-1, (2, -1)).mul_((1 - mask["zone_h"]).unsqueeze(-2))
        if self.peephole:
            keep.addcmul_(fi, _over_time(work["ci"])).addcmul_(ff, _over_time(work["cf"]))
            if not self.layer_norm:  # which stands between h and c, but not between o and c
                fc.addcmul_(fo, _over_time(work["co"]))

        more = []
        if self.layer_norm:
            pre = self.seen(h_0, work, start, stop).flatten(-3, -2) @ work["v"].transpose(-1, -2)
            pre = pre.unflatten(-2, gates.shape[-3:-1])
            norm_hh = torch.native_layer_norm(pre, pre.shape[-1:], None, None, EPS)
            norm_c = torch.native_layer_norm(c, c.shape[-1:], None, None, EPS)
            work |= {"unit_hh": norm_hh[0], "unit_c": norm_c[0]}
            more += [p.unbind(-3) for p in (pre, *norm_hh[1:], c, *norm_c[1:])]
        if "zone_c" in mask:
            more.append((1 - mask["zone_c"]).unbind(-3))
        work["c"] = c
        return more

    def back(self, parts, dh, dc, work):
        if self.layer_norm or self.masks:
            return self.variant_back(parts, dh, dc, work)
        fc, fo, factors, d_o, d_ifg, d_c = parts
        torch.mul(dh, fo, out=d_o)  # da_o
        torch.addcmul(dc, dh, fc, out=work["total"])  # all that reaches c_t
        torch.mul(work["wide"], factors, out=d_ifg)  # da_i, da_f, da_g, and what goes on to c_{t-1}
        return None, d_c

    def variant_back(self, parts, dh, dc, work):
        first = len(parts) - len(self.masks)
        mask = dict(zip(self.masks, parts[first:], strict=True))
        fc, fo, factors, d_o, d_ifg, d_c, *norm = parts
        torch.mul(dh, fo, out=d_o)
        total = work["total"]
        new = torch.mul(dc, parts[first - 1], out=total) if "zone_c" in mask else dc
        if self.layer_norm:
            through, d_all, ds, pre, mean_hh, rstd_hh, c, mean, rstd = norm[:9]
            torch.mul(dh, fc, out=ds)
            torch.add(new, _norm_back(ds, work["ln_c"], c, mean, rstd), out=total)
            if self.peephole:
                total.addcmul_(d_o, work["co"])
        else:
            torch.addcmul(new, dh, fc, out=total)
        torch.mul(work["wide"], factors, out=d_ifg)
        if self.layer_norm:
            through.copy_(_norm_back(d_all, work["ln_hh"], pre, mean_hh, rstd_hh))
        if "zone_c" in mask:
            d_c.addcmul_(dc, mask["zone_c"])
        return dh * mask["zone_h"] if "zone_h" in mask else None, d_c

    def carry(self, product, multiply, past, outside, sums, v, parts):
        if "drop_h" not in self.masks:
            return super().carry(product, multiply, past, outside, sums, v, parts)
        drop = dict(zip(self.masks, parts[len(parts) - len(self.masks) :], strict=True))["drop_h"]
        total = product(sums, v).mul_(drop)
        for other in (past, outside):
            if other is not None:
                total += other
        return total

    def seen(self, h, work, start, stop):
        return h * work["drop_h"][..., start:stop, :, :] if "drop_h" in self.masks else h

    def extra_grads(self, extra, d, before, work, start, stop):
        do, di, df, _, _, *ds = d.split(before[1].shape[-1], -1)
        if self.peephole:
            for name, grad, c in (("ci", di, before[1]), ("cf", df, before[1]), ("co", do, work["c"])):
                extra[name] += (grad * c).sum(-3).sum(-2, keepdim=True)
        if self.layer_norm:
            for name, grad in (
                ("ln_hh", d[..., : 4 * do.shape[-1]] * work["unit_hh"]),
                ("ln_c", ds[0] * work["unit_c"]),
                ("ln_c_bias", ds[0]),
            ):
                extra[name] += grad.sum(-3).sum(-2, keepdim=True)


def _norm(x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    """Layer norm of a step; ``gain`` and ``bias`` are (1, size), or (replicas, 1, size)."""
    if gain.dim() == 2:
        return torch.native_layer_norm(x, x.shape[-1:], gain[0], None if bias is None else bias[0], EPS)[0]
    unit = torch.native_layer_norm(x, x.shape[-1:], None, None, EPS)[0] * gain
    return unit if bias is None else unit + bias


def _norm_back(d: Tensor, gain: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """From the gradient of a layer norm's result to that of what went in."""
    d, gain = (d, gain[0]) if gain.dim() == 2 else (d * gain, None)
    return torch.ops.aten.native_layer_norm_backward.default(
        d, x, x.shape[-1:], mean.contiguous(), rstd.contiguous(), gain, None, [True, False, False]
    )[0]


def _blocks(gates: Tensor, n: int, size: int) -> Tensor:
    """Room for ``n`` steps."""
    return gates.new_empty((*gates.shape[:-3], n, gates.shape[-2], size))


def _each_step(mask: Tensor) -> Any:
    """A view of each step; the same one where all steps share it."""
    return [mask.select(-3, 0)] * mask.shape[-3] if mask.stride(-3) == 0 else mask.unbind(-3)


def _over_time(p: Tensor) -> Tensor:
    return p.unsqueeze(-3)


def _kernel(cell: Cell, masks: tuple[str, ...]) -> _Kernel:
    for unit, kernel in ((cells.LSTM, _LSTM), (cells.GRU, _GRU), (cells.RNN, _RNN)):
        if isinstance(cell, unit):
            return kernel(cell, masks)
    raise TypeError(f"cell must be an LSTM, a GRU or an RNN, got {type(cell).__name__}")

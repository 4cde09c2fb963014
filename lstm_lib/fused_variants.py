"""What a variant of the LSTM adds to the engine of :mod:`lstm_lib.fused`: see :class:`lstm_lib.cells.LSTMVariant`.

Beside x, U, V and b a variant brings *masks*, which do not learn, and *extras*: vectors that do and, with layer
norm, the *sources*. Layer norm stands between the product and the gates. So the engine gets W_ih x as it is
after it; the sources are what that was made from (x, U, a gain and b), and the gradients of the recurrent
product are not those of the sums.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from lstm_lib import cells
from lstm_lib.cells import Cell
from lstm_lib.fused import (
    CompiledLSTM,
    LSTMUnit,
    SmallLSTM,
    array,
    blocks_of,
    by_kernels,
    each_step,
    kernels,
    product,
    products,
    room_for,
    through_sigmoid,
)

EPS = 1e-5
"""Layer norm's ε, PyTorch's default; ``kernels._normalize`` has the same number."""

_VECTORS = {"ci": "weight_ci", "cf": "weight_cf", "co": "weight_co"}
_VECTORS |= {"gain": "weight_ln_hh", "gain_c": "weight_ln_c", "bias_c": "bias_ln_c"}
_WITHOUT = ("input", "forget", "output", "input_activation", "output_activation")


class VariantUnit(LSTMUnit):
    """Any variant by PyTorch's operations."""

    def __init__(self, cell: Cell, masks: tuple[str, ...] = ()) -> None:
        super().__init__(cell, masks)
        self.peephole = getattr(cell, "peephole", False)
        self.coupled = getattr(cell, "coupled", False)
        self.layer_norm = getattr(cell, "layer_norm", False)
        self.without = frozenset({"forget"} if isinstance(cell, cells.LSTM1997) else cell.without)
        self.sources = ("source_x", "source_u", "source_gain", "source_b") * self.layer_norm
        self.gradients += self.layer_norm  # that of what tanh sees of c
        self.kept += ("v_o", "v_i", "v_f", "v_g") * self.layer_norm  # V h, which is not added as it is
        self.extras = tuple(_VECTORS)[:3] * self.peephole + tuple(_VECTORS)[3:] * self.layer_norm + self.sources

    def compiled(self, gates):
        return by_kernels(self, gates, CompiledVariant, SmallVariant)

    def arrange(self, w, x):
        x, u, v, b = super().arrange(w, x)
        extras = [w.weight_ci, w.weight_cf, w.weight_co] if self.peephole else []
        sources = []
        if self.layer_norm:
            hidden = v.shape[-1]
            sources = [x, u, w.weight_ln_ih.roll(hidden, 0), b]
            extras += [w.weight_ln_hh.roll(hidden, 0), w.weight_ln_c, w.bias_ln_c]
            x, u, b = self.projected(dict(zip(self.sources, sources, strict=True))), None, None
        return x, u, v, b, *(p.unsqueeze(0) for p in extras), *sources

    def unarrange(self, x, v, b, work):
        w, x = super().unarrange(x, v, b, work)
        for name in _VECTORS.keys() & self.extras:
            value = work[name].squeeze(0)
            setattr(w, _VECTORS[name], value.roll(-v.shape[-1], 0) if name == "gain" else value)
        return w, x

    def projected(self, work: dict) -> Tensor:
        x, u, gain, b = (work[name] for name in self.sources)
        rows = product(x.flatten(0, -2), u.mT).unflatten(0, x.shape[:-1])
        return self.cell.normalize(rows, SimpleNamespace(weight_ln_ih=gain, bias_ih=b))

    # Forward ---------------------------------------------------------------------------------------------------

    def parts(self, block):
        return super().parts(block) + [product_of(block).unbind(-3)] * self.layer_norm

    def step(self, add_product, pre, vt, parts, before, now, work):
        oif, o, i, f, g, y, *rest = parts
        mask = dict(zip(self.masks, rest[self.layer_norm :], strict=True))
        (h_, c_), (h, c) = before, now
        seen = self.seen(h_, mask)
        if self.layer_norm:
            vh = seen @ vt
            pre += _norm(vh, work["gain"])
            rest[0].copy_(vh)
        else:
            add_product(pre, seen, vt)
        if self.peephole:
            i.addcmul_(c_, work["ci"])
            f.addcmul_(c_, work["cf"])
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
        torch.mul(f, c_, out=c).addcmul_(i, g)
        if self.peephole:
            o.addcmul_(c, work["co"]).sigmoid_()
        if "output" in self.without:
            o.fill_(1)
        s = c
        if self.layer_norm:
            s = _norm(c, work["gain_c"], work["bias_c"])
        if "output_activation" in self.without:
            y.copy_(s)
        else:
            torch.tanh(s, out=y)
        torch.mul(o, y, out=h)
        if "zone_h" in mask:
            h.lerp_(h_, mask["zone_h"])
        if "zone_c" in mask:
            c.lerp_(c_, mask["zone_c"])

    # Backward --------------------------------------------------------------------------------------------------

    def room(self, gates, n):
        f, d, through, views = super().room(gates, n)
        if self.layer_norm:
            hidden = gates.shape[-1] // self.count
            through = room_for(gates, n, 4 * hidden)
            views += [p.unbind(-3) for p in (through, d[..., : 4 * hidden], d[..., 5 * hidden :])]
        return f, d, through, views

    def factors(self, f, gates, now, before, work, masks):
        super().factors(f, gates, now, before, work, masks)
        o, i, forget, g, *_ = blocks_of(gates, self.count)
        fc, fo, fi, ff, fg, keep = blocks_of(f, 6)
        c, c_ = now[1], before[1]
        if "zone_c" in masks:
            c = torch.addcmul(forget * c_, i, g)  # as it was before zoneout: h and the peephole of o saw this
        if "output_activation" in self.without:
            fc.copy_(o)
        if "input_activation" in self.without:
            fg.copy_(i)
        if self.coupled:
            through_sigmoid(c_ - g, forget, grad_input=ff)  # c = f ⊙ c_{t-1} + (1 − f) ⊙ g
        for name, part in (("output", fo), ("input", fi), ("forget", ff)):
            if name in self.without or (self.coupled and name == "input"):
                part.zero_()
        if "zone_h" in masks:  # fc and fo: of dh only this share goes through the step
            f[..., : 2 * o.shape[-1]].unflatten(-1, (2, -1)).mul_((1 - masks["zone_h"]).unsqueeze(-2))
        if self.peephole:
            keep.addcmul_(fi, work["ci"].unsqueeze(-3)).addcmul_(ff, work["cf"].unsqueeze(-3))
            if not self.layer_norm:  # which stands between h and c, but not between o and c
                fc.addcmul_(fo, work["co"].unsqueeze(-3))

        more = []
        if self.layer_norm:
            vh = product_of(gates).contiguous()
            norm_hh = torch.native_layer_norm(vh, vh.shape[-1:], None, None, EPS)
            norm_c = torch.native_layer_norm(c, c.shape[-1:], None, None, EPS)
            work |= {"unit_hh": norm_hh[0], "unit_c": norm_c[0]}
            more += [p.unbind(-3) for p in (vh, *norm_hh[1:], c, *norm_c[1:])]
        if "zone_c" in masks:
            more.append((1 - masks["zone_c"]).unbind(-3))
        work["c"] = c
        return more

    def back(self, parts, dh, dc, work):
        """``parts`` are the views of ``room``, what ``factors`` returned, with 1 − zone_c the last, and masks."""
        first = len(parts) - len(self.masks)
        mask = dict(zip(self.masks, parts[first:], strict=True))
        fc, fo, factors, d_o, d_ifgc, d_c, *norm = parts
        torch.mul(dh, fo, out=d_o)
        total = work["total"]
        new = torch.mul(dc, parts[first - 1], out=total) if "zone_c" in mask else dc
        if self.layer_norm:
            through, d_all, ds, vh, mean_hh, rstd_hh, c, mean, rstd = norm[:9]
            torch.mul(dh, fc, out=ds)
            torch.add(new, _norm_back(ds, work["gain_c"], c, mean, rstd), out=total)
            if self.peephole:
                total.addcmul_(d_o, work["co"])
        else:
            torch.addcmul(new, dh, fc, out=total)
        torch.mul(work["wide"], factors, out=d_ifgc)
        if self.layer_norm:
            through.copy_(_norm_back(d_all, work["gain"], vh, mean_hh, rstd_hh))
        if "zone_c" in mask:
            d_c.addcmul_(dc, mask["zone_c"])
        return dh * mask["zone_h"] if "zone_h" in mask else None, d_c

    def carry(self, put, add_product, past, outside, d_product, v, parts):
        if "drop_h" not in self.masks:
            return super().carry(put, add_product, past, outside, d_product, v, parts)
        drop = dict(zip(self.masks, parts[len(parts) - len(self.masks) :], strict=True))["drop_h"]
        total = put(d_product, v).mul_(drop)
        for other in (past, outside):
            if other is not None:
                total += other
        return total

    def seen(self, h, masks):
        return h * masks["drop_h"] if "drop_h" in masks else h

    def extra_grads(self, extra, d, before, work):
        do, di, df, _, _, *ds = d.split(before[1].shape[-1], -1)
        if self.peephole:
            for name, grad, c in (("ci", di, before[1]), ("cf", df, before[1]), ("co", do, work["c"])):
                extra[name] += (grad * c).sum(-3).sum(-2, keepdim=True)
        if self.layer_norm:
            for name, grad in (
                ("gain", d[..., : 4 * do.shape[-1]] * work["unit_hh"]),
                ("gain_c", ds[0] * work["unit_c"]),
                ("bias_c", ds[0]),
            ):
                extra[name] += grad.sum(-3).sum(-2, keepdim=True)


class CompiledVariant(VariantUnit, CompiledLSTM):
    """The same by :mod:`lstm_lib.kernels`: see :class:`lstm_lib.fused.CompiledLSTM`."""

    def forward_views(self, block, rows):
        return product_of(block).unbind(-3) if self.layer_norm else ()

    def begin(self, gates, states, work):
        super().begin(gates, states, work)
        work["arrays"] += [room_of(work), array(work["h_0"], 3), *vectors_of(work, gates), *self.options(work)]

    def forward(self, steps, views, vt, before, now, masks, work):
        kernel, arrays, h = kernels().forward_variant, work["arrays"], now[0]
        drop = each_step(masks["drop_h"]) if "drop_h" in masks else None
        put, add_product = products(before[0], vt)
        if self.layer_norm:  # V h lies apart until it is normalized: put, not added
            multiply = partial(put_product, put)
        else:
            views, multiply = work["sums"].unbind(-3), add_product
        for k, t in enumerate(steps):
            last = h.select(-3, k - 1) if k else before[0]
            multiply(views[k], last if drop is None else last * drop[k], vt)
            kernel(t, k, *arrays)

    def begin_back(self, space, gates, states, grads, carried, v, work, extra):
        super().begin_back(space, gates, states, grads, carried, v, work, extra)
        work["past"] = torch.empty_like(carried[0]) if "zone_h" in self.masks else None
        work["through"] = room_for(gates, space.shape[-3], space.shape[-1]) if self.layer_norm else None
        work["found"] = {name: torch.zeros_like(total) for name, total in extra.items()}  # by a block of steps
        work["arrays"] += [room_of(work), array(work["past"], 3, gates), array(work["through"], 4, gates)]
        work["arrays"] += [*vectors_of(work["found"], gates), *vectors_of(work, gates), *self.options(work)]

    def backward(self, steps, space, gates, now, before, outside, carried, v, masks, work, extra):
        d, seen = space[..., : len(steps), :, :], self.seen(before[0], masks)
        through = work["through"][..., : len(steps), :, :] if self.layer_norm else d
        self.walk_back(steps, through, carried[0], v, masks, work)
        for name, total in extra.items():
            total += work["found"][name]
            work["found"][name].zero_()
        return carried, d, through, seen

    def walk_back(self, steps, through, dh, v, masks, work):
        kernel, arrays, past, (put, _) = kernels().backward_variant, work["arrays"], work["past"], products(dh, v)
        drop = each_step(masks["drop_h"]) if "drop_h" in masks else None
        for k, (t, d_product) in reversed(list(enumerate(zip(steps, through.unbind(-3), strict=True)))):
            kernel(t, k, *arrays)
            put(d_product, v, out=dh)
            if drop is not None:
                dh *= drop[k]
            if past is not None:
                dh += past

    def options(self, work):
        """The variant's own operands, in the kernels' order."""
        without = tuple(name in self.without for name in _WITHOUT)
        return [mask_of(work, "zone_h"), mask_of(work, "zone_c"), self.coupled, without]


class SmallVariant(SmallLSTM, CompiledVariant):
    """The same of a layer whose products are small: see :class:`lstm_lib.fused.SmallLSTM`."""

    def forward(self, steps, views, vt, before, now, masks, work):
        drop = mask_of(work, "drop_h")
        kernels().forward_variant_small(steps.start, steps.stop, array(vt, 3), drop, *work["arrays"])

    def walk_back(self, steps, through, dh, v, masks, work):
        drop = mask_of(work, "drop_h")
        kernels().backward_variant_small(steps.start, steps.stop, work["vt"], drop, *work["arrays"])


def product_of(block: Tensor) -> Tensor:
    """V h before layer norm: the last four blocks of nine."""
    return block[..., block.shape[-1] // 9 * 5 :]


def put_product(put: Callable, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """out = a b, where ``out`` is not contiguous: of replicas, bmm would write one after another there."""
    return put(a, b, out=out) if a.dim() == 2 else out.copy_(put(a, b))


def room_of(work: dict) -> np.ndarray:
    """Scratch for the kernels of a variant: their ``room``."""
    batch, hidden = work["c_0"].shape[-2:]
    return array(work["c_0"].new_empty(8 + batch, hidden), 2)


def mask_of(work: dict, name: str) -> np.ndarray:
    """A mask as the kernels take it: of one step, where all share it."""
    mask = work.get(name)
    return array(mask.narrow(-3, 0, 1) if mask is not None and mask.stride(-3) == 0 else mask, 4, work["c_0"])


def vectors_of(named: dict, like: Tensor) -> list[np.ndarray]:
    """The vectors of each replica as the kernels take them: without the dimension in which they meet a batch."""
    return [array(named[name].squeeze(-2) if name in named else None, 2, like) for name in _VECTORS]


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

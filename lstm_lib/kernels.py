"""The pointwise part of an LSTM's step, compiled by numba: all that happens between two products, in one call.

An operation of PyTorch costs about a microsecond before it touches a number, and a small step has a dozen of them.
Here a step forward is one call, :func:`forward`, and a step back another, :func:`backward`; the variants of
:class:`lstm_lib.cells.LSTMVariant` have theirs, :func:`forward_variant` and :func:`backward_variant`. They read
and write numpy's views of PyTorch's memory. Large products W h stay PyTorch's; of a layer whose products are
small, ``forward_small`` and its like walk through many steps in one call.

Each pointwise loop runs over the units of one sequence, and the compiler makes vector instructions of it. It may
join a product and a sum into one operation and, where functions are marked ``_summed``, add in another order,
and nothing else: a NaN stays a NaN, and −0 stays −0. There are few such loops, which read all that they need of
a unit before they write, each with a range of its own: by measurement that takes half to two thirds of the time
of a loop for each equation. Backward, each peephole has a loop of its own: the compiler gives up on vectors
where it would have to check, for too many arrays, that none overlaps another.

Importing this module imports numba, half a second; the first call compiles for some seconds, and keeps what it
compiled on disk, beside this file or in the user's own cache. So :mod:`lstm_lib.fused` imports it when it needs
it.

Arrays are C-contiguous and of one dtype, float32 or float64; an option that is off is an array of length 0. The
first dimension counts networks: the replicas of :func:`torch.func.vmap`, or one. ``sums``, (networks, steps,
batch, 4, hidden_size), are W_ih x + b, to which W_hh h is added before a step reads them; a variant may
overwrite them. Four blocks are o, i, f and g, those of W_hh and of a gain too. ``gates``, (networks, steps,
batch, 5, hidden_size), are o, i, f, g and y, what h shows of c: tanh(c) in the LSTM. Under layer norm W_ih x
comes normalized, and W_hh h stays apart, in four more blocks of ``gates``. ``h``, ``c`` are (networks, seq_len,
batch, hidden_size); ``h_0``, ``c_0``, the states before the first step, (networks, batch, hidden_size). Steps
count from 0. An array of one block of steps (``sums``, ``d``, ``through``) has step ``t`` at place ``k``; so
have ``gates`` that are not kept.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

# No kernel makes an array, so none has to count references: counting took half of a variant's step. numba's option
# for it, _nrt, has no public name.
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"}, _nrt=False)
# For sums over an array, never for a gate's own function. A loop that adds up writes nothing else: where it might
# overwrite what it reads, its order would depend on where the arrays happen to lie.
_summed = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"}, _nrt=False)


# Functions ----------------------------------------------------------------------------------------------------


class _Precision(NamedTuple):
    """What depends on how many bits a number has."""

    one: float
    two: float
    log2e: float
    ln2: float  # its first digits, so few that a multiple of it is exact
    ln2_rest: float
    magic: float  # added to a number, rounds it to a whole one, which its last bits then are
    least: float  # eˣ is 0 from here on
    most: float  # tanh(x) is 1 from here on
    up: int  # the powers of 2 of e^least lie below all normal numbers: computed times 2ᵘᵖ
    down: float
    taylor: tuple  # 1/k!, the last first


def _precision(number, bits, terms, ln2, ln2_rest, least, most, up):
    taylor = tuple(number(1 / math.factorial(k)) for k in range(terms, 1, -1))
    values = 1, 2, 1 / math.log(2), ln2, ln2_rest, 1.5 * 2**bits, least, most
    return _Precision(*map(number, values), up, number(2.0**-up), taylor)


_SINGLE = _precision(np.float32, 23, 7, 0.693359375, -2.12194440e-4, -104, 10, 64)
_DOUBLE = _precision(np.float64, 52, 13, 6.93147180369123816490e-1, 1.90821492927058770002e-10, -746, 20, 512)


def _of(x):
    """The constants of x's precision."""


@overload(_of)
def _(x):
    constants = _SINGLE if x == types.float32 else _DOUBLE
    return lambda x: constants


def _power(s, up):
    """2ⁿ⁺ᵘᵖ, written as the bits of its exponent; s is n, a whole number, with magic added."""


@overload(_power)
def _(s, up):
    if s == types.float32:
        return lambda s, up: np.int32((np.float32(s).view(np.int32) + (127 + up)) << 23).view(np.float32)
    return lambda s, up: np.int64((np.float64(s).view(np.int64) + (1023 + up)) << 52).view(np.float64)


@_compiled
def _exponential(x, up):
    """q and 2ⁿ⁺ᵘᵖ, where eˣ = 2ⁿ (1 + q), n is whole and |q| < ½: q = r + r²/2! + r³/3! + …, r = x − n ln 2."""
    k = _of(x)
    s = x * k.log2e + k.magic
    n = s - k.magic
    r = (x - n * k.ln2) - n * k.ln2_rest
    p = k.taylor[0]
    for a in k.taylor[1:]:
        p = p * r + a
    return r + r * r * p, _power(s, up)


@_compiled
def sigmoid(x):
    """σ(x) = 1 / (1 + e⁻ˣ), within 4 units in the last place, the smallest numbers included."""
    k = _of(x)
    q, power = _exponential(max(-abs(x), k.least), k.up)  # in this order max keeps a NaN
    e = power * (k.one + q) * k.down
    return (k.one if x >= 0 else e) / (k.one + e)


@_compiled
def tanh(x):
    """tanh(x) = 1 − 2 / (m + 2) = m / (m + 2) with m = e²ˣ − 1, within 4 units in the last place."""
    k = _of(x)
    size = min(abs(x), k.most)
    q, power = _exponential(size + size, 0)
    m = power * q + (power - k.one)
    w = k.two / (m + k.two)
    y = k.one - w if size > k.one else m * w / k.two
    return y if x > 0 else -y if x < 0 else x  # a NaN and −0 as they came


@_summed
def _normalize(a, unit):
    """``unit`` = (a − mean) / deviation, as torch.nn.LayerNorm has it; gives 1 / deviation."""
    number = a.dtype.type
    mean = squares = number(0)
    for j in range(a.size):
        mean += a[j]
    mean /= number(a.size)
    for j in range(a.size):
        squares += (a[j] - mean) * (a[j] - mean)
    scale = number(1) / np.sqrt(squares / number(a.size) + number(1e-5))
    for j in range(a.size):
        unit[j] = (a[j] - mean) * scale
    return scale


@_summed
def _normalize_back(d, unit, scale):
    """From the gradient of ``unit`` to that of what it was made from, in place."""
    number = d.dtype.type
    mean = along = number(0)
    for j in range(d.size):
        mean += d[j]
        along += d[j] * unit[j]
    mean /= number(d.size)
    along /= number(d.size)
    for j in range(d.size):
        d[j] = scale * (d[j] - mean - unit[j] * along)


@_compiled
def _gain_back(d, unit, gain, d_gain, d_unit):
    """From the gradient of unit ⊙ gain to that of ``unit``, and what it adds to that of ``gain``."""
    for j in range(d.size):
        d_gain[j] += d[j] * unit[j]
    for j in range(d.size):
        d_unit[j] = d[j] * gain[j]


# The LSTM -----------------------------------------------------------------------------------------------------


@_compiled
def _blocks(a):
    return a[0], a[1], a[2], a[3]


@_compiled
def _place(t, k, gates, h):
    """Where the gates of step ``t`` stand: at t if those of all steps are kept, else at k."""
    return t if gates.shape[1] == h.shape[1] else k


@_compiled
def forward(t, k, sums, gates, h, c, c_0):
    """One step: from its sums to its gates, c_t and h_t."""
    at = _place(t, k, gates, h)
    for n, row in np.ndindex(c_0.shape[:2]):
        so, si, sf, sg = _blocks(sums[n, k, row])
        o, i, f, g = _blocks(gates[n, at, row])
        y, ct, ht = gates[n, at, row, 4], c[n, t, row], h[n, t, row]
        c_ = c[n, t - 1, row] if t > 0 else c_0[n, row]
        for j in range(len(ct)):
            soj, sij, sfj, sgj = so[j], si[j], sf[j], sg[j]
            o[j], i[j], f[j], g[j] = sigmoid(soj), sigmoid(sij), sigmoid(sfj), tanh(sgj)
        for j in range(len(ct)):
            cj = f[j] * c_[j] + i[j] * g[j]
            yj = tanh(cj)
            hj = o[j] * yj
            ct[j], y[j], ht[j] = cj, yj, hj


@_compiled
def backward(t, k, gates, c, c_0, to_h, to_c, dh, dc, d):
    """One step back: the gradients of the loss by the sums of step ``t``, from those by h_t and c_t.

    Parameters
    ----------
    to_h, to_c : ndarray
        What reaches the states from outside, as ``h``.
    dh, dc : ndarray
        What reaches them from the steps after ``t``, (networks, batch, hidden_size). ``dc`` becomes what goes on
        to c_{t-1}; into ``dh`` the caller then writes ``d`` W_hh, which goes on to h_{t-1}.
    d : ndarray
        Takes the gradients of the sums in o, i, f and g, at ``k``, (networks, steps, batch, 4, hidden_size).
    """
    one = c.dtype.type(1)
    for n, row in np.ndindex(c_0.shape[:2]):
        o, i, f, g = _blocks(gates[n, t, row])
        d_o, d_i, d_f, d_g = _blocks(d[n, k, row])
        y, dht, dct = gates[n, t, row, 4], dh[n, row], dc[n, row]
        c_ = c[n, t - 1, row] if t > 0 else c_0[n, row]
        if len(to_h):
            for j in range(len(c_)):
                dht[j] += to_h[n, t, row, j]
        if len(to_c):
            for j in range(len(c_)):
                dct[j] += to_c[n, t, row, j]
        for j in range(len(c_)):
            oj, ij, fj, gj, yj, c_j, dhj = o[j], i[j], f[j], g[j], y[j], c_[j], dht[j]
            dcj = dct[j] + dhj * oj * (one - yj * yj)  # all that reaches c_t
            d_o[j] = dhj * yj * oj * (one - oj)  # h = o ⊙ tanh(c)
            d_i[j] = dcj * gj * ij * (one - ij)  # c = f ⊙ c_{t-1} + i ⊙ g
            d_f[j] = dcj * c_j * fj * (one - fj)
            d_g[j] = dcj * ij * (one - gj * gj)
            dct[j] = dcj * fj  # what goes on to c_{t-1}


# Its variants -------------------------------------------------------------------------------------------------


@_compiled
def forward_variant(
    t, k, sums, gates, h, c, c_0, room, h_0, ci, cf, co, gain, gain_c, bias_c, zone_h, zone_c, coupled, without
):  # fmt: skip
    """:func:`forward` of any variant.

    Parameters
    ----------
    room : ndarray
        Scratch, (8 + batch, hidden_size): four rows for the sums of a sequence, four for what its step back has to
        remember, and h after dropout.
    ci, cf, co : ndarray
        Peephole weights, (networks, hidden_size).
    gain, gain_c, bias_c : ndarray
        Layer norm's: of W_hh h_{t-1}, (networks, 4 × hidden_size), and of c, (networks, hidden_size).
    zone_h, zone_c : ndarray
        Zoneout's masks, as ``h``, or of one step for all.
    coupled : bool
        Whether i = 1 − f.
    without : tuple of bool
        Whether input, forget and output gate, input and output activation are gone.
    """
    one = c.dtype.type(1)
    no_input, no_forget, no_output, no_input_tanh, no_output_tanh = without
    hidden, at = c.shape[3], _place(t, k, gates, h)
    unit = room[:4].reshape(-1)
    for n, row in np.ndindex(c_0.shape[:2]):
        o, i, f, g = _blocks(gates[n, at, row])
        y, ct, ht = gates[n, at, row, 4], c[n, t, row], h[n, t, row]
        c_ = c[n, t - 1, row] if t > 0 else c_0[n, row]
        pre = sums[n, k, row]
        if len(gain):  # these belong to the caller: the sums are made in unit, which is room[:4], flat
            known, pre = pre.reshape(-1), room[:4]
            _normalize(gates[n, at, row].reshape(-1)[5 * hidden :], unit)
            for j in range(4 * hidden):
                unit[j] = known[j] + unit[j] * gain[n, j]
        so, si, sf, sg = _blocks(pre)
        if len(ci):
            for j in range(hidden):
                sij, sfj, c_j = si[j], sf[j], c_[j]
                si[j], sf[j] = sij + ci[n, j] * c_j, sfj + cf[n, j] * c_j
        for j in range(hidden):
            ij, fj, sgj = sigmoid(si[j]), sigmoid(sf[j]), sg[j]
            f[j] = fj = one if no_forget else fj
            i[j] = one - fj if coupled else one if no_input else ij
            g[j] = sgj if no_input_tanh else tanh(sgj)
        for j in range(hidden):
            ct[j] = f[j] * c_[j] + i[j] * g[j]
        if len(co):
            for j in range(hidden):
                so[j] += co[n, j] * ct[j]
        if len(gain):
            _normalize(ct, y)
            for j in range(hidden):
                y[j] = y[j] * gain_c[n, j] + bias_c[n, j]
        else:
            for j in range(hidden):
                y[j] = ct[j]
        for j in range(hidden):
            oj, yj = sigmoid(so[j]), y[j]
            o[j] = oj = one if no_output else oj
            y[j] = yj = yj if no_output_tanh else tanh(yj)
            ht[j] = oj * yj
        if len(zone_h):
            mask, h_ = zone_h[n, t % zone_h.shape[1], row], h[n, t - 1, row] if t > 0 else h_0[n, row]
            for j in range(hidden):
                ht[j] = mask[j] * h_[j] + (one - mask[j]) * ht[j]
        if len(zone_c):
            mask = zone_c[n, t % zone_c.shape[1], row]
            for j in range(hidden):
                ct[j] = mask[j] * c_[j] + (one - mask[j]) * ct[j]


@_compiled
def backward_variant(
    t, k, gates, c, c_0, to_h, to_c, dh, dc, d, room, past, through, d_ci, d_cf, d_co, d_gain, d_gain_c, d_bias_c,
    ci, cf, co, gain, gain_c, bias_c, zone_h, zone_c, coupled, without
):  # fmt: skip
    """:func:`backward` of any variant. A gate that is gone is 1, and the factor 1 − 1 makes its own gradient 0.

    Parameters
    ----------
    past : ndarray
        Takes what reaches h_{t-1} past the product, by zoneout, (networks, batch, hidden_size).
    through : ndarray
        Takes the gradient of W_hh h_{t-1}, where that is normalized, at ``k``, (networks, steps, batch,
        4 × hidden_size).
    d_gain, d_gain_c, d_bias_c, d_ci, d_cf, d_co : ndarray
        The gradients of the vectors of the same names and shapes, to which this step adds its own.
    """
    zero, one = c.dtype.type(0), c.dtype.type(1)
    _, _, _, no_input_tanh, no_output_tanh = without
    hidden = c.shape[3]
    unit = room[:4].reshape(-1)
    # c_t before zoneout; the same, normalized; the gradient of what tanh sees of c; dc's share past the step.
    new, unit_c, ds, kept = _blocks(room[4:])
    for n, row in np.ndindex(c_0.shape[:2]):
        o, i, f, g = _blocks(gates[n, t, row])
        d_o, d_i, d_f, d_g = _blocks(d[n, k, row])
        y, dht, dct = gates[n, t, row, 4], dh[n, row], dc[n, row]
        c_ = c[n, t - 1, row] if t > 0 else c_0[n, row]
        if len(to_h):
            for j in range(hidden):
                dht[j] += to_h[n, t, row, j]
        if len(to_c):
            for j in range(hidden):
                dct[j] += to_c[n, t, row, j]
        if len(zone_h):  # a share of each state's gradient goes to the state before, past the step
            mask, aside = zone_h[n, t % zone_h.shape[1], row], past[n, row]
            for j in range(hidden):
                dhj, mj = dht[j], mask[j]
                aside[j], dht[j] = dhj * mj, dhj * (one - mj)
        if len(zone_c):
            mask = zone_c[n, t % zone_c.shape[1], row]
            for j in range(hidden):
                dcj, mj = dct[j], mask[j]
                kept[j], dct[j] = dcj * mj, dcj * (one - mj)
        for j in range(hidden):
            oj, yj, dhj = o[j], y[j], dht[j]
            new[j] = f[j] * c_[j] + i[j] * g[j]
            d_o[j] = dhj * yj * oj * (one - oj)
            ds[j] = dhj * oj * (one if no_output_tanh else one - yj * yj)
        if len(gain):
            scale = _normalize(new, unit_c)
            for j in range(hidden):
                d_bias_c[n, j] += ds[j]
            _gain_back(ds, unit_c, gain_c[n], d_gain_c[n], ds)
            _normalize_back(ds, unit_c, scale)  # from here on by c_t itself
        if len(co):
            for j in range(hidden):
                ds[j] += d_o[j] * co[n, j]
            for j in range(hidden):
                d_co[n, j] += d_o[j] * new[j]
        for j in range(hidden):
            ij, fj, gj, c_j = i[j], f[j], g[j], c_[j]
            dcj = dct[j] + ds[j]  # all that reaches c_t
            d_i[j] = zero if coupled else dcj * gj * ij * (one - ij)
            d_f[j] = dcj * (c_j - gj if coupled else c_j) * fj * (one - fj)
            d_g[j] = dcj * ij * (one if no_input_tanh else one - gj * gj)
            dct[j] = dcj * fj
        if len(ci):
            for j in range(hidden):
                dct[j] += d_i[j] * ci[n, j] + d_f[j] * cf[n, j]
            for j in range(hidden):
                d_ci[n, j] += d_i[j] * c_[j]
            for j in range(hidden):
                d_cf[n, j] += d_f[j] * c_[j]
        if len(zone_c):
            for j in range(hidden):
                dct[j] += kept[j]
        if len(gain):
            scale = _normalize(gates[n, t, row].reshape(-1)[5 * hidden :], unit)
            to = through[n, k, row]
            _gain_back(d[n, k, row].reshape(-1), unit, gain[n], d_gain[n], to)
            _normalize_back(to, unit, scale)


# Small layers -------------------------------------------------------------------------------------------------


@_compiled
def _add_forward(x, w, out, first):
    """out += x W of each sequence, (batch, columns) times (columns, width), into ``out`` from column ``first`` on.

    Rows of W are wide here: numbers of x multiply them whole. Four sequences meet three rows in one loop, so that
    a number that is read serves up to four products. The twelve numbers of x stay in registers, where sixteen did
    not: a vector on the stack lies across two lines of the cache, or does not, by chance for each process.
    """
    batch, columns = x.shape
    entries = range(w.shape[1])
    batch_4, columns_3 = batch // 4 * 4, columns // 3 * 3
    for b in range(0, batch_4, 4):
        x0, x1, x2, x3 = x[b], x[b + 1], x[b + 2], x[b + 3]
        y0, y1, y2, y3 = out[b][first:], out[b + 1][first:], out[b + 2][first:], out[b + 3][first:]
        for k in range(0, columns_3, 3):
            w0, w1, w2 = w[k], w[k + 1], w[k + 2]
            a0, a1, a2 = x0[k], x0[k + 1], x0[k + 2]
            b0, b1, b2 = x1[k], x1[k + 1], x1[k + 2]
            c0, c1, c2 = x2[k], x2[k + 1], x2[k + 2]
            d0, d1, d2 = x3[k], x3[k + 1], x3[k + 2]
            for j in entries:
                p, q, r = w0[j], w1[j], w2[j]
                y0[j] += a0 * p + a1 * q + a2 * r
                y1[j] += b0 * p + b1 * q + b2 * r
                y2[j] += c0 * p + c1 * q + c2 * r
                y3[j] += d0 * p + d1 * q + d2 * r
    for b in range(batch_4, batch):
        y = out[b][first:]
        for k in range(0, columns_3, 3):
            w0, w1, w2 = w[k], w[k + 1], w[k + 2]
            a0, a1, a2 = x[b, k], x[b, k + 1], x[b, k + 2]
            for j in entries:
                y[j] += a0 * w0[j] + a1 * w1[j] + a2 * w2[j]
    for b in range(batch):
        for k in range(columns_3, columns):
            y, a, row = out[b][first:], x[b, k], w[k]
            for j in entries:
                y[j] += a * row[j]


@_summed
def _add_backward(w, d, out):
    """out += W d of each sequence, (rows, columns) times (batch, columns), into (batch, rows).

    Rows of W are long here: each number of the result is a sum along one. Three rows meet three sequences in one
    loop, whose nine sums and six numbers fit into 16 registers.
    """
    rows, columns = w.shape
    rows_3, batch_3 = rows // 3 * 3, len(d) // 3 * 3
    zero = d.dtype.type(0)
    for b in range(0, batch_3, 3):
        d0, d1, d2 = d[b], d[b + 1], d[b + 2]
        for k in range(0, rows_3, 3):
            w0, w1, w2 = w[k], w[k + 1], w[k + 2]
            s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = zero
            for j in range(columns):
                s00 += w0[j] * d0[j]
                s01 += w1[j] * d0[j]
                s02 += w2[j] * d0[j]
                s10 += w0[j] * d1[j]
                s11 += w1[j] * d1[j]
                s12 += w2[j] * d1[j]
                s20 += w0[j] * d2[j]
                s21 += w1[j] * d2[j]
                s22 += w2[j] * d2[j]
            for n, sums in enumerate(((s00, s01, s02), (s10, s11, s12), (s20, s21, s22))):
                for m in range(3):
                    out[b + n, k + m] += sums[m]
    for b in range(len(d)):
        for k in range(rows_3 if b < batch_3 else 0, rows):
            total = zero
            for j in range(columns):
                total += w[k, j] * d[b, j]
            out[b, k] += total


@_compiled
def _pointwise(a, b, out):
    """out = a ⊙ b."""
    for row in range(len(a)):
        for j in range(a.shape[1]):
            out[row, j] = a[row, j] * b[row, j]
    return out


@_compiled
def forward_small(start, stop, vt, h_0, sums, gates, h, c, c_0):
    """Many steps in one call, products and all: a product of a small layer takes less time than asking for it.

    The products are added to ``sums``; from there on, it takes what :func:`forward` takes.

    Parameters
    ----------
    start, stop : int
        The first step, and the one after the last.
    vt : ndarray
        W_hh, transposed, (networks, hidden_size, 4 × hidden_size).
    """
    networks, batch, hidden = h_0.shape
    for t in range(start, stop):
        k = t - start
        for n in range(networks):
            _add_forward(h[n, t - 1] if t > 0 else h_0[n], vt[n], sums[n, k].reshape(batch, 4 * hidden), 0)
        forward(t, k, sums, gates, h, c, c_0)


@_compiled
def backward_small(start, stop, vt, gates, c, c_0, to_h, to_c, dh, dc, d):
    """The same back: from ``gates`` on, what :func:`backward` takes."""
    networks, batch, hidden = dh.shape
    for t in range(stop - 1, start - 1, -1):
        k = t - start
        backward(t, k, gates, c, c_0, to_h, to_c, dh, dc, d)
        dh[:] = 0
        for n in range(networks):
            _add_backward(vt[n], d[n, k].reshape(batch, 4 * hidden), dh[n])


@_compiled
def forward_variant_small(start, stop, vt, drop, sums, gates, h, c, c_0, room, h_0, ci, cf, co, gain, *rest):
    """:func:`forward_small` of any variant; ``drop`` is variational dropout's mask, as ``zone_h``."""
    networks, batch, hidden = h_0.shape
    for t in range(start, stop):
        k = t - start
        for n in range(networks):
            seen = h[n, t - 1] if t > 0 else h_0[n]
            if len(drop):
                seen = _pointwise(seen, drop[n, t % drop.shape[1]], room[8:])
            if len(gain):
                product = gates[n, _place(t, k, gates, h)].reshape(batch, 9 * hidden)
                product[:, 5 * hidden :] = 0
                _add_forward(seen, vt[n], product, 5 * hidden)
            else:
                _add_forward(seen, vt[n], sums[n, k].reshape(batch, 4 * hidden), 0)
        forward_variant(t, k, sums, gates, h, c, c_0, room, h_0, ci, cf, co, gain, *rest)


@_compiled
def backward_variant_small(
    start, stop, vt, drop, gates, c, c_0, to_h, to_c, dh, dc, d, room, past, through, *rest
):
    """:func:`backward_small` of any variant."""
    networks, batch, hidden = dh.shape
    for t in range(stop - 1, start - 1, -1):
        k = t - start
        backward_variant(t, k, gates, c, c_0, to_h, to_c, dh, dc, d, room, past, through, *rest)
        dh[:] = 0
        for n in range(networks):
            if len(through):
                _add_backward(vt[n], through[n, k], dh[n])
            else:
                _add_backward(vt[n], d[n, k].reshape(batch, 4 * hidden), dh[n])
            if len(drop):
                _pointwise(dh[n], drop[n, t % drop.shape[1]], dh[n])
        for n in range(len(past)):
            for row in range(batch):
                for j in range(hidden):
                    dh[n, row, j] += past[n, row, j]

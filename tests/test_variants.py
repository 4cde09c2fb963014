"""Every variant of the LSTM against oracles of its own: ONNX's reference, and its paper's equations in numpy."""

import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from agreement import agree
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from lstm_lib import cells
from lstm_lib.recurrent import GRU, LSTM, RNN
from lstm_lib.trace import trace
from lstm_lib.unroll import run

INPUT, HIDDEN, BATCH, STEPS = 3, 4, 2, 6
F64 = {"dtype": torch.float64}
GATES = ("input", "forget", "output", "input_activation", "output_activation")
ONE = [
    {"peephole": True},
    {"coupled": True},
    {"layer_norm": True},
    {"zoneout": (0.3, 0.2)},
    {"variational_dropout": 0.3},
    *({"without": {name}} for name in GATES),
]
SUMS = [
    {"peephole": True, "coupled": True},
    {"peephole": True, "layer_norm": True},
    {"coupled": True, "layer_norm": True, "without": {"output"}},
    {"peephole": True, "layer_norm": True, "zoneout": (0.3, 0.2), "variational_dropout": 0.2},
    {"peephole": True, "without": {"input", "output_activation"}, "zoneout": (0.0, 0.5)},
    {"peephole": True, "coupled": True, "layer_norm": True, "without": {"input_activation"}},
    {"layer_norm": True, "without": set(GATES)},
]
DRAWN = ("zoneout", "variational_dropout", "weight_drop")


def name_of(options):
    return "+".join(
        name + ("" if value is True else f"={sorted(value) if isinstance(value, set) else value}")
        for name, value in options.items()
    )


def numbers(*shape):
    return torch.randn(shape, dtype=torch.float64)


def layer_of(seed=0, sizes=(INPUT, HIDDEN), **options):
    """A layer in double precision whose gains and biases are not the neutral ones that they start with."""
    torch.manual_seed(seed)
    layer = LSTM(*sizes, **F64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.new_empty(parameter.shape).normal_() * 0.7)
    return layer


def same(ours, oracle, tolerance=1e-10):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours
    assert ours.shape == oracle.shape
    np.testing.assert_allclose(ours, oracle, rtol=0, atol=tolerance)


# The oracle: the papers' equations, gate by gate, in numpy and double precision


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normed(a):  # Ba, Kiros & Hinton 2016, equation 15, with the ε of torch.nn.LayerNorm
    centred = a - a.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def by_hand(layer, x, h, c, options, suffix="_l0", zone=None, drop_h=1.0):
    """Each state and gate, (seq_len, batch, hidden_size). ``zone``: (seq_len, batch, hidden_size) for h and c."""
    p = {n[: -len(suffix)]: v.detach().numpy() for n, v in layer.named_parameters() if n.endswith(suffix)}
    size, without, seen = layer.hidden_size, options.get("without", ()), []
    block = {gate: slice(k * size, (k + 1) * size) for k, gate in enumerate("ifgo")}
    for t, x_t in enumerate(x):
        from_x, from_h = x_t @ p["weight_ih"].T, (h * drop_h) @ p["weight_hh"].T
        if options.get("layer_norm"):
            from_x, from_h = normed(from_x) * p["weight_ln_ih"], normed(from_h) * p["weight_ln_hh"]
        a = from_x + from_h
        if layer.bias:
            a = a + p["bias_ih"] + p["bias_hh"]
        ci, cf, co = (p.get(name, 0.0) for name in ("weight_ci", "weight_cf", "weight_co"))
        f = 1.0 + 0 * c if "forget" in without else sigmoid(a[:, block["f"]] + cf * c)
        i = sigmoid(a[:, block["i"]] + ci * c)
        if "input" in without:
            i = np.ones_like(i)
        if options.get("coupled"):
            i = 1 - f
        g = a[:, block["g"]]
        if "input_activation" not in without:
            g = np.tanh(g)
        new_c = f * c + i * g
        o = np.ones_like(f) if "output" in without else sigmoid(a[:, block["o"]] + co * new_c)
        shown = new_c
        if options.get("layer_norm"):
            shown = normed(new_c) * p["weight_ln_c"] + p["bias_ln_c"]
        new_h = o * (shown if "output_activation" in without else np.tanh(shown))
        if zone is not None:
            new_h = zone[0][t] * h + (1 - zone[0][t]) * new_h
            new_c = zone[1][t] * c + (1 - zone[1][t]) * new_c
        h, c = new_h, new_c
        seen.append((i, f, g, o, h, c))
    return dict(zip("ifgohc", (np.stack(values) for values in zip(*seen, strict=True)), strict=True))


def evaluated(options):
    """What zoneout is in evaluation: the probability in place of the draw."""
    zone = options.get("zoneout")
    return None if zone is None else tuple(np.full(99, p) for p in zone)


@pytest.mark.parametrize("options", ONE + SUMS, ids=name_of)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_papers_equations(options, bias):
    layer = layer_of(bias=bias, **options).eval()
    x, h, c = numbers(STEPS, BATCH, INPUT), numbers(1, BATCH, HIDDEN), numbers(1, BATCH, HIDDEN)
    expected = by_hand(layer, x.numpy(), h[0].numpy(), c[0].numpy(), options, zone=evaluated(options))
    out, (h_n, c_n) = layer(x, (h, c))
    same(out, expected["h"])
    same(h_n[0], expected["h"][-1])
    same(c_n[0], expected["c"][-1])
    seen = trace(layer, x, (h, c))
    gone = {name[0] for name in options.get("without", ()) if "_" not in name}
    assert set(vars(seen)) == {*"ifgohc", "out", "lengths"} - gone
    for name in vars(seen).keys() - {"out", "lengths"}:
        same(getattr(seen, name)[0, 0], expected[name])


@pytest.mark.parametrize("options", SUMS + ONE[:4], ids=name_of)
def test_both_directions_equal_the_papers_equations(options):
    layer = layer_of(1, bidirectional=True, batch_first=True, **options).eval()
    x, h, c = numbers(BATCH, STEPS, INPUT), numbers(2, BATCH, HIDDEN), numbers(2, BATCH, HIDDEN)
    time, h_0, c_0, zone = x.transpose(0, 1).numpy(), h.numpy(), c.numpy(), evaluated(options)
    there = by_hand(layer, time, h_0[0], c_0[0], options, zone=zone)
    back = by_hand(layer, time[::-1], h_0[1], c_0[1], options, "_l0_reverse", zone=zone)
    out, (h_n, c_n) = layer(x, (h, c))
    same(out, np.concatenate([there["h"], back["h"][::-1]], -1).transpose(1, 0, 2))
    same(h_n, np.stack([there["h"][-1], back["h"][-1]]))
    same(c_n, np.stack([there["c"][-1], back["c"][-1]]))


# ONNX's reference implementation


def to_onnx(layer, suffixes):
    """W, R, B, P as ONNX stacks them: gates i, o, f, c; peepholes i, o, f."""

    def stacked(name):
        return np.stack([getattr(layer, name + suffix).detach().numpy() for suffix in suffixes])

    order = np.r_[0:HIDDEN, 3 * HIDDEN : 4 * HIDDEN, HIDDEN : 3 * HIDDEN]
    b = np.concatenate([stacked("bias_ih")[:, order], stacked("bias_hh")[:, order]], 1)
    p = np.concatenate([stacked(f"weight_c{gate}") for gate in "iof"], 1)
    return stacked("weight_ih")[:, order], stacked("weight_hh")[:, order], b, p


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("with_hx", [False, True])
def test_peephole_equals_onnx(direction, layout, with_hx):
    onnx = pytest.importorskip("onnx")
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    layer = layer_of(2, bidirectional=direction != "forward", batch_first=bool(layout), peephole=True)
    suffixes = {"forward": ["_l0"], "reverse": ["_l0_reverse"], "bidirectional": ["_l0", "_l0_reverse"]}[direction]
    x = numbers(*((BATCH, STEPS) if layout else (STEPS, BATCH)), INPUT)
    hx = numbers(2, 1 + layer.bidirectional, BATCH, HIDDEN) if with_hx else None
    rows = slice(1, 2) if direction == "reverse" else slice(None)
    inputs = dict(zip("XWRBP", [x.numpy(), *to_onnx(layer, suffixes)], strict=True))
    if with_hx:
        for name, s in zip("hc", hx[:, rows].numpy(), strict=True):
            inputs[name] = s.transpose(1, 0, 2) if layout else s
    names = ["X", "W", "R", "B", "", *("hc" if with_hx else ["", ""]), "P"]
    node = helper.make_node(
        "LSTM", names, ["Y", "Y_h", "Y_c"], hidden_size=HIDDEN, direction=direction, layout=layout
    )
    double = onnx.TensorProto.DOUBLE
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info(name, double, value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, double, None) for name in ("Y", "Y_h", "Y_c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    y, y_h, y_c = ReferenceEvaluator(model).run(None, inputs)

    out, (h_n, c_n) = layer(x, None if hx is None else tuple(hx))
    out = out.unflatten(-1, (-1, HIDDEN))
    out = out[:, :, rows] if layout else out.transpose(1, 2)[:, rows]
    same(out, y)
    same(h_n[rows], y_h.transpose(1, 0, 2) if layout else y_h)
    same(c_n[rows], y_c.transpose(1, 0, 2) if layout else y_c)


def test_layer_norm_is_torchs():
    """One step with torch.nn.LayerNorm in the three places of Ba's equations 20 to 22."""
    layer, x = layer_of(3, layer_norm=True), numbers(1, BATCH, INPUT)
    h, c = numbers(BATCH, HIDDEN), numbers(BATCH, HIDDEN)
    norms = [nn.LayerNorm(size, **F64) for size in (4 * HIDDEN, 4 * HIDDEN, HIDDEN)]
    weights = layer.weight_ln_ih_l0, layer.weight_ln_hh_l0, layer.weight_ln_c_l0
    biases = layer.bias_ih_l0, layer.bias_hh_l0, layer.bias_ln_c_l0
    for norm, weight, bias in zip(norms, weights, biases, strict=True):
        norm.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    i, f, g, o = (norms[0](x[0] @ layer.weight_ih_l0.T) + norms[1](h @ layer.weight_hh_l0.T)).chunk(4, -1)
    c_1 = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h_1 = o.sigmoid() * norms[2](c_1).tanh()
    out, (_, c_n) = layer(x, (h[None], c[None]))
    agree([out[0], c_n[0]], [h_1, c_1])


# Neutral and not


def neutral(options):
    """The variant and a torch.nn.LSTM with the same weights, the variant's own parameters set to do nothing."""
    ours, theirs = layer_of(4, num_layers=2, **options), nn.LSTM(INPUT, HIDDEN, 2, **F64)
    theirs.load_state_dict({n: v for n, v in ours.state_dict().items() if n in theirs.state_dict()}, strict=True)
    with torch.no_grad():
        for name, value in ours.named_parameters():
            if name not in theirs.state_dict():
                value.fill_(0.0)
    return ours, theirs


def test_neutral_parameters_make_the_plain_lstm():
    ours, theirs = neutral({"peephole": True})
    x = numbers(STEPS, BATCH, INPUT)
    agree([ours(x)[0]], [theirs(x)[0]])
    with torch.no_grad():
        ours.weight_co_l1.fill_(0.5)
    assert not torch.allclose(ours(x)[0], theirs(x)[0], atol=1e-3)


def test_options_that_are_off_give_torchs_own_layer():
    off = {"peephole": False, "zoneout": (0.0, 0.0), "variational_dropout": 0.0, "without": (), "residual": False}
    torch.manual_seed(0)
    ours = LSTM(INPUT, HIDDEN, **F64, **off)
    torch.manual_seed(0)
    theirs = nn.LSTM(INPUT, HIDDEN, **F64)
    x = numbers(STEPS, BATCH, INPUT)
    agree(ours(x)[0], theirs(x)[0], 0)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("options", [*ONE, {"weight_drop": 0.3}], ids=name_of)
def test_differs_from_the_plain_lstm_otherwise(options):
    torch.manual_seed(5)
    ours, theirs = LSTM(INPUT, HIDDEN, **F64, **options), nn.LSTM(INPUT, HIDDEN, **F64)
    theirs.load_state_dict({n: v for n, v in ours.state_dict().items() if n in theirs.state_dict()}, strict=True)
    x = numbers(STEPS, BATCH, INPUT)
    assert not torch.allclose(ours(x)[0], theirs(x)[0], atol=1e-3)
    if options.keys() <= {"variational_dropout", "weight_drop"}:
        agree([ours.eval()(x)[0]], [theirs(x)[0]])


@pytest.mark.parametrize(
    ("gate", "block", "value"), [("input", 0, 60.0), ("forget", 1, 60.0), ("output", 3, 60.0)]
)
def test_a_gate_left_out_is_one_stuck_open(gate, block, value):
    ours = layer_of(6, without={gate})
    theirs = nn.LSTM(INPUT, HIDDEN, **F64)
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        theirs.bias_ih_l0[block * HIDDEN : (block + 1) * HIDDEN] = value
    x = numbers(STEPS, BATCH, INPUT)
    agree([ours(x)[0]], [theirs(x)[0]], 1e-9)


def test_without_forget_is_the_cell_of_1997():
    layer, x = layer_of(7, without={"forget"}), numbers(STEPS, BATCH, INPUT)
    agree([layer(x)[0]], [run(cells.LSTM1997(), layer, x)[0]])


# Chance: what is drawn, how often, and its mean

DRAWS = 40_000


def near(draws, expected):
    """The mean over the draws (dimension 0) is within five standard errors."""
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - expected).abs() <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("p", [(0.3, 0.0), (0.0, 0.4), (0.25, 0.6)])
def test_zoneouts_evaluation_is_the_mean_of_one_training_step(p):
    layer = layer_of(8, zoneout=p)
    x, h, c = numbers(1, 1, INPUT), numbers(1, 1, HIDDEN), numbers(1, 1, HIDDEN)
    many = [s.expand(-1, DRAWS, -1).contiguous() for s in (x, h, c)]
    with torch.no_grad():
        _, (h_n, c_n) = layer(many[0], tuple(many[1:]))
        plain = nn.LSTM(INPUT, HIDDEN, **F64)
        plain.load_state_dict(layer.state_dict())
        new = [s[0, 0] for s in plain(x, (h, c))[1]]
        mean = [s[0, 0] for s in layer.eval()(x, (h, c))[1]]
    for drawn, kept, last, after, expected in zip((h_n[0], c_n[0]), p, (h[0, 0], c[0, 0]), new, mean, strict=True):
        same(expected, (kept * last + (1 - kept) * after).numpy())
        is_last, is_new = torch.isclose(drawn, last), torch.isclose(drawn, after)
        assert (is_last ^ is_new).all()
        near(is_last.double(), torch.full_like(last, kept)) if kept else None
        near(drawn, expected)


def test_zoneout_draws_anew_at_each_step_and_unit():
    cell = cells.LSTMVariant(zoneout=(0.5, 0.5))
    masks = cell.masks(numbers(50, 20, INPUT), 10, True)
    for mask in masks.values():
        assert mask.unique().tolist() == [0, 1]
        for dim, size in enumerate(mask.shape):
            assert len(mask.unique(dim=dim).select(dim, 0)) > 0
            assert mask.unique(dim=dim).shape[dim] == size
    assert not torch.equal(masks["zone_h"], masks["zone_c"])


def test_variational_dropout_keeps_one_mask_per_sequence():
    cell, p = cells.LSTMVariant(variational_dropout=0.25), 0.25
    x = torch.ones(STEPS, 5000, INPUT, dtype=torch.float64)
    torch.manual_seed(9)
    masks = cell.masks(x, HIDDEN, True)
    assert list(masks) == ["drop_h"]
    for seen in (cell.drop_input(x, True), masks["drop_h"]):
        same(seen, seen[:1].expand_as(seen).numpy(), 0)  # the same at every step
        assert len(seen[0].unique(dim=0)) > 1  # not in every sequence
        torch.testing.assert_close(seen.unique(), torch.tensor([0.0, 1 / (1 - p)], **F64))
        near(seen[0], torch.ones(seen.shape[-1], **F64))
    assert not cell.masks(x, HIDDEN, False)
    assert cell.drop_input(x, False) is x


def test_variational_dropout_in_a_layer_is_its_masks_in_the_equations():
    """A weight of 1 from each feature and unit to itself shows what was dropped."""
    options = {"variational_dropout": 0.5, "without": set(GATES)}
    layer = layer_of(10, (HIDDEN, HIDDEN), bias=False, **options)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()[2 * HIDDEN : 3 * HIDDEN] = torch.eye(HIDDEN)
        layer.weight_hh_l0.zero_()[2 * HIDDEN : 3 * HIDDEN] = torch.eye(HIDDEN)
    x = torch.ones(STEPS, 300, HIDDEN, **F64)
    out, _ = layer(x)  # c_t = h_t = (1 + b) h_{t-1} + a, with a and b each 0 or 2
    a = out[0]
    assert a.unique().tolist() == [0, 2]
    b = torch.where(a > 0, (out[1] - a) / 2 - 1, torch.nan)
    assert b[a > 0].unique().tolist() == [0, 2]
    for before, now in itertools.pairwise(out):
        agree([now[a > 0]], [((1 + b) * before + a)[a > 0]])
    assert torch.equal(layer.eval()(x)[0][:2], torch.stack([x[0], 3 * x[0]]))


@pytest.mark.parametrize("options", [{"weight_drop": 0.5}, {"weight_drop": 0.5, "peephole": True}], ids=name_of)
def test_weight_drop_drops_once_a_call(options):
    layer = layer_of(11, **options)
    kept = layer.weight_hh_l0.detach().clone()
    x = numbers(STEPS, BATCH, INPUT)
    torch.manual_seed(1)
    out, _ = layer(x)
    agree([layer.weight_hh_l0], [kept], 0)  # the parameter itself stays
    torch.manual_seed(1)
    dropped = nn.functional.dropout(kept, 0.5)
    other = layer_of(11, **{name: value for name, value in options.items() if name != "weight_drop"})
    with torch.no_grad():
        other.weight_hh_l0.copy_(dropped)
    agree([out], [other(x)[0]])
    assert not torch.equal(layer(x)[0], out)  # drawn anew
    (grad,) = torch.autograd.grad(out.sum(), layer.weight_hh_l0)
    assert (grad[dropped == 0] == 0).all()
    assert (grad[dropped != 0] != 0).any()


def test_weight_drops_mean_is_the_evaluated_product():
    """One step without gates and activations is linear in W_hh, so its mean is the step of the mean weights."""
    layer = layer_of(12, weight_drop=0.3, without=set(GATES))
    x, hx = numbers(1, 1, INPUT), (numbers(1, 1, HIDDEN), numbers(1, 1, HIDDEN))
    with torch.no_grad():
        drawn = torch.stack([layer(x, hx)[0][0, 0] for _ in range(3000)])
        near(drawn, layer.eval()(x, hx)[0][0, 0])


def test_variational_dropouts_mean_is_the_evaluated_product():
    layer = layer_of(13, variational_dropout=0.3, without=set(GATES))
    x, hx = numbers(1, 1, INPUT), (numbers(1, 1, HIDDEN), numbers(1, 1, HIDDEN))
    many, *states = (s.expand(-1, DRAWS, -1).contiguous() for s in (x, *hx))
    with torch.no_grad():
        near(layer(many, tuple(states))[0][0], layer.eval()(x, hx)[0][0, 0])


# Layers, directions, forms of input


EVERY = ONE + SUMS


@pytest.mark.parametrize("options", EVERY, ids=name_of)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_are_as_each_alone(options, bidirectional):
    layer = layer_of(14, num_layers=2, bidirectional=bidirectional, **options).eval()
    sequences = [numbers(n, INPUT) for n in (2, 5, 1, 4)]
    hx = tuple(numbers(2 * (1 + bidirectional), 4, HIDDEN) for _ in range(2))
    out, state = layer(pack_sequence(sequences, enforce_sorted=False), hx)
    padded, lengths = pad_packed_sequence(out)
    assert lengths.tolist() == [2, 5, 1, 4]
    for b, sequence in enumerate(sequences):
        alone, last = layer(sequence, tuple(s[:, b] for s in hx))  # unbatched
        agree([padded[: len(sequence), b], *(s[:, b] for s in state)], [alone, *last])
        assert not padded[len(sequence) :, b].any()


@pytest.mark.parametrize("options", EVERY, ids=name_of)
def test_batch_first_and_stacked_layers(options):
    layer = layer_of(15, num_layers=2, batch_first=True, **options).eval()
    x = numbers(BATCH, STEPS, INPUT)
    hx = tuple(numbers(2, BATCH, HIDDEN) for _ in range(2))
    first, second = layer_of(0, **options).eval(), layer_of(0, (HIDDEN, HIDDEN), **options).eval()
    for k, one in enumerate((first, second)):
        weights = {n: v for n, v in layer.state_dict().items() if n.endswith(f"_l{k}")}
        one.load_state_dict({n[:-1] + "0": v for n, v in weights.items()}, strict=True)
    middle, a = first(x.transpose(0, 1), tuple(s[:1] for s in hx))
    expected, b = second(middle, tuple(s[1:] for s in hx))
    out, state = layer(x, hx)
    agree([out, *state], [expected.transpose(0, 1), *(torch.cat(pair) for pair in zip(a, b, strict=True))])
    zeros = tuple(torch.zeros_like(s) for s in hx)
    agree([layer(x)[0]], [layer(x, zeros)[0]], 0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", [{}, {"peephole": True}], ids=name_of)
def test_residual_adds_the_input_where_the_widths_match(options, bidirectional):
    width = HIDDEN * (1 + bidirectional)
    settings_ = {"bidirectional": bidirectional, **options}
    layer = layer_of(16, num_layers=3, residual=True, **settings_)
    x = numbers(STEPS, BATCH, INPUT)
    hidden, last = x, []
    for k in range(3):
        one = layer_of(0, (hidden.shape[-1], HIDDEN), **settings_)
        one.load_state_dict(
            {n.replace(f"_l{k}", "_l0"): v for n, v in layer.state_dict().items() if f"_l{k}" in n}, strict=True
        )
        above, (h_n, _) = one(hidden)
        last.append(h_n)
        hidden = above + hidden if hidden.shape[-1] == width else above
    out, (h_n, _) = layer(x)
    agree([out, h_n], [hidden, torch.cat(last)])
    same_width = layer_of(17, (width, HIDDEN), residual=True, **settings_)
    x = numbers(STEPS, BATCH, width)
    bare = layer_of(17, (width, HIDDEN), **settings_)
    bare.load_state_dict(same_width.state_dict())
    agree([same_width(x)[0]], [bare(x)[0] + x])


def test_a_projected_variant_equals_the_equations():
    layer = layer_of(18, proj_size=2, peephole=True, zoneout=(0.3, 0.2)).eval()
    x, h, c = numbers(1, BATCH, INPUT), numbers(1, BATCH, 2), numbers(1, BATCH, HIDDEN)
    expected = by_hand(layer, x.numpy(), h[0].numpy(), c[0].numpy(), {"peephole": True})
    out, (_, c_n) = layer(x, (h, c))
    projected = expected["h"][0] @ layer.weight_hr_l0.detach().numpy().T
    same(out[0], 0.3 * h[0].numpy() + 0.7 * projected)
    same(c_n[0], 0.2 * c[0].numpy() + 0.8 * expected["c"][0])


# The readable loop and the fused sweep


@st.composite
def cases(draw):
    without = draw(st.sets(st.sampled_from(GATES), max_size=3))
    gone = without & {"input", "forget", "output"}
    options = {
        "without": without,
        "coupled": draw(st.booleans()) and not gone & {"input", "forget"},
        "peephole": draw(st.booleans()) and len(gone) < 3,
        "layer_norm": draw(st.booleans()),
        "zoneout": draw(st.sampled_from([(0.0, 0.0), (0.3, 0.2), (0.0, 0.5), (0.5, 0.0)])),
        "variational_dropout": draw(st.sampled_from([0.0, 0.3])),
        "weight_drop": draw(st.sampled_from([0.0, 0.3])),
        "residual": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "num_layers": draw(st.integers(1, 2)),
    }
    sizes = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    return options, sizes, lengths, draw(st.sampled_from(["padded", "unbatched", "packed"])), draw(st.booleans())


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**20), st.booleans())
def test_the_readable_loop_equals_the_layer(case, seed, training):
    options, sizes, lengths, form, with_hx = case
    layer = layer_of(seed, sizes, **options).train(training)
    rows, batch = layer.num_layers * (1 + layer.bidirectional), () if form == "unbatched" else (len(lengths),)
    shape = (max(lengths), *batch, sizes[0])
    if form == "padded" and layer.batch_first:
        shape = (*batch, max(lengths), sizes[0])
    leaf = numbers(*shape).requires_grad_()
    hx = tuple(numbers(rows, *batch, sizes[1]).requires_grad_() for _ in range(2)) if with_hx else None
    leaves = [leaf, *(hx or ()), *layer.parameters()]

    def results(call):
        x = pack_sequence([leaf[:n, b] for b, n in enumerate(lengths)], False) if form == "packed" else leaf
        torch.manual_seed(seed)  # the same draws
        out, state = call(x, hx)
        values = [out.data if form == "packed" else out, *state]
        torch.manual_seed(seed)
        loss = sum((v * torch.randn_like(v)).sum() for v in values)
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        zeros = [torch.zeros_like(s) if g is None else g for s, g in zip(leaves, grads, strict=True)]
        return values + zeros

    ours, theirs = results(layer), results(lambda x, hx: run(cells.of(layer), layer, x, hx)[:2])
    with torch.no_grad():
        leaf.mul_(1 + 2**-52)
    nudged = results(layer)  # what rounding comes to: much, where layer norm divides by next to nothing
    agree(theirs, ours, 1e-9, nudged)


# Bad options


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"peephole": 1}, TypeError, r"peephole must be True or False, got 1 \(int\)"),
        ({"coupled": None}, TypeError, "coupled must be True or False, got None"),
        ({"layer_norm": "yes"}, TypeError, "layer_norm must be True or False, got 'yes'"),
        ({"residual": 1}, TypeError, r"residual must be True or False, got 1 \(int\)"),
        ({"zoneout": 0.1}, TypeError, r"zoneout must be two probabilities \(p_h, p_c\), got 0.1"),
        ({"zoneout": (0.1,)}, TypeError, "zoneout must be two probabilities"),
        ({"zoneout": (0.1, 0.1, 0.1)}, TypeError, "zoneout must be two probabilities"),
        ({"zoneout": ("a", 0.1)}, TypeError, "zoneout must be a number from 0 to below 1, got 'a'"),
        ({"zoneout": (0.1, True)}, TypeError, "zoneout must be a number from 0 to below 1, got True"),
        ({"zoneout": (0.1, 1.0)}, ValueError, "zoneout must be a number from 0 to below 1, got 1.0"),
        ({"zoneout": (-0.1, 0.1)}, ValueError, "zoneout must be a number from 0 to below 1, got -0.1"),
        ({"zoneout": (float("nan"), 0.1)}, ValueError, "zoneout must be a number from 0 to below 1, got nan"),
        ({"variational_dropout": "half"}, TypeError, "variational_dropout must be a number"),
        ({"variational_dropout": 1}, ValueError, "variational_dropout must be .* got 1"),
        ({"weight_drop": None}, TypeError, "weight_drop must be a number from 0 to below 1, got None"),
        ({"weight_drop": 1.0}, ValueError, "weight_drop must be a number from 0 to below 1, got 1.0"),
        ({"weight_drop": -0.5}, ValueError, "weight_drop must be a number from 0 to below 1, got -0.5"),
        ({"without": "forget"}, TypeError, "without must be a set of names"),
        ({"without": 3}, TypeError, "without must be a set of names"),
        ({"without": {"remember"}}, ValueError, r"without must be among .* got \['remember'\]"),
        ({"without": {3}}, ValueError, "without must be among"),
        ({"coupled": True, "without": {"forget"}}, ValueError, "coupled sets i = 1 − f, .* takes away .'forget'"),
        ({"coupled": True, "without": ["input", "output"]}, ValueError, "coupled .* takes away .'input'"),
        ({"peephole": True, "without": {"input", "forget", "output"}}, ValueError, "peephole .* leaves no gate"),
    ],
)
def test_bad_options_are_named(bad, error, message):
    with pytest.raises(error, match=message):
        LSTM(INPUT, HIDDEN, **bad)


@pytest.mark.parametrize("unit", [GRU, RNN])
def test_other_units_have_no_variants(unit):
    with pytest.raises(TypeError, match="peephole"):
        unit(INPUT, HIDDEN, peephole=True)


def test_options_are_by_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        LSTM(3, 4, 1, True, False, 0.0, False, 0, None, None, True)


@pytest.mark.parametrize("options", [{"peephole": True}, {"residual": True}, {"weight_drop": 0.5}], ids=name_of)
def test_bad_calls_are_named(options):
    layer = LSTM(INPUT, HIDDEN, **options)
    with pytest.raises(ValueError, match=r"input must be .* got shape \(5, 2, 7\)"):
        layer(torch.zeros(5, 2, 7))
    with pytest.raises(ValueError, match="seq_len is 0"):
        layer(torch.zeros(0, 2, 3))
    with pytest.raises(TypeError, match="hx must be a tuple"):
        layer(torch.zeros(5, 2, 3), torch.zeros(1, 2, 4))


def test_a_variant_needs_its_own_parameters():
    with pytest.raises(ValueError, match="layer has no weight_ci, weight_cf, weight_co"):
        run(cells.LSTMVariant(peephole=True), nn.LSTM(INPUT, HIDDEN), torch.zeros(1, 1, INPUT))


# Parameters


def test_parameters_have_the_documented_names_shapes_and_starts():
    layer = LSTM(INPUT, HIDDEN, 2, bidirectional=True, peephole=True, layer_norm=True)
    names = dict(layer.named_parameters())
    assert names.keys() >= dict(nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True).named_parameters()).keys()
    layer.reset_parameters()
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        for gate in "ifo":
            peephole = names[f"weight_c{gate}{suffix}"]
            assert peephole.shape == (HIDDEN,)
            assert peephole.abs().max() <= HIDDEN**-0.5
            assert len(peephole.unique()) == HIDDEN
        for side in ("ih", "hh"):
            assert torch.equal(names[f"weight_ln_{side}{suffix}"], torch.ones(4 * HIDDEN))
        assert torch.equal(names[f"weight_ln_c{suffix}"], torch.ones(HIDDEN))
        assert torch.equal(names[f"bias_ln_c{suffix}"], torch.zeros(HIDDEN))


def test_a_plain_state_dict_loads():
    layer = LSTM(INPUT, HIDDEN, peephole=True)
    result = layer.load_state_dict(nn.LSTM(INPUT, HIDDEN).state_dict(), strict=False)
    assert set(result.missing_keys) == {"weight_ci_l0", "weight_cf_l0", "weight_co_l0"}
    assert not result.unexpected_keys
    for options in ({"coupled": True}, {"without": {"input"}}, {"zoneout": (0.1, 0.1)}, {"residual": True}):
        LSTM(INPUT, HIDDEN, **options).load_state_dict(nn.LSTM(INPUT, HIDDEN).state_dict(), strict=True)


def test_options_show_in_repr_and_survive_a_pickle():
    layer = LSTM(3, 4, peephole=True, zoneout=(0.1, 0.2), without={"input"}, weight_drop=0.5, residual=True)
    shown = "peephole=True, zoneout=(0.1, 0.2), without={'input'}, weight_drop=0.5, residual=True"
    for one in (layer, pickle.loads(pickle.dumps(layer))):
        assert repr(one) == f"LSTM(3, 4, {shown})"
        assert one._variant.options() == {"peephole": True, "zoneout": (0.1, 0.2), "without": {"input"}}


def test_trace_shows_evaluation_and_leaves_the_layer_alone():
    options = {"zoneout": (0.5, 0.5), "variational_dropout": 0.5, "weight_drop": 0.5, "peephole": True}
    layer, x = layer_of(19, **options), numbers(STEPS, BATCH, INPUT)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    seen = trace(layer, x)
    assert isinstance(seen, SimpleNamespace)
    assert layer.training
    assert torch.equal(torch.rand(1), expected)
    agree([seen.h[-1, 0]], [layer.eval()(x)[0]])

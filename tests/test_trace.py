"""Traces against the layers' outputs; gradients by lag against products of Jacobians and finite differences."""

import copy
import pickle
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from lstm_lib import cells
from lstm_lib.recurrent import GRU, LSTM, RNN
from lstm_lib.trace import gradient_by_lag, memory, trace
from lstm_lib.unroll import run

UNITS = [nn.LSTM, nn.GRU, nn.RNN, LSTM, GRU, RNN]
NAMES = {"LSTM": {"i", "f", "g", "o", "c", "h"}, "GRU": {"r", "z", "n", "h"}, "RNN": {"h"}}


@settings(max_examples=60, deadline=None)
@given(
    unit=st.sampled_from(UNITS),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    projected=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    form=st.sampled_from(["padded", "unbatched", "packed"]),
    with_hx=st.booleans(),
    bias=st.booleans(),
    relu=st.booleans(),
    small=st.sampled_from([0, 1024]),
)
def test_trace_agrees_with_the_layer(
    unit, num_layers, bidirectional, batch_first, projected, dtype, form, with_hx, bias, relu, small
):
    kind = unit.__name__
    options = {"proj_size": 2} if projected and kind == "LSTM" else {}
    options |= {"nonlinearity": "relu"} if relu and kind == "RNN" else {}
    options |= {"bias": bias}
    layer = unit(3, 4, num_layers, bidirectional=bidirectional, batch_first=batch_first, dtype=dtype, **options)
    directions, rows = 1 + bidirectional, num_layers * (1 + bidirectional)
    lengths = {"padded": [5, 5], "unbatched": [5], "packed": [2, 5, 3]}[form]
    if form == "padded":
        x = torch.randn(*((2, 5) if batch_first else (5, 2)), 3, dtype=dtype)
    elif form == "unbatched":
        x = torch.randn(5, 3, dtype=dtype)
    else:
        x = pack_sequence([torch.randn(n, 3, dtype=dtype) for n in lengths], enforce_sorted=False)
    size_h = layer.proj_size or 4
    batch = () if form == "unbatched" else (len(lengths),)
    hx = None
    if with_hx:
        hx = torch.randn(rows, *batch, size_h, dtype=dtype)
        hx = (hx, torch.randn(rows, *batch, 4, dtype=dtype)) if kind == "LSTM" else hx

    with patch("lstm_lib.trace.SMALL", small):  # both ways to make the gates
        t = trace(layer, x, hx)
    assert set(vars(t)) == NAMES[kind] | {"out", "lengths"}
    assert t.lengths.tolist() == lengths
    for name in NAMES[kind]:
        size = size_h if name == "h" else 4
        assert getattr(t, name).shape == (num_layers, directions, 5, len(lengths), size)
        assert not getattr(t, name).requires_grad

    out, state = layer(x, hx)
    if isinstance(out, PackedSequence):
        out = pad_packed_sequence(out)[0]
    elif form == "unbatched":
        out = out.unsqueeze(1)
    elif batch_first:
        out = out.transpose(0, 1)
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(torch.cat(list(t.h[-1]), -1), out, **tolerance)
    states = state if kind == "LSTM" else (state,)
    for name, last in zip("hc", states, strict=False):
        last = last.reshape(num_layers, directions, len(lengths), -1)
        for b, n in enumerate(lengths):
            torch.testing.assert_close(getattr(t, name)[:, 0, n - 1, b], last[:, 0, b], **tolerance)
            if bidirectional:
                torch.testing.assert_close(getattr(t, name)[:, 1, 0, b], last[:, 1, b], **tolerance)


@pytest.mark.parametrize("small", [0, 1024])
def test_gates_are_the_equations(small, monkeypatch):
    """Every gate in every layer and direction, rebuilt from the trace's own h and c (which are the layer's)."""
    monkeypatch.setattr("lstm_lib.trace.SMALL", small)
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    t = trace(layer, x)
    for k in range(2):
        below = x if k == 0 else torch.cat(list(t.h[0]), -1)
        for d, suffix in enumerate([f"_l{k}", f"_l{k}_reverse"]):
            h, c = (v[k, d] if d == 0 else v[k, d].flip(0) for v in (t.h, t.c))
            h, c = (torch.cat([torch.zeros_like(v[:1]), v[:-1]]) for v in (h, c))  # the step before
            w_ih, w_hh, b_ih, b_hh = (
                getattr(layer, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            a = (below if d == 0 else below.flip(0)) @ w_ih.T + b_ih + h @ w_hh.T + b_hh
            i, f, g, o = a.detach().chunk(4, -1)
            gates = {"i": i.sigmoid(), "f": f.sigmoid(), "g": g.tanh(), "o": o.sigmoid()}
            gates["c"] = gates["f"] * c + gates["i"] * gates["g"]
            for name, value in gates.items():
                torch.testing.assert_close(getattr(t, name)[k, d], value if d == 0 else value.flip(0))


@pytest.mark.parametrize("small", [0, 1024])
@pytest.mark.parametrize("unit", UNITS)
def test_every_gate_is_that_of_the_readable_loop(unit, small, monkeypatch):
    monkeypatch.setattr("lstm_lib.trace.SMALL", small)
    layer = unit(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in (2, 5, 3)], enforce_sorted=False)
    with torch.no_grad():
        _, _, steps = run(cells.of(layer), layer, x)
    t = vars(trace(layer, x))
    for name, value in steps.items():
        torch.testing.assert_close(t[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("unit", UNITS)
def test_trace_under_autocast_is_near(unit):
    layer, x = unit(3, 4), torch.randn(5, 2, 3)
    exact = trace(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        t = trace(layer, x)
    for name in NAMES[unit.__name__]:
        torch.testing.assert_close(getattr(t, name).float(), getattr(exact, name), rtol=0, atol=0.05)


class Traced(nn.Module):
    """A layer's hidden states as trace finds them."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return trace(self.layer, x).h


@pytest.mark.parametrize("unit", [LSTM, GRU, RNN])
def test_trace_under_vmap_is_that_of_each_replica(unit):
    models, x = [Traced(unit(3, 4)) for _ in range(3)], torch.randn(3, 5, 2, 3)
    weights, _ = torch.func.stack_module_state(models)
    h = torch.func.vmap(lambda w, x: torch.func.functional_call(models[0], w, (x,)))(weights, x)
    for k, model in enumerate(models):
        torch.testing.assert_close(h[k], model(x[k]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_nothing(unit, training):
    layer = unit(3, 4, num_layers=2, dropout=0.5).train(training)
    x = torch.randn(5, 2, 3, requires_grad=True)
    before, random = copy.deepcopy(layer.__dict__), torch.get_rng_state()
    t, lags = trace(layer, x), gradient_by_lag(layer, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert layer.training is training
    assert not any(layer.__dict__[name] for name in layer.__dict__ if name.endswith("_hooks"))
    assert x.grad is None
    assert all(p.grad is None and p.requires_grad for p in layer.parameters())
    assert set(layer.__dict__) == set(before)
    torch.testing.assert_close(t.h[-1, 0], layer.eval()(x)[0].detach())  # as in evaluation, whatever the mode
    torch.testing.assert_close(lags, gradient_by_lag(layer, x))
    with torch.inference_mode():
        torch.testing.assert_close(gradient_by_lag(layer, x.detach().clone()).clone(), lags)


def test_trace_says_what_it_has_and_travels():
    t = trace(nn.GRU(3, 4), torch.zeros(5, 2, 3))
    with pytest.raises(AttributeError, match="this Trace has r, z, n, h, out, lengths; no f"):
        _ = t.f
    assert repr(t).startswith("Trace(r: (1, 1, 5, 2, 4), z: ")
    for other in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert torch.equal(other.n, t.n)


@pytest.mark.parametrize("function", [trace, gradient_by_lag])
def test_bad_arguments_are_named(function):
    with pytest.raises(TypeError, match=r"layer must be an LSTM, GRU or RNN.* got Linear"):
        function(nn.Linear(3, 3), torch.zeros(5, 2, 3))
    with pytest.raises(ValueError, match=r"input must be \(seq_len, batch, 3\).* got shape \(5, 2, 4\)"):
        function(nn.LSTM(3, 4), torch.zeros(5, 2, 4))
    with pytest.raises(TypeError, match="input must be a Tensor or a PackedSequence, got ndarray"):
        function(nn.LSTM(3, 4), torch.zeros(5, 2, 3).numpy())


# Gradients by lag


def test_a_tanh_rnn_is_the_product_of_its_jacobians():
    """∂h_T/∂x_{T−k} = ∏_{t=T−k+1}^{T} diag(1 − h_t²) W_hh · diag(1 − h_{T−k}²) W_ih, written out."""
    layer = nn.RNN(2, 4, dtype=torch.float64)
    x = torch.randn(6, 3, 2, dtype=torch.float64)
    h = layer(x)[0].detach()
    w_ih, w_hh = layer.weight_ih_l0.detach(), layer.weight_hh_l0.detach()
    expected = torch.zeros(6, 3, dtype=torch.float64)
    for b in range(3):
        product = torch.eye(4, dtype=torch.float64)
        for k in range(6):
            slope = torch.diag(1 - h[5 - k, b] ** 2)
            expected[k, b] = (product @ slope @ w_ih).norm()
            product = product @ slope @ w_hh
    torch.testing.assert_close(gradient_by_lag(layer, x), expected.mean(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("form", ["padded", "batch_first", "unbatched", "packed"])
def test_every_unit_against_finite_differences(unit, form):
    torch.manual_seed(0)
    layer = unit(2, 3, num_layers=2, batch_first=form == "batch_first", dtype=torch.float64)
    lengths = {"padded": [4, 4], "batch_first": [4, 4], "unbatched": [4], "packed": [2, 4, 3]}[form]
    sequences = [torch.randn(n, 2, dtype=torch.float64) for n in lengths]
    x = {
        "padded": lambda: torch.stack(sequences, 1),
        "batch_first": lambda: torch.stack(sequences),
        "unbatched": lambda: sequences[0],
        "packed": lambda: pack_sequence(sequences, enforce_sorted=False),
    }[form]()

    def last(sequence):
        with torch.no_grad():
            out = layer(sequence.unsqueeze(0 if layer.batch_first else 1))[0]
        return out.reshape(len(sequence), -1)[-1]

    eps, norms = 1e-6, [[] for _ in range(4)]
    for sequence in sequences:
        for k in range(len(sequence)):
            step = torch.zeros_like(sequence)
            square = 0.0
            for feature in range(2):
                step.zero_()[-1 - k, feature] = eps
                square += ((last(sequence + step) - last(sequence - step)) / (2 * eps)).square().sum()
            norms[k].append(square.sqrt())
    expected = torch.stack([torch.stack(row).mean() for row in norms])
    torch.testing.assert_close(gradient_by_lag(layer, x), expected, rtol=1e-6, atol=1e-9)


def test_more_units_than_one_block_and_a_projection():
    layer = nn.LSTM(2, 130, proj_size=100, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    full = torch.autograd.functional.jacobian(lambda x: layer(x)[0][-1], x)  # (batch, unit, time, batch, feature)
    norms = torch.stack([full[b, :, :, b].square().sum((0, 2)).sqrt() for b in range(2)], 1)
    torch.testing.assert_close(gradient_by_lag(layer, x), norms.mean(1).flip(0), rtol=1e-12, atol=0)


def test_very_small_gradients_do_not_vanish_in_the_norm():
    layer = nn.RNN(1, 1, nonlinearity="relu", bias=False)
    nn.init.ones_(layer.weight_ih_l0)
    nn.init.constant_(layer.weight_hh_l0, 0.1)
    torch.testing.assert_close(
        gradient_by_lag(layer, torch.ones(31, 1, 1)), 10.0 ** -torch.arange(31.0), rtol=1e-4, atol=0
    )


def test_gradient_by_lag_refuses_two_directions_and_nothing():
    with pytest.raises(ValueError, match="layer must have one direction"):
        gradient_by_lag(nn.GRU(2, 3, bidirectional=True), torch.zeros(4, 1, 2))
    with pytest.raises(ValueError, match=r"x must hold at least one sequence, got shape \(4, 0, 2\)"):
        gradient_by_lag(nn.GRU(2, 3), torch.zeros(4, 0, 2))


# The memory of each past input


@settings(max_examples=20, deadline=None)
@given(unit=st.sampled_from(UNITS), training=st.booleans(), batch=st.integers(1, 3), seq_len=st.integers(1, 5))
def test_memory_against_finite_differences(unit, training, batch, seq_len):
    layer = unit(2, 3, batch_first=True, dtype=torch.float64).train(training)
    x = torch.randn(batch, seq_len, 2, dtype=torch.float64)

    def score(x):
        return layer(x)[0][:, -1].square().sum(-1)

    eps, expected = 1e-6, torch.zeros_like(x)
    for place in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        step = torch.zeros_like(x)
        step[tuple(place)] = eps
        with torch.no_grad():
            expected[tuple(place)] = (score(x + step) - score(x - step))[place[0]] / (2 * eps)
    torch.testing.assert_close(memory(score, x), expected, rtol=1e-6, atol=1e-9)


def test_memory_by_hand_and_causal():
    """A tanh unit: ∂h_T/∂x_t = w ∏_{s≥t} (1 − h_s²) u^(T−t); and nothing after the step asked for."""
    layer = nn.RNN(1, 1, bias=False, batch_first=True, dtype=torch.float64)
    x = torch.randn(1, 6, 1, dtype=torch.float64)
    w, u, h = layer.weight_ih_l0.item(), layer.weight_hh_l0.item(), layer(x)[0][0, :, 0].detach()
    got = memory(lambda x: layer(x)[0][:, 3, 0], x)[0, :, 0]
    for t in range(4):
        assert got[t].item() == pytest.approx(w * u ** (3 - t) * (1 - h[t:4] ** 2).prod().item(), rel=1e-10)
    assert (got[4:] == 0).all()


def test_memory_changes_nothing_and_needs_no_gradient_mode():
    layer, x = nn.GRU(2, 3, batch_first=True).eval(), torch.randn(2, 4, 2, requires_grad=True)

    def score(x):
        return layer(x)[0][:, -1].sum(-1)

    expected = memory(score, x)
    assert not expected.requires_grad
    assert x.grad is None
    assert all(p.grad is None for p in layer.parameters())
    with torch.no_grad():
        torch.testing.assert_close(memory(score, x), expected, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(memory(score, x.detach().clone()).clone(), expected, rtol=0, atol=0)


def test_memory_says_what_is_wrong():
    x = torch.zeros(2, 4, 3)
    with pytest.raises(TypeError, match=r"x must be a floating-point tensor, got torch.int64: embed symbols"):
        memory(lambda x: x.sum((1, 2)), x.long())
    with pytest.raises(TypeError, match="x must be a floating-point tensor, got list"):
        memory(lambda x: x, [1.0])
    with pytest.raises(ValueError, match=r"x must be \(batch, seq_len, features\), got shape \(4, 3\)"):
        memory(lambda x: x.sum(-1), x[0])
    with pytest.raises(ValueError, match=r"one number for each of the 2 sequences, got shape \(2, 4\)"):
        memory(lambda x: x.sum(-1), x)
    with pytest.raises(ValueError, match="one number for each of the 2 sequences, got float"):
        memory(lambda x: 1.0, x)
    with pytest.raises(ValueError, match="score must depend on x"):
        memory(lambda x: x.detach().sum((1, 2)), x)


@pytest.mark.parametrize("form", ["padded", "unbatched", "packed"])
@pytest.mark.parametrize(
    "options",
    [
        {"residual": True},
        {"proj_size": 2},
        {"residual": True, "proj_size": 3, "peephole": True},
        {"coupled": True},
    ],
    ids=lambda options: "+".join(options),
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_the_layer_returns_can_be_read_off(form, options, bidirectional):
    layer = LSTM(4, 4, num_layers=2, bidirectional=bidirectional, batch_first=True, **options).eval()
    x = {"padded": torch.randn(2, 5, 4), "unbatched": torch.randn(5, 4)}.get(form)
    if x is None:
        x = pack_sequence([torch.randn(n, 4) for n in (2, 5)], enforce_sorted=False)
    out, (h_n, c_n) = layer(x)
    t = trace(layer, x)
    assert type(t.out) is type(out)
    torch.testing.assert_close(getattr(t.out, "data", t.out), getattr(out, "data", out))
    last = t.lengths - 1, torch.arange(len(t.lengths))
    first = torch.zeros_like(last[0]), last[1]
    for name, s in (("h", h_n), ("c", c_n)):
        s = s.unsqueeze(1) if form == "unbatched" else s
        for k in range(2):
            for d in range(1 + bidirectional):
                own = getattr(t, name)[k, d][first if d else last]
                torch.testing.assert_close(own, s[k * (1 + bidirectional) + d])

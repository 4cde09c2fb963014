"""The cells against loops written from the equations in numpy, and against PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn

from lstm_lib import cells

INPUT, HIDDEN, BATCH, STEPS = 3, 5, 2, 6
FAMILY = [(unit, {"bias": bias}) for unit in (nn.LSTM, nn.GRU, nn.RNN) for bias in (True, False)]
FAMILY += [(nn.LSTM, {"proj_size": 2}), (nn.RNN, {"nonlinearity": "relu"})]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def numpy_lstm(layer, x, h, c, forget=True):
    """The six equations, one gate at a time, in float64 numpy: an oracle that shares nothing with the library."""
    p = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    n = layer.hidden_size

    def pre(block, x_t, h):
        rows = slice(block * n, (block + 1) * n)
        a = x_t @ p["weight_ih_l0"][rows].T + h @ p["weight_hh_l0"][rows].T
        return a + p["bias_ih_l0"][rows] + p["bias_hh_l0"][rows] if layer.bias else a

    for x_t in x:
        i, f, o = sigmoid(pre(0, x_t, h)), sigmoid(pre(1, x_t, h)), sigmoid(pre(3, x_t, h))
        g = np.tanh(pre(2, x_t, h))
        c = (f * c if forget else c) + i * g
        h = o * np.tanh(c)
        if layer.proj_size:
            h = h @ p["weight_hr_l0"].T
    return h, c, {"i": i, "f": f, "g": g, "o": o}


def numpy_gru(layer, x, h):
    p = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    b_ih, b_hh = (p["bias_ih_l0"], p["bias_hh_l0"]) if layer.bias else (np.zeros(3 * HIDDEN), np.zeros(3 * HIDDEN))
    for x_t in x:
        a, b = x_t @ p["weight_ih_l0"].T + b_ih, h @ p["weight_hh_l0"].T + b_hh
        n = HIDDEN
        r, z = sigmoid(a[:, :n] + b[:, :n]), sigmoid(a[:, n : 2 * n] + b[:, n : 2 * n])
        new = np.tanh(a[:, 2 * n :] + r * b[:, 2 * n :])
        h = (1 - z) * new + z * h
    return h, {"r": r, "z": z, "n": new}


def numpy_rnn(layer, x, h):
    p = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    for x_t in x:
        a = x_t @ p["weight_ih_l0"].T + h @ p["weight_hh_l0"].T
        if layer.bias:
            a = a + p["bias_ih_l0"] + p["bias_hh_l0"]
        h = np.tanh(a) if layer.nonlinearity == "tanh" else np.maximum(a, 0)
    return h


def steps(cell, layer, x, state):
    w = cell.weights(layer)
    for x_t in cell.project(x, w):
        state, gates = cell.step(x_t, state, w)
    return state, dict(zip(cell.gates, gates, strict=True))


def same(ours, oracle, tolerance=1e-12):
    np.testing.assert_allclose(ours.detach().numpy(), oracle, rtol=0, atol=tolerance)


def state_of(layer, batch=BATCH):
    return tuple(torch.randn(batch, size, dtype=torch.float64) for size in cells.of(layer).sizes(layer))


@pytest.mark.parametrize(("unit", "options"), FAMILY)
def test_step_equals_numpy_and_torch(unit, options):
    torch.manual_seed(0)
    layer = unit(INPUT, HIDDEN, dtype=torch.float64, **options)
    x, state = 2 * torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), state_of(layer)
    start = [s.numpy() for s in state]
    new, gates = steps(cells.of(layer), layer, x, state)
    if unit is nn.LSTM:
        h, c, expected = numpy_lstm(layer, x.numpy(), *start)
        same(new[1], c)
    elif unit is nn.GRU:
        h, expected = numpy_gru(layer, x.numpy(), *start)
    else:
        h, expected = numpy_rnn(layer, x.numpy(), *start), {}
    same(new[0], h)
    assert list(gates) == list(expected)
    for name, gate in gates.items():
        same(gate, expected[name])
    hx = tuple(s[None] for s in state)
    same(layer(x, hx if len(hx) > 1 else hx[0])[0][-1], h)  # the oracle itself agrees with PyTorch


@pytest.mark.parametrize("proj_size", [0, 2])
def test_1997_cell_equals_its_own_loop(proj_size):
    torch.manual_seed(1)
    layer = nn.LSTM(INPUT, HIDDEN, proj_size=proj_size, dtype=torch.float64)
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), state_of(layer)
    (h, c), gates = steps(cells.LSTM1997(), layer, x, state)
    expected_h, expected_c, expected = numpy_lstm(layer, x.numpy(), *(s.numpy() for s in state), forget=False)
    same(h, expected_h)
    same(c, expected_c)
    assert list(gates) == ["i", "g", "o"]
    same(gates["i"], expected["i"])
    assert not np.allclose(c.detach(), numpy_lstm(layer, x.numpy(), *(s.numpy() for s in state))[1])


def test_1997_cell_is_the_lstm_with_its_forget_gate_stuck_open():
    torch.manual_seed(2)
    layer = nn.LSTM(INPUT, HIDDEN, dtype=torch.float64)
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), state_of(layer)
    old, _ = steps(cells.LSTM1997(), layer, x, state)
    with torch.no_grad():
        layer.bias_ih_l0[HIDDEN : 2 * HIDDEN] = 100.0
    new, _ = steps(cells.LSTM(), layer, x, state)
    same(old[1], new[1].detach().numpy())


@pytest.mark.parametrize(("unit", "options"), FAMILY)
def test_step_takes_one_sequence_without_a_batch(unit, options):
    layer = unit(INPUT, HIDDEN, dtype=torch.float64, **options)
    cell, x, state = cells.of(layer), torch.randn(1, 1, INPUT, dtype=torch.float64), state_of(layer, 1)
    batched, _ = steps(cell, layer, x, state)
    single, _ = steps(cell, layer, x[:, 0], tuple(s[0] for s in state))
    for a, b in zip(batched, single, strict=True):
        same(b, a[0].detach().numpy())


@pytest.mark.parametrize(("unit", "options"), FAMILY)
def test_a_cell_knows_the_shapes_of_its_layer(unit, options):
    layer = unit(INPUT, HIDDEN, num_layers=2, bidirectional=True, **options)
    cell = cells.of(layer)
    assert cell.width(HIDDEN) == layer.weight_hh_l1_reverse.shape[0]
    state = layer(torch.randn(STEPS, BATCH, INPUT))[1]
    assert cell.sizes(layer) == tuple(s.shape[-1] for s in (state if isinstance(state, tuple) else (state,)))
    w = cell.weights(layer, 1, reverse=True)
    assert w.weight_hh is layer.weight_hh_l1_reverse
    assert cell.weights(layer, 1).weight_ih is layer.weight_ih_l1
    assert (w.bias_ih is None) == (not layer.bias)
    covered = [row for block in cell.blocks for row in range(cell.width(HIDDEN))[cell.rows(block, HIDDEN)]]
    assert covered == list(range(cell.width(HIDDEN)))


def test_of_refuses_other_modules():
    for other in (nn.Linear(2, 2), nn.LSTMCell(2, 2), "LSTM"):
        with pytest.raises(TypeError, match="layer must be an LSTM, GRU or RNN"):
            cells.of(other)


def test_rnn_refuses_an_unknown_nonlinearity():
    with pytest.raises(ValueError, match=r"nonlinearity must be 'tanh' or 'relu', got 'gelu'"):
        cells.RNN("gelu")


def test_a_unit_must_bring_its_own_step():
    with pytest.raises(NotImplementedError, match="Cell has no step"):
        cells.Cell().step(torch.zeros(1), (torch.zeros(1),), None)


def test_a_new_unit_is_one_class_and_runs_everywhere():
    """What a later variant relies on: parameters, states and gates of its own, and no change elsewhere."""
    from lstm_lib.unroll import run

    class Leaky(cells.Cell):  # h_t = a ⊙ h_{t-1} + W x_t, with a vector of its own
        blocks = gates = ("u",)
        parameters = ("weight_ih", "weight_hh", "leak")

        def project(self, x, w):
            return nn.functional.linear(x, w.weight_ih)

        def step(self, x, state, w):
            return (w.leak * state[0] + x,), (x,)

    layer = nn.RNN(INPUT, HIDDEN, bidirectional=True)
    layer.leak_l0, layer.leak_l0_reverse = (nn.Parameter(torch.rand(HIDDEN)) for _ in range(2))
    x = torch.randn(STEPS, BATCH, INPUT)
    out, h_n, seen = run(Leaky(), layer, x)
    u, h = x @ layer.weight_ih_l0.T, torch.zeros(BATCH, HIDDEN)
    for u_t in u:
        h = layer.leak_l0 * h + u_t
    torch.testing.assert_close(h_n[0], h)
    torch.testing.assert_close(seen["u"][0, 0], u)
    u, h = x @ layer.weight_ih_l0_reverse.T, torch.zeros(BATCH, HIDDEN)
    for u_t in u.flip(0):
        h = layer.leak_l0_reverse * h + u_t
    torch.testing.assert_close(out[0, :, HIDDEN:], h)

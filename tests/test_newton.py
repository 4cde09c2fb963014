"""Newton's method over time, against the loop, PyTorch's layers, and derivatives of whole programs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_lib
from lstm_lib import cells, unroll
from lstm_lib.newton import Newton, _Step, parallel_in_time
from lstm_lib.scan import matrix_scan

F64 = {"dtype": torch.float64}
UNITS = [lstm_lib.LSTM, lstm_lib.GRU, lstm_lib.RNN, nn.LSTM, nn.GRU, nn.RNN]
VARIANTS = [
    {"peephole": True},
    {"coupled": True},
    {"layer_norm": True},
    {"without": {"output"}},
    {"residual": True},
    {"proj_size": 2},
    {"bias": False},
]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.lists(st.integers(1, 3), max_size=2), st.integers(1, 4))
def test_the_scan_of_matrices_is_the_loop(seq_len, shape, n):
    a, b = torch.randn(seq_len, *shape, n, n, **F64) / n, torch.randn(seq_len, *shape, n, **F64)
    h = h_0 = torch.randn(*shape, n, **F64)
    for h_t, a_t, b_t in zip(matrix_scan(a, b, h_0), a, b, strict=True):
        h = torch.einsum("...ij,...j->...i", a_t, h) + b_t
        torch.testing.assert_close(h_t, h)


@pytest.mark.parametrize(
    "shapes", [((3, 2, 2), (3, 3), (2,)), ((0, 2, 2), (0, 2), (2,)), ((3, 2, 2), (3, 2), (3,))]
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match=r"must be \(seq_len, …, n, n\).* got"):
        matrix_scan(*(torch.zeros(shape) for shape in shapes))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(UNITS),
    st.sampled_from(["full", "unit"]),
    st.integers(1, 30),
    st.integers(1, 3),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)
def test_states_are_those_of_the_layer(unit, way, seq_len, batch, hidden_size, bidirectional, batch_first, seed):
    torch.manual_seed(seed)
    layer = unit(3, hidden_size, 2, bidirectional=bidirectional, batch_first=batch_first, **F64)
    x = torch.randn(*((batch, seq_len) if batch_first else (seq_len, batch)), 3, **F64)
    out, state = parallel_in_time(layer, x, jacobian=way, tolerance=1e-12)
    torch.testing.assert_close((out, state), layer(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_variants(options):
    torch.manual_seed(0)
    layer, x = lstm_lib.LSTM(4, 4, 2, **options, **F64), torch.randn(9, 3, 4, **F64)
    torch.testing.assert_close(parallel_in_time(layer, x, tolerance=1e-12)[0], layer(x)[0], rtol=0, atol=1e-10)


def test_packed_sequences_a_state_and_one_sequence():
    torch.manual_seed(0)
    layer, x = nn.LSTM(3, 4, bidirectional=True, **F64), torch.randn(7, 3, 3, **F64)
    packed = pack_padded_sequence(x, torch.tensor([4, 7, 1]), enforce_sorted=False)
    hx = torch.randn(2, 2, 3, 4, **F64).unbind()
    (out, state), (want, state_want) = parallel_in_time(layer, packed, hx, tolerance=1e-12), layer(packed, hx)
    torch.testing.assert_close((out.data, state), (want.data, state_want), rtol=0, atol=1e-10)
    torch.testing.assert_close(parallel_in_time(layer, x[:, 0])[0], layer(x[:, 0])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["full", "unit"])
@pytest.mark.parametrize("unit", UNITS[:3])
def test_gradients_are_those_of_the_layer(unit, way):
    torch.manual_seed(0)
    layer, x = unit(3, 4, 2, **F64), torch.randn(11, 2, 3, requires_grad=True, **F64)
    hx = [torch.randn(2, 2, 4, requires_grad=True, **F64) for _ in range(2 if unit is lstm_lib.LSTM else 1)]
    grads = []
    for run in (layer, lambda *given: parallel_in_time(layer, *given, jacobian=way, tolerance=1e-12)):
        out, state = run(x, tuple(hx) if len(hx) > 1 else hx[0])
        loss = (out**2).sum() + sum((s * torch.arange(1, 5)).sum() for s in (state if len(hx) > 1 else [state]))
        grads.append(torch.autograd.grad(loss, [x, *hx, *layer.parameters()]))
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=1e-9)


def test_a_second_derivative_is_refused():
    layer, x = nn.LSTM(2, 3), torch.randn(4, 1, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="create_graph must be False"):
        torch.autograd.grad(parallel_in_time(layer, x)[0].sum(), x, create_graph=True)


def test_the_derivatives_of_a_step_are_those_of_the_loop():
    """The first iteration's tangent, against PyTorch's Jacobian of one step and its blocks."""
    torch.manual_seed(0)
    layer, cell = nn.LSTM(3, 4, **F64), cells.LSTM()
    w, x, s = cell.weights(layer), torch.randn(1, 1, 3, **F64), torch.randn(8, **F64)
    step = _Step(cell, w, cell.project(x, w), {}, [4, 4])

    def after(s):
        return torch.cat(cell.step(cell.project(x[0, 0], w), (s[:4], s[4:]), w)[0])

    want = jacobian(after, s)
    torch.testing.assert_close(step.full(s.view(1, 1, 8))[0, 0], want)
    own = step.own(s.view(1, 1, 8))[0, 0]
    torch.testing.assert_close(own, want.view(2, 4, 2, 4).diagonal(dim1=1, dim2=3).permute(2, 0, 1))


def test_a_step_that_follows_right_ones_becomes_right():
    """So seq_len iterations suffice, however wild the network."""
    torch.manual_seed(0)
    layer, x = nn.RNN(2, 6, **F64), torch.randn(12, 1, 2, **F64)
    with torch.no_grad():
        layer.weight_hh_l0 *= 6
    sweep = Newton(tolerance=1e-9)
    out, _, _ = unroll.run(cells.RNN(), layer, x, sweep=sweep)
    torch.testing.assert_close(out, layer(x)[0], rtol=0, atol=1e-6)
    (corrections,) = sweep.corrections
    assert 3 < len(corrections) <= 13


def test_a_fresh_lstm_takes_few_iterations_whatever_its_length():
    torch.manual_seed(0)
    layer = nn.LSTM(4, 16, **F64)
    for seq_len in (100, 1000):
        sweep = Newton()
        unroll.run(cells.LSTM(), layer, torch.randn(seq_len, 1, 4, **F64), sweep=sweep, keep_gates=False)
        assert len(sweep.corrections[0]) <= 4


def test_what_does_not_settle_is_told():
    torch.manual_seed(0)
    layer = nn.RNN(2, 16)
    with torch.no_grad():
        layer.weight_hh_l0 *= 8
    with pytest.raises(RuntimeError, match=r"did not settle: after \d+ of at most 5 iterations"):
        parallel_in_time(layer, torch.randn(200, 1, 2), most=5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"jacobian": "dense"}, "jacobian must be 'full' or 'unit', got 'dense'"),
        ({"tolerance": 0.0}, "tolerance must be above 0, got 0.0"),
        ({"most": 0}, "most must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        parallel_in_time(nn.RNN(2, 3), torch.randn(4, 1, 2), **options)


@pytest.mark.parametrize("options", [{"proj_size": 2}, {"layer_norm": True}])
def test_units_that_are_mixed_are_not_taken_apart(options):
    with pytest.raises(ValueError, match="full"):
        parallel_in_time(lstm_lib.LSTM(2, 3, **options), torch.randn(4, 1, 2), jacobian="unit")

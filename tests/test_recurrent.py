"""The loop and the layers against ``torch.nn``: numbers, options, forms of input, errors."""

import copy
import inspect
import pickle
import warnings
from unittest.mock import patch

import pytest
import torch
from agreement import agree
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from lstm_lib import cells
from lstm_lib.book import notebook
from lstm_lib.checks import check_call
from lstm_lib.recurrent import GRU, LSTM, RNN
from lstm_lib.unroll import reverse_time, run

TORCH = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
OURS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


@st.composite
def cases(draw):
    """A layer's name and options, and what it is called with: any combination that PyTorch allows."""
    unit = draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
    options = {
        "input_size": draw(st.integers(1, 4)),
        "hidden_size": draw(st.integers(2, 5)),
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
    }
    if unit == "LSTM":
        options["proj_size"] = draw(st.integers(0, options["hidden_size"] - 1))
    if unit == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    form = draw(st.sampled_from(["padded", "unbatched", "packed", "packed unsorted"]))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    return unit, options, form, lengths, draw(st.booleans()), draw(st.integers(0, 2**20))


def arguments(layer, form, lengths, with_hx):
    """Leaf tensors (input first) and what makes the layer's arguments of them."""
    dtype, batch_first = layer.weight_ih_l0.dtype, layer.batch_first
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    batch = () if form == "unbatched" else (len(lengths),)
    shape = (max(lengths), *batch, layer.input_size)
    if batch and batch_first:
        shape = (*batch, max(lengths), layer.input_size)
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True)]
    if with_hx:
        for size in cells.of(layer).sizes(layer):
            leaves.append(torch.randn(rows, *batch, size, dtype=dtype, requires_grad=True))

    def make(leaves):
        x, *states = leaves
        if form == "packed":
            x = pack_padded_sequence(x, torch.tensor(sorted(lengths, reverse=True)), batch_first)
        elif form == "packed unsorted":
            x = pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False)
        if not states:
            return (x,)
        return x, tuple(states) if len(states) > 1 else states[0]

    return leaves, make


def flat(out, state):
    parts = [part for part in out if part is not None] if isinstance(out, PackedSequence) else [out]
    return [*parts, *(state if isinstance(state, tuple) else (state,))]


def gradients(results, leaves):
    torch.manual_seed(0)
    loss = sum((r * torch.randn_like(r)).sum() for r in results if r.is_floating_point())
    return torch.autograd.grad(loss, leaves)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_run_equals_torch(case):
    unit, options, form, lengths, with_hx, seed = case
    torch.manual_seed(seed)
    layer = TORCH[unit](**options)
    leaves, make = arguments(layer, form, lengths, with_hx)
    theirs = flat(*layer(*make(leaves)))
    out, state, steps = run(cells.of(layer), layer, *make(leaves))
    ours = flat(out, state)
    tolerance = 1e-5 if options["dtype"] == torch.float32 else 1e-10
    agree(ours, theirs, tolerance)
    everything = [*leaves, *layer.parameters()]
    agree(gradients(ours, everything), gradients(theirs, everything), tolerance)

    cell, batch = cells.of(layer), 1 if form == "unbatched" else len(lengths)
    directions = 2 if options["bidirectional"] else 1
    assert tuple(steps) == cell.gates + cell.states
    for name, value in steps.items():
        size = dict(zip(cell.states, cell.sizes(layer), strict=True)).get(name, layer.hidden_size)
        assert value.shape == (layer.num_layers, directions, max(lengths), batch, size)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_layers_equal_torch_to_the_bit_and_exchange_weights(case):
    unit, options, form, lengths, with_hx, seed = case
    torch.manual_seed(seed)
    theirs, ours = TORCH[unit](**options), OURS[unit](**options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    TORCH[unit](**options).load_state_dict(ours.state_dict(), strict=True)
    leaves, make = arguments(theirs, form, lengths, with_hx)
    a, b = flat(*ours(*make(leaves))), flat(*theirs(*make(leaves)))
    agree(a, b, 0)
    agree(gradients(a, [*leaves, *ours.parameters()]), gradients(b, [*leaves, *theirs.parameters()]), 0)


@pytest.mark.parametrize("unit", OURS)
@pytest.mark.parametrize("reverse", [False, True])
def test_packed_steps_are_those_of_each_sequence_alone_and_zero_beyond(unit, reverse):
    torch.manual_seed(0)
    layer = TORCH[unit](3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    sequences = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 6, 4)]
    *_, steps = run(cells.of(layer), layer, pack_sequence(sequences, enforce_sorted=False))
    for b, sequence in enumerate(sequences):
        *_, alone = run(cells.of(layer), layer, sequence)
        for name, value in steps.items():
            agree([value[:, int(reverse), : len(sequence), b]], [alone[name][:, int(reverse), :, 0]], 1e-12)
            assert not value[:, :, len(sequence) :, b].any()


def test_what_lies_beyond_a_packed_sequences_end_has_no_influence():
    layer = nn.LSTM(2, 3, bidirectional=True)
    x = torch.randn(5, 2, 2)
    for filler in (0.0, 1e30, float("nan")):
        x[3:, 1] = filler
        out, state, steps = run(cells.LSTM(), layer, pack_padded_sequence(x, torch.tensor([5, 3])))
        assert all(torch.isfinite(v).all() for v in (out.data, *state, *steps.values()))


def test_the_1997_cell_runs_on_an_lstms_weights():
    layer = nn.LSTM(3, 4, num_layers=2, batch_first=True)
    out, (h_n, c_n), steps = run(cells.LSTM1997(), layer, torch.randn(2, 5, 3))
    assert tuple(steps) == ("i", "g", "o", "h", "c")
    torch.testing.assert_close(steps["c"].diff(dim=2), (steps["i"] * steps["g"])[:, :, 1:])
    torch.testing.assert_close(out[:, -1], h_n[-1])
    torch.testing.assert_close(steps["c"][:, 0, -1], c_n)


def test_run_refuses_a_cell_that_the_weights_do_not_fit():
    with pytest.raises(ValueError, match="cell must fit the layer's weights of 16 rows, got GRU, which needs 12"):
        run(cells.GRU(), nn.LSTM(3, 4), torch.zeros(1, 1, 3))
    with pytest.raises(TypeError, match="layer must be an LSTM"):
        run(cells.LSTM(), nn.Linear(3, 4), torch.zeros(1, 1, 3))


@pytest.mark.parametrize("unit", OURS)
def test_dropout_acts_between_layers_in_training_only(unit):
    layer = TORCH[unit](3, 8, num_layers=3, dropout=0.5)
    cell, x = cells.of(layer), torch.randn(5, 4, 3)
    torch.manual_seed(1)
    theirs = layer(x)[0]
    torch.manual_seed(1)
    ours = run(cell, layer, x)[0]
    torch.testing.assert_close(ours, theirs)  # the very same units were dropped
    torch.testing.assert_close(run(cell, layer, x, training=False)[0], layer.eval()(x)[0])
    torch.testing.assert_close(run(cell, layer, x)[0], layer(x)[0])
    assert not torch.allclose(run(cell, layer, x, training=True)[0], layer(x)[0])
    assert not layer.training


@pytest.mark.parametrize("unit", OURS)
def test_an_empty_batch_is_as_in_torch(unit):
    layer = OURS[unit](3, 4, bidirectional=True)
    x = torch.zeros(5, 0, 3)
    agree(flat(*layer(x)), flat(*TORCH[unit](3, 4, bidirectional=True)(x)), 0)
    agree(flat(*run(cells.of(layer), layer, x)[:2]), flat(*layer(x)), 0)


def test_reverse_time_is_its_own_inverse():
    x, lengths = torch.randn(6, 3, 2), torch.tensor([6, 1, 4])
    assert torch.equal(reverse_time(reverse_time(x, lengths), lengths), x)
    assert torch.equal(reverse_time(x, torch.full((3,), 6)), reverse_time(x))
    assert torch.equal(reverse_time(x, lengths)[4:, 2], x[4:, 2])


# Constructors


@pytest.mark.parametrize("unit", OURS)
def test_constructor_takes_torchs_arguments_in_torchs_order(unit):
    positional = {
        "LSTM": (3, 6, 2, False, True, 0.25, True, 2),
        "GRU": (3, 6, 2, False, True, 0.25, True, 0, "cpu", torch.float64),
        "RNN": (3, 6, 2, "relu", False, True, 0.25, True, 0, "cpu", torch.float64),
    }[unit]
    ours, theirs = OURS[unit](*positional), TORCH[unit](*positional)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, TORCH[unit])
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    call = inspect.signature(TORCH[unit].forward).parameters
    assert list(inspect.signature(OURS[unit].forward).parameters) == list(call)
    torch.manual_seed(0)
    first = OURS[unit](3, 6, dtype=torch.float64, device="cpu")
    torch.manual_seed(0)
    agree(list(first.parameters()), list(TORCH[unit](3, 6, dtype=torch.float64).parameters()), 0)


@pytest.mark.parametrize("unit", OURS)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"input_size": 0}, ValueError, r"input_size must be at least 1, got 0 \(int\)"),
        ({"input_size": "3"}, TypeError, r"input_size must be an int, got '3' \(str\)"),
        ({"hidden_size": -1}, ValueError, "hidden_size must be at least 1, got -1"),
        ({"hidden_size": 4.0}, TypeError, r"hidden_size must be an int, got 4.0 \(float\)"),
        ({"num_layers": 0}, ValueError, "num_layers must be at least 1, got 0"),
        ({"num_layers": "two"}, TypeError, "num_layers must be an int, got 'two'"),
        ({"num_layers": True}, TypeError, "num_layers must be an int, got True"),
        ({"bias": 1}, TypeError, r"bias must be True or False, got 1 \(int\)"),
        ({"batch_first": "yes"}, TypeError, "batch_first must be True or False, got 'yes'"),
        ({"bidirectional": 2}, TypeError, "bidirectional must be True or False, got 2"),
        ({"dropout": 1.5}, ValueError, "dropout must be a number from 0 to 1, got 1.5"),
        ({"dropout": float("nan")}, ValueError, "dropout must be a number from 0 to 1, got nan"),
        ({"dropout": "half"}, TypeError, "dropout must be a number from 0 to 1, got 'half'"),
        ({"dropout": None}, TypeError, "dropout must be a number from 0 to 1, got None"),
        ({"dtype": torch.int64}, ValueError, "dtype must be a floating-point type, got torch.int64"),
        ({"dtype": "float32"}, TypeError, "dtype must be a torch.dtype, got 'float32'"),
        ({"peehole": True}, TypeError, "peehole"),
        ({"device": "quantum"}, RuntimeError, "quantum"),
    ],
)
def test_bad_options_are_named(unit, bad, error, message):
    with pytest.raises(error, match=message):
        OURS[unit](**{"input_size": 3, "hidden_size": 4, **bad})


def test_bad_options_of_one_unit_are_named():
    with pytest.raises(ValueError, match="proj_size must be smaller than hidden_size = 4, got 4"):
        LSTM(3, 4, proj_size=4)
    with pytest.raises(ValueError, match="proj_size must be at least 0, got -1"):
        LSTM(3, 4, proj_size=-1)
    with pytest.raises(ValueError, match="nonlinearity must be 'tanh' or 'relu', got 'gelu'"):
        RNN(3, 4, nonlinearity="gelu")
    for unit in (GRU, RNN):
        with pytest.raises(ValueError, match="proj_size must be 0 for a GRU or an RNN"):
            unit(3, 4, proj_size=2)


# Calls

h, c = torch.zeros(4, 2, 2), torch.zeros(4, 2, 4)


@pytest.mark.parametrize(
    ("x", "hx", "error", "message"),
    [
        ([[1.0, 2.0, 3.0]], None, TypeError, "input must be a Tensor or a PackedSequence, got list"),
        (torch.zeros(3), None, ValueError, r"unbatched \(seq_len, 3\) or packed; got shape \(3,\)"),
        (torch.zeros(1, 5, 2, 3), None, ValueError, r"got shape \(1, 5, 2, 3\)"),
        (torch.zeros(5, 2, 4), None, ValueError, r"input must be \(seq_len, batch, 3\), .* got shape \(5, 2, 4\)"),
        (torch.zeros(5, 4), None, ValueError, r"got shape \(5, 4\)"),
        (torch.zeros(0, 2, 3), None, ValueError, r"at least one time step, got shape \(0, 2, 3\)"),
        (torch.zeros(0, 3), None, ValueError, r"at least one time step, got shape \(0, 3\)"),
        (torch.zeros(5, 2, 3).double(), None, ValueError, "input must be torch.float32 .* got torch.float64"),
        (torch.zeros(5, 2, 3).long(), None, ValueError, "input must be torch.float32 .* got torch.int64"),
        (torch.zeros(5, 2, 3, device="meta"), None, ValueError, "input must be on cpu as the layer is, got meta"),
        (pack_sequence([torch.zeros(5, 4)]), None, ValueError, r"got packed data of shape \(5, 4\)"),
        (pack_sequence([torch.zeros(5)]), None, ValueError, r"got packed data of shape \(5,\)"),
        (pack_sequence([torch.zeros(5, 3).double()]), None, ValueError, "input must be torch.float32"),
        (torch.zeros(5, 2, 3), h, TypeError, r"hx must be a tuple \(h_0, c_0\) of Tensors, got Tensor"),
        (torch.zeros(5, 2, 3), (h,), TypeError, r"got tuple of 1: \(Tensor\)"),
        (torch.zeros(5, 2, 3), (h, c, c), TypeError, r"got tuple of 3"),
        (torch.zeros(5, 2, 3), (h, None), TypeError, r"got tuple of 2: \(Tensor, NoneType\)"),
        (torch.zeros(5, 2, 3), (c, h), ValueError, r"h_0 must be .* = \(4, 2, 2\), got \(4, 2, 4\)"),
        (torch.zeros(5, 2, 3), (h, h), ValueError, r"c_0 must be .* = \(4, 2, 4\), got \(4, 2, 2\)"),
        (torch.zeros(5, 3, 3), (h, c), ValueError, r"h_0 must be .*batch.* = \(4, 3, 2\), got \(4, 2, 2\)"),
        (torch.zeros(5, 3), (h, c), ValueError, r"h_0 must be .* = \(4, 2\), got \(4, 2, 2\)"),
        (torch.zeros(5, 2, 3), (h[:, 0], c[:, 0]), ValueError, r"h_0 must be .* = \(4, 2, 2\), got \(4, 2\)"),
        (pack_sequence([torch.zeros(5, 3)] * 3), (h, c), ValueError, r"= \(4, 3, 2\), got \(4, 2, 2\)"),
        (torch.zeros(5, 2, 3), (h, c.double()), ValueError, "c_0 must be torch.float32 as input is, got torch"),
        (torch.zeros(5, 2, 3), (h.to("meta"), c), ValueError, "h_0 must be on cpu as input is, got meta"),
    ],
)
def test_bad_calls_are_named(x, hx, error, message):
    layer = LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    for call in (lambda: layer(x, hx), lambda: run(cells.LSTM(), layer, x, hx)):
        with pytest.raises(error, match=message) as caught:
            call()
        assert isinstance(caught.value, RuntimeError)  # which torch.nn's layers raise


def test_bad_calls_of_one_state_and_batch_first_are_named():
    for layer in (GRU(3, 4, batch_first=True), RNN(3, 4, batch_first=True)):
        with pytest.raises(TypeError, match=r"hx must be a Tensor, got tuple of 2: \(Tensor, Tensor\)"):
            layer(torch.zeros(2, 5, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
        with pytest.raises(ValueError, match=r"= \(1, 2, 4\), got \(2, 1, 4\) \(batch_first does not apply"):
            layer(torch.zeros(2, 5, 3), torch.zeros(2, 1, 4))
        with pytest.raises(ValueError, match=r"input must be \(batch, seq_len, 3\), .* got shape \(2, 3, 5\)"):
            layer(torch.zeros(2, 3, 5))
        with pytest.raises(ValueError, match=r"seq_len is 0"):
            layer(torch.zeros(2, 0, 3))


def test_hx_may_be_a_list_as_in_torch():
    layer, x, hx = LSTM(3, 4), torch.randn(5, 2, 3), [torch.randn(1, 2, 4), torch.randn(1, 2, 4)]
    agree(flat(*layer(x, hx)), flat(*layer(x, tuple(hx))), 0)


# Everything around PyTorch's layers still works


@pytest.mark.parametrize("unit", OURS)
def test_copies_and_pickles(unit):
    layer, x = OURS[unit](3, 4), torch.randn(5, 2, 3)
    for other in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is OURS[unit]
        agree(flat(*other(x)), flat(*layer(x)), 0)


@pytest.mark.parametrize("unit", OURS)
def test_autocast_takes_what_torchs_layer_takes(unit):
    layer = OURS[unit](3, 4)
    plain = TORCH[unit](3, 4)
    plain.load_state_dict(layer.state_dict())
    states = tuple(torch.randn(1, 2, size) for size in cells.of(layer).sizes(layer))
    hx = states if len(states) > 1 else states[0]
    if unit == "LSTM" and not notebook.has_bf16_kernel():
        pytest.skip("PyTorch's LSTM kernel takes no bfloat16 on this CPU")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for x in (torch.randn(5, 2, 3), torch.randn(5, 2, 3, dtype=torch.bfloat16)):
            agree(flat(*layer(x, hx)), flat(*plain(x, hx)), 0)
            ours = run(cells.of(layer), layer, x, hx)[0]
            torch.testing.assert_close(ours.float(), layer(x, hx)[0].float(), rtol=0, atol=0.03)
        with pytest.raises(ValueError, match=r"input must be torch\.float32"):
            layer(torch.zeros(5, 2, 3, dtype=torch.int64))


class Model(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.parametrize("unit", OURS)
def test_compile_export_and_functional_call(unit):
    model, x = Model(OURS[unit](3, 4, batch_first=True)), torch.randn(2, 5, 3)
    expected = model(x)
    agree([torch.compile(model, backend="eager")(x)], [expected], 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's layers warn of their own list of weights
        exported = torch.export.export(model, (x,))
    agree([exported.module()(x)], [expected], 1e-6)
    doubled = {name: 2 * value for name, value in model.named_parameters()}
    other = Model(TORCH[unit](3, 4, batch_first=True))
    ours, theirs = (torch.func.functional_call(m, doubled, (x,)) for m in (model, other))
    agree([ours], [theirs], 1e-6)


@pytest.mark.parametrize("unit", OURS)
def test_torchscript(unit):
    model, x = Model(OURS[unit](3, 4)), torch.randn(5, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript itself is deprecated
        scripted = torch.jit.script(model)
        traced = torch.jit.trace(model, x)
    agree([scripted(x), traced(x)], [model(x), model(x)], 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("unit", OURS)
def test_run_equals_the_layer_on_a_gpu(unit):
    layer = OURS[unit](3, 4, num_layers=2, bidirectional=True, dtype=torch.float64, device="cuda")
    sequences = [torch.randn(n, 3, dtype=torch.float64, device="cuda") for n in (3, 6, 1)]
    x = pack_sequence(sequences, enforce_sorted=False)
    out, _ = layer(x)
    ours, _, _ = run(cells.of(layer), layer, x)
    agree([pad_packed_sequence(ours)[0]], [pad_packed_sequence(out)[0]], 1e-10)
    with pytest.raises(ValueError, match="input must be on cuda:0 as the layer is, got cpu"):
        layer(torch.zeros(5, 2, 3, dtype=torch.float64))


def test_the_check_computes_nothing():
    """A timing would be flaky; but a check that makes no tensor costs microseconds."""
    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    hx = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))

    class Counter(torch.utils._python_dispatch.TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Counter.calls += 1
            return func(*args, **(kwargs or {}))

    with Counter():
        check_call(cells.LSTM(), layer, x, hx)
    assert Counter.calls == 0


# Ended sequences: what would come of their padding reaches neither result nor gradient


@pytest.mark.parametrize("way", ["run", "layer"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("unit", "options"),
    [
        ("RNN", {"nonlinearity": "relu"}),
        ("LSTM", {"without": {"input_activation", "output_activation"}}),
        ("LSTM", {"without": {"input_activation", "output_activation", "forget"}, "peephole": True}),
    ],
    ids=["relu", "linear LSTM", "with peepholes"],
)
def test_an_ended_sequence_is_left_where_it_is(unit, options, reverse, way):
    """Its state would overflow on the padding, and zero times infinity is no number; each alone is the oracle."""
    torch.manual_seed(0)
    layer = OURS[unit](1, 2, bias=False, bidirectional=reverse, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(3.0)
    # The long one stays at zero: its gates, or its relu, are shut. The short one stops before it explodes.
    sequences = [torch.full((400, 1), -50.0), torch.ones(1, 1)]

    def call(x):
        return run(cells.of(layer), layer, x)[:2] if way == "run" else layer(x)

    out, state = call(pack_sequence(sequences))
    alone = [call(sequence) for sequence in sequences]
    agree([pad_packed_sequence(out)[0][:1, 1]], [alone[1][0]], 1e-6)
    total = sum(s.sum() for s in flat(out, state) if s.is_floating_point())
    expected = sum(s.sum() for one in alone for s in flat(*one))
    assert torch.isfinite(total)
    parameters = list(layer.parameters())
    ours, theirs = (
        torch.autograd.grad(t, parameters, allow_unused=True, materialize_grads=True) for t in (total, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@example([1, 1, 7, 7, 6, 7], True, False, 6964)  # gradients of 2,000, in which rounding is 3e-7
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.booleans(), st.booleans(), st.integers(0, 2**20))
def test_a_packed_batch_is_each_sequence_alone_gradients_too(lengths, reverse, blind, seed):
    """In one sweep over the padding, and piece by piece, as where values cannot be looked at."""
    torch.manual_seed(seed)
    layer = LSTM(2, 3, num_layers=2, bidirectional=reverse, peephole=True, layer_norm=True, dtype=torch.float64)
    sequences = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in lengths]
    rows = layer.num_layers * (1 + reverse)
    hx = [torch.randn(rows, len(lengths), 3, dtype=torch.float64, requires_grad=True) for _ in "hc"]
    leaves = [*sequences, *hx, *layer.parameters()]

    def one_by_one():
        alone = [layer(x, tuple(s[:, k] for s in hx)) for k, x in enumerate(sequences)]
        loss = sum((s * s.detach().cos()).sum() for own, state in alone for s in (own, *state))
        return [value for own, state in alone for value in (own, *state)], torch.autograd.grad(loss, leaves)

    with patch("lstm_lib.unroll.transforms", lambda: ["Vmap"] * blind):
        out, (h_n, c_n) = layer(pack_sequence(sequences, enforce_sorted=False), tuple(hx))
    loss = sum((s * s.detach().cos()).sum() for s in (out.data, h_n, c_n))
    padded = pad_packed_sequence(out)[0]
    together = [v for k, n in enumerate(lengths) for v in (padded[:n, k], h_n[:, k], c_n[:, k])]
    grads = torch.autograd.grad(loss, leaves)
    alone, expected = one_by_one()
    with torch.no_grad():
        for x in sequences:
            x.mul_(1 + 2**-52)
    alone_nudged, nudged = one_by_one()
    agree(together, alone, 1e-10, alone_nudged)
    agree(grads, expected, 1e-10, nudged)


@pytest.mark.parametrize(
    ("h_rows", "c_rows", "message"),
    [((2, 2), (1, 2), "h_0"), ((1, 2), (1, 1), "c_0"), ((1, 2), (2, 2), "c_0"), ((1, 3), (1, 3), "h_0")],
    ids=["rows of h_0", "batch of c_0", "rows of c_0", "one sequence too many"],
)
@pytest.mark.parametrize("options", [{}, {"peephole": True}], ids=["plain", "variant"])
def test_a_wrong_state_of_a_packed_batch_is_refused(options, h_rows, c_rows, message):
    """PyTorch's own layer lets some of them pass in silence, and others crash it."""
    layer, x = LSTM(3, 5, **options), pack_sequence([torch.randn(n, 3) for n in (3, 7)], enforce_sorted=False)
    with pytest.raises(ValueError, match=f"hx: {message} must be .* = \\(1, 2, 5\\)"):
        layer(x, (torch.zeros(*h_rows, 5), torch.zeros(*c_rows, 5)))
    with pytest.raises(ValueError, match=r"hx: c_0 must be torch\.float32 as input is, got torch\.float16"):
        layer(x, (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5).half()))


def test_a_stacked_state_goes_where_a_tuple_goes():
    for layer in (LSTM(3, 5), LSTM(3, 5, coupled=True)):
        x, hx = torch.randn(4, 2, 3), torch.randn(2, 1, 2, 5)
        agree(flat(*layer(x, hx)), flat(*layer(x, tuple(hx))), 0)
        with pytest.raises(TypeError, match="hx must be a tuple"):
            layer(x, torch.tensor(0.0))

"""The fused sweep against PyTorch's kernels and autograd: values, gradients, replicas, precision, compiler."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from lstm_lib import cells, fused
from lstm_lib.recurrent import GRU, LSTM, RNN, run

F64 = {"dtype": torch.float64}
UNITS = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "LSTM without bias": (nn.LSTM, {"bias": False}),
    "GRU without bias": (nn.GRU, {"bias": False}),
}
VARIANTS = [
    {"peephole": True},
    {"coupled": True},
    {"layer_norm": True},
    {"without": {"input"}},
    {"without": {"forget"}},
    {"without": {"output", "input_activation"}},
    {"without": {"output_activation"}},
    {"zoneout": (0.3, 0.2)},
    {"variational_dropout": 0.3},
    {"weight_drop": 0.3},
    {"peephole": True, "coupled": True},
    {"peephole": True, "layer_norm": True, "zoneout": (0.3, 0.2), "variational_dropout": 0.2},
]


def sweep(layer, x, state, **options):
    cell = cells.of(layer)
    return fused.sweep(cell, cell.weights(layer), x, state, **options)


def gradients(output, *inputs):
    torch.manual_seed(3)
    return torch.autograd.grad(output, inputs, torch.randn_like(output))


def assert_close(ours, theirs, tolerance=1e-10):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seq_len", [1, 2, 13])
@pytest.mark.parametrize("block", [1, 1000, 1 << 20])  # one step at a time, a few, all at once
@pytest.mark.parametrize("unit", UNITS)
def test_values_and_gradients_are_those_of_pytorch(unit, block, seq_len, monkeypatch):
    monkeypatch.setattr(fused, "BLOCK", block)
    torch.manual_seed(0)
    kind, options = UNITS[unit]
    layer = kind(3, 4, **options, **F64)
    x = torch.randn(seq_len, 2, 3, **F64, requires_grad=True)
    state = [torch.randn(2, 4, **F64, requires_grad=True) for _ in cells.of(layer).states]
    steps = sweep(layer, x, state)
    hx = tuple(s.unsqueeze(0) for s in state)
    out, last = layer(x, hx if kind is nn.LSTM else hx[0])
    ours, theirs = steps["h"], out
    if kind is nn.LSTM:  # both outputs at once, so that gradients come from h and from the last c
        ours = torch.cat([ours, steps["c"][-1:]])
        theirs = torch.cat([theirs, last[1]])
    inputs = (x, *state, *layer.parameters())
    assert_close([ours], [theirs])
    assert_close(gradients(ours, *inputs), gradients(theirs, *inputs))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradcheck_of_every_variant(options, monkeypatch):
    monkeypatch.setattr(fused, "BLOCK", 500)
    torch.manual_seed(0)
    layer = LSTM(2, 3, **options, **F64)
    names, values = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(4, 2, 2, **F64, requires_grad=True)
    state = tuple(torch.randn(1, 2, 3, **F64, requires_grad=True) for _ in "hc")

    def function(x, h, c, *values):
        torch.manual_seed(1)  # the same masks at every call
        out, (_, c_n) = functional_call(layer, dict(zip(names, values, strict=True)), (x, (h, c)))
        return out, c_n

    assert torch.autograd.gradcheck(function, (x, *state, *values))


@pytest.mark.parametrize(
    "build",
    [*(lambda options=options: LSTM(3, 4, **options, **F64) for options in [{}, *VARIANTS]),
     lambda: LSTM(3, 4, num_layers=2, bidirectional=True, **F64),
     lambda: GRU(3, 4, **F64),
     lambda: RNN(3, 4, **F64),
     lambda: RNN(3, 4, nonlinearity="relu", bias=False, **F64)],
)  # fmt: skip
def test_replicas_get_what_each_gets_alone(build, monkeypatch):
    monkeypatch.setattr(fused, "BLOCK", 2000)
    torch.manual_seed(0)
    layers = [build().eval() for _ in range(3)]
    stacked, _ = stack_module_state(layers)
    skeleton = copy.deepcopy(layers[0]).to("meta")
    x = torch.randn(3, 7, 2, 3, **F64)
    out = vmap(lambda parameters, x: functional_call(skeleton, parameters, (x,))[0])(stacked, x)
    grads = gradients(out, *stacked.values())
    torch.manual_seed(3)
    weights = torch.randn_like(out)
    for k, layer in enumerate(layers):
        alone, _, _ = run(cells.of(layer), layer, x[k])  # the readable loop, by autograd
        assert_close([out[k]], [alone])
        # A coupled input gate's peephole is there and not read.
        theirs = torch.autograd.grad(alone, list(layer.parameters()), weights[k], materialize_grads=True)
        assert_close([g[k] for g in grads], theirs)


def test_replicas_draw_their_own_masks():
    layer = LSTM(3, 4, variational_dropout=0.5, zoneout=(0.5, 0.5))
    x = torch.randn(7, 2, 3)
    out = vmap(lambda _: layer(x)[0], randomness="different")(torch.zeros(3))
    assert not torch.allclose(out[0], out[1])


def test_vmap_within_vmap_is_refused():
    layer, x = LSTM(3, 4, peephole=True), torch.randn(2, 2, 7, 2, 3)
    with pytest.raises(NotImplementedError, match="one dimension of replicas"):
        vmap(vmap(lambda x: layer(x)[0]))(x)


def test_nothing_is_saved_without_gradients(monkeypatch):
    monkeypatch.setattr(fused, "BLOCK", 1)
    layer, x = nn.LSTM(3, 4), torch.randn(50, 2, 3)
    zeros = (torch.zeros(2, 4), torch.zeros(2, 4))
    shapes = []
    apply = fused._Sweep.apply
    monkeypatch.setattr(fused._Sweep, "apply", lambda *a: shapes.append((out := apply(*a))[-1].shape) or out)
    with torch.no_grad():
        steps = sweep(layer, x, zeros)
    assert shapes == [(1, 2, 16)]  # one step's gates, written over at each step
    assert steps["h"].grad_fn is None
    sweep(layer, x, zeros)
    assert shapes[1] == (50, 2, 16)


def test_gates_carry_no_gradient_and_are_those_of_the_loop():
    layer, x = LSTM(3, 4, peephole=True, **F64), torch.randn(6, 2, 3, **F64)
    zeros = (torch.zeros(2, 4, **F64), torch.zeros(2, 4, **F64))
    steps = sweep(layer, x, zeros, keep_gates=True)
    assert not any(steps[gate].requires_grad for gate in "ifgo")
    _, _, loop = run(cells.of(layer), layer, x)
    assert_close([steps[name] for name in "ifgohc"], [loop[name][0, 0] for name in "ifgohc"])


def test_a_second_derivative_is_refused():
    layer, x = LSTM(3, 4, coupled=True), torch.randn(6, 2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("options", [{"peephole": True}, {"layer_norm": True}, {"zoneout": (0.2, 0.2)}], ids=str)
def test_autocast(options):
    torch.manual_seed(0)
    layer, x = LSTM(8, 16, **options).eval(), torch.randn(20, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)[0]
        out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert layer.weight_hh_l0.grad.dtype == torch.float32
    error = (out.float() - layer(x)[0]).abs()
    assert error.mean() < 2**-8  # bfloat16 keeps 8 bits
    assert error.max() < 0.15


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("options", [{"peephole": True}, {"layer_norm": True}, {"residual": True}], ids=str)
def test_inside_a_compiled_model(backend, options):
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer, x = LSTM(4, 4, **options), torch.randn(5, 2, 4)
    model = nn.Sequential(nn.Linear(4, 4), layer)
    ours, theirs = torch.compile(model, backend=backend)(x)[0], model(x)[0]
    assert_close([ours], [theirs], 1e-6)
    parameters = list(layer.parameters())
    assert_close(gradients(ours, *parameters), gradients(theirs, *parameters), 1e-5)


def test_what_it_does_not_know_is_refused():
    zeros = (torch.zeros(2, 2), torch.zeros(2, 4))
    with pytest.raises(TypeError, match="proj_size"):
        sweep(nn.LSTM(3, 4, proj_size=2), torch.randn(5, 2, 3), zeros)
    cell = cells.LSTM()
    with pytest.raises(TypeError, match="cell must be an LSTM, a GRU or an RNN, got Cell"):
        fused.sweep(cells.Cell(), cell.weights(nn.LSTM(3, 4)), torch.randn(5, 2, 3), zeros)

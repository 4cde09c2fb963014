"""The two scans and the layers on them, against loops written from the paper's equations."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from lstm_lib.scan import MinGRU, MinLSTM, scan

F64 = {"dtype": torch.float64}
WAYS = ["sequential", "parallel"]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def by_hand(layer, x, h):
    """Feng et al. 2024, sections 3.1 and 3.2, in double precision."""
    weight, bias = layer.weight_ih_l0.detach().double().numpy(), 0.0
    if layer.bias_ih_l0 is not None:
        bias = layer.bias_ih_l0.detach().double().numpy()
    out = []
    for x_t in x:
        a = np.split(x_t @ weight.T + bias, len(weight) // layer.hidden_size, -1)
        if isinstance(layer, MinGRU):
            z = sigmoid(a[0])
            h = (1 - z) * h + z * a[1]
        else:
            i, f = sigmoid(a[0]), sigmoid(a[1])
            h = f / (f + i) * h + i / (f + i) * a[2]
        out.append(h)
    return np.stack(out)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.lists(st.integers(1, 4), max_size=2), st.sampled_from(WAYS))
def test_scan_is_the_loop(seq_len, shape, mode):
    a, b, h = torch.rand(seq_len, *shape, **F64), torch.randn(seq_len, *shape, **F64), torch.randn(shape, **F64)
    ours = scan(a, b, h, mode)
    for t in range(seq_len):
        h = a[t] * h + b[t]
        torch.testing.assert_close(ours[t], h)


@pytest.mark.parametrize("seq_len", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("mode", WAYS)
def test_scan_gradient(seq_len, mode):
    shapes = [(seq_len, 2), (seq_len, 2), (2,)]
    inputs = [torch.randn(shape, **F64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *inputs: scan(*inputs, mode), inputs)


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
@pytest.mark.parametrize("seq_len", [1, 63, 4096])
def test_both_ways_are_the_equations_in_single_precision(kind, seq_len):
    torch.manual_seed(0)
    layer, x, h = kind(3, 5), torch.randn(seq_len, 2, 3), torch.randn(1, 2, 5)
    expected = torch.from_numpy(by_hand(layer, x.double().numpy(), h[0].double().numpy()))
    for mode in (*WAYS, "auto"):
        layer.mode = mode
        out, h_n = layer(x, h)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-5)
        assert torch.equal(h_n[0], out[-1])


def test_gradients_of_both_ways_agree_over_4096_steps():
    torch.manual_seed(0)
    layer, x = MinLSTM(3, 5), torch.randn(4096, 2, 3)
    grads = []
    for layer.mode in WAYS:
        loss = layer(x)[0].square().mean()
        grads.append(torch.autograd.grad(loss, list(layer.parameters())))
    for sequential, parallel in zip(*grads, strict=True):
        torch.testing.assert_close(sequential, parallel, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
@pytest.mark.parametrize("mode", WAYS)
def test_batch_first_unbatched_bias_and_hx(kind, mode):
    layer = kind(3, 5, bias=False, batch_first=True, mode=mode).double()
    x, h = torch.randn(2, 7, 3, **F64), torch.randn(1, 2, 5, **F64)
    expected = torch.from_numpy(by_hand(layer, x.transpose(0, 1).numpy(), h[0].numpy()))
    torch.testing.assert_close(layer(x, h)[0], expected.transpose(0, 1))
    out, h_n = layer(x[0], h[:, 0])
    torch.testing.assert_close(out, expected[:, 0])
    torch.testing.assert_close(h_n, expected[-1:, 0])


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
@pytest.mark.parametrize("mode", WAYS)
def test_replicas_get_what_each_gets_alone(kind, mode):
    layers = [kind(3, 5, mode=mode).double() for _ in range(3)]
    stacked, _ = stack_module_state(layers)
    skeleton = copy.deepcopy(layers[0]).to("meta")
    x, weights = torch.randn(3, 9, 2, 3, **F64), torch.randn(3, 9, 2, 5, **F64)
    out = vmap(lambda parameters, x: functional_call(skeleton, parameters, (x,))[0])(stacked, x)
    grads = torch.autograd.grad(out, list(stacked.values()), weights)
    for k, layer in enumerate(layers):
        alone = layer(x[k])[0]
        torch.testing.assert_close(out[k], alone)
        own = torch.autograd.grad(alone, list(layer.parameters()), weights[k])
        for ours, theirs in zip(grads, own, strict=True):
            torch.testing.assert_close(ours[k], theirs)


def test_closed_gates_are_no_nan():
    layer = MinLSTM(1, 1)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor([[-1.0], [-1.0], [1e-3]]))
        layer.bias_ih_l0.zero_()
    x = torch.full((3, 1, 1), 1000.0, requires_grad=True)  # σ(−1000) is 0, and f / (f + i) would be 0 / 0
    out, _ = layer(x)
    out.sum().backward()
    torch.testing.assert_close(out.flatten(), torch.tensor([0.5, 0.75, 0.875]))
    assert torch.isfinite(x.grad).all()


def test_a_layer_learns_and_keeps_its_precision_under_autocast():
    layer, x = nn.Sequential(MinGRU(2, 4)), torch.randn(9, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = layer(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(x)[0], rtol=0, atol=0.03)
    with torch.no_grad():
        assert layer(x)[0].grad_fn is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3, 2), torch.ones(3, 1), torch.ones(2)), r"\(3, 2\), \(3, 1\), \(2,\)"),
        ((torch.ones(0, 2), torch.ones(0, 2), torch.ones(2)), "seq_len at least 1"),
        ((torch.ones(3, 2), torch.ones(3, 2), torch.ones(3)), "a, b and h_0 must be"),
        ((torch.ones(3), torch.ones(3), torch.tensor(0.0), "log"), "mode must be one of .* got 'log'"),
    ],
)
def test_scan_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        scan(*arguments)


def test_layers_refuse():
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        MinGRU(3, 0)
    with pytest.raises(ValueError, match="mode must be one of"):
        MinLSTM(3, 4, mode="fast")
    layer = MinLSTM(3, 4)
    with pytest.raises(ValueError, match=r"input must be \(seq_len, batch, 3\)"):
        layer(torch.ones(5, 2, 4))
    with pytest.raises(ValueError, match="at least one time step"):
        layer(torch.ones(0, 2, 3))
    with pytest.raises(ValueError, match="h_0 must be"):
        layer(torch.ones(5, 2, 3), torch.ones(2, 4))
    with pytest.raises(TypeError, match="input must be a Tensor, got list"):
        layer([1.0])

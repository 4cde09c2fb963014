"""The two scans and the layers on them, against loops written from the paper's equations."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

from lstm_lib.scan import MinGRU, MinLSTM, scan

F64 = {"dtype": torch.float64}
WAYS = ["sequential", "parallel"]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def loop(a, b, h, mode=None):
    """The equation, which PyTorch differentiates by itself."""
    out = []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        out.append(h)
    return torch.stack(out)


def drawn(seq_len, *shape, dtype=torch.float64):
    """a, b and h_0."""
    return [torch.randn(*size, dtype=dtype) for size in ((seq_len, *shape), (seq_len, *shape), shape)]


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("seq_len", [1, 2, 3, 13])
@pytest.mark.parametrize("mode", WAYS)
def test_first_and_second_derivatives_are_those_of_finite_differences(seq_len, mode, dtype):
    inputs = [t.requires_grad_() for t in drawn(seq_len, 2, dtype=dtype)]

    def f(*inputs):
        return scan(*inputs, mode)

    assert torch.autograd.gradcheck(f, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(f, inputs, check_fwd_over_rev=True, fast_mode=seq_len == 13)


@pytest.mark.parametrize("mode", WAYS)
def test_a_second_derivative_is_kept_where_the_incoming_gradient_has_none(mode):
    inputs = [t.requires_grad_() for t in drawn(5, 2)]
    weights = [torch.randn_like(t) for t in inputs]
    seconds = []
    for f in (scan, loop):
        first = torch.autograd.grad(f(*inputs, mode).sum(), inputs, create_graph=True)
        assert first[0].requires_grad
        weighted = sum((g * w).sum() for g, w in zip(first, weights, strict=True))
        seconds.append(torch.autograd.grad(weighted, inputs, materialize_grads=True))
    torch.testing.assert_close(*seconds)


@pytest.mark.parametrize("mode", WAYS)
def test_third_derivative(mode):
    """Along a line h_3 is a polynomial of degree 4, whose third differences are exact."""
    point, line = drawn(3, 2), drawn(3, 2)

    def at(s):
        return scan(*(p + s * d for p, d in zip(point, line, strict=True)), mode)[-1].sum()

    s = torch.tensor(0.0, **F64, requires_grad=True)
    derivative = at(s)
    for _ in range(3):
        (derivative,) = torch.autograd.grad(derivative, s, create_graph=True)
    torch.testing.assert_close(derivative, (at(1) - 2 * at(0.5) + 2 * at(-0.5) - at(-1)) / (2 * 0.5**3))


ALL = (0, 1, 2)
TRANSFORMS = {
    "jvp": lambda f, x: jvp(f, x, tuple(map(torch.cos, x))),
    "jacfwd": lambda f, x: jacfwd(f, ALL)(*x),
    "jacrev": lambda f, x: jacrev(f, ALL)(*x),
    "hessian": lambda f, x: hessian(f, ALL)(*x),
    "jacrev of jacrev": lambda f, x: jacrev(jacrev(f, ALL), ALL)(*x),
    "jacrev of jacfwd": lambda f, x: jacrev(jacfwd(f, ALL), ALL)(*x),
    "jacfwd of jacfwd": lambda f, x: jacfwd(jacfwd(f, ALL), ALL)(*x),
    "jvp of jvp of jvp": lambda f, x: jvp(
        lambda *y: jvp(lambda *z: jvp(f, z, x)[1], y, x)[1], x, tuple(map(torch.cos, x))
    ),
    "per-sample gradients": lambda f, x: vmap(grad(lambda *y: f(*y).square().sum(), ALL), (1, 1, 0))(*x),
    "a shared": lambda f, x: vmap(f, (None, 1, 0))(x[0][:, 0], *x[1:]),
    "only a": lambda f, x: vmap(f, (1, None, None), 1)(x[0], x[1][:, 0], x[2][0]),
    "gradient of vmap": lambda f, x: grad(lambda *y: vmap(f, (1, 1, 0))(*y).square().sum(), ALL)(*x),
    "vmap of vmap": lambda f, x: vmap(vmap(f, (1, 1, 0)), (2, 2, 1), 2)(*x),
    "vmap of hessian": lambda f, x: vmap(hessian(lambda *y: f(*y).square().sum(), ALL), (1, 1, 0))(*x),
    "vmap of jvp": lambda f, x: vmap(lambda *y: jvp(f, y, tuple(map(torch.cos, y))), (1, 1, 0))(*x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("mode", WAYS)
def test_transforms_are_those_of_the_loop(name, mode):
    x = tuple(drawn(5, 2, 3))
    ours, theirs = (TRANSFORMS[name](lambda *y, f=f: f(*y, mode), x) for f in (scan, loop))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", WAYS)
def test_batched_gradients(mode):
    inputs = [t.requires_grad_() for t in drawn(6, 2)]
    rows = torch.eye(12, **F64).view(12, 6, 2)
    ours, theirs = (
        torch.autograd.grad(f(*inputs, mode), inputs, rows, is_grads_batched=True) for f in (scan, loop)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", WAYS)
def test_forward_mode_through_a_graph_that_was_recorded_before(mode):
    inputs = [t.requires_grad_() for t in drawn(6, 2)]
    out, weight, tangent = scan(*inputs, mode), *torch.randn(2, 6, 2, **F64)
    with forward_ad.dual_level():
        grads = torch.autograd.grad(out, inputs, forward_ad.make_dual(weight, tangent))
        ours = [forward_ad.unpack_dual(g).tangent for g in grads]
    torch.testing.assert_close(ours, list(torch.autograd.grad(loop(*inputs), inputs, tangent)))


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
@pytest.mark.parametrize("mode", WAYS)
def test_layers_under_transforms(kind, mode, monkeypatch):
    layer, x, h0 = kind(2, 3, mode=mode).double(), torch.randn(5, 4, 2, **F64), torch.randn(1, 4, 3, **F64)
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(weights, x, h0):
        return functional_call(layer, weights, (x, h0))[0].square().sum()

    def transformed():
        return vmap(grad(loss), (None, 1, 1))(weights, x, h0), hessian(loss)(weights, x, h0)

    ours = transformed()
    monkeypatch.setattr("lstm_lib.scan.scan", loop)
    torch.testing.assert_close(ours, transformed())


@pytest.mark.parametrize("mode", WAYS)
def test_derivatives_over_4096_steps_in_single_precision(mode):
    torch.manual_seed(0)
    inputs = [torch.sigmoid(torch.randn(4096, 3)), torch.randn(4096, 3), torch.randn(3)]
    line = [torch.randn_like(t) for t in inputs]

    def derivatives(f, dtype):
        x = [t.to(dtype).requires_grad_() for t in inputs]
        out = f(*x, mode)
        first = torch.autograd.grad(out.square().mean(0).sum(), x, create_graph=True)
        along = sum((g * d.to(dtype)).sum() for g, d in zip(first, line, strict=True))
        return [out, *first, *torch.autograd.grad(along, x)]

    for ours, theirs in zip(derivatives(scan, torch.float32), derivatives(loop, torch.float64), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("future", [1e3, float("nan"), float("inf")])
def test_the_future_changes_no_bit_of_the_past(mode, future):
    a, b, h_0 = drawn(13, 2)
    layers = [kind(3, 5, mode=mode) for kind in (MinGRU, MinLSTM)]
    x, h0 = torch.randn(13, 2, 3), torch.randn(1, 2, 5)
    out, outs = scan(a, b, h_0, mode), [layer(x, h0)[0] for layer in layers]
    for t in range(13):
        later = torch.arange(13)[:, None] >= t
        assert torch.equal(
            scan(a.masked_fill(later, future), b.masked_fill(later, future), h_0, mode)[:t], out[:t]
        )
        for layer, was in zip(layers, outs, strict=True):
            assert torch.equal(layer(x.masked_fill(later[..., None], future), h0)[0][:t], was[:t])
    jacobian = jacrev(scan, 1)(a, b, h_0, mode)  # (13, 2, 13, 2)
    assert (torch.triu(jacobian[:, 0, :, 0], 1) == 0).all()


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("seq_len", [1, 2, 5, 8])
def test_an_empty_batch(mode, seq_len):
    inputs = [t.requires_grad_() for t in drawn(seq_len, 0, 3)]
    out = scan(*inputs, mode)
    assert out.shape == (seq_len, 0, 3)
    assert [g.shape for g in torch.autograd.grad(out.sum(), inputs)] == [t.shape for t in inputs]
    layer, x = MinLSTM(3, 5, mode=mode), torch.ones(seq_len, 0, 3, requires_grad=True)
    for h0 in (None, torch.ones(1, 0, 5)):
        out, h_n = layer(x, h0)
        assert (out.shape, h_n.shape) == ((seq_len, 0, 5), (1, 0, 5))
        assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("mode", WAYS)
def test_any_strides_and_nothing_of_the_callers_changes(mode):
    wide = torch.randn(4, 22, **F64, requires_grad=True)
    row, h = torch.randn(4, **F64, requires_grad=True), torch.randn(1, **F64, requires_grad=True)
    before = [t.detach().clone() for t in (wide, row, h)]
    results = []
    for f in (scan, loop):
        out = f(wide.T[::2], row.expand(11, 4), h.expand(4), mode)
        results.append((out, *torch.autograd.grad(out.square().sum(), (wide, row, h))))
    torch.testing.assert_close(*results)
    assert all(map(torch.equal, (wide, row, h), before))


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
@pytest.mark.parametrize("mode", WAYS)
def test_export_and_compile(kind, mode):
    layer, x, h0 = kind(2, 3, mode=mode), torch.randn(5, 4, 2), torch.randn(1, 4, 3)
    exported = torch.export.export(layer, (x, h0)).module()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(exported(x, h0), layer(x, h0))
    torch.testing.assert_close(compiled(x, h0), layer(x, h0))
    grads = [torch.autograd.grad(f(x, h0)[0].square().sum(), list(layer.parameters())) for f in (compiled, layer)]
    torch.testing.assert_close(*grads)


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


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
def test_arguments_are_in_the_documented_order(kind):
    assert kind(3, 5, True).batch_first
    assert kind(3, 5, True).bias_ih_l0 is not None
    with pytest.raises(TypeError, match="positional"):
        kind(3, 5, True, False)
    layer, x, h0 = kind(3, 5), torch.randn(7, 2, 3), torch.randn(1, 2, 5)
    assert torch.equal(layer(x=x, h0=h0)[0], layer(x, h0)[0])
    meta = kind(3, 5, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in meta.parameters()} == {("meta", torch.float64)}
    assert meta(x.to("meta", torch.float64))[0].shape == (7, 2, 5)
    layer = kind(3, 5, device="cpu", dtype=torch.float64)
    expected = by_hand(layer, x.double().numpy(), h0[0].double().numpy())
    torch.testing.assert_close(layer(x.double(), h0.double())[0], torch.from_numpy(expected))


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


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_keeps_its_precision_under_autocast(kind, mode, dtype):
    layer, x = kind(2, 4, mode=mode, dtype=dtype), torch.randn(9, 3, 2, dtype=dtype)
    for h0 in (None, torch.randn(1, 3, 4, dtype=dtype)):
        with torch.autocast("cpu", torch.bfloat16):
            out, h_n = layer(x, h0)
        assert out.dtype == h_n.dtype == dtype
        assert torch.autograd.grad(out.sum(), layer.weight_ih_l0)[0].dtype == dtype
        error = 0.03 if dtype == torch.float32 else 0
        torch.testing.assert_close(out, layer(x, h0)[0], rtol=0, atol=error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_converts_what_it_can(dtype):
    layer, x, h0 = MinGRU(2, 4, dtype=dtype), torch.randn(9, 3, 2), torch.randn(1, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        if dtype == torch.float32:
            assert layer(x.bfloat16(), h0.half())[0].dtype == dtype
            with pytest.raises(ValueError, match=r"x must be .*float32 as the layer is, got .*float64"):
                layer(x.double())
        else:
            with pytest.raises(ValueError, match=r"x must be .*float64 as the layer is, got .*float32"):
                layer(x)


def test_no_graph_without_gradients():
    with torch.no_grad():
        assert MinGRU(2, 4)(torch.randn(9, 3, 2))[0].grad_fn is None


ones = torch.ones


@pytest.mark.parametrize("mode", ["auto", *WAYS])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (ones(3, 2), ones(3, 1), ones(2)),
            ValueError,
            r"got \(3, 2\) torch.float32 on cpu, \(3, 1\) .*, \(2,\) ",
        ),
        ((ones(0, 2), ones(0, 2), ones(2)), ValueError, "seq_len at least 1"),
        ((ones(3, 2), ones(3, 2), ones(3)), ValueError, "a, b and h_0 must be"),
        ((ones(()), ones(()), ones(())), ValueError, "a, b and h_0 must be"),
        (
            (ones(3, **F64), ones(3), ones(())),
            ValueError,
            "of one real or complex dtype.* torch.float64 .*float32",
        ),
        ((ones(3), ones(3, **F64), ones(())), ValueError, "of one real or complex dtype.* torch.float64"),
        ((ones(3), ones(3), ones((), **F64)), ValueError, r"of one real or complex dtype.* \(\) torch.float64"),
        ((ones(3).int(), ones(3).int(), ones(()).int()), ValueError, "of one real or complex dtype.* torch.int32"),
        (
            (ones(3), ones(3), ones((), device="meta")),
            ValueError,
            r"on one device, got .* \(\) torch.float32 on meta",
        ),
        (([0.5, 0.5], ones(2), ones(())), TypeError, "a must be a Tensor, got list"),
        ((ones(2), ones(2), 0.0), TypeError, "h_0 must be a Tensor, got float"),
    ],
)
def test_scan_refuses(arguments, error, message, mode):
    with pytest.raises(error, match=message):
        scan(*arguments, mode)


def test_an_unknown_mode_is_refused():
    message = "mode must be 'auto', 'sequential' or 'parallel', got"
    with pytest.raises(ValueError, match=f"{message} 'log'"):
        scan(ones(3), ones(3), ones(()), "log")
    with pytest.raises(ValueError, match=f"{message} 'fast'"):
        MinLSTM(3, 4, mode="fast")
    layer = MinGRU(3, 4)
    layer.mode = None
    with pytest.raises(ValueError, match=f"{message} None"):
        layer(ones(5, 2, 3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden_size": 0}, ValueError, "hidden_size must be at least 1, got 0"),
        ({"input_size": 3.0}, TypeError, "input_size must be an int, got 3.0"),
        ({"batch_first": 1}, TypeError, "batch_first must be True or False, got 1"),
        ({"bias": None}, TypeError, "bias must be True or False, got None"),
        ({"dtype": "float32"}, TypeError, "dtype must be a torch.dtype, got 'float32'"),
        ({"dtype": torch.int64}, ValueError, "dtype must be a floating-point type, got torch.int64"),
    ],
)
def test_layers_refuse_options(options, error, message):
    with pytest.raises(error, match=message):
        MinGRU(**({"input_size": 3, "hidden_size": 4} | options))


@pytest.mark.parametrize(
    ("x", "h0", "error", "message"),
    [
        (ones(5, 2, 4), None, ValueError, r"x must be \(seq_len, batch, 3\) or unbatched .*, got \(5, 2, 4\)"),
        (ones(3), None, ValueError, r"x must be .*, got \(3,\)"),
        (ones(0, 2, 3), None, ValueError, r"x must be .*, seq_len at least 1, got \(0, 2, 3\)"),
        (ones(5, 2, 3, **F64), None, ValueError, "x must be torch.float32 as the layer is, got torch.float64"),
        (ones(5, 2, 3).int(), None, ValueError, "x must be torch.float32 as the layer is, got torch.int32"),
        (ones(5, 2, 3, device="meta"), None, ValueError, "x must be on cpu as the layer is, got meta"),
        ([1.0], None, TypeError, "x must be a Tensor, got list"),
        (ones(5, 2, 3), ones(2, 4), ValueError, r"h0 must be \(1, 2, 4\), got \(2, 4\)"),
        (ones(5, 3), ones(1, 1, 4), ValueError, r"h0 must be \(1, 4\), got \(1, 1, 4\)"),
        (
            ones(5, 2, 3),
            ones(1, 2, 4, **F64),
            ValueError,
            "h0 must be torch.float32 as the layer is, got torch.float64",
        ),
        (ones(5, 2, 3), ones(1, 2, 4, device="meta"), ValueError, "h0 must be on cpu as the layer is, got meta"),
        (ones(5, 2, 3), (ones(1, 2, 4),), TypeError, "h0 must be a Tensor, got tuple"),
    ],
)
def test_layers_refuse_input(x, h0, error, message):
    with pytest.raises(error, match=message):
        MinLSTM(3, 4)(x, h0)


def test_layers_refuse_input_batch_first():
    layer = MinLSTM(3, 4, True)
    with pytest.raises(ValueError, match=r"x must be \(batch, seq_len, 3\) .*, got \(2, 0, 3\)"):
        layer(ones(2, 0, 3))
    with pytest.raises(ValueError, match=r"h0 must be \(1, 2, 4\), got \(1, 5, 4\)"):
        layer(ones(2, 5, 3), ones(1, 5, 4))

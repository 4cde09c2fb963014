"""The compiled step: its functions to the last digits, and the engine that uses it against the readable loop."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from agreement import agree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import njit
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from lstm_lib import cells, fused, fused_variants, kernels, recurrent
from lstm_lib.recurrent import LSTM
from lstm_lib.unroll import run

# Functions


@njit(error_model="numpy")
def sigmoid(x, out):
    for j in range(x.size):
        out[j] = kernels.sigmoid(x[j])


@njit(error_model="numpy")
def tanh(x, out):
    for j in range(x.size):
        out[j] = kernels.tanh(x[j])


functions = pytest.mark.parametrize("function", [sigmoid, tanh], ids=["sigmoid", "tanh"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def computed(function, x):
    out = np.empty_like(x)
    function(x, out)
    return out


def truth(function, x):
    """In more digits than the result has: double precision for single, and the processor's longest for double."""
    x = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if function is tanh:
        return np.tanh(x)
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def everywhere(dtype):
    """Bit patterns from all over the range, the smallest numbers and the largest."""
    bits = np.dtype(dtype).itemsize * 8
    whole, dice = np.dtype(f"i{bits // 8}"), np.random.default_rng(0)
    anything = dice.integers(0, 2 ** (bits - 1), 1_000_000, dtype=np.int64).astype(whole).view(dtype)
    x = np.concatenate(
        [anything, np.linspace(0, 800, 300_001, dtype=dtype), np.logspace(-20, 2, 300_001, dtype=dtype)]
    )
    x = x[np.isfinite(x)]
    return np.concatenate([x, -x])


@functions
@dtypes
def test_four_units_in_the_last_place(function, dtype):
    if dtype is np.float64 and np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("this processor has no longer numbers to compare with")
    x = everywhere(dtype)
    expected = truth(function, x)
    ulp = np.spacing(np.abs(expected).astype(dtype)).astype(expected.dtype)
    assert (np.abs(computed(function, x) - expected) / ulp).max() <= 4


@functions
@dtypes
def test_special_numbers(function, dtype):
    info = np.finfo(dtype)
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, info.max, info.min, 0.0, -0.0], dtype)
    low = 0.0 if function is sigmoid else -1.0
    middle = [0.5, 0.5] if function is sigmoid else [0.0, -0.0]
    found, expected = computed(function, x), np.array([np.nan, np.nan, 1, low, 1, low, *middle], dtype)
    np.testing.assert_array_equal(found, expected)
    if function is tanh:
        np.testing.assert_array_equal(np.signbit(found[-2:]), [False, True])
        small = np.array([info.smallest_subnormal, -info.smallest_subnormal, info.tiny / 2, -info.tiny], dtype)
        np.testing.assert_array_equal(computed(tanh, small), small)


@functions
@dtypes
def test_saturates_where_torch_does(function, dtype):
    """1 (or −1) from the same place on. PyTorch's σ falls from 10⁻³⁹ to 0 at once; ours does not."""
    x = torch.linspace(0, 50, 100_001, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
    theirs = (torch.sigmoid if function is sigmoid else torch.tanh)(x).numpy()
    first = int(np.argmax(theirs == 1))
    assert 0 < first < len(x) - 1
    ours = computed(function, x.numpy())
    assert (ours[first + first // 100 :] == 1).all()
    assert (ours[: first - first // 100] < 1).all()
    if function is tanh:
        np.testing.assert_array_equal(computed(tanh, -x.numpy())[first + first // 100 :], -1)
    else:
        assert (computed(sigmoid, np.array([-1e3, -1e5], dtype)) == 0).all()


# The engine that uses them

VARIANTS = [
    {"peephole": True},
    {"coupled": True, "peephole": True},
    {"layer_norm": True},
    {"zoneout": (0.4, 0.3)},
    {"variational_dropout": 0.4},
    {"peephole": True, "layer_norm": True, "zoneout": (0.4, 0.3), "variational_dropout": 0.4},
    {"layer_norm": True, "without": {"input", "forget", "output", "input_activation", "output_activation"}},
    {"residual": True, "bidirectional": True, "num_layers": 2, "peephole": True, "weight_drop": 0.4},
]
TIED = [
    {"coupled": True},
    {"coupled": True, "without": {"output"}, "bias": False},
    *({"without": {gate}} for gate in ("input", "forget", "output")),
    {"without": {"input", "forget", "output"}, "bias": False, "num_layers": 2, "bidirectional": True},
    {"weight_drop": 0.4, "residual": True, "num_layers": 2, "sizes": (5, 5)},
    {"coupled": True, "weight_drop": 0.4, "batch_first": True},
]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "+".join(options))


@pytest.fixture(params=[False, True], ids=["step by step", "all steps in one call"])
def small(request, monkeypatch):
    """Both ways: each product PyTorch's, and the products of a small layer our own."""
    monkeypatch.setattr(fused, "SMALL", 10**6 if request.param else 0)
    return request.param


@pytest.fixture
def calls(monkeypatch):
    """How often each kernel was called."""
    kinds = [step + kind for kind in ("", "_variant") for step in ("forward", "backward")]
    counts = dict.fromkeys(kinds + [kind + "_small" for kind in kinds], 0)

    def counted(name, kernel):
        def call(*arguments):
            counts[name] += 1
            return kernel(*arguments)

        return call

    watched = SimpleNamespace(**{name: counted(name, getattr(kernels, name)) for name in counts})
    for module in (fused, fused_variants):
        monkeypatch.setattr(module, "kernels", lambda: watched)
    return counts


def layer_of(seed=0, sizes=(3, 5), dtype=torch.float64, **options):
    torch.manual_seed(seed)
    layer = LSTM(*sizes, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


def swept(layer, x, hx=None):
    """By the engine, plain options too: outputs, last states, and every gradient of some function of them."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    if isinstance(layer, nn.LSTM) and (type(layer) is nn.LSTM or not layer._plain):
        out, state = layer(x, hx)
    else:
        zeros = x.new_zeros(x.shape[1], layer.hidden_size)
        cell = cells.of(layer)
        steps = fused.sweep(
            cell, cell.weights(layer), x, (zeros, zeros) if hx is None else tuple(s[0] for s in hx)
        )
        out, state = steps["h"], (steps["h"][None, -1], steps["c"][None, -1])
    values = [out, *state]
    torch.manual_seed(2)
    loss = sum((v * torch.randn_like(v)).sum() for v in values)
    return values, torch.autograd.grad(loss, [x, *layer.parameters()], allow_unused=True, materialize_grads=True)


def numbers(*shape, dtype=torch.float64):
    torch.manual_seed(3)
    return torch.randn(shape, dtype=dtype)


@settings(deadline=None)  # the first call compiles
@given(batch=st.integers(0, 9), columns=st.integers(1, 13), width=st.integers(1, 40), first=st.integers(0, 3))
def test_the_products_are_numpys(batch, columns, width, first):
    """With every remainder of the rows and columns that a loop takes at a time."""
    rng = np.random.default_rng(0)
    x, w, out = map(rng.normal, [0] * 3, [1] * 3, [(batch, columns), (columns, width), (batch, first + width + 2)])
    expected = out.copy()
    expected[:, first : first + width] += x @ w
    kernels._add_forward(x, w, out, first)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
    d, back = rng.normal(size=(batch, width)), rng.normal(size=(batch, columns))
    expected = back + d @ w.T
    kernels._add_backward(w, d, back)
    np.testing.assert_allclose(back, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=lambda options: "+".join(options) or "plain")
def test_the_compiled_step_and_pytorchs_operations_give_the_same(options, small, calls, monkeypatch):
    blocks = 9 if options.get("layer_norm") else 5
    monkeypatch.setattr(fused, "BLOCK", 2 * 4 * 5 * blocks * 8)  # two steps
    layer, x = layer_of(**options), numbers(7, 4, 3)
    compiled = swept(layer, x)
    kind = "_variant" * bool(options) + "_small" * small
    expected = (4 if small else 7) * (4 if "num_layers" in options else 1)  # blocks, or steps
    assert calls["forward" + kind] == calls["backward" + kind] == expected
    assert sum(calls.values()) == 2 * expected
    monkeypatch.setattr(fused, "kernels", lambda: None)
    operations = swept(layer, x)
    assert sum(calls.values()) == 2 * expected
    for ours, theirs in zip(compiled, operations, strict=True):
        agree(ours, theirs)


def test_a_kernel_is_compiled_once_for_each_precision(small):
    """Not for each combination of options: that takes seconds, each time."""
    for dtype in (torch.float64, torch.float32):
        for options in ({}, *VARIANTS):
            swept(layer_of(dtype=dtype, **options), numbers(7, 4, 3, dtype=dtype))
    for step in ("forward", "backward"):
        for kind in ("", "_variant"):
            assert len(getattr(kernels, step + kind + "_small" * small).signatures) == 2


@pytest.mark.parametrize("options", TIED, ids=lambda options: "+".join(options))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_plain_lstm_with_other_weights_runs_pytorchs_kernel(options, dtype, calls, monkeypatch):
    layer = layer_of(dtype=dtype, **options)
    x = numbers(7, 4, layer.input_size, dtype=dtype)
    rows, batch = layer.num_layers * (1 + layer.bidirectional), 7 if layer.batch_first else 4
    hx = tuple(numbers(2, rows, batch, 5, dtype=dtype))
    kernel = swept(layer, x, hx)
    assert not any(calls.values())
    monkeypatch.setattr(recurrent, "_is_plain", lambda *_: False)
    for ours, theirs in zip(kernel, swept(layer, x, hx), strict=True):
        agree(ours, theirs, 1e-10 if dtype == torch.float64 else 1e-5)
    assert any(calls.values())


@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=lambda options: "+".join(options) or "plain")
def test_on_the_meta_device_a_layer_has_shapes(options):
    layer, x = layer_of(**options), numbers(7, 4, 3)
    out, states = layer.to("meta")(x.to("meta"))
    expected, others = layer_of(**options)(x)
    assert [s.shape for s in (out, *states)] == [s.shape for s in (expected, *others)]
    assert out.device.type == "meta"


def test_what_a_missing_gate_does_with_infinity():
    """No 0 × ∞: the gate is not there."""
    layer, x = layer_of(without={"forget"}), numbers(7, 4, 3)
    x[2, 1, 0] = torch.inf
    expected, _, _ = run(cells.of(layer), layer, x)
    assert expected.isfinite().all()
    agree([layer(x)[0]], [expected])


@pytest.mark.parametrize("options", [{}, VARIANTS[5]], ids=["plain", "all"])
def test_replicas_are_compiled_too(options, small, calls, monkeypatch):
    models = [layer_of(seed, **options).eval() for seed in range(3)]
    stacked, _ = stack_module_state(models)
    x = numbers(7, 4, 3)

    def together():
        out = vmap(lambda w: functional_call(models[0], w, (x,))[0])(stacked)
        return [out], torch.autograd.grad(out.sin().sum(), list(stacked.values()))

    compiled = together()
    assert sum(calls.values()) == 2 * (1 if small else 7)  # a call serves them all
    monkeypatch.setattr(fused, "kernels", lambda: None)
    for ours, theirs in zip(compiled, together(), strict=True):
        agree(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("option", [{}, {"peephole": True}], ids=["plain", "variant"])
@pytest.mark.parametrize(
    ("batch", "hidden", "ours"), [(1, 724, True), (1, 725, False), (32, 128, True), (33, 128, False)]
)
def test_a_small_layer_has_its_products_in_the_call(batch, hidden, ours, option, dtype, calls, monkeypatch):
    monkeypatch.setattr(fused, "SMALL", 1 << 21)  # as beside MKL
    layer, x = layer_of(sizes=(2, hidden), dtype=dtype, **option), numbers(3, batch, 2, dtype=dtype)
    found = swept(layer, x)
    assert all(name.endswith("_small") is ours for name, count in calls.items() if count)
    assert sum(calls.values()) == (2 if ours else 6)
    monkeypatch.setattr(fused, "kernels", lambda: None)
    for one, other in zip(found, swept(layer, x), strict=True):
        agree(one, other, 1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("replicas", [(), (3,)], ids=["one", "replicas"])
def test_each_step_and_each_replica_has_its_mask(replicas, small, monkeypatch):
    options = {"zoneout": (0.4, 0.3), "variational_dropout": 0.4}
    layer = layer_of(**options)
    cell, (steps, batch, hidden) = cells.of(layer), (7, 4, layer.hidden_size)
    w, x, zeros = cell.weights(layer), numbers(steps, batch, 3), torch.zeros(batch, hidden, dtype=torch.float64)
    masks = [torch.rand(*replicas, steps, batch, hidden, dtype=torch.float64) for _ in range(3)]

    def states(zone_h, zone_c, drop_h):
        return fused.sweep(cell, w, x, (zeros, zeros), {"zone_h": zone_h, "zone_c": zone_c, "drop_h": drop_h})["h"]

    def together():
        out = (vmap(states) if replicas else states)(*masks)
        return [out], torch.autograd.grad(out.sin().sum(), [layer.weight_hh_l0, layer.weight_ih_l0])

    compiled = together()
    monkeypatch.setattr(fused, "kernels", lambda: None)
    for ours, theirs in zip(compiled, together(), strict=True):
        agree(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_take_pytorchs_operations(dtype, calls):
    layer, x = layer_of(dtype=torch.float32, peephole=True), numbers(4, 2, 3, dtype=torch.float32)
    low = swept(layer.to(dtype), x.to(dtype))[0][0]
    assert low.dtype == dtype
    assert not any(calls.values())
    agree([low.float()], [swept(layer.float(), x)[0][0]], 0.05)


@pytest.mark.parametrize("options", [{}, {"peephole": True}], ids=["plain", "neutral peepholes"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_long_sequence(options, batch, small):
    """4,096 steps: in double precision PyTorch's numbers, in single no further from them than PyTorch's own."""
    ours, theirs = LSTM(8, 16, **options), nn.LSTM(8, 16)
    ours.load_state_dict(theirs.state_dict(), strict=False)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.startswith("weight_c"):
                parameter.zero_()
    x = numbers(4096, batch, 8)
    n = 2 + len(theirs.state_dict())

    def everything(layer, x):
        values, grads = swept(layer, x)
        return [*values, *grads[: n - 1]]

    exact = everything(theirs.double(), x)
    agree(everything(ours.double(), x), exact)
    single = [everything(layer.float(), x.float()) for layer in (ours, theirs)]
    for a, b, truth in zip(*single, exact, strict=True):
        own, its = ((s - truth).abs().max() / truth.abs().max().clamp(min=1) for s in (a, b))
        assert own <= 1e-5 or own <= 2 * its


@every_variant
def test_a_nan_stays_in_its_sequence_and_infinity_gives_none(options, small):
    layer, x = layer_of(dtype=torch.float32, **options).eval(), numbers(6, 3, 3, dtype=torch.float32)
    expected = layer(x)[0]
    x[2, 1, 0] = torch.nan
    out = layer(x)[0]
    agree([out[:, [0, 2]]], [expected[:, [0, 2]]], 0)
    if not options.get("bidirectional"):
        agree([out[:2]], [expected[:2]], 0)
        assert out[2:, 1].isnan().all()
    if not options.get("layer_norm"):
        x[2, 1, 0] = torch.inf
        assert out.isfinite()[:, [0, 2]].all()
        assert not layer(x)[0].isnan().any()


def test_threads_do_not_disturb_each_other(small):
    layers = [layer_of(seed, (16, 32), torch.float32, peephole=bool(seed % 2)) for seed in range(8)]
    x = numbers(50, 4, 16, dtype=torch.float32)

    def work(layer):
        leaves = [x.clone().requires_grad_(), *layer.parameters()]
        cell, zeros = cells.of(layer), torch.zeros(4, 32)
        h = fused.sweep(cell, cell.weights(layer), leaves[0], (zeros, zeros))["h"]
        return [h, *torch.autograd.grad(h.sin().sum(), leaves)]

    alone = [work(layer) for layer in layers]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, layers * 4))
    for ours, theirs in zip(together, alone * 4, strict=True):
        agree(ours, theirs, 0)


PROGRAM = """
import sys
{block}
import torch
from lstm_lib import LSTM, cells, fused
assert {loaded} or "numba.core" not in sys.modules  # it comes when it is needed, not with the library
torch.manual_seed(0)
layers = [LSTM(3, 5, dtype=torch.float64, **options) for options in ({{"peephole": True}}, {{"layer_norm": True}})]
x = torch.randn(6, 2, 3, dtype=torch.float64)
for layer in layers:
    out, _ = layer(x)
    out.sin().sum().backward()
    print(repr(out.sum().item()), repr(sum(p.grad.sum().item() for p in layer.parameters())))
assert (fused.kernels() is None) == {without}
"""


UNKNOWN = """
import os, tempfile
os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # what is compiled already is not asked for its options
import numba
njit = numba.njit
numba.njit = lambda *args, **options: njit(*args, **options, **{"unknown": True} if "_nrt" in options else {})
"""


def test_without_numba_the_numbers_are_the_same():
    """Where it is not there, may not compile, or does not know one of our options."""
    blocks = "", 'sys.modules["numba"] = None', 'import os; os.environ["NUMBA_DISABLE_JIT"] = "1"', UNKNOWN
    found = []
    for block in blocks:
        program = PROGRAM.format(block=block, without=bool(block), loaded=block == UNKNOWN)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append([float(word) for word in done.stdout.split()])
    assert found[1] == found[2] == found[3] == pytest.approx(found[0], rel=1e-10, abs=1e-10)


# Products by oneDNN -------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """All products in single precision are oneDNN's, on any processor: the shapes it was asked for."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    shapes, onednn = [], fused.onednn

    def watched(a, b, out=None, bias=None):
        shapes.append((*a.shape, b.shape[-1]))
        return onednn(a, b, out, bias)

    for name, value in {"onednn": watched, "has_onednn": lambda: True, "LARGE": 0}.items():
        monkeypatch.setattr(fused, name, value)
    return shapes


def strided(rows, columns, how):
    """Numbers in a row of memory, transposed, or in columns of something wider."""
    if how == "transposed":
        return torch.randn(columns, rows).T
    return torch.randn(rows, columns + 3 * (how == "wider"))[:, :columns]


sizes, layouts = st.integers(1, 70), st.sampled_from(["plain", "transposed", "wider"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes, sizes, sizes, layouts, layouts)
def test_onednn_multiplies_as_torch_mm(asked, rows, inner, columns, of_a, of_w):
    asked.clear()
    a, w = strided(rows, inner, of_a), strided(inner, columns, of_w)
    put, add = fused.products(a, w)
    out, total = strided(rows, columns, "wider"), strided(rows, columns, "wider")
    exact = a.double() @ w.double()
    ours = [add(total.clone(), a, w), put(a, w), put(a, w, out=out), out]
    agree(ours, [(total + exact).float(), *[exact.float()] * 3], 1e-4)
    assert ours[2] is out
    assert torch.equal(put(a, w), out)
    assert asked == [(rows, inner, columns)] * 4


@pytest.mark.parametrize("way", ["compiled", "by operations"])
@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=lambda options: "+".join(options) or "plain")
def test_onednn_and_torch_mm_give_the_same_layer(options, way, asked, monkeypatch):
    monkeypatch.setattr(fused, "SMALL", 0)
    if way == "by operations":
        monkeypatch.setattr(fused, "kernels", lambda: None)
    layer, x = layer_of(dtype=torch.float32, **options), numbers(7, 4, 3, dtype=torch.float32)
    ours = swept(layer, x)
    assert asked
    for one, other in zip(ours, swept(layer, x), strict=True):
        agree(one, other, 0)
    count = len(asked)
    monkeypatch.setattr(fused, "has_onednn", lambda: False)
    for one, other in zip(ours, swept(layer, x), strict=True):
        agree(one, other, 1e-4)
    assert len(asked) == count


def test_a_product_for_autograd_is_torchs(asked):
    """Its gradients of both orders, too, and many at once."""

    def all_of(multiply):
        torch.manual_seed(0)
        a, b = (torch.randn(shape, requires_grad=True) for shape in ((9, 5), (5, 7)))
        out = multiply(a, b)
        first = torch.autograd.grad(out.sin().sum(), (a, b), create_graph=True)
        second = torch.autograd.grad(sum((g**3).sum() for g in first), (a, b))
        many = torch.autograd.grad(multiply(a, b), b, torch.randn(3, 9, 7), is_grads_batched=True)
        return [out, *first, *second, *many]

    agree(all_of(fused.product), all_of(torch.matmul), 1e-4)
    assert {(9, 5, 7), (9, 7, 5), (5, 9, 7)} <= set(asked)


def test_where_a_product_is_torchs_own(asked):
    a, b = torch.randn(9, 5), torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert fused.product(a, b).dtype == torch.bfloat16
    assert torch.equal(fused.product(a.double(), b.double()), a.double() @ b.double())
    assert fused.product(a.to("meta"), b.to("meta")).shape == (9, 7)
    agree(vmap(fused.product, (None, 2))(a, torch.stack([b, b], 2)), [a @ b] * 2, 1e-5)
    agree(torch.func.jvp(fused.product, (a, b), (a, b)), [a @ b, 2 * a @ b], 1e-5)
    assert not asked


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_onednn_is_never_given_weights_with_gaps():
    """From those it multiplies some thousand times slower."""
    seen = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "linear" in func.__name__:
                seen.append(args[1])
            return func(*args, **(kwargs or {}))

    wide = torch.randn(6, 9)
    with Watched():
        for b in (wide, wide.T, wide[:, :4], wide[:, :4].T, wide[:1].expand(6, 9)):
            torch.testing.assert_close(fused.onednn(torch.ones(2, len(b)), b), b.sum(0).expand(2, -1))
    assert len(seen) == 5
    assert all(weight.is_contiguous() or weight.T.is_contiguous() for weight in seen)


@pytest.mark.parametrize("unit", [nn.GRU, nn.RNN])
def test_onednn_multiplies_for_other_units_too(unit, asked, monkeypatch):
    torch.manual_seed(0)
    layer, x = unit(3, 5), numbers(7, 4, 3, dtype=torch.float32)
    cell = cells.of(layer)

    def grads():
        h = fused.sweep(cell, cell.weights(layer), x, (torch.zeros(4, 5),))["h"]
        return [h, *torch.autograd.grad(h.sin().sum(), [*layer.parameters()])]

    ours = grads()
    assert asked
    monkeypatch.setattr(fused, "has_onednn", lambda: False)
    agree(ours, grads(), 1e-5)


def test_what_onednn_is_not_asked_for(asked, monkeypatch):
    a, w = torch.ones(4, 3), torch.ones(3, 5)
    assert fused.products(a, w)[0] is fused.onednn
    assert fused.products(a, nn.Parameter(w))[0] is fused.onednn
    usual = torch.mm, torch.Tensor.addmm_
    for dtype in (torch.float64, torch.bfloat16):
        assert fused.products(a.to(dtype), w.to(dtype)) == fused.products(a, w.to(dtype)) == usual
    assert fused.products(a.to("meta"), w.to("meta")) == usual
    with FakeTensorMode() as fake:
        assert fused.products(*map(fake.from_tensor, (a, w))) == usual
    assert fused.products(a[None], w[None]) == (torch.bmm, fused.add_bmm)
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "is_tracing", lambda: True)
        assert fused.products(a, w) == usual
    torch.backends.mkldnn.enabled = False  # how a user turns it off
    try:
        assert fused.products(a, w) == usual
    finally:
        torch.backends.mkldnn.enabled = True
    monkeypatch.setattr(fused, "LARGE", 60)
    assert fused.products(a, w) == usual
    monkeypatch.setattr(fused, "LARGE", 59)
    assert fused.products(a, w)[0] is fused.onednn
    monkeypatch.setattr(fused, "has_onednn", lambda: False)
    assert fused.products(a, w) == usual


@pytest.mark.parametrize(
    ("features", "widest", "mkl", "yes"),
    [
        ({"sse4a": True}, "AVX512", True, True),
        ({"sse4a": True}, "AVX512", False, False),
        ({"sse4a": True}, "AVX2", True, False),
        ({"sse4a": False}, "AVX512", True, False),
        ({}, "DEFAULT", True, False),
    ],
    ids=["AMD, AVX-512", "AMD, AVX-512, no MKL", "AMD, AVX2", "Intel, AVX-512", "ARM"],
)
def test_onednn_is_for_processors_on_which_mkl_uses_less(features, widest, mkl, yes, monkeypatch):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: features)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: widest)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    asked_in = []
    monkeypatch.setattr(fused, "onednn", lambda a, b: asked_in.append(a.dtype))
    choose = fused.has_onednn.__wrapped__
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # as chapters do; the answer is kept, so it must not depend on this
    try:
        assert choose() is yes
    finally:
        torch.set_default_dtype(usual)
    assert set(asked_in) <= {torch.float32}

    def gone(a, b):
        raise AttributeError("no such operator")

    monkeypatch.setattr(fused, "onednn", gone)
    assert choose() is False
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    assert choose() is False

"""PyTorch's tools around a layer: what they do to ``torch.nn``'s layers they do to ours, or say why not."""

import copy
import io
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

import lstm_lib
from lstm_lib import GRU, LSTM, RNN, cells, init, plain
from lstm_lib.trace import gradient_by_lag, trace
from lstm_lib.unroll import run

TORCH = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
OURS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
VARIANTS = [
    {"peephole": True},
    {"layer_norm": True, "bidirectional": True, "num_layers": 2},
    {"zoneout": (0.2, 0.1), "coupled": True},
    {"residual": True, "num_layers": 2},
    {"without": {"forget"}, "proj_size": 2},
]
variants = pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "+".join(options))
every_unit = pytest.mark.parametrize("unit", OURS)


@pytest.fixture(autouse=True)
def quiet():
    """Export, TorchScript and the old quantization talk, and warn that they are old."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Model(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.proj_size or layer.hidden_size, 1)
        if layer.bidirectional:
            self.head = nn.Linear(2 * (layer.proj_size or layer.hidden_size), 1)

    def forward(self, x):
        return self.head(self.layer(x)[0])


def same(a, b, tolerance=0.0):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# plain(model)


@every_unit
def test_plain_is_pytorchs_class_on_the_same_parameters(unit):
    model, x = Model(OURS[unit](3, 4, num_layers=2, bidirectional=True)), torch.randn(5, 2, 3)
    other = plain(model)
    assert type(other.layer) is TORCH[unit]
    assert type(model.layer) is OURS[unit]
    assert {n: id(p) for n, p in other.named_parameters()} == {n: id(p) for n, p in model.named_parameters()}
    same(other(x), model(x))
    with torch.no_grad():
        model.layer.weight_hh_l1.mul_(2)
    same(other(x), model(x))
    other.double()
    assert model.layer.weight_hh_l0.dtype == torch.float64
    same(model(x.double()), other(x.double()))


def test_tools_that_look_at_the_exact_type_see_a_plain_model():
    model = Model(LSTM(3, 4))
    touched = []
    plain(model).apply(lambda m: touched.append(type(m)) if type(m) is nn.LSTM else None)
    assert touched == [nn.LSTM]
    int8 = torch.ao.quantization.quantize_dynamic(plain(model).eval(), {nn.LSTM}, dtype=torch.qint8)
    assert "DynamicQuantizedLSTM" in repr(int8)
    assert "DynamicQuantizedLSTM" not in repr(
        torch.ao.quantization.quantize_dynamic(model.eval(), {nn.LSTM}, dtype=torch.qint8)
    )


@variants
def test_a_variant_is_not_plain(options):
    with pytest.raises(TypeError, match=r"layer must have plain options.*got LSTM\(3, 4"):
        plain(Model(LSTM(3, 4, **options)))


def test_a_parametrized_layer_is_not_plain():
    with pytest.raises(TypeError, match="layer must have no parametrization"):
        plain(spectral_norm(LSTM(3, 4), "weight_hh_l0"))


# Symbolic tracing


@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=lambda options: "+".join(options) or "plain")
def test_a_layer_is_a_leaf_of_a_symbolic_trace(options):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = LSTM(3, 3, **options).eval()

        def forward(self, x, hx=None):
            out, (h, c) = self.layer(x) if hx is None else self.layer(x, hx)
            return out, h + 1, c

    model, x = Whole(), torch.randn(5, 2, 3)
    graph = torch.fx.symbolic_trace(model, concrete_args={"hx": None})
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["layer"]
    for ours, theirs in zip(graph(x), model(x), strict=True):
        same(ours, theirs)
    if not options:
        hx = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
        graph = torch.fx.GraphModule(model, torch.fx.Tracer().trace(model))
        same(graph(x, hx)[0], model(x, hx)[0])


def test_quantization_by_a_symbolic_trace_goes_through():
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    model, x = Model(LSTM(3, 4)).eval(), torch.randn(5, 2, 3)
    same(prepare_fx(model, get_default_qconfig_mapping(), (x,))(x), model(x))


# Recording: torch.export, torch.jit.trace, ONNX


@variants
def test_a_recorded_variant_is_the_variant_and_no_constant(options):
    layer = LSTM(3, 4, **options, dtype=torch.float64).eval()
    traced = torch.jit.trace(layer, torch.randn(5, 2, 3).double())
    for batch in (2, 7):
        x = torch.randn(5, batch, 3).double()
        same(traced(x)[0], layer(x)[0], 1e-9)  # layer norm magnifies the rounding of what hardly varies


@pytest.mark.parametrize("make", [*OURS.values(), *TORCH.values()], ids=lambda make: f"{make.__module__}")
def test_export_of_a_plain_layer_keeps_the_batch_dynamic_and_not_the_time(make):
    keeps(Model(make(3, 4)))


@variants
def test_export_of_a_variant_keeps_the_batch_dynamic_and_not_the_time(options):
    keeps(Model(LSTM(3, 4, **options)).eval().double())


def keeps(model):
    batch, time = torch.export.Dim("batch", min=2, max=99), torch.export.Dim("time", min=2, max=99)
    example, x = (torch.randn(5, size, 3, dtype=model.head.weight.dtype) for size in (3, 8))
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=({1: batch},))
        same(program.module()(x), model(x), 1e-6 if x.dtype == torch.float32 else 1e-9)
        with pytest.raises(torch._dynamo.exc.UserError, match="time"):  # PyTorch's own layers neither
            torch.export.export(model, (example,), dynamic_shapes=({0: time},))


def onnx_of(model, x, **options):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = io.BytesIO()
    torch.onnx.export(model.eval(), (x,), file, dynamo=False, input_names=["x"], **options)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize("make", [LSTM, nn.LSTM])
def test_the_old_onnx_export_of_a_plain_layer_keeps_time_and_batch_dynamic(make):
    model = Model(make(3, 4))
    file = onnx_of(model, torch.randn(5, 2, 3), dynamic_axes={"x": {0: "time", 1: "batch"}})
    for shape in ((5, 2, 3), (9, 1, 3)):
        x = torch.randn(shape)
        same(file(x), model(x).detach(), 1e-5)


@variants
def test_the_old_onnx_export_of_a_variant_keeps_the_batch_dynamic(options):
    model = Model(LSTM(3, 4, **options))
    file = onnx_of(model, torch.randn(5, 2, 3), dynamic_axes={"x": {1: "batch"}})
    for batch in (2, 6):
        x = torch.randn(5, batch, 3)
        same(file(x), model(x).detach(), 1e-5)


def test_torchscript_takes_plain_options_and_says_so():
    class Old(torch.jit.ScriptModule):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        @torch.jit.script_method
        def forward(self, x):
            return self.layer(x)[0]

    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    model = Model(layer)
    same(torch.jit.script(model)(x), model(x))
    same(Old(plain(layer))(x), layer(x)[0])
    with pytest.raises(TypeError, match="layer must have plain options"):
        torch.jit.script(Model(LSTM(3, 4, peephole=True)))


# Weights that something computes


@every_unit
@pytest.mark.parametrize("norm", [spectral_norm, weight_norm, orthogonal])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
def test_a_parametrization_runs_as_often_as_in_pytorch(unit, norm, name):
    layers = []
    for make in (TORCH[unit], OURS[unit]):
        torch.manual_seed(1)
        layers.append(norm(make(3, 4), name))
    x = torch.randn(5, 2, 3)
    for _ in range(3):
        theirs, ours = (layer(x)[0] for layer in layers)
    same(ours, theirs)


@variants
def test_a_variant_computes_a_parametrized_weight_once(options):
    counts = []

    class Half(nn.Module):
        def forward(self, w):
            counts.append(1)
            return w / 2

    layer = LSTM(3, 4, **options).eval()
    halved = copy.deepcopy(layer)
    with torch.no_grad():
        halved.weight_ih_l0.div_(2)
    nn.utils.parametrize.register_parametrization(layer, "weight_ih_l0", Half())
    counts.clear()
    x = torch.randn(5, 2, 3)
    same(layer(x)[0], halved(x)[0], 1e-6)
    assert len(counts) == 1
    same(trace(layer, x).out, halved(x)[0], 1e-6)


@every_unit
@pytest.mark.parametrize(
    "how",
    [
        lambda layer: prune.random_unstructured(layer, "weight_hh_l0", amount=0.4),
        lambda layer: nn.utils.weight_norm(layer, "weight_hh_l0"),
        lambda layer: nn.utils.spectral_norm(layer, "weight_hh_l0"),
    ],
    ids=["pruning", "weight norm", "spectral norm"],
)
def test_a_trace_reads_no_stale_weight(unit, how):
    layer, x = how(OURS[unit](3, 4)).eval(), torch.randn(5, 2, 3)
    layer(x)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()  # as an optimizer moves them
    seen, lags = trace(layer, x), gradient_by_lag(layer, x)
    same(seen.h[-1, 0], layer(x)[0], 1e-6)
    same(lags, gradient_by_lag(layer, x))  # now that the call has made the weights anew


@variants
def test_a_pruned_variant_stays_pruned(options):
    layer, x = LSTM(3, 4, **options).eval(), torch.randn(5, 2, 3)
    prune.random_unstructured(layer, "weight_hh_l0", amount=0.4)
    out = layer(x)[0]
    prune.remove(layer, "weight_hh_l0")
    same(layer(x)[0], out)


# Subclasses, names, places


@every_unit
def test_a_subclass_may_use_any_public_name(unit):
    class Named(OURS[unit]):
        def __init__(self):
            super().__init__(4, 4)
            self.residual, self.weight_drop, self.variant, self.plain = True, 0.5, "big", False

    torch.manual_seed(3)
    ours = Named()
    torch.manual_seed(3)
    theirs = TORCH[unit](4, 4)
    x = torch.randn(5, 2, 4)
    same(ours(x)[0], theirs(x)[0])
    same(trace(ours, x).out, theirs(x)[0], 1e-6)
    same(run(cells.of(ours), ours, x)[0], theirs(x)[0], 1e-6)


def test_the_library_in_the_place_of_torch_nn():
    """A program puts our layers where it finds PyTorch's: names are bound at import, not looked up at a call."""
    code = """
import torch, lstm_lib
from torch import nn
theirs = nn.LSTM(3, 4)
nn.LSTM, nn.GRU, nn.RNN = lstm_lib.LSTM, lstm_lib.GRU, lstm_lib.RNN
x = torch.randn(5, 2, 3)
for make in (nn.LSTM, nn.GRU, nn.RNN):
    layer = make(3, 4)
    out = layer(x)[0]
    assert type(lstm_lib.plain(layer)).__module__ == "torch.nn.modules.rnn"
    assert type(layer.__prepare_scriptable__()).__module__ == "torch.nn.modules.rnn"
    assert torch.allclose(lstm_lib.trace.trace(layer, x).out, out, atol=1e-6)
assert torch.allclose(lstm_lib.trace.trace(theirs, x).out, theirs(x)[0], atol=1e-6)

class Model(torch.nn.Module):
    def __init__(self, make):
        super().__init__()
        self.layer = make(3, 4)
    def forward(self, x):
        return self.layer(x)[0]

def fit(make):
    lstm_lib.training.fit(lambda: Model(make), lambda dice, step: (x, torch.zeros(5, 2, 4)), steps=1, seeds=[0, 1],
                          loss=torch.nn.functional.mse_loss, progress=False)

fit(nn.LSTM)
try:
    fit(type(theirs))
except TypeError as error:
    assert "whose kernel takes no replicas" in str(error)
else:
    raise AssertionError("PyTorch's own layer was not seen")
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_submodules_are_there_when_asked_for():
    code = """
import sys, lstm_lib
loaded = {"lstm_lib.training", "lstm_lib.init", "lstm_lib.book"} & set(sys.modules)
assert not loaded, loaded
for name in ("init", "trace", "training", "scan", "checkpoints", "tasks", "models", "book"):
    assert name in dir(lstm_lib)
    assert getattr(lstm_lib, name).__name__ == "lstm_lib." + name
try:
    lstm_lib.nothing
except AttributeError as error:
    assert str(error) == "module 'lstm_lib' has no attribute 'nothing'"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert lstm_lib.init is init


@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=lambda options: "+".join(options) or "plain")
def test_the_meta_device(options):
    layer = LSTM(3, 3, **options, device="meta")
    real = LSTM(3, 3, **options)
    x = torch.randn(5, 2, 3)
    out, state = layer(x.to("meta"))
    expected, expected_state = real(x)
    assert out.device.type == "meta"
    assert out.shape == expected.shape
    assert [s.shape for s in state] == [s.shape for s in expected_state]
    out.sum().backward()
    assert layer.to_empty(device="cpu").weight_hh_l0.shape == real.weight_hh_l0.shape


def test_a_forget_bias_needs_a_forget_gate():
    layer = LSTM(3, 4, without={"forget"})
    before = copy.deepcopy(layer.state_dict())
    for function in (init.forget_bias_, lambda layer: init.chrono_(layer, 20)):
        with pytest.raises(
            ValueError, match=r"layer must have the gate f, got LSTM\(3, 4, without=\{'forget'\}\)"
        ):
            function(layer)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


# Rare input


def test_a_stacked_hx_and_an_unsorted_packed_batch():
    x = nn.utils.rnn.pack_sequence([torch.randn(2, 3), torch.randn(4, 3)], enforce_sorted=False)
    hx = torch.randn(2, 1, 2, 4)
    for layer in (LSTM(3, 4), LSTM(3, 4, peephole=True)):
        same(layer(x, hx)[0].data, layer(x, tuple(hx))[0].data)
    theirs = nn.LSTM(3, 4)
    theirs.load_state_dict((layer := LSTM(3, 4)).state_dict())
    for ours, other in zip(layer(x, hx)[1], theirs(x, hx)[1], strict=True):
        same(ours, other)


def test_a_complex_rnn_as_in_torch():
    torch.manual_seed(0)
    ours = RNN(3, 4, dtype=torch.complex64)
    theirs = nn.RNN(3, 4, dtype=torch.complex64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.complex64)
    same(ours(x)[0], theirs(x)[0])
    with pytest.raises(ValueError, match="dtype must be real for a variant"):
        LSTM(3, 4, dtype=torch.complex64, peephole=True)


def test_input_that_overrides_torch_functions():
    class Wrapped(torch.Tensor):
        pass

    layer, x = LSTM(3, 4), torch.randn(5, 2, 3)
    same(torch.Tensor(layer(x.as_subclass(Wrapped))[0]), layer(x)[0])


@pytest.mark.parametrize(
    "options", [{}, {"peephole": True}, {"layer_norm": True}, {"proj_size": 2, "coupled": True}]
)
def test_autocast_leaves_double_precision_alone(options):
    layer, x = LSTM(3, 4, dtype=torch.float64, **options), torch.randn(5, 2, 3, dtype=torch.float64)
    expected, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        out, (h_n, c_n) = layer(x)
        assert out.dtype == h_n.dtype == c_n.dtype == torch.float64
        same(out, expected)
        same(run(cells.of(layer), layer, x)[0], expected, 1e-12)
        if options:
            low = LSTM(3, 4, **options)(x.float())[0]
            assert low.dtype == torch.bfloat16  # by the engine and by the loop
            with pytest.raises(RuntimeError, match=r"input must be torch\.float64 as the layer is"):
                layer(x.float())


def test_a_pickle_from_before_the_names_were_private_keeps_its_options():
    layer, x = LSTM(3, 3, peephole=True, residual=True, weight_drop=0.2).eval(), torch.randn(5, 2, 3)
    old = copy.copy(layer)
    state = {name.removeprefix("_") if name in ("_variant", "_residual", "_weight_drop") else name: value
             for name, value in layer.__dict__.items()}  # fmt: skip
    old.__dict__.clear()
    old.__setstate__(state)
    assert repr(old) == repr(layer)
    same(old(x)[0], layer(x)[0])

"""Second derivatives and ``torch.func``: what works with ``torch.nn``'s layers works with ours, variants too.

The oracle is the readable loop (``run``), whose operations PyTorch differentiates and batches by itself, and
finite differences. The loop equals ``torch.nn``'s layers in test_recurrent.py and the papers' equations in
test_variants.py.
"""

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

from lstm_lib import cells
from lstm_lib.recurrent import GRU, LSTM, RNN
from lstm_lib.unroll import run

STEPS, BATCH, INPUT, HIDDEN = 4, 2, 3, 4
LAYERS = {
    "LSTM": (LSTM, {}),
    "GRU": (GRU, {}),
    "RNN": (RNN, {}),
    "RNN relu": (RNN, {"nonlinearity": "relu"}),
    "no bias": (LSTM, {"bias": False}),
    "peephole": (LSTM, {"peephole": True}),
    "coupled": (LSTM, {"coupled": True}),
    "layer norm": (LSTM, {"layer_norm": True}),
    "zoneout": (LSTM, {"zoneout": (0.3, 0.2)}),
    "without forget": (LSTM, {"without": {"forget"}}),
    "all": (LSTM, {"peephole": True, "layer_norm": True, "zoneout": (0.3, 0.2), "coupled": True}),
    "two ways": (LSTM, {"peephole": True, "num_layers": 2, "bidirectional": True}),
    "residual": (LSTM, {"residual": True, "num_layers": 2}),
}
VARIANTS = [name for name, (unit, options) in LAYERS.items() if not options.keys() <= {"nonlinearity", "bias"}]
every_layer = pytest.mark.parametrize("name", LAYERS)
every_variant = pytest.mark.parametrize("name", VARIANTS)


def numbers(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def layer_of(name, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    unit, options = LAYERS[name]
    layer = unit(INPUT, HIDDEN, **options, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_().mul_(0.7)
    return layer


def readable(layer):
    return lambda x: run(cells.of(layer), layer, x)[0]


def close(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


# Second derivatives


@every_layer
@pytest.mark.parametrize("inputs", ["x", "weights"])
def test_the_gradient_of_a_gradient(name, inputs):
    """A gradient penalty: the norm of the gradient of x, differentiated by x and by all weights."""
    layer = layer_of(name)
    x, weights = numbers(STEPS, BATCH, INPUT).requires_grad_(), list(layer.parameters())
    first = x if inputs == "x" else layer.weight_hh_l0

    def penalty(f):
        out = f(x)
        (g,) = torch.autograd.grad((out * out.detach().cos()).sum(), first, create_graph=True)
        assert g.requires_grad
        return torch.autograd.grad(g.square().sum(), [x, *weights], allow_unused=True, materialize_grads=True)

    close(penalty(lambda x: layer(x)[0]), penalty(readable(layer)))


@every_layer
def test_gradgradcheck(name):
    layer = layer_of(name)
    x = numbers(2, 1, INPUT).requires_grad_()
    hx = tuple(numbers(layer.num_layers * (1 + layer.bidirectional), 1, HIDDEN).requires_grad_() for _ in "hc")

    def f(x, *hx):
        out, state = layer(x, hx if isinstance(layer, LSTM) else hx[0])
        return (out, *state) if isinstance(layer, LSTM) else (out, state)

    hx = hx if isinstance(layer, LSTM) else hx[:1]
    assert torch.autograd.gradcheck(f, (x, *hx))
    assert torch.autograd.gradgradcheck(f, (x, *hx))


@every_variant
def test_the_third_derivative(name):
    layer, x, v = layer_of(name), numbers(STEPS, 1, INPUT).requires_grad_(), numbers(STEPS, 1, INPUT)

    def second(f, x):
        (g,) = torch.autograd.grad(f(x).sin().sum(), x, create_graph=True)
        (gg,) = torch.autograd.grad((g * v).sum(), x, create_graph=True)
        return (gg * v).sum()

    (third,) = torch.autograd.grad(second(out_of(layer), x), x)
    (theirs,) = torch.autograd.grad(second(readable(layer), x), x)
    close(third, theirs)
    if name in ("layer norm", "all"):
        return  # PyTorch's own layer_norm has a wrong third derivative, here and by itself
    step = 1e-4 * v
    slope = (second(readable(layer), x + step) - second(readable(layer), x - step)) / 2e-4  # along v
    close((third * v).sum(), slope.detach(), 1e-5)


def test_a_second_derivative_of_replicas():
    models = [layer_of("peephole", seed) for seed in range(3)]
    stacked, _ = stack_module_state(models)
    x = numbers(3, STEPS, BATCH, INPUT).requires_grad_()

    def penalty(out):
        (g,) = torch.autograd.grad(out.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), x)[0]

    ours = penalty(vmap(lambda w, x: functional_call(models[0], w, (x,))[0])(stacked, x))
    theirs = penalty(torch.stack([readable(model)(x[k]) for k, model in enumerate(models)]))
    close(ours, theirs)


def test_the_states_gradient_and_one_output_alone():
    """Gradients that reach h_n or c_n only, and a second pass through the first one's graph."""
    layer, x = layer_of("layer norm"), numbers(STEPS, BATCH, INPUT).requires_grad_()
    for which in (0, 1):
        grads = []
        for f in (layer, partial(run, cells.of(layer), layer)):
            state = f(x)[1][which]
            (g,) = torch.autograd.grad(state.square().sum(), x, create_graph=True)
            grads.append(torch.autograd.grad(g.square().sum(), x)[0])
        close(*grads)


def test_a_step_of_meta_learning_is_exact():
    """MAML: the loss after one gradient step, differentiated by the weights before it, by finite differences."""
    layer = layer_of("peephole")
    x, y = numbers(STEPS, BATCH, INPUT), numbers(STEPS, BATCH, HIDDEN)
    weights = dict(layer.named_parameters())

    def after(weights):
        loss = (functional_call(layer, weights, (x,))[0] - y).square().mean()
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        moved = {name: w - 0.5 * g for (name, w), g in zip(weights.items(), grads, strict=True)}
        return (functional_call(layer, moved, (x,))[0] - y).square().mean()

    total = after(weights)
    grads = torch.autograd.grad(total, list(weights.values()))
    direction = {name: torch.randn_like(w) for name, w in weights.items()}
    shifted = [
        after({name: (w + s * direction[name]).detach().requires_grad_() for name, w in weights.items()})
        for s in (1e-6, -1e-6)
    ]
    slope = (shifted[0] - shifted[1]).item() / 2e-6
    ours = sum((g * direction[name]).sum() for name, g in zip(weights, grads, strict=True)).item()
    assert ours == pytest.approx(slope, rel=1e-5)


# torch.func


def out_of(layer):
    return lambda x: layer(x)[0]


TRANSFORMS = {
    "grad": lambda f, x: grad(lambda x: f(x).sin().sum())(x),
    "grad of grad": lambda f, x: grad(lambda x: grad(lambda x: f(x).sin().sum())(x).square().sum())(x),
    "vjp": lambda f, x: vjp(f, x)[1](torch.ones(STEPS, BATCH, f(x).shape[-1], dtype=x.dtype))[0],
    "jvp": lambda f, x: jvp(f, (x,), (x.cos(),))[1],
    "jacrev": lambda f, x: jacrev(f)(x),
    "jacrev in chunks": lambda f, x: jacrev(f, chunk_size=5)(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "hessian": lambda f, x: hessian(lambda x: f(x)[-1].sum())(x),
    "jacrev of jacrev": lambda f, x: jacrev(jacrev(lambda x: f(x)[-1].sum()))(x),
    "vmap": lambda f, x: vmap(f)(torch.stack([x, 2 * x])),
    "vmap of another dimension": lambda f, x: vmap(f, in_dims=2)(torch.stack([x, 2 * x], 2)),
    "vmap of vmap": lambda f, x: vmap(vmap(f))(torch.stack([x, 2 * x])[None]),
    "vmap of grad": lambda f, x: vmap(grad(lambda x: f(x).sin().sum()))(torch.stack([x, 2 * x])),
    "vmap of jacrev": lambda f, x: vmap(jacrev(f))(torch.stack([x, 2 * x])),
    "vmap of jacfwd": lambda f, x: vmap(jacfwd(f))(torch.stack([x, 2 * x])),
    "grad of vmap": lambda f, x: grad(lambda x: vmap(f)(torch.stack([x, 2 * x])).sin().sum())(x),
    "is_grads_batched": lambda f, x: batched_grads(f, x),
    "forward_ad": lambda f, x: dual(f, x),
}


def batched_grads(f, x):
    x = x.clone().requires_grad_()
    out = f(x)
    directions = torch.eye(6, dtype=x.dtype)[:, :, None, None] * torch.ones_like(out)[None, :1]
    return torch.autograd.grad(out[-1:].expand(6, *out.shape[1:]), x, directions, is_grads_batched=True)[0]


def dual(f, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, x.cos()))).tangent


@every_layer
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_a_transform_is_that_of_the_loop(name, transform, dtype):
    if dtype == torch.float32 and name in VARIANTS[1:]:
        pytest.skip("one variant tells: the dtype matters to PyTorch's own kernels")
    layer, x = layer_of(name, dtype=dtype), numbers(STEPS, BATCH, INPUT, dtype=dtype)
    apply, torchs = TRANSFORMS[transform], {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}.get(name)
    theirs = apply(readable(layer), x)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    close(apply(out_of(layer), x), theirs, tolerance)
    if torchs:  # and where PyTorch's own layer can do it, it does the same
        other = torchs(INPUT, HIDDEN, dtype=dtype)
        other.load_state_dict(layer.state_dict())
        try:
            known = apply(out_of(other), x)
        except (RuntimeError, NotImplementedError):
            return
        close(theirs, known, tolerance)


@pytest.mark.parametrize("name", ["LSTM", "layer norm"])
def test_a_layer_can_be_linearized(name):
    layer, x = layer_of(name), numbers(2, 1, INPUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # linearize is new, and says so
        close(linearize(out_of(layer), x)[1](x.cos()), jvp(readable(layer), (x,), (x.cos(),))[1])


@every_layer
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=["stacked", "per sample", "both"])
def test_gradients_of_weights_under_vmap(name, axes):
    models = [layer_of(name, seed) for seed in range(3)]
    stacked, _ = stack_module_state(models)
    xs = numbers(3, STEPS, BATCH, INPUT)

    def loss(w, x):
        return functional_call(models[0], w, (x,))[0].sin().sum()

    w = {n: p.detach() for n, p in (stacked if axes[0] == 0 else dict(models[0].named_parameters())).items()}
    ours = vmap(grad(loss), axes)(w, xs if axes[1] == 0 else xs[0])
    for k in range(3):
        model, x = models[k if axes[0] == 0 else 0], xs[k if axes[1] == 0 else 0]
        own = torch.autograd.grad(
            readable(model)(x).sin().sum(), list(model.parameters()), allow_unused=True, materialize_grads=True
        )
        for (name_, _), g in zip(model.named_parameters(), own, strict=True):
            close(ours[name_][k], g)


@every_variant
def test_the_jacobian_of_weights(name):
    layer, x = layer_of(name), numbers(2, 1, INPUT)
    weights = {n: p.detach() for n, p in layer.named_parameters()}

    def f(w):
        return functional_call(layer, w, (x,))[0]

    for n, jacobian in jacrev(f)(weights).items():
        close(jacobian, jacfwd(f)(weights)[n])

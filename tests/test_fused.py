"""The fused sweep: against ``torch.nn``, finite differences, the readable loop, and itself in pieces."""

import copy
import io
import pickle
from types import SimpleNamespace

import pytest
import torch
from agreement import agree
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from lstm_lib import cells, fused
from lstm_lib.recurrent import GRU, LSTM, RNN
from lstm_lib.unroll import run

INPUT, HIDDEN, BATCH = 3, 4, 2
F64 = {"dtype": torch.float64}
PLAIN = [
    (nn.LSTM, {}),
    (nn.LSTM, {"bias": False}),
    (nn.GRU, {}),
    (nn.GRU, {"bias": False}),
    (nn.RNN, {"nonlinearity": "tanh"}),
    (nn.RNN, {"nonlinearity": "relu"}),
    (nn.RNN, {"bias": False}),
]
WITHOUT = ("input", "forget", "output", "input_activation", "output_activation")
VARIANTS = [
    {"peephole": True},
    {"coupled": True},
    {"layer_norm": True},
    {"zoneout": (0.4, 0.3)},
    {"variational_dropout": 0.4},
    *({"without": {name}} for name in WITHOUT),
    {"peephole": True, "layer_norm": True, "zoneout": (0.4, 0.3), "variational_dropout": 0.4},
    {"coupled": True, "peephole": True},
    {"coupled": True, "layer_norm": True, "zoneout": (0.4, 0.0), "without": {"output"}},
    {"peephole": True, "without": {"input", "output"}, "variational_dropout": 0.4},
    {"peephole": True, "layer_norm": True, "without": {"output_activation"}, "zoneout": (0.0, 0.3)},
    {"layer_norm": True, "without": set(WITHOUT)},
]
LAYERS = [{"weight_drop": 0.4}, {"residual": True}, {"peephole": True, "bidirectional": True, "num_layers": 2}]


def name_of(value):
    if isinstance(value, dict):
        shown = {name: sorted(v) if isinstance(v, set) else v for name, v in value.items()}
        return "+".join(name + ("" if v is True else f"={v}") for name, v in shown.items()) or "plain"
    return getattr(value, "__name__", None)


variants = pytest.mark.parametrize("options", VARIANTS, ids=name_of)
units = pytest.mark.parametrize(("unit", "options"), PLAIN, ids=name_of)


@pytest.fixture
def small_blocks(request, monkeypatch):
    """Two steps to a block, or as many as a test asks for: a sequence of five has three."""
    monkeypatch.setattr(fused, "_block_length", lambda x, numbers: getattr(request, "param", 2))


block_sizes = pytest.mark.parametrize("small_blocks", [1, 2], indirect=True)


def numbers(*shape):
    return torch.randn(shape, dtype=torch.float64)


def layer_of(unit=LSTM, seed=0, **options):
    """In double precision, with gains and biases that are not the neutral ones of the start."""
    torch.manual_seed(seed)
    layer = unit(INPUT, HIDDEN, **{**F64, **options})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


def arguments(layer, seq_len):
    """cell, w, x, state, masks: of the first layer, with leaves that take gradients."""
    cell = cells.of(layer)
    x = numbers(seq_len, BATCH, INPUT).requires_grad_()
    state = tuple(numbers(BATCH, HIDDEN).requires_grad_() for _ in cell.states)
    return cell, cell.weights(layer), x, state, cell.masks(x, HIDDEN, True)


def gradients(values, leaves):
    torch.manual_seed(1)
    loss = sum((v * torch.randn(v.shape, dtype=v.dtype)).sum() for v in values)  # whatever v's strides are
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(s) if g is None else g for s, g in zip(leaves, grads, strict=True)]


# Numbers


@units
@pytest.mark.parametrize("seq_len", [1, 2, 5, 6])
@pytest.mark.parametrize("small_blocks", [1, 2, 1000], indirect=True)
def test_plain_units_equal_torch(unit, options, seq_len, small_blocks):
    layer = layer_of(unit, **options)
    cell, w, x, state, _ = arguments(layer, seq_len)
    steps = fused.sweep(cell, w, x, state)
    assert tuple(steps) == cell.states
    hx = tuple(s[None] for s in state)
    out, last = layer(x, hx if len(hx) > 1 else hx[0])
    last = [s[0] for s in (last if isinstance(last, tuple) else (last,))]
    ours, theirs = [steps["h"], *(steps[name][-1] for name in cell.states)], [out, *last]
    agree(ours, theirs)
    leaves = [x, *state, *layer.parameters()]
    agree(gradients(ours, leaves), gradients(theirs, leaves))
    agree(gradients(ours[-1:], leaves), gradients(theirs[-1:], leaves))  # c alone, of an LSTM


def by_loop(cell, w, x, state, masks):
    """Autograd over ``cell.step``."""
    history = []
    for t, x_t in enumerate(cell.project(x, w)):
        state, gates = cell.step(x_t, state, w, **{name: mask[t] for name, mask in masks.items()})
        history.append(gates + state)
    return dict(zip(cell.gates + cell.states, map(torch.stack, zip(*history, strict=True)), strict=True))


@variants
@pytest.mark.parametrize("seq_len", [1, 5])
@block_sizes
def test_variants_equal_the_loop_over_several_blocks(options, seq_len, small_blocks):
    layer = layer_of(**options)
    cell, w, x, state, masks = arguments(layer, seq_len)
    steps = fused.sweep(cell, w, x, state, masks, keep_gates=True)
    loop = by_loop(cell, w, x, state, masks)
    assert steps.keys() == loop.keys()
    agree([steps[name] for name in loop], list(loop.values()))
    leaves = [x, *state, *layer.parameters()]
    for chosen in (("h", "c"), ("h",), ("c",)):  # every state of every step, or one of them alone
        ours, theirs = [steps[name] for name in chosen], [loop[name] for name in chosen]
        agree(gradients(ours, leaves), gradients(theirs, leaves))
    assert not any(steps[name].requires_grad for name in cell.gates)
    with torch.no_grad():
        without = fused.sweep(cell, w, x, state, masks)
        kept = fused.sweep(cell, w, x, state, masks, keep_gates=True)
    agree([without["h"], without["c"]], [loop["h"], loop["c"]])
    agree([kept[name] for name in loop], list(loop.values()))


@units
def test_gates_of_plain_units(unit, options, small_blocks):
    cell, w, x, state, masks = arguments(layer_of(unit, **options), 5)
    steps, loop = fused.sweep(cell, w, x, state, keep_gates=True), by_loop(cell, w, x, state, masks)
    assert steps.keys() == loop.keys()
    agree([steps[name] for name in loop], list(loop.values()))
    assert not any(steps[name].requires_grad for name in cell.gates)


def test_the_cell_of_1997_equals_the_loop():
    layer = layer_of(nn.LSTM)
    _, w, x, state, _ = arguments(layer, 5)
    cell = cells.LSTM1997()
    ours, theirs = fused.sweep(cell, w, x, state), by_loop(cell, w, x, state, {})
    leaves = [x, *state, *layer.parameters()]
    agree(ours.values(), [theirs["h"], theirs["c"]])
    agree(gradients(list(ours.values()), leaves), gradients([theirs["h"], theirs["c"]], leaves))


@pytest.mark.parametrize(
    ("unit", "options"), [*PLAIN[:5], *((LSTM, options) for options in VARIANTS)], ids=name_of
)
@block_sizes
def test_gradcheck(unit, options, small_blocks):
    layer = layer_of(unit, **options)
    cell, w, x, state, masks = arguments(layer, 3)
    names = [name for name, value in vars(w).items() if value is not None]

    def function(x, *rest):
        state, weights = rest[: len(cell.states)], rest[len(cell.states) :]
        given = copy.copy(w)
        vars(given).update(zip(names, weights, strict=True))
        return tuple(fused.sweep(cell, given, x, state, masks).values())

    leaves = [x, *state, *(getattr(w, name).detach().requires_grad_() for name in names)]
    assert torch.autograd.gradcheck(function, leaves, fast_mode=False)


@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=name_of)
def test_only_the_gradients_that_are_asked_for(options):
    """Frozen weights, or an input that is data: the other gradients stay what they are."""
    layer = layer_of(**options)
    cell, w, x, state, masks = arguments(layer, 4)
    everything = [x, *state, *layer.parameters()]
    expected = gradients(list(fused.sweep(cell, w, x, state, masks).values()), everything)
    for k, leaf in enumerate(everything):
        for other in everything:
            other.requires_grad_(other is leaf)
        steps = fused.sweep(cell, w, x, state, masks)
        if steps["h"].requires_grad:  # not so for a parameter that a variant does not read
            agree(gradients(list(steps.values()), [leaf]), [expected[k]])


def test_an_empty_batch():
    for unit, options in [*PLAIN, *((LSTM, options) for options in VARIANTS)]:
        layer = layer_of(unit, **options)
        cell, x = cells.of(layer), numbers(5, 0, INPUT).requires_grad_()
        state = tuple(numbers(0, HIDDEN) for _ in cell.states)
        steps = fused.sweep(cell, cell.weights(layer), x, state, cell.masks(x, HIDDEN, True))
        assert steps["h"].shape == (5, 0, HIDDEN)
        grads = gradients([steps["h"]], [x, layer.weight_hh_l0])
        assert grads[0].shape == x.shape
        assert not grads[1].any()


def test_inputs_need_not_be_contiguous():
    layer = layer_of(peephole=True)
    cell, w, x, state, _ = arguments(layer, 5)
    other = x.detach().permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not other.is_contiguous()
    expanded = x.detach()[:1].expand(5, -1, -1)
    for x in (other, expanded):
        agree(fused.sweep(cell, w, x, state).values(), fused.sweep(cell, w, x.contiguous(), state).values(), 0)
    steps = fused.sweep(cell, w, other, state)
    steps["h"].sum().backward()  # an expanded gradient


def test_the_callers_tensors_stay_as_they_are():
    for options in ({}, *VARIANTS):
        cell, w, x, state, masks = arguments(layer_of(**options), 5)
        tensors = [x, *state, *masks.values(), *(v for v in vars(w).values() if v is not None)]
        before = [t.detach().clone() for t in tensors]
        steps = fused.sweep(cell, w, x, state, masks)
        outgoing = [torch.randn_like(s) for s in steps.values()]
        copies = [g.clone() for g in outgoing]
        torch.autograd.backward(list(steps.values()), outgoing)
        agree(tensors + outgoing, before + copies, 0)


# What is kept


@pytest.mark.parametrize("options", [{}, *VARIANTS[:4], VARIANTS[10]], ids=name_of)
def test_nothing_is_saved_without_gradients(options, small_blocks, monkeypatch):
    layer = layer_of(**options)
    cell, w, x, state, masks = arguments(layer, 50)
    saved, seen = [], []
    whole = fused._Sweep.forward
    monkeypatch.setattr(
        fused._Sweep, "forward", staticmethod(lambda *inputs: (seen.append(whole(*inputs)), seen[-1])[1])
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        with torch.no_grad():
            steps = fused.sweep(cell, w, x, state, masks)
        assert not saved
        assert not any(s.requires_grad for s in steps.values())
        assert len(seen[-1][-1]) == 2  # the gates of one block, again and again
        with torch.no_grad():
            fused.sweep(cell, w, x, state, masks, keep_gates=True)
        assert not saved
        assert len(seen[-1][-1]) == 50
        frozen = {name: p if p is None else p.detach() for name, p in vars(w).items()}
        fused.sweep(cell, SimpleNamespace(**frozen), x.detach(), tuple(s.detach() for s in state), masks)
        assert not saved
        assert len(seen[-1][-1]) == 2  # gradients are on, but nothing here learns
        fused.sweep(cell, w, x, state, masks)
        assert saved


@pytest.mark.parametrize(("unit", "options"), [*PLAIN, *((LSTM, o) for o in VARIANTS)], ids=name_of)
def test_a_second_derivative_is_that_of_the_loop(unit, options):
    layer = layer_of(unit, **options)
    cell, w, x, state, masks = arguments(layer, 4)
    leaves = [x, *state, *layer.parameters()]

    def penalty(steps):
        total = sum((s * s.detach().cos()).sum() for s in steps.values())
        grads = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        return sum(g.square().sum() for g in grads)

    loop = by_loop(cell, w, x, state, masks)
    ours, theirs = (
        torch.autograd.grad(penalty(steps), leaves, allow_unused=True, materialize_grads=True)
        for steps in (fused.sweep(cell, w, x, state, masks), {name: loop[name] for name in cell.states})
    )
    agree(ours, theirs)


def test_backward_twice_gives_the_same():
    for options in ({}, *VARIANTS):
        layer = layer_of(**options)
        cell, w, x, state, masks = arguments(layer, 5)
        steps = list(fused.sweep(cell, w, x, state, masks).values())
        leaves = [x, *state, *layer.parameters()]
        agree(gradients(steps, leaves), gradients(steps, leaves), 0)


def test_refusals():
    _, w, x, state, _ = arguments(layer_of(nn.LSTM), 2)
    with pytest.raises(TypeError, match="cell must be an LSTM, a GRU or an RNN, got Cell"):
        fused.sweep(cells.Cell(), w, x, state)
    derived = type("Other", (cells.LSTM,), {})()  # its step may be another
    with pytest.raises(TypeError, match="got Other"):
        fused.sweep(derived, w, x, state)
    layer = nn.LSTM(INPUT, HIDDEN, proj_size=2, **F64)
    with pytest.raises(TypeError, match="proj_size"):
        fused.sweep(cells.LSTM(), cells.LSTM().weights(layer), x, (state[0][:, :2], state[1]))


# Replicas


REPLICAS = 3
OURS = [(LSTM, {}), (GRU, {}), (RNN, {}), (RNN, {"nonlinearity": "relu"}), (LSTM, {"bias": False})]
OURS += [(LSTM, options) for options in VARIANTS + LAYERS]


@pytest.mark.parametrize(("unit", "options"), OURS, ids=name_of)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", ["eval", "training"])
def test_replicas_equal_each_alone(unit, options, shared, mode, monkeypatch):
    drawn = any("drop" in name or name == "zoneout" for name in options)
    if mode == "training" and not drawn:
        pytest.skip("nothing is drawn")
    monkeypatch.setattr(fused, "BLOCK", 2 * REPLICAS * BATCH * 5 * HIDDEN * 8)
    models = [layer_of(unit, seed=k, **options).train(mode == "training") for k in range(REPLICAS)]
    stacked, buffers = stack_module_state(models)
    template = copy.deepcopy(models[0])
    x = numbers(5, BATCH, INPUT) if shared else numbers(REPLICAS, 5, BATCH, INPUT)
    x.requires_grad_()
    rows = template.num_layers * (1 + template.bidirectional)
    hx = tuple(numbers(REPLICAS, rows, BATCH, HIDDEN).requires_grad_() for _ in cells.of(template).states)

    def call(weights, fixed, x, *hx):
        out, state = functional_call(template, (weights, fixed), (x, hx if len(hx) > 1 else hx[0]))
        return out, *(state if isinstance(state, tuple) else (state,))

    together = vmap(call, (0, 0, None if shared else 0, *(0 for _ in hx)), randomness="same")
    torch.manual_seed(7)
    ours = together(stacked, buffers, x, *hx)
    theirs = []
    for k, model in enumerate(models):
        torch.manual_seed(7)  # randomness="same": each replica draws what it draws alone
        state = tuple(s[k] for s in hx)
        out, last = model(x if shared else x[k], state if len(state) > 1 else state[0])
        theirs.append((out, *(last if isinstance(last, tuple) else (last,))))
    theirs = [torch.stack(values) for values in zip(*theirs, strict=True)]
    agree(ours, theirs)
    names = list(stacked)
    ours_by = gradients(ours, [x, *hx, *stacked.values()])
    own = gradients(theirs, [x, *hx, *(dict(m.named_parameters())[name] for m in models for name in names)])
    n = 1 + len(hx)
    agree(ours_by[:n], own[:n])
    per_model = [own[n + k * len(names) : n + (k + 1) * len(names)] for k in range(REPLICAS)]
    agree(ours_by[n:], [torch.stack(grads) for grads in zip(*per_model, strict=True)])


def test_replicas_draw_differently_if_asked_to():
    layer = layer_of(zoneout=(0.5, 0.5), variational_dropout=0.5)
    stacked, _ = stack_module_state([layer] * REPLICAS)
    x = numbers(5, BATCH, INPUT)
    together = vmap(lambda w: functional_call(layer, w, (x,))[0], randomness="different")
    out = together(stacked)
    assert not torch.equal(out[0], out[1])
    out.sum().backward()


@pytest.mark.parametrize(
    "options", [{"peephole": True}, {"zoneout": (0.2, 0.2)}, {"layer_norm": True}], ids=name_of
)
def test_replicas_of_states_and_inputs_under_the_same_weights(options):
    layer = layer_of(**options).eval()
    x, h = numbers(REPLICAS, 5, BATCH, INPUT).requires_grad_(), numbers(1, BATCH, HIDDEN)
    call = vmap(lambda x: layer(x, (h, h))[0])
    leaves = [x, *layer.parameters()]
    ours, theirs = call(x), torch.stack([layer(one, (h, h))[0] for one in x])
    agree([ours], [theirs])
    agree(gradients([ours], leaves), gradients([theirs], leaves))


def test_vmap_within_vmap():
    layer, x = layer_of(peephole=True), numbers(2, 2, 5, BATCH, INPUT).requires_grad_()
    ours, theirs = vmap(vmap(lambda x: layer(x)[0]))(x), layer(x.flatten(0, 1).movedim(0, 1).flatten(1, 2))[0]
    theirs = theirs.unflatten(1, (4, BATCH)).movedim(1, 0).unflatten(0, (2, 2))
    agree([ours], [theirs])
    agree(gradients([ours], [x]), gradients([theirs], [x]))


# Around a layer


@pytest.mark.parametrize(
    ("unit", "options"), [(nn.LSTM, {}), (nn.GRU, {}), (nn.RNN, {}), *((LSTM, o) for o in VARIANTS)], ids=name_of
)
def test_autocast(unit, options):
    def both(seed):
        layer = layer_of(unit, seed, dtype=torch.float32, **options).eval()
        x = torch.randn(6, BATCH, INPUT, requires_grad=True)
        leaves = [x, *layer.parameters()]

        def call():
            steps = run(cells.of(layer), layer, x, sweep=fused.sweep, keep_gates=False)[2]
            return list(steps.values())

        plain = call()
        with torch.autocast("cpu", torch.bfloat16):
            low = call()
            assert torch.is_autocast_enabled("cpu")  # as before
        assert all(s.dtype == torch.bfloat16 for s in low)
        low = [s.float() for s in low]
        grads = gradients(low, leaves), gradients(plain, leaves)
        assert all(g.dtype == torch.float32 for g in grads[0])  # as the leaf is
        return zip([*low, *grads[0]], [*plain, *grads[1]], strict=True)

    # The median of seeds: a layer norm of four numbers that happen to be alike enlarges what rounding did.
    assert all(error <= 0.05 for error in median_errors(both))


@pytest.mark.parametrize("options", VARIANTS, ids=name_of)
def test_autocast_of_a_layer(options):
    def both(seed):
        layer = layer_of(seed=seed, dtype=torch.float32, bidirectional=True, num_layers=2, **options)
        x = torch.randn(6, BATCH, INPUT)
        torch.manual_seed(0)
        plain, _ = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.manual_seed(0)
            low, (h_n, c_n) = layer(x)
            assert low.dtype == h_n.dtype == c_n.dtype == torch.bfloat16
        low.float().sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in layer.parameters())
        return [(low.float(), plain)]

    assert all(error <= 0.05 for error in median_errors(both))


def median_errors(both, seeds=range(7)):
    """Of each pair of tensors that ``both(seed)`` returns, how far apart they are."""
    errors = [[((a - b).norm() / (b.norm() + 1e-6)).item() for a, b in both(seed)] for seed in seeds]
    return torch.tensor(errors).median(0).values


class Model(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(HIDDEN, 1, **F64)

    def forward(self, x):
        return self.head(self.layer(x)[0])


@pytest.mark.parametrize("options", [VARIANTS[0], VARIANTS[2], VARIANTS[10], *LAYERS[:2]], ids=name_of)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(options, backend):
    torch._dynamo.reset()
    model, x = Model(layer_of(**options)).eval(), numbers(5, BATCH, INPUT).requires_grad_()
    expected = model(x)
    compiled = torch.compile(model, backend=backend)(x)
    leaves = [x, *model.parameters()]
    agree([compiled], [expected])
    agree(gradients([compiled], leaves), gradients([expected], leaves))


@pytest.mark.parametrize("options", [{"peephole": True}, {"layer_norm": True}, {"residual": True}], ids=name_of)
def test_export(options):
    model, x = Model(layer_of(**options)).eval(), numbers(5, BATCH, INPUT)
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        agree([exported.module()(x)], [model(x)])


@pytest.mark.parametrize("options", [*VARIANTS, *LAYERS], ids=name_of)
def test_copies_pickles_and_state_dicts(options):
    layer = layer_of(**options).eval()
    x = numbers(5, BATCH, INPUT)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = layer_of(seed=9, **options).eval()
    assert not torch.equal(loaded(x)[0], layer(x)[0])
    loaded.load_state_dict(torch.load(file, weights_only=True), strict=True)
    for other in (loaded, copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is LSTM
        agree([other(x)[0]], [layer(x)[0]], 0)
        assert repr(other) == repr(layer)
    agree([layer.float()(x.float())[0].double()], [loaded(x)[0]], 1e-4)  # other dtypes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=name_of)
def test_on_a_gpu(options):
    layer = layer_of(**options).eval()
    x = numbers(5, BATCH, INPUT)
    expected, _, _ = run(cells.of(layer), layer, x)
    leaves = list(layer.parameters())
    theirs = gradients([expected], leaves)
    cell = cells.of(layer)
    there = layer.cuda()
    state = tuple(torch.zeros(BATCH, HIDDEN, device="cuda", **F64) for _ in cell.states)
    masks = cell.masks(x.cuda(), HIDDEN, False)
    ours = fused.sweep(cell, cell.weights(there), x.cuda(), state, masks)["h"]
    agree([ours.cpu()], [expected])
    (ours * 1).sum().backward()
    assert len(theirs) == len(leaves)

"""sLSTM and mLSTM against loops written from the paper's unstabilized equations, and against its authors' code."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, hessian, stack_module_state, vmap
from torch.nn.functional import scaled_dot_product_attention

import lstm_lib
from lstm_lib.xlstm import MLSTM, SLSTM

F64 = {"dtype": torch.float64}
MODES = ["recurrent", "parallel", "chunked"]
LAYERS = [SLSTM, *MODES]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def make(kind, *sizes, **options):
    """A layer; for mLSTM ``kind`` is the mode."""
    unit, mode = (SLSTM, {}) if kind is SLSTM else (MLSTM, {"mode": kind, "chunk_size": 3})
    return unit(*sizes, **mode, **(F64 | options))


def spread(layer, size=1.5):
    """Weights so large that gates open and close."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
    return layer


def slstm_by_hand(layer, x):
    """Beck et al. 2024, section 2.2, without m, each unit by itself."""
    W, R, b = (p.detach().numpy() for p in (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0))
    H, d, out = layer.hidden_size, layer.hidden_size // layer.num_heads, []
    for sequence in x.numpy().swapaxes(0, 1):
        h, c, n, hs = np.zeros(H), np.zeros(H), np.zeros(H), []
        for x_t in sequence:
            new = np.zeros(H)
            for u in range(H):
                head = h[u // d * d : u // d * d + d]
                i, f, z, o = (W[g * H + u] @ x_t + R[g * H + u] @ head + b[g * H + u] for g in range(4))
                i, f = np.exp(i), np.exp(f) if layer.forget == "exp" else sigmoid(f)
                c[u], n[u] = f * c[u] + i * np.tanh(z), f * n[u] + i
                new[u] = sigmoid(o) * c[u] / n[u]
            h = new
            hs.append(h)
        out.append(hs)
    return torch.tensor(np.array(out)).transpose(0, 1)


def mlstm_by_hand(layer, x):
    """Section 2.3, without m, with outer products."""
    W, b = (p.detach().numpy() for p in (layer.weight_ih_l0, layer.bias_ih_l0))
    H, N = layer.hidden_size, layer.num_heads
    d, out = H // N, []
    for sequence in x.numpy().swapaxes(0, 1):
        C, n, hs = np.zeros((N, d, d)), np.zeros((N, d)), []
        for x_t in sequence:
            a, h = W @ x_t + b, []
            for head in range(N):
                q, k, v, o = (a[part * H + head * d :][:d] for part in range(4))
                i, f = np.exp(a[4 * H + head]), a[4 * H + N + head]
                f, k = np.exp(f) if layer.forget == "exp" else sigmoid(f), k / np.sqrt(d)
                C[head] = f * C[head] + i * np.outer(v, k)
                n[head] = f * n[head] + i * k
                h.append(sigmoid(o) * (C[head] @ q) / max(abs(n[head] @ q), 1))
            hs.append(np.concatenate(h))
        out.append(hs)
    return torch.tensor(np.array(out)).transpose(0, 1)


sizes = {
    "seq_len": st.integers(1, 20),
    "batch": st.integers(1, 3),
    "heads": st.integers(1, 3),
    "d": st.integers(1, 4),
    "forget": st.sampled_from(["sigmoid", "exp"]),
    "seed": st.integers(0, 99),
}


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(LAYERS), **sizes)
def test_the_paper_s_equations(kind, seq_len, batch, heads, d, forget, seed):
    torch.manual_seed(seed)
    layer = spread(make(kind, 3, heads * d, heads, forget=forget))
    x = torch.randn(seq_len, batch, 3, **F64)
    by_hand = slstm_by_hand if kind is SLSTM else mlstm_by_hand
    torch.testing.assert_close(layer(x)[0], by_hand(layer, x), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(chunk=st.integers(1, 25), cut=st.integers(0, 19), **sizes)
def test_the_three_forms_of_mlstm_are_one(chunk, cut, seq_len, batch, heads, d, forget, seed):
    """Outputs, states and gradients, from a state that was handed on."""
    torch.manual_seed(seed)
    layer = MLSTM(3, heads * d, heads, forget=forget, chunk_size=chunk, **F64)
    x = torch.randn(seq_len, batch, 3, **F64, requires_grad=True)
    results = []
    for mode in MODES:
        layer.mode, hx, outs = mode, None, []
        for part in x.split([cut, seq_len - cut]) if 0 < cut < seq_len else [x]:
            out, hx = layer(part, hx)
            outs.append(out)
        total = torch.cat(outs)
        gradients = torch.autograd.grad(total.square().sum(), [x, *layer.parameters()])
        results.append(((total, *hx), gradients))
    (values, slopes), *others = results
    for other, slope in others:
        torch.testing.assert_close(other, values, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(slope, slopes, rtol=1e-6, atol=1e-8)  # through quotients of small sums


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@pytest.mark.parametrize("kind", LAYERS)
def test_derivatives_are_those_of_finite_differences(kind, forget):
    layer = make(kind, 2, 4, 2, forget=forget)
    names, values = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(5, 2, 2, **F64)
    start = [s.detach().requires_grad_() for s in layer(x)[1]]

    def f(x, states, *values):
        out, states = functional_call(layer, dict(zip(names, values, strict=True)), (x, states))
        return out, *states[:-1]  # m moves what is stored, and is a constant

    def with_m_fixed(x, *rest):
        return f(x, (*rest[: len(start) - 1], start[-1].detach()), *rest[len(start) - 1 :])[0]

    inputs = [t.detach().requires_grad_() for t in (x, *start[:-1], *values)]
    assert torch.autograd.gradcheck(with_m_fixed, inputs)
    if kind is not SLSTM or forget == "sigmoid":
        assert torch.autograd.gradgradcheck(with_m_fixed, inputs, fast_mode=True)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_state_handed_on_goes_on(kind):
    layer, x = make(kind, 3, 4, 2), torch.randn(11, 2, 3, **F64)
    out, last = layer(x)
    first, states = layer(x[:4])
    rest, end = layer(x[4:], states)
    torch.testing.assert_close((torch.cat([first, rest]), end), (out, last))


@pytest.mark.parametrize("kind", LAYERS)
def test_layouts(kind):
    layer, x = make(kind, 3, 4, 2), torch.randn(7, 2, 3, **F64)
    out, states = layer(x)
    turned = copy.deepcopy(layer)
    turned.batch_first = True
    torch.testing.assert_close(turned(x.transpose(0, 1))[0].transpose(0, 1), out)
    alone, alone_states = layer(x[:, 1])
    assert alone.shape == (7, 4)
    torch.testing.assert_close(alone, out[:, 1])
    again, _ = layer(x[:, 1], alone_states)
    torch.testing.assert_close(again, layer(x, states)[0][:, 1])


@pytest.mark.parametrize("size", [100.0, -100.0, 1000.0])
@pytest.mark.parametrize("kind", LAYERS)
def test_gates_beyond_the_range_of_float32(kind, size):
    """Where exp(ĩ) is infinite or zero, outputs and gradients are those of float64, which holds exp(±100)."""
    torch.manual_seed(0)
    single = make(kind, 3, 4, 2, dtype=torch.float32)
    with torch.no_grad():
        start = slice(0, 4) if kind is SLSTM else slice(16, 18)
        single.bias_ih_l0[start] += size
    double, x = copy.deepcopy(single).double(), torch.randn(9, 2, 3)
    out, _ = single(x)
    wanted, _ = double(x.double())
    torch.testing.assert_close(out.double(), wanted, rtol=1e-3, atol=1e-5)
    if abs(size) == 100:
        by_hand = slstm_by_hand if kind is SLSTM else mlstm_by_hand
        torch.testing.assert_close(wanted, by_hand(double, x.double()))
    for p in torch.autograd.grad(out.square().sum(), list(single.parameters())):
        assert p.isfinite().all()


def test_a_query_of_zero_reads_zero():
    layer = MLSTM(2, 3)
    with torch.no_grad():
        layer.weight_ih_l0[:3], layer.bias_ih_l0[:3], layer.bias_ih_l0[-2] = 0.0, 0.0, 200.0
    assert (layer(torch.randn(5, 1, 2))[0] == 0).all()


def test_slstm_is_a_softmax_over_time():
    """c / n is the mean of all z with weights exp(ĩ_s + log f_{s+1} + … + log f_t): attention with one value."""
    torch.manual_seed(1)
    layer = spread(SLSTM(3, 1, **F64))
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    x = torch.randn(8, 3, **F64)
    i, f, z, o = (x @ layer.weight_ih_l0.T + layer.bias_ih_l0).T
    total = torch.nn.functional.logsigmoid(f).cumsum(0)
    bias = (i - total)[None, :] + total[:, None]
    bias = bias.masked_fill(torch.ones(8, 8, dtype=torch.bool).triu(1), -torch.inf)
    nothing = torch.zeros(1, 8, 1, **F64)
    mean = scaled_dot_product_attention(nothing, nothing, torch.tanh(z)[None, :, None], attn_mask=bias)
    torch.testing.assert_close(layer(x)[0], torch.sigmoid(o)[:, None] * mean[0])
    c, n = layer(x)[1][1:3]
    assert n.min() >= 1
    assert (c.abs() <= n).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_replicas_and_second_derivatives(kind):
    layers = [make(kind, 3, 4, 2) for _ in range(3)]
    x = torch.randn(3, 5, 2, 3, **F64)
    state = stack_module_state(layers)
    outs = vmap(lambda p, b, x: functional_call(layers[0], (p, b), (x,))[0])(*state, x)
    for out, layer, x_one in zip(outs, layers, x, strict=True):
        torch.testing.assert_close(out, layer(x_one)[0])
    h = hessian(lambda x: layers[0](x)[0][-1].sum())(x[0, :, :1])
    assert h.isfinite().all()
    assert h.abs().max() > 0


@pytest.mark.parametrize("kind", LAYERS)
def test_autocast_keeps_the_weights_dtype(kind):
    layer, x = make(kind, 3, 4, dtype=torch.float32), torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = layer(x)
        half, _ = layer(x.bfloat16())
    torch.testing.assert_close(out, layer(x)[0])
    torch.testing.assert_close(half, out, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("unit", "options", "message"),
    [
        (SLSTM, {"hidden_size": 5, "num_heads": 2}, "num_heads must divide hidden_size = 5, got 2"),
        (SLSTM, {"num_heads": 0}, "num_heads must be at least 1"),
        (SLSTM, {"forget": "relu"}, "forget must be 'sigmoid' or 'exp', got 'relu'"),
        (MLSTM, {"mode": "fast"}, "mode must be 'recurrent', 'parallel' or 'chunked', got 'fast'"),
        (MLSTM, {"chunk_size": 0}, "chunk_size must be at least 1"),
        (MLSTM, {"batch_first": 1}, "batch_first must be True or False"),
        (MLSTM, {"dtype": torch.int64}, "dtype must be a floating-point type"),
        (MLSTM, {"input_size": 2.0}, "input_size must be an int"),
    ],
)
def test_options_without_sense_are_refused(unit, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        unit(**({"input_size": 3, "hidden_size": 4} | options))


@pytest.mark.parametrize("kind", LAYERS)
def test_inputs_that_do_not_fit_are_refused(kind):
    layer, x = make(kind, 3, 4, dtype=torch.float32), torch.randn(5, 2, 3)
    states = layer(x)[1]
    for wrong, message in [
        ((x[..., :2],), r"x must be \(seq_len, batch, 3\) or unbatched .* got \(5, 2, 2\)"),
        ((x[:0],), "seq_len at least 1"),
        ((x.double(),), "x must be torch.float32 as the layer is, got torch.float64"),
        ((x.tolist(),), "x must be a Tensor, got list"),
        ((x.to("meta"),), "x must be on cpu as the layer is, got meta"),
        ((x, states[0]), r"hx must be a tuple \(.*\) of Tensors, got Tensor"),
        ((x, states[:-1]), "hx must be a tuple"),
        ((x, (*states[:-1], states[-1][:, :1])), r"m must be \(1, 2, .* got \(1, 1"),
        ((x, (*states[:-1], states[-1].double())), "m must be torch.float32"),
        ((x, (*states[:-1], None)), "m must be a Tensor, got NoneType"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            layer(*wrong)


def test_it_is_found_by_name_and_tells_its_arguments():
    assert lstm_lib.xlstm.MLSTM is MLSTM
    assert "xlstm" in dir(lstm_lib)
    assert repr(MLSTM(3, 4, 2, True)) == "MLSTM(3, 4, num_heads=2, forget='sigmoid', batch_first=True)"


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_mlstm(seed):
    """Their functions, without the 1e-6 that they add to the divisor."""
    backends = pytest.importorskip("xlstm.blocks.mlstm.backends")
    torch.manual_seed(seed)
    layer, x = spread(MLSTM(3, 8, 2, **F64), 1.0), torch.randn(24, 2, 3, **F64)
    *wide, i, f = (x @ layer.weight_ih_l0.T + layer.bias_ih_l0).split([8] * 4 + [2] * 2, -1)
    q, k, v, o = (t.unflatten(-1, (2, 4)).permute(1, 2, 0, 3) for t in wide)  # (batch, heads, seq_len, 4)
    i, f = (t.permute(1, 2, 0) for t in (i, f))
    parallel = backends.parallel_stabilized_simple(q, k, v, i[..., None], f[..., None], eps=0.0)
    chunked = backends.chunkwise_simple(q, k, v, i, f, chunk_size=8, eps=0.0)
    states = q.new_zeros(2, 2, 4, 4), q.new_zeros(2, 2, 4, 1), q.new_zeros(2, 2, 1, 1)
    steps = []
    for t in range(24):
        now = (part[:, :, t : t + 1].clone() for part in (q, k, v))
        gates = (g[:, :, t, None, None] for g in (i, f))
        h, states = backends.recurrent_step_stabilized_simple(*states, *now, *gates, eps=0.0)
        steps.append(h)
    for theirs in (parallel, chunked, torch.cat(steps, 2)):
        theirs = (torch.sigmoid(o) * theirs).permute(2, 0, 1, 3).flatten(-2)
        for mode in MODES:
            layer.mode, layer.chunk_size = mode, 5
            torch.testing.assert_close(layer(x)[0], theirs)


@pytest.mark.parametrize("seed", range(3))
def test_the_authors_slstm(seed):
    vanilla = pytest.importorskip("xlstm.blocks.slstm.src.vanilla.slstm")
    torch.manual_seed(seed)
    layer, x = spread(SLSTM(3, 6, **F64), 1.0), torch.randn(24, 2, 3, **F64)
    states, hs = torch.zeros(4, 2, 6, **F64), []
    for x_t in x:
        W, R = x_t @ layer.weight_ih_l0.T, states[0] @ layer.weight_hh_l0.T
        states, _ = vanilla.slstm_forward_pointwise(W, R, layer.bias_ih_l0, states, {})
        hs.append(states[0])
    out, ours = layer(x)
    torch.testing.assert_close(out, torch.stack(hs))
    torch.testing.assert_close(torch.cat(ours), states)

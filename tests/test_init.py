"""Initialization against its formulas, on the layers' own behaviour where it can be measured."""

import math

import pytest
import torch
from torch import nn

from lstm_lib import init
from lstm_lib.recurrent import LSTM as OUR_LSTM
from lstm_lib.trace import trace


def block(layer, name, k, size, suffix="_l0"):
    return getattr(layer, name + suffix)[k * size : (k + 1) * size]


def bias_sum(layer, k, size, suffix="_l0"):
    return block(layer, "bias_ih", k, size, suffix) + block(layer, "bias_hh", k, size, suffix)


SUFFIXES = ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_forget_bias_sets_the_sum_everywhere_and_nothing_else(value):
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    parameters = list(layer.parameters())
    assert init.forget_bias_(layer, value) is layer
    for suffix in SUFFIXES:
        assert torch.equal(bias_sum(layer, 1, 4, suffix), torch.full((4,), value))
        assert torch.equal(block(layer, "bias_hh", 1, 4, suffix), torch.zeros(4))
    for name, p in layer.named_parameters():
        changed = p != before[name]
        if name.startswith("bias"):
            assert changed[4:8].any()
            changed = torch.cat([changed[:4], changed[8:]])
        assert not changed.any()
    assert all(a is b for a, b in zip(layer.parameters(), parameters, strict=True))
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())


@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0, 6.0])
def test_an_undisturbed_cell_has_the_half_life_of_the_formula(bias):
    """No input, no recurrence, input gate shut: c_k = σ(b)^k c_0, half of it gone after ln 2 / −ln σ(b) steps."""
    layer = nn.LSTM(1, 3, dtype=torch.float64)
    for p in layer.parameters():
        nn.init.zeros_(p)
    init.forget_bias_(layer, bias)
    with torch.no_grad():
        layer.bias_ih_l0[:3] = -1e4  # i = 0
    c_0 = torch.ones(1, 1, 3, dtype=torch.float64)
    c = trace(layer, torch.zeros(600, 1, 1, dtype=torch.float64), (torch.zeros_like(c_0), c_0)).c[0, 0, :, 0, 0]
    half_life = math.log(2) / math.log1p(math.exp(-bias))  # −ln σ(b) = ln(1 + e^−b)
    reached = int((c <= 0.5 + 1e-12).nonzero()[0]) + 1
    assert reached == math.ceil(half_life - 1e-9)


def test_forget_bias_refuses_what_has_none():
    with pytest.raises(TypeError, match="layer must have the gate f, got GRU"):
        init.forget_bias_(nn.GRU(3, 4))
    with pytest.raises(TypeError, match="layer must have the gate f, got RNN"):
        init.forget_bias_(nn.RNN(3, 4))
    with pytest.raises(TypeError, match="got Linear"):
        init.forget_bias_(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="layer has no bias to set: it was made with bias=False"):
        init.forget_bias_(nn.LSTM(3, 4, bias=False))
    with pytest.raises(TypeError, match=r"value must be a number, got 'one' \(str\)"):
        init.forget_bias_(nn.LSTM(3, 4), "one")
    with pytest.raises(ValueError, match="value must be finite, got nan"):
        init.forget_bias_(nn.LSTM(3, 4), math.nan)


def uniform_distance(sample, low, high):
    """Kolmogorov–Smirnov distance of a sample from U(low, high)."""
    u = ((sample.double().sort().values - low) / (high - low)).clamp(0, 1)
    n = len(u)
    return float(torch.max((u - torch.arange(n) / n).abs().max(), (u - torch.arange(1, n + 1) / n).abs().max()))


@pytest.mark.parametrize("unit", [nn.LSTM, OUR_LSTM, nn.GRU])
@pytest.mark.parametrize("max_lag", [10, 1000])
def test_chrono_draws_from_the_papers_distribution(unit, max_lag):
    n = 4000
    layer = unit(1, n, dtype=torch.float64, device="meta").to_empty(device="cpu")
    for p in layer.parameters():
        nn.init.constant_(p, 0.5)
    assert init.chrono_(layer, max_lag, torch.Generator().manual_seed(3)) is layer
    b = bias_sum(layer, 1, n).detach()  # f of i, f, g, o and z of r, z, n
    # e^b ~ U(1, T_max − 1); the distance of 4,000 draws exceeds 1.95 / √n once in 1,000 times
    assert uniform_distance(b.exp(), 1, max_lag - 1) < 1.95 / math.sqrt(n)
    if unit is nn.GRU:
        untouched = [0, 2]
    else:
        assert torch.equal(bias_sum(layer, 0, n), -b)
        untouched = [2, 3]
    for k in untouched:
        assert torch.equal(bias_sum(layer, k, n), torch.ones(n, dtype=torch.float64))
    assert bool((layer.weight_hh_l0[:5] == 0.5).all())


@pytest.mark.parametrize("unit", [nn.LSTM, nn.GRU])
def test_chrono_keeps_for_up_to_max_lag_steps(unit):
    """Which sign the GRU needs: the kept share per step, σ(b), must lie between 1/2 and 1 − 1/T_max."""
    layer = init.chrono_(unit(1, 200), 100)
    for p in (layer.weight_ih_l0, layer.weight_hh_l0):
        nn.init.zeros_(p)
    seen = trace(layer, torch.zeros(1, 1, 1))
    kept = seen.f if unit is nn.LSTM else seen.z
    assert float(kept.min()) >= 0.5
    assert float(kept.max()) <= 1 - 1 / 100 + 1e-6
    assert float(kept.median()) > 0.97  # T near 50
    if unit is nn.LSTM:
        torch.testing.assert_close(seen.i, 1 - seen.f)
    else:  # h_t = (1 − z) n + z h_{t−1}, watched from outside
        h_0 = torch.rand(1, 1, 200) + 1
        n = trace(layer, torch.zeros(1, 1, 1), h_0).n[0]
        seen_kept = (layer(torch.zeros(1, 1, 1), h_0)[1] - n) / (h_0 - n)
        torch.testing.assert_close(seen_kept, kept[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", [nn.LSTM, nn.GRU])
def test_chrono_draws_anew_per_layer_and_again_with_the_seed(unit):
    def biases(seed):
        layer = unit(2, 5, num_layers=2, bidirectional=True)
        init.chrono_(layer, 50, torch.Generator().manual_seed(seed))
        return torch.stack([bias_sum(layer, 1, 5, suffix) for suffix in SUFFIXES])

    first = biases(0)
    assert torch.equal(first, biases(0))
    assert not torch.equal(first, biases(1))
    assert len({tuple(row.tolist()) for row in first}) == 4
    torch.manual_seed(5)
    a = init.chrono_(unit(2, 5), 50).bias_ih_l0
    torch.manual_seed(5)
    assert torch.equal(a, init.chrono_(unit(2, 5), 50).bias_ih_l0)


def test_chrono_refuses_what_it_cannot_set():
    with pytest.raises(TypeError, match="layer must have the gate f, got RNN"):
        init.chrono_(nn.RNN(3, 4), 10)
    with pytest.raises(ValueError, match="layer has no bias to set"):
        init.chrono_(nn.GRU(3, 4, bias=False), 10)
    with pytest.raises(TypeError, match=r"max_lag must be a number, got None \(NoneType\)"):
        init.chrono_(nn.LSTM(3, 4), None)
    for bad in (1, 0, -3, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"max_lag must be a finite number of steps, at least 2, got {bad}"):
            init.chrono_(nn.LSTM(3, 4), bad)


@pytest.mark.parametrize(("unit", "blocks"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_orthogonal_blocks(unit, blocks):
    layer = unit(3, 6, num_layers=2, bidirectional=True, dtype=torch.float64)
    before = layer.weight_ih_l1.detach().clone()
    assert init.orthogonal_recurrent_(layer, torch.Generator().manual_seed(0)) is layer
    seen = []
    for suffix in SUFFIXES:
        for k in range(blocks):
            w = block(layer, "weight_hh", k, 6, suffix)
            torch.testing.assert_close(w @ w.T, torch.eye(6, dtype=torch.float64))
            seen.append(tuple(w.flatten().tolist()))
    assert len(set(seen)) == len(seen)
    assert torch.equal(layer.weight_ih_l1, before)


def test_orthogonal_with_projection_and_refusal():
    layer = init.orthogonal_recurrent_(nn.LSTM(3, 6, proj_size=2))
    for k in range(4):
        w = block(layer, "weight_hh", k, 6)
        torch.testing.assert_close(w.T @ w, torch.eye(2))
    with pytest.raises(TypeError, match="layer must be"):
        init.orthogonal_recurrent_(nn.Linear(3, 3))

"""`attention` against PyTorch's own, against loops over single numbers, and against finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from lstm_lib.attention import AdditiveAttention, DotProductAttention, attend, causal_mask, length_mask
from lstm_lib.checks import InputError

sizes = given(*[st.integers(1, 4)] * 4, st.integers(0, 1000))
few = settings(max_examples=40, deadline=None)
KINDS = [
    lambda q, k: AdditiveAttention(q, k, 5),
    lambda q, k: DotProductAttention(q, k),
    lambda q, k: DotProductAttention(k, k, projected=False),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["additive", "general", "scaled"])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_mask(*shape, seed=0):
    """At least one key is left to each query."""
    mask = draw(*shape, seed=seed) > 0
    mask[..., 0] |= ~mask.any(-1)
    return mask


@few
@sizes
def test_the_scaled_product_is_pytorchs(batch, num_queries, num_keys, size, seed):
    q, k, v = (draw(batch, n, size, seed=seed + i) for i, n in enumerate((num_queries, num_keys, num_keys)))
    attention = DotProductAttention(size, size, projected=False)
    assert not list(attention.parameters())
    for mask in (None, some_mask(batch, num_queries, num_keys, seed=seed)):
        expected = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(attention(q, k, v, mask)[0], expected, rtol=1e-12, atol=1e-12)


@few
@sizes
def test_the_additive_score_is_that_of_a_loop(batch, num_queries, num_keys, size, seed):
    attention = AdditiveAttention(size, 3, 5).double()
    q, k = draw(batch, num_queries, size, seed=seed), draw(batch, num_keys, 3, seed=seed + 1)
    context, weights = (x.detach() for x in attention(q, k))
    W, U, b, v = (p.detach() for p in (attention.W.weight, *attention.U.parameters(), attention.v.weight[0]))
    for n in range(batch):
        for i in range(num_queries):
            e = [math.exp(v @ torch.tanh(W @ q[n, i] + U @ k[n, j] + b)) for j in range(num_keys)]
            for j in range(num_keys):
                assert weights[n, i, j].item() == pytest.approx(e[j] / sum(e), abs=1e-12)
            expected = sum(e[j] / sum(e) * k[n, j] for j in range(num_keys))
            torch.testing.assert_close(context[n, i], expected, rtol=1e-12, atol=1e-12)


def test_the_general_score_has_a_matrix_between():
    attention = DotProductAttention(4, 3).double()
    q, k = draw(2, 3, 4), draw(2, 5, 3, seed=1)
    scores = torch.einsum("nid,de,nje->nij", q, attention.W.weight, k) / 2
    torch.testing.assert_close(attention(q, k)[1], scores.softmax(-1), rtol=1e-12, atol=1e-12)


@every_kind
def test_what_is_masked_does_not_count(kind):
    attention = kind(3, 3).double()
    q, k, mask = draw(2, 4, 3), draw(2, 5, 3, seed=1), some_mask(2, 5)
    context, weights = attention(q, k, mask=mask)
    assert (weights.transpose(1, 2)[~mask] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4).double(), rtol=1e-12, atol=0)
    other = k.clone()
    other[~mask] = 1e6  # padding may hold anything
    assert torch.equal(attention(q, other, mask=mask)[0], context)
    assert not torch.allclose(attention(q, other)[0], context)


@every_kind
def test_the_order_of_the_keys_is_not_seen(kind):
    attention, turned = kind(3, 3).double(), torch.tensor([3, 0, 4, 1, 2])
    q, k = draw(2, 4, 3), draw(2, 5, 3, seed=1)
    context, weights = attention(q, k)
    again, moved = attention(q, k[:, turned])
    torch.testing.assert_close(again, context, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved, weights[..., turned], rtol=1e-12, atol=1e-12)


@every_kind
def test_gradients_are_those_of_finite_differences(kind):
    attention, mask = kind(3, 3).double(), some_mask(2, 2, 4)
    mask[0, 0] = False  # a query that may look nowhere has no NaN in its gradient either
    inputs = [draw(2, n, 3, seed=n).requires_grad_() for n in (2, 4)]
    assert torch.autograd.gradcheck(lambda q, k: attention(q, k, mask=mask)[0], inputs)


def test_a_query_that_may_look_nowhere_gets_zeros():
    context, weights = attend(draw(1, 2, 3), draw(1, 3, 4), torch.tensor([[[False] * 3, [True] * 3]]))
    assert torch.equal(context[0, 0], torch.zeros(4).double())
    assert weights.sum(-1).tolist() == [[0.0, pytest.approx(1.0)]]


@few
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_masks_count(lengths):
    mask = length_mask(torch.tensor(lengths), 6)
    assert mask.tolist() == [[t < n for t in range(6)] for n in lengths]
    past = causal_mask(max(lengths))[0].tolist()
    assert past == [[s <= t for s in range(max(lengths))] for t in range(max(lengths))]


def test_a_causal_mask_hides_the_future():
    attention, x = DotProductAttention(3, 3).double(), draw(2, 6, 3)
    seen, _ = attention(x, x, mask=causal_mask(6))
    changed = x.clone()
    changed[:, 4:] += 1
    assert torch.equal(attention(changed, changed, mask=causal_mask(6))[0][:, :4], seen[:, :4])
    assert not torch.allclose(attention(changed, changed)[0][:, :4], attention(x, x)[0][:, :4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masked_in_other_dtypes(dtype):
    scores = torch.zeros(1, 1, 3, dtype=dtype)
    _, weights = attend(scores, torch.ones(1, 3, 2, dtype=dtype), torch.tensor([[True, False, True]]))
    assert weights.tolist() == [[[0.5, 0.0, 0.5]]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((draw(2, 3), draw(2, 3, 4)), r"scores must be .* got \(2, 3\) and \(2, 3, 4\)"),
        ((draw(2, 3, 5), draw(2, 4, 4)), r"values \(batch, num_keys, value_size\), got \(2, 3, 5\) and"),
        ((draw(2, 3, 4), draw(2, 4, 1), torch.ones(2, 4)), "mask must be of torch.bool, .* got torch.float32"),
        ((draw(2, 3, 4), draw(2, 4, 1), torch.ones(2, 3).bool()), r"mask must be .*got \(2, 1, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(arguments, said):
    with pytest.raises(InputError, match=said):
        attend(*arguments)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="key_size must be query_size = 3 without a projection, got 4"):
        DotProductAttention(3, 4, projected=False)
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        AdditiveAttention(3, 4, 0)

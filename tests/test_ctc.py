"""`ctc` against all paths, one by one, and against PyTorch's loss."""

import math
from itertools import groupby, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import ctc_loss

from lstm_lib import ctc


def spelled(path, blank):
    """Merge repeats, drop blanks: written in another way than the library's."""
    return tuple(k for k, _ in groupby(path) if k != blank)


def by_enumeration(log_probs, blank):
    """The probability of each string, from all num_symbols ** seq_len paths."""
    total = {}
    for path in product(range(log_probs.shape[1]), repeat=len(log_probs)):
        p = math.exp(sum(log_probs[t, k].item() for t, k in enumerate(path)))
        total[spelled(path, blank)] = total.get(spelled(path, blank), 0.0) + p
    return total


def draw(seq_len, symbols, seed):
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(seq_len, symbols, generator=g, dtype=torch.float64)).log_softmax(1)


small = given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 1000), st.data())
few = settings(max_examples=40, deadline=None)


@few
@small
def test_forward_variables_sum_over_all_paths(seq_len, symbols, seed, data):
    log_probs, blank = draw(seq_len, symbols, seed), data.draw(st.integers(0, symbols - 1))
    wanted = by_enumeration(log_probs, blank)
    for target, p in wanted.items():
        alpha = ctc.forward_variables(log_probs, target, blank)
        assert alpha.shape == (seq_len, 2 * len(target) + 1)
        assert alpha[-1, -2:].logsumexp(0).exp().item() == pytest.approx(p, rel=1e-10)
    assert sum(wanted.values()) == pytest.approx(1)


@few
@small
def test_each_forward_variable_is_the_sum_of_its_beginnings(seq_len, symbols, seed, data):
    """α_t(s): paths of t steps that spell the first symbols of the target and end on l'_s."""
    log_probs = draw(seq_len, symbols, seed)
    target = data.draw(st.lists(st.integers(1, symbols - 1), max_size=3))
    spaced = [0] + [k for symbol in target for k in (symbol, 0)]
    wanted = torch.zeros(seq_len, len(spaced), dtype=torch.float64)
    for t in range(seq_len):
        for path in product(range(symbols), repeat=t + 1):
            p = math.exp(sum(log_probs[u, k].item() for u, k in enumerate(path)))
            for s, k in enumerate(spaced):
                # where it ends on a symbol, that symbol is the last one spelled
                if path[-1] == k and spelled(path, 0) == tuple(target[: (s + 1) // 2]):
                    wanted[t, s] += p
    torch.testing.assert_close(ctc.forward_variables(log_probs, target).exp(), wanted, rtol=1e-10, atol=1e-14)


@few
@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 1000), st.data())
def test_loss_and_gradient_are_pytorchs(seq_len, symbols, seed, data):
    blank = data.draw(st.integers(0, symbols - 1))
    others = [k for k in range(symbols) if k != blank]
    target = data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=4))
    scores = draw(seq_len, symbols, seed).requires_grad_()
    ours = -ctc.forward_variables(scores.log_softmax(1), target, blank)[-1, -2:].logsumexp(0)
    theirs = ctc_loss(
        scores.log_softmax(1)[:, None],
        torch.tensor([target]),
        torch.tensor([seq_len]),
        torch.tensor([len(target)]),
        blank=blank,
        reduction="sum",
    )
    if math.isinf(theirs.item()):  # the target does not fit into so few steps
        assert ours.item() == theirs.item()
        return
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    grads = [torch.autograd.grad(loss, scores)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("target", "steps"), [([1], 1), ([1, 2], 2), ([1, 1], 3), ([1, 1, 1], 5), ([2, 1, 1], 4)])
def test_a_string_needs_a_step_per_symbol_and_a_blank_between_equal_ones(target, steps):
    for seq_len in (steps - 1, steps):
        if seq_len:
            total = ctc.forward_variables(draw(seq_len, 3, 0), target)[-1, -2:].logsumexp(0)
            assert math.isfinite(total.item()) == (seq_len == steps)


def test_a_symbol_without_a_path_has_a_finite_gradient():
    scores = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    ctc.forward_variables(scores.log_softmax(1), [1, 2, 1])[-1, -2:].logsumexp(0).backward()
    assert torch.isfinite(scores.grad).all()


@few
@small
def test_a_beam_with_room_for_all_is_exact(seq_len, symbols, seed, data):
    log_probs, blank = draw(seq_len, symbols, seed), data.draw(st.integers(0, symbols - 1))
    wanted = by_enumeration(log_probs, blank)
    found = {
        tuple(string): math.exp(score) for string, score in ctc.beam(log_probs, 10**6, blank) if score > -math.inf
    }
    assert found == pytest.approx(wanted, rel=1e-10)


@few
@given(st.integers(1, 8), st.integers(2, 4), st.integers(0, 1000), st.integers(1, 6))
def test_a_narrow_beam_is_short_sorted_and_never_counts_too_much(seq_len, symbols, seed, width):
    log_probs = draw(seq_len, symbols, seed)
    found = ctc.beam(log_probs, width)
    scores = [score for _, score in found]
    assert 1 <= len(found) <= width
    assert scores == sorted(scores, reverse=True)
    for string, score in found:
        assert score <= ctc.forward_variables(log_probs, string)[-1, -2:].logsumexp(0).item() + 1e-10


@few
@small
def test_greedy_is_the_likeliest_path(seq_len, symbols, seed, data):
    log_probs, blank = draw(seq_len, symbols, seed), data.draw(st.integers(0, symbols - 1))
    path = max(
        product(range(symbols), repeat=seq_len),
        key=lambda path: sum(log_probs[t, k].item() for t, k in enumerate(path)),
    )
    assert ctc.greedy(log_probs, blank) == list(spelled(path, blank))


def test_greedy_and_beam_differ_where_many_paths_spell_one_string():
    p = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert ctc.greedy(p) == []
    assert ctc.beam(p, 2)[0][0] == [1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p: ctc.forward_variables(p[0], [1]),
            ValueError,
            r"log_probs must be \(seq_len, num_symbols\), .*, got \(3,\) torch.float32",
        ),
        (lambda p: ctc.greedy(p[:0]), ValueError, r"log_probs must be .*, got \(0, 3\)"),
        (lambda p: ctc.greedy(p.int()), ValueError, r"log_probs must be .*, got \(4, 3\) torch.int32"),
        (lambda p: ctc.beam(p.tolist()), TypeError, "log_probs must be a Tensor, got list"),
        (
            lambda p: ctc.forward_variables(p, [1, 0]),
            ValueError,
            "target must be symbols from 0 to 2 other than the blank, 0, got 0",
        ),
        (lambda p: ctc.forward_variables(p, [3]), ValueError, "target must be .*, got 3"),
        (lambda p: ctc.forward_variables(p, [1.7]), ValueError, "target must be .*, got 1.7"),
        (lambda p: ctc.forward_variables(p, torch.tensor([[1]])), ValueError, r"target must be .*, got \[1\]"),
        (lambda p: ctc.greedy(p, blank=3), ValueError, "blank must be a symbol from 0 to 2, got 3"),
        (lambda p: ctc.greedy(p, blank=-1), ValueError, "blank must be at least 0, got -1"),
        (lambda p: ctc.forward_variables(p, [2], True), TypeError, "blank must be an int, got True"),
        (lambda p: ctc.beam(p, width=0), ValueError, "width must be at least 1, got 0"),
        (lambda p: ctc.beam(p, width=2.0), TypeError, "width must be an int, got 2.0"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(4, 3))


def test_beam_lists_no_string_without_a_path():
    never = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64).log()
    assert {tuple(string) for string, _ in ctc.beam(never, width=50)} == {(), (1,)}

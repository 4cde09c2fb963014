"""Synthetic tasks against plain Python: answers by a loop, shares by counting, errors by asking for them."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_lib.tasks import IGNORE, Adding, AnBn, Copy, Dyck1, EmbeddedReber, Latch

TASKS = [
    *(Adding(7, 3), Latch(5, 3), Copy(3, 2, 4, 3), AnBn(1, 4, 2, 3), AnBn(2, 3, 3, 3), Dyck1(9, 3)),
    *(EmbeddedReber(12, 3), EmbeddedReber(15, 3, stream=True)),
]
sizes = st.integers(1, 12)


def drawn(task, seed=0):
    return task(torch.Generator().manual_seed(seed), 0)


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_a_seed_decides_the_batch_and_nothing_else_does(task):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = drawn(task), drawn(task), drawn(task, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    assert first[0].dtype == torch.float32
    assert len(first[0]) == len(first[1]) == 3


@given(st.integers(2, 30), sizes)
@settings(deadline=None, max_examples=30)
def test_adding(seq_len, batch_size):
    x, y = drawn(Adding(seq_len, batch_size))
    assert x.shape == (batch_size, seq_len, 2)
    assert y.shape == (batch_size, 1)
    for rows, total in zip(x.tolist(), y.flatten().tolist(), strict=True):
        marked = [t for t, (_, mark) in enumerate(rows) if mark == 1]
        assert len(marked) == 2
        assert marked[0] < seq_len // 2 <= marked[1]
        assert all(mark in (0, 1) and 0 <= number < 1 for number, mark in rows)
        assert math.isclose(sum(rows[t][0] for t in marked), total, rel_tol=1e-6, abs_tol=1e-7)


def test_adding_marks_every_step_alike_and_its_baseline_is_a_sixth():
    x, y = drawn(Adding(6, 30_000))
    share = x[..., 1].mean(0)
    assert torch.allclose(share, torch.full((6,), 1 / 3), atol=0.012)  # four standard deviations
    assert abs((y - 1).square().mean().item() - 1 / 6) < 0.004


@given(sizes, sizes, st.sampled_from([0.0, 0.5, 2.0]))
@settings(deadline=None, max_examples=30)
def test_latch(seq_len, batch_size, noise):
    x, y = drawn(Latch(seq_len, batch_size, noise))
    assert x.shape == (batch_size, seq_len, 2)
    for rows, label in zip(x.tolist(), y.tolist(), strict=True):
        assert rows[0][0] == (1 if label == 1 else -1)
        assert all(signal == 0 for signal, _ in rows[1:])
    assert noise > 0 or not x[..., 1].any()


def test_latch_is_balanced_and_its_noise_tells_nothing():
    x, y = drawn(Latch(4, 20_000, noise=2.0))
    assert abs(y.float().mean() - 0.5) < 0.015
    assert abs(x[..., 1].std() - 2) < 0.02
    by_class = [x[y == k, :, 1].mean(0) for k in (0, 1)]
    assert (by_class[0] - by_class[1]).abs().max() < 0.12


@given(sizes, sizes, sizes, sizes)
@settings(deadline=None, max_examples=30)
def test_copy(lag, length, symbols, batch_size):
    x, y = drawn(Copy(lag, length, symbols, batch_size))
    assert x.shape == (batch_size, lag + 2 * length, symbols + 2)
    assert torch.equal(x.sum(-1), torch.ones(x.shape[:2]))
    for said, answer in zip(x.argmax(-1).tolist(), y.tolist(), strict=True):
        blank, signal = symbols, symbols + 1
        assert said == answer + [blank] * (lag - 1) + [signal] + [blank] * length
        assert all(0 <= symbol < symbols for symbol in answer)


def by_hand(n, letters):
    """Input and target of one string, as lists."""
    string = [0] + [letter for letter in range(1, letters + 1) for _ in range(n)]
    following = [*string[1:], 0]
    return string, [b if a >= 2 else IGNORE for a, b in zip(string, following, strict=True)]


@given(st.integers(1, 6), st.integers(0, 6), st.integers(2, 4), sizes)
@settings(deadline=None, max_examples=40)
def test_anbn(shortest, more, letters, batch_size):
    longest = shortest + more
    x, y = drawn(AnBn(shortest, longest, letters, batch_size))
    assert x.shape == (batch_size, 1 + letters * longest, letters + 1)
    for rows, targets in zip(x, y.tolist(), strict=True):
        n = int(rows[:, 1].sum())
        assert shortest <= n <= longest
        string, following = by_hand(n, letters)
        assert rows[: len(string)].argmax(-1).tolist() == string
        assert not rows[len(string) :].any()
        assert targets == following + [IGNORE] * (len(targets) - len(following))


def test_anbn_draws_every_n_alike_and_takes_given_ones():
    x, _ = drawn(AnBn(3, 6, batch_size=8000))
    n = x[..., 1].sum(1)
    assert n.unique().tolist() == [3, 4, 5, 6]
    assert all(abs((n == k).float().mean() - 0.25) < 0.02 for k in (3, 4, 5, 6))
    x, y = AnBn(1, 2).strings(torch.tensor([5, 1]))
    assert x[..., 1].sum(1).tolist() == [5, 1]
    assert y[0].tolist() == by_hand(5, 2)[1]
    x, y = AnBn(1, 2).strings(torch.tensor([], dtype=torch.long))
    assert (x.shape, y.shape) == ((0, 5, 3), (0, 5))


@given(sizes, sizes)
@settings(deadline=None, max_examples=30)
def test_dyck1(seq_len, batch_size):
    x, y = drawn(Dyck1(seq_len, batch_size))
    assert x.shape == (batch_size, seq_len, 2)
    for rows, targets in zip(x.argmax(-1).tolist(), y.tolist(), strict=True):
        depth = 0
        for closes, target in zip(rows, targets, strict=True):
            depth += -1 if closes else 1
            assert depth >= 0
            assert target == (depth > 0)


def test_dyck1_closes_half_of_the_time_when_it_may():
    x, y = drawn(Dyck1(50, 1000))
    may = y[:, :-1] == 1
    assert abs(x[:, 1:, 1][may].mean() - 0.5) < 0.01
    assert not x[:, 1:, 1][~may].any()


REBER = r"B([TP])B(?:TS*X(?:XT*VP)*(?:S|XT*VV)|PT*V(?:V|P(?:XT*VP)*(?:S|XT*VV)))E\1E"
"""The embedded grammar as a regular expression, worked out from the drawing of 1997 by hand."""


def reber_strings(longest):
    """All strings of at most so many letters, from nested loops that write them down."""

    def upper(room):  # from the node behind the upper X to the inner E
        if room >= 1:
            yield "S"
            yield from ("X" + rest for rest in lower(room - 1))

    def lower(room):  # from the node with the T loop
        for loops in range(room - 1):
            yield "T" * loops + "VV"
            yield from ("T" * loops + "VP" + rest for rest in upper(room - loops - 2))

    room = longest - 7  # all but B?B…E?E and one letter
    inside = ["P" + rest for rest in lower(room)]
    inside += ["T" + "S" * loops + "X" + rest for loops in range(room) for rest in upper(room - loops - 1)]
    return {f"B{side}B{word}E{side}E" for side in "TP" for word in inside}


LANGUAGE = reber_strings(22)


def successors(word):
    """What may follow each letter: all that follow it in the language; a word of at most 16 letters."""
    return [{other[n] for other in LANGUAGE if other.startswith(word[:n])} for n in range(1, len(word))] + [set()]


def test_the_two_oracles_of_the_embedded_reber_grammar_agree():
    assert all(re.fullmatch(REBER, word) and len(word) <= 22 for word in LANGUAGE)
    assert min(map(len, LANGUAGE)) == 9
    chance = [0.5 ** sum(len(may) == 2 for may in successors(word)) for word in LANGUAGE if len(word) <= 14]
    assert 0.6 < sum(chance) < 1  # that a walk is one of them: none is missing that the other oracle has
    draw = drawn(EmbeddedReber(100, 20_000))[0].sum((1, 2)) <= 14
    assert abs(draw.float().mean() - sum(chance)) < 0.014


@given(st.integers(9, 30), sizes, st.sampled_from([0.2, 0.5, 0.7]))
@settings(deadline=None, max_examples=30)
def test_embedded_reber(seq_len, batch_size, back):
    task = EmbeddedReber(seq_len, batch_size, back=back)
    x, y = drawn(task)
    assert x.shape == (batch_size, seq_len, 7)
    for word, rows, targets in zip(task.spell(x), x, y.tolist(), strict=True):
        assert re.fullmatch(REBER, word)
        assert not rows[len(word) :].any()
        assert targets == ["BTPSXVE".index(letter) for letter in word[1:]] + [IGNORE] * (seq_len - len(word) + 1)


@given(st.integers(9, 60), sizes)
@settings(deadline=None, max_examples=30)
def test_embedded_reber_as_a_stream(seq_len, batch_size):
    task = EmbeddedReber(seq_len, batch_size, stream=True)
    x, y = drawn(task)
    assert torch.equal(x.sum(-1), torch.ones(x.shape[:2]))
    assert torch.equal(x[:, 1:].argmax(-1), y[:, :-1])
    for word, last in zip(task.spell(x), y[:, -1].tolist(), strict=True):
        rest = re.sub(f"^(?:{REBER})*", "", word + "BTPSXVE"[last])
        assert len(rest) > 16 or not rest or any(other.startswith(rest) for other in LANGUAGE)


def test_embedded_reber_knows_what_may_follow():
    task = EmbeddedReber(14, 300)
    x, y = drawn(task)
    may = task.legal(x)
    for word, rows, targets in zip(task.spell(x), may, y.tolist(), strict=True):
        found = [{letter for letter, k in zip("BTPSXVE", row.tolist(), strict=True) if k} for row in rows]
        assert found[: len(word)] == successors(word)
        assert not rows[len(word) :].any()
        assert all(target == IGNORE or row[target] for row, target in zip(rows, targets, strict=True))
    one = EmbeddedReber(40, 5, stream=True)
    x, y = drawn(one)
    assert one.legal(x).gather(2, y.unsqueeze(-1)).all()
    assert set(one.legal(x).sum(-1).unique().tolist()) == {1, 2}


def test_embedded_reber_draws_every_arrow_alike_and_loops_as_told():
    words = EmbeddedReber(80).spell(drawn(EmbeddedReber(80, 8000))[0])
    assert abs(words.count("BTBTXSETE") / 8000 - 1 / 16) < 0.011  # four standard deviations
    assert abs(sum(word[1] == "T" for word in words) / 8000 - 0.5) < 0.023
    short, usual, long = (
        drawn(EmbeddedReber(200, 2000, back=back))[0].sum((1, 2)).mean() for back in (0.2, 0.5, 0.8)
    )
    assert short < usual < long
    assert not any("SS" in word for word in EmbeddedReber(9).spell(drawn(EmbeddedReber(9, 50, back=0.0))[0]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Adding(1), ValueError, "seq_len must be at least 2, got 1"),
        (lambda: Adding(5, 0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda: Latch(2.5), TypeError, "seq_len must be an int, got 2.5"),
        (lambda: Latch(5, noise=-1), ValueError, "noise must be a finite number of at least 0, got -1"),
        (lambda: Latch(5, noise=math.nan), ValueError, "noise must be .*, got nan"),
        (lambda: Latch(5, noise=math.inf), ValueError, "noise must be .*, got inf"),
        (lambda: Latch(5, noise="1"), ValueError, "noise must be .*, got '1'"),
        (lambda: Copy(0), ValueError, "lag must be at least 1, got 0"),
        (lambda: Copy(3, symbols=True), TypeError, "symbols must be an int, got True"),
        (lambda: AnBn(4, 3), ValueError, "longest must be at least 4, got 3"),
        (lambda: AnBn(1, 3, letters=1), ValueError, "letters must be at least 2, got 1"),
        (lambda: AnBn(1, 3).strings(torch.tensor([1, 0])), ValueError, r"n must be .*, got tensor\(\[1, 0\]\)"),
        (lambda: AnBn(1, 3).strings(torch.tensor([1.5])), ValueError, r"n must be .*, got tensor\(\[1.5000\]\)"),
        (lambda: AnBn(1, 3).strings([2]), ValueError, r"n must be .*, got \[2\]"),
        (lambda: Dyck1(0), ValueError, "seq_len must be at least 1, got 0"),
        (lambda: EmbeddedReber(8), ValueError, "seq_len must be at least 9, got 8"),
        (lambda: EmbeddedReber(9, 0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda: EmbeddedReber(9, back=1.0), ValueError, "back must be a number from 0 to below 1, got 1.0"),
        (lambda: EmbeddedReber(9, back="1"), ValueError, "back must be .*, got '1'"),
        (
            lambda: EmbeddedReber(9).legal(torch.eye(7)[[0, 0]].unsqueeze(0)),
            ValueError,
            "x must hold .* at step 1",
        ),
    ],
)
def test_errors_name_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()

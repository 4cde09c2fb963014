"""Exercises that answer: what is right, which hint is given, and each chapter's starters and solutions."""

import math
import re

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from chapters import chapters, notebook
from lstm_lib.book import notebook as setup
from lstm_lib.book.exercises import DOTS, Exercise, Rule, registry

CALL = re.compile(r'^(?:.*\W)?run\.check\("([^"]+)", (.+?)\)(?:\s+#.*)?$')

sizes = st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6)


# What is right


@given(sizes, st.floats(-0.009, 0.009), st.floats(0.011, 2), st.sampled_from([-1, 1]))
def test_a_number_may_be_off_by_its_tolerance_and_no_more(right, little, much, sign):
    rule = Rule("Again.", equals=right)
    assert rule.fits(right * (1 + little))
    assert not rule.fits(right * (1 + sign * much))


@given(st.integers(-1000, 1000), st.floats(-0.4, 0.4))
def test_a_whole_number_is_met_exactly(right, off):
    assume(abs(off) > 1e-6)
    assert Rule("Again.", equals=right).fits(float(right))
    assert not Rule("Again.", equals=right).fits(right + off)


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", [{"equals": 1.5}, {"equals": 3}, {"below": 2.0}, {"above": 2.0}])
def test_what_is_no_finite_number_is_never_right(answer, bound):
    assert not Rule("Again.", **bound).fits(answer)


half = Exercise(
    "gates/x",
    "half",
    Rule("Halve it.", equals=0.5),
    (Rule("Not the square.", equals=0.25), Rule("Less than one.", above=1), Rule("It is positive.", below=0)),
)
word = Exercise("gates/x", "unit", Rule("Which counts?", equals="LSTM"), (Rule("It is bounded.", equals="GRU"),))
pair = Exercise("gates/x", "pair", Rule("Twice.", equals=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("exercise", "answer", "told"),
    [
        (half, ..., f"half: {DOTS}"),
        (half, 0.5, "half: right."),
        (half, torch.tensor(0.5), "half: right."),
        (half, np.float32(0.5), "half: right."),
        (half, 0.25, "half: not right. Not the square."),
        (half, 3, "half: not right. Less than one."),
        (half, -0.5, "half: not right. It is positive."),
        (half, 0.7, "half: not right. Halve it."),
        (word, " lstm ", "unit: right."),
        (word, "gru", "unit: not right. It is bounded."),
        (word, "RNN", "unit: not right. Which counts?"),
        (pair, (1, 2.001), "pair: right."),
        (pair, [2, 1], "pair: not right. Twice."),
    ],
)
def test_the_hint_fits_the_mistake(exercise, answer, told):
    assert exercise.reply(answer) == (told.endswith(": right."), told)


@pytest.mark.parametrize(
    ("exercise", "answer", "error", "said"),
    [
        (half, "a half", TypeError, "answer must be a number, got 'a half'"),
        (half, "0.5", TypeError, "answer must be a number, got '0.5'"),
        (half, None, TypeError, "answer must be a number, got None"),
        (half, [0.5], ValueError, r"answer must be a number, got \[0.5\]"),
        (word, 3, TypeError, "answer must be a word in quotes, got 3"),
        (pair, 3.0, ValueError, "answer must be 2 numbers, got 3.0"),
    ],
)
def test_an_answer_of_another_kind_is_refused(exercise, answer, error, said):
    with pytest.raises(error, match=said):
        exercise.reply(answer)


@pytest.mark.parametrize("entry", [{"hint": ""}, {"hint": "So."}, {"hint": "So.", "equals": 1, "below": 2}])
def test_a_rule_needs_a_hint_and_one_condition(entry):
    with pytest.raises(ValueError, match="rule must have a hint, and one of equals, below, above and within, got"):
        Rule(**entry)


def test_a_wrong_solution_stops_the_chapter_unless_a_person_runs_it(monkeypatch, capsys):
    run = setup.Run("gates/forget_gate", False, torch.device("cpu"), 0)
    run.check("ten", ...)
    run.check("ten", math.log(2**-0.1 / (1 - 2**-0.1)))
    with pytest.raises(AssertionError, match="ten: not right"):
        run.check("ten", 10)
    monkeypatch.setattr(setup, "somebody_is_there", lambda: True)
    run.check("ten", 10)
    said = [line[:14] for line in capsys.readouterr().out.splitlines()]
    assert said == [f"ten: {DOTS}"[:14], "ten: right.", "ten: not right", "ten: not right"]
    with pytest.raises(ValueError, match=r"name must be one of ten, .* in gates/forget_gate, got 'tne'"):
        run.check("tne", 10)


# The chapters


@pytest.mark.parametrize("exercise", registry().values(), ids=lambda one: f"{one.chapter}: {one.name}")
def test_no_hint_tells_the_answer_and_no_mistake_is_right(exercise):
    right = exercise.right.equals
    for rule in (exercise.right, *exercise.mistakes):
        if isinstance(right, str):
            assert not re.search(rf"\b{re.escape(right)}\b", rule.hint, re.IGNORECASE), rule.hint
        elif right is not None and not isinstance(right, list):
            told = [float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", rule.hint)]
            assert not any(map(exercise.right.fits, told)), rule.hint
    for mistake in exercise.mistakes:
        if mistake.equals is not None:
            reply = exercise.reply(mistake.equals)
            assert reply == (False, f"{exercise.name}: not right. {mistake.hint}"), "another rule comes first"


@pytest.mark.parametrize("chapter", chapters())
def test_each_exercise_that_answers_has_a_starter_and_a_solution_that_pass_for_what_they_are(chapter):
    """nbval then runs both and compares what they say."""
    label = chapter.rpartition("/")[2].replace("_", "-")
    at, seen, inside = None, [], False
    for cell in nbformat.read(notebook(chapter), 4).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if found := re.match(rf":label: {label}-(.+)|:+\{{solution-start\}} {label}-(.+)", line):
                    at, inside = found[1] or found[2], bool(found[2])
                elif re.match(r":+\{solution-end\}|#", line):
                    at = None
            continue
        said = "".join(output.text for output in cell.outputs if output.output_type == "stream").splitlines()
        for name, answer in (call.groups() for line in cell.source.splitlines() if (call := CALL.match(line))):
            assert name == at, f"{name} stands in {at}"
            assert (answer == "...") is not inside, "the dots belong before the solution, an answer in it"
            assert f"{name}: {'right.' if inside else DOTS}" in said
            seen.append((name, inside))
    names = {name for where, name in registry() if where == chapter}
    assert names, "a chapter has at least one exercise that answers"
    assert sorted(seen) == sorted((name, which) for name in names for which in (False, True))

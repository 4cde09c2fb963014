"""The registry, bounds and evidence, against their definitions and against the design's list of claims."""

import json
import math
import re
from decimal import Decimal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from chapters import chapters, notebook
from lstm_lib.book.claims import (
    MIME,
    VERDICTS,
    Bound,
    BoundFailed,
    Evidence,
    audit,
    from_notebook,
    number,
    registry,
)

finite = st.floats(allow_nan=False, allow_infinity=False)


def evidence(values=(0.5,), rtol=None, measure="a measure", **bound) -> Evidence:
    return Evidence("A02", "gates/the_cell", measure, tuple(values), Bound.of(**bound), rtol=rtol)


def test_registry_holds_every_claim_of_the_article_and_the_field():
    assert list(registry()) == [f"A{k:02d}" for k in range(1, 35)] + [f"B{k:02d}" for k in range(1, 23)]
    for claim in registry().values():
        assert claim.verdict in VERDICTS
        assert claim.statement.endswith(".")
        assert claim.chapters or claim.verdict == "not testable"


@given(finite, finite)
def test_bounds_mean_what_they_say(value, limit):
    assert Bound.of(below=limit).holds(value) == (value < limit)
    assert Bound.of(above=limit).holds(value) == (value > limit)
    assert Bound.of(equals=limit).holds(value) == (value == limit)
    low, high = sorted([limit, 1.0])
    assert Bound.of(within=(low, high)).holds(value) == (low <= value <= high)


@pytest.mark.parametrize("bound", [{"below": 1}, {"above": -1}, {"within": (-1, 1)}, {"equals": 0}])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_bound_holds_for_what_is_not_finite(bound, value):
    assert not Bound.of(**bound).holds(value)


@pytest.mark.parametrize("bound", [{}, {"below": 1, "above": 0}, {"within": (2, 1)}, {"most": 3}])
def test_a_bound_that_means_nothing_is_refused(bound):
    with pytest.raises(ValueError, match=r"^bound must be exactly one of below=x, above=x, within.*, got "):
        Bound.of(**bound)


def test_every_seed_must_keep_the_bound_and_the_message_tells_all():
    evidence([1, 2, 3], below=3.5).check()
    with pytest.raises(
        BoundFailed,
        match=r"gates/the_cell, claim A02, a measure: measured 2 \(1 to 3; 3 seeds\), "
        r"must be below 3",
    ):
        evidence([1, 2, 3], below=3).check()


def test_units_follow_the_numbers():
    one = Evidence("A02", "gates/the_cell", "error", (1.0, 3.0), Bound.of(below=4), unit="%", over="day")
    assert (one.measured, one.required) == ("2 % (1 to 3; 2 days)", "below 4 %")


def test_evidence_needs_a_registered_claim_of_its_chapter():
    with pytest.raises(ValueError, match=r"^claim must be an id of the registry .*claims\.toml, got 'C01'$"):
        Evidence("C01", "gates/the_cell", "x", (1.0,), Bound.of(below=2))
    with pytest.raises(
        ValueError, match=r"^chapter must be one of gates/the_cell, .*for A02, got 'gates/counting'$"
    ):
        Evidence("A02", "gates/counting", "x", (1.0,), Bound.of(below=2))
    with pytest.raises(ValueError, match=r"^values must be one number or more, got \(\) for .*A02, 'a measure'$"):
        evidence([], below=1)


@given(st.lists(st.floats(), min_size=1, max_size=4), finite)
def test_json_keeps_everything_and_is_plain(values, limit):
    before = evidence(values, rtol=1e-6, above=limit)
    text = json.dumps(before.to_json(), allow_nan=False)
    after = Evidence.from_json(json.loads(text))
    assert all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(before.values, after.values, strict=True)
    )
    assert (after.bound, after.rtol, after.holds) == (before.bound, before.rtol, before.holds)


def test_a_moved_number_names_chapter_claim_both_values_and_bound():
    assert evidence([0.5], rtol=1e-3, below=1).moved(evidence([0.5001], rtol=1e-3, below=1)) is None
    assert evidence([0.5], below=1).moved(evidence([0.9], below=1)) is None  # judged by its bound only
    line = evidence([0.5], rtol=1e-3, below=1).moved(evidence([0.6], rtol=1e-3, below=1))
    for part in ("gates/the_cell", "A02", "0.5", "0.6", "below 1"):
        assert part in line
    assert "must be below 0.4" in evidence([0.5], below=0.4).moved(evidence([0.3], below=0.4))


def test_evidence_is_read_back_from_a_notebook(tmp_path):
    one = evidence([0.25], below=1)
    outputs = [{"output_type": "stream", "text": "x"}, {"data": {MIME: one.to_json()}}]
    cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": outputs}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert from_notebook(tmp_path / "n.ipynb") == [one]


def test_audit_wants_every_claim_of_a_written_chapter_and_every_bound():
    a04 = Evidence("A04", "gates/the_cell", "a measure", (0.5,), Bound.of(below=1))
    audit({"gates/the_cell": [evidence(below=1), a04]})
    with pytest.raises(ValueError, match="gates/the_cell gives no evidence for A04"):
        audit({"gates/the_cell": [evidence(below=1)]})
    with pytest.raises(BoundFailed):
        audit({"gates/the_cell": [evidence(below=0.1), a04]})


@given(st.integers(-(10**8), 10**8))
def test_whole_numbers_are_printed_whole(n):
    assert int(number(n).replace(",", "")) == n


@given(st.floats(1e-6, 1e12))
def test_printed_numbers_are_within_half_a_percent(x):
    assert math.isclose(float(number(x).replace(",", "")), x, rel_tol=5.01e-3)


@given(st.floats(0.001, 1e6), st.sampled_from([1, -1]))
@example(999.7, 1)
@example(999.7, -1)
@example(999.5, 1)
@example(999.96, 1)
@example(99.97, 1)
@example(0.9996, 1)
@example(999999.7, -1)
@example(0.0009999999, 1)
def test_printed_numbers_have_three_digits_and_no_exponent(x, sign):
    half = Decimal(5).scaleb(Decimal(x).adjusted() - 3)  # of the unit in which the third digit counts
    printed = number(sign * x), str(Bound.of(below=sign * x)), str(Bound.of(within=(sign * x, 1e6)))
    for text in printed:
        assert "e" not in re.sub("[a-z]{2,}", "", text)
        shown = Decimal(re.search(r"-?[\d.,]+", text)[0].replace(",", ""))
        assert abs(shown - Decimal(sign * x)) <= half


@pytest.mark.parametrize(
    ("x", "text"),
    [(999.7, "1,000"), (-999.7, "-1,000"), (999.4, "999"), (0.9996, "1"), (0.0123456, "0.0123"), (1e-12, "1e-12")],
)
def test_numbers_beside_a_switch_of_format(x, text):
    assert number(x) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("σ", "τ"),
        ("loss of the gate σ", "loss of the gate τ"),
        ("γ", "μ"),
        ("ошибка", "потеря"),
        ("误差", "损失"),
        ("c < 1", "c > 1"),
        ("c ≤ 1", "c = 1"),
        ("share with c < 1", "share with c > 1"),
        ("temperature of 300 K", "temperature of 300 \N{KELVIN SIGN}"),
    ],
)
def test_measures_that_differ_in_a_sign_have_their_own_anchors(one, other):
    anchors = {evidence(measure=measure, below=1).anchor for measure in (one, other)}
    assert len(anchors) == 2
    assert all(re.fullmatch(r"claim-a02(-[a-z0-9]+)+", anchor) for anchor in anchors)


@given(*[st.text("στжя字∂<> loss", min_size=1)] * 2)
def test_anchors_in_any_script_are_different(one, other):
    assume(set(one + other) & set("στжя字∂<>") and one != other)
    assert evidence(measure=one, below=1).anchor != evidence(measure=other, below=1).anchor


@pytest.mark.parametrize("chapter", chapters())
def test_anchors_of_a_chapter_are_unique_and_those_of_its_page(chapter):
    cells = json.loads(notebook(chapter).read_text(encoding="utf-8"))["cells"]
    pages = [
        "".join(out["data"]["text/html"])
        for c in cells
        for out in c.get("outputs", ())
        if MIME in out.get("data", {})
    ]
    anchors = [one.anchor for one in from_notebook(notebook(chapter))]
    assert anchors == [re.search(r'id="([^"]*)"', page)[1] for page in pages]
    assert len(set(anchors)) == len(anchors), "two measures of a chapter must differ in their words"

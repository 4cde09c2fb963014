"""The list of mutants fits the chapters, its records are whole, and the runner tells a kill from an error."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import jsonschema
import nbformat
import pytest

import mutants
import workers
from chapters import ROOT, chapters, notebook
from lstm_lib.book.claims import Bound, Evidence, from_notebook
from lstm_lib.book.mutants import Mutant, fingerprint, registry

SCHEMA = json.loads((ROOT / "results" / "mutants" / "schema.json").read_text(encoding="utf-8"))
RECORDED = [chapter for chapter in chapters() if mutants.target(chapter).exists()]


# The list


@pytest.mark.parametrize("mutant", registry(), ids=lambda m: f"{m.chapter}: {m.name}")
def test_a_mutant_fits_its_chapter_and_breaks_measures_that_it_has(mutant):
    _, code = mutants.sources(mutant.chapter, [mutant])
    assert mutant.applied(code) != code
    measures = {(one.claim, one.measure) for one in from_notebook(notebook(mutant.chapter))}
    assert {(claim, measure) for claim, names in mutant.breaks.items() for measure in names} <= measures


@pytest.mark.parametrize("chapter", sorted({mutant.chapter for mutant in registry()}))
def test_a_claim_is_broken_in_two_ways_of_two_kinds(chapter):
    ours = [mutant for mutant in registry() if mutant.chapter == chapter]
    for claim in {one.claim for one in from_notebook(notebook(chapter))}:
        assert len({mutant.kind for mutant in ours if claim in mutant.breaks}) >= 2, claim


good = Mutant("a digit", "gates/the_cell", "data", {"A02": ["a number"]}, old="x = 1", new="x = 3")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "magic"}, "kind must be one of mechanism, training, data, rival, got 'magic' for 'a digit'"),
        ({"chapter": "gates/nothing"}, r"claims of gates/nothing \(none\), got"),
        ({"breaks": {"A03": ["a number"]}}, r"claims of gates/the_cell \(A02, A04\), got {'A03'"),
        ({"breaks": {"A02": []}}, "breaks must name measures"),
        ({"breaks": {}}, "breaks must name measures"),
        ({"old": ""}, "patch must be code, or old and another new, got neither for 'a digit'"),
        ({"new": "x = 1"}, "patch must be code, or old and another new"),
    ],
)
def test_a_bad_entry_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        replace(good, **change)


def test_a_patch_replaces_one_piece_and_runs_behind_the_start():
    cells = ["run = notebook.start('a/b')", "x = 1"]
    assert replace(good, code="y = 0").applied(cells) == [f"{cells[0]}\ny = 0", "x = 3"]
    for found in ([], ["x = 1; x = 1"], ["x = 1", "x = 1"]):
        with pytest.raises(ValueError, match=rf"once in gates/the_cell, got {len(' '.join(found)) // 5} times"):
            good.applied(found)


def test_the_fingerprint_knows_what_the_code_does_and_not_how_it_is_written():
    alike = (["x = 1", "y = f(x, 2)"], ["x = 1\ny = f(\n    x,\n    2)"], ["x = 1  # one", "", "y = f(x, 2)"])
    assert len({fingerprint(cells) for cells in alike}) == 1
    documented = (
        ["def f():\n    return 1"],
        ["def f():\n    'One.'\n    return 1"],
        ["def f():\n    'It is 1.'\n    return 1"],
    )
    assert len({fingerprint(cells) for cells in documented}) == 1
    assert fingerprint(["def f():\n    'One.'"]) != fingerprint(["def f():\n    return 'One.'"])
    others = (["x = 1", "y = f(x, 3)"], ["y = f(x, 2)", "x = 1"], ["x = 1"], ["x = 1", "y = f(x, 2)", "'# one'"])
    assert len({fingerprint(cells) for cells in (alike[0], *others)}) == 5


# The records


@pytest.mark.parametrize("chapter", RECORDED)
def test_a_committed_record_is_whole_and_every_mutant_breaks_what_it_must(chapter):
    runs = mutants.recorded(chapter)
    jsonschema.validate(runs, SCHEMA)
    ours = {mutant.name: mutant for mutant in registry() if mutant.chapter == chapter}
    assert list(runs) == [name for name in ours if name in runs]  # some may wait to be run
    for name, run in runs.items():
        assert not mutants.survived(ours[name], run)
        for one in run["evidence"]:
            assert one["chapter"] == chapter


# The runner


def code(source: str, *given: tuple[str, str], **options):
    """A cell of code, with the evidence, claim and measure, that it has given."""
    found = [Evidence(claim, "gates/the_cell", measure, (1,), Bound.of(below=2)) for claim, measure in given]
    shown = [nbformat.v4.new_output("display_data", data=one.card()) for one in found]
    return nbformat.v4.new_code_cell(source, outputs=shown, **options)


def book(root, *cells: nbformat.NotebookNode) -> None:
    """A book of one small chapter, in root."""
    path = notebook("gates/the_cell", root)
    path.parent.mkdir(parents=True)
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[
                code("raise ImportError('nothing is installed here')", metadata={"tags": ["setup"]}),
                code('scale = "full"\ndevice = "auto"', metadata={"tags": ["parameters"]}),
                code(
                    "from lstm_lib.book import notebook\n"
                    'run = notebook.start("gates/the_cell", scale=scale, device=device)'
                ),
                *cells,
            ]
        ),
        path,
    )


@contextmanager
def threads():
    """In place of processes, of which each imports PyTorch to start a kernel that does so, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "pool", ThreadPoolExecutor)
        patch.setattr(os, "environ", os.environ.copy())
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The record of a chapter with five mutants, and what the runner complains of."""
    root = tmp_path_factory.mktemp("book")
    book(
        root,
        code("x = 1"),
        code(
            "assert x == 1 and not run.full and run.device.type == 'cpu'\n"
            'run.claim("A02", "a number", x, below=2)\n'
            'run.claim("A04", "another", x / x, below=2)',
            ("A02", "a number"),
            ("A04", "another"),
        ),
        code('run.claim("A04", "a third", x, below=2)', ("A04", "a third")),
        code("raise ValueError('an exercise, behind the last claim')"),
    )
    ours = [
        good,
        replace(good, name="a harmless digit", new="x = 1.5"),
        replace(good, name="an error", new="x = y"),
        replace(good, name="no number", new="x = float('nan')"),
        replace(good, name="two digits", new="x = 33", breaks={"A04": ["a third"]}),
    ]
    with threads():
        wrong = mutants.record("gates/the_cell", ours, jobs=2, root=root)
    return root, ours, wrong, mutants.recorded("gates/the_cell", root)


def test_a_mutant_kills_past_asserts_and_bounds(ran):
    run = ran[3]["a digit"]
    assert [(one["values"], one["holds"]) for one in run["evidence"]] == [([3], False), ([1], True)]
    assert [one.measure for one in mutants.broken(run)] == ["a number"]
    assert len(run["errors"]) == 1
    assert run["errors"][0].startswith("assert x == 1")


def test_a_chapter_runs_as_far_as_the_last_measure_that_must_break(ran):
    for name, measures in (
        ("a digit", ["a number", "another"]),
        ("two digits", ["a number", "another", "a third"]),
    ):
        assert [one["measure"] for one in ran[3][name]["evidence"]] == measures


def test_what_holds_or_errs_or_is_no_number_survives(ran):
    _, _, wrong, runs = ran
    assert wrong == [
        f"{name}: survived by A02, a number" for name in ("a harmless digit", "an error", "no number")
    ]
    assert runs["an error"]["errors"][0] == "NameError: name 'y' is not defined"
    assert not runs["an error"]["evidence"]


def test_a_record_is_as_the_schema_says_and_is_not_made_twice(ran):
    root, ours, wrong, runs = ran
    jsonschema.validate(runs, SCHEMA)
    path = mutants.target("gates/the_cell", root)
    written = path.read_bytes()
    assert mutants.record("gates/the_cell", ours, root=root) == wrong
    assert path.read_bytes() == written
    assert [path.name for path in path.parent.iterdir()] == ["the_cell.json"]


def test_a_run_that_was_cut_off_is_tried_again(ran, tmp_path):
    """In processes, as `make mutants` does it, which record what threads did."""
    root, ours, _, runs = ran
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    name = ours[0].name
    cut = runs | {name: runs[name] | {"errors": ["CellTimeoutError"], "evidence": []}}
    mutants.write("gates/the_cell", cut, tmp_path)
    mutants.record("gates/the_cell", ours, root=tmp_path)
    again = mutants.recorded("gates/the_cell", tmp_path)
    assert again[name]["evidence"] == runs[name]["evidence"]
    assert [run for n, run in again.items() if n != name] == [run for n, run in runs.items() if n != name]


def test_a_mutant_that_leaves_the_list_leaves_the_record(ran, tmp_path):
    root, ours, _, runs = ran
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    mutants.record("gates/the_cell", ours[1:], root=tmp_path)
    assert mutants.recorded("gates/the_cell", tmp_path) == {m.name: runs[m.name] for m in ours[1:]}


def test_a_mutant_that_does_not_fit_ends_the_run_and_leaves_the_record(ran):
    root, ours, _, runs = ran
    with pytest.raises(ValueError, match="old must be found once in gates/the_cell, got 0 times for 'a digit'"):
        mutants.record("gates/the_cell", [*ours, replace(good, old="x = 7")], root=root)
    assert mutants.recorded("gates/the_cell", root) == runs


def test_a_chapter_that_fails_as_it_is_is_not_broken(tmp_path):
    book(tmp_path, code("x = 1"), code('assert x > 1\nrun.claim("A02", "a number", 3, below=2)'))
    said = "gates/the_cell must pass as it is, got assert x > 1; a number"
    with threads(), pytest.raises(ValueError, match=said):
        mutants.record("gates/the_cell", [good], root=tmp_path)
    assert not mutants.target("gates/the_cell", tmp_path).exists()


@pytest.mark.parametrize(
    ("chapter", "mutant", "measure", "told"),
    [
        (
            "variants/ablations",
            "only the two lowest rates to choose from",
            "flip-flop of 300 steps after 120 updates",
            lambda v: f"{100 * v[0]:.0f} % of the steps stay wrong",
        ),
        *(
            (
                "applications/emerging_entities",
                "an eighth of the steps",
                f"names in tweets, 2,600 tweets, 5 epochs: F1 where all names are new, {rival} over the BiLSTM",
                lambda v: f"{min(v):.2f}–{max(v):.2f}",
            )
            for rival in ("linear CRF", "rule of capitals")
        ),
    ],
)
def test_what_prose_says_of_a_mutant_is_in_its_record(chapter, mutant, measure, told):
    record = json.loads((ROOT / "results" / "mutants" / f"{chapter}.json").read_text(encoding="utf-8"))[mutant]
    [values] = [one["values"] for one in record["evidence"] if one["measure"].startswith(measure)]
    cells = nbformat.read(notebook(chapter), 4).cells
    prose = " ".join(" ".join(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    assert told(values) in prose

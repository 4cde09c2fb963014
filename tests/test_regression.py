"""A chapter whose numbers move fails, one whose last digits differ passes: nbval with the root's conftest.py.

A small chapter is executed; then one thing is changed as a reader's change would, each in a copy of its own, and
one pytest runs on them all.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient import NotebookClient

from nbval_numbers import figures

ROOT = Path(__file__).parent.parent
START = (
    "from lstm_lib.book import notebook\nrun = notebook.start('gates/the_cell', device='cpu')\nx = 1.5\ny = 0.5\n"
    "residue = 3.1e-17\nword = 'the'"
)
COMPUTED = "run.claim('A02', 'a computed number', x, below=2, rtol=1e-6)"
TRAINED = "run.claim('A04', 'a trained number', [x, x + .1], below=2)"

SHOWN = (
    "import matplotlib.pyplot as plt\nrun.glue('share', y)\nrun.table(['', 'loss'], ['LSTM', x * y])\n"
    "fig, ax = plt.subplots()\nax.set_title('Share')\nax.bar(['LSTM', 'GRU'], [1, y])"
)
FETCH = "from lstm_lib.book import datasets; raise datasets.{}('no way to it')"

CHANGED = {
    "may_move": {
        "[x, x + .1]": "[x - .2, x + .2]",
        "residue = 3.1e-17": "residue = 4.6e-17",
        "y = 0.5": "y = 0.50002",
    },
    "moved": {"number', x, ": "number', x + .001, ", "[x, x + .1]": "[x, x + .7]", "y = 0.5": "y = 0.501"},
    "lost": {COMPUTED: FETCH.format("DatasetError"), TRAINED: "pass", "word = 'the'": "word = 'an'"},
    "unreachable": {COMPUTED: FETCH.format("DatasetUnreachable")},
}
"""What each copy of the chapter has in place of what: a cell of code for each change, so none hides another's."""


@dataclass
class Outcome:
    """The cells of a copy that failed and that were skipped, by number, and all that was said of all copies."""

    failed: set[int]
    skipped: set[int]
    said: str


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> dict[str, Outcome]:
    """What `make test` says of each copy."""
    code = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(
        cells=[
            code(START),
            code(COMPUTED),
            code(TRAINED, metadata={"tags": ["nbval-ignore-output"]}),
            code("print(f'{word} error is {y:.9f}, or {residue}')"),
            code(SHOWN),
        ]
    )
    describe = f"--IPKernelApp.exec_lines={figures.LOAD}"
    NotebookClient(nb, kernel_name="python3", extra_arguments=[describe]).execute()
    folder = tmp_path_factory.mktemp("book")
    shutil.copy(ROOT / "conftest.py", folder)
    text = nbformat.writes(nb)
    for name, changes in CHANGED.items():
        changed = text
        for old, new in changes.items():
            assert old in changed
            changed = changed.replace(old, new)
        (folder / f"{name}.ipynb").write_text(changed)
    command = "-m pytest -q --nbval --nbval-current-env -p no:cacheprovider --color=no --junit-xml=cells.xml"
    done = subprocess.run(
        # The root is this folder, and not where a file happens to lie above it, such as a setup.py.
        [sys.executable, *command.split(), "-o", f"pythonpath={ROOT / 'tools'}", "--rootdir=.", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    said = re.sub(r"\x1b\[\d*m", "", done.stdout)
    cells = ElementTree.parse(folder / "cells.xml").findall(".//testcase")
    found = {}
    for name in CHANGED:
        mine = [cell for cell in cells if name in cell.get("classname").split(".")]
        assert len(mine) == len(nb.cells), said
        failed, skipped = (
            {int(cell.get("name").split()[-1]) for cell in mine if cell.find(tag) is not None}
            for tag in ("failure", "skipped")
        )
        found[name] = Outcome(failed, skipped, said)
    return found


def test_the_same_numbers_pass_and_so_does_what_may_move(outcome):
    """A trained number within its bound; what is zero but for rounding; a number in a text, by its tolerance."""
    assert not outcome["may_move"].failed | outcome["may_move"].skipped, outcome["may_move"].said


def test_what_moved_fails_and_only_that(outcome):
    assert (outcome["moved"].failed, outcome["moved"].skipped) == ({1, 2, 3, 4}, set())
    assert (outcome["lost"].failed, outcome["lost"].skipped) == ({1, 2, 3}, set())


def test_a_computed_number_that_moved_is_named_with_both_values_and_the_bound(outcome):
    assert (
        "gates/the_cell, claim A02, a computed number: committed 1.5, this run 1.501; must be below 2, "
        "and within 1e-06 of the committed value"
    ) in outcome["moved"].said


def test_a_broken_bound_is_named_with_both_values(outcome):
    assert (
        "gates/the_cell, claim A04, a trained number: committed 1.5, 1.6, this run 1.5, 2.2; must be below 2"
    ) in outcome["moved"].said


def test_evidence_that_is_gone_is_missed_in_a_trained_cell_too(outcome):
    assert "('A04', 'a trained number')" in outcome["lost"].said


def test_what_a_chapter_shows_is_named(outcome):
    by = "(relative difference 0.002, tolerance 0.0001)"
    for line in (
        f'cell 3, stdout, "the error is": committed 0.500000000, this run 0.501000000 {by}',
        f"cell 4, glued 'share': committed 0.5, this run 0.501 {by}",
        f"cell 4, table, row 'LSTM', column 'loss': committed 0.75, this run 0.7515000000000001 {by}",
        f"cell 4, figure, axes 1 (Share), bar, height[1]: committed 0.5, this run 0.501 {by}",
    ):
        assert f"\nmoved.ipynb, {line}\n" in outcome["moved"].said


def test_words_have_no_tolerance(outcome):
    assert re.search(r"^lost\.ipynb, cell 3, .*\ban\b", outcome["lost"].said, re.MULTILINE), outcome["lost"].said


def test_a_chapter_is_skipped_from_data_on_that_cannot_be_reached(outcome):
    assert (outcome["unreachable"].failed, outcome["unreachable"].skipped) == (set(), {1, 2, 3, 4})

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
    "nothing": ("", ""),
    "computed": ("x = 1.5", "x = 1.501"),
    "within": ("[x, x + .1]", "[x - .2, x + .2]"),
    "beyond": ("[x, x + .1]", "[x, x + .7]"),
    "no_evidence": (TRAINED, "pass"),
    "shown": ("y = 0.5", "y = 0.6"),
    "residue": ("residue = 3.1e-17", "residue = 4.6e-17"),
    "last_digit": ("y = 0.5", "y = 0.50002"),
    "digit": ("y = 0.5", "y = 0.501"),
    "word": ("word = 'the'", "word = 'an'"),
    "unreachable": (COMPUTED, FETCH.format("DatasetUnreachable")),
    "damaged": (COMPUTED, FETCH.format("DatasetError")),
}
"""What each copy of the chapter has in place of what."""


@dataclass
class Outcome:
    """How many cells of a copy came to what, and all that was said of all copies."""

    passed: int
    failed: int
    skipped: int
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
    for name, (old, new) in CHANGED.items():
        assert old in text
        (folder / f"{name}.ipynb").write_text(text.replace(old, new))
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
        failed, skipped = (sum(cell.find(tag) is not None for cell in mine) for tag in ("failure", "skipped"))
        assert len(mine) == len(nb.cells), said
        found[name] = Outcome(len(mine) - failed - skipped, failed, skipped, said)
    return found


@pytest.mark.parametrize("name", ["nothing", "within", "residue", "last_digit"])
def test_the_same_numbers_pass_and_so_does_what_may_move(outcome, name):
    """A trained number within its bound; what is zero but for rounding; a number in a text, by its tolerance."""
    assert outcome[name].passed == 5, outcome[name].said


@pytest.mark.parametrize("name", ["digit", "word"])
def test_numbers_in_text_have_a_tolerance_and_words_have_none(outcome, name):
    assert outcome[name].failed > 0


def test_a_computed_number_that_moved_is_named_with_both_values_and_the_bound(outcome):
    assert outcome["computed"].failed > 0
    assert (
        "gates/the_cell, claim A02, a computed number: committed 1.5, this run 1.501; must be below 2, "
        "and within 1e-06 of the committed value"
    ) in outcome["computed"].said


def test_a_broken_bound_is_named_with_both_values(outcome):
    assert outcome["beyond"].failed == 1
    assert (
        "gates/the_cell, claim A04, a trained number: committed 1.5, 1.6, this run 1.5, 2.2; must be below 2"
    ) in outcome["beyond"].said


def test_evidence_that_is_gone_is_missed_in_a_trained_cell_too(outcome):
    assert outcome["no_evidence"].failed == 1
    assert "('A04', 'a trained number')" in outcome["no_evidence"].said


def test_what_a_chapter_shows_is_named(outcome):
    assert outcome["shown"].failed == 2
    by = "(relative difference 0.2, tolerance 0.0001)"
    for line in (
        f'cell 3, stdout, "the error is": committed 0.500000000, this run 0.600000000 {by}',
        f"cell 4, glued 'share': committed 0.5, this run 0.6 {by}",
        f"cell 4, table, row 'LSTM', column 'loss': committed 0.75, this run 0.8999999999999999 {by}",
        f"cell 4, figure, axes 1 (Share), bar, height[1]: committed 0.5, this run 0.6 {by}",
    ):
        assert f"\nshown.ipynb, {line}\n" in outcome["shown"].said


def test_a_chapter_is_skipped_from_data_on_that_cannot_be_reached(outcome):
    assert (outcome["unreachable"].passed, outcome["unreachable"].skipped) == (1, 4)
    assert outcome["damaged"].failed > 0 == outcome["damaged"].skipped

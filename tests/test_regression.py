"""A chapter whose numbers move fails, one whose last digits differ passes: nbval with the root's conftest.py.

A small chapter is executed, one thing is changed as a reader's change would, and pytest runs on it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.fixture(scope="module")
def committed(tmp_path_factory) -> Path:
    """An executed chapter beside a copy of conftest.py."""
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
    nbformat.write(nb, folder / "chapter.ipynb")
    return folder


def outcome(folder: Path, tmp_path: Path, old: str = "", new: str = "") -> tuple[bool, str]:
    """Replace text in the committed chapter, run it as `make test` does; whether it passed, and what was said."""
    shutil.copytree(folder, tmp_path / "b")
    path = tmp_path / "b" / "chapter.ipynb"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--nbval",
            "--nbval-current-env",
            "-p",
            "no:cacheprovider",
            "-o",
            f"pythonpath={ROOT / 'tools'}",
            "--rootdir=.",  # not where a file happens to lie above it, such as a setup.py
            "--color=no",
            "chapter.ipynb",
        ],
        cwd=tmp_path / "b",
        capture_output=True,
        text=True,
        env=os.environ,
    )
    return done.returncode == 0, re.sub(r"\x1b\[\d*m", "", done.stdout)


def test_the_same_numbers_pass(committed, tmp_path):
    passed, said = outcome(committed, tmp_path)
    assert passed, said


def test_a_computed_number_that_moved_is_named_with_both_values_and_the_bound(committed, tmp_path):
    passed, said = outcome(committed, tmp_path, "x = 1.5", "x = 1.501")
    assert not passed
    assert (
        "gates/the_cell, claim A02, a computed number: committed 1.5, this run 1.501; must be below 2, "
        "and within 1e-06 of the committed value"
    ) in said


def test_a_trained_number_may_move_within_its_bound(committed, tmp_path):
    passed, said = outcome(committed, tmp_path, "[x, x + .1]", "[x - .2, x + .2]")
    assert passed, said


def test_a_broken_bound_is_named_with_both_values(committed, tmp_path):
    passed, said = outcome(committed, tmp_path, "[x, x + .1]", "[x, x + .7]")
    assert not passed
    assert (
        "gates/the_cell, claim A04, a trained number: committed 1.5, 1.6, this run 1.5, 2.2; must be below 2"
    ) in said


def test_evidence_that_is_gone_is_missed_in_a_trained_cell_too(committed, tmp_path):
    passed, said = outcome(committed, tmp_path, TRAINED, "pass")
    assert not passed
    assert "('A04', 'a trained number')" in said


def test_what_a_chapter_shows_is_named(committed, tmp_path):
    passed, said = outcome(committed, tmp_path, "y = 0.5", "y = 0.6")
    assert not passed
    by = "(relative difference 0.2, tolerance 0.0001)"
    for line in (
        f'cell 3, stdout, "the error is": committed 0.500000000, this run 0.600000000 {by}',
        f"cell 4, glued 'share': committed 0.5, this run 0.6 {by}",
        f"cell 4, table, row 'LSTM', column 'loss': committed 0.75, this run 0.8999999999999999 {by}",
        f"cell 4, figure, axes 1 (Share), bar, height[1]: committed 0.5, this run 0.6 {by}",
    ):
        assert f"\nchapter.ipynb, {line}\n" in said


@pytest.mark.parametrize(
    ("old", "new", "passes"),
    [
        ("residue = 3.1e-17", "residue = 4.6e-17", True),
        ("y = 0.5", "y = 0.50002", True),
        ("y = 0.5", "y = 0.501", False),
        ("word = 'the'", "word = 'an'", False),
    ],
)
def test_numbers_in_text_have_a_tolerance_and_words_have_none(committed, tmp_path, old, new, passes):
    passed, said = outcome(committed, tmp_path, old, new)
    assert passed == passes, said


@pytest.mark.parametrize(("error", "passes"), [("DatasetUnreachable", True), ("DatasetError", False)])
def test_a_chapter_is_skipped_from_data_on_that_cannot_be_reached(committed, tmp_path, error, passes):
    fetch = f"from lstm_lib.book import datasets; raise datasets.{error}('no way to it')"
    passed, said = outcome(committed, tmp_path, COMPUTED, fetch)
    assert passed == passes, said
    assert ("1 passed, 4 skipped" in said) == passes, said

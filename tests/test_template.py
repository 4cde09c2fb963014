"""A chapter begun from the template, by the steps of README.md, is a chapter that passes its tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clone import clone

from chapters import ROOT

CHAPTER = "gates/a_new_one"


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    return clone(tmp_path_factory.mktemp("book"), only=())


def python(book: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(book), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=book, env=environment, capture_output=True, text=True)


def test_the_steps_of_the_readme_make_a_chapter(book):
    text, notebook, toc = book / f"notebooks/{CHAPTER}.py", book / f"notebooks/{CHAPTER}.ipynb", book / "_toc.yml"
    for step in (
        ("tools/template.py", CHAPTER),
        ("-m", "jupytext", "--to", "ipynb", str(text)),
    ):
        done = python(book, *step)
        assert done.returncode == 0, done.stderr
    text.unlink()
    last = re.findall(r".*- file: notebooks/gates/.*\n", toc.read_text())[-1]
    toc.write_text(toc.read_text().replace(last, last + re.sub(r"gates/\w+", CHAPTER, last)))
    done = python(book, "tools/notebooks.py", CHAPTER)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = (
        "-qqp",
        "no:cacheprovider",
        f"notebooks/{CHAPTER}.ipynb",
        "tests/test_notebook_files.py",
        "tests/test_exercises.py",
        "-k",
        "a_new_one",
    )
    done = python(book, "-m", "pytest", *tests)
    assert done.returncode == 0, done.stdout
    # What was changed is noticed: the test has looked at this chapter.
    notebook.write_text(notebook.read_text().replace("f = 0.9", "f = 0.8"))
    assert "committed 0.34" in python(book, "-m", "pytest", *tests[:3]).stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gates/the_cell", "NB must be a new name, and gates/the_cell is there already"),
        ("gates/The-Cell", "NB must be one name such as gates/a_new_one, got gates/The-Cell"),
        ("", "NB must be one name such as gates/a_new_one, got none"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, said):
    done = python(ROOT, "tools/template.py", *name.split())
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr

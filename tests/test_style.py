"""`make lint` is a part of `make test`."""

import subprocess
import sys

import pytest

from chapters import ROOT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_lint_runs_the_same():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert [line.strip() for line in recipe.splitlines()[1:]] == [
        "$(BIN)/ruff check .",
        "$(BIN)/ruff format --check .",
    ]

"""`make lint` is a part of `make test`."""

import re
import subprocess
import sys

import nbformat
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


NO_SUFFIX = re.compile(  # -is- is a part of the stem
    "(adv|ar|bru|compr|comprom|conc|cru|dev|disgu|enterpr|exerc|franch|improv|merchand|no|po|pra|prec|prem|prom|ra|rev|"
    "r|superv|surpr|.*w)is"
)


def test_words_in_ize_have_a_z():
    """Optimization and initialization: one spelling everywhere, of names too."""
    found = {}
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n"):
        if name.endswith((".md", ".py")):
            text = (ROOT / name).read_text(encoding="utf-8")
        elif name.endswith(".ipynb"):
            text = "\n".join(cell.source for cell in nbformat.read(ROOT / name, 4).cells)
        else:
            continue
        for word, stem in re.findall(
            r"((?<![a-z0-9])([a-z]+is)(?:e[drs]?|es|ing|ations?)(?![a-z]))", text.lower()
        ):
            if not NO_SUFFIX.fullmatch(stem):
                found.setdefault(word, set()).add(name)
    assert not found

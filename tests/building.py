"""Sphinx in this process, for tests that build a few pages: one of its own would import PyTorch for each."""

import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
from sphinx.cmd.build import build_main

from chapters import ROOT

PLACES = [ROOT / "tools", ROOT / "book" / "_ext"]
OURS = {path.stem for place in PLACES for path in place.glob("*.py")}


def build(folder: Path, *options: str) -> tuple[bool, str]:
    """Build the pages of ``folder`` into its ``out``: whether Sphinx did, and what it complained of.

    It imports our tools and extensions anew, from where the folder's ``conf.py`` says, as a new process would.
    """
    kept = {name: sys.modules.pop(name) for name in OURS & sys.modules.keys()}
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(StringIO()) as said:
        patch.setattr(sys, "path", [path for path in sys.path if Path(path) not in PLACES])
        patch.chdir(folder)
        try:
            done = build_main(["-q", *options, ".", "out"])
        finally:
            for name in OURS:
                sys.modules.pop(name, None)
            sys.modules.update(kept)
    return done == 0, said.getvalue()

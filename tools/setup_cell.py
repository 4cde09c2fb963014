"""The set-up cell that every chapter begins with, made from the one address in `_config.yml`."""

from __future__ import annotations

import yaml
from nbformat import NotebookNode

from chapters import ROOT

PLACEHOLDER = "https://github.com/YOUR_NAME/lstm-book"
"""The address of a book that is not published. GitHub allows no underscore in an owner's name, so nobody can
register it, and no copy of the book ever installs a stranger's code."""

TAG = "setup"

UNPUBLISHED = '''\
# Set-up: nothing to do where the book's library is installed; elsewhere this says how to install it.
import importlib.util
import sys

if importlib.util.find_spec("lstm_lib") is None:
    raise ImportError(
        "lstm_lib, the library of this book, is missing, and the book has no public address yet. Run "
        f"`{sys.executable} -m pip install -e .` in your copy of the book, in the folder that holds "
        "pyproject.toml, then restart the kernel."
    )
'''

PUBLISHED = '''\
# Set-up: nothing to do where the book's library is installed; elsewhere, as on Colab, pip fetches it.
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("lstm_lib") is None:
    if importlib.util.find_spec("torch") is None:
        raise ImportError("PyTorch is missing. Install it (https://pytorch.org), then restart the kernel.")
    url = "<URL>"
    kept = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "numpy")]   # as they are
    command = [sys.executable, "-m", "pip", "install", "-q", f"git+{url}", *kept]
    unasked = os.environ | {"GIT_TERMINAL_PROMPT": "0"}     # a question of git's would wait unseen
    pip = subprocess.run(command, env=unasked, capture_output=True, text=True)
    if pip.returncode:
        raise ImportError(
            f"{pip.stderr}\\nSo lstm_lib, the library of this book, could not be installed from {url}. Run "
            "this cell again once the reason above is gone (it needs git and a network). Or clone the book, "
            f"run `{sys.executable} -m pip install -e .` in its folder, and restart the kernel."
        )
    importlib.invalidate_caches()
'''


def repository_url() -> str:
    """The book's repository, as `_config.yml` has it."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def text(url: str) -> str:
    """The set-up cell of a book whose repository is at ``url``.

    Parameters
    ----------
    url : str
        What ``git clone`` takes, or :data:`PLACEHOLDER`: then the cell fetches nothing.

    Returns
    -------
    str
    """
    template = UNPUBLISHED if url == PLACEHOLDER else PUBLISHED
    return template.replace("<URL>", url).rstrip("\n")


def fill(notebook: NotebookNode, url: str) -> None:
    """Write the set-up cell of a notebook, in place.

    Parameters
    ----------
    notebook : NotebookNode
        A chapter.
    url : str
        As in :func:`text`.

    Raises
    ------
    ValueError
        Unless exactly one code cell is tagged ``setup``.
    """
    cells = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", ())]
    if [cell.cell_type for cell in cells] != ["code"]:
        raise ValueError(f"a chapter needs exactly one code cell tagged {TAG!r}, this one has {len(cells)}")
    cells[0].source = text(url)

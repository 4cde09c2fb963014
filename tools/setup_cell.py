"""The set-up cell that every chapter begins with, made from the one address in `_config.yml`."""

from __future__ import annotations

import ast
import re
import tomllib

import yaml
from nbformat import NotebookNode

from chapters import ROOT

PLACEHOLDER = "https://github.com/YOUR_NAME/lstm-book"
"""The address of a book that is not published. GitHub allows no underscore in an owner's name, so nobody can
register it, and no copy of the book ever installs a stranger's code."""

TAG = "setup"

ALONG = {"onnx": ("onnxscript",), "optuna": ("sklearn",)}
"""What must come with a package although no chapter imports it: ``torch.onnx`` exports with the one, Optuna's
analysis of variance grows its forest with the other."""

IMPORTED_AS = {
    "python-crfsuite": "pycrfsuite",
    "python-dateutil": "dateutil",
    "scikit-learn": "sklearn",
    "torch-geometric": "torch_geometric",
}
"""Packages that are imported under another name than pip's."""

UNPUBLISHED = """\
# Set-up: nothing to do where everything is installed; elsewhere this says how to install it.
import importlib.util
import sys

needed = [          # the book's library, and what this chapter alone imports
<NAMES>
]
missing = [name for name in needed if importlib.util.find_spec(name) is None]
if missing:
    raise ImportError(
        f"{', '.join(missing)}: missing, and the book has no public address yet. Run "
        f'`{sys.executable} -m pip install -e ".[book]"<EXTRAS>` '
        "in your copy of the book, in the folder that holds pyproject.toml, then restart the kernel."
    )
"""

PUBLISHED = """\
# Set-up: nothing to do where everything is installed; elsewhere, as on Colab, pip fetches what is missing.
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

url = "<URL>"
needed = {          # the book's library, and what this chapter alone imports
<NEEDS>
}
missing = [source for name, source in needed.items() if importlib.util.find_spec(name) is None]
if missing:
    if importlib.util.find_spec("torch") is None:
        raise ImportError("PyTorch is missing. Install it (https://pytorch.org), then restart the kernel.")
    kept = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "numpy")]   # as they are
    command = [sys.executable, "-m", "pip", "install", "-q", *missing, *kept]
    unasked = os.environ | {"GIT_TERMINAL_PROMPT": "0"}     # a question of git's would wait unseen
    pip = subprocess.run(command, env=unasked, capture_output=True, text=True)
    if pip.returncode:
        raise ImportError(
            f"{pip.stderr}\\nSo pip could not install {', '.join(missing)}. Run this cell again once the reason "
            "above is gone (it needs git and a network). Or clone the book, run "
            f'`{sys.executable} -m pip install -e ".[book]"<EXTRAS>` '
            "in its folder, and restart the kernel."
        )
    importlib.invalidate_caches()
"""


def code(notebook: NotebookNode) -> ast.Module:
    """All code of a notebook, without what only IPython understands."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return ast.parse("\n".join(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE) for source in cells))


def imported(notebook: NotebookNode) -> set[str]:
    """The packages that the code of a notebook imports."""
    names = set()
    for node in ast.walk(code(notebook)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def optional() -> dict[str, str]:
    """What single chapters import, by name, as pip takes it: the extra ``chapters`` of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = project["optional-dependencies"]["chapters"]
    return {IMPORTED_AS.get(name := re.match(r"[\w-]+", need)[0], name): need for need in needs}


def needed(notebook: NotebookNode) -> dict[str, str]:
    """What a chapter needs beyond the library, by name, as pip takes it."""
    names = imported(notebook)
    names |= {along for name in names for along in ALONG.get(name, ())}
    return {name: need for name, need in optional().items() if name in names}


def repository_url() -> str:
    """The book's repository, as `_config.yml` has it."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def text(url: str, packages: dict[str, str] | None = None) -> str:
    """The set-up cell of a book whose repository is at ``url``.

    Parameters
    ----------
    url : str
        What ``git clone`` takes, or :data:`PLACEHOLDER`: then the cell fetches nothing.
    packages : dict of str to str, optional
        What the chapter imports that the library does not bring, by name, as pip takes it.

    Returns
    -------
    str
    """
    packages = packages or {}
    library = '    "lstm_lib": f"lstm-lib[book] @ git+{url}",'
    needs = [library, *(f'    "{name}": "{need}",' for name, need in packages.items())]
    names = [f'    "{name}",' for name in ("lstm_lib", *packages)]
    template = UNPUBLISHED if url == PLACEHOLDER else PUBLISHED
    for mark, value in (
        ("<URL>", url),
        ("<NEEDS>", "\n".join(needs)),
        ("<NAMES>", "\n".join(names)),
        ("<EXTRAS>", "".join(f" {need}" for need in packages.values())),
    ):
        template = template.replace(mark, value)
    return template.rstrip("\n")


def of(notebook: NotebookNode, url: str) -> str:
    """The set-up cell of a chapter: with the packages that it alone imports, and what comes along with them.

    Parameters
    ----------
    notebook : NotebookNode
        A chapter.
    url : str
        As in :func:`text`.

    Returns
    -------
    str
    """
    return text(url, needed(notebook))


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
    cells[0].source = of(notebook, url)

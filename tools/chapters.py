"""The chapters of the book: what `_toc.yml` lists under `notebooks/`, in its order."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def chapters(root: Path = ROOT) -> list[str]:
    """Names such as ``gates/the_cell``, in the order of the book."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [entry.removeprefix("notebooks/") for entry in entries(toc) if entry.startswith("notebooks/")]


def notebook(chapter: str, root: Path = ROOT) -> Path:
    """The file of a chapter."""
    return root / "notebooks" / f"{chapter}.ipynb"


def chosen(names: list[str], root: Path = ROOT) -> list[str]:
    """The chapters of these names, or of these files, or all; an unknown name ends the program."""
    known = chapters(root)
    names = [name.removeprefix("./").removeprefix("notebooks/").removesuffix(".ipynb") for name in names]
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"no chapter {', '.join(unknown)} in _toc.yml; there are {', '.join(known)}")
    return names or known


def entries(node) -> list[str]:
    """All files that a part of the table of contents names."""
    if isinstance(node, list):
        return [name for item in node for name in entries(item)]
    if isinstance(node, dict):
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [name for key in ("parts", "chapters", "sections") for name in entries(node.get(key, []))]
    return []

"""Mutants: ways to break the subject of a claim on purpose.

`mutants/<chapter>.toml` lists a chapter's: a table for each, in which ``breaks`` names the measures that must
notice.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.resources import files
from operator import itemgetter

from lstm_lib.book import claims

KINDS = ("mechanism", "training", "data", "rival")
"""What a mutant breaks, or that it puts the rival in the subject's place."""


@dataclass(frozen=True)
class Mutant:
    """One way to break a chapter's subject.

    Parameters
    ----------
    name : str
        What is broken, in plain words.
    chapter : str
        Such as ``gates/the_cell``.
    kind : str
        One of ``KINDS``.
    breaks : dict of str to list of str
        The measures whose bounds must break, by the id of their claim.
    code : str
        Runs behind the cell that starts the chapter.
    old, new : str
        A piece of the chapter's code, found exactly once, and what stands there instead.

    Raises
    ------
    ValueError
        For another kind, a claim that the chapter does not test, nothing to break, or no patch.
    """

    name: str
    chapter: str
    kind: str
    breaks: dict[str, list[str]] = field(hash=False)
    code: str = ""
    old: str = ""
    new: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r} for {self.name!r}")
        known = {claim.id for claim in claims.registry().values() if self.chapter in claim.chapters}
        if not self.breaks or not known.issuperset(self.breaks) or not all(self.breaks.values()):
            tested = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"breaks must name measures of the claims of {self.chapter} ({tested}), "
                f"got {self.breaks} for {self.name!r}"
            )
        if not (self.code or self.old) or (self.old and self.old == self.new):
            raise ValueError(f"patch must be code, or old and another new, got neither for {self.name!r}")

    def applied(self, cells: list[str]) -> list[str]:
        """The chapter with its subject broken.

        Parameters
        ----------
        cells : list of str
            The chapter's cells of code, without the set-up.

        Returns
        -------
        list of str
            As many cells.

        Raises
        ------
        ValueError
            If ``old`` is not found exactly once.
        """
        if self.old and (found := sum(cell.count(self.old) for cell in cells)) != 1:
            raise ValueError(f"old must be found once in {self.chapter}, got {found} times for {self.name!r}")
        cells = [cell.replace(self.old, self.new) if self.old else cell for cell in cells]
        return [f"{cell}\n{self.code}" if self.code and "notebook.start(" in cell else cell for cell in cells]


def fingerprint(cells: Iterable[str]) -> str:
    """A checksum of what a chapter's code does, mutant included; comment, line break, docstring do not count."""
    return sha256("".join(map(_plain, cells)).lstrip("\n").encode()).hexdigest()


@cache  # a mutant changes one cell of many
def _plain(cell: str) -> str:
    """The code of a cell, in one form whatever its layout."""
    tree = ast.parse(cell)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    # Behind another statement, because blank lines and the form of a string depend on whether one goes before.
    tree.body.insert(0, ast.Pass())
    return ast.unparse(tree).removeprefix("pass")


@cache
def registry() -> tuple[Mutant, ...]:
    """All mutants of the book.

    Returns
    -------
    tuple of Mutant
    """
    folder = files("lstm_lib.book").joinpath("mutants")
    lists = {
        f"{part.name}/{path.name.removesuffix('.toml')}": path
        for part in folder.iterdir()
        for path in part.iterdir()
    }
    return tuple(
        Mutant(name, chapter, **entry)
        for chapter, path in sorted(lists.items(), key=itemgetter(0))
        for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()
    )

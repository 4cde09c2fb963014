"""Compares a cell's committed outputs with those of a fresh run: text, tables, and what figures drew.

What differs is told in one line each: the output, the words before a number or the row and column of a table, the
committed value and that of this run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from itertools import count, zip_longest
from typing import TypeVar

from nbval_numbers import figures

T = TypeVar("T")
NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?!\w|\.\d)")
DIGITS = re.compile(r"[-+−]?\.?\d[\d.,]*(?:[eE][-+]?\d+)?|\b(?:nan|inf)\b")
WARNING = re.compile(r"\b(\w*Warning): (.*)")
GLUE = "application/papermill.record/"
"""What myst-nb puts before the types of an output that is glued under a name."""


class Comparison:
    """Compares committed outputs with fresh ones; what differs is in ``told``, a line each.

    Parameters
    ----------
    rtol, atol : float
        Numbers within either are the same. In a figure ``rtol`` is relative to the largest number of a line,
        unless its axis is logarithmic.
    structure : bool
        Compare figures only, and of these no number: axes, kinds and labels of what was drawn, and words.

    Examples
    --------
    >>> comparison = Comparison(rtol=1e-4)
    >>> comparison.text("stdout", "loss 0.5 after 3 epochs", "loss 0.51 after 3 epochs")
    >>> comparison.told
    ['stdout, "loss": committed 0.5, this run 0.51 (relative difference 0.02, tolerance 0.0001)']
    """

    def __init__(self, rtol: float, atol: float = 0.0, structure: bool = False) -> None:
        self.rtol, self.atol, self.structure = rtol, atol, structure
        self.told: list[str] = []
        self.ignored: set[str] = set()  # types, in nbval's words
        self.sanitize: Callable[[str], str] = str

    def outputs(self, committed: list[dict], fresh: list[dict]) -> None:
        """Compare the outputs of a cell."""
        if self.structure:
            if not any(figures.MIME in output.get("data", {}) for output in committed):
                return
            committed, fresh = (
                [output for output in some if kind(output) == "figure"] for some in (committed, fresh)
            )
        known = [self.shape(warning) for warning in warnings(committed)]
        for warning in warnings(fresh):
            if not self.structure and self.shape(warning) not in known and "stderr" not in self.ignored:
                self.told.append(f"stderr: a warning that the committed notebook has not: {quote(warning)}")
        for k, old, new in pairs(committed, fresh, kind, self.same):
            name = kind(old or new)
            if name != "stderr" and name not in self.ignored:  # progress is not compared, nor logs
                self.output(f"{name} {k}" if k else name, old, new)

    def same(self, old: dict, new: dict) -> bool:
        """Whether two outputs of one kind do not differ."""
        trial = Comparison(self.rtol, self.atol, self.structure)
        trial.ignored, trial.sanitize = self.ignored, self.sanitize
        trial.output("", old, new)
        return not trial.told

    def output(self, where: str, old: dict | None, new: dict | None) -> None:
        """Compare two outputs of one kind; None is one that is not there."""
        a, b = (None if one is None else self.bundle(one) for one in (old, new))
        if a is None or b is None:
            self.changed(where, a and first_line(a), b and first_line(b))
            return
        before = len(self.told)
        was, now = (one.pop(figures.MIME, None) for one in (a, b))
        if was and now:
            self.figure(where, was, now)
        elif was:
            self.told.append(f"{where}: committed with a description of what was drawn, this run without")
        if "<table" in a.get("text/html", "") and "text/html" in b:
            self.tables(where, Page(a.pop("text/html")), Page(b.pop("text/html")))
            a.pop("text/plain", None), b.pop("text/plain", None)
        for name in {**a, **b}:
            if name not in a or name not in b:
                self.changed(f"{where}, {name}", a.get(name), b.get(name))
            elif len(self.told) == before:  # the other types of an output repeat what one tells
                self.text(where, a[name], b[name])

    def bundle(self, output: dict) -> dict:
        """What an output holds by type, without pictures and what is ignored."""
        if "data" not in output:
            return {"text/plain": output.get("text") or f"{output.get('ename')}: {output.get('evalue')}"}
        return {
            name: data if isinstance(data, str) or name == figures.MIME else json.dumps(data, indent=1)
            for name, data in ((name.removeprefix(GLUE), data) for name, data in output["data"].items())
            if name not in self.ignored and not name.startswith("image/")
        }

    def shape(self, text: str) -> str:
        """A text without its numbers and its layout."""
        return " ".join((DIGITS if self.structure else NUMBER).sub("\0", text).split())

    def close(self, old: float, new: float, scale: float = 0.0) -> bool:
        """Whether two numbers are the same; a NaN is one."""
        tolerance = max(self.atol, self.rtol * scale)
        return math.isclose(old, new, rel_tol=self.rtol, abs_tol=tolerance) or (old != old and new != new)

    def moved(self, where: str, old: str, new: str, note: str = "") -> None:
        """Tell a number that moved."""
        a, b = value(old), value(new)
        size = f"relative difference {abs(b - a) / abs(a):.2g}, " if a and math.isfinite(a + b) else ""
        self.told.append(f"{where}: committed {old}, this run {new} ({size}tolerance {self.rtol:g}{note})")

    def changed(self, where: str, old: str | None, new: str | None) -> None:
        """Tell what is new, not there any more, or other than it was."""
        if old is None or new is None:
            text, told = (old, "not in this run") if new is None else (new, "only in this run")
            self.told.append(f"{where}: {told}" + (f": {quote(text)}" if text else ""))
        else:
            self.told.append(f"{where}: committed {quote(old)}, this run {quote(new)}")

    def text(self, where: str, old: str, new: str) -> None:
        """Tell each number that moved or, if more than numbers changed, the first line that differs."""
        old, new = self.sanitize(old), self.sanitize(new)
        if self.shape(old) != self.shape(new):
            lines = list(zip_longest(old.splitlines(), new.splitlines()))
            k, a, b = next(
                (k, a, b)
                for k, (a, b) in enumerate(lines, 1)
                if a is None or b is None or self.shape(a) != self.shape(b)
            )
            self.changed(f"{where}, line {k}" if len(lines) > 1 else where, a, b)
        elif not self.structure:
            for a, b in zip(NUMBER.finditer(old), NUMBER.finditer(new), strict=True):
                if not self.close(value(a[0]), value(b[0])):
                    self.moved(where + words_before(a), a[0], b[0])

    def tables(self, where: str, old: Page, new: Page) -> None:
        """Compare the tables of two pages cell by cell, and the text around them."""
        if [table.form for table in old.tables] != [table.form for table in new.tables]:
            self.text(where, *("\n".join(map(str, page.tables)) for page in (old, new)))
        else:
            for a, b in zip(old.tables, new.tables, strict=True):
                for place in a.cells:
                    self.text(f"{where}, {a.name(*place)}", a.cells[place], b.cells[place])
        self.text(where, " ".join(old.text), " ".join(new.text))

    def vector(self, where: str, old: str, new: str, log: bool = False) -> None:
        """Compare the summaries of two vectors; tell what moved most."""
        (size, a), (other, b) = numbers(old), numbers(new)
        if size != other or len(a) != len(b):
            self.told.append(f"{where}: committed {size} values, this run {other}")
            return
        scale = 0.0 if log else max((abs(x) for x in map(float, a.values()) if math.isfinite(x)), default=0.0)
        moved = {
            name: abs(float(b[name]) - float(x))
            for name, x in a.items()
            if not self.close(float(x), float(b[name]), scale)
        }
        if moved:
            name = max(moved, key=moved.get)
            also = f"; so did {len(moved) - 1} of {len(a) - 1} others" if len(moved) > 1 else ""
            self.moved(where + name, a[name], b[name], also)

    def figure(self, where: str, old: dict, new: dict) -> None:
        """Compare the descriptions of two figures."""
        for part in {**old, **new}:
            a, b = old.get(part), new.get(part)
            title = ((a or b).get("title") or "").split("\n")[0]
            there = where if part == "figure" else f"{where}, {part}" + (f" ({title})" if title else "")
            if a is None or b is None:
                self.changed(there, a and "", b and "")
                continue
            log = {name for name in "xyz" if a.get(f"{name} scale") == "log"}
            for field in {**a, **b}:
                if field.endswith("limits"):
                    if not self.structure:
                        self.vector(f"{there}, {field}", a[field], b[field], field[0] in log)
                elif field != "drawn":
                    self.text(f"{there}, {field}", a.get(field, ""), b.get(field, ""))
            artists = (one.get("drawn", ()) for one in (a, b))
            for _, x, y in pairs(*artists, lambda one: one["kind"] + self.shape(one["label"])):
                self.artist(there, x, y, log)

    def artist(self, where: str, old: dict | None, new: dict | None, log: set[str]) -> None:
        """Compare what was drawn of one kind under one label."""
        one = old or new
        where += f", {one['kind']}" + (f" {one['label']!r}" if one["label"] else "")
        if old is None or new is None:
            self.changed(where, old and "", new and "")
        elif old["count"] != new["count"]:
            self.told.append(f"{where}: committed {old['count']} of them, this run {new['count']}")
        elif not self.structure:
            self.text(f"{where}, label", old["label"], new["label"])
            for name in [key for key in old if key not in ("kind", "label", "count")]:
                axis = {"width": "x", "height": "y"}.get(name, name)
                self.vector(f"{where}, {name}", old[name], new.get(name, "n=0 at="), axis in log)


def tolerance(cell: dict, default: float) -> float:
    """The relative tolerance that a tag of a notebook's cell names, such as ``rtol-1e-2``, or the default."""
    named = [tag.removeprefix("rtol-") for tag in cell.metadata.get("tags", []) if tag.startswith("rtol-")]
    return float(named[0]) if named else default


class Table:
    """A table: the texts of its ``cells`` by row and column, those that span several in each."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], str] = {}
        self.heads: set[tuple[int, int]] = set()
        self.row = 0

    def add(self, text: str, head: bool, down: int, across: int) -> None:
        """Put a cell at the next free place of the row."""
        column = next(j for j in count() if (self.row, j) not in self.cells)
        places = [(self.row + i, column + j) for i in range(down) for j in range(across)]
        self.cells |= dict.fromkeys(places, text)
        self.heads |= set(places) if head else set()

    @property
    def form(self) -> list[tuple[int, int]]:
        """The places of the cells."""
        return sorted(self.cells)

    def name(self, i: int, j: int) -> str:
        """A cell by the heads of its row and column; the first cell of a row is one if the row has no other."""
        top = [r for r in range(self.row) if all((r, c) in self.heads for r_, c in self.cells if r_ == r)]
        left = [c for c in range(j) if (i, c) in self.heads] or [0]
        row = " ".join(self.cells[i, c] for c in left if c < j) if i not in top else ""
        column = " ".join(dict.fromkeys(self.cells[r, j] for r in top if r < i and (r, j) in self.cells))
        return f"row {repr(row) if row else i + 1}, column {repr(column) if column else j + 1}"

    def __str__(self) -> str:
        return "\n".join(
            " | ".join(self.cells[place] for place in self.form if place[0] == i) for i in range(self.row)
        )


class Page(HTMLParser):
    """HTML as ``tables`` and the pieces of ``text`` around them; how it is marked up is left out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.text: list[str] = []
        self.cell: list[str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append(Table())
        elif tag in ("td", "th") and self.tables:
            self.cell, self.spans = [], [int(dict(attrs).get(f"{name}span") or 1) for name in ("row", "col")]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.cell is not None:
            self.tables[-1].add(" ".join("".join(self.cell).split()), tag == "th", *self.spans)
            self.cell = None
        elif tag == "tr" and self.tables:
            self.tables[-1].row += 1

    def handle_data(self, data: str) -> None:
        (self.text if self.cell is None else self.cell).append(data)


def pairs(
    old: Iterable[T], new: Iterable[T], key: Callable[[T], str], same: Callable[[T, T], bool] | None = None
) -> Iterator[tuple[int, T | None, T | None]]:
    """Pair what has the same key, in order; None stands for what one side lacks.

    Parameters
    ----------
    old, new : iterable
        The two sides.
    key : callable
        Of one thing.
    same : callable, optional
        Whether two things are equal: where one side has more of a key, equal ones are paired, so that the others
        are those that are new or missing.

    Yields
    ------
    tuple
        Number among those of its key, from 1, or 0 for an only one; the old and the new thing.
    """
    groups: dict[str, tuple[list[T], list[T]]] = {}
    for side, things in enumerate((old, new)):
        for thing in things:
            groups.setdefault(key(thing), ([], []))[side].append(thing)
    for several in groups.values():
        a, b = (list(enumerate(things, 1)) for things in several)
        longest = max(len(a), len(b))
        if same and len(a) != len(b):
            for x in list(a):
                if twin := next((y for y in b if same(x[1], y[1])), None):
                    a.remove(x), b.remove(twin)
        for x, y in zip_longest(a, b):
            k, _ = x or y
            yield k if longest > 1 else 0, x and x[1], y and y[1]


def kind(output: dict) -> str:
    """An output in a word: the name of a stream or of a glued value, or what it shows."""
    data = output.get("data", {})
    if "data" not in output:
        return output.get("name", "error")
    if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
        return f"glued {name!r}"
    if figures.MIME in data or any(key.startswith("image/") for key in data):
        return "figure"
    return "table" if "<table" in data.get("text/html", "") else "output"


def warnings(outputs: Iterable[dict]) -> list[str]:
    """The warnings on stderr, without the lines of code that they come from."""
    text = "\n".join(output["text"] for output in outputs if output.get("name") == "stderr")
    return [found[0] for found in WARNING.finditer(text)]


def first_line(bundle: dict) -> str:
    """What an output begins with."""
    for name in ("text/plain", *bundle):
        if isinstance(text := bundle.get(name), str):
            text = re.sub("<[^>]+>", " ", text) if name == "text/html" else text
            return next(filter(str.strip, text.splitlines()), "")
    return ""


def value(text: str) -> float:
    """The number that a text is."""
    return float(text.replace(",", "").replace("−", "-"))


def numbers(summary: str) -> tuple[str, dict[str, str]]:
    """The size and the named numbers of a summary by :func:`nbval_numbers.figures.summary`.

    Examples
    --------
    >>> numbers("n=100 min=0 max=99 at=0,99")
    ('100', {'[0]': '0', '[99]': '99', ', minimum': '0', ', maximum': '99'})
    """
    named = dict(part.split("=") for part in summary.split())
    size, at = named.pop("n"), list(filter(None, named.pop("at").split(",")))
    last = math.prod(map(int, size.split("x"))) - 1
    places = [round(k * last / max(len(at) - 1, 1)) for k in range(len(at))]
    words = {"min": ", minimum", "max": ", maximum", "mean": ", mean"}
    samples = {f"[{k}]": x for k, x in zip(places, at, strict=True)}
    return size, samples | {words[name]: x for name, x in named.items()}


def words_before(number: re.Match) -> str:
    """Where a number stands: the words before it in its line or, without any, the line."""
    text, start = number.string, number.start()
    before = text[text.rfind("\n", 0, start) + 1 : start].strip(" :=,;([|")
    if re.search(r"[^\W\d_]", before):
        return f', "{before if len(before) <= 60 else "…" + before[-59:]}"'
    return f", line {text.count(chr(10), 0, start) + 1}" if "\n" in text.strip() else ""


def quote(text: str) -> str:
    """A text in quotation marks, on one line and not too long."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 100 else text[:99] + "…")

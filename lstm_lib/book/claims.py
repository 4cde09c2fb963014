"""A claim, its evidence, its verdict; and the registry of all claims of the book."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from statistics import median
from zlib import crc32

MIME = "application/vnd.lstm-lib.evidence+json"
"""The type under which a notebook's outputs carry evidence."""

VERDICTS = ("true", "true when", "false as stated", "open", "not testable")
"""What may be said of a claim; ``open`` until it is tested."""

WORDED = re.compile(r"(?=.*[A-Za-z]{2})[A-Za-z0-9 %'(),\-./:;=\[\]_±²½×–…−√≤γημ]*")
"""A measure whose Latin words tell it: an anchor passes over these signs beside words."""


class BoundFailed(AssertionError):
    """A measured value lies outside the bound of its claim."""


@dataclass(frozen=True)
class Claim:
    """One claim of the registry ``claims.toml``.

    Parameters
    ----------
    id : str
        ``A01`` … for the source article, ``B01`` … for the field.
    statement : str
        What is claimed, in our words.
    source : str
        Where it is claimed: a section of the article, or keys of the bibliography.
    verdict : str
        One of ``VERDICTS``.
    note : str
        Completes the verdict: when it is true, or what is true instead.
    chapters : tuple of str
        The chapters that give evidence, such as ``gates/the_cell``.
    """

    id: str
    statement: str
    source: str
    verdict: str
    note: str
    chapters: tuple[str, ...]

    @property
    def finding(self) -> str:
        """The verdict with its note."""
        return f"{self.verdict}: {self.note}" if self.note else self.verdict


@cache
def registry() -> dict[str, Claim]:
    """All claims of the book by id, in order.

    Returns
    -------
    dict of str to Claim

    Examples
    --------
    >>> registry()["A02"].verdict
    'true'
    """
    entries = tomllib.loads(files("lstm_lib.book").joinpath("claims.toml").read_text(encoding="utf-8"))
    return {
        name: Claim(name, **(entry | {"chapters": tuple(entry["chapters"])})) for name, entry in entries.items()
    }


@dataclass(frozen=True)
class Bound:
    """The values that a claim allows: an interval, with the words for it.

    Parameters
    ----------
    kind : {"below", "above", "within", "equals"}
        ``below`` and ``above`` leave the limit out, ``within`` and ``equals`` take it in.
    low, high : float
        Ends of the interval; infinite where there is none.

    Examples
    --------
    >>> Bound.of(below=0.5).holds(0.4), str(Bound.of(within=(1, 2)))
    (True, 'from 1 to 2')
    """

    kind: str
    low: float
    high: float

    @classmethod
    def of(cls, **limit: float | tuple[float, float]) -> Bound:
        """Make a bound from exactly one of ``below``, ``above``, ``within=(low, high)``, ``equals``."""
        match list(limit.items()):
            case [("below", x)]:
                return cls("below", -math.inf, float(x))
            case [("above", x)]:
                return cls("above", float(x), math.inf)
            case [("within", (low, high))] if low <= high:
                return cls("within", float(low), float(high))
            case [("equals", x)]:
                return cls("equals", float(x), float(x))
        raise ValueError(
            "bound must be exactly one of below=x, above=x, within=(low, high) with low <= high or equals=x, "
            f"got {limit or 'none'}"
        )

    def holds(self, value: float) -> bool:
        """Whether ``value`` is finite and inside."""
        inside = (
            self.low < value < self.high if self.kind in ("below", "above") else (self.low <= value <= self.high)
        )
        return math.isfinite(value) and inside

    def __str__(self) -> str:
        return {
            "below": f"below {number(self.high)}",
            "above": f"above {number(self.low)}",
            "within": f"from {number(self.low)} to {number(self.high)}",
            "equals": f"equal to {number(self.low)}",
        }[self.kind]


@dataclass(frozen=True)
class Evidence:
    """What a chapter measured for a claim, and the bound that it must keep.

    Parameters
    ----------
    claim : str
        Id of a claim in :func:`registry`.
    chapter : str
        The chapter that measured, such as ``gates/the_cell``.
    measure : str
        What was measured, in words.
    values : tuple of float
        One value, or one per seed (or whatever ``over`` names).
    bound : Bound
        Every value must keep it.
    unit : str
        Unit of the values; empty for a pure number.
    over : str
        What the values run over.
    rtol : float or None
        A computed number is compared with its committed value within this relative tolerance.
        None leaves it to the bound, as results of training and rounding residues must be.

    Raises
    ------
    ValueError
        If the claim is not registered, lists other chapters, or has no values.
    """

    claim: str
    chapter: str
    measure: str
    values: tuple[float, ...]
    bound: Bound
    unit: str = ""
    over: str = "seed"
    rtol: float | None = None

    def __post_init__(self) -> None:
        if self.claim not in registry():
            raise ValueError(f"claim must be an id of the registry lstm_lib/book/claims.toml, got {self.claim!r}")
        if self.chapter not in (chapters := registry()[self.claim].chapters):
            raise ValueError(
                f"chapter must be one of {', '.join(chapters) or 'none'}, "
                f"as lstm_lib/book/claims.toml has it for {self.claim}, got {self.chapter!r}"
            )
        if not self.values:
            raise ValueError(f"values must be one number or more, got () for {self.claim}, {self.measure!r}")

    @property
    def holds(self) -> bool:
        """Whether every value keeps the bound."""
        return all(map(self.bound.holds, self.values))

    @property
    def measured(self) -> str:
        """The values in words: the number, or median and range.

        Examples
        --------
        >>> Evidence("A09", "implementation/first_model", "error", (3., 1., 2.), Bound.of(below=4)).measured
        '2 (1 to 3; 3 seeds)'
        """
        middle = number(median(self.values)) + self._unit
        if len(self.values) == 1:
            return middle
        return (
            f"{middle} ({number(min(self.values))} to {number(max(self.values))}; {len(self.values)} {self.over}s)"
        )

    @property
    def required(self) -> str:
        """The bound in words, with its unit."""
        return str(self.bound) + self._unit

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    @property
    def anchor(self) -> str:
        """Where the evidence stands in its chapter's page.

        It is made of the measure's Latin letters and digits. Unless these tell the measure (:data:`WORDED`), as in
        another script or with a sign that makes the difference, a checksum of the measure follows.

        Examples
        --------
        >>> Evidence("A02", "gates/the_cell", "Largest difference (c)", (0.,), Bound.of(below=1)).anchor
        'claim-a02-largest-difference-c'
        >>> Evidence("A02", "gates/the_cell", "share with c > 1", (0.,), Bound.of(below=1)).anchor
        'claim-a02-share-with-c-1-8d0089e4'
        """
        anchor = "-".join(re.findall(r"[a-z0-9]+", f"claim {self.claim} {self.measure}".lower()))
        return anchor if WORDED.fullmatch(self.measure) else f"{anchor}-{crc32(self.measure.encode()):08x}"

    def check(self) -> None:
        """Raise :class:`BoundFailed` if a value breaks the bound."""
        if not self.holds:
            raise BoundFailed(
                f"{self.chapter}, claim {self.claim}, {self.measure}: measured {self.measured}, "
                f"must be {self.required}. If this is how it is, say so and change the verdict; never the bound."
            )

    def to_json(self) -> dict:
        """As plain data; numbers that JSON lacks (inf, nan) become strings."""
        return json.loads(
            json.dumps(asdict(self) | {"holds": self.holds}),
            parse_constant=lambda name: name.replace("Infinity", "inf"),
        )

    @classmethod
    def from_json(cls, data: dict) -> Evidence:
        """The evidence that :meth:`to_json` wrote."""
        data = {key: value for key, value in data.items() if key != "holds"}
        bound = data.pop("bound")
        return cls(
            values=tuple(map(float, data.pop("values"))),
            bound=Bound(bound["kind"], float(bound["low"]), float(bound["high"])),
            **data,
        )

    def moved(self, committed: Evidence) -> str | None:
        """Say how this run differs from the committed evidence, if more than its tolerance allows.

        Parameters
        ----------
        committed : Evidence
            The same measure as the repository has it.

        Returns
        -------
        str or None
            One sentence with the chapter, the claim, both values and the bound; None if nothing moved.
        """
        same = len(self.values) == len(committed.values) and (
            self.rtol is None
            or all(
                math.isclose(new, old, rel_tol=self.rtol)
                for new, old in zip(self.values, committed.values, strict=True)
            )
        )
        if self.holds and same:
            return None
        tolerance = "" if self.rtol is None else f", and within {self.rtol:g} of the committed value"
        old, new = (", ".join(f"{value:.8g}" for value in one.values) for one in (committed, self))
        return (
            f"{self.chapter}, claim {self.claim}, {self.measure}: committed {old}, this run {new}; "
            f"must be {self.required}{tolerance}."
        )

    def card(self, brief: bool = False) -> dict:
        """A MIME bundle for the page; one that says so, in red, if the bound is broken.

        Parameters
        ----------
        brief : bool
            Leave verdict and statement out: for more evidence on a claim that has just been shown.
        """
        claim = registry()[self.claim]
        told = (
            ""
            if brief
            else (
                f' <span class="claim-verdict">{escape(claim.finding)}</span></p>'
                f'<p class="claim-statement">{escape(claim.statement)}'
            )
        )
        rows = "".join(
            f'<tr><th scope="row">{name}</th><td>{escape(text)}</td></tr>'
            for name, text in (("measure", self.measure), ("measured", self.measured), ("must be", self.required))
        )
        red = alarm = broken = ""
        if not self.holds:
            broken = (
                f"The book promises {self.required} here; this run has {self.measured}. If you changed something, "
                "you have found what breaks the claim; if you changed nothing, it does not hold on your machine."
            )
            # Colours stand here: a notebook outside of the book's pages has no style sheet.
            red = ' style="border: 2px solid #c62828; padding: 0 .8em"'
            alarm = f'<p role="alert" style="color: #c62828"><b>Bound broken.</b> {escape(broken)}</p>'
        return {
            MIME: self.to_json(),
            "text/html": f'<div class="claim claim-{style(claim.verdict)}" id="{self.anchor}"{red}>'
            f'<p class="claim-head"><span class="claim-id">{self.claim}</span>{told}</p>'
            f'<table class="claim-evidence">{rows}</table>{alarm}</div>',
            "text/plain": f"{self.claim}"
            + ("" if brief else f" {claim.finding}")
            + f"\n{self.measure}: {self.measured}, must be {self.required}"
            + (broken and f"\nBound broken. {broken}"),
        }


def style(verdict: str) -> str:
    """The CSS class of a verdict, without its prefix ``claim-``."""
    return {"true": "true", "true when": "when", "false as stated": "false"}.get(verdict, "open")


def number(x: float) -> str:
    """A number as the book prints it: three digits, integers whole, no exponent between 0.001 and a million.

    Examples
    --------
    >>> number(17520.0), number(0.00012345), number(0.5), number(999.7)
    ('17,520', '0.000123', '0.5', '1,000')
    """
    if float(x).is_integer() and abs(x) < 1e9:
        return f"{int(x):,}"
    # From 999.5 on three digits are those of a thousand, which :.3g would write as 1e+03.
    return f"{x:,.0f}" if 999.5 <= abs(x) < 1e6 else f"{x:.3g}"


def from_outputs(outputs: Iterable[dict]) -> list[Evidence]:
    """The evidence among the outputs of a notebook cell."""
    return [Evidence.from_json(out["data"][MIME]) for out in outputs if MIME in out.get("data", {})]


def from_notebook(path: str | Path) -> list[Evidence]:
    """All evidence in an executed notebook, in order.

    Parameters
    ----------
    path : str or Path
        An ``.ipynb`` file.

    Returns
    -------
    list of Evidence
    """
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return [e for cell in cells for e in from_outputs(cell.get("outputs", ()))]


def audit(book: dict[str, list[Evidence]]) -> None:
    """Check a book: each chapter gives evidence for the claims that it decides, and every bound holds.

    Parameters
    ----------
    book : dict of str to list of Evidence
        The evidence of each chapter that is written.

    Raises
    ------
    BoundFailed
        If evidence breaks its bound.
    ValueError
        If a chapter gives no evidence for a claim that lists it.
    """
    for chapter, evidence in book.items():
        for one in evidence:
            one.check()
        given = {one.claim for one in evidence}
        owed = {claim.id for claim in registry().values() if chapter in claim.chapters}
        if missing := sorted(owed - given):
            raise ValueError(
                f"{chapter} gives no evidence for {', '.join(missing)}, which list it as a chapter "
                "in lstm_lib/book/claims.toml"
            )

"""Exercises that answer: what is right, and which hint fits a mistake.

`exercises/<chapter>.toml` has a table for each, under the exercise's label without the chapter's name. The
table is a :class:`Rule` for the right answer, with the hint for mistakes that nobody foresaw; its ``mistakes`` is
a list of rules for those that somebody did.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from lstm_lib.book.claims import Bound

DOTS = "put your answer in place of the dots."
"""What a reader is told who has not answered yet."""


@dataclass(frozen=True)
class Rule:
    """The answers that are meant, by one value or by a bound, and what is said to a reader who is led on by it.

    Parameters
    ----------
    hint : str
        Leads on from a wrong answer, and does not tell the right one.
    equals : number, str, or list of numbers
        The one answer. A whole number by itself is met exactly; of a word, capitals do not count.
    rtol : float
        How far a number with a fraction, or any number of a list, may be off, as a share of its size.
    below, above, within
        A bound in place of ``equals``, as in :class:`lstm_lib.book.claims.Bound`.

    Raises
    ------
    ValueError
        If there is no hint, or not exactly one of ``equals``, ``below``, ``above`` and ``within``.

    Examples
    --------
    >>> Rule("Half of what?", equals=0.5).fits(0.501), Rule("Count the biases, too.", below=40).fits(40)
    (True, False)
    """

    hint: str
    equals: float | str | list[float] | None = None
    rtol: float = 0.01
    below: float | None = None
    above: float | None = None
    within: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("equals", "below", "above", "within") if getattr(self, name) is not None]
        if not self.hint or len(given) != 1:
            raise ValueError(
                "rule must have a hint, and one of equals, below, above and within, "
                f"got {self.hint!r} and {', '.join(given) or 'none'}"
            )

    def fits(self, answer: float | str | list[float]) -> bool:
        """Whether an answer is one of those that are meant."""
        if isinstance(self.equals, str):
            return answer.strip().casefold() == self.equals.casefold()
        if self.equals is not None:
            rtol = 0 if isinstance(self.equals, int) else self.rtol
            return np.allclose(answer, self.equals, rtol=rtol, atol=1e-12)
        limit = {name: getattr(self, name) for name in ("below", "above", "within")}
        return Bound.of(**{name: value for name, value in limit.items() if value is not None}).holds(answer)


@dataclass(frozen=True)
class Exercise:
    """An exercise that answers.

    Parameters
    ----------
    chapter : str
        Such as ``gates/the_cell``.
    name : str
        Its label there, without the chapter's name.
    right : Rule
        The right answer.
    mistakes : tuple of Rule
        Wrong ones with a hint of their own; the first that fits is taken.
    """

    chapter: str
    name: str
    right: Rule
    mistakes: tuple[Rule, ...] = ()

    def reply(self, answer: object) -> tuple[bool, str]:
        """Whether an answer is right, and what its reader is told.

        Parameters
        ----------
        answer : number, str, or sequence of numbers
            An array or a tensor will do; the dots (``...``) are no answer.

        Returns
        -------
        right : bool
        text : str

        Raises
        ------
        TypeError, ValueError
            If the answer is of another kind, or not as many numbers as were asked for.
        """
        if answer is ...:
            return False, f"{self.name}: {DOTS}"
        answer = self._read(answer)
        if self.right.fits(answer):
            return True, f"{self.name}: right."
        hint = next((mistake.hint for mistake in self.mistakes if mistake.fits(answer)), self.right.hint)
        return False, f"{self.name}: not right. {hint}"

    def _read(self, answer: object) -> float | str | np.ndarray:
        wanted = self.right.equals
        if isinstance(wanted, str):
            if not isinstance(answer, str):
                raise TypeError(f"answer must be a word in quotes, got {answer!r}")
            return answer
        shape = np.shape(wanted) if wanted is not None else ()
        what = f"{shape[0]} numbers" if shape else "a number"
        try:
            if answer is None or isinstance(answer, str):  # which NumPy would make numbers of
                raise TypeError
            values = np.asarray(answer, dtype=float)
        except (TypeError, ValueError):
            raise TypeError(f"answer must be {what}, got {answer!r}") from None
        if values.shape != shape:
            raise ValueError(f"answer must be {what}, got {answer!r}")
        return values if shape else float(values)


@cache
def registry() -> dict[tuple[str, str], Exercise]:
    """All exercises that answer, by chapter and name.

    Returns
    -------
    dict of (str, str) to Exercise
    """
    found = {}
    for part in sorted(files("lstm_lib.book").joinpath("exercises").iterdir(), key=lambda path: path.name):
        for path in sorted(part.iterdir(), key=lambda path: path.name):
            chapter = f"{part.name}/{path.name.removesuffix('.toml')}"
            for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
                mistakes = tuple(Rule(**mistake) for mistake in entry.pop("mistakes", []))
                found[chapter, name] = Exercise(chapter, name, Rule(**entry), mistakes)
    return found

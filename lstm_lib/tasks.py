"""Synthetic tasks, each with one difficulty and an exact answer.

A task makes its own batches: ``task(generator, step)`` gives ``(x, y)``, as :func:`lstm_lib.training.fit` takes
it, and draws from the generator alone, so that a seed decides everything. ``x`` is batch first.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lstm_lib.checks import whole

__all__ = ["Adding", "AnBn", "Copy", "Dyck1", "EmbeddedReber", "Latch"]

IGNORE = -100
"""The target of a step that is not scored, as :func:`torch.nn.functional.cross_entropy` has it."""


@dataclass(frozen=True)
class Adding:
    """Add two marked numbers: Hochreiter & Schmidhuber 1997, section 5.4, in the form of Le, Jaitly & Hinton 2015.

    ``x`` is (batch_size, seq_len, 2): numbers from U[0, 1), and a mark, 1 at one step of the first half and at one
    of the second. ``y`` is (batch_size, 1): the sum of the two marked numbers. Always to say 1 costs a mean square
    of 1/6.

    Parameters
    ----------
    seq_len : int
        Steps, at least 2.
    batch_size : int
        Sequences in a batch.

    Examples
    --------
    >>> x, y = Adding(10, batch_size=4)(torch.Generator().manual_seed(0))
    >>> torch.equal((x[..., 0] * x[..., 1]).sum(1, keepdim=True), y)
    True
    """

    seq_len: int
    batch_size: int = 32

    def __post_init__(self) -> None:
        _check(self, seq_len=2, batch_size=1)

    def __call__(self, generator: torch.Generator, step: int = 0) -> tuple[Tensor, Tensor]:
        half = self.seq_len // 2
        number = torch.rand(self.batch_size, self.seq_len, generator=generator)
        first = torch.randint(0, half, (self.batch_size,), generator=generator)
        second = torch.randint(half, self.seq_len, (self.batch_size,), generator=generator)
        mark = torch.zeros_like(number).scatter_(1, torch.stack([first, second], 1), 1.0)
        return torch.stack([number, mark], -1), (number * mark).sum(1, keepdim=True)


@dataclass(frozen=True)
class Latch:
    """Remember the first step's sign to the last: the latch of Bengio, Simard & Frasconi 1994.

    ``x`` is (batch_size, seq_len, 2): the signal, +1 or −1 at the first step and 0 after it, and noise from
    N(0, noise²) at every step. ``y`` is (batch_size,): class 1 for +1, class 0 for −1.

    Parameters
    ----------
    seq_len : int
        Steps, at least 1.
    batch_size : int
        Sequences in a batch.
    noise : float
        Standard deviation of the distracting input.

    Examples
    --------
    >>> x, y = Latch(5, batch_size=3)(torch.Generator().manual_seed(0))
    >>> torch.equal(x[:, 0, 0] > 0, y == 1), x[:, 1:, 0].abs().max().item()
    (True, 0.0)
    """

    seq_len: int
    batch_size: int = 32
    noise: float = 1.0

    def __post_init__(self) -> None:
        _check(self, seq_len=1, batch_size=1)
        if not isinstance(self.noise, numbers.Real) or not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be a finite number of at least 0, got {self.noise!r}")

    def __call__(self, generator: torch.Generator, step: int = 0) -> tuple[Tensor, Tensor]:
        y = torch.randint(0, 2, (self.batch_size,), generator=generator)
        x = torch.zeros(self.batch_size, self.seq_len, 2)
        x[:, 0, 0] = 2.0 * y - 1
        x[..., 1] = self.noise * torch.randn(self.batch_size, self.seq_len, generator=generator)
        return x, y


@dataclass(frozen=True)
class Copy:
    """Repeat a string after a wait: after Arjovsky, Shah & Bengio 2016.

    ``x`` is (batch_size, lag + 2 length, symbols + 2), one-hot: ``length`` symbols, ``lag`` blanks of which the
    last is the signal to answer, and ``length`` blanks to answer in. ``y`` is (batch_size, length): the symbols,
    from 0, to be told in the last ``length`` steps. Class ``symbols`` is the blank, ``symbols + 1`` the signal.

    Parameters
    ----------
    lag : int
        Steps from the last symbol to the first answer, at least 1.
    length : int
        Symbols to remember.
    symbols : int
        How many different ones there are.
    batch_size : int
        Sequences in a batch.

    Examples
    --------
    >>> x, y = Copy(lag=4, length=2, symbols=3, batch_size=1)(torch.Generator().manual_seed(0))
    >>> x.argmax(-1).tolist(), y.tolist()
    ([[2, 0, 3, 3, 3, 4, 3, 3]], [[2, 0]])
    """

    lag: int
    length: int = 10
    symbols: int = 8
    batch_size: int = 32

    def __post_init__(self) -> None:
        _check(self, lag=1, length=1, symbols=1, batch_size=1)

    def __call__(self, generator: torch.Generator, step: int = 0) -> tuple[Tensor, Tensor]:
        y = torch.randint(0, self.symbols, (self.batch_size, self.length), generator=generator)
        said = torch.full((self.batch_size, self.lag + 2 * self.length), self.symbols)
        said[:, : self.length] = y
        said[:, self.length + self.lag - 1] = self.symbols + 1
        return one_hot(said, self.symbols + 2).float(), y


@dataclass(frozen=True)
class AnBn:
    """Say what comes next in aⁿbⁿ, or in aⁿbⁿcⁿ: Gers & Schmidhuber 2001.

    A string is read behind a start sign and answered up to an end sign, both class 0; a, b, c are 1, 2, 3. How
    many a's will come is anyone's guess; from the first b on everything is determined. So ``y`` is the next class
    from the first b on, and −100 (not scored) before it and beyond the end.

    ``x`` is (batch_size, seq_len, letters + 1), one-hot, zero beyond the end; ``y`` is (batch_size, seq_len). The
    last scored step is the one that asks for the end: only who has counted is right there. ``seq_len`` is that of
    the longest string that may come, 1 + letters × longest.

    Parameters
    ----------
    shortest, longest : int
        n is drawn from shortest, …, longest, each as likely.
    letters : int
        2 for aⁿbⁿ, 3 for aⁿbⁿcⁿ, and so on.
    batch_size : int
        Strings in a batch.

    Examples
    --------
    >>> x, y = AnBn(2, 2, batch_size=1)(torch.Generator())
    >>> x.argmax(-1).tolist(), y.tolist()
    ([[0, 1, 1, 2, 2]], [[-100, -100, -100, 2, 0]])
    """

    shortest: int
    longest: int
    letters: int = 2
    batch_size: int = 32

    def __post_init__(self) -> None:
        _check(self, shortest=1, longest=self.shortest, letters=2, batch_size=1)

    def __call__(self, generator: torch.Generator, step: int = 0) -> tuple[Tensor, Tensor]:
        n = torch.randint(self.shortest, self.longest + 1, (self.batch_size,), generator=generator)
        return self.strings(n)

    def strings(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """The strings of given n: ``n`` (batch,), whole numbers from 1; as long as the longest of all needs.

        Raises ``ValueError`` if ``n`` is something else.

        >>> AnBn(1, 3).strings(torch.tensor([3]))[1].tolist()
        [[-100, -100, -100, -100, 2, 2, 0]]
        """
        if not isinstance(n, Tensor) or n.dim() != 1 or not torch.can_cast(n.dtype, torch.long) or (n < 1).any():
            raise ValueError(f"n must be a Tensor of whole numbers from 1, (batch,), got {n!r}")
        seq_len = 1 + self.letters * max([self.longest, *n.tolist()])
        place = torch.arange(seq_len, device=n.device)  # 0 is the start sign
        n = n.unsqueeze(1)
        letter = 1 + (place - 1).div(n, rounding_mode="floor")  # 0 at the start sign
        inside = letter <= self.letters
        x = one_hot(letter.where(inside, 0), self.letters + 1).float() * inside.unsqueeze(-1)
        following = letter.roll(-1, 1)
        following[:, -1] = self.letters + 1
        y = torch.where(following > self.letters, 0, following)
        return x, y.where(inside & (letter >= 2), IGNORE)


@dataclass(frozen=True)
class Dyck1:
    """Say whether all brackets are closed: Dyck-1, as in Suzgun, Belinkov, Shieber & Gehrmann 2019.

    A string of ``(`` and ``)`` in which no prefix closes more than it opened. ``x`` is (batch_size, seq_len, 2),
    one-hot, ``(`` first. ``y`` is (batch_size, seq_len): 1 where a ``)`` may follow, that is where something is
    open, 0 where only ``(`` may. A string opens with probability ½ wherever it may close.

    Parameters
    ----------
    seq_len : int
        Steps, at least 1.
    batch_size : int
        Strings in a batch.

    Examples
    --------
    >>> x, y = Dyck1(6, batch_size=1)(torch.Generator().manual_seed(8))
    >>> "".join("()"[k] for k in x[0].argmax(-1)), y[0].tolist()
    ('()(())', [1, 0, 1, 1, 1, 0])
    """

    seq_len: int
    batch_size: int = 32

    def __post_init__(self) -> None:
        _check(self, seq_len=1, batch_size=1)

    def __call__(self, generator: torch.Generator, step: int = 0) -> tuple[Tensor, Tensor]:
        opens = torch.rand(self.seq_len, self.batch_size, generator=generator) < 0.5
        depth = torch.zeros(self.batch_size, dtype=torch.long)
        closing, depths = torch.zeros(self.seq_len, self.batch_size, dtype=torch.long), []
        for t in range(self.seq_len):
            closing[t] = ~opens[t] & (depth > 0)
            depth = depth + 1 - 2 * closing[t]
            depths.append(depth)
        return one_hot(closing.T, 2).float(), (torch.stack(depths, 1) > 0).long()


@dataclass(frozen=True)
class EmbeddedReber:
    """Say what comes next in a string of the embedded Reber grammar: Hochreiter & Schmidhuber 1997, section 5.1.

    A string of Reber's grammar is a walk through a graph, each arrow of which says a letter. It begins with B and
    ends with E. *Embedded* it stands between two letters that are the same, both T or both P, and between another
    B and E: ``BTBTXSETE``. At most nodes one of two letters may follow; who remembers the second letter of the
    string knows the last but one.

    ``x`` is (batch_size, seq_len, 7), one-hot in the order of ``letters``; ``y`` is (batch_size, seq_len), the
    class of the next letter. A string longer than ``seq_len`` is drawn again; beyond its end ``x`` is zero, and
    from its last letter on ``y`` is −100 (not scored). As a ``stream`` string follows string until ``seq_len``
    is full, and all steps are scored: Gers, Schmidhuber & Cummins 2000.

    Parameters
    ----------
    seq_len : int
        Steps, at least 9, the letters of the shortest string.
    batch_size : int
        Strings, or streams, in a batch.
    stream : bool
        Whether each sequence is a stream of strings without a mark between them.
    back : float
        Probability of the arrow that leads back where there is one: the greater, the longer the strings.

    Examples
    --------
    >>> task = EmbeddedReber(20, batch_size=1)
    >>> x, y = task(torch.Generator().manual_seed(1))
    >>> task.spell(x)
    ['BTBPTVPSETE']
    >>> "".join(task.letters[k] for k in y[0] if k != -100)
    'TBPTVPSETE'
    """

    seq_len: int
    batch_size: int = 32
    stream: bool = False
    back: float = 0.5

    letters: ClassVar[str] = "BTPSXVE"

    def __post_init__(self) -> None:
        _check(self, seq_len=9, batch_size=1)
        if not isinstance(self.back, numbers.Real) or not 0 <= self.back < 1:
            raise ValueError(f"back must be a number from 0 to below 1, got {self.back!r}")

    def __call__(self, generator: torch.Generator, step: int = 0) -> tuple[Tensor, Tensor]:
        said, end = self._walk(self.batch_size, generator)
        if self.stream:
            return one_hot(said[:, :-1], 7).float(), said[:, 1:]
        while (late := (end >= self.seq_len).nonzero()[:, 0]).numel():
            said[late], end[late] = self._walk(len(late), generator)
        place = torch.arange(self.seq_len)
        x = one_hot(said[:, :-1], 7).float() * (place <= end.unsqueeze(1)).unsqueeze(-1)
        return x, said[:, 1:].where(place < end.unsqueeze(1), IGNORE)

    def _walk(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``seq_len`` + 1 letters of each of ``count`` streams, and where the first string of each ends."""
        chance = torch.rand(count, self.seq_len + 1, generator=generator)
        said = torch.empty(count, self.seq_len + 1, dtype=torch.long)
        node, end = torch.zeros(count, dtype=torch.long), torch.full((count,), self.seq_len + 1)
        forward = torch.where(_LOOPS, self.back, 0.5)
        for t in range(self.seq_len + 1):
            arrow = (chance[:, t] >= forward[node]).long()
            said[:, t], node = _SAYS[node, arrow], _LEADS[node, arrow]
            end = end.where((node > 0) | (end < t), t)
        return said, end

    def legal(self, x: Tensor) -> Tensor:
        """Which letters may follow each step of ``x`` (batch, seq_len, 7): bool, of the same shape.

        None may behind the last letter of a string that is alone, nor beyond it.

        Raises ``ValueError`` if ``x`` holds no strings of the grammar.

        >>> task = EmbeddedReber(9, batch_size=1)
        >>> x, _ = task(torch.Generator().manual_seed(0))
        >>> ["".join(letter for letter, may in zip(task.letters, row) if may) for row in task.legal(x)[0]]
        ['TP', 'B', 'TP', 'TV', 'PV', 'E', 'T', 'E', '']
        """
        inside, said = x.any(-1), x.argmax(-1)
        node, may = torch.zeros(len(x), dtype=torch.long), torch.zeros(x.shape, dtype=torch.bool)
        for t in range(x.shape[1]):
            fits = _SAYS[node] == said[:, t : t + 1]
            if not (fits.any(1) | ~inside[:, t]).all():
                raise ValueError(f"x must hold strings of the grammar, got another letter at step {t}")
            node = _LEADS[node, fits.long().argmax(1)].where(inside[:, t], node)
            going = inside[:, t] & ((node > 0) | self.stream)
            may[:, t] = one_hot(_SAYS[node], 7).any(1) & going.unsqueeze(1)
        return may

    def spell(self, x: Tensor) -> list[str]:
        """The letters of each row of ``x`` (batch, seq_len, 7)."""
        return ["".join(self.letters[k] for k in row[row.any(-1)].argmax(-1)) for row in x]


def _reber_graph() -> tuple[Tensor, Tensor, Tensor]:
    """From each node two arrows: their letters (nodes, 2), where they lead; whether the first leads back (nodes,).

    Node 0 is the start. Where one letter alone may follow, both arrows are the same.
    """
    arrows = {"start": ["B frame"], "frame": ["T Tin", "P Pin"], "end": ["E start"]}
    reber = {0: "T1 P2", 1: "S1 X3", 2: "T2 V4", 3: "X2 S5", 4: "P3 V5"}  # Reber's own, from B to E
    for side in "TP":
        arrows |= {side + "in": [f"B {side}0"], side + "5": [f"E {side}out"], side + "out": [f"{side} end"]}
        arrows |= {f"{side}{k}": [f"{to[0]} {side}{to[1]}" for to in two.split()] for k, two in reber.items()}
    nodes = list(arrows)
    pairs = [[each.split() for each in (two * 2)[:2]] for two in arrows.values()]
    says = torch.tensor([[EmbeddedReber.letters.index(letter) for letter, _ in two] for two in pairs])
    leads = torch.tensor([[nodes.index(node) for _, node in two] for two in pairs])
    return says, leads, torch.tensor([node[-1] in "1234" for node in nodes])


_SAYS, _LEADS, _LOOPS = _reber_graph()


def _check(task: object, **least: int) -> None:
    for name, low in least.items():
        whole(name, getattr(task, name), low)

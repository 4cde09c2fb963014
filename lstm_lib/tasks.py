"""Synthetic tasks, each with one difficulty and an exact answer.

A task makes its own batches: ``task(generator, step)`` gives ``(x, y)``, as :func:`lstm_lib.training.fit` takes
it, and draws from the generator alone, so that a seed decides everything. ``x`` is batch first.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lstm_lib.checks import whole

__all__ = ["Adding", "AnBn", "Copy", "Dyck1", "Latch"]

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


def _check(task: object, **least: int) -> None:
    for name, low in least.items():
        whole(name, getattr(task, name), low)

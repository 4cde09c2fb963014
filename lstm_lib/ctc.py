"""Connectionist temporal classification: the probability of a string of symbols, and the string that is likely.

A network says at each of ``seq_len`` steps how likely each symbol is, or none of them, the *blank*. A *path* picks
one symbol per step; it spells the string that is left when repeats are merged and then blanks dropped. All is kept
in logarithms. Graves, Fernández, Gomez & Schmidhuber 2006.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from lstm_lib.checks import whole

__all__ = ["beam", "collapse", "forward_variables", "greedy"]


def collapse(path: Sequence[int], blank: int = 0) -> list[int]:
    """The string that a path spells: repeats merged, then blanks dropped (Graves et al. 2006, the map B).

    Parameters
    ----------
    path : sequence of int
        (seq_len,), a symbol at each step.
    blank : int
        The symbol that stands for none.

    Returns
    -------
    list of int

    Examples
    --------
    >>> collapse([0, 7, 7, 0, 7, 0, 4])
    [7, 7, 4]
    """
    return [k for before, k in zip([blank, *path], path, strict=False) if k != before and k != blank]


def forward_variables(log_probs: Tensor, target: Sequence[int], blank: int = 0) -> Tensor:
    """The log-probability of all beginnings of paths that spell a beginning of the target.

    The target l_1 … l_L is written with a blank around each symbol, l' = (blank, l_1, blank, …, l_L, blank), and
    α_t(s) is the probability of all that can be emitted up to step t and ends on l'_s (Graves et al. 2006,
    equations 6 and 7). The probability of the whole target is the sum of the last step's last two:
    ``alpha[-1, -2:].logsumexp(0)``. It can be differentiated.

    Parameters
    ----------
    log_probs : Tensor
        (seq_len, num_symbols), the log-probability of each symbol at each step.
    target : sequence of int or Tensor
        (L,), symbols other than the blank; it may be empty.
    blank : int
        The symbol that stands for none.

    Returns
    -------
    Tensor
        (seq_len, 2 L + 1), ln α_t(s); −inf where no path leads.

    Raises
    ------
    TypeError, ValueError
        If ``log_probs`` has another shape or no step, or ``target`` or ``blank`` is no symbol of it.

    Examples
    --------
    Two fair coins, 1 or blank: three of the four paths, 1 1, 1 –, – 1, spell 1.

    >>> alpha = forward_variables(torch.full((2, 2), 0.5).log(), [1])
    >>> alpha.exp()
    tensor([[0.5000, 0.5000, 0.0000],
            [0.2500, 0.5000, 0.2500]])
    >>> round(alpha[-1, -2:].logsumexp(0).exp().item(), 6)
    0.75
    """
    target = _check(log_probs, blank, target)
    spaced = torch.full((2 * len(target) + 1,), blank, device=log_probs.device)
    spaced[1::2] = torch.tensor(target, dtype=torch.long)  # l' = – l_1 – l_2 – … – l_L –
    y = log_probs[:, spaced]  # (T, S): ln y_t of symbol l'_s
    skip = torch.zeros(len(spaced), dtype=torch.bool, device=y.device)
    skip[2:] = (spaced[2:] != blank) & (spaced[2:] != spaced[:-2])  # over the blank, between unlike symbols
    ways = torch.full_like(y[0], -math.inf)
    alpha = [torch.cat([y[0, :2], ways[2:]])]  # a path starts on – or on l_1
    for t in range(1, len(y)):
        stay, last = alpha[-1], alpha[-1].new_full((2,), -math.inf)
        one = torch.cat([last[:1], stay[:-1]])
        two = torch.where(skip, torch.cat([last, stay])[: len(stay)], -math.inf)
        came = torch.stack([stay, one, two])
        reached = came.amax(0) > -math.inf  # a sum of nothing has no gradient
        total = torch.where(reached, came, 0.0).logsumexp(0)
        alpha.append(torch.where(reached, total, -math.inf) + y[t])
    return torch.stack(alpha)


def greedy(log_probs: Tensor, blank: int = 0) -> list[int]:
    """The string that the likeliest path spells. It need not be the likeliest string.

    Parameters
    ----------
    log_probs : Tensor
        (seq_len, num_symbols), the log-probability of each symbol at each step.
    blank : int
        The symbol that stands for none.

    Returns
    -------
    list of int

    Raises
    ------
    TypeError, ValueError
        If ``log_probs`` has another shape or no step, or ``blank`` is no symbol of it.

    Examples
    --------
    >>> p = torch.tensor([[0.6, 0.4], [0.6, 0.4]])     # two steps; the blank, and 1
    >>> greedy(p.log())                                # – – has .36, and each way to spell 1 has less
    []
    """
    _check(log_probs, blank)
    return collapse(log_probs.argmax(1).tolist(), blank)


def beam(log_probs: Tensor, width: int = 8, blank: int = 0) -> list[tuple[list[int], float]]:
    """The likeliest strings: a search that keeps the best ``width`` beginnings at each step.

    All paths that spell the same beginning are counted together, those that end on a blank apart from the others,
    since only after a blank is a repeated symbol a new one (Graves & Jaitly 2014, algorithm 1, without a language
    model). With room for all beginnings the search is exact; with less it is not, and a log-probability then lacks
    the paths that were dropped.

    Parameters
    ----------
    log_probs : Tensor
        (seq_len, num_symbols), the log-probability of each symbol at each step.
    width : int
        Beginnings to keep, at least 1.
    blank : int
        The symbol that stands for none.

    Returns
    -------
    list of (list of int, float)
        At most ``width`` strings with their log-probabilities, the likeliest first.

    Raises
    ------
    TypeError, ValueError
        If ``log_probs`` has another shape or no step, ``width`` is below 1, or ``blank`` is no symbol.

    Examples
    --------
    >>> p = torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    >>> [(string, round(math.exp(score), 2)) for string, score in beam(p.log())]
    [([1], 0.64), ([], 0.36)]
    """
    _check(log_probs, blank)
    whole("width", width)
    # beginning: ln P of its paths that end on a blank, and of those that end on its last symbol
    kept = {(): (0.0, -math.inf)}
    for step in log_probs.tolist():
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (on_blank, on_symbol) in kept.items():
            either = _add(on_blank, on_symbol)
            same = grown.setdefault(prefix, [-math.inf, -math.inf])
            same[0] = _add(same[0], either + step[blank])
            if prefix:  # the last symbol once more: still one
                same[1] = _add(same[1], on_symbol + step[prefix[-1]])
            for k, score in enumerate(step):
                if k != blank:
                    before = on_blank if prefix and k == prefix[-1] else either
                    if before + score > -math.inf:  # no path, no string
                        longer = grown.setdefault((*prefix, k), [-math.inf, -math.inf])
                        longer[1] = _add(longer[1], before + score)
        best = sorted(grown.items(), key=lambda item: _add(*item[1]), reverse=True)[:width]
        kept = {prefix: (on_blank, on_symbol) for prefix, (on_blank, on_symbol) in best}
    return [(list(prefix), _add(*ends)) for prefix, ends in kept.items()]


def _add(a: float, b: float) -> float:
    """ln(eᵃ + eᵇ)."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def _check(log_probs: Tensor, blank: int, target: Sequence[int] | Tensor = ()) -> list[int]:
    if not isinstance(log_probs, Tensor):
        raise TypeError(f"log_probs must be a Tensor, got {type(log_probs).__name__}")
    if log_probs.dim() != 2 or 0 in log_probs.shape or not log_probs.is_floating_point():
        need, came = "(seq_len, num_symbols), both at least 1, of floating point", tuple(log_probs.shape)
        raise ValueError(f"log_probs must be {need}, got {came} {log_probs.dtype}")
    last = log_probs.shape[1] - 1
    whole("blank", blank, least=0)
    if blank > last:
        raise ValueError(f"blank must be a symbol from 0 to {last}, got {blank}")
    target = target.tolist() if isinstance(target, Tensor) else list(target)
    if wrong := [k for k in target if not isinstance(k, numbers.Integral) or k == blank or not 0 <= k <= last]:
        raise ValueError(
            f"target must be symbols from 0 to {last} other than the blank, {blank}, got {wrong[0]!r}"
        )
    return target

"""A linear-chain conditional random field: tags that are scored as a whole sequence, not one by one.

A network gives each tag a score at each step; the field adds a score for each step from one tag to the next. It
knows the probability of every sequence of tags, and finds the best one, in seq_len · num_tags² additions.
Lafferty, McCallum & Pereira 2001; on top of a bidirectional LSTM: Huang, Xu & Yu 2015, Lample et al. 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lstm_lib.attention import length_mask
from lstm_lib.checks import whole

__all__ = ["CRF"]

NEVER = -10_000.0
"""The score of a forbidden step. e⁻¹⁰⁰⁰⁰ is 0 in single and in double precision, and its gradient is no NaN."""


class CRF(nn.Module):
    """Scores of sequences of tags, their probability, and the best of them.

    With x_t(j) for the network's score of tag j at step t, and A, a, b for the field's own scores, a sequence y of
    T tags has the score

    s(y) = a(y_1) + x_1(y_1) + Σ_{t=2}^{T} [ A(y_{t−1}, y_t) + x_t(y_t) ] + b(y_T)

    (Lample et al. 2016, section 2.2), and the probability e^{s(y)} / Z, where Z sums e^{s} over all sequences.

    Parameters
    ----------
    num_tags : int
        How many tags there are, K.
    forbidden : Tensor, optional
        (K, K), bool: True at [i, j] where no tag j may follow a tag i.
    forbidden_start : Tensor, optional
        (K,), bool: True where a tag may not be the first.

    Attributes
    ----------
    transitions : Parameter
        (K, K), A: the score of the step from tag i to tag j; all scores start at 0.
    start, end : Parameter
        (K,), a and b: the scores of the first and of the last tag.

    Raises
    ------
    TypeError, ValueError
        If ``num_tags`` is no whole number of at least 1, or a mask has another type or shape.

    References
    ----------
    J. Lafferty, A. McCallum, F. Pereira, "Conditional random fields: probabilistic models for segmenting and
    labeling sequence data", ICML 2001.
    G. Lample, M. Ballesteros, S. Subramanian, K. Kawakami, C. Dyer, "Neural architectures for named entity
    recognition", NAACL 2016.

    Examples
    --------
    Two steps, tags 0 and 1. One by one 1 is the better tag at either step; but 1 may not follow 1.

    >>> crf = CRF(2, forbidden=torch.tensor([[False, False], [False, True]]))
    >>> scores = torch.tensor([[[0.0, 2.0], [0.0, 1.0]]])
    >>> crf.decode(scores)
    tensor([[1, 0]])
    >>> round(crf.log_likelihood(scores, torch.tensor([[1, 0]])).exp().item(), 3)  # e² / (e⁰ + e¹ + e²)
    0.665
    """

    def __init__(
        self, num_tags: int, forbidden: Tensor | None = None, forbidden_start: Tensor | None = None
    ) -> None:
        super().__init__()
        whole("num_tags", num_tags)
        self.num_tags = num_tags
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))
        self.start = nn.Parameter(torch.zeros(num_tags))
        self.end = nn.Parameter(torch.zeros(num_tags))
        for name, mask, shape in (
            ("forbidden", forbidden, (num_tags, num_tags)),
            ("forbidden_start", forbidden_start, (num_tags,)),
        ):
            if mask is None:
                mask = torch.zeros(shape, dtype=torch.bool)
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                raise TypeError(f"{name} must be a Tensor of torch.bool, got {_kind(mask)}")
            if mask.shape != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {tuple(mask.shape)}")
            self.register_buffer(name, mask.clone())

    def _own(self) -> tuple[Tensor, Tensor]:
        """A and a, with :data:`NEVER` where a step is forbidden."""
        steps = self.transitions.masked_fill(self.forbidden, NEVER)
        return steps, self.start.masked_fill(self.forbidden_start, NEVER)

    def score(self, scores: Tensor, tags: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The score s(y) of given sequences of tags.

        Parameters
        ----------
        scores : Tensor
            (batch, seq_len, num_tags), x.
        tags : Tensor
            (batch, seq_len), whole numbers below ``num_tags``; behind a sequence's end they may be anything.
        lengths : Tensor, optional
            (batch,), from 1 to ``seq_len``; what is behind makes no difference. All ``seq_len`` if not given.

        Returns
        -------
        Tensor
            (batch,).

        Raises
        ------
        TypeError, ValueError
            If shapes or types do not fit, a tag is none, or a sequence takes a forbidden step.
        """
        valid = self._check(scores, lengths)
        if not isinstance(tags, Tensor) or tags.dtype != torch.long:
            raise TypeError(f"tags must be a Tensor of torch.long, got {_kind(tags)}")
        if tags.shape != scores.shape[:2]:
            raise ValueError(f"tags must be {tuple(scores.shape[:2])} as scores are, got {tuple(tags.shape)}")
        y = tags.masked_fill(~valid, 0)
        if not 0 <= y.min() <= y.max() < self.num_tags:
            raise ValueError(f"tags must be from 0 to {self.num_tags - 1}, got {y.min()} to {y.max()}")
        before, after = y[:, :-1], y[:, 1:]
        if self.forbidden_start[y[:, 0]].any() or (self.forbidden[before, after] & valid[:, 1:]).any():
            raise ValueError("tags must take no forbidden step, got one that does")
        steps, start = self._own()
        x = scores.gather(2, y[..., None])[..., 0] * valid  # x_t(y_t)
        last = y.gather(1, valid.sum(1, keepdim=True) - 1)[:, 0]  # y_T
        return start[y[:, 0]] + x.sum(1) + (steps[before, after] * valid[:, 1:]).sum(1) + self.end[last]

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ln Z, by the forward recursion (Lafferty et al. 2001, section 3).

        α_1 = a + x_1 and α_t(j) = x_t(j) + ln Σ_i e^{α_{t−1}(i) + A(i, j)}; then ln Z = ln Σ_j e^{α_T(j) + b(j)}.
        Its derivative by x_t(j) is the probability that tag t is j.

        Parameters
        ----------
        scores, lengths : Tensor
            As in :meth:`score`.

        Returns
        -------
        Tensor
            (batch,).

        Raises
        ------
        TypeError, ValueError
            As in :meth:`score`.
        """
        valid = self._check(scores, lengths)
        steps, start = self._own()
        alpha = start + scores[:, 0]
        for t in range(1, scores.shape[1]):
            grown = scores[:, t] + (alpha[:, :, None] + steps).logsumexp(1)  # over i
            alpha = torch.where(valid[:, t, None], grown, alpha)  # ended sequences stay
        return (alpha + self.end).logsumexp(1)

    def log_likelihood(self, scores: Tensor, tags: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ln P(y | x) = s(y) − ln Z; its negative mean is the loss to train with.

        Parameters
        ----------
        scores, tags, lengths : Tensor
            As in :meth:`score`.

        Returns
        -------
        Tensor
            (batch,), at most 0.

        Raises
        ------
        TypeError, ValueError
            As in :meth:`score`.
        """
        return self.score(scores, tags, lengths) - self.log_partition(scores, lengths)

    @torch.no_grad()
    def decode(self, scores: Tensor, lengths: Tensor | None = None, padding: int = -1) -> Tensor:
        """The sequences of tags with the highest score, by Viterbi's recursion: the forward one with a max.

        Parameters
        ----------
        scores, lengths : Tensor
            As in :meth:`score`.
        padding : int
            What stands behind the end of a sequence.

        Returns
        -------
        Tensor
            (batch, seq_len), the tags.

        Raises
        ------
        TypeError, ValueError
            As in :meth:`score`.
        """
        valid = self._check(scores, lengths)
        steps, start = self._own()
        best, came = start + scores[:, 0], []
        for t in range(1, scores.shape[1]):
            value, tag = (best[:, :, None] + steps).max(1)  # over i
            best = torch.where(valid[:, t, None], scores[:, t] + value, best)
            came.append(tag)
        path = [(best + self.end).argmax(1)]
        for t in range(scores.shape[1] - 1, 0, -1):  # back from the end
            back = came[t - 1].gather(1, path[-1][:, None])[:, 0]
            path.append(torch.where(valid[:, t], back, path[-1]))
        return torch.stack(path[::-1], 1).masked_fill(~valid, padding)

    def _check(self, scores: Tensor, lengths: Tensor | None) -> Tensor:
        """(batch, seq_len): whether a step belongs to its sequence."""
        if not isinstance(scores, Tensor):
            raise TypeError(f"scores must be a Tensor, got {type(scores).__name__}")
        if scores.dim() != 3 or 0 in scores.shape or scores.shape[2] != self.num_tags:
            need = f"(batch, seq_len, {self.num_tags}), none of them 0"
            raise ValueError(f"scores must be {need}, got {tuple(scores.shape)}")
        if scores.dtype != self.transitions.dtype:
            raise TypeError(f"scores must be {self.transitions.dtype} as the field is, got {scores.dtype}")
        batch, seq_len, _ = scores.shape
        if lengths is None:
            return torch.ones(batch, seq_len, dtype=torch.bool, device=scores.device)
        if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise TypeError(f"lengths must be a Tensor of whole numbers, got {_kind(lengths)}")
        if lengths.shape != (batch,) or not 1 <= lengths.min() <= lengths.max() <= seq_len:
            raise ValueError(f"lengths must be ({batch},), from 1 to {seq_len}, got {lengths.tolist()}")
        return length_mask(lengths.to(scores.device), seq_len)


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__

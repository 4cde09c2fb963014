"""Attention: a mean of values, each with the weight that its key gets from a query.

A *score* says how well a key fits a query; softmax makes weights of the scores of all keys. The two scores of
recurrent networks stand here: a small network (Bahdanau, Cho & Bengio 2015) and a product (Luong, Pham & Manning
2015, "general"; Vaswani et al. 2017, scaled).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lstm_lib.checks import InputError, whole

__all__ = ["AdditiveAttention", "DotProductAttention", "attend", "causal_mask", "length_mask"]


def attend(scores: Tensor, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean of values under the weights softmax(scores).

    Parameters
    ----------
    scores : Tensor
        (batch, num_queries, num_keys), how well each key fits each query.
    values : Tensor
        (batch, num_keys, value_size).
    mask : Tensor, optional
        Of bool, (batch, num_keys) or (batch, num_queries, num_keys), where a 1 stands for any: False where a query
        must not look.

    Returns
    -------
    context : Tensor
        (batch, num_queries, value_size). Zeros for a query that may look nowhere.
    weights : Tensor
        (batch, num_queries, num_keys), from 0 to 1, with the sum 1 over the keys; 0 where the mask is False.

    Raises
    ------
    lstm_lib.checks.InputError
        If shapes do not belong together, or the mask is not of bool.

    Examples
    --------
    >>> context, weights = attend(torch.tensor([[[0.0, 0.0, 9.0]]]), torch.tensor([[[1.0], [3.0], [7.0]]]),
    ...                           mask=torch.tensor([[True, True, False]]))
    >>> context.item(), weights.tolist()
    (2.0, [[[0.5, 0.5, 0.0]]])
    """
    if scores.dim() != 3 or values.dim() != 3 or scores.shape[::2] != values.shape[:2]:
        raise InputError(
            "scores must be (batch, num_queries, num_keys) and values (batch, num_keys, value_size), "
            f"got {tuple(scores.shape)} and {tuple(values.shape)}"
        )
    if mask is None:
        weights = scores.softmax(-1)
    else:
        if mask.dtype != torch.bool:
            raise InputError(f"mask must be of torch.bool, True where a query may look, got {mask.dtype}")
        mask = mask.unsqueeze(1) if mask.dim() == 2 else mask  # the same keys for every query
        if mask.dim() != 3 or any(m not in (1, s) for m, s in zip(mask.shape, scores.shape, strict=True)):
            raise InputError(
                f"mask must be (batch, num_keys) or (batch, num_queries, num_keys) = {tuple(scores.shape)}, "
                f"got {tuple(mask.shape)}"
            )
        # Not −inf: the softmax of a row of nothing else is NaN, and so is the gradient of all that it came from.
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask
    return weights @ values, weights


class AdditiveAttention(nn.Module):
    """Attention whose score is a small network: vᵀ tanh(W q + U k).

    Parameters
    ----------
    query_size, key_size : int
        Features of a query q and of a key k; they may differ.
    hidden_size : int
        Units of the network.

    References
    ----------
    Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and translate",
    section A.1.2.

    Examples
    --------
    >>> attention = AdditiveAttention(query_size=8, key_size=6, hidden_size=16)
    >>> context, weights = attention(torch.randn(2, 3, 8), torch.randn(2, 5, 6))
    >>> context.shape, weights.shape
    (torch.Size([2, 3, 6]), torch.Size([2, 3, 5]))
    """

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:
        super().__init__()
        for name, size in (("query_size", query_size), ("key_size", key_size), ("hidden_size", hidden_size)):
            whole(name, size)
        self.W = nn.Linear(query_size, hidden_size, bias=False)
        self.U = nn.Linear(key_size, hidden_size)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Look at the keys, take the values.

        Parameters
        ----------
        queries : Tensor
            (batch, num_queries, query_size), such as a decoder's hidden states.
        keys : Tensor
            (batch, num_keys, key_size), such as an encoder's.
        values : Tensor, optional
            (batch, num_keys, value_size); the keys themselves if None.
        mask : Tensor, optional
            As in :func:`attend`.

        Returns
        -------
        context, weights : Tensor
            As :func:`attend` returns them.
        """
        # Every query with every key: (batch, num_queries, num_keys, hidden_size).
        hidden = torch.tanh(self.W(queries).unsqueeze(2) + self.U(keys).unsqueeze(1))
        return attend(self.v(hidden).squeeze(-1), keys if values is None else values, mask)


class DotProductAttention(nn.Module):
    """Attention whose score is a product: q · W k / √query_size.

    Parameters
    ----------
    query_size, key_size : int
        Features of a query q and of a key k.
    projected : bool
        Whether there is a matrix W. Without one the sizes must be equal, and nothing is learned here.

    Raises
    ------
    ValueError
        If the sizes differ and there is no W.

    References
    ----------
    Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine translation", equation 8.
    Vaswani et al. 2017, "Attention is all you need", equation 1: the product of two vectors of n independent
    numbers with mean 0 and variance 1 has variance n, and the root takes it back to 1.

    Examples
    --------
    >>> attention = DotProductAttention(8, 8, projected=False)
    >>> attention(torch.randn(2, 3, 8), torch.randn(2, 5, 8))[0].shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, query_size: int, key_size: int, projected: bool = True) -> None:
        super().__init__()
        for name, size in (("query_size", query_size), ("key_size", key_size)):
            whole(name, size)
        if not projected and query_size != key_size:
            raise ValueError(f"key_size must be query_size = {query_size} without a projection, got {key_size}")
        self.W = nn.Linear(key_size, query_size, bias=False) if projected else nn.Identity()

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Look at the keys, take the values; as :meth:`AdditiveAttention.forward`."""
        scores = queries @ self.W(keys).transpose(1, 2) / math.sqrt(queries.shape[-1])  # (batch, queries, keys)
        return attend(scores, keys if values is None else values, mask)


def length_mask(lengths: Tensor, num_keys: int) -> Tensor:
    """The mask of a padded batch: True where a sequence still runs.

    Parameters
    ----------
    lengths : Tensor
        (batch,), whole numbers.
    num_keys : int
        Steps of the padded batch.

    Returns
    -------
    Tensor
        (batch, num_keys), bool.

    Examples
    --------
    >>> length_mask(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(num_keys, device=lengths.device) < lengths.unsqueeze(1)


def causal_mask(seq_len: int, device: torch.device | str | None = None) -> Tensor:
    """The mask of a sequence that looks at its own past: step t sees the steps up to t.

    Parameters
    ----------
    seq_len : int
        Steps.
    device : torch.device or str, optional
        Where it is needed.

    Returns
    -------
    Tensor
        (1, seq_len, seq_len), bool: for every example of a batch.

    Examples
    --------
    >>> causal_mask(3)[0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(1, seq_len, seq_len, dtype=torch.bool, device=device).tril()

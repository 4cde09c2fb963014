"""Whether two lists of tensors are the same numbers, for tests against an oracle."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Tensors = Iterable[Tensor]


def agree(ours: Tensors, theirs: Tensors, tolerance: float = 1e-10, nudged: Tensors | None = None) -> None:
    """Raise unless shapes, dtypes and numbers are the same.

    ``nudged`` is theirs with an input moved by its last digit, which tells what rounding comes to here: layer norm
    divides by the standard deviation of a few numbers, and where they are nearly equal, a gradient of 2,000 has
    six digits fewer than its inputs, however it is computed.
    """
    theirs = [*theirs]
    for a, b, near in zip(ours, theirs, theirs if nudged is None else nudged, strict=True):
        rounding = 0.0 if near is b else (near - b).abs().max().item()
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance + 100 * rounding)

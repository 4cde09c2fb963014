"""The compiled step: its functions to the last digits, and the engine that uses it against the readable loop."""

import numpy as np
import pytest
import torch
from numba import njit

from lstm_lib import kernels

# Functions


@njit(error_model="numpy")
def sigmoid(x, out):
    for j in range(x.size):
        out[j] = kernels.sigmoid(x[j])


@njit(error_model="numpy")
def tanh(x, out):
    for j in range(x.size):
        out[j] = kernels.tanh(x[j])


functions = pytest.mark.parametrize("function", [sigmoid, tanh], ids=["sigmoid", "tanh"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def computed(function, x):
    out = np.empty_like(x)
    function(x, out)
    return out


def truth(function, x):
    """In more digits than the result has: double precision for single, and the processor's longest for double."""
    x = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if function is tanh:
        return np.tanh(x)
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def everywhere(dtype):
    """Bit patterns from all over the range, the smallest numbers and the largest."""
    bits = np.dtype(dtype).itemsize * 8
    whole, dice = np.dtype(f"i{bits // 8}"), np.random.default_rng(0)
    anything = dice.integers(0, 2 ** (bits - 1), 1_000_000, dtype=np.int64).astype(whole).view(dtype)
    x = np.concatenate(
        [anything, np.linspace(0, 800, 300_001, dtype=dtype), np.logspace(-20, 2, 300_001, dtype=dtype)]
    )
    x = x[np.isfinite(x)]
    return np.concatenate([x, -x])


@functions
@dtypes
def test_four_units_in_the_last_place(function, dtype):
    if dtype is np.float64 and np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("this processor has no longer numbers to compare with")
    x = everywhere(dtype)
    expected = truth(function, x)
    ulp = np.spacing(np.abs(expected).astype(dtype)).astype(expected.dtype)
    assert (np.abs(computed(function, x) - expected) / ulp).max() <= 4


@functions
@dtypes
def test_special_numbers(function, dtype):
    info = np.finfo(dtype)
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, info.max, info.min, 0.0, -0.0], dtype)
    low = 0.0 if function is sigmoid else -1.0
    middle = [0.5, 0.5] if function is sigmoid else [0.0, -0.0]
    found, expected = computed(function, x), np.array([np.nan, np.nan, 1, low, 1, low, *middle], dtype)
    np.testing.assert_array_equal(found, expected)
    if function is tanh:
        np.testing.assert_array_equal(np.signbit(found[-2:]), [False, True])
        small = np.array([info.smallest_subnormal, -info.smallest_subnormal, info.tiny / 2, -info.tiny], dtype)
        np.testing.assert_array_equal(computed(tanh, small), small)


@functions
@dtypes
def test_saturates_where_torch_does(function, dtype):
    """1 (or −1) from the same place on. PyTorch's σ falls from 10⁻³⁹ to 0 at once; ours does not."""
    x = torch.linspace(0, 50, 100_001, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
    theirs = (torch.sigmoid if function is sigmoid else torch.tanh)(x).numpy()
    first = int(np.argmax(theirs == 1))
    assert 0 < first < len(x) - 1
    ours = computed(function, x.numpy())
    assert (ours[first + first // 100 :] == 1).all()
    assert (ours[: first - first // 100] < 1).all()
    if function is tanh:
        np.testing.assert_array_equal(computed(tanh, -x.numpy())[first + first // 100 :], -1)
    else:
        assert (computed(sigmoid, np.array([-1e3, -1e5], dtype)) == 0).all()

"""Where numbers are computed, and where random ones come from."""

import pytest
import torch

from lstm_lib import training
from lstm_lib.devices import find_device, random_state, seeded, set_random_state

CPU = torch.device("cpu")


def test_auto_is_a_device_that_computes():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device(CPU) == CPU
    assert training.find_device is find_device


@pytest.mark.parametrize("name", ["gpu", "meta", "", None, 2.5, "cpu:-3"])
def test_what_is_no_device_here_is_refused(name):
    with pytest.raises(ValueError, match=rf"device must be one that is here \(auto, cpu.*\), got '{name}'"):
        find_device(name)


@pytest.mark.parametrize("fails", [False, True])
def test_seeded_numbers_follow_from_the_seed_and_the_callers_go_on(fails):
    torch.manual_seed(7)
    theirs = torch.rand(3)
    torch.manual_seed(2**64 - 1)
    ours = torch.rand(3)
    torch.manual_seed(7)
    try:
        with seeded(2**64 - 1, CPU):
            assert torch.equal(torch.rand(3), ours)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert torch.equal(torch.rand(3), theirs)


def test_a_random_state_is_a_place_to_come_back_to():
    state = random_state(CPU)
    first = torch.rand(3)
    set_random_state(CPU, state | {"cuda": torch.zeros(16, dtype=torch.uint8)})  # from a machine with a GPU
    assert torch.equal(torch.rand(3), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda():
    cuda = find_device("auto")
    torch.cuda.manual_seed(7)
    theirs = torch.rand(3, device=cuda)
    torch.cuda.manual_seed(7)
    draws = []
    for _ in range(2):
        with seeded(3, cuda):
            draws.append((torch.rand(3), torch.rand(3, device=cuda).cpu()))
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
    assert torch.equal(torch.rand(3, device=cuda), theirs)

"""Many seeds in one pass against each seed alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from lstm_lib import init
from lstm_lib.recurrent import GRU, LSTM
from lstm_lib.training import Diverged, fit

SEEDS = [3, 0, 7]


class Last(nn.Module):
    """A number from the last output of a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.hidden_size, 1)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def lstm():
    return Last(init.forget_bias_(LSTM(2, 6, batch_first=True))).double()


def gru():
    return Last(GRU(2, 6, batch_first=True)).double()


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def data(count, seed):
    x = torch.randn(count, 10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :, 0].mean(1, keepdim=True)


def task(generator, step):
    x = torch.randn(8, 10, 2, dtype=torch.float64, generator=generator)
    return x, x.sum((1, 2)).unsqueeze(1)


def alone(build, train, seed, **options):
    torch.manual_seed(seed)
    model = build()
    return model, fit(model, train, seed=seed, loss=mse_loss, progress=False, **options)


def close(ours, theirs):
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("build", [lstm, gru, perceptron])
@pytest.mark.parametrize(
    "options",
    [
        {"steps": 25, "lr": 0.01},
        {"steps": 25, "lr": 0.1, "optimizer": "sgd", "clip": 0.05},
        {"steps": 25, "optimizer": "adamw", "schedule": lambda step: 1 / (1 + step), "batch_size": 7},
        {"steps": 60, "lr": 0.05, "validation": data(300, 2), "validate_every": 4, "patience": 2},
    ],
    ids=["adam", "sgd, clip", "adamw, schedule", "early stop"],
)
@pytest.mark.parametrize("train", [data(50, 1), task], ids=["data", "task"])
def test_each_seed_gets_what_it_gets_alone(build, options, train):
    options = {"lr": 1e-3, **options}
    many = fit(build, train, seeds=SEEDS, loss=mse_loss, progress=False, **options)
    assert len(many) == len(SEEDS)
    for seed, (model, history) in zip(SEEDS, many, strict=True):
        solo, expected = alone(build, train, seed, **options)
        assert history.stopped_early == expected.stopped_early
        assert history.validation_step == expected.validation_step
        for name in ("loss", "lr", "grad_norm", "validation_loss"):
            close(getattr(history, name), getattr(expected, name))
        for name, value in solo.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-6, atol=1e-8)
        assert not model.training


def test_replicas_stop_at_different_steps_and_keep_their_best():
    options = {"steps": 200, "lr": 0.3, "validation": data(60, 2), "validate_every": 1, "patience": 3}
    many = fit(perceptron, data(20, 1), seeds=range(6), loss=mse_loss, progress=False, **options)
    assert len({len(history.loss) for _, history in many}) > 1
    x, y = options["validation"]
    for model, history in many:
        with torch.no_grad():
            close(mse_loss(model(x), y).item(), history.best_loss)


def test_single_precision_stays_within_1e_5():
    def build():
        return lstm().float()

    x, y = data(50, 1)
    train = x.float(), y.float()
    many = fit(build, train, seeds=SEEDS, steps=20, loss=mse_loss, progress=False)
    for seed, (_, history) in zip(SEEDS, many, strict=True):
        _, expected = alone(build, train, seed, steps=20)
        torch.testing.assert_close(torch.tensor(history.loss), torch.tensor(expected.loss), rtol=0, atol=1e-5)


def test_the_callers_randomness_stays():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(perceptron, task, seeds=SEEDS, steps=2, loss=mse_loss, progress=False)
    assert torch.equal(torch.rand(1), expected)


def test_dropout_differs_between_replicas():
    def build():
        torch.manual_seed(0)  # the same weights for all
        return nn.Sequential(nn.Dropout(0.5), perceptron())

    x, y = data(8, 1)  # one batch, of all of them
    (_, a), (_, b) = fit(build, (x, y), seeds=[0, 1], steps=1, batch_size=8, loss=mse_loss, progress=False)
    assert abs(a.loss[0] - b.loss[0]) > 1e-6


def test_a_diverged_replica_is_named():
    def poisoned(generator, step):
        x, y = task(generator, step)
        return x, (y * math.nan if generator.initial_seed() == bad and step == 3 else y)

    seen = []
    fit(perceptron, lambda generator, step: (seen.append(generator.initial_seed()), task(generator, step))[1],
        seeds=SEEDS, steps=4, loss=mse_loss, progress=False)  # fmt: skip
    bad = seen[-2]  # of the second seed's last step
    with pytest.raises(Diverged, match="seed 0, step 3: the loss is nan") as caught:
        fit(perceptron, poisoned, seeds=SEEDS, steps=5, loss=mse_loss, progress=False)
    assert len(caught.value.history.loss) == 3


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (perceptron(), {"seeds": [0]}, TypeError, "model: got .* with seeds, need a function"),
        (perceptron, {}, TypeError, "model: got function, need a torch.nn.Module"),
        (lambda: 3, {"seeds": [0]}, TypeError, "model: it returned int"),
        (perceptron, {"seeds": []}, ValueError, r"seeds: got \[\], need at least one"),
        (perceptron, {"seeds": [1, 1]}, ValueError, "all different"),
        (perceptron, {"seeds": [-1]}, ValueError, "seed: got -1"),
        (perceptron, {"seeds": [0], "checkpoint": "a.pt"}, ValueError, "checkpoint: got 'a.pt' with seeds"),
        (lambda: Last(nn.LSTM(2, 3)), {"seeds": [0]}, TypeError, "its layer is PyTorch's LSTM"),
    ],
)
def test_what_makes_no_sense_is_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        fit(model, task, steps=2, loss=mse_loss, progress=False, **options)

"""Many seeds in one pass against each seed alone."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pack_padded_sequence

from lstm_lib import init
from lstm_lib.recurrent import GRU, LSTM
from lstm_lib.training import fit

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
    return model, fit(model, train, seed=seed, **{"loss": mse_loss, "progress": False} | options)


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


# What has more than parameters ---------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Buffers of every kind: one that no state_dict holds, one changed in place, one that is new each time."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.power = nn.Linear(20, 4), nn.BatchNorm1d(4), nn.Parameter(torch.rand(()))
        self.register_buffer("scale", torch.rand(4, 1), persistent=False)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls = self.calls + 1
        return self.norm(self.fc(x.flatten(1))) @ self.scale * self.power


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(self.b(self.a(x.flatten(1))).tanh())


class Again(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(20, 20), nn.Linear(20, 1)
        self.again = self.a

    def forward(self, x):
        return self.c(self.again(self.a(x.flatten(1))).tanh())


@pytest.mark.parametrize("kind", [Scaled, Tied, Again])
@pytest.mark.parametrize("validation", [None, data(300, 2)], ids=["last", "best"])
def test_buffers_and_weights_under_two_names_are_what_they_are_alone(kind, validation):
    def build():
        return kind().double()

    options = {"steps": 12, "lr": 0.05, "clip": 0.5, "validation": validation, "validate_every": 2}
    options |= {} if validation is None else {"patience": 1}
    many = fit(build, data(50, 1), seeds=SEEDS, loss=mse_loss, progress=False, **options)
    for seed, (model, history) in zip(SEEDS, many, strict=True):
        solo, expected = alone(build, data(50, 1), seed, **options)
        for name in ("loss", "grad_norm", "validation_loss"):
            close(getattr(history, name), getattr(expected, name))
        assert [name for name, _ in model.named_buffers()] == [name for name, _ in solo.named_buffers()]
        ours, theirs = ([*m.named_parameters(), *m.named_buffers()] for m in (model, solo))
        for (name, value), (_, other) in zip(ours, theirs, strict=True):
            torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-8, msg=name)
        if kind is Tied:
            assert model.a.weight is model.b.weight


# Replicas that diverge -----------------------------------------------------------------------------------------

momentum = partial(torch.optim.SGD, momentum=0.9)
BAD, AT = SEEDS[1], 3


def steep(prediction, targets):
    """Where a target is 0, its second term is 0 and has no slope: ∞ · 0."""
    return mse_loss(prediction, targets) + (prediction * targets).abs().sqrt().mean()


def mined(factor):
    """The task, but that in step AT of seed BAD the targets are multiplied by ``factor``."""
    drawn = []

    def record(generator, step):
        drawn.append(generator.initial_seed())
        return task(generator, step)

    fit(perceptron, record, seeds=[BAD], steps=AT + 1, loss=mse_loss, progress=False)

    def make(generator, step):
        x, y = task(generator, step)
        return x, (y * factor if generator.initial_seed() == drawn[-1] else y)

    return make


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("optimizer", ["adamw", momentum], ids=["adamw", "momentum"])
def test_a_diverged_replica_stops_and_leaves_the_others_what_they_get_alone(where, clip, optimizer):
    options = {"steps": 8, "lr": 0.05, "clip": clip, "optimizer": optimizer, "loss": steep, "progress": False}
    train, what = mined(0), "the norm of the gradient"
    if where == "loss":
        train, what = mined(math.nan), "the loss"
    with pytest.warns(
        RuntimeWarning, match=f"^1 of 3 replicas diverged: seed {BAD}, step {AT}: {what} is"
    ) as told:
        many = fit(perceptron, train, seeds=SEEDS, **options)
    assert [warning.filename for warning in told] == [__file__]
    for seed, (model, history) in zip(SEEDS, many, strict=True):
        assert not model.training
        assert not history.stopped_early
        if seed == BAD:
            assert history.diverged.startswith(f"step {AT}: {what} is")
            assert len(history.loss) == AT
            options["steps"] = AT
        else:
            assert history.diverged is None
            options["steps"] = 8
        solo, expected = alone(perceptron, task, seed, **options)
        close(history.loss, expected.loss)
        close(history.grad_norm, expected.grad_norm)
        for name, value in solo.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-6, atol=1e-8)


def test_a_replica_whose_validation_is_no_number_keeps_the_weights_from_before():
    def loss(prediction, targets):  # validation has 5 examples; the loss of one replica's third is no number
        value = mse_loss(prediction, targets)
        if len(targets) == 5:
            seen.append(value)
            if len(seen) == 3 * 2 + 2:
                return value * math.inf
        return value

    seen = []
    options = {"steps": 6, "lr": 0.05, "validate_every": 1, "validation": data(5, 4)}
    with pytest.warns(RuntimeWarning, match=f"seed {BAD}, after step 2: the validation loss is inf"):
        many = fit(perceptron, task, seeds=SEEDS, loss=loss, progress=False, **options)
    for seed, (model, history) in zip(SEEDS, many, strict=True):
        options["steps"] = 2 if seed == BAD else 6
        _, expected = alone(perceptron, task, seed, **options)
        close(history.loss, expected.loss)
        close(history.validation_loss, expected.validation_loss)
        assert len(history.validation_step) == options["steps"]
        if seed == BAD:
            solo, _ = alone(perceptron, task, seed, steps=2, lr=0.05)
            torch.testing.assert_close(model[1].weight, solo[1].weight, rtol=1e-6, atol=1e-8)


def test_all_may_diverge_and_none_is_no_warning():
    def bad(generator, step):
        x, y = task(generator, step)
        return x, y * (math.nan if step == 2 else 1)

    with pytest.warns(
        RuntimeWarning, match="^3 of 3 replicas diverged: seed 3, step 2.*; seed 0, step 2.*; seed 7"
    ):
        many = fit(perceptron, bad, seeds=SEEDS, steps=9, loss=mse_loss, progress=False)
    assert [len(history.loss) for _, history in many] == [2, 2, 2]
    with warnings.catch_warnings(action="error"):
        fit(perceptron, bad, seeds=SEEDS, steps=2, loss=mse_loss, progress=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("where", ["task", "schedule", "update", "validation"])
def test_what_stops_replicas_carries_their_results(error, where):
    """Half-way in the fourth step; one replica has lost its patience before, and one has diverged."""

    class Stoppable(torch.optim.Adam):
        made = 0

        def step(self):
            self.made += 1
            super().step()
            if where == "update" and self.made == 4:
                raise error("stopped")

    def schedule(step):
        if where == "schedule" and step == 3:
            raise error("stopped")
        return 1.0

    def stopping(generator, step):
        if where == "task" and step == 3:
            raise error("stopped")
        return task(generator, step)

    def loss(prediction, targets):
        value = mse_loss(prediction, targets)
        if len(targets) == 5:
            validations.append(value)
            step, k = divmod(len(validations) - 1, 3)
            if where == "validation" and step == 3 and k == 2:
                raise error("stopped")
            if k == 0:
                return value * 0 + step  # rises at once
            if k == 1:
                return value * (math.nan if step == 2 else 0)
            return value * 0 + abs(step - 1)  # its best was one step ago
        return value

    validations = []
    options = {"steps": 9, "lr": 0.05, "optimizer": Stoppable, "schedule": schedule, "loss": loss, "patience": 2}
    options |= {"validate_every": 1, "validation": data(5, 4), "progress": False, "seeds": SEEDS}
    with pytest.raises(error, match="stopped") as raised:
        fit(perceptron, stopping, **options)
    steps = {SEEDS[0]: 3, SEEDS[1]: 2, SEEDS[2]: 3}
    weights = {SEEDS[0]: 1, SEEDS[1]: 2, SEEDS[2]: 3}  # the best, those from before, the last
    for seed, (model, history) in zip(SEEDS, raised.value.results, strict=True):
        solo, _ = alone(perceptron, task, seed, steps=weights[seed], lr=0.05)
        _, expected = alone(perceptron, task, seed, steps=steps[seed], lr=0.05)
        close(history.loss, expected.loss)
        assert history.validation_step == list(range(1, steps[seed] + 1))
        assert (history.diverged is not None) == (seed == SEEDS[1])
        torch.testing.assert_close(model[1].weight, solo[1].weight, rtol=1e-6, atol=1e-8)


# What makes no sense, or cannot be done in one pass ------------------------------------------------------------


class Packing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = LSTM(2, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x, lengths):
        x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.layer(x)[1][0][-1])


class Asking(nn.Linear):
    def __init__(self, in_training):
        super().__init__(2, 1)
        self.in_training = in_training

    def forward(self, x):
        y = super().forward(x.mean(1))
        return -y if self.training is self.in_training and y.sum() < 0 else y


def untouched(parameters, lr):
    """An optimizer that may not be asked for a step."""

    class Untouched(torch.optim.SGD):
        def step(self):
            raise AssertionError("a step was made")

    return Untouched(parameters, lr=lr)


x, y = data(8, 1)
x, y, lengths = x.float(), y.float(), torch.arange(1, 9)


@pytest.mark.parametrize(
    ("build", "train", "options"),
    [
        (Packing, ((x, lengths), y), {}),
        (lambda: Asking(True), (x, y), {}),
        (lambda: Asking(False), (x, y), {"validation": (x, y), "validate_every": 2}),
        (lambda: nn.Linear(2, 1), (x[:, 0], y), {"loss": lambda p, t: mse_loss(p, t) * float(p.detach().mean())}),
    ],
    ids=["packed", "branch", "branch in validation", "value"],
)
def test_what_cannot_run_in_one_pass_is_refused_before_the_first_step(build, train, options):
    options = {"steps": 4, "loss": mse_loss, "optimizer": untouched, "progress": False, "seeds": SEEDS} | options
    with pytest.raises(
        TypeError, match=r"^model and loss must run under torch\.func\.vmap to be .*, got RuntimeError: "
    ):
        fit(build, train, **options)


def test_what_does_not_run_alone_either_fails_in_its_own_words():
    options = {"steps": 4, "optimizer": untouched, "progress": False, "seeds": SEEDS}
    with pytest.raises(ValueError, match=r"^input must be \(batch, seq_len, 2\)"):
        fit(
            lambda: Last(LSTM(2, 3, batch_first=True)),
            (torch.ones(4, 5, 9), torch.ones(4, 1)),
            loss=mse_loss,
            **options,
        )
    held_out = torch.ones(4, 7, 2).double(), torch.ones(4, 1).double()
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2 shapes cannot be multiplied"):
        fit(perceptron, task, loss=mse_loss, validation=held_out, validate_every=2, **options)
    with pytest.raises(
        ValueError, match=r"^loss must return a tensor with one number, got a tensor of shape \(8, 1\)"
    ):
        fit(perceptron, task, loss=lambda p, t: p - t, **options)


shared = nn.Linear(20, 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: shared, "model must build new parameters at each call, got some that two models share"),
        (lambda: nn.Sequential(nn.Linear(20, 20), shared), "model must build new parameters at each call"),
        (
            lambda: nn.Dropout(torch.rand(()).item()),
            "model must build the same for every seed, got models that differ",
        ),
        (lambda: nn.Linear(20, int(torch.randint(1, 99, ()))), "model must build the same for every seed"),
    ],
)
def test_models_that_are_no_replicas_of_each_other_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        fit(build, (x.flatten(1), y), seeds=SEEDS, steps=2, loss=mse_loss, progress=False)


@pytest.mark.parametrize(
    "seeds", [np.arange(2), range(2), (seed for seed in (0, 1)), {0: "a", 1: "b"}, [np.uint8(0), 1]]
)
def test_seeds_are_any_whole_numbers(seeds):
    many = fit(perceptron, task, seeds=seeds, steps=2, loss=mse_loss, progress=False)
    for seed, (_, history) in enumerate(many):
        close(history.loss, alone(perceptron, task, seed, steps=2)[1].loss)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (perceptron(), {"seeds": [0]}, TypeError, "model must be a function .* with seeds, got torch"),
        (
            perceptron,
            {},
            TypeError,
            r"model must be a torch.nn.Module \(or, with seeds, a function\), got function",
        ),
        (lambda: 3, {"seeds": [0]}, TypeError, "model must return a torch.nn.Module, got int"),
        (perceptron, {"seeds": []}, ValueError, r"seeds must be at least one, all different, got \[\]"),
        (perceptron, {"seeds": [1, 1]}, ValueError, r"seeds must be .* all different, got \[1, 1\]"),
        (perceptron, {"seeds": [-1]}, ValueError, "seed must be a whole number from 0 .*, got -1"),
        (perceptron, {"seeds": [0.5]}, TypeError, "seed must be a whole number from 0 .*, got 0.5"),
        (perceptron, {"seeds": "01"}, TypeError, "seed must be a whole number from 0 .*, got '0'"),
        (
            perceptron,
            {"seeds": 3},
            TypeError,
            r"seeds must be an iterable of whole numbers such as range\(3\), got 3",
        ),
        (
            perceptron,
            {"seeds": [0], "checkpoint": "a.pt"},
            ValueError,
            "checkpoint must be None with seeds, .* got 'a.pt'",
        ),
        (lambda: Last(nn.LSTM(2, 3)), {"seeds": [0]}, TypeError, "lstm_lib's LSTM as its layer, got PyTorch's"),
    ],
)
def test_what_makes_no_sense_is_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        fit(model, task, steps=2, loss=mse_loss, progress=False, **options)


def test_a_module_under_two_names_with_tied_weights_is_refused():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight, self.c = self.a.weight, self.a

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    x = torch.randn(8, 3)
    with pytest.raises(ValueError, match="a module under two names and tied weights at once"):
        fit(Both, (x, x), seeds=[0, 1], steps=1, loss=mse_loss, progress=False)

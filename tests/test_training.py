"""`training` against loops written by hand, and against `kill -9`."""

import copy
import itertools
import math
import os
import pickle
import random
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import l1_loss, mse_loss

from lstm_lib import GRU, LSTM, cells, checkpoints, training
from lstm_lib.training import Diverged, fit, load, predict, save

COUNT, LENGTH, SIZE = 30, 6, 2
momentum = partial(torch.optim.SGD, momentum=0.9)


class Net(nn.Module):
    """An LSTM of two layers: its dropout draws random numbers at each step."""

    def __init__(self, hidden=5, dropout=0.5):
        super().__init__()
        self.lstm = nn.LSTM(SIZE, hidden, 2, batch_first=True, dropout=dropout)
        self.fc = nn.Linear(hidden, 1)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


def net(weights=0, **options):
    torch.manual_seed(weights)
    return Net(**options)


def data(count=COUNT, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, LENGTH, SIZE, generator=generator)
    return x, x.sum((1, 2)).sin().unsqueeze(1)


def task(generator, step):
    """Batches that follow from the step alone, so that a loop by hand can have the same."""
    x, y = data(7, seed=1000 + step)
    return x, y


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def by_hand(model, batches, make, lr, clip=None, schedule=None, seed=0):
    """The loop as a tutorial of PyTorch writes it; returns losses, learning rates, norms."""
    optimizer = make(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda step: 1.0))
    torch.manual_seed(seed)
    model.train()
    records = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = mse_loss(model(x), y)
        loss.backward()
        norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in model.parameters()))
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        records.append((loss.item(), scheduler.get_last_lr()[0], norm))
        optimizer.step()
        scheduler.step()
    return [list(column) for column in zip(*records, strict=True)]


# The loop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [None, lambda step: 0.9**step, lambda step: min(1.0, (step + 1) / 5)])
@pytest.mark.parametrize("clip", [None, 0.1, 1e6])
@pytest.mark.parametrize(
    ("name", "make"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), (momentum, momentum)],
)
def test_fit_is_the_loop_by_hand_bit_for_bit(name, make, clip, schedule):
    ours, theirs = net(), net()
    history = fit(
        ours, task, steps=12, loss=mse_loss, lr=0.05, optimizer=name, clip=clip, schedule=schedule, seed=3
    )
    losses, rates, norms = by_hand(theirs, [task(None, step) for step in range(12)], make, 0.05, clip, schedule, 3)
    assert same_weights(ours, theirs)
    assert history.loss == losses
    assert history.lr == rates
    assert history.grad_norm == pytest.approx(norms, rel=1e-5)
    assert history.step == list(range(12))
    assert clip != 0.1 or max(history.grad_norm) > 0.1  # the clip acted, and the norm is that from before it


def test_learning_rates_of_parameter_groups_keep_their_ratio():
    def make(parameters, lr):
        first, *others = parameters
        return torch.optim.SGD([{"params": [first], "lr": 10 * lr}, {"params": others}], lr=lr)

    def schedule(step):
        return 0.8**step

    ours, theirs = net(), net()
    history = fit(ours, task, steps=6, loss=mse_loss, lr=0.01, optimizer=make, schedule=schedule)
    by_hand(theirs, [task(None, step) for step in range(6)], make, 0.01, schedule=schedule)
    assert same_weights(ours, theirs)
    assert history.lr == pytest.approx([0.1 * 0.8**step for step in range(6)])


def batches_seen(count, batch_size, steps, seed=0):
    """Which examples `fit` puts into which batch: the inputs are their numbers."""
    seen = []

    def loss(prediction, targets):
        seen.append(targets.flatten().long().tolist())
        return prediction.mean() * 0

    numbers = torch.arange(count, dtype=torch.float32).unsqueeze(1)
    fit(nn.Linear(1, 1), (numbers, numbers), steps=steps, loss=loss, batch_size=batch_size, seed=seed)
    return seen


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(1, 15), st.integers(0, 2**40))
def test_each_epoch_takes_each_example_once(count, batch_size, steps, seed):
    seen = batches_seen(count, batch_size, steps, seed)
    assert {len(batch) for batch in seen} == {min(count, batch_size)}
    stream = list(itertools.chain(*seen))
    for start in range(0, len(stream), count):
        epoch = stream[start : start + count]
        assert len(set(epoch)) == len(epoch)
    assert set(stream) <= set(range(count))
    assert batches_seen(count, batch_size, steps, seed) == seen


def test_order_changes_with_the_epoch_and_with_every_bit_of_the_seed():
    def order(seed):
        return batches_seen(100, 100, 3, seed)

    first, second, third = order(0)
    assert len({tuple(first), tuple(second), tuple(third), tuple(range(100))}) == 4
    others = [tuple(order(seed)[0]) for seed in (0, 1, 2, 2**32, 2**40, -0 + 2**62)]
    assert len(set(others)) == len(others)
    assert order(1)[0] not in order(0)  # nor is one seed's epoch another seed's next


def test_inputs_and_targets_stay_together():
    x, y = data()
    pairs = {x[k].sum().item(): y[k].item() for k in range(COUNT)}

    def loss(prediction, targets):
        assert [pairs[p.item()] for p in prediction] == targets.flatten().tolist()
        return (prediction * parameter.weight).sum()

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return torch.stack([sequence.sum() for sequence in x])

    parameter = Sum()
    fit(parameter, (x, y), steps=8, loss=loss, batch_size=7)


def test_a_task_draws_from_its_own_generator():
    seen = []

    def task(generator, step):
        seen.append((step, torch.rand(3, generator=generator).tolist()))
        return torch.ones(2, 1), torch.ones(2, 1)

    for seed in (0, 0, 1):
        fit(nn.Linear(1, 1), task, steps=3, loss=mse_loss, seed=seed)
    assert seen[:3] == seen[3:6]
    assert [step for step, _ in seen[:3]] == [0, 1, 2]
    assert len({str(draw) for _, draw in seen}) == 6


def test_several_inputs_are_given_in_order():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 1)

        def forward(self, x, scale):
            return self.fc(x) * scale

    x, scale = torch.randn(9, 1), torch.arange(9.0).unsqueeze(1)
    model = Two()
    history = fit(
        model, ((x, scale), x), steps=3, loss=mse_loss, batch_size=4, validation=((x, scale), x), validate_every=3
    )
    assert history.best_loss == pytest.approx(mse_loss(model.fc(x) * scale, x).item())
    assert torch.equal(
        predict(model, (x, scale), batch_size=4),
        torch.cat([model(x[k : k + 4], scale[k : k + 4]) for k in (0, 4, 8)]).detach(),
    )


# Randomness ----------------------------------------------------------------------------------------------------


def test_same_seed_same_bits_whatever_the_callers_randomness():
    results = []
    for callers, seed in ((1, 0), (2, 0), (3, 1)):
        model = net()
        torch.manual_seed(callers)
        history = fit(model, data(), steps=10, loss=mse_loss, seed=seed)
        results.append((model, history))
    assert same_weights(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not same_weights(results[0][0], results[2][0])


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_randomness_goes_on_undisturbed(fails, tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.rand(), random.random()  # noqa: NPY002

    def seed():
        torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002

    seed()
    want = draw()
    model = net()
    seed()
    x, y = data()
    try:
        fit(
            model,
            (x, y * (math.nan if fails else 1)),
            steps=4,
            loss=mse_loss,
            validation=(x, y),
            validate_every=2,
            checkpoint=tmp_path / "run.pt",
        )
    except Diverged:
        assert fails
    assert draw() == want


# Validation and early stop -------------------------------------------------------------------------------------


def validated(steps=80, patience=None, every=2, model=None, **options):
    model = model or net()
    history = fit(
        model,
        data(),
        steps=steps,
        loss=mse_loss,
        lr=0.2,
        batch_size=3,
        validation=data(9, seed=7),
        validate_every=every,
        patience=patience,
        **options,
    )
    return model, history


def test_validation_changes_nothing_in_training_and_picks_the_best_weights():
    model, history = validated()
    plain = net()
    assert fit(plain, data(), steps=80, loss=mse_loss, lr=0.2, batch_size=3).loss == history.loss
    assert history.validation_step == list(range(2, 81, 2))
    assert not history.stopped_early

    # by hand: train to each validation, look, keep the best
    x, y = data(9, seed=7)
    losses = []
    for steps in history.validation_step[:8]:
        fit(plain := net(), data(), steps=steps, loss=mse_loss, lr=0.2, batch_size=3)
        with torch.no_grad():
            losses.append(mse_loss(plain.eval()(x), y).item())
    assert history.validation_loss[:8] == losses

    fit(plain := net(), data(), steps=history.best_step, loss=mse_loss, lr=0.2, batch_size=3)
    assert 2 < history.best_step < 80
    assert same_weights(model, plain)
    assert not model.training


@pytest.mark.parametrize("patience", [1, 2, 3, 5, 1000])
def test_early_stop_as_read_from_the_whole_history(patience):
    _, whole = validated()
    losses, waited, best, end = whole.validation_loss, 0, math.inf, None
    for k, loss in enumerate(losses):
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited == patience:
            end = k + 1
            break
    model, history = validated(patience=patience)
    assert history.validation_loss == losses[:end]
    assert history.loss == whole.loss[: 2 * end if end else None]
    assert history.stopped_early == (end is not None)
    assert end is not None or patience == 1000
    assert history.best_loss == best
    assert history.best_step == 2 * (losses.index(best) + 1)
    fit(plain := net(), data(), steps=history.best_step, loss=mse_loss, lr=0.2, batch_size=3)
    assert same_weights(model, plain)


def test_of_equal_validations_the_first_is_the_best_one():
    x = torch.ones(4, 1)
    history = fit(
        nn.Linear(1, 1),
        (x, x),
        steps=9,
        loss=lambda p, t: p.mean() * 0 + 2,
        validation=(x, x),
        validate_every=1,
        patience=3,
    )
    assert (history.best_step, history.best_loss, history.waited, len(history.loss)) == (1, 2, 3, 4)
    assert history.stopped_early


def test_validation_takes_all_examples_at_once():
    """A mean over batches of unequal size would be another number."""
    x = torch.arange(300.0).unsqueeze(1)
    line = nn.Linear(1, 1)
    history = fit(
        line,
        (x / 300, x / 300),
        steps=1,
        loss=lambda p, t: (p - t).abs().max(),
        lr=1e-9,
        validation=(x, x),
        validate_every=1,
    )
    assert history.best_loss == pytest.approx((line(x) - x).abs().max().item())


def test_history_says_in_one_line_what_happened():
    _, history = validated(patience=2)
    for part in (f"{len(history.loss)} steps", f"{history.best_loss:.4g} at {history.best_step}", "stopped early"):
        assert part in repr(history)
    assert "\n" not in repr(history)
    assert training.History().best_step is training.History().best_loss is None


# A loss that is no number --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(bad):
    def broken(generator, step):
        x, y = task(generator, step)
        return x, y * (bad if step == 4 else 1)

    model, plain = net(), net()
    with pytest.raises(Diverged, match=r"step 4: the loss is (nan|inf)") as raised:
        fit(model, broken, steps=9, loss=mse_loss)
    fit(plain, task, steps=4, loss=mse_loss)
    assert same_weights(model, plain)
    assert len(raised.value.history.loss) == 4
    assert isinstance(raised.value, FloatingPointError)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_no_number_stops_the_run_clipped_or_not(clip):
    x = torch.ones(4, 1)
    line = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(line.weight)
    with pytest.raises(Diverged, match=r"step 0: the norm of the gradient is (nan|inf)"):
        fit(line, (x, x), steps=3, loss=lambda p, t: p.abs().sqrt().mean(), clip=clip)  # slope ∞ at 0
    assert line.weight.item() == 0


def test_a_validation_that_is_no_number_stops_the_run():
    x, y = data(5)
    model, plain = net(), net()
    with pytest.raises(Diverged, match="after step 1: the validation loss is nan") as raised:
        fit(model, task, steps=4, loss=mse_loss, validation=(x, y * math.nan), validate_every=2)
    history = fit(plain, task, steps=1, loss=mse_loss)
    assert raised.value.history.loss == history.loss
    assert raised.value.history.validation_step == []
    assert same_weights(model, plain)


def test_a_run_that_diverges_leaves_no_trace_in_buffers_and_says_so_in_its_history():
    def poisoned(generator, step):
        x, y = task(generator, step)
        return x[:, -1] * (math.nan if step == 2 else 1), y

    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(SIZE), nn.Linear(SIZE, 1))
    with pytest.raises(Diverged) as raised:
        fit(model, poisoned, steps=5, loss=mse_loss)
    mean = torch.zeros(SIZE)
    for step in range(2):
        mean = 0.9 * mean + 0.1 * task(None, step)[0][:, -1].mean(0)
    torch.testing.assert_close(model[0].running_mean, mean)
    assert model[0].num_batches_tracked == 2
    assert raised.value.history.diverged == str(raised.value) == "step 2: the loss is nan"
    assert "diverged (step 2: the loss is nan)" in repr(raised.value.history)
    assert fit(net(), task, steps=1, loss=mse_loss).diverged is None


# What stops a run ----------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


class Stoppable(torch.optim.Adam):
    """Adam that can be stopped when it has moved half of the weights."""

    on = math.inf

    def step(self):
        self.made = getattr(self, "made", 0) + 1
        kept = [p.detach().clone() for p in self.param_groups[0]["params"]]
        super().step()
        if self.made == self.on:
            for p, before in list(zip(self.param_groups[0]["params"], kept, strict=True))[::2]:
                p.data.copy_(before)
            raise self.error("stopped")


def normed(weights=0):
    torch.manual_seed(weights)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(LENGTH * SIZE), nn.Dropout(0.3), nn.Linear(LENGTH * SIZE, 1))


STOPPED = 7  # in the step of this number, counted from 1; what is left is six complete steps


def stopped(where, error, path=None, model=None, steps=12, **options):
    """A run that something stops in its seventh step, at one of the places where code of the caller's runs."""
    seen = {"loss": 0}

    def loss(prediction, targets):
        in_training = prediction.requires_grad
        seen["loss"] += in_training
        if where == ("loss" if in_training else "validation") and seen["loss"] == STOPPED:
            raise error("stopped")
        return mse_loss(prediction, targets)

    def factor(step):
        if where == "schedule" and step == STOPPED - 1 and seen["loss"] == STOPPED:
            raise error("stopped")
        return 0.9**step

    def make(generator, step):
        if where == "task" and step == STOPPED - 1:
            raise error("stopped")
        return task(generator, step)

    loss.__qualname__ = "loss"
    kind = type("Stoppable", (Stoppable,), {"on": STOPPED if where == "update" else math.inf, "error": error})
    arguments = {"lr": 0.05, "optimizer": kind, "schedule": factor, "loss": loss, "checkpoint": path}
    arguments |= {"validation": data(9, seed=7), "validate_every": 1, "checkpoint_every": 5, "progress": False}
    model = model or normed()
    return model, fit(model, make, steps=steps, **arguments | options)


PLACES = ["task", "loss", "schedule", "update", "validation"]


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
def test_what_stops_a_run_carries_its_history_and_leaves_the_last_complete_step(where, error):
    model = normed()
    model[2].eval()  # a mode of its own
    with pytest.raises(error, match="stopped") as raised:
        stopped(where, error, model=model)
    plain, expected = stopped(None, error, steps=STOPPED - 1)
    last, _ = stopped(None, error, steps=STOPPED - 1, validation=None)
    assert raised.value.history == expected
    assert same_weights(model, last)  # the last ones, not the best
    assert [module.training for module in model] == [True, True, False, True]
    assert not plain.training


def test_interrupted_between_any_two_instructions_it_leaves_what_belongs_together():
    """As Ctrl-C would, at instruction number ``fatal`` of the loop."""

    def run(fatal=None):
        def trace(frame, event, _):
            nonlocal count
            if frame.f_code.co_filename != training.__file__:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                count += 1
                if count == fatal:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        count, model = 0, normed()
        held_out = data(9, seed=7)
        sys.settrace(trace)
        try:
            history = fit(
                model, task, steps=4, loss=mse_loss, optimizer=momentum, validation=held_out, validate_every=2
            )
            return model, history, count
        except KeyboardInterrupt as problem:
            return model, getattr(problem, "history", None), count
        finally:
            sys.settrace(None)
            torch.set_grad_enabled(True)  # no signal, but this trace, can come between a `with` and its block

    _, whole, total = run()
    after = []
    for steps in range(5):
        model = normed()
        if steps:
            fit(model, task, steps=steps, loss=mse_loss, optimizer=momentum)
        after.append(model)
    seen = set()
    for fatal in range(1, total, 29):
        model, history, _ = run(fatal)
        if history is not None:
            steps = len(history.loss)
            assert steps == len(history.lr) == len(history.grad_norm)
            assert history.loss == whole.loss[:steps]
            assert history.validation_step == whole.validation_step[: steps // 2]
            assert history.validation_loss == whole.validation_loss[: steps // 2]
            assert same_weights(model, after[steps])
            seen.add(steps)
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("where", PLACES)
def test_what_stops_a_run_writes_its_checkpoint_first(where, tmp_path):
    whole, history = stopped(None, Stop)
    with pytest.raises(KeyboardInterrupt):
        stopped(where, KeyboardInterrupt, tmp_path / "run.pt")
    assert len(torch.load(tmp_path / "run.pt", weights_only=True)["history"]["loss"]) == STOPPED - 1
    assert os.listdir(tmp_path) == ["run.pt"]
    model, resumed = stopped(None, Stop, tmp_path / "run.pt", model=normed(5))
    assert resumed == history
    assert same_weights(model, whole)


def test_what_stops_the_first_step_leaves_no_checkpoint(tmp_path):
    def stop(prediction, targets):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        resumable(tmp_path / "run.pt", loss=stop)
    assert raised.value.history == training.History()
    assert os.listdir(tmp_path) == []


def test_a_run_whose_checkpoint_cannot_be_written_keeps_its_history(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        resumable(tmp_path / "run.pt")
    assert raised.value.history.loss == resumable(None, 5)[1].loss
    with pytest.raises(KeyboardInterrupt) as raised:
        stopped("loss", KeyboardInterrupt, tmp_path / "run.pt", checkpoint_every=100)
    assert len(raised.value.history.loss) == STOPPED - 1
    assert "or write its checkpoint: [Errno 28]" in "".join(raised.value.__notes__)


def test_a_model_that_cannot_be_validated_is_told_before_the_first_step():
    x, y = data()
    model = net()
    with pytest.raises((ValueError, RuntimeError)):
        fit(model, (x, y), steps=4, loss=mse_loss, validation=(torch.ones(5, LENGTH, 9), y[:5]), validate_every=2)
    assert same_weights(model, net())
    assert model.training


# Checkpoints ---------------------------------------------------------------------------------------------------


def resumable(path, steps=12, model=None, **options):
    """A run with everything that has a state: momenta, dropout, schedule, best weights, an epoch of 10 batches."""
    model = model or net()
    defaults = {
        "lr": 0.1,
        "batch_size": 3,
        "clip": 0.5,
        "schedule": lambda step: 0.95**step,
        "loss": mse_loss,
        "validation": data(9, seed=7),
        "validate_every": 2,
        "checkpoint_every": 5,
        "train": data(),
    }
    options = defaults | options
    history = fit(model, options.pop("train"), steps=steps, checkpoint=path, **options)
    return model, history


@pytest.mark.parametrize("optimizer", ["adam", momentum])
@pytest.mark.parametrize("stops", [(2,), (5,), (11,), (12,), (2, 3, 9)])
def test_a_run_goes_on_to_the_numbers_of_an_unbroken_one(tmp_path, stops, optimizer):
    whole, history = resumable(None, optimizer=optimizer)
    for stop in stops:
        resumable(tmp_path / "run.pt", stop, optimizer=optimizer)
    model, resumed = resumable(tmp_path / "run.pt", model=net(weights=99), optimizer=optimizer)
    assert resumed == history
    assert same_weights(model, whole)
    again, unchanged = resumable(tmp_path / "run.pt", model=net(5), optimizer=optimizer)  # nothing left to do
    assert unchanged == history
    assert same_weights(again, whole)


def test_the_checkpoint_is_written_when_it_says(tmp_path, monkeypatch):
    written = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (written.append(torch.load(a, weights_only=True)), real(a, b)))
    resumable(tmp_path / "run.pt", 12, checkpoint_every=5)
    assert [len(content["history"]["loss"]) for content in written] == [5, 10, 12]
    assert os.listdir(tmp_path) == ["run.pt"]
    resumable(tmp_path / "run.pt", 12, checkpoint_every=5)
    assert len(written) == 3


def test_a_run_that_stopped_early_stays_stopped_and_goes_on_with_more_patience(tmp_path):
    def run(patience, model=None, **options):
        return validated(patience=patience, model=model, **options)

    whole, full = run(5)
    short, stopped = run(1, checkpoint=tmp_path / "run.pt")
    assert stopped.stopped_early
    assert len(stopped.loss) < len(full.loss)
    again, same = run(1, model=net(9), checkpoint=tmp_path / "run.pt")
    assert same == stopped
    assert same_weights(again, short)
    model, resumed = run(5, model=net(8), checkpoint=tmp_path / "run.pt")
    assert resumed == full
    assert same_weights(model, whole)


def test_options_that_numpy_computed_can_be_read_again(tmp_path):
    make = partial(torch.optim.SGD, momentum=np.float64(0.5), weight_decay=np.float64(0.01))
    options = {"optimizer": make, "lr": np.float64(0.1), "schedule": lambda step: np.float64(0.5)}
    whole, history = resumable(None, **options)
    resumable(tmp_path / "run.pt", 6, **options)
    model, resumed = resumable(tmp_path / "run.pt", **options)
    assert resumed == history
    assert same_weights(model, whole)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, r"seed: 0 then, 1 now"),
        ({"lr": 0.2}, r"\blr: 0.1 then, 0.2 now"),
        ({"batch_size": 4}, r"batch_size: 3 then, 4 now"),
        ({"clip": None}, r"clip: 0.5 then, None now"),
        ({"validate_every": 3}, r"validate_every: 2 then, 3 now"),
        ({"validation": None}, r"validation targets: \(9, 1\) float32 then, None now"),
        ({"optimizer": "sgd"}, r"optimizer: Adam then, SGD now"),
        ({"optimizer": partial(torch.optim.Adam, weight_decay=0.1)}, r"weight_decay: 0 then, 0.1 now"),
        ({"loss": l1_loss}, r"loss: mse_loss then, l1_loss now"),
        ({"loss": nn.MSELoss()}, r"loss: mse_loss then, MSELoss now"),
        ({"schedule": None}, r"schedule: lr 0.095 at step 1 then, 0.1 now"),
        ({"train": data(31)}, r"train (inputs 0|targets), mean size: "),
        ({"train": (data()[0] * 1.01, data()[1])}, r"train inputs 0, mean size: "),
        ({"validation": data(9, seed=8)}, r"validation targets, mean size"),
        ({"model": net(dropout=0.25)}, r"model: \(lstm\): LSTM\(2, 5.*dropout=0.5\) then, .*dropout=0.25\) now"),
        ({"steps": 3}, r"steps: 4 done then, 3 asked for now"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path, options, named):
    resumable(tmp_path / "run.pt", 4)
    before = (tmp_path / "run.pt").read_bytes()
    model = options.get("model") or net(1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=rf"checkpoint must be .* got .*run\.pt of another run:\n(.*\n)*  {named}"
    ):
        resumable(tmp_path / "run.pt", **{"steps": 6, **options, "model": model})
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert (tmp_path / "run.pt").read_bytes() == before


def test_what_decides_no_number_may_change(tmp_path):
    whole, history = resumable(None)
    resumable(tmp_path / "run.pt", 4)
    model, resumed = resumable(tmp_path / "run.pt", checkpoint_every=1, patience=100, progress=False, device="cpu")
    assert resumed == history
    assert same_weights(model, whole)


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    resumable(tmp_path / "run.pt", 4)
    with pytest.raises(ValueError, match=r"must hold the weights of this model, got .*run\.pt") as raised:
        resumable(tmp_path / "run.pt", model=net(hidden=6))
    assert "lstm.weight_ih_l0: (20, 2) float32 in the file, (24, 2) float32 in the model" in str(raised.value)
    assert "fc.weight: (1, 5) float32 in the file, (1, 6) float32 in the model" in str(raised.value)
    other = net()
    other.extra = nn.Linear(1, 1)
    del other.lstm.bias_ih_l0
    with pytest.raises(ValueError, match="of another model") as raised:
        checkpoints.Checkpoint(tmp_path / "run.pt", {}).read(other, 4, lambda step: 0.1)
    assert "extra.bias: absent in the file, (1,) float32 in the model" in str(raised.value)
    assert "lstm.bias_ih_l0: (20,) float32 in the file, absent in the model" in str(raised.value)


def test_a_damaged_checkpoint_is_refused_and_named(tmp_path):
    path = tmp_path / "run.pt"
    resumable(path, 4)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"run\.pt, which is damaged .*; delete it to start the run anew"):
            resumable(path)
    path.write_bytes(b"not a checkpoint" * 100)
    with pytest.raises(
        ValueError, match=r"checkpoint must be a whole file of PyTorch's, got .*run\.pt, which is damaged"
    ):
        resumable(path)


def test_a_flipped_bit_is_found_or_harmless(tmp_path):
    path = tmp_path / "weights.pt"
    model = net()
    save(model, path)
    whole, found, places = path.read_bytes(), 0, range(5, path.stat().st_size, 97)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        other = net(1)
        try:
            load(other, path)
        except ValueError as problem:
            assert "weights.pt" in str(problem)  # noqa: PT017
            found += 1
        else:
            assert same_weights(model, other)  # the bit was padding between the records
    assert found > len(places) // 4


def test_other_files_are_refused(tmp_path):
    save(net(), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"checkpoint must be a file that fit .* got something else in .*weights\.pt"
    ):
        resumable(tmp_path / "weights.pt")
    resumable(tmp_path / "run.pt", 4)
    with pytest.raises(
        ValueError, match=r"path must hold .*, got a checkpoint of fit \(which only fit reads\) in .*run\.pt"
    ):
        load(net(), tmp_path / "run.pt")
    with pytest.raises(ValueError, match="checkpoint must be the name of a file, got the folder"):
        resumable(tmp_path)


ENTRIES = ["settings", "model", "optimizer", "history", "best", "random", "history/lr", "history/validation_loss"]
PARTS = ["optimizer/param_groups", "random/cpu", "model/fc.bias", "best/fc.bias"]


@pytest.mark.parametrize("name", ENTRIES + PARTS)
@pytest.mark.parametrize("wrong", ["absent", "a number", "a text"])
def test_a_checkpoint_that_lacks_an_entry_is_refused_as_a_damaged_one_is(tmp_path, name, wrong):
    path = tmp_path / "run.pt"
    resumable(path, 4)
    content = torch.load(path, weights_only=True)
    *parents, last = name.split("/")
    entries = content[parents[0]] if parents else content
    if wrong == "absent":
        del entries[last]
    else:
        entries[last] = 3 if wrong == "a number" else "abc"
    torch.save(content, path)
    model = net(3)
    with pytest.raises(ValueError, match=r"^checkpoint must .*run\.pt"):
        resumable(path, model=model)
    assert same_weights(model, net(3))


def test_a_folder_that_cannot_be_made_is_told_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()
    model = net()
    with pytest.raises(OSError, match="file"):
        resumable(tmp_path / "file" / "run.pt", model=model)
    assert same_weights(model, net())


class Counting(nn.Linear):
    """A module with extra state: how often it was called, and whatever else."""

    def __init__(self, more=None):
        super().__init__(SIZE, 1)
        self.calls, self.more = 0, more

    def forward(self, x):
        self.calls += 1
        return super().forward(x[:, -1])

    def get_extra_state(self):
        return {"calls": self.calls, "more": self.more}

    def set_extra_state(self, state):
        if state["more"] == "refuse":
            raise KeyError("refused")
        self.calls, self.more = state["calls"], state["more"]


class Tracking(Counting):
    def get_extra_state(self):
        return torch.arange(self.calls)

    def set_extra_state(self, state):
        self.calls = len(state)


@pytest.mark.parametrize("kind", [Counting, Tracking])
def test_extra_state_is_saved_and_loaded(tmp_path, kind):
    first, second = kind(), kind()
    first.calls = 5
    save(nn.Sequential(first), tmp_path / "weights.pt")
    load(nn.Sequential(second), tmp_path / "weights.pt")
    assert same_weights(first, second) if kind is Tracking else torch.equal(first.weight, second.weight)
    assert second.calls == 5
    with pytest.raises(ValueError, match=r"0._extra_state: extra state in the file, absent in the model"):
        load(nn.Sequential(nn.Linear(SIZE, 1)), tmp_path / "weights.pt")


def test_extra_state_goes_along_with_checkpoints_and_with_the_best_weights(tmp_path):
    def counting():
        torch.manual_seed(0)
        return Counting(more=[1, 2.5, "x"])

    whole, history = resumable(None, model=counting())
    resumable(tmp_path / "run.pt", 5, model=counting())
    model, resumed = resumable(tmp_path / "run.pt", model=Counting())
    assert resumed == history
    assert torch.equal(model.weight, whole.weight)
    assert model.more == whole.more == [1, 2.5, "x"]
    assert history.best_step <= whole.calls < 2 * 12


def test_extra_state_that_cannot_be_read_again_is_refused_before_anything_is_done(tmp_path):
    model = Counting(more=Stop())
    with pytest.raises(ValueError, match="model must hold tensors and plain values"):
        save(model, tmp_path / "weights.pt")
    model.more = lambda: 3  # which cannot even be written
    with pytest.raises(ValueError, match="model must hold tensors and plain values"):
        save(model, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="model and optimizer must hold tensors and plain values"):
        resumable(tmp_path / "run.pt", model=model)
    assert model.calls <= 1  # to look at the validation
    assert os.listdir(tmp_path) == []


def test_a_model_that_does_not_take_the_weights_stays_as_it_was(tmp_path):
    save(nn.Sequential(Counting(), Counting(more="refuse")), tmp_path / "weights.pt")
    model = nn.Sequential(Counting(), Counting())
    model[0].calls = 8
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(KeyError, match="refused"):
        load(model, tmp_path / "weights.pt")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model[0].calls == 8


@pytest.mark.parametrize(
    ("layer", "safe"),
    [
        (LSTM(SIZE, 3), [LSTM]),
        (GRU(SIZE, 3), [GRU]),
        (LSTM(SIZE, 3, coupled=True, layer_norm=True, zoneout=(0.1, 0.1)), [LSTM, cells.LSTMVariant, frozenset]),
        (LSTM(SIZE, 3, without={"forget"}, residual=True), [LSTM, cells.LSTMVariant, frozenset]),
    ],
    ids=["lstm", "gru", "coupled", "without"],
)
def test_whole_models_are_read_with_these_classes_named_as_safe(tmp_path, layer, safe):
    torch.save(layer.eval(), tmp_path / "whole.pt")
    with torch.serialization.safe_globals(safe):
        copy = torch.load(tmp_path / "whole.pt", weights_only=True)
    x, _ = data()
    assert torch.equal(copy(x)[0], layer(x)[0])
    with pytest.raises(ValueError, match=r"whole\.pt, which is damaged or something else"):
        load(layer, tmp_path / "whole.pt")


def test_nothing_in_a_file_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"format": checkpoints.FORMAT, "model": Trap()}, tmp_path / "run.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Trap()))
    for path in (tmp_path / "run.pt", tmp_path / "old.pt"):
        with pytest.raises(ValueError, match="which is damaged"):
            load(net(), path)
        with pytest.raises(ValueError, match="which is damaged"):
            resumable(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint_and_no_rubbish(tmp_path, monkeypatch, broken):
    path = tmp_path / "run.pt"
    resumable(path, 4)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            resumable(path, 12)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]
    assert resumable(path, 12)[1] == resumable(None, 12)[1]


def test_what_a_killed_run_left_is_no_checkpoint_and_goes(tmp_path):
    (tmp_path / ".run.pt.01234567.part").write_bytes(b"half a checkpo")
    assert resumable(tmp_path / "run.pt")[1] == resumable(None)[1]
    (tmp_path / ".run.pt.89abcdef.part").write_bytes(b"half a checkpo")
    resumable(tmp_path / "run.pt")
    assert os.listdir(tmp_path) == ["run.pt"]


# kill -9 -------------------------------------------------------------------------------------------------------

RUN = '''
import hashlib, os, sys, time, torch
from torch import nn
from torch.nn.functional import mse_loss
from lstm_lib import checkpoints, files, training

torch.set_num_threads(1)

def run(path, steps=8, pause=0.0, every=3):
    """Train, and return a digest of all weights and the history."""
    torch.manual_seed(torch.seed() if path and os.path.exists(path) else 0)    # a resumed model starts anywhere
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(20, 3, generator=draw)
    y = x.sum(1, keepdim=True)
    def loss(prediction, targets):
        time.sleep(pause)
        return mse_loss(prediction, targets)
    history = training.fit(model, (x, y), steps=steps, loss=loss, lr=0.3, clip=1.0, batch_size=6, checkpoint=path,
                           schedule=lambda step: 0.99**step, validation=(x[:5], y[:5]), validate_every=2,
                           checkpoint_every=every)
    digest = hashlib.sha256(repr(training.asdict(history)).encode())
    for value in model.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
'''

KILLED_INSIDE = (
    RUN
    + '''
import signal, traceback
folder = sys.argv[1]
path = os.path.join(folder, "run.pt")
torch.optim.Adam([nn.Parameter(torch.zeros(1))])       # what it imports, once, before the forks
watched = {training.__file__, checkpoints.__file__, files.__file__, torch.serialization.__file__}

def child(work):
    """Run in a copy of this process; its exit status and what it returned."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(into, str(work()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(into)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(out) as pipe:
        return status, pipe.read()

class Trace:
    """Counts bytecode instructions of the watched files; kills the process at instruction number `fatal`."""
    def __init__(self, fatal=None):
        self.count, self.fatal, self.writing = 0, fatal, []
    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename not in watched:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.count += 1
            if frame.f_code is files.write.__code__:
                self.writing.append(self.count)
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self

def traced(fatal=None):
    trace = Trace(fatal)
    sys.settrace(trace)
    run(path)
    sys.settrace(None)
    return trace.count, trace.writing

def clean():
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))

status, unbroken = child(lambda: run(None))
assert status == 0 and len(unbroken) == 64, status
status, text = child(traced)
assert status == 0, status
total, writing = eval(text)
clean()
assert total > 3000 and len(writing) > 100, (total, len(writing))
moments = [*range(1, total, total // 20), *writing[:len(writing) // 3:3], *writing[-40::3]]
seen = set()
for moment in moments:
    status, _ = child(lambda: traced(moment))
    assert status == signal.SIGKILL, (moment, status)
    names = os.listdir(folder)
    halves = [name for name in names if name.startswith(".run.pt.") and name.endswith(".part")]
    assert len(halves) <= 1 and set(names) - set(halves) <= {"run.pt"}, names
    seen.add(("run.pt" in names, len(halves)))
    child(lambda: traced(moment * 7919 % total + 1))   # once more, elsewhere (or not at all, if that is too late)
    assert len(os.listdir(folder)) <= 2, os.listdir(folder)
    status, digest = child(lambda: run(path))
    assert status == 0 and digest == unbroken, (moment, status, digest, unbroken)
    assert os.listdir(folder) == ["run.pt"], os.listdir(folder)
    clean()
assert len(seen) == 4, seen     # nothing yet; the first half written; one whole; one whole and half the next
print(len(moments), "moments, all resumed to the same numbers")
'''
)

KILLED_FROM_OUTSIDE = (
    RUN
    + """
run(sys.argv[1], steps=60, pause=0.1, every=1)
"""
)


def script(code, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LSTM_LIB_PROGRESS": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_killed_between_any_two_instructions_it_resumes_to_the_same_numbers(tmp_path):
    out, problems = script(KILLED_INSIDE, tmp_path).communicate(timeout=300)
    assert "moments, all resumed to the same numbers" in out, problems
    assert not problems


def test_killed_from_outside_it_resumes_to_the_same_numbers(tmp_path):
    path = tmp_path / "run.pt"
    victim = script(KILLED_FROM_OUTSIDE, path)
    while not path.exists():
        assert victim.poll() is None, victim.communicate()
        time.sleep(0.003)
    time.sleep(0.3)
    victim.kill()
    victim.communicate()
    assert victim.returncode != 0
    assert 1 <= len(torch.load(path, weights_only=True)["history"]["loss"]) < 60
    threads, here = torch.get_num_threads(), {}
    try:
        exec(RUN, here)
        assert here["run"](path, steps=60) == here["run"](None, steps=60)
    finally:
        torch.set_num_threads(threads)
    assert os.listdir(tmp_path) == ["run.pt"]


# Weights -------------------------------------------------------------------------------------------------------


def test_saved_weights_are_a_plain_state_dict(tmp_path):
    model, other = net(), net(1)
    save(model, tmp_path / "folder" / "weights.pt")
    assert os.listdir(tmp_path / "folder") == ["weights.pt"]
    other.load_state_dict(torch.load(tmp_path / "folder" / "weights.pt", weights_only=True))
    assert same_weights(model, other)
    torch.save(net(2).state_dict(), tmp_path / "theirs.pt")
    load(other, tmp_path / "theirs.pt")
    assert same_weights(other, net(2))


def test_weights_of_another_model_are_refused_and_change_nothing(tmp_path):
    save(net(hidden=6).double(), tmp_path / "weights.pt")
    model = net()
    with pytest.raises(ValueError, match=r"fc.weight: \(1, 6\) float64 in the file, \(1, 5\) float32 in the"):
        load(model, tmp_path / "weights.pt")
    assert same_weights(model, net())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(model, tmp_path / "nowhere.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"path must hold the weights of a model, .* got something else"):
        load(model, tmp_path / "list.pt")


# Predictions ---------------------------------------------------------------------------------------------------


def test_predict_runs_in_eval_mode_without_gradients_and_puts_each_module_back():
    model = net()
    model.fc.eval()
    assert model.training
    x, _ = data()
    whole = predict(model, x, batch_size=COUNT)
    assert [model.training, model.lstm.training, model.fc.training] == [True, True, False]
    assert not whole.requires_grad
    with torch.no_grad():
        assert torch.equal(whole, model.eval()(x))
    for batch_size in (1, 7, 1000):
        torch.testing.assert_close(predict(model, x, batch_size), whole, rtol=1e-5, atol=1e-6)


def test_predict_restores_the_mode_after_a_failure():
    model = net()
    with pytest.raises(RuntimeError):
        predict(model, torch.zeros(2, 3, 99))
    assert model.training
    assert model.lstm.training


def test_predict_works_without_parameters():
    assert predict(nn.Identity(), torch.ones(3, 2)).shape == (3, 2)


# Arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be a whole number, 1 or more, got 0"),
        ({"steps": 2.5}, TypeError, "steps must be a whole number, 1 or more, got 2.5"),
        ({"steps": True}, TypeError, "steps must be .*, got True"),
        ({"steps": None}, TypeError, "steps must be .*, got None"),
        ({"batch_size": 0}, ValueError, "batch_size must be .*, got 0"),
        ({"batch_size": None}, TypeError, "batch_size must be .*, got None"),
        ({"validate_every": -1}, ValueError, "validate_every must be .*, got -1"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be .*, got 0"),
        ({"patience": 0}, ValueError, "patience must be .*, got 0"),
        ({"patience": 3}, ValueError, r"patience must come with validation=\(inputs, targets\), got 3 without"),
        (
            {"validation": data(), "validate_every": 9},
            ValueError,
            "validate_every must be at most steps=5 .* got 9",
        ),
        ({"lr": 0}, ValueError, "lr must be a finite number above 0, got 0"),
        ({"lr": math.nan}, ValueError, "lr must be .*, got nan"),
        ({"lr": "fast"}, TypeError, "lr must be .*, got 'fast'"),
        ({"clip": -1.0}, ValueError, "clip must be .*, got -1.0"),
        ({"clip": math.inf}, ValueError, "clip must be .*, got inf"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number from 0 to .*, got 1.5"),
        ({"seed": -1}, ValueError, "seed must be .*, got -1"),
        (
            {"seed": 2**64},
            ValueError,
            r"seed must be a whole number from 0 to 2\*\*64 − 1, got 18446744073709551616",
        ),
        ({"loss": None}, TypeError, "loss must be a function such as .*, got None"),
        ({"loss": "mse"}, TypeError, "loss must be a function such as torch.nn.functional.mse_loss, got 'mse'"),
        ({"schedule": 0.5}, TypeError, "schedule must be a function of the step, got 0.5"),
        ({"optimizer": "adan"}, ValueError, "optimizer must be one of adam, adamw, sgd or .*, got 'adan'"),
        ({"optimizer": None}, ValueError, "optimizer must be .*, got None"),
        ({"optimizer": lambda parameters, lr: 3}, TypeError, "optimizer must return a .*Optimizer, got int"),
        ({"device": "gpu"}, ValueError, r"device must be one that is here \(auto, cpu.*\), got 'gpu'"),
        ({"device": None}, ValueError, "device must be .*, got 'None'"),
        ({"device": "meta"}, ValueError, "device must be .*, got 'meta'"),
        ({"schedule": lambda step: -1}, ValueError, "schedule must return .*, got -1.0 at step 0"),
        ({"schedule": lambda step: math.nan}, ValueError, "schedule must return .*, got nan at step 0"),
        (
            {"loss": lambda p, t: (p - t).square()},
            ValueError,
            r"loss must return .*, got a tensor of shape \(30, 1\)",
        ),
        ({"loss": lambda p, t: 1.0}, ValueError, "loss must return a tensor with one number, got float"),
        ({"train": data()[0]}, TypeError, r"train must be \(inputs, targets\), got torch.Tensor"),
        (
            {"train": (np.zeros((3, 2)), torch.zeros(3))},
            TypeError,
            "train inputs must be tensors .*, got numpy.ndarray",
        ),
        ({"train": (data()[0], data()[1].tolist())}, TypeError, "train targets must be tensors .*, got list"),
        (
            {"train": (data()[0], data()[1][1:])},
            ValueError,
            "train inputs and targets must hold .*, got 30 and 29",
        ),
        ({"train": (data()[0][:0], data()[1][:0])}, ValueError, "examples, at least 1, got 0 and 0"),
        (
            {"train": (data()[0].double(), data()[1])},
            TypeError,
            "inputs must be torch.float32 .*, got torch.float64",
        ),
        (
            {"train": (data()[0], data()[1].double())},
            TypeError,
            "targets must be torch.float32 .*, got torch.float64",
        ),
        ({"train": lambda generator, step: 3}, TypeError, r"train must be \(inputs, targets\), got int"),
        (
            {"validation": (data()[0], data()[1][1:])},
            ValueError,
            "validation inputs and targets must .* 30 and 29",
        ),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    arguments = {"train": data(), "steps": 5, "loss": mse_loss, "batch_size": COUNT, "validate_every": 5} | options
    model = net()
    with pytest.raises(error, match=message):
        fit(model, arguments.pop("train"), **arguments)
    assert same_weights(model, net())


@pytest.mark.parametrize("options", [{}, {"seeds": [0, 1]}], ids=["alone", "seeds"])
@pytest.mark.parametrize("loss", [mse_loss, torch.nn.functional.l1_loss, torch.nn.SmoothL1Loss()])
def test_targets_that_only_broadcast_are_refused_before_the_first_step(options, loss):
    x, y = data()
    build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(LENGTH * SIZE, 1))  # noqa: E731
    model = build()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"targets must have the shape of the output, \[4, 1\], got \[4\]"):
        fit(build if options else model, (x, y[:, 0]), steps=5, loss=loss, batch_size=4, **options)
    assert same_weights(model, before)


def test_numbers_of_numpy_are_numbers():
    options = {
        "steps": 3,
        "batch_size": 100,
        "lr": 0.25,
        "clip": 0.5,
        "seed": 2,
        "patience": 2,
        "validate_every": 1,
    }
    x, y = data(200)
    whole, history = net(), None
    history = fit(whole, (x, y), loss=mse_loss, validation=(x, y), **options)
    model = net()
    kinds = {"lr": np.float32, "clip": np.float64, "batch_size": np.int8}
    options = {name: kinds.get(name, np.int64)(value) for name, value in options.items()}
    assert fit(model, (x, y), loss=mse_loss, validation=(x, y), **options) == history
    assert same_weights(model, whole)
    assert torch.equal(predict(model, x, batch_size=np.uint8(7)), predict(model, x, batch_size=7))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_without_one(name):
    with pytest.raises(ValueError, match=r"device must be one that is here \(auto, cpu.*\), got 'cuda(:1)?'"):
        fit(net(), data(), steps=1, loss=mse_loss, device=name)
    assert training.find_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.zeros((2, 3, SIZE)), TypeError, "inputs must be tensors .*, got numpy.ndarray"),
        (torch.zeros(0, 3, SIZE), ValueError, "inputs must hold .*, got 0"),
        ((), ValueError, "inputs must hold .*, got none"),
        ((torch.zeros(2, 3, SIZE), torch.zeros(3)), ValueError, "inputs must hold .*, got 2 and 3"),
        (torch.zeros(2, 3, SIZE, dtype=torch.float64), TypeError, "inputs must be torch.float32 .* torch.float64"),
    ],
)
def test_bad_inputs_of_predict_are_named(inputs, error, message):
    with pytest.raises(error, match=message):
        predict(net(), inputs)


def test_a_model_that_returns_a_tuple_is_named():
    with pytest.raises(TypeError, match=r"model must return a tensor .*, got tuple"):
        predict(nn.LSTM(SIZE, 3, batch_first=True), data()[0])


# Around it -----------------------------------------------------------------------------------------------------


def test_the_bar_keeps_to_stderr_and_can_be_hidden(capsys, monkeypatch):
    monkeypatch.delenv("LSTM_LIB_PROGRESS", raising=False)
    fit(net(), data(), steps=3, loss=mse_loss)
    out, err = capsys.readouterr()
    assert not out
    assert "step" in err
    assert err.endswith("\r")  # gone when done
    fit(net(), data(), steps=3, loss=mse_loss, progress=False)
    monkeypatch.setenv("LSTM_LIB_PROGRESS", "0")
    fit(net(), data(), steps=3, loss=mse_loss)
    assert capsys.readouterr() == ("", "")


def test_import_needs_what_the_library_needs_and_no_more():
    code = (
        "import sys, torch, tqdm; before = set(sys.modules); import lstm_lib.training;"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) <= {"lstm_lib", "torch", "tqdm", "numpy", "numba", "llvmlite"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda(tmp_path):
    torch.cuda.manual_seed(1)
    want = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(1)
    whole, history = resumable(None, device="cuda")
    assert torch.equal(torch.rand(3, device="cuda"), want)
    assert next(whole.parameters()).is_cuda
    resumable(tmp_path / "run.pt", 6, device="cuda")
    model, resumed = resumable(tmp_path / "run.pt", device="cuda")
    assert resumed.loss == pytest.approx(history.loss, rel=1e-3)
    assert predict(model, data()[0]).device.type == "cpu"
    cpu, _ = resumable(tmp_path / "run.pt", device="cpu")
    save(model, tmp_path / "weights.pt")
    load(cpu, tmp_path / "weights.pt")
    x, _ = data()
    torch.testing.assert_close(predict(cpu, x, device="cuda"), predict(model, x), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_put_back_does_not_hide_what_stopped_the_run():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.line, self.calls = nn.Linear(3, 1), 0
            self.register_buffer("seen", torch.zeros(0))

        def forward(self, x):
            self.calls += 1
            self.seen = torch.cat([self.seen, torch.ones(1)])
            if self.calls == 4:
                raise MemoryError("the true cause")
            return self.line(x)

    data = torch.randn(40, 3), torch.randn(40, 1)
    with pytest.raises(MemoryError, match="the true cause") as raised:
        fit(Growing(), data, steps=9, loss=nn.functional.mse_loss, device="cpu", progress=False)
    assert len(raised.value.history.loss) == 3
    assert "could not go back" in "".join(raised.value.__notes__)

"""Shares of variance against the formula, for settings thrown by their logarithm and without."""

import math

import numpy as np
import optuna
import pytest

from lstm_lib.book import importance

optuna.logging.set_verbosity(optuna.logging.WARNING)
RANGES = {
    "rate": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
    "units": optuna.distributions.IntDistribution(4, 64, log=True),
    "noise": optuna.distributions.FloatDistribution(0.0, 1.0),
    "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
}


def thrown(count, value):
    """Trials at random, whose value is a function of the logarithms as shares of their ranges, and the rest."""
    u = np.random.default_rng(0).random((count, 4))
    return [
        optuna.trial.create_trial(
            params={
                "rate": 1e-4 ** (1 - a),
                "units": round(4 * 16**b),
                "noise": c,
                "kind": "ab"[int(2 * d)],
            },
            distributions=RANGES,
            value=value(a, c),
        )
        for a, b, c, d in u
    ]


def test_the_shares_of_a_sum_are_those_of_its_variances():
    """y = 3 a + c, both uniform on (0, 1): 9 parts of the variance to 1."""
    found = importance.shares(thrown(600, lambda a, c: 3 * a + c))
    assert list(found) == list(RANGES)
    assert found["rate"] == pytest.approx(0.9, abs=0.04)
    assert found["noise"] == pytest.approx(0.1, abs=0.04)
    assert found["units"] + found["kind"] < 0.02


def test_optuna_alone_measures_a_logarithmic_range_with_a_ruler():
    """An error that falls where a rate is small: nearly all throws of a ruler's lie where nothing changes."""
    trials = thrown(300, lambda a, c: max(0.0, 0.5 - a) + 0.2 * c)
    study = optuna.create_study()
    study.add_trials(trials)
    alone = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    # The rate's part has the variance of max(0, .5 - a), which is 5/192, and the noise .04/12.
    share = 5 / 192 / (5 / 192 + 0.04 / 12)
    assert importance.shares(trials)["rate"] == pytest.approx(share, abs=0.04)
    assert alone["rate"] < share / 2


def test_other_values_are_explained_in_the_place_of_the_trials_own():
    trials = thrown(300, lambda a, c: a)
    assert importance.shares(trials)["rate"] == pytest.approx(1, abs=0.02)
    noise = importance.shares(trials, [trial.params["noise"] for trial in trials])["noise"]
    assert noise == pytest.approx(1, abs=0.02)


def test_the_seed_is_the_forest_s():
    trials = thrown(40, lambda a, c: a + c)
    one, same, other = (importance.shares(trials, seed=seed) for seed in (0, 0, 1))
    assert one == same != other


def test_a_straight_trial_keeps_what_has_no_logarithm():
    trial = thrown(1, lambda a, c: 7.0)[0]
    found = importance.straight(trial, 8.0)
    assert found.value == 8
    assert found.params["rate"] == pytest.approx(math.log(trial.params["rate"]))
    assert found.params["units"] == pytest.approx(math.log(trial.params["units"]))
    assert found.params["noise"] == trial.params["noise"]
    assert found.params["kind"] == trial.params["kind"]
    assert found.distributions["rate"] == optuna.distributions.FloatDistribution(math.log(1e-4), 0.0)

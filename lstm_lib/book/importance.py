"""Which share of an error's variance each setting of a search explains alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any


def straight(trial: Any, value: float) -> Any:
    """A trial of this value, with logarithms in the place of the settings that were thrown by their logarithm.

    Optuna's evaluator measures a range with a ruler, also one declared with ``log=True``: for rates of .0001 to 1
    it answers about throws of which nine in ten are above .1, whatever was thrown.

    Parameters
    ----------
    trial : FrozenTrial
        A complete trial of Optuna's.
    value : float
        What the new one has to explain.

    Returns
    -------
    FrozenTrial
    """
    optuna = import_module("optuna")  # a chapter's need and not the library's, as its test has it
    params, ranges = dict(trial.params), dict(trial.distributions)
    for name, thrown in trial.distributions.items():
        if getattr(thrown, "log", False):
            params[name] = math.log(params[name])
            ranges[name] = optuna.distributions.FloatDistribution(math.log(thrown.low), math.log(thrown.high))
    return optuna.trial.create_trial(params=params, distributions=ranges, value=value)


def shares(
    trials: Sequence[Any],
    values: Sequence[float] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """The share of the variance that each setting explains alone, over the ranges as they were thrown.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        Complete trials with the same settings, thrown at random.
    values : sequence of float
        What varies, a number for each trial: their values, if nothing is said.
    seed : int
        Of the random forest.

    Returns
    -------
    dict of str to float
        For each setting, in the order of the trials, a share, 0 to 1, of the variance of what the forest predicts.

    References
    ----------
    Hutter, Hoos, Leyton-Brown (2014). An efficient approach for assessing hyperparameter importance.
    """
    optuna = import_module("optuna")
    study = optuna.create_study()
    values = [trial.value for trial in trials] if values is None else values
    study.add_trials([straight(trial, value) for trial, value in zip(trials, values, strict=True)])
    found = optuna.importance.FanovaImportanceEvaluator(seed=seed).evaluate(study)
    return {name: float(found[name]) for name in trials[0].params}

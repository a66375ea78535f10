"""Intervals: resampling runs or groups of runs, and profile likelihood as the second opinion.

Runs of one (recipe, r, budget) group may share noise (one data order, one learning rate), so the
default resamples whole groups. A percentile interval of few groups is too narrow; the default
takes its standard error from the resamples and its tails from Student's t with (groups − 1)
degrees of freedom. The measured coverage of every method stands in docs/coverage.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from isodepth.fitting.estimate import Estimate, refit
from isodepth.fitting.problem import Problem
from isodepth.fitting.solver import minimise
from isodepth.laws import Array, Integers

Resampling = Literal["groups", "runs"]
LEVEL = 0.95
_ONE_SIGMA = (stats.norm.cdf(-1.0), stats.norm.cdf(1.0))
_PROFILE_REACH = 6.0  # standard errors on either side
_PROFILE_POINTS = 61


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """Refits of resampled runs."""

    theta: Array  # (B, p)
    unit: Resampling  # what was drawn with replacement
    n_units: int  # how many there are to draw from

    def interval(self, value: float, draws: Array, *, log: bool = False) -> tuple[float, float]:
        """95% interval of a quantity with `value` at the fit and `draws` (B,) at the resamples.

        log: the quantity is positive and its logarithm is the better scale.
        """
        if log:
            with np.errstate(all="ignore"):  # what has no logarithm gives an end that isn't finite
                low, high = self.interval(float(np.log(value)), np.log(draws))
                return float(np.exp(low)), float(np.exp(high))
        half = float(stats.t.ppf(0.5 + LEVEL / 2, self.freedom)) * self.standard_error(draws)
        return value - half, value + half

    @property
    def freedom(self) -> int:
        """Degrees of freedom of Student's t."""
        return max(self.n_units - 1, 1)

    @staticmethod
    def standard_error(draws: Array) -> float:
        """Half the central 68.3% range of draws (B,), which outlying resamples don't move."""
        low, high = np.quantile(draws, _ONE_SIGMA)
        return float((high - low) / 2)


def resample(
    problem: Problem,
    fitted: Estimate,
    n: int,
    seed: int,
    unit: Resampling = "groups",
    start: Array | None = None,
) -> Resamples:
    """Refit n resamples, drawn with replacement over groups or over runs.

    start (n, p): where the same resamples ended under nearly the same problem.
    """
    labels = problem.groups if unit == "groups" else np.arange(problem.n)
    theta = refit(problem, fitted, weights=draw(labels, n, seed), start=start)
    return Resamples(theta=theta, unit=unit, n_units=int(labels.max()) + 1)


def draw(labels: Integers, n: int, seed: int) -> Array:
    """Weights (n, runs): how often each run's unit is drawn, all units with replacement.

    labels (runs,): the unit of each run, counted from 0.
    """
    units = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(units, np.full(units, 1.0 / units), size=n).astype(float)
    return counts[:, labels]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The best objective at each fixed value of one parameter."""

    values: Array  # (m,)
    objective: Array  # (m,) the fit's objective, minimised over all other parameters
    threshold: float  # the objective up to which a value lies in the 95% interval
    interval: tuple[float | None, float | None]  # None: the profile never rises that high

    def to_dict(self) -> dict[str, object]:
        """What `fit --json` holds of it."""
        return {
            "ci95": list(self.interval),
            "values": self.values.tolist(),
            "objective": self.objective.tolist(),
            "threshold": self.threshold,
        }


def profile(problem: Problem, fitted: Estimate, name: str, standard_error: float) -> Profile:
    """Profile one θ over six standard errors on either side.

    The threshold is that of a likelihood-ratio test with the scale estimated from the residuals:
    2(F − F_min)·Σψ′/Σψ² ≤ t² with t Student's at n − p degrees of freedom; for least squares
    2F_min/(n − p) is the residual variance. For Huber's loss this is the robust likelihood-ratio
    test (Heritier & Ronchetti 1994) with ψ and ψ′ at the residuals.
    """
    at = problem.theta_names.index(name)
    best = fitted.theta[at]
    reach = _PROFILE_REACH * standard_error
    values = np.linspace(best - reach, best + reach, _PROFILE_POINTS)
    _, objective = held(problem, fitted.theta, name, values)
    objective = np.maximum(objective, fitted.objective)
    freedom = max(problem.n - fitted.theta.size, 1)
    t = float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
    threshold = fitted.objective + 0.5 * t**2 * _scale(problem, fitted.theta, freedom)
    return Profile(
        values=values,
        objective=objective,
        threshold=threshold,
        interval=(
            _crossing(values[values <= best][::-1], objective[values <= best][::-1], threshold),
            _crossing(values[values >= best], objective[values >= best], threshold),
        ),
    )


def held(problem: Problem, theta: Array, name: str, values: Array) -> tuple[Array, Array]:
    """θ (m, p) and objective (m,) refitted with one parameter held at each of `values` (m,).

    theta (p,): the optimum, from which every refit starts.
    """
    at = problem.theta_names.index(name)
    start = np.repeat(theta[None], values.size, axis=0)
    start[:, at] = values
    found = minimise(problem.batch(), start, fixed=np.arange(theta.size) == at)
    return found.theta, found.objective


def _scale(problem: Problem, theta: Array, freedom: int) -> float:
    """Σψ² / Σψ′, the objective's unit of likelihood, corrected for the fitted parameters."""
    residual = problem.scale * (np.log(problem.predict(theta)[0]) - problem.log_loss)
    pull = np.clip(residual, -problem.delta, problem.delta)
    inside = max(int((np.abs(residual) <= problem.delta).sum()), 1)
    return float((pull**2).sum() / inside * problem.n / freedom)


def _crossing(values: Array, objective: Array, threshold: float) -> float | None:
    """First crossing of the threshold, going outward from the optimum."""
    above = np.flatnonzero(objective > threshold)
    if above.size == 0:
        return None
    i = above[0]
    if i == 0:
        return float(values[0])
    share = (threshold - objective[i - 1]) / (objective[i] - objective[i - 1])
    return float(values[i - 1] + share * (values[i] - values[i - 1]))

"""Intervals: resampling groups, runs or losses, and profile likelihood as the second opinion.

Runs of one (recipe, r, budget) group may share noise (one data order, one learning rate), so the
default resamples whole groups. A percentile interval of few groups is too narrow; the default takes
its standard error from the resamples and its tails from Student's t with (groups − 1) degrees of
freedom. Where residuals go on along r, as they do where a law misses the runs, groups aren't
independent, and θ is drawn from its distribution under error structures instead
(`fitting/errors.py`). Groups can't be drawn where φ hangs on one of them, as it does in sweeps made
to be cheap: a resample without the only r = 1 runs has no φ. There the losses are simulated
instead, from the fitted law and independent noise as large as the fit found. The measured coverage
of every method stands in docs/coverage.md and docs/designing-a-sweep.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from isodepth.fitting.errors import Cells, Errors
from isodepth.fitting.estimate import MANY, Estimate, refit
from isodepth.fitting.noise import moments, noise_freedom, noise_scale
from isodepth.fitting.one_step import of_losses, of_units
from isodepth.fitting.problem import Problem
from isodepth.fitting.solver import minimise
from isodepth.laws import Array, Integers

Resampling = Literal["groups", "runs", "losses", "structures"]
LEVEL = 0.95
_ONE_SIGMA = (special.ndtr(-1.0), special.ndtr(1.0))
_PROFILE_REACH = 6.0  # standard errors on either side
_PROFILE_POINTS = 61
# A group without which the variance of φ is this many times as large is one that φ hangs on: a
# resample lacks it in one case of three. Layouts of 8 groups and more lie below 2.
_HANGS = 3.0


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """Refits of resampled runs."""

    theta: Array  # (B, p)
    # what was drawn with replacement; losses: simulated for every run; structures: θ itself, from
    # its distribution under error structures
    unit: Resampling
    n_units: float  # how many; of losses, the noise's degrees of freedom and the parameters

    def interval(self, value: float, draws: Array, *, log: bool = False) -> tuple[float, float]:
        """95% interval of a quantity with `value` at the fit and `draws` (B,) at the resamples.

        log: the quantity is positive and its logarithm is the better scale.
        """
        if log:
            with np.errstate(all="ignore"):  # what has no logarithm gives an end that isn't finite
                low, high = self.interval(float(np.log(value)), np.log(draws))
                return float(np.exp(low)), float(np.exp(high))
        if self.unit == "structures":  # their tails are in the draws
            half = float(np.quantile(np.abs(draws - value), LEVEL))
        else:
            half = float(special.stdtrit(self.freedom, 0.5 + LEVEL / 2)) * self.standard_error(
                draws
            )
        return value - half, value + half

    @property
    def freedom(self) -> float:
        """Degrees of freedom of Student's t: of simulated losses those that their noise has."""
        fitted = self.theta.shape[1] if self.unit == "losses" else 1
        return max(self.n_units - fitted, 1)

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
    unit: Resampling,
    start: Array | None = None,
) -> Resamples:
    """Refit n resamples: groups or runs drawn with replacement, or losses simulated.

    Error structures are drawn from without a refit (`structured`). Of more than 4,000 runs a refit
    is one Newton step from the fit (`one_step`).

    start (n, p): where the same resamples ended under nearly the same problem.
    """
    if unit == "structures":
        return structured(problem, fitted, n, seed)
    if unit == "losses":
        sigma = noise_scale(problem, fitted.objective, fitted.theta.size)
        if problem.n > MANY:
            theta = of_losses(problem, fitted, sigma, n, seed)
        else:
            drawn = simulated(
                problem, fitted, sigma * standard_noise(problem.n, n, seed) / problem.scale
            )
            theta = refit(problem, fitted, log_loss=drawn, start=start)
        p = fitted.theta.size
        return Resamples(theta=theta, unit=unit, n_units=p + noise_freedom(problem, sigma, p))
    labels = problem.groups if unit == "groups" else np.arange(problem.n)
    if problem.n > MANY:
        theta = of_units(problem, fitted, labels, n, seed)
    else:
        theta = refit(problem, fitted, weights=draw(labels, n, seed), start=start)
    return Resamples(theta=theta, unit=unit, n_units=int(labels.max()) + 1)


def errors_of(problem: Problem, fitted: Estimate) -> tuple[Errors, Array]:
    """The error structures of a fit, and the influence (p, n) of scaled noise on its θ.

    To first order. Huber's estimate is taken to move as least squares does, with the larger
    variance that its loss has at the noise found.
    """
    columns = problem.law.evaluate(fitted.theta[None], problem.design).jacobian[0].T
    columns = columns * problem.scale[:, None]
    sigma = noise_scale(problem, fitted.objective, fitted.theta.size)
    errors = Errors(
        cells=Cells.of(problem.frame, problem.budgets),
        columns=columns,
        residual=problem.scale * (problem.log_loss - np.log(problem.predict(fitted.theta)[0])),
        excess=moments(problem.delta / sigma).variance - 1.0,
    )
    return errors, np.asarray(np.linalg.pinv(columns))


def structured(problem: Problem, fitted: Estimate, n: int, seed: int) -> Resamples:
    """n draws of θ from its distribution under the error structures that the residuals show."""
    errors, influence = errors_of(problem, fitted)
    theta = fitted.theta + errors.draws(influence, n, seed)
    lowest, highest = problem.bounds
    return Resamples(
        theta=np.clip(theta, lowest, highest), unit="structures", n_units=errors.freedom + 1
    )


def resampling(problem: Problem, theta: Array) -> Resampling:
    """What to resample: groups, unless what tells loops hangs on one of them; then losses.

    The multiplicity's parameters, and what looped arms differ by, hang on a group without which the
    variance of one of them (from the Jacobian at theta (p,)) is more than three times as large.
    """
    n_loops = len(problem.eta_names) + (problem.law.arms_differ != "none")
    if n_loops == 0 or problem.n <= theta.size:
        return "groups"
    rows = problem.law.evaluate(theta[None], problem.design).jacobian[0] * problem.scale
    rows = rows / (np.sqrt((rows**2).sum(axis=1)) + 1e-300)[:, None]
    outer = (rows[:, None] * rows[None]).reshape(-1, problem.n)
    groups = int(problem.groups.max()) + 1
    by_group = np.array([np.bincount(problem.groups, one, groups) for one in outer])
    whole = outer.sum(axis=1)[:, None]
    sums = np.hstack([whole, whole - by_group]).T.reshape(-1, theta.size, theta.size)
    information = sums + 1e-13 * np.eye(theta.size)
    variances = np.linalg.inv(information)[:, -n_loops:, -n_loops:].diagonal(axis1=1, axis2=2)
    return "losses" if (variances[1:] > _HANGS * variances[0]).any() else "groups"


def standard_noise(n_runs: int, n: int, seed: int) -> Array:
    """Standard normal noise (n, runs) of n simulated sweeps."""
    return np.random.default_rng(seed).normal(size=(n, n_runs))


def simulated(problem: Problem, fitted: Estimate, noise: Array) -> Array:
    """Log losses (n, runs) from the fitted law and their noise (n, runs)."""
    return np.log(problem.predict(fitted.theta)[0]) + noise


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

    The threshold is that of a likelihood-ratio test with the scale estimated from the objective:
    2(F − F_min) ≤ t²·σ²Eψ²/Eψ′ with t Student's at σ's degrees of freedom; for least squares
    σ² = 2F_min/(n − p) with n − p. For Huber's loss this is the robust likelihood-ratio test
    (Heritier & Ronchetti 1994) with σ from `noise_scale` and ψ's moments at normal noise.
    """
    at = problem.theta_names.index(name)
    best = fitted.theta[at]
    reach = _PROFILE_REACH * standard_error
    values = np.linspace(best - reach, best + reach, _PROFILE_POINTS)
    _, objective = held(problem, fitted.theta, name, values)
    objective = np.maximum(objective, fitted.objective)
    freedom = _freedom(problem, fitted)
    t = float(special.stdtrit(freedom, 0.5 + LEVEL / 2))
    threshold = fitted.objective + 0.5 * t**2 * likelihood_unit(problem, fitted)
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


def likelihood_unit(problem: Problem, fitted: Estimate) -> float:
    """σ²Eψ²/Eψ′, the objective's unit of likelihood; 0 where no run is left to tell the noise."""
    if problem.n <= fitted.theta.size:
        return 0.0
    sigma = noise_scale(problem, fitted.objective, fitted.theta.size)
    at = moments(problem.delta / sigma)
    return sigma**2 * at.square / at.slope


def _freedom(problem: Problem, fitted: Estimate) -> float:
    """Of the noise; 1 where no run is left to tell it."""
    if problem.n <= fitted.theta.size:
        return 1.0
    sigma = noise_scale(problem, fitted.objective, fitted.theta.size)
    return max(noise_freedom(problem, sigma, fitted.theta.size), 1.0)


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

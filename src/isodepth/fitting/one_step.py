"""Refits of many runs by one Newton step from the optimum, for tables of thousands of runs.

A resample of n runs has its optimum about n^(−½) from the fit's, and one step with its own gradient
ends about 1/n from it (Le Cam's one-step estimator). Of 5,000 runs, 300 resamples and their exact
refits correlate by 1.000 for least squares and by .994 for Huber's loss at a quarter of the noise.
Gradients and Hessians of all resamples are then sums over runs at one θ, which matrix products
make in seconds where exact refits take hours.

The Hessian's Huber part is Eψ′·ΣwᵢsᵢJᵢJᵢᵀ, with Eψ′ the share of runs inside the threshold, or of
normal noise where few are: which few runs lie inside is chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isodepth.fitting.estimate import Estimate
from isodepth.fitting.noise import moments, noise_scale
from isodepth.fitting.problem import Problem
from isodepth.laws import Array, Integers

_CHUNK = 4_000_000  # resamples × runs that are held at once
_FEW_INSIDE = 400


@dataclass(frozen=True, kw_only=True)
class _Local:
    """The objective around the optimum, run by run."""

    jacobian: Array  # (n, p) of scaled log loss
    outer: Array  # (n, p·p) JᵢJᵢᵀ·Eψ′
    bent: Array  # (p, p) curvature of the law itself, at the fit's residuals
    residual: Array  # (n,) scaled
    theta: Array  # (p,)
    bounds: Array  # (2, p)
    delta: float

    @classmethod
    def of(cls, problem: Problem, around: Estimate) -> _Local:
        theta = around.theta
        at = problem.law.evaluate(theta[None], problem.design)
        rows = (at.jacobian[0] * problem.scale).T
        residual = problem.scale * (at.log_loss[0] - problem.log_loss)
        pull = np.clip(residual, -problem.delta, problem.delta)
        weighted = (pull * problem.scale)[None]
        bent = at.curvature(weighted)[0] - (at.jacobian[0] * weighted) @ at.jacobian[0].T
        inside = float((np.abs(residual) <= problem.delta).mean())
        if inside * problem.n < _FEW_INSIDE:
            sigma = noise_scale(problem, around.objective, theta.size)
            inside = moments(problem.delta / sigma).slope
        outer = inside * (rows[:, :, None] * rows[:, None, :]).reshape(problem.n, -1)
        return cls(
            jacobian=rows,
            outer=outer,
            bent=bent,
            residual=residual,
            theta=theta,
            bounds=problem.bounds,
            delta=problem.delta,
        )

    def pulled(self, residual: Array) -> Array:
        """ψ of residuals."""
        return np.clip(residual, -self.delta, self.delta)

    def step(self, gradient: Array, outer: Array) -> Array:
        """θ (K, p) after a step; gradient (K, p), outer (K, p·p) sums of `outer`."""
        p = self.theta.size
        hessian = outer.reshape(-1, p, p) + self.bent
        diagonal = np.einsum("kpp->kp", outer.reshape(-1, p, p))
        hessian[:, np.arange(p), np.arange(p)] += 1e-12 * diagonal + 1e-30
        moved = self.theta - np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        low, high = self.bounds
        return np.asarray(np.clip(np.where(np.isfinite(moved), moved, self.theta), low, high))


def of_units(problem: Problem, around: Estimate, labels: Integers, n: int, seed: int) -> Array:
    """θ (n, p) of resamples of units drawn with replacement, as `uncertainty.draw` draws them.

    labels (runs,): the unit of each run, counted from 0.
    """
    local = _Local.of(problem, around)
    units = int(labels.max()) + 1
    gradients = _summed(local.pulled(local.residual)[:, None] * local.jacobian, labels, units)
    outers = _summed(local.outer, labels, units)
    rng = np.random.default_rng(seed)
    share = np.full(units, 1.0 / units)
    found = []
    for size in _chunks(n, units):
        counts = rng.multinomial(units, share, size=size).astype(float)
        found.append(local.step(counts @ gradients, counts @ outers))
    return np.concatenate(found)


def of_losses(problem: Problem, around: Estimate, sigma: float, n: int, seed: int) -> Array:
    """θ (n, p) of losses simulated from the fit with normal noise, scaled residuals of sd sigma."""
    local = _Local.of(problem, around)
    rng = np.random.default_rng(seed)
    total = local.outer.sum(axis=0)
    found = []
    for size in _chunks(n, problem.n):
        residual = -sigma * rng.normal(size=(size, problem.n))
        gradient = local.pulled(residual) @ local.jacobian
        found.append(local.step(gradient, np.repeat(total[None], size, axis=0)))
    return np.concatenate(found)


def leaving_out(problem: Problem, around: Estimate) -> Array:
    """θ (n, p) with each run left out."""
    local = _Local.of(problem, around)
    pulls = local.pulled(local.residual)[:, None] * local.jacobian
    total = local.outer.sum(axis=0)
    return local.step(-pulls, total - local.outer)


def _summed(values: Array, labels: Integers, units: int) -> Array:
    """Rows (runs, m) added up by unit: (units, m)."""
    found = np.zeros((units, values.shape[1]))
    np.add.at(found, labels, values)
    return found


def _chunks(n: int, width: int) -> Iterator[int]:
    size = max(1, _CHUNK // width)
    for start in range(0, n, size):
        yield min(size, n - start)

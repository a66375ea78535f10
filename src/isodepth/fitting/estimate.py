"""The global optimum of one problem, and how sure the search is that it is global."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isodepth.fitting.problem import Problem
from isodepth.fitting.seeds import seeds
from isodepth.fitting.solver import minimise
from isodepth.laws import Array, Integers

_ROUGH_STEPS = 60
_LEADERS = 8
_RESTARTS = 8
MANY = 4000  # runs from which on searches are made with some of them, and refits are one step
_THINNED = 2000
_SAME = 1e-6  # relative difference of objectives up to which two starts found the same optimum


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The best optimum found from many starts."""

    theta: Array  # (p,)
    objective: float  # summed over runs
    converged: bool
    gradient_norm: float  # ‖∇F‖₂ in θ
    n_starts: int
    n_starts_agreeing: int  # starts that ended within 1e-6 (relative) of the best objective
    starts: Array  # (K, p) the seeds, best first: where a resample that fails starts again


def estimate(problem: Problem, starts: Array | None = None) -> Estimate:
    """Seed densely, polish every seed on the exact objective, keep the best.

    starts (K, p): seeds known from a nearly equal problem (another estimator or count).
    Of thousands of runs the search is made with 2,000 that are spread over r, tokens and size, and
    its optimum polished with all.
    """
    if problem.n > MANY:
        return _polished(problem, estimate(problem.only(spread_rows(problem)), starts))
    if starts is None:
        starts = seeds(problem)
    batch = problem.batch()
    rough = minimise(batch, starts, max_steps=_ROUGH_STEPS)
    # only the leaders are worth the many steps that a start in a long valley takes
    leaders = np.argsort(rough.objective, kind="stable")[:_LEADERS]
    found = minimise(batch, rough.theta[leaders])
    objectives = np.append(np.delete(rough.objective, leaders), found.objective)
    best = int(np.argmin(found.objective))
    agreeing = objectives <= found.objective[best] * (1.0 + _SAME) + 1e-18
    return Estimate(
        theta=found.theta[best],
        objective=float(found.objective[best]),
        converged=bool(found.converged[best]),
        gradient_norm=float(found.gradient_norm[best]),
        n_starts=len(starts),
        n_starts_agreeing=int(agreeing.sum()),
        starts=starts,
    )


def spread_rows(problem: Problem) -> Integers:
    """2,000 rows, evenly spaced in the order of r, tokens and size."""
    size = problem.design.n_once + problem.design.n_rec
    order = np.lexsort((size, problem.design.log_tokens, problem.frame["recurrences"]))
    return np.sort(order[np.linspace(0, problem.n - 1, _THINNED).astype(int)])


def _polished(problem: Problem, rough: Estimate) -> Estimate:
    """The optimum of all runs from that of some of them, and how the search for that went."""
    found = minimise(problem.batch(), rough.theta[None])
    return replace(
        rough,
        theta=found.theta[0],
        objective=float(found.objective[0]),
        converged=bool(found.converged[0]),
        gradient_norm=float(found.gradient_norm[0]),
    )


def refit(
    problem: Problem,
    around: Estimate,
    *,
    weights: Array | None = None,
    log_loss: Array | None = None,
    start: Array | None = None,
) -> Array:
    """θ (K, p) of a fitted problem with its runs reweighted, or with other log losses, (K, n).

    All start at the estimate, or each at its own `start` (K, p), and advance together; those that
    don't converge start again from the estimate's best seeds.
    """
    if start is None:
        count = next(len(one) for one in (weights, log_loss) if one is not None)
        start = np.repeat(around.theta[None], count, axis=0)
    found = minimise(problem.batch(log_loss), start, weights)
    theta = found.theta
    for k in np.flatnonzero(~found.converged):
        again = minimise(
            problem.batch(None if log_loss is None else log_loss[k]),
            around.starts[:_RESTARTS],
            None if weights is None else weights[k],
        )
        best = int(np.argmin(again.objective))
        if again.objective[best] < found.objective[k]:
            theta[k] = again.theta[best]
    return theta

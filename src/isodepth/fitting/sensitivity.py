"""φ under other choices: every law, estimator and counting, and looped arms that may differ.

Looped arms that differ from unlooped ones at every r have that written down as worth, by a law with
m(1) = 1. So each law is fitted with one constant for them too, κ on their tokens or δ nats on their
loss, and the constant is tested by least squares with the error structures of `fitting/errors.py`:
runs of one (recipe, r, budget) group share noise, and cells of one r along budgets where the
residuals ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from isodepth.counting import COUNTINGS, why_not_regressed
from isodepth.fitting.estimate import Estimate, estimate
from isodepth.fitting.identify import CONSTANTS, Identified, identify
from isodepth.fitting.problem import Conventions, Estimator, Problem
from isodepth.fitting.result import Interval
from isodepth.fitting.uncertainty import Resampling, errors_of, resample
from isodepth.laws import ARMS_DIFFER, LAWS, ArmsDiffer, Array, LawName
from isodepth.warned import Warned

_RESAMPLES = 200
_STARTS = 5  # besides the optimum of the same law under the first conventions
_TELLS = 0.05  # p-value below which a constant is named, two having been tried


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """φ under one combination of law, estimator, counting convention and constant."""

    law: LawName
    estimator: str
    count_injection: str
    arms_differ: ArmsDiffer
    phi: float | None
    ci95: Interval | None
    tokens_ratio: float | None  # κ, where arms differ by it and the runs can tell
    loss_offset: float | None  # δ, nats per token, likewise
    # of no such constant, by least squares with grouped errors; under the fit's own estimator and
    # counting only
    p_value: float | None


def sensitivity_of(
    problem: Problem, best: Estimate, known: Identified, seed: int, unit: Resampling | None
) -> list[Alternative]:
    """φ under every law × estimator × counting convention that these runs allow, r^φ throughout.

    After them, under the fit's own estimator and counting, both laws with looped arms that differ
    in another way than the fit's own; their intervals are by error structures, without resamples.
    """
    if not problem.eta_names or (problem.multiplicity.name == "power" and "phi" not in known.names):
        return []
    found = []
    arms = problem.law.arms_differ
    starts: dict[str, Array] = {}  # by law; θ under the fit's own arms
    draws: dict[str, Array] = {}
    for conventions in _choices(problem):
        law = conventions.law
        if conventions == problem.conventions:
            other, around = problem, best
        else:
            other = problem.with_conventions(conventions)
            around = estimate(other, _placed(starts.get(law), arms, other))
        if law not in starts:
            starts[law] = np.vstack([around.theta, around.starts[:_STARTS]])
        identified = identify(other, around.theta)
        at = other.theta_names.index("phi")
        value, ci95 = None, None
        if "phi" in identified.names:
            value = float(around.theta[at])
            if unit is not None and other.law.arms_differ != arms:
                errors, influence = errors_of(other, around)  # as the p-value of the constant has
                ci95 = errors.interval(value, influence[at])
            elif unit is not None:
                # one seed draws the same everywhere: their last refits are near
                drawn = resample(other, around, _RESAMPLES, seed, unit, draws.get(law))
                draws[law] = drawn.theta
                ci95 = drawn.interval(value, drawn.theta[:, at])
        raw = other.law.raw(around.theta[None], other.design)
        constants = {name: float(raw[name][0]) for name in raw if name in identified.names}
        own = _same_runs(conventions, problem.conventions)
        found.append(
            Alternative(
                law=conventions.law,
                estimator=conventions.estimator,
                count_injection=conventions.count_injection,
                arms_differ=conventions.arms_differ,
                phi=value,
                ci95=ci95,
                tokens_ratio=constants.get("tokens_ratio"),
                loss_offset=constants.get("loss_offset"),
                p_value=_no_constant(other, around, identified) if own else None,
            )
        )
    return found


def arms_warnings(conventions: Conventions, rows: Sequence[Alternative]) -> list[Warned]:
    """Says by which constant looped arms differ from unlooped ones, where the fit allows none."""
    if conventions.arms_differ != "none":
        return []

    def of(law: LawName, arms: ArmsDiffer) -> Alternative | None:
        same = (a for a in rows if (a.law, a.arms_differ) == (law, arms) and a.p_value is not None)
        return next(same, None)

    tried = [a for arms in CONSTANTS if (a := of(conventions.law, arms)) is not None]
    if not tried:
        return []
    best = min(tried, key=lambda a: a.p_value or 0.0)
    p_value = min(1.0, len(CONSTANTS) * (best.p_value or 0.0))
    if p_value >= _TELLS:
        return []
    others = [a for law in LAWS if law != conventions.law and (a := of(law, best.arms_differ))]
    also = "".join(f"; under the {a.law} law {_constant(a)}, {_phi(a)}" for a in others)
    return [
        Warned(
            "arms_differ",
            f"by the {best.law} law looped runs differ from unlooped ones in more than r passes: "
            f"it does better with {_meaning(best)} (p = {p_value:.1g}, two constants tried, errors "
            f"shared within groups and along r), which leaves {_phi(best)}{also}; see "
            f"--arms-differ {best.arms_differ}",
        )
    ]


def _meaning(a: Alternative) -> str:
    if a.arms_differ == "tokens":
        return f"their tokens counted {_constant(a)} times"
    return f"{_constant(a)} nats added to their loss"


def _constant(a: Alternative) -> str:
    if a.tokens_ratio is not None:
        return f"κ = {a.tokens_ratio:.3f}"
    return f"δ = {a.loss_offset:+.4f}"


def _phi(a: Alternative) -> str:
    return "φ not identified" if a.phi is None else f"φ = {a.phi:.3f}"


def _choices(problem: Problem) -> Iterator[Conventions]:
    own = replace(problem.conventions, multiplicity="power")
    estimators: tuple[Estimator, ...] = get_args(Estimator)
    for law in LAWS:
        for estimator in estimators:
            for counting in COUNTINGS:
                if counting == "regressed" and why_not_regressed(problem.frame):
                    continue
                yield replace(own, law=law, estimator=estimator, count_injection=counting)
    levels = np.unique(problem.frame["recurrences"])
    if levels[0] > 1 or levels.size < 3:  # what looped arms share can't be told (`identify`)
        return
    for arms_differ in ARMS_DIFFER:
        if arms_differ != own.arms_differ:
            for law in LAWS:
                yield replace(own, law=law, arms_differ=arms_differ)


def _placed(theta: Array | None, arms: ArmsDiffer, problem: Problem) -> Array | None:
    """θ (K, p) of the same law, its arms differing by `arms`, as starts of a problem."""
    if theta is None or problem.law.arms_differ == arms:
        return theta
    shape, q = len(LAWS[problem.law.name].shape), len(problem.eta_names)
    constant = np.zeros((len(theta), int(problem.law.arms_differ != "none")))
    return np.hstack([theta[:, :shape], constant, theta[:, theta.shape[1] - q :]])


def _same_runs(one: Conventions, other: Conventions) -> bool:
    """Whether two conventions count and weigh the runs alike."""
    return (one.estimator, one.count_injection) == (other.estimator, other.count_injection)


def _no_constant(problem: Problem, around: Estimate, known: Identified) -> float | None:
    """p-value of looped arms that differ by no constant; None where there is none to be told."""
    name = CONSTANTS.get(problem.law.arms_differ)
    if name not in known.names or problem.n <= around.theta.size:
        return None
    if problem.conventions.estimator != "lsq":
        problem = problem.with_conventions(replace(problem.conventions, estimator="lsq"))
        around = estimate(problem, np.vstack([around.theta, around.starts[:_STARTS]]))
    errors, influence = errors_of(problem, around)
    at = len(problem.law.shape) - 1
    return errors.p_value(around.theta[at : at + 1], influence[at : at + 1])

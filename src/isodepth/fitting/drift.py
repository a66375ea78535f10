"""φ against the budget: does what a recurrence is worth change with the scale?

The law with m(r) = r^(φ + φ′·log₁₀(C/C₀)), C the training FLOPs of a run's budget and C₀ their
geometric mean: log m stays linear in its parameters, so that it is fitted as every law is. A
straight line in log C is the least that lets φ change; that it goes on beyond the runs' budgets is
a supposition.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from isodepth.errors import InputError
from isodepth.fitting.estimate import Estimate, estimate
from isodepth.fitting.identify import identify
from isodepth.fitting.problem import Problem
from isodepth.fitting.uncertainty import Resamples, resample
from isodepth.laws import Array
from isodepth.warned import Warned, to_json

Interval = tuple[float, float]
_PHI, _DRIFT = "phi", "phi_per_decade"
_MUCH_WIDER = 2.0  # an interval with drift over that without, from which on a reader must know


@dataclass(frozen=True, kw_only=True)
class AtBudget:
    """φ at one budget."""

    budget_flops: float  # training FLOPs of a run
    decades_beyond: float  # log₁₀ of its distance from the nearest budget of the runs; 0: inside
    phi: float  # where φ may drift
    ci95: Interval | None
    constant_phi: float  # where it may not: the fit's own φ
    constant_ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """φ as a straight line in the logarithm of the budget."""

    center_flops: float  # C₀, training FLOPs
    per_decade: float | None  # change of φ for ten times the budget; None: the runs can't tell
    per_decade_ci95: Interval | None
    at: tuple[AtBudget, ...]  # where it was asked for; none where the runs can't tell
    warnings: tuple[Warned, ...]

    def to_dict(self) -> dict[str, Any]:
        """What `fit --json` holds under `drift`."""
        return asdict(self) | to_json(self.warnings)


def drift(
    problem: Problem,
    fitted: Estimate,
    constant: Resamples | None,
    budgets: tuple[float, ...],
    seed: int,
) -> Drift:
    """φ at `budgets`, training FLOPs of a run, with and without drift.

    fitted, constant: the problem's optimum and its resamples without drift; the fit with drift gets
    as many resamples, drawn in the same way.
    Raises InputError for a problem without φ or FLOPs, or a budget that isn't positive.
    """
    _check(problem, budgets)
    assert problem.budgets is not None
    decades = np.log10(problem.budgets)
    center = float(decades.mean())
    drifting = replace(
        problem,
        design=replace(
            problem.design, z=problem.design.z * np.stack([np.ones(problem.n), decades - center])
        ),
        eta_names=(_PHI, _DRIFT),
    )
    looped = problem.frame["recurrences"].to_numpy() > 1
    if np.unique(decades[looped]).size < 2:
        return _untold(center, "all runs at r > 1 have one FLOP budget")
    found = estimate(drifting)
    known = identify(drifting, found.theta)
    for name in (_DRIFT, _PHI):
        if name in known.missing:
            return _untold(center, known.missing[name])
    draws = None
    if constant is not None:
        draws = resample(drifting, found, len(constant.theta), seed, constant.unit)
    phi, slope = (drifting.theta_names.index(name) for name in (_PHI, _DRIFT))
    same = problem.theta_names.index(_PHI)
    at = []
    for budget in budgets:
        decade = float(np.log10(budget))
        along = np.zeros(found.theta.size)
        along[[phi, slope]] = 1.0, decade - center
        alone = np.zeros(fitted.theta.size)
        alone[same] = 1.0
        at.append(
            AtBudget(
                budget_flops=budget,
                decades_beyond=float(max(0.0, decade - decades.max(), decades.min() - decade)),
                phi=float(found.theta @ along),
                ci95=_interval(draws, found.theta, along),
                constant_phi=float(fitted.theta[same]),
                constant_ci95=_interval(constant, fitted.theta, alone),
            )
        )
    line = np.zeros(found.theta.size)
    line[slope] = 1.0
    per_decade, ci95 = float(found.theta[slope]), _interval(draws, found.theta, line)
    return Drift(
        center_flops=10**center,
        per_decade=per_decade,
        per_decade_ci95=ci95,
        at=tuple(at),
        warnings=tuple(_warnings(per_decade, ci95, at)),
    )


def _check(problem: Problem, budgets: tuple[float, ...]) -> None:
    if problem.eta_names != (_PHI,):
        raise InputError(
            "a drift is one of φ: it needs runs at r = 1 and r > 1, and --multiplicity power"
        )
    if problem.budgets is None:
        raise InputError(
            "a drift is one with the budget: the runs need a column budget_flops, flops or "
            "flops_per_token"
        )
    if not all(np.isfinite(budget) and budget > 0 for budget in budgets):
        raise InputError("a budget must be a positive number of training FLOPs")


def _untold(center: float, why: str) -> Drift:
    said = Warned("drift_not_identified", f"whether φ drifts with the budget can't be told: {why}")
    return Drift(
        center_flops=10**center, per_decade=None, per_decade_ci95=None, at=(), warnings=(said,)
    )


def _interval(resamples: Resamples | None, theta: Array, along: Array) -> Interval | None:
    """95% interval of θ·along."""
    if resamples is None:
        return None
    return resamples.interval(float(theta @ along), resamples.theta @ along)


def _warnings(per_decade: float, ci95: Interval | None, at: list[AtBudget]) -> list[Warned]:
    if ci95 is None:
        return []
    if not ci95[0] <= 0.0 <= ci95[1]:
        return [
            Warned(
                "phi_drifts",
                f"φ drifts with the budget, by {per_decade:+.3f} [{ci95[0]:+.3f}, {ci95[1]:+.3f}] "
                "for ten times the FLOPs: one φ for all of them is an average",
            )
        ]
    worst = max(at, key=lambda one: _half(one.ci95))
    free, fixed = _half(worst.ci95), _half(worst.constant_ci95)
    if free <= _MUCH_WIDER * fixed:
        return []
    return [
        Warned(
            "drift_open",
            f"drift of φ with the budget can't be told from noise: at {worst.budget_flops:.3g} "
            f"FLOPs φ = {worst.constant_phi:.3f} ± {fixed:.3f} if it does not drift, "
            f"{worst.phi:.3f} ± {free:.3f} if it may",
        )
    ]


def _half(interval: Interval | None) -> float:
    return 0.0 if interval is None else (interval[1] - interval[0]) / 2

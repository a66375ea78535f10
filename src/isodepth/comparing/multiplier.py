"""Compute multipliers: what compute the baseline needs for the loss that a recipe reaches.

    CM(C) = C_baseline(L_recipe(C)) / C,

both on the compute-optimal frontier of one r: L(C) the least loss for C training FLOPs, C(L) its
inverse. 1.2 says that the recipe saves a sixth of the baseline's compute; below 1 it costs some.

By the laws of the two recipes, with intervals from the same resamples; and as measured, from the
parabola minima of iso-FLOP groups (`minima.py`), the baseline's joined by straight lines in
log–log and never read beyond them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from isodepth.comparing.arms import Arm, Setting
from isodepth.comparing.pair import Pair, Sides
from isodepth.fitting.problem import Problem
from isodepth.fitting.result import FittedLaw
from isodepth.fitting.twins import Value
from isodepth.laws import Array
from isodepth.minima import Group

_DRAWS = 200  # resamples that the frontiers are drawn for
_REACH = 30.0  # times the budgets run, how far the baseline's frontier is followed
_POINTS = 25
_TOLD = 0.9  # share of the resamples that must cross for an interval of the crossing


@dataclass(frozen=True, kw_only=True)
class At:
    """The multiplier at one budget."""

    budget_flops: float  # C, of the recipe
    by_law: Value | None  # None: the frontier is followed 30 times beyond the runs at most
    beyond: bool  # the baseline's compute lies outside the budgets that it was run at
    measured: Value | None  # None: no minimum there, or beyond the baseline's


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """CM over compute at one r, and where it is 1."""

    recurrences: int
    at: tuple[At, ...]
    per_decade: Value | None  # ratio of CM for ten times the compute
    crossing_flops: Value | None  # C where CM is 1, within the budgets run; None: nowhere there


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """A parameter of the recipe's law less the baseline's."""

    name: str
    difference: Value


def multipliers(
    pair: Pair, sides: Sides, measured: tuple[Group, ...]
) -> tuple[tuple[Multiplier, ...], tuple[Exponent, ...]]:
    """At every r that the recipe was run at itself, and the exponents' differences.

    sides: by a law for each recipe (`separate`), with resamples. measured: minima of both recipes.
    () where a φ isn't identified, the runs carry no budgets, or there are no resamples.
    """
    drawn = sides.recipe.resamples
    budgets = pair.recipe.budgets
    if sides.method != "separate" or sides.missing or drawn is None or budgets is None:
        return (), ()
    if pair.baseline.budgets is None:
        return (), ()
    own = (pair.recipe.frame["recipe"] == pair.own_name).to_numpy()
    r_own = pair.recipe.frame["recurrences"].to_numpy()[own]
    r_base = pair.baseline.frame["recurrences"].to_numpy()
    found = []
    for r in np.intersect1d(r_own, r_base):
        at = np.unique(budgets[own][r_own == r])
        there = np.unique(pair.baseline.budgets[r_base == r])
        if at.size < 2 or there.size < 2:
            continue
        found.append(_multiplier(pair, sides, int(r), at, there, measured))
    return tuple(found), _exponents(sides)


def _multiplier(
    pair: Pair, sides: Sides, r: int, budgets: Array, there: Array, measured: tuple[Group, ...]
) -> Multiplier:
    resamples = sides.recipe.resamples
    assert resamples is not None
    wide = np.geomspace(there[0] / _REACH, there[-1] * _REACH, _POINTS)
    base = _frontier(sides.baseline, pair.baseline, r, wide)
    ours = _frontier(sides.recipe, pair.recipe, r, budgets)
    log_cm = _inverse(np.log(wide), base, ours) - np.log(budgets)  # (1 + B, m)
    plain = _measured(measured, pair, r)

    def value(row: Array, *, log: bool = False) -> Value | None:
        if not np.isfinite(row[0]) or np.isfinite(row[1:]).mean() < _TOLD:
            return None
        low, high = resamples.interval(float(row[0]), row[1:][np.isfinite(row[1:])])
        ends = np.exp([row[0], low, high]) if log else np.array([row[0], low, high])
        return Value(value=float(ends[0]), ci95=(float(ends[1]), float(ends[2])))

    points = []
    for i, budget in enumerate(budgets):
        equal = float(budget * np.exp(log_cm[0, i]))
        points.append(
            At(
                budget_flops=float(budget),
                by_law=value(log_cm[:, i], log=True),
                beyond=not there[0] * 0.99 <= equal <= there[-1] * 1.01,
                measured=plain.get(float(budget)),
            )
        )
    decades = np.log10(budgets / budgets[0])
    slope = (log_cm[:, -1] - log_cm[:, 0]) / decades[-1]
    return Multiplier(
        recurrences=r,
        at=tuple(points),
        per_decade=value(slope, log=True),
        crossing_flops=value(_crossing(np.log(budgets), log_cm), log=True),
    )


def _frontier(law: FittedLaw, problem: Problem, r: int, budgets: Array) -> Array:
    """Least loss (1 + B, m) [nats] for budgets (m,), at the law's optimum and its resamples."""
    arm = Arm.of(problem, r)
    theta = law.theta[None]
    if law.resamples is not None:
        theta = np.vstack([theta, law.resamples.theta[:_DRAWS]])
    setting = Setting(cost=arm, counts=arm, law=law, theta=theta, change=None)
    return np.stack([setting.optimum(float(budget))[1] for budget in budgets], axis=1)


def _inverse(log_budgets: Array, frontier: Array, losses: Array) -> Array:
    """log compute (K, m) at which frontiers (K, n) reach losses (K, m); NaN beyond their ends."""
    return np.stack(
        [
            np.interp(-np.log(loss), -np.log(curve), log_budgets, left=np.nan, right=np.nan)
            for curve, loss in zip(frontier, losses, strict=True)
        ]
    )


def _crossing(x: Array, y: Array) -> Array:
    """Where lines through (x (m,), y (K, m)) first pass 0: (K,), NaN where they don't."""
    found = np.full(len(y), np.nan)
    for k, row in enumerate(y):
        at = np.flatnonzero(np.sign(row[:-1]) * np.sign(row[1:]) < 0)
        if at.size:
            i = at[0]
            found[k] = x[i] - row[i] * (x[i + 1] - x[i]) / (row[i + 1] - row[i])
    return found


def _measured(groups: tuple[Group, ...], pair: Pair, r: int) -> dict[float, Value]:
    """CM by budget from measured minima, whose noise both sides carry."""
    base_name = str(pair.baseline.frame["recipe"].iloc[0])
    ours = [g for g in groups if g.recipe == pair.own_name and g.recurrences == r]
    base = sorted(
        (g for g in groups if g.recipe == base_name and g.recurrences == r and g.loss_min),
        key=lambda g: g.budget_flops,
    )
    if len(base) < 2:
        return {}
    x = np.log([g.budget_flops for g in base])
    y = np.log([g.loss_min or np.nan for g in base])
    error = np.array([_error(g) for g in base])
    found = {}
    for g in ours:
        if not g.loss_min or not y[-1] <= np.log(g.loss_min) <= y[0]:
            continue  # never beyond the baseline's
        level = float(np.log(g.loss_min))
        i = int(np.clip(np.searchsorted(-y, -level) - 1, 0, len(base) - 2))
        share = (level - y[i]) / (y[i + 1] - y[i])
        slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
        value = x[i] + share * (x[i + 1] - x[i]) - np.log(g.budget_flops)
        noise = np.hypot(_error(g), np.hypot((1 - share) * error[i], share * error[i + 1]))
        half = float(stats.norm.ppf(0.975) * noise / abs(slope))
        low, at, high = np.exp([value - half, value, value + half])
        found[g.budget_flops] = Value(value=float(at), ci95=(float(low), float(high)))
    return found


def _error(group: Group) -> float:
    """Standard error of a minimum's log loss; infinite where the groups tell no noise."""
    if group.loss_min_ci95 is None or group.loss_min is None:
        return float("inf")
    low, high = group.loss_min_ci95
    return (high - low) / 2 / float(stats.norm.ppf(0.975)) / group.loss_min


def _exponents(sides: Sides) -> tuple[Exponent, ...]:
    """Every parameter of the recipe's law less the baseline's, but φ."""
    drawn = sides.recipe.resamples
    assert drawn is not None and sides.baseline.resamples is not None
    first, second = (
        law.form.raw(
            np.vstack([law.theta, law.resamples.theta if law.resamples else law.theta]),
            law.design(*(np.ones(1),) * 4),
        )
        for law in (sides.baseline, sides.recipe)
    )
    found = []
    for name in first:
        difference = second[name] - first[name]
        value = float(difference[0])
        found.append(
            Exponent(
                name=name,
                difference=Value(value=value, ci95=drawn.interval(value, difference[1:])),
            )
        )
    return tuple(found)

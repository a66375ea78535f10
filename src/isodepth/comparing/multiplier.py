"""Compute multipliers: what compute the baseline needs for the loss that a recipe reaches.

    CM(C) = C_baseline(L_recipe(C)) / C,

both on the compute-optimal frontier of one r: L(C) the least loss for C training FLOPs, C(L) its
inverse. 1.2 says that the recipe saves a sixth of the baseline's compute; below 1 it costs some.

By the laws of the two recipes, with intervals from the same resamples; and as measured, from the
parabola minima of iso-FLOP groups (`minima.py`), the baseline's joined by straight lines in
log–log and never read beyond them. The same of one recipe's r against its r = 1 is what looping
costs in compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isodepth.comparing.arms import Arm, Setting
from isodepth.comparing.pair import Pair, Sides
from isodepth.fitting.problem import Problem
from isodepth.fitting.result import FittedLaw
from isodepth.fitting.twins import Value
from isodepth.fitting.uncertainty import Resamples
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


@dataclass(frozen=True, kw_only=True)
class Looping:
    """What looping costs in compute: r against r = 1 of the same recipe."""

    baseline: tuple[Multiplier, ...]
    recipe: tuple[Multiplier, ...]  # () where its unlooped runs are borrowed


@dataclass(frozen=True, kw_only=True)
class _Side:
    """The runs of one r, with the law that they follow and their iso-FLOP minima; none untied."""

    law: FittedLaw
    problem: Problem
    recipe: str
    r: int
    minima: tuple[Group, ...]  # of any recipe and r

    @property
    def budgets(self) -> Array:
        """Budgets [FLOPs] that the recipe was run at, in order."""
        assert self.problem.budgets is not None
        frame = self.problem.frame
        own = (frame["recipe"] == self.recipe) & (frame["recurrences"] == self.r)
        return np.unique(self.problem.budgets[own.to_numpy()])

    @property
    def own_minima(self) -> list[Group]:
        """By budget, of those that have one, and noise."""
        own = (
            g
            for g in self.minima
            if (g.recipe, g.recurrences, g.graph_recurrences) == (self.recipe, self.r, self.r)
        )
        return sorted((g for g in own if g.loss_min_ci95), key=lambda g: g.budget_flops)


def multipliers(
    pair: Pair, sides: Sides, measured: tuple[Group, ...]
) -> tuple[tuple[Multiplier, ...], Looping | None, tuple[Exponent, ...]]:
    """The recipe against the baseline at every r that it was run at itself; what looping costs
    either of them; and how the laws' exponents differ.

    sides: by a law for each recipe (`separate`), with resamples. measured: minima of both recipes.
    Nothing where a φ isn't identified, the runs carry no budgets, or there are no resamples.
    """
    drawn = sides.recipe.resamples
    known = pair.recipe.budgets is not None and pair.baseline.budgets is not None
    if sides.method != "separate" or sides.missing or drawn is None or not known:
        return (), None, ()
    base_name = str(pair.baseline.frame["recipe"].iloc[0])
    base, recipe = pair.tied

    def of(name: str, r: float) -> _Side:
        first = name == base_name
        return _Side(
            law=sides.baseline if first else sides.recipe,
            problem=base if first else recipe,
            recipe=name,
            r=int(r),
            minima=measured,
        )

    levels = {}
    for name, problem in ((base_name, base), (pair.own_name, recipe)):
        rows = problem.frame["recipe"] == name
        levels[name] = np.unique(problem.frame["recurrences"][rows])
    shared = np.intersect1d(levels[base_name], levels[pair.own_name])
    against = [_multiplier(of(pair.own_name, r), of(base_name, r), drawn) for r in shared]
    looping = {
        name: tuple(
            found
            for r in own
            if r > 1 and 1 in own and (found := _multiplier(of(name, r), of(name, 1), drawn))
        )
        for name, own in levels.items()
    }
    return (
        tuple(one for one in against if one is not None),
        Looping(baseline=looping[base_name], recipe=looping[pair.own_name]),
        _exponents(sides),
    )


def _multiplier(of: _Side, against: _Side, resamples: Resamples) -> Multiplier | None:
    """None where either has runs at fewer than two budgets."""
    budgets, there = of.budgets, against.budgets
    if budgets.size < 2 or there.size < 2:
        return None
    wide = np.geomspace(there[0] / _REACH, there[-1] * _REACH, _POINTS)
    base, ours = _frontier(against, wide), _frontier(of, budgets)
    log_cm = _inverse(np.log(wide), base, ours) - np.log(budgets)  # (1 + B, m)
    plain = _measured(of, against)

    def value(row: Array) -> Value | None:
        told = row[1:][np.isfinite(row[1:])]
        if not np.isfinite(row[0]) or told.size < _TOLD * (row.size - 1):
            return None
        low, high = resamples.interval(float(row[0]), told)
        ends = np.exp([row[0], low, high])
        return Value(value=float(ends[0]), ci95=(float(ends[1]), float(ends[2])))

    points = []
    for i, budget in enumerate(budgets):
        equal = float(budget * np.exp(log_cm[0, i]))
        points.append(
            At(
                budget_flops=float(budget),
                by_law=value(log_cm[:, i]),
                beyond=not there[0] * 0.99 <= equal <= there[-1] * 1.01,
                measured=plain.get(float(budget)),
            )
        )
    decades = np.log10(budgets / budgets[0])
    return Multiplier(
        recurrences=of.r,
        at=tuple(points),
        per_decade=value((log_cm[:, -1] - log_cm[:, 0]) / decades[-1]),
        crossing_flops=value(_crossing(np.log(budgets), log_cm)),
    )


def _frontier(side: _Side, budgets: Array) -> Array:
    """Least loss (1 + B, m) [nats] for budgets (m,), at the law's optimum and its resamples."""
    arm, law = Arm.of(side.problem, side.r), side.law
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


def _measured(of: _Side, against: _Side) -> dict[float, Value]:
    """CM by budget from measured minima, whose noise both sides carry."""
    ours, base = of.own_minima, against.own_minima
    if len(base) < 2:
        return {}
    x = np.log([g.budget_flops for g in base])
    y = np.log([g.loss_min or np.nan for g in base])
    if not (np.diff(y) < 0).all():
        return {}  # a minimum that rises with compute has no inverse
    error = np.array([_error(g) for g in base])
    found = {}
    for g in ours:
        level = float(np.log(g.loss_min or np.nan))
        if not y[-1] <= level <= y[0]:
            continue  # never beyond the baseline's
        i = int(np.clip(np.searchsorted(-y, -level) - 1, 0, len(base) - 2))
        share = (level - y[i]) / (y[i + 1] - y[i])
        slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
        value = x[i] + share * (x[i + 1] - x[i]) - np.log(g.budget_flops)
        noise = np.hypot(_error(g), np.hypot((1 - share) * error[i], share * error[i + 1]))
        half = float(noise / abs(slope))
        low, at, high = np.exp([value - half, value, value + half])
        found[g.budget_flops] = Value(value=float(at), ci95=(float(low), float(high)))
    return found


def _error(group: Group) -> float:
    """Half the 95% interval of a minimum's log loss."""
    assert group.loss_min_ci95 is not None and group.loss_min is not None
    low, high = group.loss_min_ci95
    return (high - low) / 2 / group.loss_min


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

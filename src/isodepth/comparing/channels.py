"""The split of a loss change at equal compute: tokens, capacity, and the rest of the law.

Three switches turn the baseline into the recipe, at one budget and one r:

    token_budget   what a token costs, and so how many tokens the budget buys
    capacity       φ
    other          the rest of the law (E, A, α, B, β[, γ]) and the injection's parameters

V(S) is the loss with the switches S set to the recipe's side, the others to the baseline's. A
switch's share is its Shapley value (Shapley 1953): its effect averaged over the six orders in which
the three can be thrown. The shares add up to V(all) − V(none), the loss change, exactly.
Worked example: docs/channels.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np

from isodepth.comparing.arms import Arm, Setting, at_size
from isodepth.comparing.pair import Pair, Sides
from isodepth.fitting.result import FittedLaw, Interval
from isodepth.laws import Array

CHANNELS = ("token_budget", "capacity", "other")
Switches = tuple[bool, bool, bool]
_SIDES = (False, True)
_SETTINGS: list[Switches] = [(t, c, o) for t in _SIDES for c in _SIDES for o in _SIDES]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A loss change and its three shares, nats per token; negative is better than the baseline."""

    delta_loss: float
    token_budget: float
    capacity: float
    other: float
    ci95: dict[str, Interval | None]  # of each of the four


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """A compute-optimal model as the law sees it."""

    params: float  # unique non-embedding parameters
    params_ci95: Interval | None
    log_size: float  # log(n_once + n_rec)
    log_size_ci95: Interval | None
    tokens: float
    loss: float  # nats per token
    beyond: bool  # the optimum lies outside the sizes that were run at this r


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Where the loss change of one (budget, r) comes from."""

    budget_flops: float  # FLOPs
    recurrences: int
    baseline: Optimum
    recipe: Optimum
    optimal: Split  # each model at its own compute-optimal size
    equal_size: Split  # both at the baseline's compute-optimal size


def shapley(value: Callable[[Switches], Array]) -> Array:
    """Shares (3, K) of V(all) − V(none) from V at each of the eight settings of the switches."""
    at = {s: value(s) for s in _SETTINGS}
    shares = []
    for i in range(3):
        share = np.zeros_like(at[False, False, False])
        for s in at:
            if s[i]:
                continue
            thrown = sum(s)
            on = (s[0] or i == 0, s[1] or i == 1, s[2] or i == 2)
            weight = factorial(thrown) * factorial(2 - thrown) / factorial(3)
            share = share + weight * (at[on] - at[s])
        shares.append(share)
    return np.array(shares)


def channels_of(pair: Pair, sides: Sides) -> tuple[Channel, ...]:
    """Every (budget, r) at which both recipes were run; () where the runs carry no budget."""
    own = pair.recipe.frame["recipe"] == pair.own_name
    budgets = pair.recipe.budgets
    if budgets is None or pair.baseline.budgets is None:
        return ()
    looped = pair.recipe.frame["recurrences"][own]
    levels = sorted({int(r) for r in looped} & {int(r) for r in pair.baseline.frame["recurrences"]})
    shared = sorted({float(b) for b in budgets[own]} & {float(b) for b in pair.baseline.budgets})
    found = []
    for r in levels:
        arms = Arm.of(pair.baseline, r), Arm.of(pair.recipe, r)
        found += [_channel(arms, sides, budget, r) for budget in shared]
    return tuple(sorted(found, key=lambda c: (c.budget_flops, c.recurrences)))


def _channel(arms: tuple[Arm, Arm], sides: Sides, budget: float, r: int) -> Channel:
    laws = (sides.baseline, sides.recipe)
    thetas = [_all(law) for law in laws]
    settings: dict[Switches, Setting] = {}
    for s in _SETTINGS:
        cost, capacity, other = s
        theta = thetas[other].copy()
        theta[:, -1] = thetas[capacity][:, -1]
        settings[s] = Setting(cost=arms[cost], counts=arms[other], law=laws[other], theta=theta)
    optima = {s: setting.optimum(budget) for s, setting in settings.items()}
    none, every = (False, False, False), (True, True, True)
    size = np.array([optima[none][0][0]])

    def equal(s: Switches) -> Array:
        return np.exp(settings[s].log_loss(size, budget)[:, 0])

    return Channel(
        budget_flops=budget,
        recurrences=r,
        baseline=_optimum(arms[0], laws[0], *optima[none], budget),
        recipe=_optimum(arms[1], laws[1], *optima[every], budget),
        optimal=_split(shapley(lambda s: optima[s][1]), laws[0]),
        equal_size=_split(shapley(equal), laws[0]),
    )


def _all(law: FittedLaw) -> Array:
    """θ (1 + B, p): the optimum and the resamples."""
    return law.theta[None] if law.resamples is None else np.vstack([law.theta, law.resamples.theta])


def _split(shares: Array, law: FittedLaw) -> Split:
    """From shares (3, 1 + B)."""
    rows = dict(zip(CHANNELS, shares, strict=True)) | {"delta_loss": shares.sum(axis=0)}
    drawn = law.resamples
    ci95 = {
        name: None if drawn is None else drawn.interval(float(row[0]), row[1:])
        for name, row in rows.items()
    }
    return Split(**{name: float(row[0]) for name, row in rows.items()}, ci95=ci95)


def _optimum(arm: Arm, law: FittedLaw, x: Array, loss: Array, budget: float) -> Optimum:
    params = np.exp(x) + at_size(arm.n_inject, x)
    drawn = law.resamples
    return Optimum(
        params=float(params[0]),
        params_ci95=None
        if drawn is None
        else drawn.interval(float(params[0]), params[1:], log=True),
        log_size=float(x[0]),
        log_size_ci95=None if drawn is None else drawn.interval(float(x[0]), x[1:]),
        tokens=float(budget / at_size(arm.flops_per_token, x[:1])[0]),
        loss=float(loss[0]),
        beyond=bool(not arm.lowest <= x[0] <= arm.highest),
    )

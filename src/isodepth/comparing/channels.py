"""The split of a loss change at equal compute: tokens, capacity, and the rest.

Three switches turn the baseline into the recipe, at one budget and one r, as the form that holds at
equal r says it (`comparing/forms.py`), on the baseline's law:

    token_budget   what a token costs, and so how many tokens the budget buys
    capacity       φ
    other          what else the form changes (tokens that count more, a loss added, …), and the
                   injection's parameters

V(S) is the loss with the switches S set to the recipe's side, the others to the baseline's. A
switch's share is its Shapley value (Shapley 1953): its effect averaged over the six orders in which
the three can be thrown. The shares add up to V(all) − V(none), the loss change, exactly. Where the
form leaves Δφ open, capacity and other can't be told apart and stand together.
Worked example: docs/channels.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np

from isodepth.comparing.arms import Arm, Change, Setting, at_size
from isodepth.comparing.pair import Pair
from isodepth.fitting.result import FittedLaw, Interval
from isodepth.laws import Array

CHANNELS = ("token_budget", "capacity", "other")
Switches = tuple[bool, bool, bool]
_SIDES = (False, True)
_SETTINGS: list[Switches] = [(t, c, o) for t in _SIDES for c in _SIDES for o in _SIDES]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """A loss change and its shares, nats per token; negative is better than the baseline."""

    delta_loss: float
    token_budget: float
    capacity: float | None  # None: not told from `other`
    other: float | None
    capacity_and_other: float
    ci95: dict[str, Interval | None]  # of each of the five


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
    optimal: Shares  # each model at its own compute-optimal size
    equal_size: Shares  # both at the baseline's compute-optimal size


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


def channels_of(pair: Pair, law: FittedLaw, change: Change, *, apart: bool) -> tuple[Channel, ...]:
    """Every (budget, r) at which both recipes were run; () where the runs carry no budget.

    law: the baseline's. change: what the form says, at its optimum and at each resample of the law.
    apart: whether Δφ is identified, so that capacity and other are told apart.
    """
    base, recipe = pair.tied
    own = recipe.frame["recipe"] == pair.own_name
    if recipe.budgets is None or base.budgets is None:
        return ()
    mine = recipe.frame["recurrences"][own]
    levels = sorted({int(r) for r in mine} & {int(r) for r in base.frame["recurrences"]})
    shared = sorted({float(b) for b in recipe.budgets[own]} & {float(b) for b in base.budgets})
    found = []
    for r in levels:
        arms = Arm.of(base, r), Arm.of(recipe, r)
        found += [_channel(arms, law, change, apart, budget, r) for budget in shared]
    return tuple(sorted(found, key=lambda c: (c.budget_flops, c.recurrences)))


def _channel(
    arms: tuple[Arm, Arm], law: FittedLaw, change: Change, apart: bool, budget: float, r: int
) -> Channel:
    theta = _all(law)
    moved = theta.copy()
    moved[:, -1] += change.delta_phi
    settings = {
        s: Setting(
            cost=arms[s[0]],
            counts=arms[s[2]],
            law=law,
            theta=moved if s[1] else theta,
            change=change if s[2] else None,
        )
        for s in _SETTINGS
    }
    optima = {s: setting.optimum(budget) for s, setting in settings.items()}
    none, every = (False, False, False), (True, True, True)
    size = np.array([optima[none][0][0]])

    def equal(s: Switches) -> Array:
        return np.exp(settings[s].log_loss(size, budget)[:, 0])

    return Channel(
        budget_flops=budget,
        recurrences=r,
        baseline=_optimum(arms[0], law, *optima[none], budget),
        recipe=_optimum(arms[1], law, *optima[every], budget),
        optimal=_shares(shapley(lambda s: optima[s][1]), law, apart),
        equal_size=_shares(shapley(equal), law, apart),
    )


def _all(law: FittedLaw) -> Array:
    """θ (1 + B, p): the optimum and the resamples."""
    return law.theta[None] if law.resamples is None else np.vstack([law.theta, law.resamples.theta])


def _shares(shares: Array, law: FittedLaw, apart: bool) -> Shares:
    """From shares (3, 1 + B)."""
    tokens, capacity, other = shares
    rows = {
        "delta_loss": shares.sum(axis=0),
        "token_budget": tokens,
        "capacity": capacity if apart else None,
        "other": other if apart else None,
        "capacity_and_other": capacity + other,
    }
    drawn = law.resamples
    values: dict[str, Any] = {
        name: None if row is None else float(row[0]) for name, row in rows.items()
    }
    return Shares(
        **values,
        ci95={
            name: drawn.interval(float(row[0]), row[1:])
            if drawn is not None and row is not None
            else None
            for name, row in rows.items()
        },
    )


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

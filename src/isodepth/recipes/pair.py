"""Two recipes fitted so that they can be compared: apart, or together under one law.

Both ways resample the (recipe, r, budget) groups of the two recipes once, and refit both recipes to
the same resample; where a φ hangs on one group, the losses' noise is drawn instead, as `fit` does.
What they share, the r = 1 runs above all, moves both and so cancels in Δφ.

* `separate`: each recipe has a law of its own; a recipe without r = 1 runs borrows the baseline's
  (as arXiv 2604.21106 does).
* `joint`: one law, two φ. Every run counts once. With a cost, the recipe's loops are worth
  m(r) = κ·r^φ instead of r^φ: κ < 1 is what looping at all costs, whatever r. It can be told from φ
  only where the recipe was run at two values of r > 1, and φ is then the slope among those alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from isodepth.errors import InputError
from isodepth.fitting.estimate import Estimate, estimate, refit
from isodepth.fitting.identify import identify
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.result import FittedLaw
from isodepth.fitting.uncertainty import (
    Resamples,
    Resampling,
    draw,
    resampling,
    simulated,
    standard_noise,
)
from isodepth.laws import Array, Bools, Integers
from isodepth.runs import Runs

Method = Literal["separate", "joint"]
_PHI = ("phi_baseline", "phi_recipe")
_COST = "log_cost"


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One set of resamples of the runs of two recipes."""

    unit: Resampling  # groups or losses
    values: Array  # (B, runs of `both`): how often each run is drawn, or its standard noise
    n_groups: int  # of runs

    def refit(
        self, problem: Problem, best: Estimate, rows: Integers, start: Array | None = None
    ) -> Array:
        """θ (B, p) of a problem that holds these rows of `both`."""
        drawn = self.values[:, rows]
        if self.unit == "groups":
            return refit(problem, best, weights=drawn, start=start)
        return refit(problem, best, log_loss=simulated(problem, best, drawn), start=start)

    def resamples(self, theta: Array, n_runs: int, n_params: int) -> Resamples:
        """θ (B, q) of refits of n_runs runs with n_params parameters, q of them kept."""
        units = self.n_groups if self.unit == "groups" else n_runs - n_params + theta.shape[1]
        return Resamples(theta=theta, unit=self.unit, n_units=units)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The problems that two recipes pose, and which of their runs are the same."""

    own_name: str  # the recipe's name in the table
    baseline: Problem
    recipe: Problem
    both: Problem  # every run once, under one law; η is (φ of the baseline, φ of the recipe)
    in_baseline: Integers  # rows of `both` that are the baseline's runs, in their order
    in_recipe: Integers
    borrowed: int  # r = 1 runs that the recipe takes from the baseline

    @property
    def n_units(self) -> int:
        """Groups of runs that a resample draws from."""
        return int(self.both.groups.max()) + 1

    def draw(self, n: int, seed: int) -> Draws:
        """n resamples: of groups, or of losses where either recipe's φ hangs on one group."""
        hangs = any(
            resampling(problem, estimate(problem).theta) == "losses"
            for problem in (self.baseline, self.recipe)
        )
        return Draws(
            unit="losses" if hangs else "groups",
            values=standard_noise(self.both.n, n, seed)
            if hangs
            else draw(self.both.groups, n, seed),
            n_groups=self.n_units,
        )

    def with_conventions(self, conventions: Conventions) -> Pair:
        """The same runs under other conventions."""
        return _pair(
            self.own_name,
            self.baseline.with_conventions(conventions),
            self.recipe.with_conventions(conventions),
            self.both.frame,
            self.in_baseline,
            self.in_recipe,
            self.borrowed,
        )

    def with_cost(self) -> Problem | None:
        """The joint problem with κ; None where the recipe has one r > 1 only."""
        own = self._own
        r = self.both.frame["recurrences"].to_numpy(dtype=float)
        looped = own & (r > 1)
        if np.unique(r[looped]).size < 2:
            return None
        z = np.vstack([self.both.design.z, looped.astype(float)])
        return replace(self.both, design=replace(self.both.design, z=z), eta_names=(*_PHI, _COST))

    @property
    def _own(self) -> Bools:
        """Which runs of `both` are the recipe's and not the baseline's."""
        own = np.zeros(self.both.n, dtype=bool)
        own[self.in_recipe] = True
        own[self.in_baseline] = False
        return own


def pair_of(
    runs: Runs, baseline: str, recipe: str, conventions: Conventions, *, all_budgets: bool = False
) -> Pair:
    """The pair that a table holds. all_budgets: borrow r = 1 runs of every budget.

    Raises InputError for recipes that can't be compared.
    """
    for name in (baseline, recipe):
        runs.choose(name)
    if baseline == recipe:
        raise InputError(f"recipe {recipe!r} is the baseline itself: name two different recipes")
    base = _finished(runs.of_recipe(baseline, baseline)[0], baseline, runs)
    rows, lender = runs.of_recipe(recipe, baseline, all_budgets=all_budgets)
    probe = _finished(rows, recipe, runs)
    own = probe[probe["recipe"] == recipe]
    if own.empty:
        raise InputError(f"{runs.source}: recipe {recipe!r} has no finished run to compare")
    for name, frame in ((baseline, base), (recipe, own)):
        if (frame["recurrences"] == 1).all():
            raise InputError(f"recipe {name!r} has no run with r > 1: there is no loop to compare")
    if "budget_flops" in runs.frame:
        shared = set(base["budget_flops"].dropna()) & set(own["budget_flops"].dropna())
        if not shared and runs.frame["budget_flops"].notna().any():
            raise InputError(
                f"{baseline} and {recipe} share no budget_flops, so they were never run at equal "
                "compute"
            )
    both = pd.concat([base, own])
    return _pair(
        recipe,
        build(base, conventions),
        build(probe, conventions),
        both.reset_index(drop=True),
        both.index.get_indexer(base.index).astype(np.int64),
        both.index.get_indexer(probe.index).astype(np.int64),
        0 if lender is None else int((probe["recipe"] == lender).sum()),
    )


def _finished(rows: pd.DataFrame, recipe: str, runs: Runs) -> pd.DataFrame:
    used = rows[rows["status"] == "done"]
    if used.empty:
        raise InputError(f"{runs.source}: recipe {recipe!r} has no finished run to compare")
    return used


def _pair(
    own_name: str,
    baseline: Problem,
    recipe: Problem,
    both: pd.DataFrame,
    in_baseline: Integers,
    in_recipe: Integers,
    borrowed: int,
) -> Pair:
    joint = build(both, baseline.conventions)
    # counted as in the separate fits: `regressed` must not mix the arms of two recipes
    n_once, n_rec = joint.design.n_once.copy(), joint.design.n_rec.copy()
    n_once[in_recipe], n_rec[in_recipe] = recipe.design.n_once, recipe.design.n_rec
    n_once[in_baseline], n_rec[in_baseline] = baseline.design.n_once, baseline.design.n_rec
    log_r = np.log(both["recurrences"].to_numpy(dtype=float))
    base_rows = np.zeros(len(both), dtype=bool)
    base_rows[in_baseline] = True
    design = replace(
        joint.design,
        n_once=n_once,
        n_rec=n_rec,
        z=np.stack([log_r * base_rows, log_r * ~base_rows]),
        log_n0=float(np.log(n_once + n_rec).mean()),
    )
    return Pair(
        own_name=own_name,
        baseline=baseline,
        recipe=recipe,
        both=replace(joint, design=design, eta_names=_PHI),
        in_baseline=in_baseline,
        in_recipe=in_recipe,
        borrowed=borrowed,
    )


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Both recipes' laws by one method, at the optimum and at the same resamples."""

    method: Method
    baseline: FittedLaw
    recipe: FittedLaw
    missing: dict[str, str]  # "baseline" or "recipe" → why the runs can't tell its φ
    converged: bool

    @property
    def phis(self) -> tuple[float, float]:
        """φ of the baseline and of the recipe at the optimum, identified or not."""
        return float(self.baseline.theta[-1]), float(self.recipe.theta[-1])

    @property
    def delta(self) -> float:
        return self.phis[1] - self.phis[0]

    @property
    def delta_draws(self) -> Array:
        """Δφ (B,) at the resamples. Raises InputError where there are none."""
        return self._draws(self.recipe) - self._draws(self.baseline)

    @staticmethod
    def _draws(side: FittedLaw) -> Array:
        if side.resamples is None:
            raise InputError("the comparison holds no resamples; compare again with --bootstrap")
        return side.resamples.theta[:, -1]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where nearly equal problems ended, to begin the next ones there."""

    seeds: tuple[Array, ...]  # one (K, p) a problem
    draws: tuple[Array, ...]  # one (B, p) a problem; empty without resamples


def fit_pair(
    pair: Pair, method: Method, draws: Draws | None, start: Start | None = None
) -> tuple[Sides, Start]:
    """Fit both recipes by one method, and at every resample.

    draws: from `Pair.draw`; None: no resamples.
    start: what the same pair returned under nearly equal conventions.
    """
    if method == "joint":
        problems, rows = [pair.both], [np.arange(pair.both.n)]
    else:
        problems, rows = [pair.baseline, pair.recipe], [pair.in_baseline, pair.in_recipe]
    found, drawn = [], []
    for i, (problem, at) in enumerate(zip(problems, rows, strict=True)):
        best = estimate(problem, None if start is None else start.seeds[i])
        found.append(best)
        if draws is not None:
            near = start.draws[i] if start and start.draws else None
            drawn.append(draws.refit(problem, best, at, near))
    sides = _sides(pair, method, problems, found, draws, drawn)
    seeds = tuple(np.vstack([best.theta, best.starts[:_NEAR]]) for best in found)
    return sides, Start(seeds=seeds, draws=tuple(drawn))


_NEAR = 5  # starts besides the optimum, for nearly equal problems


def _sides(
    pair: Pair,
    method: Method,
    problems: list[Problem],
    found: list[Estimate],
    draws: Draws | None,
    drawn: list[Array],
) -> Sides:
    if method == "joint":
        problem, best = problems[0], found[0]
        known = identify(problem, best.theta)
        keep = _columns(problem)
        thetas = [best.theta[columns] for columns in keep]
        kept = [drawn[0][:, columns] for columns in keep] if drawn else []
        missing = {
            side: known.missing[name]
            for side, name in zip(("baseline", "recipe"), _PHI, strict=True)
            if name in known.missing
        }
        problems = [problem, problem]
    else:
        thetas, kept = [best.theta for best in found], drawn
        missing = {}
        for side, own, best in zip(("baseline", "recipe"), problems, found, strict=True):
            why = identify(own, best.theta).missing.get("phi")
            if why:
                missing[side] = why
    levels = (pair.baseline.frame["recurrences"], pair.recipe.frame["recurrences"])
    laws = [
        FittedLaw(
            law=problem.law.name,
            multiplicity="power",
            levels=tuple(float(r) for r in np.unique(levels[i])),
            theta_names=(*problem.law.shape, "phi"),
            theta=thetas[i],
            log_n0=problem.design.log_n0,
            log_d0=problem.design.log_d0,
            resamples=None
            if draws is None
            else draws.resamples(kept[i], problem.n, len(problem.theta_names)),
        )
        for i, problem in enumerate(problems)
    ]
    return Sides(
        method=method,
        baseline=laws[0],
        recipe=laws[1],
        missing=missing,
        converged=all(best.converged for best in found),
    )


def _columns(problem: Problem) -> tuple[list[int], list[int]]:
    """θ of a joint problem that make up each recipe's own (shape, φ)."""
    shape = list(range(len(problem.law.shape)))
    return [*shape, len(shape)], [*shape, len(shape) + 1]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Does looping the recipe at all cost something that r^φ does not say? By the joint fit."""

    kappa: float  # κ in m(r) = κ·r^φ for the recipe's r > 1
    kappa_ci95: tuple[float, float] | None
    delta_phi: float  # of the fit with κ: slope among the recipe's r > 1, less the baseline's φ
    delta_phi_ci95: tuple[float, float] | None
    bic_gain: float  # BIC without κ less BIC with it, by least squares; above 10 the runs ask for κ


def cost_of(pair: Pair, without: Array, draws: Draws | None) -> Cost | None:
    """κ and what it does to Δφ; None where the runs can't tell it.

    without: θ (p,) of the joint fit without κ.
    """
    problem = pair.with_cost()
    if problem is None:
        return None
    best = estimate(problem, np.vstack([np.append(without, 0.0), estimate(problem).theta]))
    if not {*_PHI, _COST} <= identify(problem, best.theta).names:
        return None
    delta = best.theta[-2] - best.theta[-3]
    ends = phi_ends = None
    if draws is not None:
        theta = draws.refit(problem, best, np.arange(problem.n))
        drawn = draws.resamples(theta, problem.n, theta.shape[1])
        low, high = drawn.interval(float(best.theta[-1]), theta[:, -1])
        ends = (float(np.exp(low)), float(np.exp(high)))
        phi_ends = drawn.interval(float(delta), theta[:, -2] - theta[:, -3])
    return Cost(
        kappa=float(np.exp(best.theta[-1])),
        kappa_ci95=ends,
        delta_phi=float(delta),
        delta_phi_ci95=phi_ends,
        bic_gain=_bic(pair.both, without) - _bic(problem, best.theta),
    )


def _bic(problem: Problem, near: Array) -> float:
    """BIC of the least-squares fit of log loss, where a likelihood is defined."""
    squares = replace(problem, conventions=replace(problem.conventions, estimator="lsq"))
    least = estimate(squares, near[None]).objective
    n, p = problem.n, near.size
    return float(n * np.log(max(2 * least / n, 1e-300)) + p * np.log(n))

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
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from isodepth.errors import InputError
from isodepth.fitting.estimate import Estimate, estimate, refit
from isodepth.fitting.identify import identify
from isodepth.fitting.noise import moments, noise_scale
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
from isodepth.runs.groups import untied

Method = Literal["separate", "joint"]
_PHI = ("phi_baseline", "phi_recipe")
_COST = "log_cost"
_BIC = 10.0  # "very strong" evidence (Kass & Raftery 1995)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One set of resamples of the runs of two recipes."""

    unit: Resampling  # groups or losses
    values: Array  # (B, runs of `both`): how often each run is drawn, or its standard noise
    n_groups: int  # of runs

    def refit(
        self, both: Problem, fitted: list[Fitted], starts: tuple[Array, ...] = ()
    ) -> tuple[list[Array], Noise | None]:
        """θ (B, p) of each fit to runs of `both`, and the noise that simulated losses were given.

        starts: θ (B, p) of each where the same resamples ended under nearly the same problem.
        """
        near = starts or (None,) * len(fitted)
        if self.unit == "groups":
            return [
                refit(one.problem, one.best, weights=self.values[:, one.rows], start=start)
                for one, start in zip(fitted, near, strict=True)
            ], None
        noise = noise_of(both, fitted)
        drawn = noise.scale * self.values / both.scale
        return [
            refit(
                one.problem,
                one.best,
                log_loss=simulated(one.problem, one.best, drawn[:, one.rows]),
                start=start,
            )
            for one, start in zip(fitted, near, strict=True)
        ], noise

    def resamples(self, theta: Array, noise: Noise | None) -> Resamples:
        """θ (B, q) of refits, as `refit` returned them with their noise."""
        units = self.n_groups if noise is None else noise.freedom + theta.shape[1]
        return Resamples(theta=theta, unit=self.unit, n_units=units)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A problem that holds some of the runs of both recipes, and its optimum."""

    problem: Problem
    best: Estimate
    rows: Integers  # rows of `both` that are its runs, in its order


@dataclass(frozen=True, kw_only=True)
class Noise:
    """One noise of all runs, as fits to some of them tell it together."""

    scale: float  # σ of the log loss's residuals, scaled as those of `both`
    freedom: float  # degrees of freedom


def noise_of(both: Problem, fitted: list[Fitted]) -> Noise:
    """The fits' noises pooled by their degrees of freedom, runs − parameters each.

    Runs that two fits share count in both, so the sum of squares yᵀSy, S = Σ(I − H) with each fit's
    hat matrix H, has as many degrees of freedom as a χ² of its mean and variance: (tr S)² / tr S²
    (Satterthwaite 1946, Biometrics Bulletin 2, 110), for Huber's loss times what a run gives
    (`Moments.freedom`). For one fit that is `noise_freedom`.
    Fits with as many parameters as runs tell no noise; at least one must tell it.
    """
    squares, residual = 0.0, np.zeros((both.n, both.n))
    for one in fitted:
        problem, theta, rows = one.problem, one.best.theta, one.rows
        free = problem.n - theta.size
        if free < 1:
            continue
        sigma = noise_scale(problem, one.best.objective, theta.size)
        unit = np.exp(np.log(both.scale[rows] / problem.scale).mean())
        squares += free * (sigma * unit) ** 2
        jacobian = problem.law.evaluate(theta[None], problem.design).jacobian[0] * problem.scale
        q, _ = np.linalg.qr(jacobian.T)
        residual[np.ix_(rows, rows)] += np.eye(problem.n) - q @ q.T
    total = float(np.trace(residual))
    scale = float(np.sqrt(squares / total))
    freedom = total**2 / float((residual**2).sum()) * moments(both.delta / scale).freedom
    return Noise(scale=scale, freedom=freedom)


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

    @cached_property
    def tied(self) -> tuple[Problem, Problem]:
        """The baseline's problem and the recipe's without untied runs.

        Those have r = 1 and the graph of r passes: counts and costs that no r = 1 model has.
        """
        first, second = (
            problem.only(np.flatnonzero(~untied(problem.frame)))
            for problem in (self.baseline, self.recipe)
        )
        return first, second

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
        build(base, conventions, runs.doubts(runs.of_recipe(baseline, baseline)[0])),
        build(probe, conventions, runs.doubts(rows)),
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
    joint = build(both, baseline.conventions, (*baseline.doubts, *recipe.doubts))
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
    codes: dict[str, str]  # and the code of that warning
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
        posed = [(pair.both, np.arange(pair.both.n))]
    else:
        posed = [(pair.baseline, pair.in_baseline), (pair.recipe, pair.in_recipe)]
    fitted = [
        Fitted(problem=p, best=estimate(p, start.seeds[i] if start else None), rows=rows)
        for i, (p, rows) in enumerate(posed)
    ]
    drawn: list[Array] = []
    noise = None
    if draws is not None:
        drawn, noise = draws.refit(pair.both, fitted, start.draws if start else ())
    sides = _sides(pair, method, fitted, draws, drawn, noise)
    seeds = tuple(np.vstack([one.best.theta, one.best.starts[:_NEAR]]) for one in fitted)
    return sides, Start(seeds=seeds, draws=tuple(drawn))


_NEAR = 5  # starts besides the optimum, for nearly equal problems


def _sides(
    pair: Pair,
    method: Method,
    fitted: list[Fitted],
    draws: Draws | None,
    drawn: list[Array],
    noise: Noise | None,
) -> Sides:
    problems = [one.problem for one in fitted]
    thetas = [one.best.theta for one in fitted]
    missing, codes = {}, {}
    if method == "joint":
        known = identify(problems[0], thetas[0])
        missing = {
            side: known.missing[name]
            for side, name in zip(("baseline", "recipe"), _PHI, strict=True)
            if name in known.missing
        }
        codes = {
            side: known.code(name)
            for side, name in zip(("baseline", "recipe"), _PHI, strict=True)
            if name in known.missing
        }
        keep = _columns(problems[0])
        problems = problems * 2
        thetas = [thetas[0][columns] for columns in keep]
        drawn = [drawn[0][:, columns] for columns in keep] if drawn else []
    else:
        for side, problem, theta in zip(("baseline", "recipe"), problems, thetas, strict=True):
            known = identify(problem, theta)
            if "phi" in known.missing:
                missing[side], codes[side] = known.missing["phi"], known.code("phi")
    levels = (pair.baseline.frame["recurrences"], pair.recipe.frame["recurrences"])
    laws = [
        FittedLaw(
            law=problem.law.name,
            multiplicity="power",
            arms_differ=problem.law.arms_differ,
            levels=tuple(float(r) for r in np.unique(levels[i])),
            theta_names=(*problem.law.shape, "phi"),
            theta=thetas[i],
            log_n0=problem.design.log_n0,
            log_d0=problem.design.log_d0,
            resamples=None if draws is None else draws.resamples(drawn[i], noise),
        )
        for i, problem in enumerate(problems)
    ]
    return Sides(
        method=method,
        baseline=laws[0],
        recipe=laws[1],
        missing=missing,
        codes=codes,
        converged=all(one.best.converged for one in fitted),
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
    bic_gain: float  # BIC without κ less BIC with it, by least squares

    @property
    def asked_for(self) -> bool:
        """Whether the runs ask for κ."""
        return self.bic_gain > _BIC


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
        one = Fitted(problem=problem, best=best, rows=np.arange(problem.n))
        (theta,), noise = draws.refit(problem, [one])
        drawn = draws.resamples(theta, noise)
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

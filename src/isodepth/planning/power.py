"""What a set of runs can resolve: the smallest Δφ, and interval widths against FLOPs.

Near a supposed law every fitted φ is a weighted sum of the runs' noise, so that the variance of
Δφ between two recipes follows from the two fits' weights, also where they share runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import optimize, stats

from isodepth.errors import InputError
from isodepth.laws import Array, Bools
from isodepth.planning.candidates import candidates_of_runs
from isodepth.planning.choice import best_for
from isodepth.planning.design import LEVEL, Limits, Worlds, continuous
from isodepth.planning.worlds import Candidates

POWER = 0.8  # chance that a difference of the size named is told from 0
_CHECK_SHARE = 0.1  # of the designs drawn, as `plan --target-ci` holds it by default
_POINTS = 5  # designs drawn below the cheapest layout's FLOPs
_LEAST_RUNS = 9  # of the cheapest cell that the cheapest design drawn may cost
_TELLS_NOTHING = 1.0  # a half-width of φ
_D_STEPS = 500
_QUANTILES = 2000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The n runs of two recipes, each run once; what both use, r = 1 above all, is in both."""

    candidates: Candidates
    in_baseline: Bools  # (n,)
    in_recipe: Bools  # (n,)


def repeated(frame: pd.DataFrame) -> Layout:
    """A second recipe that repeats the looped runs of the first and shares its r = 1 runs."""
    looped = frame["recurrences"].to_numpy(dtype=float) > 1
    n, more = len(frame), int(looped.sum())
    return Layout(
        candidates=priced_runs(pd.concat([frame, frame[looped]])),
        in_baseline=np.arange(n + more) < n,
        in_recipe=np.concatenate([~looped, np.ones(more, dtype=bool)]),
    )


def borrowed(baseline: pd.DataFrame, recipe: pd.DataFrame) -> Layout:
    """Two recipes as a table holds them; rows of one index are one run."""
    both = pd.concat([baseline, recipe])
    both = both[~both.index.duplicated()]
    return Layout(
        candidates=priced_runs(both),
        in_baseline=both.index.isin(baseline.index),
        in_recipe=both.index.isin(recipe.index),
    )


def priced_runs(frame: pd.DataFrame) -> Candidates:
    """The numbers of runs in a table. Raises InputError where they name no FLOPs or budget."""
    for name in ("flops", "budget_flops"):
        if name not in frame or frame[name].isna().any():
            raise InputError(f"every run must name its {name}, and some name none")
    return candidates_of_runs(frame)


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a layout tells of Δφ, root mean square over the worlds; inf where too few runs."""

    half_width: float  # of Δφ's 95% interval
    smallest: float  # |Δφ| told from 0 at 95% in 80% of sweeps
    by_world: dict[str, float]  # smallest, in each kind of world


def resolution(worlds: Worlds, layout: Layout, *, joint: bool) -> Resolution:
    """Of Δφ by separate laws, or by one law for both recipes (`compare --method`).

    worlds: of the layout's candidates; both recipes are supposed to follow each world's law with
    about the same φ. Student's t with (runs − parameters of both fits) degrees of freedom.
    """
    variances = _joint(worlds, layout) if joint else _separate(worlds, layout)
    fitted = worlds.n_params + 1 if joint else 2 * worlds.n_params
    freedom = layout.in_baseline.size - fitted
    errors = np.sqrt(variances)
    halves = np.array([_quantile(nu) for nu in freedom]) * errors
    smallest = np.array([noncentrality(nu) for nu in freedom]) * errors
    kinds = np.array(worlds.names)
    return Resolution(
        half_width=_root_mean_square(halves, worlds.weights),
        smallest=_root_mean_square(smallest, worlds.weights),
        by_world={
            kind: _root_mean_square(smallest[kinds == kind], worlds.weights[kinds == kind])
            for kind in dict.fromkeys(worlds.names)
        },
    )


def _root_mean_square(values: Array, weights: Array) -> float:
    return float(np.sqrt(np.average(values**2, weights=weights)))


def _quantile(freedom: int) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) if freedom > 0 else float("inf")


@cache
def noncentrality(freedom: int) -> float:
    """|Δφ| in standard errors that a two-sided t test at 5% tells from 0 with 80% chance.

    The noncentral t distribution, as normal tails averaged over quantiles of the estimated
    standard error; 2.80 with many degrees of freedom, inf with none.
    """
    if freedom <= 0:
        return float("inf")
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    limits = _quantile(freedom) * np.sqrt(stats.chi2.ppf(quantiles, freedom) / freedom)

    def lacking(delta: float) -> float:
        told = stats.norm.sf(limits - delta) + stats.norm.cdf(-limits - delta)
        return float(told.mean()) - POWER

    return float(optimize.brentq(lacking, 0.0, float(limits.max()) + 5.0))


def _separate(worlds: Worlds, layout: Layout) -> Array:
    """Variance (S,) of the difference of two fits that share runs."""
    weights = _influence(worlds, layout.in_recipe) - _influence(worlds, layout.in_baseline)
    return np.asarray((weights**2).sum(axis=1))


def _influence(worlds: Worlds, used: Bools) -> Array:
    """(S, n): by how much a run's noise, in its own standard deviation, moves the fitted φ."""
    solved = np.linalg.solve(worlds.information(used.astype(float)), worlds.target[:, :, None])
    return np.asarray((worlds.rows @ solved)[:, :, 0] * used)


def _joint(worlds: Worlds, layout: Layout) -> Array:
    """Variance (S,) of the difference of two φ in one law."""
    of_phi = np.einsum("snp,sp->sn", worlds.rows, worlds.target)
    own = layout.in_recipe & ~layout.in_baseline
    rows = np.where(own[:, None], worlds.rows * (1 - worlds.target[:, None]), worlds.rows)
    both = Worlds(
        rows=np.concatenate([rows, (of_phi * own)[:, :, None]], axis=2),
        target=np.concatenate([-worlds.target, np.ones((len(worlds.target), 1))], axis=1),
        weights=worlds.weights,
        n_params=worlds.n_params + 1,
        names=worlds.names,
    )
    return both.variances(np.ones(own.size))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Half-width of φ's 95% interval against training FLOPs."""

    name: str
    flops: tuple[float, ...]
    half_width: tuple[float, ...]
    whole_runs: bool  # False: runs are split, and 1.96 stands in for Student's t


def layout_curve(worlds: Worlds, candidates: Candidates, name: str) -> Curve:
    """The runs as they are, from their lowest budgets alone to all of them."""
    flops, halves = [], []
    for highest in np.unique(candidates.budget_flops)[1:]:  # one budget can't tell the two terms
        used = (candidates.budget_flops <= highest).astype(float)
        half = worlds.half_width(used)
        if half < _TELLS_NOTHING:
            flops.append(float(used @ candidates.flops))
            halves.append(half)
    return Curve(name=name, flops=tuple(flops), half_width=tuple(halves), whole_runs=True)


def design_curve(worlds: Worlds, candidates: Candidates, at: tuple[float, ...]) -> Curve:
    """The best whole runs among the candidates, repeated as needed: at FLOPs `at` and below."""
    ideal = continuous(worlds, candidates.flops)
    least = _LEAST_RUNS * float(candidates.flops.min())
    below = [x for x in np.geomspace(least, max(least, min(at)), _POINTS).tolist() if x < min(at)]
    flops, halves = [], []
    for point in (*below, *at):
        choice = best_for(
            worlds, candidates, point, limits=Limits(), check_share=_CHECK_SHARE, ideal=ideal
        )
        if choice.half_width < _TELLS_NOTHING:
            flops.append(point)
            halves.append(choice.half_width)
    return Curve(
        name="cheapest for φ, from the same cells",
        flops=tuple(flops),
        half_width=tuple(halves),
        whole_runs=True,
    )


def split_curve(
    worlds: Worlds, candidates: Candidates, shares: Array, name: str, at: tuple[float, ...]
) -> Curve:
    """Shares (n,) of the FLOPs, whatever part of a run they buy, at FLOPs `at`."""
    variance = worlds.per_flop(candidates.flops).variance(shares)
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    halves = tuple(z * float(np.sqrt(variance / point)) for point in at)
    return Curve(name=name, flops=at, half_width=halves, whole_runs=False)


def d_optimal(worlds: Worlds, cost: Array) -> Array:
    """Shares (n,) of the FLOPs that maximise log det M, averaged over the worlds.

    The multiplicative algorithm (Titterington 1976; Silvey, Titterington & Torsney 1978): every
    share times its share of the parameters' information.
    """
    per_flop = worlds.per_flop(cost)
    shares = np.full(cost.size, 1.0 / cost.size)
    for _ in range(_D_STEPS):
        inverse = np.linalg.inv(per_flop.information(shares))
        told = np.einsum("snp,snp->sn", per_flop.rows @ inverse, per_flop.rows)
        shares = shares * (worlds.weights / worlds.n_params @ told)
        shares /= shares.sum()
    return shares

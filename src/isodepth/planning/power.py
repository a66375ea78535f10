"""What a set of runs can resolve: the smallest Δφ, and interval widths against FLOPs.

How Δφ's variance follows from the runs of two recipes is in `contrast`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from isodepth.errors import InputError
from isodepth.laws import Array, Bools
from isodepth.planning.candidates import candidates_of_runs
from isodepth.planning.choice import best_for
from isodepth.planning.design import LEVEL, USELESS, Limits, Worlds, continuous
from isodepth.planning.worlds import Candidates

_CHECK_SHARE = 0.1  # of the designs drawn, as `plan --target-ci` holds it by default
_POINTS = 5  # designs drawn below the cheapest layout's FLOPs
_LEAST_RUNS = 9  # of the cheapest cell that the cheapest design drawn may cost
_D_STEPS = 500


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The n runs of two recipes, each run once; what both use, r = 1 above all, is in both."""

    candidates: Candidates
    in_baseline: Bools  # (n,)
    in_recipe: Bools  # (n,)

    @property
    def members(self) -> tuple[Bools, Bools]:
        """Which runs are the baseline's, and which the recipe's."""
        return self.in_baseline, self.in_recipe

    @property
    def once(self) -> Array:
        """(n,) each run counted once."""
        return np.ones(self.in_baseline.size)


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
        if half < USELESS:
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
        if choice.half_width < USELESS:
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
    z = float(special.ndtri(0.5 + LEVEL / 2))
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

"""What a plan or a run table can resolve, before or after it is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from isodepth.errors import InputError
from isodepth.warned import Warned, to_json

if TYPE_CHECKING:
    from isodepth.fitting.result import Fit
    from isodepth.planning.power import Curve
    from isodepth.planning.resolution import Resolution
    from isodepth.planning.widths import EqualR, LawFreeWidths
    from isodepth.runs import Runs


@dataclass(frozen=True, kw_only=True)
class Power:
    """What runs can resolve, and what was supposed to say so."""

    source: str
    baseline: str
    recipe: str | None  # None: a second recipe that repeats the baseline's looped runs
    n_runs: int  # of both recipes, shared ones once
    flops: float  # training FLOPs of these
    phi_half_width: float | None  # of the baseline's φ; None where its runs are too few
    separate: Resolution
    joint: Resolution
    law_free: LawFreeWidths  # of the baseline
    equal_r: EqualR | None  # of both; None: no r at which the baseline's runs give a surface
    curves: tuple[Curve, ...]
    ratios: dict[float, float]  # FLOPs of a layout → the design's half-width there over its own
    assumptions: tuple[str, ...]
    warnings: tuple[Warned, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what can't be told is null."""
        return {
            "source": self.source,
            "baseline": self.baseline,
            "recipe": self.recipe,
            "n_runs": self.n_runs,
            "flops": self.flops,
            "phi": {"half_width": self.phi_half_width},
            "delta_phi": {
                name: {
                    "half_width": _finite(one.half_width),
                    "smallest": _finite(one.smallest),
                    "by_world": {k: _finite(v) for k, v in one.by_world.items()},
                }
                for name, one in (("separate", self.separate), ("joint", self.joint))
            },
            "law_free": asdict(self.law_free),
            "equal_r": None if self.equal_r is None else asdict(self.equal_r),
            "curves": [asdict(curve) for curve in self.curves],
            "ratios": [{"flops": k, "ratio": v} for k, v in self.ratios.items()],
            "assumptions": list(self.assumptions),
            **to_json(self.warnings),
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def power_of(
    source: str,
    fits: list[Fit],
    *,
    noises: tuple[float, ...],
    baseline: str | None = None,
    recipe: str | None = None,
) -> Power:
    """The smallest Δφ that a plan (.json), a run table or `published` resolves, and curves.

    baseline: None: `baseline`, or the only recipe. recipe: the second one, with the baseline's
    r = 1 runs where it has none; None: one that repeats the baseline's looped runs.
    fits: the supposed laws (`planning.worlds.prior`). noises: of the log loss.
    Raises InputError for a source that can't be read, or whose runs name no FLOPs and budget.
    """
    from isodepth.planning.contrast import difference, one_law
    from isodepth.planning.equal_r import equal_r, law_free_widths
    from isodepth.planning.foreseen import foreseen
    from isodepth.planning.power import (
        borrowed,
        d_optimal,
        design_curve,
        layout_curve,
        priced_runs,
        repeated,
        split_curve,
    )
    from isodepth.planning.resolution import resolution
    from isodepth.planning.worlds import worlds
    from isodepth.runs import Runs, load_runs

    if source.endswith(".json"):
        runs = Runs(frame=_plan_frame(Path(source)), source=source, checksum="")
    else:
        table = load_runs(source)
        runs = Runs(frame=table.used, source=table.source, checksum=table.checksum)
    name = runs.choose(baseline)
    if recipe is not None and runs.choose(recipe) == name:
        raise InputError(f"recipe {recipe!r} is the baseline itself: name two recipes")
    found = {
        one: runs.of_recipe(one, name)[0] for one in runs.recipes if _tells_phi(runs, one, name)
    }
    said: list[Warned] = []
    for one in (name, recipe):
        if one is None:
            continue
        ahead = foreseen(runs.of_recipe(one, name)[0], _phi(fits))
        if one not in found:
            why = [w.text for w in ahead] or ["it needs runs at r = 1 and at a larger r to tell φ"]
            raise InputError(f"{source}: {one}: {why[0]}")
        said += [w.about(one) for w in ahead]
    first = found.pop(name)
    layout = repeated(first) if recipe is None else borrowed(first, found[recipe])
    both = worlds(layout.candidates, fits, noises=noises)
    candidates = priced_runs(first)
    supposed = worlds(candidates, fits, noises=noises)
    own = layout_curve(supposed, candidates, f"{source}: {name}")
    if not own.flops:
        raise InputError(f"{source}: the runs of {name} are too few to tell φ")
    curves = [own]
    for other, rows in found.items():
        there = priced_runs(rows)
        label = f"{source}: {other}, r = 1 runs borrowed"
        curves.append(layout_curve(worlds(there, fits, noises=noises), there, label))
    design = design_curve(supposed, candidates, own.flops)
    ends = (design.flops[0], own.flops[-1])
    shares = d_optimal(supposed, candidates.flops)
    curves.append(
        split_curve(
            supposed, candidates, shares, "D-optimal, from the same cells, runs split", ends
        )
    )
    curves.append(design)
    reached = dict(zip(design.flops, design.half_width, strict=True))
    ratios = {x: reached[x] / half for x, half in zip(own.flops, own.half_width, strict=True)}
    half = supposed.half_width(np.ones(len(first)))
    return Power(
        source=source,
        baseline=name,
        recipe=recipe,
        n_runs=layout.in_baseline.size,
        flops=float(layout.candidates.flops.sum()),
        phi_half_width=_finite(half),
        separate=resolution(difference(both, *layout.members), layout.once),
        joint=resolution(one_law(both, *layout.members), layout.once),
        law_free=law_free_widths(first, fits, noises),
        equal_r=equal_r(first, _beside(first, recipe, found), fits, noises),
        curves=tuple(curves),
        ratios=ratios,
        assumptions=_assumptions(fits, noises, recipe),
        warnings=tuple(said),
    )


def _beside(
    first: pd.DataFrame, recipe: str | None, found: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """The second recipe's own runs: where none is named, the looped ones of the first again."""
    if recipe is None:
        return first[first["recurrences"] > 1].assign(recipe="second")
    rows = found[recipe]
    return rows[rows["recipe"] == recipe]


def _tells_phi(runs: Runs, recipe: str, lender: str) -> bool:
    """Whether a recipe's values of r can: two looped ones can't unless nothing is used once."""
    rows = runs.of_recipe(recipe, lender)[0]
    r = np.unique(rows["recurrences"])
    if r[0] > 1 and (rows["n_once"] > 0).any():
        return bool(r.size > 2)
    return bool(r.size > 1)


def _phi(fits: list[Fit]) -> float:
    """The φ that is supposed, by the first fit."""
    fitted = fits[0].fitted
    return float(fitted.theta[fitted.theta_names.index("phi")])


def _plan_frame(file: Path) -> pd.DataFrame:
    """A plan's runs as a table without losses."""
    from isodepth.sweep.plan import load_plan

    return pd.DataFrame([asdict(run) for run in load_plan(file).runs])


def _assumptions(fits: list[Fit], noises: tuple[float, ...], recipe: str | None) -> tuple[str, ...]:
    laws = ", ".join(one.conventions.law for one in fits)
    said = [
        f"laws: {laws}, fitted to {fits[0].source} ({fits[0].recipe}) and its resamples; both "
        "recipes follow one of them, with about the same φ",
        f"noise of log loss: {', '.join(f'{noise:g}' for noise in noises)} (standard deviation), "
        "normal, the same for every run, independent between runs",
        f"estimator: {fits[0].conventions.estimator}; Student's t with as many degrees of "
        "freedom as its noise is told by; small changes of the parameters (delta method)",
        "smallest Δφ: told from 0 at 95% in 80% of sweeps",
        "without a law, and at equal r: the median intervals of a few simulated sweeps, in which "
        "the recipes don't differ",
    ]
    if recipe is None:
        said.append("a second recipe repeats every looped run and shares the r = 1 runs")
    return tuple(said)

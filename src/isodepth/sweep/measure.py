"""`isodepth measure`: from nothing to φ on one's own runs, safe to run again at any point.

plan → data → sweep → table → fits → report; each stage leaves its result in the folder and is
skipped where that is there already.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isodepth.errors import InputError
from isodepth.files import replace_synced
from isodepth.fitting import Fit, fit
from isodepth.fitting.fit import Progress
from isodepth.fitting.problem import replicate_sets
from isodepth.minima import Isoflop, isoflop
from isodepth.recipes import Comparison, compare
from isodepth.report.folder import write_folder
from isodepth.runs import Runs
from isodepth.runs.table import BASELINE
from isodepth.sweep.plan import Plan
from isodepth.sweep.rounds import Round

FITS = "fits"
# The smallest budget of arXiv 2604.21106, below which nothing was published.
PUBLISHED_FLOPS = 4.64e17


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the runs of one sweep say."""

    plan: str
    n_runs: int  # finished
    flops: float  # training FLOPs of the finished runs
    fits: dict[str, Fit]  # by recipe
    comparisons: dict[str, Comparison]  # of every other recipe with the baseline
    groups: Isoflop
    trust: tuple[str, ...]  # how far the numbers carry, in words
    rounds: tuple[Round, ...]  # of a sweep that was made for an interval; none otherwise

    def to_dict(self) -> dict[str, Any]:
        """What `measure --json` prints."""
        return {
            "plan": self.plan,
            "n_runs": self.n_runs,
            "flops": self.flops,
            "recipes": {
                name: {
                    "phi": {"value": one.phi, "ci95": one.ci95.get("phi")},
                    "n_runs": one.n_runs,
                    "warnings": one.warnings,
                }
                for name, one in self.fits.items()
            },
            "delta_phi": {
                name: {
                    "value": one.delta_phi,
                    "ci95": one.ci95["delta_phi"],
                    "verdict": one.verdict,
                    "warnings": list(one.warnings),
                }
                for name, one in self.comparisons.items()
            },
            "isoflop": self.groups.to_dict(),
            "trust": list(self.trust),
            "rounds": [asdict(one) for one in self.rounds],
        }


def measurement(
    plan: Plan,
    runs: Runs,
    out: Path,
    *,
    bootstrap: int,
    seed: int,
    rounds: tuple[Round, ...],
    on_progress: Progress,
) -> Measurement:
    """Fit every recipe of a sweep's table, with figures, and say what came out.

    A fit that `out` holds already, of the same runs under the same settings, is taken as it is.
    Raises InputError where the baseline has no run to fit.
    """
    recipes = [BASELINE, *(name for name in runs.recipes if name != BASELINE)]
    fits = {}
    for index, name in enumerate(recipes):

        def progress(stage: str, share: float, index: int = index, name: str = name) -> None:
            on_progress(f"{name}: {stage}", (index + share) / len(recipes))

        folder = out / FITS / name
        known = _known(folder / "fit.json", runs, name, bootstrap, seed)
        if known is None:
            known = fit(runs, recipe=name, bootstrap=bootstrap, seed=seed, on_progress=progress)
            write_folder(runs, known, folder)
        fits[name] = known
    comparisons = {
        name: compare(
            runs,
            recipe=name,
            bootstrap=bootstrap,
            seed=seed,
            vocab=plan.spec.shape.vocab,
            sequence_length=plan.spec.shape.sequence_length,
            on_progress=on_progress,
        )
        for name in recipes[1:]
    }
    groups = isoflop(runs)
    used = runs.used
    return Measurement(
        plan=plan.spec.name,
        n_runs=len(used),
        flops=float(used["flops"].sum()) if "flops" in used else plan.flops,
        fits=fits,
        comparisons=comparisons,
        groups=groups,
        trust=tuple(_trust(plan, runs, groups)),
        rounds=rounds,
    )


def _known(file: Path, runs: Runs, recipe: str, bootstrap: int, seed: int) -> Fit | None:
    """The saved fit, if it is one of these runs with these settings."""
    try:
        saved = Fit.load(file)
    except InputError:
        return None
    asked = (runs.checksum, recipe, bootstrap, seed)
    return saved if (saved.checksum, saved.recipe, saved.n_resamples, saved.seed) == asked else None


def _trust(plan: Plan, runs: Runs, groups: Isoflop) -> list[str]:
    """How far these runs carry, from their sizes alone."""
    used = runs.used
    size = used["n_once"] + used["n_rec"] + used["n_inject"]
    budgets = [budget.flops for budget in plan.spec.budgets]
    text = "" if plan.spec.data is None else f" of {plan.spec.data.source}"
    said = [
        f"these models have {size.min():,.0f} to {size.max():,.0f} parameters, effective depth "
        f"{plan.spec.shape.depth}, and saw {used['tokens'].min():,.0f} to "
        f"{used['tokens'].max():,.0f} tokens{text}"
    ]
    if max(budgets) < PUBLISHED_FLOPS:
        orders = math.log10(PUBLISHED_FLOPS / max(budgets))
        said.append(
            f"their largest budget, {max(budgets):.3g} FLOPs, is 10^{orders:.1f} times below the "
            "smallest published one: φ here is that of very small models on this text, measured "
            "in the same way; it says little about the φ of large ones"
        )
    said.append(
        "the interval covers the noise of these runs; it does not cover another text, another "
        "learning rate, another depth, nor an error in the law's form"
    )
    open_groups = [g for g in groups.groups if not g.bracketed or g.concave]
    if open_groups:
        names = ", ".join(f"{g.recipe} r = {g.recurrences}" for g in open_groups)
        said.append(
            f"{len(open_groups)} of {len(groups.groups)} iso-FLOP groups have no bracketed "
            f"minimum ({names}): there the law is seen from one side only"
        )
    if not replicate_sets(used):
        said.append("every run was made with one seed, so the noise is read off the residuals")
    return said


def save(result: Measurement, file: Path) -> None:
    """Write the measurement as JSON. Raises InputError where the file can't be written."""
    try:
        replace_synced(file, json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise InputError(f"{file} can't be written: {error.strerror}") from error

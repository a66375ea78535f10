"""What a sweep's runs say: φ of every recipe, Δφ, and how far to trust them; safe to ask again.

A fit or a comparison that the folder holds already, of the same runs under the same settings, is
taken as it is. Of a sweep in progress it says what its finished runs can.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isodepth.comparing import Comparison, compare
from isodepth.errors import InputError
from isodepth.files import replace_synced
from isodepth.fitting import Fit, fit
from isodepth.fitting.fit import DEFAULT_RESAMPLES, Progress
from isodepth.fitting.problem import replicate_sets
from isodepth.minima import Isoflop, isoflop
from isodepth.report.folder import (
    COMPARISON_FILE,
    FIT_FILE,
    write_compare_folder,
    write_folder,
)
from isodepth.report.page import sweep_page, write_page
from isodepth.runs import Runs
from isodepth.runs.table import BASELINE
from isodepth.sweep.collect import CSV_FILE, collect, write_table
from isodepth.sweep.ledger import FINAL, Ledger
from isodepth.sweep.plan import Plan
from isodepth.sweep.rounds import Round, load_rounds
from isodepth.warned import to_json

FITS = "fits"
COMPARED = "compared"
MEASURE_FILE = "measure.json"
# The smallest budget of arXiv 2604.21106, below which nothing was published.
PUBLISHED_FLOPS = 4.64e17


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the runs of one sweep say."""

    plan: str
    n_resamples: int
    seed: int
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
            "n_resamples": self.n_resamples,
            "seed": self.seed,
            "n_runs": self.n_runs,
            "flops": self.flops,
            "recipes": {
                name: {
                    "phi": {"value": one.phi, "ci95": one.ci95.get("phi")},
                    "n_runs": one.n_runs,
                    **to_json(one.warnings),
                }
                for name, one in self.fits.items()
            },
            "delta_phi": {
                name: {
                    "value": one.delta_phi,
                    "ci95": one.ci95["delta_phi"],
                    "verdict": one.verdict,
                    **to_json(one.warnings),
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
    redraw: bool,
    rounds: tuple[Round, ...],
    on_progress: Progress,
) -> Measurement:
    """Fit every recipe of a sweep's table and compare it with the baseline, with all that shows it.

    redraw: write the folders of results that are known already, too.
    What can't be fitted or compared (yet) is left out, and `trust` says why.
    """
    names = runs.recipes
    baseline = BASELINE if BASELINE in names else names[0]
    recipes = [baseline, *(name for name in names if name != baseline)]
    fits: dict[str, Fit] = {}
    comparisons: dict[str, Comparison] = {}
    left_out: list[str] = []
    for index, name in enumerate(recipes):

        def progress(stage: str, share: float, index: int = index, name: str = name) -> None:
            on_progress(f"{name}: {stage}", (index + share) / len(recipes))

        folder = out / FITS / name
        known = _known_fit(folder / FIT_FILE, runs, name, bootstrap, seed)
        try:
            fitted = known or fit(
                runs, recipe=name, bootstrap=bootstrap, seed=seed, on_progress=progress
            )
        except InputError as error:
            left_out.append(f"{name} is not fitted: {error}")
            continue
        if known is None or redraw:
            write_folder(runs, fitted, folder)
        fits[name] = fitted
    for name in recipes[1:]:
        if not {name, baseline} <= set(fits):
            continue
        folder = out / COMPARED / name
        before = _known_comparison(folder / COMPARISON_FILE, runs, baseline, name, bootstrap, seed)
        try:
            compared = before or compare(
                runs,
                baseline=baseline,
                recipe=name,
                bootstrap=bootstrap,
                seed=seed,
                vocab=plan.spec.shape.vocab,
                sequence_length=plan.spec.shape.sequence_length,
                on_progress=on_progress,
            )
        except InputError as error:
            left_out.append(f"{name} is not compared: {error}")
            continue
        if before is None or redraw:
            write_compare_folder(runs, [compared], compared.to_json(), folder)
        comparisons[name] = compared
    groups = isoflop(runs)
    used = runs.used
    return Measurement(
        plan=plan.spec.name,
        n_resamples=bootstrap,
        seed=seed,
        n_runs=len(used),
        flops=float(used["flops"].sum()) if "flops" in used else plan.flops,
        fits=fits,
        comparisons=comparisons,
        groups=groups,
        trust=(*_trust(plan, runs, groups), *left_out),
        rounds=rounds,
    )


def _known_fit(file: Path, runs: Runs, recipe: str, bootstrap: int, seed: int) -> Fit | None:
    """The saved fit, if it is one of these runs with these settings."""
    try:
        saved = Fit.load(file)
    except InputError:
        return None
    asked = (runs.checksum, recipe, bootstrap, seed)
    return saved if (saved.checksum, saved.recipe, saved.n_resamples, saved.seed) == asked else None


def _known_comparison(
    file: Path, runs: Runs, baseline: str, recipe: str, bootstrap: int, seed: int
) -> Comparison | None:
    """The saved comparison, likewise."""
    try:
        (saved,) = Comparison.load_all(file)
    except (InputError, ValueError):
        return None
    asked = (runs.checksum, baseline, recipe, bootstrap, seed)
    own = (saved.checksum, saved.baseline, saved.recipe, saved.n_resamples, saved.seed)
    return saved if own == asked else None


def _trust(plan: Plan, runs: Runs, groups: Isoflop) -> list[str]:
    """How far these runs carry, from their sizes alone."""
    used = runs.used
    if used.empty:
        return ["no run is finished, so nothing is measured"]
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
        names = ", ".join(f"{g.recipe} {g.arm}" for g in open_groups)
        said.append(
            f"{len(open_groups)} of {len(groups.groups)} iso-FLOP groups have no bracketed "
            f"minimum ({names}): there the law is seen from one side only"
        )
    if not replicate_sets(used):
        said.append("every run was made with one seed, so the noise is read off the residuals")
    return said


def measure(
    ledger: Ledger, *, bootstrap: int, seed: int, redraw: bool = False, on_progress: Progress
) -> Measurement:
    """Collect a sweep's runs, measure, and leave table, numbers and page in its folder.

    redraw: write also the folders of fits and comparisons that are known already.
    Raises InputError where no run has been tried or the folder can't be written.
    """
    out = ledger.folder
    runs = collect(ledger)
    write_table(runs, out)
    result = measurement(
        ledger.plan,
        runs,
        out,
        bootstrap=bootstrap,
        seed=seed,
        redraw=redraw,
        rounds=load_rounds(out),
        on_progress=on_progress,
    )
    try:
        text = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
        replace_synced(out / MEASURE_FILE, text)
        write_page(
            out,
            lambda: sweep_page(
                runs,
                list(result.fits.values()),
                list(result.comparisons.values()),
                CSV_FILE,
                title=f"Sweep {result.plan}",
                said=_standing(ledger),
                trust=result.trust,
                command=["isodepth", "report", str(out)],
                vocab=ledger.plan.spec.shape.vocab,
                sequence_length=ledger.plan.spec.shape.sequence_length,
            ),
        )
    except OSError as error:
        raise InputError(f"{out} can't be written: {error.strerror}") from error
    return result


def measure_again(folder: Path, *, on_progress: Progress) -> Measurement:
    """`measure` of the sweep as it stands, as it was measured before, every figure drawn again.

    Raises InputError as `measure`, and where `folder` holds no sweep.
    """
    bootstrap, seed = DEFAULT_RESAMPLES, 0
    try:
        saved = json.loads((folder / MEASURE_FILE).read_text(encoding="utf-8"))
        bootstrap, seed = int(saved["n_resamples"]), int(saved["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet
    return measure(
        Ledger(folder), bootstrap=bootstrap, seed=seed, redraw=True, on_progress=on_progress
    )


def _standing(ledger: Ledger) -> list[str]:
    """How a sweep stands, in words."""
    states = Counter(entry.state for entry in ledger.entries())
    words = ", ".join(f"{n} {state}" for state, n in states.items())
    said = [f"{states['done']} of {states.total()} runs are done ({words})"]
    if set(states) - set(FINAL):
        said.append("the sweep is in progress: every number here will change")
    return said

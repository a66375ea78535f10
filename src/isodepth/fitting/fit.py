"""`fit`: from a run table to a number that can be published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isodepth.counting import Counting
from isodepth.errors import InputError
from isodepth.fitting.diagnostics import extrapolation, lack_of_fit
from isodepth.fitting.drift import drift
from isodepth.fitting.errors import ASKED
from isodepth.fitting.estimate import Estimate, estimate
from isodepth.fitting.identify import CONSTANTS, Identified, identify, tokens_follow_size
from isodepth.fitting.law_free import LawFree, law_free, without_law
from isodepth.fitting.problem import Conventions, Estimator, Problem, build
from isodepth.fitting.result import Fit, FittedLaw, Interval
from isodepth.fitting.seen import seen_by
from isodepth.fitting.sensitivity import arms_warnings, sensitivity_of
from isodepth.fitting.uncertainty import (
    Profile,
    Resamples,
    Resampling,
    errors_of,
    profile,
    resample,
    resampling,
    structured,
)
from isodepth.fitting.warn import warnings_of
from isodepth.laws import ArmsDiffer, Array, LawName, MultiplicityName
from isodepth.runs import Runs, load_runs
from isodepth.warned import Warned

DEFAULT_RESAMPLES = 1000

Progress = Callable[[str, float], None]


def fit(
    runs: Runs | str | Path | pd.DataFrame,
    *,
    recipe: str | None = None,
    law: LawName = "additive",
    multiplicity: MultiplicityName = "power",
    estimator: Estimator = "huber",
    count_injection: Counting = "once",
    huber_delta: float = 1e-3,
    arms_differ: ArmsDiffer = "none",
    bootstrap: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    sensitivity: bool = True,
    at_budgets: tuple[float, ...] = (),
    on_progress: Progress | None = None,
) -> Fit:
    """Fit a loss law to one recipe of a run table, with intervals and every diagnostic.

    Parameters
    ----------
    runs: a table from `load_runs`, or what `load_runs` takes.
    recipe: which recipe; None: `baseline` if there is one, else the only one. A recipe without
        r = 1 runs borrows the baseline's at the budgets that it was run at.
    law: `additive` L = E + A·N_eff^−α + B·D^−β (arXiv 2604.21106), or `coupled`
        L = E + (A·N_eff^−α + B·D^−β)^γ; N_eff = N_once + m(r)·N_rec.
    multiplicity: `power` m = r^φ, or `free`, an m of its own for every r.
    estimator: `huber` (Hoffmann et al. 2203.15556 with the corrections of Besiroglu et al.
        2404.10102: residuals of log loss, summed) or `lsq`, least squares of the same residuals.
    count_injection: `once`, `rec`, `none` or `regressed`.
    huber_delta: Huber's threshold on log-loss residuals.
    arms_differ: what looped runs may differ by from unlooped ones beside m(r), the same at every
        r > 1: `none`, `tokens`, which count κ times (D → κD; `tokens_ratio`), or `loss`, δ nats
        more (`loss_offset`).
    bootstrap: resamples behind the intervals; 0 for none.
    seed: of the resampling.
    sensitivity: whether φ is also wanted under every other law, estimator and counting, which takes
        most of the time.
    at_budgets: training FLOPs of a run at which φ is wanted if it may drift with their logarithm.
    on_progress: called with a stage's name and the share of the whole that is done.

    Raises InputError for an unusable table or choice.
    """
    table = runs if isinstance(runs, Runs) else load_runs(runs)
    if isinstance(bootstrap, bool) or bootstrap < 0 or 0 < bootstrap < 50:
        raise InputError(f"bootstrap = {bootstrap} must be 0 or at least 50 resamples")
    conventions = Conventions(
        law=law,
        multiplicity=multiplicity,
        estimator=estimator,
        count_injection=count_injection,
        huber_delta=huber_delta,
        arms_differ=arms_differ,
    )
    step = on_progress or (lambda stage, share: None)
    recipe = table.choose(recipe)
    rows, borrowed = table.of_recipe(recipe)
    used = rows[rows["status"] == "done"]
    if used.empty:
        raise InputError(f"{table.source}: recipe {recipe!r} has no finished run to fit")
    problem = build(used, conventions, table.doubts(rows))

    step("optimum", 0.0)
    best = estimate(problem)
    known = identify(problem, best.theta)
    step("resamples", 0.1)
    resamples, along_r, unit = None, None, None
    if bootstrap:
        unit = resampling(problem, best.theta)
        resamples, along_r = _resamples(problem, best, bootstrap, seed, unit)
    step("profile", 0.4)
    curve = _profile(problem, best, known, resamples)
    step("diagnostics", 0.45)
    lack = lack_of_fit(problem, best)
    ahead = extrapolation(problem, best)
    along = drift(problem, best, resamples, at_budgets, seed) if at_budgets else None
    step("sensitivity", 0.65)
    alternatives = sensitivity_of(problem, best, known, seed, unit) if sensitivity else []
    step("without a law", 0.95)
    worth, why_none = _law_free(table, recipe, conventions, problem)
    step("done", 1.0)

    params, ci95 = _parameters(problem, best, known, resamples)
    drawn = problem.predict(best.theta)[0]
    loss = np.exp(problem.log_loss)
    result = Fit(
        recipe=recipe,
        source=table.source,
        checksum=table.checksum,
        version=version("isodepth"),
        n_runs=problem.n,
        n_excluded=len(rows) - len(used),
        borrowed_unlooped_from=borrowed,
        conventions=conventions,
        weighting=problem.weighting,
        seed=seed,
        params=params,
        ci95=ci95,
        interval_method=_method(problem, resamples),
        n_resamples=bootstrap,
        profile_phi=None if curve is None else curve.to_dict(),
        r2=_r2(loss, drawn) if problem.n > best.theta.size else None,
        rmse=float(np.sqrt(((loss - drawn) ** 2).mean())),
        objective=best.objective,
        gradient_norm=best.gradient_norm,
        converged=best.converged,
        n_starts=best.n_starts,
        n_starts_agreeing=best.n_starts_agreeing,
        lack_of_fit=lack.to_dict(),
        sensitivity=[asdict(a) for a in alternatives],
        extrapolation=None if ahead is None else asdict(ahead),
        drift=None if along is None else along.to_dict(),
        errors_along_r=along_r,
        law_free=None if worth is None else worth.to_dict(),
        seen=seen_by(problem, best, ahead),
        warnings=(),
        notes=[*table.notes, *_notes(problem, borrowed)],
        fitted=FittedLaw(
            law=problem.law.name,
            multiplicity=problem.multiplicity.name,
            arms_differ=problem.law.arms_differ,
            levels=tuple(float(r) for r in np.unique(problem.frame["recurrences"])),
            theta_names=problem.theta_names,
            theta=best.theta,
            log_n0=problem.design.log_n0,
            log_d0=problem.design.log_d0,
            resamples=resamples,
        ),
    )
    said = warnings_of(result, problem, known, lack, ahead, tied=tokens_follow_size(problem))
    said += [*_along_warnings(result), *arms_warnings(conventions, alternatives)]
    said += [*without_law(worth, why_none, result.phi, ci95.get("phi"))]
    return replace(result, warnings=(*said, *(() if along is None else along.warnings)))


def _resamples(
    problem: Problem, best: Estimate, n: int, seed: int, unit: Resampling
) -> tuple[Resamples, dict[str, Any] | None]:
    """The resamples behind the intervals, and whether residuals go on along r.

    Where they do, φ's interval under error structures stands beside that by `unit`, and the wider
    of the two is taken, for every number of the fit.
    """
    drawn = resample(problem, best, n, seed, unit)
    if "phi" not in problem.eta_names or problem.n <= best.theta.size:
        return drawn, None
    errors, _ = errors_of(problem, best)
    along = errors.along
    if along is None:
        return drawn, None
    at = problem.theta_names.index("phi")
    phi = float(best.theta[at])
    found: dict[str, Any] = {
        **asdict(along),
        "ci95_groups": drawn.interval(phi, drawn.theta[:, at]),
        "ci95_structures": None,
    }
    if along.asked_for:
        other = structured(problem, best, n, seed)
        found["ci95_structures"] = other.interval(phi, other.theta[:, at])
        if _width(found["ci95_structures"]) > _width(found["ci95_groups"]):
            drawn = other
    return drawn, found


def _along_warnings(fit: Fit) -> list[Warned]:
    found = fit.errors_along_r
    if not found or found["p_value"] >= ASKED:
        return []
    drawn = fit.fitted.resamples
    averaged = drawn is not None and drawn.unit == "structures"
    low, high = found["ci95_groups" if averaged else "ci95_structures"]
    made, other = ("averages over error structures", "by groups")
    if not averaged:
        made, other = ("is that by groups, the wider", "averaged over error structures")
    return [
        Warned(
            "errors_along_r",
            f"residuals go on along budgets at one r (correlation {found['correlation']:.2f} with "
            f"the next budget's, p = {found['p_value']:.2g}): the law misses the runs, and the "
            f"interval {made}; {other} it would be [{low:.3f}, {high:.3f}]",
        )
    ]


def _width(interval: Interval) -> float:
    return interval[1] - interval[0]


def _law_free(
    table: Runs, recipe: str, conventions: Conventions, problem: Problem
) -> tuple[LawFree | None, str | None]:
    """What a pass is worth without a law, by all the unlooped runs; or why there is none.

    A borrowing recipe takes the baseline's unlooped runs of every budget: the surface is the better
    for each. Regressed counts need two r at every width, so there the fit's own runs stay.
    """
    if conventions.count_injection != "regressed":
        rows, _ = table.of_recipe(recipe, all_budgets=True)
        problem = build(rows[rows["status"] == "done"], conventions)
    return law_free(problem)


def _r2(loss: Array, drawn: Array) -> float:
    spread = ((loss - loss.mean()) ** 2).sum()
    return float(1.0 - ((loss - drawn) ** 2).sum() / max(spread, 1e-300))


def _parameters(
    problem: Problem, best: Estimate, known: Identified, resamples: Resamples | None
) -> tuple[dict[str, float | None], dict[str, Interval | None]]:
    """Reported parameters and their intervals; None for what the runs can't tell."""
    values = {k: v[0] for k, v in problem.law.raw(best.theta[None], problem.design).items()}
    draws: dict[str, Array] = problem.law.raw(resamples.theta, problem.design) if resamples else {}
    at = len(problem.law.shape)
    for i, name in enumerate(problem.eta_names):
        values[name] = best.theta[at + i]
        if resamples:
            draws[name] = resamples.theta[:, at + i]
    params: dict[str, float | None] = {}
    ci95: dict[str, Interval | None] = {}
    for name, value in values.items():
        # an m(r) is fitted as its logarithm and reported as itself
        shown = f"m{name.removeprefix('log_m')}" if name.startswith("log_m") else name
        identified = name in known.names
        is_log = name.startswith("log_m")
        params[shown] = float(np.exp(value) if is_log else value) if identified else None
        ci95[shown] = None
        if identified and resamples:
            log = name in ("A", "B", "gamma", "tokens_ratio")
            low, high = resamples.interval(float(value), draws[name], log=log)
            ends = (float(np.exp(low)), float(np.exp(high))) if is_log else (low, high)
            if name == "E":  # which can't be negative
                ends = (max(low, 0.0), high)
            ci95[shown] = ends if np.isfinite(ends).all() else None
    found = known.optima
    if found is not None and len(found.phis) > 1 and ci95.get("phi"):
        low, high = ci95["phi"] or found.reach
        ci95["phi"] = (min(low, found.reach[0]), max(high, found.reach[1]))
    open_names = ["phi"] if problem.multiplicity.name == "power" else []
    open_names += [CONSTANTS[a] for a in CONSTANTS if a == problem.conventions.arms_differ]
    for name in open_names:
        params.setdefault(name, None)
        ci95.setdefault(name, None)
    return params, ci95


def _profile(
    problem: Problem, best: Estimate, known: Identified, resamples: Resamples | None
) -> Profile | None:
    if "phi" not in known.names:
        return None
    error = known.standard_errors["phi"]
    if resamples:
        error = max(error, resamples.standard_error(resamples.theta[:, len(problem.law.shape)]))
    return profile(problem, best, "phi", error)


def _method(problem: Problem, resamples: Resamples | None) -> str:
    if resamples is None:
        return "none (no resamples)"
    if resamples.unit == "structures":
        return "averaged over error structures, as residuals go on along r (docs/intervals.md)"
    if resamples.unit == "losses":
        return (
            "losses simulated from the fit with independent noise: standard error × Student's t, "
            f"{resamples.freedom:.3g} degrees of freedom"
        )
    units = "(recipe, r, budget) groups" if problem.budgets is not None else "runs"
    return (
        f"bootstrap over {resamples.n_units:g} {units}: standard error × Student's t, "
        f"{resamples.freedom:g} degrees of freedom"
    )


def _notes(problem: Problem, borrowed: str | None) -> list[str]:
    if borrowed is None:
        return []
    count = int((problem.frame["recipe"] == borrowed).sum())
    return [f"this recipe has no r = 1 runs of its own: it uses {count} of {borrowed}'s"]

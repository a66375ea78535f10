"""`compare`: did the loop get better, or did it see more tokens?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from isodepth.comparing.arms import Change
from isodepth.comparing.carry import carrier_of
from isodepth.comparing.channels import Channel, channels_of
from isodepth.comparing.forms import FORM_WORDS, FORMS, Split, change_of, delta_log_m, split_of
from isodepth.comparing.models_in_use import Inference, inference_of
from isodepth.comparing.multiplier import multipliers
from isodepth.comparing.pair import (
    Method,
    Pair,
    Sides,
    Start,
    cost_of,
    fit_pair,
    pair_of,
)
from isodepth.comparing.paired_runs import Paired, paired_of
from isodepth.comparing.result import Alternative, Comparison, Published
from isodepth.comparing.sharing import sharing_of
from isodepth.comparing.verdict import VERDICTS, sign_of, verdict_of, verdict_of_laws
from isodepth.counting import COUNTINGS, Counting, why_not_regressed
from isodepth.errors import InputError
from isodepth.fitting.estimate import estimate
from isodepth.fitting.fit import DEFAULT_RESAMPLES
from isodepth.fitting.law_free import Worth
from isodepth.fitting.problem import Conventions, Estimator
from isodepth.fitting.result import Interval
from isodepth.fitting.uncertainty import Resamples
from isodepth.laws import LAWS, LawName
from isodepth.minima import Group, isoflop
from isodepth.runs import Runs, load_runs
from isodepth.runs.groups import budgets_of
from isodepth.runs.table import BASELINE
from isodepth.warned import Warned

# arXiv 2604.21106, abstract; `in_code` what the notes of its released code say
PUBLISHED = {
    "truncated_bptt": Published(phi_baseline=0.46, phi_recipe=0.38, phi_recipe_in_code=0.35),
    "hyperconnections": Published(phi_baseline=0.46, phi_recipe=0.65, phi_recipe_in_code=0.66),
}
DEFAULT_METHOD: Method = "separate"
_SENSITIVITY_RESAMPLES = 200
_FEW_GROUPS = 21  # the smallest count at which the coverage of Δφ was measured

Progress = Callable[[str, float], None]


def compare(
    runs: Runs | str | Path | pd.DataFrame,
    *,
    recipe: str,
    baseline: str = BASELINE,
    method: Method = DEFAULT_METHOD,
    law: LawName = "additive",
    estimator: Estimator = "huber",
    count_injection: Counting = "once",
    huber_delta: float = 1e-3,
    bootstrap: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    vocab: int = 32064,
    sequence_length: int = 2048,
    on_progress: Progress | None = None,
) -> Comparison:
    """Compare a recipe with a baseline of the same run table.

    Parameters
    ----------
    runs: a table from `load_runs`, or what `load_runs` takes.
    recipe, baseline: names in the table's column `recipe`. A recipe without r = 1 runs borrows the
        baseline's at the budgets that it was run at.
    method: `separate`, a law of its own for each recipe; or `joint`, one law with two φ.
    law, estimator, count_injection, huber_delta, bootstrap, seed: as in `isodepth.fit`.
    vocab, sequence_length: of the models, for what they cost in use.
    on_progress: called with a stage's name and the share of the whole that is done.

    Raises InputError for an unusable table or choice, an unknown recipe, a recipe that is the
    baseline, has no loop, or shares no budget with it.
    """
    table = runs if isinstance(runs, Runs) else load_runs(runs)
    if isinstance(bootstrap, bool) or bootstrap < 0 or 0 < bootstrap < 50:
        raise InputError(f"bootstrap = {bootstrap} must be 0 or at least 50 resamples")
    for name, size in (("vocab", vocab), ("sequence_length", sequence_length)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"{name} = {size!r} must be a whole number of at least 1")
    if method not in get_args(Method):
        raise InputError(f"method {method!r} is not one of {', '.join(get_args(Method))}")
    conventions = Conventions(
        law=law, estimator=estimator, count_injection=count_injection, huber_delta=huber_delta
    )
    step = on_progress or (lambda stage, share: None)
    pair = pair_of(table, baseline, recipe, conventions)

    step(f"{recipe}: fits", 0.0)
    draws = pair.draw(bootstrap, seed) if bootstrap else None
    sides = fit_pair(pair, method, draws)[0]
    # the cost of looping is a question to the joint fit, whichever is reported
    joint = sides if method == "joint" else fit_pair(pair, "joint", None)[0]
    step(f"{recipe}: cost of looping", 0.3)
    cost = None
    if not sides.missing and not joint.missing:
        cost = cost_of(pair, np.append(joint.baseline.theta, joint.recipe.theta[-1]), draws)
    step(f"{recipe}: at equal r", 0.35)
    look, left_out = _at_equal_r(pair, sides, bootstrap, seed)
    step(f"{recipe}: compute", 0.42)
    shift, looping, exponents = multipliers(pair, sides, _minima(table, baseline, recipe))
    step(f"{recipe}: channels", 0.45)
    channels: tuple[Channel, ...] = ()
    if look is not None and "baseline" not in sides.missing:
        channels = channels_of(pair, sides.baseline, look.change, apart=look.apart)
    step(f"{recipe}: sensitivity", 0.5)
    rows = []
    if not sides.missing:
        rows = _sensitivity(table, pair, baseline, recipe, method, seed, bool(bootstrap))
    step(f"{recipe}: done", 1.0)

    phis, ci95 = _numbers(sides)
    delta = None if None in phis else sides.delta
    if look is not None and look.split is not None:
        verdict, more = verdict_of(look.split, look.paired, shift), None
    else:
        verdict, more = verdict_of_laws(
            delta, ci95["delta_phi"], pair.both.n, sides.missing, pair.borrowed
        )
    used: list[Inference] = []
    for name, problem, which in (
        (baseline, pair.tied[0], "baseline"),
        (recipe, pair.tied[1], "recipe"),
    ):
        found, why = inference_of(
            problem, name, channels, which, vocab=vocab, sequence_length=sequence_length
        )
        used += found
        left_out += [Warned("use_left_out", why)] if why else []
    result = Comparison(
        baseline=baseline,
        recipe=recipe,
        source=table.source,
        checksum=table.checksum,
        version=version("isodepth"),
        conventions=conventions,
        method=method,
        seed=seed,
        n_runs_baseline=pair.baseline.n,
        n_runs_recipe=pair.recipe.n,
        n_borrowed=pair.borrowed,
        phi_baseline=phis[0],
        phi_recipe=phis[1],
        delta_phi=delta,
        ci95=ci95,
        interval_method=_interval_method(pair, sides.recipe.resamples),
        n_resamples=bootstrap,
        verdict=verdict,
        more_runs=more,
        paired=None if look is None else look.paired,
        split=None if look is None else look.split,
        sharing=sharing_of(table.used, baseline, recipe),
        delta_log_m=() if look is None else look.delta_log_m,
        compute_multiplier=shift,
        looping=looping,
        exponents=exponents,
        channels=channels,
        inference=tuple(used),
        cost=cost,
        sensitivity=tuple(rows),
        published=PUBLISHED.get(recipe) if _is_shipped(table, baseline) else None,
        assumptions=_assumptions(pair, method, more, sequence_length if used else None),
        warnings=(),
    )
    return replace(result, warnings=(*_warnings(result, pair, sides), *left_out))


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A recipe beside its baseline at equal r."""

    split: Split
    paired: Paired
    delta_log_m: tuple[Worth, ...]
    change: Change  # at the optimum and at every resample of the laws
    apart: bool  # whether Δφ is identified in it


def _at_equal_r(
    pair: Pair, sides: Sides, bootstrap: int, seed: int
) -> tuple[_Look | None, list[Warned]]:
    """The comparison without unlooped runs; or None, and what was left out."""
    own = np.flatnonzero((pair.recipe.frame["recipe"] == pair.own_name).to_numpy())
    phi = None if "baseline" in sides.missing else sides.phis[0]
    carrier, said = carrier_of(pair.baseline, pair.recipe, own.tolist(), phi)
    warned = [Warned("not_paired", text) for text in said]
    if carrier is None:
        return None, warned
    base = pair.baseline
    misfit = np.log(base.predict(sides.baseline.theta)[0]) if sides.method == "separate" else None
    if misfit is None:
        misfit = np.log(base.predict(estimate(base).theta)[0])
    split = split_of(carrier, float(np.sqrt(((base.log_loss - misfit) ** 2).mean())))
    if split is None:
        few = f"{carrier.r.size} runs are too few to fit a form of the difference"
        return None, [*warned, Warned("not_paired", few)]
    terms = FORMS[split.form]
    carried = carrier.solved(terms, go_along=split.go_along)
    assert carried is not None  # it was fitted before
    change, apart = change_of(carrier, split, bootstrap, seed)
    return (
        _Look(
            split=split,
            paired=paired_of(carrier, terms, carried, None if sides.missing else sides.delta),
            delta_log_m=delta_log_m(carrier, split),
            change=change,
            apart=apart,
        ),
        warned,
    )


def _minima(table: Runs, baseline: str, recipe: str) -> tuple[Group, ...]:
    """Of the iso-FLOP groups of both recipes; () where the runs carry no budgets."""
    frame = table.used
    frame = frame[frame["recipe"].isin([baseline, recipe])]
    return () if budgets_of(frame) is None else isoflop(replace(table, frame=frame)).groups


def _numbers(sides: Sides) -> tuple[list[float | None], dict[str, Interval | None]]:
    """(φ of the baseline, φ of the recipe) and every interval; None for what can't be told."""
    phis: list[float | None] = []
    ci95: dict[str, Interval | None] = {}
    for name, law, phi in zip(
        ("baseline", "recipe"), (sides.baseline, sides.recipe), sides.phis, strict=True
    ):
        told = name not in sides.missing
        phis.append(phi if told else None)
        drawn = law.resamples
        ci95[f"phi_{name}"] = drawn.interval(phi, drawn.theta[:, -1]) if told and drawn else None
    drawn = sides.recipe.resamples
    ci95["delta_phi"] = (
        drawn.interval(sides.delta, sides.delta_draws) if drawn and not sides.missing else None
    )
    return phis, ci95


def _is_shipped(table: Runs, baseline: str) -> bool:
    return baseline == BASELINE and table.checksum == load_runs("published").checksum


def _interval_method(pair: Pair, resamples: Resamples | None) -> str:
    if resamples is None:
        return "none (no resamples)"
    if resamples.unit == "losses":
        return (
            "losses simulated from the fits with independent noise, as large for both recipes and "
            f"the same for runs they share: standard error × Student's t, {resamples.freedom:.3g} "
            "degrees of freedom"
        )
    units = "(recipe, r, budget) groups" if pair.both.budgets is not None else "runs"
    return (
        f"bootstrap over {pair.n_units} {units}, the same resample for both recipes: standard "
        f"error × Student's t, {resamples.freedom:g} degrees of freedom"
    )


def _sensitivity(
    table: Runs, pair: Pair, baseline: str, recipe: str, method: Method, seed: int, intervals: bool
) -> list[Alternative]:
    """Δφ under every law × estimator × counting, then by the other method and borrowing."""
    draws = pair.draw(_SENSITIVITY_RESAMPLES, seed) if intervals else None
    starts: dict[str, Start] = {}
    own = "own budgets" if pair.borrowed else "own runs"
    rows = []
    for conventions in _conventions(pair):
        other = pair.with_conventions(conventions)
        sides, ended = fit_pair(other, method, draws, starts.get(conventions.law))
        starts.setdefault(conventions.law, ended)
        rows.append(_alternative(sides, conventions, own))
    methods: tuple[Method, ...] = get_args(Method)
    for other_method in methods:
        if other_method != method:
            sides, _ = fit_pair(pair, other_method, draws)
            rows.append(_alternative(sides, pair.both.conventions, own))
    if pair.borrowed and method == "separate":
        conventions = pair.both.conventions
        if conventions.count_injection == "regressed":
            # borrowed runs of other budgets may have widths at which the recipe has no second r
            conventions = replace(conventions, count_injection="once")
        wider = pair_of(table, baseline, recipe, conventions, all_budgets=True)
        sides, _ = fit_pair(wider, method, draws)
        rows.append(_alternative(sides, conventions, "all budgets"))
    return rows


def _conventions(pair: Pair) -> list[Conventions]:
    estimators: tuple[Estimator, ...] = get_args(Estimator)
    can_regress = not any(why_not_regressed(p.frame) for p in (pair.baseline, pair.recipe))
    return [
        replace(pair.both.conventions, law=law, estimator=estimator, count_injection=counting)
        for law in LAWS
        for estimator in estimators
        for counting in COUNTINGS
        if counting != "regressed" or can_regress
    ]


def _alternative(sides: Sides, conventions: Conventions, borrowed: str) -> Alternative:
    phis, ci95 = _numbers(sides)
    return Alternative(
        method=sides.method,
        law=conventions.law,
        estimator=conventions.estimator,
        count_injection=conventions.count_injection,
        borrowed=borrowed,
        phi_baseline=phis[0],
        phi_recipe=phis[1],
        delta_phi=None if None in phis else sides.delta,
        ci95=ci95["delta_phi"],
    )


def _assumptions(
    pair: Pair, method: Method, more: int | None, sequence_length: int | None
) -> tuple[str, ...]:
    said = []
    if pair.borrowed:
        said.append(
            f"{pair.own_name} has no r = 1 runs of its own: it uses {pair.borrowed} of the "
            "baseline's, so one unlooped model serves both"
        )
    said.append(
        "the laws' Δφ: each recipe has its own E, A, α, B, β"
        if method == "separate"
        else "the laws' Δφ: one law for both recipes, which differ in φ alone"
    )
    said.append(
        "at equal r: the baseline's runs give a smooth surface at every r, and the recipe differs "
        "from it by one of the forms listed; the loss change is split by the form that holds"
    )
    if more is not None:
        said.append(
            "more runs: the interval narrows as 1/√n, n all runs compared, and Δφ stays what it is"
        )
    if sequence_length is not None:
        said.append(
            f"in use: forward FLOPs at sequences of {sequence_length} tokens, attention not halved "
            "for causality; key-value cache in bf16, every pass keeping its own"
        )
    return tuple(said)


def _warnings(result: Comparison, pair: Pair, sides: Sides) -> list[Warned]:
    doubts = [one.warned for one in pair.both.doubts if not one.withholds]
    said = [
        *dict.fromkeys(doubts),
        *(
            Warned(sides.codes[name], f"φ of the {name} is not identified: {why}")
            for name, why in sides.missing.items()
        ),
    ]

    def warn(code: str, text: str) -> None:
        said.append(Warned(code, text))

    if not sides.converged:
        warn("not_converged", "the optimiser did not converge: treat no number here as final")
    split = result.split
    if split is not None and split.delta_phi is not None and split.sign is None:
        listed = ", ".join(
            f"{c.delta_phi.value:+.3f} [{c.delta_phi.ci95[0]:+.3f}, {c.delta_phi.ci95[1]:+.3f}] "
            f"with {FORM_WORDS[c.form]}"
            for c in split.counted
            if c.delta_phi is not None
        )
        warn(
            "delta_phi_depends_on_form",
            f"Δφ is not identified: its sign depends on what else {result.recipe} may change: "
            f"{listed}",
        )
    if pair.borrowed and split is None and result.delta_phi is not None:
        warn(
            "borrowed_unlooped",
            f"{result.recipe} borrows its r = 1 runs, and can't be compared at equal r: a gain of "
            "it at every r would be counted as φ",
        )
    if result.delta_phi is None:
        return said
    cost = result.cost
    if cost and cost.asked_for:
        verb = "costs" if cost.kappa < 1 else "gains"
        warn(
            "cost_of_looping",
            f"r^φ is not the whole difference: looping {result.recipe} at all {verb} a factor κ = "
            f"{cost.kappa:.2f}{_ends(cost.kappa_ci95, '.2f')} of the block's worth, whatever r "
            f"(BIC lower by {cost.bic_gain:.0f}); with κ in the joint fit Δφ, then a slope among "
            f"r > 1, is {cost.delta_phi:+.3f}{_ends(cost.delta_phi_ci95, '+.3f')}",
        )
    said += _survival(result)
    drawn = sides.recipe.resamples
    if drawn is not None and drawn.unit == "losses":
        warn(
            "independent_noise",
            "a φ hangs on one group of runs, so groups can't be resampled: the intervals suppose "
            "that noise is independent between runs, and are too narrow if runs of a group share "
            "it",
        )
    elif result.ci95["delta_phi"] is not None and pair.n_units < _FEW_GROUPS:
        warn(
            "few_groups",
            f"{pair.n_units} groups of runs are fewer than the {_FEW_GROUPS} at which the "
            "interval's coverage was measured: it may cover less than 95%",
        )
    if not result.channels:
        warn(
            "not_split",
            "the runs name no shared budget, so the loss change at equal compute is not split",
        )
    beyond = [c for c in result.channels if c.baseline.beyond or c.recipe.beyond]
    if beyond:
        warn(
            "extrapolated",
            f"{len(beyond)} of {len(result.channels)} compute-optimal models lie beyond the sizes "
            "that were run at their r: the law is extrapolated there",
        )
    return said


def _survival(result: Comparison) -> list[Warned]:
    """Does the sign of Δφ, and its being told from 0, survive other choices?"""
    told = [a for a in result.sensitivity if a.delta_phi is not None and a.ci95 is not None]
    if not told:
        return []
    counted = {k: sum(sign_of(a.ci95) == k for a in told) for k in VERDICTS}
    if max(counted.values()) == len(told):
        return []
    listed = ", ".join(f"{VERDICTS[k]} in {n}" for k, n in counted.items() if n)
    values = [a.delta_phi for a in told if a.delta_phi is not None]
    return [
        Warned(
            "choice_matters",
            f"the verdict leans on the choices: of {len(told)} combinations tried, {listed}; Δφ "
            f"runs from {min(values):+.3f} to {max(values):+.3f}",
        )
    ]


def _ends(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"

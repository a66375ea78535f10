"""`isodepth measure --target-ci`: batches of runs, each planned from those before it.

A round fits the runs that are there, and either stops, saying why, or plans the next batch: the
rest of the design that the fitted law and the runs' own noise call for, its most telling runs
first, up to as much again as was spent. Everything follows from the ledger, so that a round that
was interrupted comes out the same when it is done again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from isodepth.errors import InputError
from isodepth.files import replace_synced
from isodepth.fitting import Fit, fit
from isodepth.planning.candidates import candidates_of_runs
from isodepth.planning.supposed import supposed
from isodepth.planning.worlds import worlds
from isodepth.runs import Runs
from isodepth.sweep.plan import Plan, PlannedRun
from isodepth.sweep.spec import Spec
from isodepth.sweep.target import Wish, plan_for, recipe_of

ROUNDS_FILE = "rounds.json"
_HOUR = 3600.0  # seconds
# The first batch is the design for this many times the target: about a quarter of its cost, which
# is well spent where the supposed law is wrong, and tells the law and the noise for the rest.
_FIRST = 2.0
_LEAST_FIRST = 12  # runs it may have, whatever max_runs is: the laws have 6 and 7 parameters
# Without limits of the user's it ends at this many times the FLOPs first expected.
_PATIENCE = 3.0
# Out of reach is what the whole rest of the limits is expected to leave wider than this many times
# the target; less is no reason to give up, because expectations are off by tens of percent.
_HOPELESS = 1.25
# Where the fit's interval is wider than the design expects of the same runs, it is supposed to stay
# so, up to this many times: beyond it is chance of a few runs, which more will mend. Where it is
# narrower, that is taken for chance: few runs that happen to lie on a line.
_WIDER = 2.0
_PROGRESS = 0.8  # of the half-width expected now, at most, is what a round plans for


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the rounds are for."""

    wish: Wish  # with a half-width
    bootstrap: int  # resamples behind the intervals
    seed: int  # of the resampling

    @property
    def half_width(self) -> float:
        """Of φ's 95% interval."""
        assert self.wish.half_width is not None
        return self.wish.half_width


@dataclass(frozen=True, kw_only=True)
class Round:
    """What the runs so far give, and what was decided."""

    n_runs: int  # finished
    flops: float  # training FLOPs of all that are planned so far
    hours: float  # estimated, of the same on the plan's device
    phi: float | None
    half_width: float | None  # of the fit's 95% interval; None: φ is not identified
    expected: float | None  # half-width that the design expects of them; None: they can't tell φ
    added: int  # runs of the next batch; 0: it ends here
    reached: bool
    why: str  # it goes on or ends


def first_batch(spec: Spec, wish: Wish, fits: list[Fit]) -> Plan:
    """The first runs, from supposed laws. Raises InputError as `plan_for`."""
    assert wish.half_width is not None
    if len(spec.recipes) > 1:
        names = ", ".join(recipe.name for recipe in spec.recipes)
        raise InputError(
            f"rounds are for φ of one recipe, not for {names}: choose by --recipes; "
            "`isodepth plan` designs for Δφ"
        )
    few = None if wish.max_runs is None else max(wish.max_runs // 2, _LEAST_FIRST)
    small = replace(
        wish,
        half_width=_FIRST * wish.half_width,
        gpu_hours=None if wish.gpu_hours is None else wish.gpu_hours / 2,
        max_runs=None if wish.max_runs is None or few is None else min(wish.max_runs, few),
    )
    try:
        return plan_for(spec, small, fits)
    except InputError:  # half of the limits can't tell φ; all of them may
        return plan_for(spec, replace(wish, half_width=small.half_width), fits)


def next_batch(plan: Plan, runs: Runs, goal: Goal, before: tuple[Round, ...]) -> tuple[Round, Plan]:
    """What the runs say, and the plan with the next batch; the plan itself where it ends.

    plan: all runs so far, each of which has ended. runs: their table. before: earlier rounds.
    Raises InputError where the table can't be fitted.
    """
    recipe = recipe_of(runs, plan.spec)
    phi, half = _phi(runs, recipe, goal)
    told = supposed(runs, recipe)
    noises = goal.wish.noises or told.noises
    done = runs.of_recipe(recipe)[0].query("status == 'done'")
    made = candidates_of_runs(done)
    known = worlds(made, told.fits, noises=noises, at_budget=goal.wish.at_budget)
    now = known.half_width(np.ones(len(done)))
    state = Round(
        n_runs=len(done),
        flops=plan.flops,
        hours=plan.seconds / _HOUR,
        phi=phi,
        half_width=half,
        expected=now if np.isfinite(now) else None,
        added=0,
        reached=half is not None and max(half, now) <= goal.half_width,
        why="",
    )
    if state.reached:
        return replace(state, why=f"as narrow as the ± {goal.half_width:g} wanted"), plan
    ratio = 1.0 if half is None else float(np.clip(half / now, 1.0, _WIDER))
    aim = min(goal.half_width / ratio, _PROGRESS * now)
    left = _left(plan, goal.wish)
    if isinstance(left, str):
        return replace(state, why=left), plan
    try:
        rest = plan_for(
            plan.spec,
            replace(left, half_width=aim, noises=noises, made=runs),
            told.fits,
        )
    except InputError as error:
        return replace(state, why=str(error)), plan
    why_not = _hopeless(plan, rest, ratio, goal, before)
    if why_not is not None:
        return replace(state, why=why_not), plan
    batch, promised = _batch(plan, rest)
    why = f"{len(batch)} more runs are expected to bring φ ± {promised * ratio:.3f}"
    grown = replace(plan, runs=plan.runs + batch, prediction=rest.prediction)
    return replace(state, added=len(batch), why=why), grown


def _phi(runs: Runs, recipe: str, goal: Goal) -> tuple[float | None, float | None]:
    """φ and half of its interval, at the budget where it is wanted; None: not identified."""
    budget = goal.wish.at_budget
    fitted = fit(
        runs,
        recipe=recipe,
        bootstrap=goal.bootstrap,
        seed=goal.seed,
        sensitivity=False,
        at_budgets=() if budget is None else (budget,),
    )
    phi, ends = fitted.phi, fitted.ci95.get("phi")
    if fitted.drift is not None:
        at = fitted.drift["at"]
        phi, ends = (at[0]["phi"], at[0]["ci95"]) if at else (None, None)
    if phi is None or ends is None:
        return None, None
    return phi, (ends[1] - ends[0]) / 2


def _left(plan: Plan, wish: Wish) -> Wish | str:
    """The wish with what is left of its limits, or that nothing is."""
    hours = None if wish.gpu_hours is None else wish.gpu_hours - plan.seconds / _HOUR
    number = None if wish.max_runs is None else wish.max_runs - len(plan.runs)
    for left, limit in ((hours, f"{wish.gpu_hours} hours"), (number, f"{wish.max_runs} runs")):
        if left is not None and left <= 0:
            return f"the {limit} allowed are used up"
    return replace(wish, gpu_hours=hours, max_runs=number)


def _hopeless(
    plan: Plan, rest: Plan, ratio: float, goal: Goal, before: tuple[Round, ...]
) -> str | None:
    """Why the interval will never be as narrow as wanted, where that is to be expected."""
    assert rest.prediction is not None
    end = rest.prediction.half_width * ratio
    if end > _HOPELESS * goal.half_width:
        limits = " and ".join(goal.wish.limits(plan.spec)) or "any number of these runs"
        return (
            f"± {goal.half_width:g} is out of reach: all that {limits} still allow, "
            f"{len(rest.runs)} more runs, is expected to bring φ ± {end:.3f}; allow more, or name "
            "a wider interval"
        )
    if goal.wish.gpu_hours is None and goal.wish.max_runs is None:
        first = before[0].flops if before else plan.flops
        most = _PATIENCE * _FIRST**2 * first
        if plan.flops + rest.flops > most:
            return (
                f"± {goal.half_width:g} takes {rest.flops:.3g} FLOPs more, in all above "
                f"{_PATIENCE:g} times what was first expected: name --gpu-hours or --max-runs to "
                "go on"
            )
    return None


def _batch(plan: Plan, rest: Plan) -> tuple[tuple[PlannedRun, ...], float]:
    """The most telling runs of the rest, up to the FLOPs spent so far, and what they promise."""
    assert rest.prediction is not None
    by_name = {run.run_id: run for run in rest.runs}
    there = {run.run_id for run in plan.runs}
    batch: list[PlannedRun] = []
    promised = np.inf
    for name, half in rest.prediction.steps:
        if batch and sum(run.flops for run in batch) + by_name[name].flops > plan.flops:
            break
        if name in there:
            raise InputError(f"the records name other widths or budgets than the plan's: {name}")
        batch.append(by_name[name])
        promised = half
    return tuple(batch), promised


def load_rounds(folder: Path) -> tuple[Round, ...]:
    """The rounds that a sweep's folder remembers; none where it remembers none."""
    try:
        saved = json.loads((folder / ROUNDS_FILE).read_text(encoding="utf-8"))
        return tuple(Round(**one) for one in saved)
    except (OSError, ValueError, TypeError):
        return ()


def save_rounds(rounds: tuple[Round, ...], folder: Path) -> None:
    """Write the rounds. Raises InputError where the folder can't be written."""
    file = folder / ROUNDS_FILE
    try:
        replace_synced(file, json.dumps([asdict(one) for one in rounds], indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{file} can't be written: {error.strerror}") from error

"""A plan made for an interval: the cheapest runs expected to give it, within limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.laws import Integers
from isodepth.planning.candidates import candidate_cells, candidates_of, candidates_of_runs
from isodepth.planning.choice import Choice, best_for, cheapest, choice_of
from isodepth.planning.contrast import contrast
from isodepth.planning.design import Limits, Worlds
from isodepth.planning.equal_r import equal_r, law_free_widths
from isodepth.planning.grid import Cell
from isodepth.planning.next import Step, in_order
from isodepth.planning.resolution import resolution
from isodepth.planning.worlds import Candidates, drift_half_width, worlds
from isodepth.runs import Runs
from isodepth.runs.table import DUPLICATE
from isodepth.sweep.plan import Plan, Prediction, Resolves, plan_of_cells
from isodepth.sweep.spec import Spec

_HOUR = 3600.0  # seconds
_MOST_HOURS = 1e12  # of a device


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted of a design, and what it may cost; at least one of the first three."""

    half_width: float | None  # of the 95% interval of φ, or of Δφ; None: the narrowest
    at_budget: float | None  # FLOPs at which φ is wanted if it may drift; None: one φ for all
    gpu_hours: float | None  # of the spec's device, new runs together; None: FLOPs are saved
    next_runs: int | None = None  # instead of both: that many, each the best after those before
    max_runs: int | None  # new ones; None: any number
    max_replicates: int | None  # new ones of one size and budget; None: any number
    width_multiple: int | None  # of every width; None: of the head size
    noises: tuple[float, ...]  # supposed standard deviations of the log loss
    check_share: float  # of the cost, held for checking the law (`planning.choice.best_for`)
    made: Runs | None = None  # what is there already, and counts at no cost
    every_r: bool = False  # hold a run at every r: the supposed fit doubts r^φ

    def limits(self, spec: Spec) -> tuple[str, ...]:
        """What the runs must keep to, in words."""
        said = []
        if self.gpu_hours is not None:
            said.append(f"{self.gpu_hours:g} hours of {spec.device}")
        if self.max_runs is not None:
            said.append(f"{self.max_runs} runs")
        if self.max_replicates is not None:
            said.append(f"at most {self.max_replicates} of a kind")
        return tuple(said)


def plan_for(spec: Spec, wish: Wish, fits: list[Fit]) -> Plan:
    """The cheapest plan whose predicted 95% interval for φ, or Δφ, is as narrow as wished.

    Cheapest in training FLOPs, or in hours of the device where the wish limits those. Where the
    limits can't give the interval, the plan is the narrowest within them, and its prediction says
    so. Of `wish.made`, finished runs count; a size and budget that failed or diverged is not tried
    again. fits: the supposed laws (`planning.worlds.prior`), the first of which places the widths
    of budgets that name none.
    Δφ is that of the spec's second recipe, which shares the r = 1 runs of the first.
    Raises InputError for a spec of more recipes than wished for, adaptive or with replicates of its
    own, where no choice of runs within the limits can tell φ, and where the runs made give the
    interval.
    """
    _check(spec, wish)
    device = spec.processor
    made = {} if wish.made is None else _made(wish.made, spec)
    cells = candidate_cells(
        spec.recipes,
        spec.budgets,
        spec.shape,
        fits[0],
        device,
        width_multiple=wish.width_multiple,
    )
    if made:
        cells = [
            cell for cell in cells if _same(cell, made)["status"].isin(["done", DUPLICATE]).all()
        ]
    candidates = candidates_of(cells, timed_on=None if wish.gpu_hours is None else device)
    if len(spec.recipes) == 2:
        names = np.array([cell.recipe.name for cell in cells])
        candidates = replace(candidates, second=names == spec.recipes[1].name)
    else:
        candidates = replace(candidates, phi=fits[0].phi)
    if made:
        candidates = replace(candidates, made=_known(made, spec))
    found = _choose(wish, candidates, fits)
    seeds = [_first_seed(cell, made) if made else 0 for cell in cells]
    chosen = [
        replace(cell, seed=seed)
        for cell, first, count in zip(cells, seeds, found.choice.counts, strict=True)
        for seed in range(first, first + count)
    ]
    return replace(
        plan_of_cells(spec, chosen),
        prediction=_prediction(spec, wish, found, cells, seeds, candidates, fits),
    )


def without_law(plan: Plan, wish: Wish, fits: list[Fit]) -> Plan:
    """The plan, its prediction telling as well what its runs give without a law.

    Arguments as in `plan_for`, which made it.
    """
    assert plan.prediction is not None
    runs = pd.DataFrame([asdict(run) for run in plan.runs])
    names = [recipe.name for recipe in plan.spec.recipes]
    own = [runs[runs["recipe"] == name] for name in names]
    if wish.made is not None:
        made = _made(wish.made, plan.spec)
        own = [
            pd.concat([made[name][made[name]["status"] == "done"], rows], ignore_index=True)
            for name, rows in zip(names, own, strict=True)
        ]
    return replace(
        plan,
        prediction=replace(
            plan.prediction,
            law_free=law_free_widths(own[0], fits, wish.noises),
            equal_r=equal_r(own[0], own[1], fits, wish.noises) if len(own) == 2 else None,
        ),
    )


def _made(runs: Runs, spec: Spec) -> dict[str, pd.DataFrame]:
    """Every run made of each of the spec's recipes, by the spec's name of it."""
    baseline = recipe_of(runs, spec)
    found = {spec.recipes[0].name: runs.of_recipe(baseline)[0]}
    for other in spec.recipes[1:]:
        if other.name == baseline:
            raise InputError(f"{runs.source} holds {other.name} only, and no baseline for it")
        found[other.name] = runs.frame[runs.frame["recipe"] == other.name]
        if (found[other.name]["recurrences"] == 1).any():
            raise InputError(
                f"{runs.source}: {other.name} has r = 1 runs of its own, and a design for Δφ "
                "supposes that it shares the baseline's"
            )
    return found


def _known(made: dict[str, pd.DataFrame], spec: Spec) -> Candidates:
    """What the finished ones tell."""
    every = pd.concat(made.values())
    second = np.repeat(np.arange(len(made)), [len(rows) for rows in made.values()]) == 1
    done = (every["status"] == "done").to_numpy()
    found = candidates_of_runs(every[done])
    return replace(found, second=second[done]) if len(spec.recipes) == 2 else found


def recipe_of(runs: Runs, spec: Spec) -> str:
    """What the table calls the spec's recipe. Raises InputError where that is not clear."""
    name = spec.recipes[0].name
    return runs.choose(name if name in runs.recipes else None)


def _same(cell: Cell, made: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The runs made of a cell, where the table says so much."""
    rows = made[cell.recipe.name]
    if not {"width", "budget_flops"} <= set(rows.columns):
        return rows.iloc[:0]
    return rows[
        (rows["recurrences"] == cell.recurrences)
        & (rows["width"] == cell.width)
        & np.isclose(rows["budget_flops"], cell.budget_flops)
    ]


def _first_seed(cell: Cell, made: dict[str, pd.DataFrame]) -> int:
    """The first seed that no run made of the cell has."""
    same = _same(cell, made)
    seeds = same["seed"].dropna() if "seed" in same else same["width"].iloc[:0]
    return max([len(same), *(int(seed) + 1 for seed in seeds)])


def _check(spec: Spec, wish: Wish) -> None:
    names = ", ".join(recipe.name for recipe in spec.recipes)
    if len(spec.recipes) > 2:
        raise InputError(
            f"a target interval is for φ of one recipe or Δφ of two, not {names}: choose by "
            "--recipes"
        )
    if len(spec.recipes) == 2 and wish.at_budget is not None:
        raise InputError(f"--at-budget is for φ of one recipe, not for Δφ of {names}")
    if any(recipe.untied for recipe in spec.recipes):
        raise InputError(f"a target interval is for looped recipes, and of {names} one is untied")
    if spec.adaptive or spec.seeds != 1:
        raise InputError("a target interval chooses widths and replicates: no --adaptive or seeds")
    for name in ("max_runs", "max_replicates"):
        value = getattr(wish, name)
        if value is not None and value < 1:
            raise InputError(f"{name} = {value} must be at least 1")
    if wish.next_runs is not None:
        if wish.made is None:
            raise InputError("the next runs follow from runs that are there: give --runs")
        if wish.half_width is not None or wish.gpu_hours is not None or wish.max_runs is not None:
            raise InputError(
                "the next runs are counted: no --target-ci, --gpu-hours or --max-runs beside --next"
            )
        if wish.next_runs < 1:
            raise InputError(f"next = {wish.next_runs} must be at least 1")
    if wish.gpu_hours is not None and not 0 < wish.gpu_hours <= _MOST_HOURS:
        raise InputError(
            f"gpu_hours = {wish.gpu_hours:g} must be a positive number, up to {_MOST_HOURS:g}"
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    choice: Choice
    needed: float | None  # cost of the target without the limit on hours, where that binds
    steps: tuple[Step, ...]  # the chosen runs, the most telling first; where some are there already
    before: float | None  # half-width that the runs made already give


def _worlds(wish: Wish, candidates: Candidates, fits: list[Fit]) -> Worlds:
    """In which the number wanted is φ, or Δφ."""
    if candidates.second is None:
        return worlds(candidates, fits, noises=wish.noises, at_budget=wish.at_budget)
    return contrast(candidates, fits, noises=wish.noises)


def _choose(wish: Wish, candidates: Candidates, fits: list[Fit]) -> _Found:
    supposed = _worlds(wish, candidates, fits)
    if candidates.made is None:
        choice, needed = _best(wish, candidates, supposed)
        return _Found(choice=choice, needed=needed, steps=(), before=None)
    before = supposed.half_width(np.zeros(candidates.flops.size))
    if wish.half_width is not None and before <= wish.half_width:
        raise InputError(
            f"nothing to buy: the {supposed.n_known} runs that are there are expected to give "
            f"{_wanted(candidates)} ± {before:.3g} already"
        )
    cost = candidates.cost
    if wish.next_runs is not None:
        full = wish.max_replicates
        among = None if full is None else np.full(cost.size, full)
        steps = in_order(supposed, cost, wish.next_runs, among=among)
        counts = np.bincount([step.index for step in steps], minlength=cost.size)
        return _Found(
            choice=choice_of(supposed, candidates, counts), needed=None, steps=steps, before=before
        )
    choice, needed = _best(wish, candidates, supposed)
    steps = in_order(supposed, cost, choice.n_runs, among=choice.counts)
    return _Found(choice=choice, needed=needed, steps=steps, before=before)


def _best(wish: Wish, candidates: Candidates, supposed: Worlds) -> tuple[Choice, float | None]:
    """The runs, and what the target would cost without the limit on hours where that binds."""
    limits = Limits(
        max_runs=wish.max_runs, max_replicates=wish.max_replicates, every_r=wish.every_r
    )
    share = wish.check_share
    needed = None
    if wish.half_width is not None:
        choice = cheapest(supposed, candidates, wish.half_width, limits=limits, check_share=share)
        if wish.gpu_hours is None or choice.cost <= wish.gpu_hours * _HOUR:
            return choice, None
        needed = choice.cost if choice.half_width <= wish.half_width else None
    assert wish.gpu_hours is not None
    spend = wish.gpu_hours * _HOUR
    if spend < candidates.cost.min():
        raise InputError(
            f"{wish.gpu_hours:g} hours don't hold the shortest run, of "
            f"{candidates.cost.min() / _HOUR:.3g}; allow more hours or smaller budgets"
        )
    choice = best_for(supposed, candidates, spend, limits=limits, check_share=share)
    if not choice.tells:
        raise InputError(
            f"{wish.gpu_hours:g} hours buy {choice.n_runs} runs of these budgets, which can't "
            "tell φ; allow more hours, more runs or smaller budgets"
        )
    return choice, needed


def _prediction(
    spec: Spec,
    wish: Wish,
    found: _Found,
    cells: list[Cell],
    seeds: list[int],
    candidates: Candidates,
    fits: list[Fit],
) -> Prediction:
    choice, needed = found.choice, found.needed
    taken = list(seeds)
    steps = []
    for step in found.steps:
        cell = replace(cells[step.index], seed=taken[step.index])
        taken[step.index] += 1
        steps.append((cell.name, step.half_width))
    laws = ", ".join(
        f"{one.conventions.law} (φ = {one.fitted.theta[one.fitted.theta_names.index('phi')]:.3f})"
        for one in fits
    )
    in_flops = wish.gpu_hours is None
    unit = 1.0 if in_flops else _HOUR
    return Prediction(
        of=_wanted(candidates),
        target=wish.half_width,
        half_width=choice.half_width,
        resolves=_resolves(wish, candidates, fits, choice.counts),
        by_world=choice.by_world,
        n_candidates=int(candidates.flops.size),
        unit="FLOPs" if in_flops else "GPU-hours",
        bound=choice.bound / unit,
        held=float(choice.held @ candidates.cost) / unit,
        limits=wish.limits(spec),
        needed=None if needed is None else needed / unit,
        before=found.before,
        at_budget=wish.at_budget,
        drift_half_width=drift_half_width(candidates, fits, choice.counts, noises=wish.noises)
        if candidates.second is None
        and (candidates.made is None or np.isfinite(candidates.made.budget_flops).all())
        else None,
        steps=tuple(steps),
        assumptions=(
            f"laws: {laws}, fitted to {fits[0].source} ({fits[0].recipe})"
            + ("" if fits[0].fitted.resamples is None else " and its resamples"),
            f"noise of log loss: {', '.join(f'{noise:.3g}' for noise in wish.noises)} (standard "
            "deviation), normal, the same for every run, independent between runs",
            f"estimator: {fits[0].conventions.estimator}; Student's t with as many degrees "
            "of freedom as its noise is told by; small changes of the parameters (delta method)",
            *(() if candidates.second is None else (_of_two(spec),)),
        ),
        cannot_tell=choice.unmet,
    )


def _wanted(candidates: Candidates) -> Literal["φ", "Δφ"]:
    """The number that the interval is of."""
    return "φ" if candidates.second is None else "Δφ"


def _resolves(
    wish: Wish, candidates: Candidates, fits: list[Fit], counts: Integers
) -> dict[str, Resolves]:
    """What counts (n,) of the candidates tell of Δφ, by either method of `compare`."""
    if candidates.second is None:
        return {}
    separate = contrast(candidates, fits, noises=wish.noises)
    found = {"separate": separate, "joint": separate.joint}
    return {
        name: Resolves(half_width=one.half_width, smallest=one.smallest)
        for name, one in ((name, resolution(way, counts)) for name, way in found.items())
    }


def _of_two(spec: Spec) -> str:
    first, second = (recipe.name for recipe in spec.recipes)
    return (
        f"Δφ of {second} against {first}, a law for each (`isodepth compare`); both follow the "
        f"laws supposed, with about the same φ; {second} shares the r = 1 runs of {first}"
    )

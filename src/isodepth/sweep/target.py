"""A plan made for an interval: the cheapest runs expected to give it, within limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.planning.candidates import candidate_cells, candidates_of
from isodepth.planning.choice import Choice, best_for, cheapest
from isodepth.planning.design import Limits
from isodepth.planning.worlds import Candidates, worlds
from isodepth.sweep.plan import Plan, Prediction, plan_of_cells
from isodepth.sweep.spec import Spec

_HOUR = 3600.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted of a design, and what it may cost. At least one of the first two is given."""

    half_width: float | None  # of φ's 95% interval; None: the narrowest for the hours
    gpu_hours: float | None  # of the spec's device, all runs together; None: FLOPs are saved
    max_runs: int | None  # in all; None: any number
    width_multiple: int | None  # of every width; None: of the head size
    noises: tuple[float, ...]  # supposed standard deviations of the log loss
    check_share: float  # of the cost, held for checking the law (`planning.choice.best_for`)

    def limits(self, spec: Spec) -> tuple[str, ...]:
        """What the runs must keep to, in words."""
        said = []
        if self.gpu_hours is not None:
            said.append(f"{self.gpu_hours:g} hours of {spec.device}")
        if self.max_runs is not None:
            said.append(f"{self.max_runs} runs")
        return tuple(said)


def plan_for(spec: Spec, wish: Wish, fits: list[Fit]) -> Plan:
    """The cheapest plan whose predicted 95% interval for φ is as narrow as wished.

    Cheapest in training FLOPs, or in hours of the device where the wish limits those. Where the
    limits can't give the interval, the plan is the narrowest within them, and its prediction says
    so. fits: the supposed laws (`planning.worlds.prior`), the first of which places the widths of
    budgets that name none.
    Raises InputError for a spec of several recipes, adaptive or with replicates of its own, and
    where no choice of runs within the limits can tell φ.
    """
    _check(spec, wish)
    device = spec.processor
    cells = candidate_cells(
        spec.recipes[0],
        spec.budgets,
        spec.shape,
        fits[0],
        device,
        width_multiple=wish.width_multiple,
    )
    candidates = candidates_of(cells, timed_on=None if wish.gpu_hours is None else device)
    choice, needed = _choose(wish, candidates, fits)
    chosen = [
        replace(cell, seed=seed)
        for cell, count in zip(cells, choice.counts, strict=True)
        for seed in range(count)
    ]
    return replace(
        plan_of_cells(spec, chosen),
        prediction=_prediction(spec, wish, choice, needed, candidates, fits),
    )


def _check(spec: Spec, wish: Wish) -> None:
    if len(spec.recipes) != 1:
        names = ", ".join(recipe.name for recipe in spec.recipes)
        raise InputError(f"a target interval is for one recipe, not {names}: choose by --recipes")
    if spec.adaptive or spec.seeds != 1:
        raise InputError("a target interval chooses widths and replicates: no --adaptive or seeds")
    if wish.max_runs is not None and wish.max_runs < 1:
        raise InputError(f"max_runs = {wish.max_runs} must be at least 1")
    if wish.gpu_hours is not None and not (np.isfinite(wish.gpu_hours) and wish.gpu_hours > 0):
        raise InputError(f"gpu_hours = {wish.gpu_hours:g} must be a positive number")


def _choose(wish: Wish, candidates: Candidates, fits: list[Fit]) -> tuple[Choice, float | None]:
    """The runs, and what the target would cost without the limit on hours where that binds."""
    supposed = worlds(candidates, fits, noises=wish.noises)
    limits = Limits(max_runs=wish.max_runs)
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
    choice: Choice,
    needed: float | None,
    candidates: Candidates,
    fits: list[Fit],
) -> Prediction:
    laws = ", ".join(
        f"{one.conventions.law} (φ = {one.fitted.theta[one.fitted.theta_names.index('phi')]:.3f})"
        for one in fits
    )
    in_flops = wish.gpu_hours is None
    unit = 1.0 if in_flops else _HOUR
    return Prediction(
        target=wish.half_width,
        half_width=choice.half_width,
        by_world=choice.by_world,
        n_candidates=int(candidates.flops.size),
        unit="FLOPs" if in_flops else "GPU-hours",
        bound=choice.bound / unit,
        held=float(choice.held @ candidates.cost) / unit,
        limits=wish.limits(spec),
        needed=None if needed is None else needed / unit,
        assumptions=(
            f"laws: {laws}, fitted to {fits[0].source} ({fits[0].recipe}) and its resamples",
            f"noise of log loss: {', '.join(f'{noise:g}' for noise in wish.noises)} (standard "
            "deviation), normal, the same for every run, independent between runs",
            f"estimator: {fits[0].conventions.estimator}; Student's t with runs − parameters "
            "degrees of freedom; small changes of the parameters (delta method)",
        ),
        cannot_tell=choice.unmet,
    )

"""A plan made for an interval: the cheapest runs expected to give it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.planning.candidates import candidate_cells, candidates_of
from isodepth.planning.choice import Choice, cheapest
from isodepth.planning.cost import DEVICES
from isodepth.planning.design import Limits
from isodepth.planning.grid import Cell
from isodepth.planning.worlds import worlds
from isodepth.sweep.plan import Plan, Prediction, plan_of_cells
from isodepth.sweep.spec import Spec


def plan_for(
    spec: Spec,
    target: float,
    fits: list[Fit],
    *,
    noises: tuple[float, ...],
    max_runs: int | None,
    check_share: float,
) -> Plan:
    """The cheapest plan whose predicted 95% interval for φ is target either way.

    fits: the supposed laws (`planning.worlds.prior`), the first of which places the widths of
    budgets that name none. noises: supposed standard deviations of the log loss.
    check_share: share of the FLOPs held for checking the law (`planning.choice.best_for`).
    Raises InputError for a spec of several recipes, adaptive or with replicates of its own, and
    where no choice of runs reaches the target.
    """
    if len(spec.recipes) != 1:
        names = ", ".join(recipe.name for recipe in spec.recipes)
        raise InputError(f"a target interval is for one recipe, not {names}: choose by --recipes")
    if spec.adaptive or spec.seeds != 1:
        raise InputError("a target interval chooses widths and replicates: no --adaptive or seeds")
    if max_runs is not None and max_runs < 1:
        raise InputError(f"max_runs = {max_runs} must be at least 1")
    cells = candidate_cells(
        spec.recipes[0], spec.budgets, spec.shape, fits[0], DEVICES[spec.device]
    )
    candidates = candidates_of(cells)
    choice = cheapest(
        worlds(candidates, fits, noises=noises),
        candidates,
        target,
        limits=Limits(max_runs=max_runs),
        check_share=check_share,
    )
    chosen = [
        replace(cell, seed=seed)
        for cell, count in zip(cells, choice.counts, strict=True)
        for seed in range(count)
    ]
    return replace(
        plan_of_cells(spec, chosen),
        prediction=_prediction(target, choice, cells, fits, noises),
    )


def _prediction(
    target: float,
    choice: Choice,
    cells: list[Cell],
    fits: list[Fit],
    noises: tuple[float, ...],
) -> Prediction:
    laws = ", ".join(
        f"{one.conventions.law} (φ = {one.fitted.theta[one.fitted.theta_names.index('phi')]:.3f})"
        for one in fits
    )
    held = float(choice.held @ np.array([cell.flops for cell in cells]))
    return Prediction(
        target=target,
        half_width=choice.half_width,
        by_world=choice.by_world,
        n_candidates=len(cells),
        bound_flops=choice.bound_flops,
        held_flops=held,
        assumptions=(
            f"laws: {laws}, fitted to {fits[0].source} ({fits[0].recipe}) and its resamples",
            f"noise of log loss: {', '.join(f'{noise:g}' for noise in noises)} (standard "
            "deviation), normal, the same for every run, independent between runs",
            f"estimator: {fits[0].conventions.estimator}; Student's t with runs − parameters "
            "degrees of freedom; small changes of the parameters (delta method)",
        ),
        cannot_tell=choice.unmet,
    )

"""The runs that a design may choose from: whole steps, enough memory, near the law's optima."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.laws import Array
from isodepth.planning.cost import Device, memory_bytes
from isodepth.planning.grid import (
    HIGHEST,
    LEAST_STEPS,
    LOWEST,
    Budget,
    Cell,
    Recipe,
    Shape,
    one_cell,
    optimal_width,
)
from isodepth.planning.worlds import Candidates
from isodepth.runs.groups import budgets_of


def candidate_cells(
    recipes: tuple[Recipe, ...],
    budgets: tuple[Budget, ...],
    shape: Shape,
    law: Fit,
    device: Device,
    *,
    width_multiple: int | None = None,
) -> list[Cell]:
    """Every r × budget × width that can be trained fairly, in that order of nesting.

    Recipes after the first share its r = 1 runs and have none of their own.

    Widths: the budget's own, else the multiples of the head size from 0.55 to 1.7 of the optimum
    that `law` expects of that r, outside which no published run has tried the law; in either case
    those that are multiples of `width_multiple` where it is given. Left out: runs that miss their
    budget by more than 0.5%, of fewer than 20 steps, or larger than the device's memory.
    Raises InputError, saying what was in the way, where r = 1 or all r > 1 are left out, and for a
    width_multiple that is no multiple of the head size.
    """
    found: list[Cell] = []
    problems: list[str] = []
    looped = tuple(
        replace(one, recurrences=tuple(r for r in one.recurrences if r > 1)) for one in recipes[1:]
    )
    unit = shape.head_size if width_multiple is None else width_multiple
    if unit < 1 or unit % shape.head_size:
        raise InputError(
            f"widths that are multiples of {unit} don't fit heads of {shape.head_size}"
        )
    for budget in budgets:
        for recipe, r in budget.arms((recipes[0], *looped)):
            try:
                widths = budget.widths or _widths(law, recipe, r, budget.flops, shape, unit)
            except InputError as error:
                problems += error.problems
                continue
            for width in widths:
                if width % unit:
                    problems.append(f"width {width} is no multiple of {unit}")
                    continue
                try:
                    cell = one_cell(recipe, r, width, budget.flops, shape)
                except InputError as error:
                    problems += error.problems
                    continue
                if cell.steps < LEAST_STEPS:
                    problems.append(f"{cell.name} has {cell.steps} steps, fewer than {LEAST_STEPS}")
                elif (
                    device.memory is not None and memory_bytes(cell, shape, device) > device.memory
                ):
                    problems.append(f"{cell.name} does not fit the memory of {device.name}")
                else:
                    found.append(cell)
    levels = {(cell.recipe.name, cell.recurrences > 1) for cell in found}
    wanted = {(recipes[0].name, False), *((one.name, True) for one in recipes)}
    if not wanted <= levels:
        raise InputError(
            ["φ needs runs at r = 1 and at a larger r, and none is possible", *problems[:5]]
        )
    return found


def _widths(law: Fit, recipe: Recipe, r: int, flops: float, shape: Shape, unit: int) -> list[int]:
    best = optimal_width(law, recipe, r, flops, shape)
    first, last = int(np.ceil(LOWEST * best / unit)), int(HIGHEST * best / unit)
    return [unit * k for k in range(max(first, 1), last + 1)]


def candidates_of_runs(frame: pd.DataFrame) -> Candidates:
    """Finished runs of a table as a design's own; NaN where their FLOPs or budgets aren't known."""
    unknown = np.full(len(frame), np.nan)
    budgets = budgets_of(frame)

    def column(name: str) -> Array:
        return frame[name].to_numpy(dtype=float)

    return Candidates(
        recurrences=column("recurrences"),
        n_once=column("n_once"),
        n_rec=column("n_rec"),
        n_inject=column("n_inject"),
        tokens=column("tokens"),
        flops=column("flops") if "flops" in frame else unknown,
        budget_flops=unknown if budgets is None else budgets,
    )


def candidates_of(cells: list[Cell], *, timed_on: Device | None = None) -> Candidates:
    """The cells' numbers, in their order; with their seconds where time is what is to be spent."""

    def column(values: list[float]) -> Array:
        return np.array(values, dtype=float)

    return Candidates(
        recurrences=column([cell.recurrences for cell in cells]),
        n_once=column([cell.account.n_once for cell in cells]),
        n_rec=column([cell.account.n_rec for cell in cells]),
        n_inject=column([cell.account.n_inject for cell in cells]),
        tokens=column([cell.tokens for cell in cells]),
        flops=column([cell.flops for cell in cells]),
        budget_flops=column([cell.budget_flops for cell in cells]),
        seconds=None
        if timed_on is None
        else column([cell.flops / timed_on.flops_per_second(cell.width) for cell in cells]),
    )

"""Sweep grids: recipes × recurrences × budgets × widths at equal effective depth and compute.

The layout is that of arXiv 2604.21106: within a budget every run of every arm costs the same
training FLOPs, so that a narrower model sees more tokens, and every arm has the same effective
depth. Widths are given, or chosen so that the optimum that a fitted law expects of every arm lies
inside them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from isodepth.accounting import Account, Injection, account
from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.laws import Array

Backprop = Literal["all", "half"]

ISOFLOP_TOLERANCE = 0.01  # runs of one budget agree in training FLOPs to this share
# Widths are spread from this share of the smallest optimum to this multiple of the largest. The
# published grid spans about 0.6 to 1.5 of its optima; more, since a law may be off.
LOWEST, HIGHEST = 0.55, 1.7
LEAST_STEPS = 20  # a width that leaves fewer is no candidate


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train, at several recurrences."""

    name: str
    recurrences: tuple[int, ...]
    injection: Injection = "linear"
    lanes: int = 2  # of hyperconnections
    backprop: Backprop = "all"  # half: gradients through the last ⌈r/2⌉ passes
    untied: bool = False  # every pass has blocks of its own: unlooped runs of `of`
    of: str | None = None  # the recipe whose graph an untied one has

    @property
    def in_table(self) -> str:
        """What the run table calls the recipe of its runs."""
        return self.of if self.untied and self.of is not None else self.name

    def backprop_last(self, recurrences: int) -> int | None:
        """Passes that carry gradient; None: all."""
        if self.backprop == "half" and recurrences > 1:
            return -(-recurrences // 2)
        return None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One iso-FLOP group of runs for every arm, or for those that it names.

    Several of the same FLOPs add up, so that an arm can have widths of its own.
    """

    flops: float  # training FLOPs of each run
    widths: tuple[int, ...] | None = None  # None: chosen from a law
    recipes: tuple[str, ...] | None = None  # names; None: all
    recurrences: tuple[int, ...] | None = None  # None: all that a recipe has

    def arms(self, recipes: tuple[Recipe, ...]) -> list[tuple[Recipe, int]]:
        """The arms that it is for, as (recipe, r)."""
        return [
            (recipe, r)
            for recipe in recipes
            if self.recipes is None or recipe.name in self.recipes
            for r in recipe.recurrences
            if self.recurrences is None or r in self.recurrences
        ]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What all models of a sweep have in common."""

    depth: int = 20  # effective: prelude + r · recurrent + coda blocks
    prelude: int = 2
    coda: int = 2
    head_size: int = 128  # widths are multiples of it
    vocab: int = 32064  # padded
    sequence_length: int = 2048  # tokens
    batch_tokens: int = 2**18  # tokens of a step

    def account(self, recipe: Recipe, recurrences: int, width: int) -> Account:
        """Parameters and FLOPs of one model. Raises InputError where it can't be built."""
        return account(
            width=width,
            recurrences=recurrences,
            depth=self.depth,
            injection=recipe.injection,
            lanes=recipe.lanes,
            backprop_last=recipe.backprop_last(recurrences),
            vocab=self.vocab,
            sequence_length=self.sequence_length,
            prelude=self.prelude,
            coda=self.coda,
            untied=recipe.untied,
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model to train once."""

    recipe: Recipe
    recurrences: int
    width: int
    seed: int
    budget_flops: float  # nominal training FLOPs
    steps: int
    tokens: int  # steps · batch
    account: Account

    @property
    def flops(self) -> float:
        """Training FLOPs."""
        return float(self.tokens * self.account.flops_per_token)

    @property
    def name(self) -> str:
        """Unique within a sweep."""
        budget = re.sub(r"e\+0*", "e", f"{self.budget_flops:.3g}")
        return f"{self.recipe.name}-r{self.recurrences}-c{budget}-w{self.width}-s{self.seed}"


def cells(
    recipes: tuple[Recipe, ...], budgets: tuple[Budget, ...], shape: Shape, *, seeds: int = 1
) -> list[Cell]:
    """Every run of the sweep, by budget, recipe, recurrences, width and seed.

    All budgets must have widths (`choose_widths`). Raises InputError, naming every fault, for arms
    that are not of equal depth, widths that are no multiple of the head size, runs whose whole
    steps miss the budget by more than 1%, and repeated names.
    """
    problems: list[str] = []
    found: list[Cell] = []
    known = [recipe.name for recipe in recipes]
    if len(set(known)) < len(known):
        problems.append(f"a recipe is named twice: {', '.join(known)}")
    if seeds < 1:
        problems.append(f"seeds = {seeds} must be at least 1")
    for budget in budgets:
        problems += [
            f"budget {budget.flops:.3g}: no recipe is named {name!r}; there are {', '.join(known)}"
            for name in budget.recipes or ()
            if name not in known
        ]
        if budget.widths is None:
            problems.append(f"budget {budget.flops:.3g} has no widths")
            continue
        for recipe, r in budget.arms(recipes):
            for width in budget.widths:
                try:
                    cell = one_cell(recipe, r, width, budget.flops, shape)
                except InputError as error:
                    problems += error.problems
                    continue
                found += [replace(cell, seed=seed) for seed in range(seeds)]
    names = [cell.name for cell in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    problems += [f"run {name} is planned twice" for name in repeated]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return found


def one_cell(recipe: Recipe, recurrences: int, width: int, flops: float, shape: Shape) -> Cell:
    if width % shape.head_size:
        raise InputError(f"width {width} is no multiple of the head size {shape.head_size}")
    costs = shape.account(recipe, recurrences, width)
    steps = max(1, round(flops / costs.flops_per_token / shape.batch_tokens))
    cell = Cell(
        recipe=recipe,
        recurrences=recurrences,
        width=width,
        seed=0,
        budget_flops=flops,
        steps=steps,
        tokens=steps * shape.batch_tokens,
        account=costs,
    )
    if abs(cell.flops / flops - 1) > ISOFLOP_TOLERANCE / 2:
        raise InputError(
            f"budget {flops:.3g} is no whole number of steps of {shape.batch_tokens} tokens at "
            f"width {width}, r = {recurrences}: {steps} steps cost {cell.flops:.3g} FLOPs, more "
            "than 0.5% off; take a smaller batch, a narrower model or a larger budget"
        )
    return cell


def choose_widths(
    law: Fit,
    arms: list[tuple[Recipe, int]],
    flops: float,
    shape: Shape,
    *,
    count: int = 5,
    shifts: dict[tuple[str, int], float] | None = None,
) -> tuple[int, ...]:
    """Widths, shared by all arms (recipe, r), that bracket the optimum `law` expects of each.

    `count` widths, evenly spread in their logarithm from 0.55 of the smallest optimum to 1.7 of
    the largest, rounded to multiples of the head size; with one width at least on either side of
    every optimum. `shifts` multiplies the expected optimal width of (recipe name, r).
    Raises InputError where the head size leaves no room for that.
    """
    if count < 3:
        raise InputError(f"{count} widths can't bracket an optimum; take at least 3")
    best = [
        optimal_width(law, recipe, r, flops, shape) * (shifts or {}).get((recipe.name, r), 1.0)
        for recipe, r in arms
    ]
    unit = shape.head_size
    low, high = min(best) * LOWEST, max(best) * HIGHEST
    spread = np.geomspace(low, high, count)
    chosen = {max(unit, round(float(w) / unit) * unit) for w in spread}
    chosen |= {int(np.ceil(max(best) / unit + 1e-9)) * unit}
    below = int(np.ceil(min(best) / unit) - 1) * unit
    if below < unit:
        raise InputError(
            f"at {flops:.3g} FLOPs the best width is about {min(best):.0f}, which widths that are "
            f"multiples of the head size {unit} can't bracket; take a smaller head size or a "
            "larger budget"
        )
    chosen |= {below}
    while len(chosen) < count:
        chosen |= {max(chosen) + unit}
    return tuple(sorted(chosen))


def optimal_width(law: Fit, recipe: Recipe, recurrences: int, flops: float, shape: Shape) -> float:
    """The width of least loss at `flops` training FLOPs, between multiples of the head size.

    A parabola through the best multiple and its neighbours in log width; the end itself where the
    loss falls to an end. Raises InputError where the budget is too small for three widths.
    """
    widths, losses = [], []
    width = shape.head_size
    while True:
        costs = shape.account(recipe, recurrences, width)
        tokens = flops / costs.flops_per_token
        if tokens < LEAST_STEPS * shape.batch_tokens:
            break
        widths.append(float(width))
        losses.append((costs, tokens))
        width += shape.head_size * max(1, width // (16 * shape.head_size))
    if len(widths) < 3:
        raise InputError(
            f"{flops:.3g} FLOPs are too few for three widths of at least {LEAST_STEPS} steps of "
            f"{shape.batch_tokens} tokens at r = {recurrences}"
        )
    predicted = law.drawn(
        n_once=[float(c.n_once) for c, _ in losses],
        n_rec=[float(c.n_rec) for c, _ in losses],
        n_inject=[float(c.n_inject) for c, _ in losses],
        recurrences=1.0 if recipe.untied else float(recurrences),
        tokens=[t for _, t in losses],
    )
    return _vertex(np.log(np.array(widths)), predicted)


def _vertex(x: Array, y: Array) -> float:
    """exp(x) at the lowest point of the curve: a parabola about the smallest y."""
    at = int(np.argmin(y))
    if at == 0:
        return float(np.exp(x[0]))
    if at == len(x) - 1:
        return float(np.exp(x[-1]))
    near = slice(at - 1, at + 2)
    curve, slope, _ = np.polyfit(x[near] - x[at], y[near], 2)
    return float(np.exp(x[at] - slope / (2 * curve)))

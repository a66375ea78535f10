"""Looped runs beside the surface of the unlooped ones, and fits of what they are worth there.

What a looped run is worth is told by its unlooped twin, of equal loss at equal tokens
(`fitting/law_free.py`): log m of every run is a line in some columns, and a constant may be added
for all looped runs, on their tokens or on their loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from isodepth.fitting.errors import Cells, Errors
from isodepth.fitting.graphs import Ground
from isodepth.fitting.problem import Problem
from isodepth.fitting.surface import Surface
from isodepth.laws import Array, Bools, Integers

Interval = tuple[float, float]
Constant = Literal["none", "tokens", "loss"]
CONSTANTS: tuple[Constant, ...] = ("none", "tokens", "loss")
LOG_M = (-6.0, 6.0)  # beyond which no m is looked for
_ROUNDS = 12  # of leaving out runs whose twins lie outside
_STEPS = 60
_POINTS = 65  # of a run's tokens at which its twin is looked for
_AT_ONCE = 2000  # runs
_DONE = 1e-9  # largest step of log m or the constant that no longer matters


@dataclass(frozen=True, kw_only=True)
class Value:
    """A number with its 95% interval."""

    value: float
    ci95: Interval


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Runs of one r whose twins lie outside the unlooped runs, and which unlooped runs would do."""

    recurrences: float
    run_ids: tuple[str, ...]
    n_runs: int  # of this r, with those left out
    wanted_params: Interval  # lowest and highest size of their twins, non-embedding parameters
    wanted_tokens: Interval


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Looped runs beside the surfaces of the unlooped ones."""

    problem: Problem
    looped: Integers  # (n,) rows of the problem
    surface: Ground

    @cached_property
    def r(self) -> Array:
        return self.problem.frame["recurrences"].to_numpy(dtype=float)[self.looped]

    @cached_property
    def once(self) -> Array:
        return self.problem.design.n_once[self.looped]

    @cached_property
    def rec(self) -> Array:
        return self.problem.design.n_rec[self.looped]

    @cached_property
    def log_tokens(self) -> Array:
        return self.problem.design.log_tokens[self.looped]

    @cached_property
    def log_loss(self) -> Array:
        return self.problem.log_loss[self.looped]

    @cached_property
    def frame(self) -> pd.DataFrame:
        return self.problem.frame.iloc[self.looped]

    def only(self, kept: Bools) -> Twins:
        return Twins(
            problem=self.problem, looped=self.looped[kept], surface=self.surface.only(kept)
        )

    def indicator(self, levels: Array) -> Array:
        """(n, R): which r each run has."""
        return (self.r[:, None] == levels).astype(float)

    def log_size(self, log_m: Array) -> Array:
        """log N_eff (n,) at log m (n,)."""
        return np.log(self.once + np.exp(log_m) * self.rec)

    @cached_property
    def log_m_alone(self) -> Array:
        """log m (n,) of every run by itself; NaN where no size inside the hull has its loss."""
        found = np.full(self.looped.size, np.nan)
        for k, surface in enumerate(self.surface.parts):
            on_it = np.flatnonzero(self.surface.which == k)
            for some in np.array_split(on_it, on_it.size // _AT_ONCE + 1):
                found[some] = self._log_m_on(surface, some)
        return found

    def _log_m_on(self, surface: Surface, which: Integers) -> Array:
        """log m of some of the runs, by one surface; NaN likewise."""
        found = np.full(which.size, np.nan)
        lows, highs = surface.reach(self.log_tokens[which])
        inside = np.flatnonzero(np.isfinite(lows + highs))
        sizes = np.linspace(lows[inside], highs[inside], _POINTS, axis=1)
        tokens = np.repeat(self.log_tokens[which[inside]], _POINTS)
        drawn = surface.log_loss(sizes.ravel(), tokens).reshape(sizes.shape)
        above = drawn - self.log_loss[which[inside], None]
        crosses = (above[:, :-1] > 0) & (above[:, 1:] <= 0)
        met = crosses.any(axis=1)
        inside, sizes, above = inside[met], sizes[met], above[met]
        row, k = np.arange(inside.size), crosses[met].argmax(axis=1)
        share = above[row, k] / (above[row, k] - above[row, k + 1])
        size = sizes[row, k] + (sizes[row, k + 1] - sizes[row, k]) * share
        at = which[inside]
        m = (np.exp(size) - self.once[at]) / self.rec[at]
        found[inside[m > 0]] = np.log(m[m > 0])
        return found

    @cached_property
    def cells(self) -> Cells:
        """Of the unlooped runs, then these."""
        budgets = self.problem.budgets
        at = None if budgets is None else budgets[self.rows]
        return Cells.of(self.problem.frame.iloc[self.rows], at)

    @property
    def rows(self) -> Integers:
        """Rows of the problem: the unlooped runs behind the surfaces, then these."""
        return np.concatenate([self.surface.behind, self.looped])


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A least-squares fit of twins: θ = (parameters of log m, constant)."""

    theta: Array  # (p,)
    influence: Array  # (p, unlooped + looped) of the runs' log losses
    residual: Array  # (looped,) of log loss
    errors: Errors

    def value(self, i: int) -> Value:
        """θᵢ with its interval."""
        at = float(self.theta[i])
        return Value(value=at, ci95=self.errors.interval(at, self.influence[i]))

    def factor(self, i: int) -> Value:
        """exp θᵢ with its interval."""
        found = self.value(i)
        low, value, high = np.exp(np.clip([found.ci95[0], found.value, found.ci95[1]], -99, 99))
        return Value(value=float(value), ci95=(float(low), float(high)))


def solve(
    runs: Twins,
    levels: Array,
    z: Array,
    constant: Constant,
    log_m: Array,
    go_along: bool | None = None,
) -> Solved:
    """Fit log m = z·η (n, q) and a constant, starting at log m (R,) of the levels.

    go_along: as in `Errors`; the fit with an m of each r finds it, the others take it from there.
    """
    at_runs = runs.indicator(levels) @ log_m
    start = np.linalg.lstsq(z, at_runs, rcond=None)[0]
    extra = 0 if constant == "none" else 1
    theta = np.append(start, np.zeros(extra))
    surface = runs.surface

    def model(theta: Array) -> tuple[Array, Array, Array]:
        """Log loss (n,), its Jacobian (n, p), and its derivative in the surface's coefficients."""
        log_m = np.clip(z @ theta[: z.shape[1]], *LOG_M)
        size = runs.log_size(log_m)
        tokens = runs.log_tokens + (theta[-1] if constant == "tokens" else 0.0)
        drawn = surface.log_loss(size, tokens)
        by_size, by_tokens = surface.slopes(size, tokens)
        share = np.exp(log_m) * runs.rec / np.exp(size)
        jacobian = (by_size * share)[:, None] * z
        weight = np.ones_like(drawn)
        if constant == "tokens":
            jacobian = np.column_stack([jacobian, by_tokens])
        elif constant == "loss":
            loss = np.maximum(np.exp(drawn) + theta[-1], 1e-6)
            weight = np.exp(drawn) / loss
            jacobian = np.column_stack([jacobian * weight[:, None], 1.0 / loss])
            drawn = np.log(loss)
        return drawn, jacobian, surface.columns(size, tokens) * weight[:, None]

    drawn, jacobian, by_surface = model(theta)
    residual = runs.log_loss - drawn
    damping = 0.0  # Gauss and Newton's step, while it helps
    for _ in range(_STEPS):
        gram = jacobian.T @ jacobian
        ridge = damping * np.diag(gram) + 1e-14
        step = np.linalg.solve(gram + np.diag(ridge), jacobian.T @ residual)
        if np.abs(step).max() < _DONE:
            break
        step = np.clip(step, -0.5, 0.5)
        trial = model(theta + step)
        left = runs.log_loss - trial[0]
        if left @ left <= residual @ residual:
            theta = theta + step
            (drawn, jacobian, by_surface), residual = trial, left
            damping *= 0.3
        else:
            damping = max(damping * 8, 1e-3)
            if damping > 1e9:
                break
    inverse = np.linalg.pinv(jacobian)
    n_unlooped, p = len(surface.residual), theta.size
    columns = np.zeros((n_unlooped + residual.size, surface.design.shape[1] + p))
    columns[:n_unlooped, :-p] = surface.design
    columns[n_unlooped:, :-p] = by_surface
    columns[n_unlooped:, -p:] = jacobian
    errors = Errors(
        cells=runs.cells,
        columns=columns,
        residual=np.concatenate([surface.residual, residual]),
        go_along=go_along,
    )
    return Solved(
        theta=theta,
        influence=np.hstack([-inverse @ by_surface @ surface.influence, inverse]),
        residual=residual,
        errors=errors,
    )


def kept_of(runs: Twins, levels: Array) -> tuple[Bools, Array, list[LeftOut]]:
    """Which runs have their twin on the surface, log m (R,) there, and the others by r."""
    alone = runs.log_m_alone
    kept = np.isfinite(alone)
    log_m = np.zeros(levels.size)
    for _ in range(_ROUNDS):
        for i, level in enumerate(levels):
            own = np.isfinite(alone) & (runs.r == level)
            some = own & kept if (own & kept).any() else own
            if some.any():
                log_m[i] = np.median(alone[some])
        sizes = runs.log_size(runs.indicator(levels) @ log_m)
        inside = runs.surface.holds(sizes, runs.log_tokens)
        by_size, by_tokens = runs.surface.slopes(sizes, runs.log_tokens)
        inside &= (by_size < 0) & (by_tokens < 0)  # a twin where more is worse is none
        if (inside == kept).all():
            break
        kept = inside
    sizes = runs.log_size(runs.indicator(levels) @ log_m)
    ids = runs.frame["run_id"].astype(str).to_numpy()
    left_out = []
    for level in levels:
        out = ~kept & (runs.r == level)
        if out.any():
            n, d = np.exp(sizes[out]), np.exp(runs.log_tokens[out])
            left_out.append(
                LeftOut(
                    recurrences=float(level),
                    run_ids=tuple(ids[out]),
                    n_runs=int((runs.r == level).sum()),
                    wanted_params=(float(n.min()), float(n.max())),
                    wanted_tokens=(float(d.min()), float(d.max())),
                )
            )
    return kept, log_m, left_out

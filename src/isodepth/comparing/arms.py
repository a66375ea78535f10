"""A recipe's models of one r as a function of size: counts, cost, and the compute-optimal one.

Size is x = log(n_once + n_rec), the parameters outside the injection: two recipes of one shape have
the same width where they have the same x. Between and beyond the runs of an arm every count and
the FLOPs per token follow a·eˣ + b·eˣᐟ² + c, which is exact where blocks cost like 12d² + 2d and
attention, head and norms like d (`isodepth.accounting`), and a smooth reading of any other shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isodepth.fitting.problem import Problem
from isodepth.fitting.result import FittedLaw
from isodepth.laws import Array

_REACH = float(np.log(4.0))  # how far beyond the sizes run an optimum is looked for
_GRID = 41
_ZOOM = 9
_ZOOMS = 3


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One recipe at one r."""

    recurrences: int
    n_once: Array  # (3,) coefficients, as the fit counts
    n_rec: Array  # (3,)
    n_inject: Array  # (3,) parameters of the injection, wherever the fit counts them
    flops_per_token: Array  # (3,) training FLOPs
    lowest: float  # log parameters of the smallest run
    highest: float  # and of the largest

    @classmethod
    def of(cls, problem: Problem, recurrences: int) -> Arm:
        """The arm that a problem's runs of one r show."""
        frame = problem.frame
        at = (frame["recurrences"] == recurrences).to_numpy()
        size = (frame["n_once"] + frame["n_rec"]).to_numpy(dtype=float)[at]
        if "flops_per_token" in frame and frame["flops_per_token"].notna().all():
            cost = frame["flops_per_token"].to_numpy(dtype=float)
        else:
            assert problem.budgets is not None
            cost = problem.budgets / frame["tokens"].to_numpy(dtype=float)
        return cls(
            recurrences=recurrences,
            n_once=_coefficients(size, problem.design.n_once[at]),
            n_rec=_coefficients(size, problem.design.n_rec[at]),
            n_inject=_coefficients(size, frame["n_inject"].to_numpy(dtype=float)[at]),
            flops_per_token=_coefficients(size, cost[at]),
            lowest=float(np.log(size.min())),
            highest=float(np.log(size.max())),
        )


def _coefficients(size: Array, value: Array) -> Array:
    """(a, b, c) of a·size + b·√size + c by least squares of relative errors."""
    terms = min(3, np.unique(size).size)
    columns = np.stack([size, np.sqrt(size), np.ones_like(size)], axis=1)[:, :terms]
    scale = np.abs(columns).max(axis=0)
    found = np.linalg.lstsq(columns / scale / size[:, None], value / size, rcond=None)[0] / scale
    return np.append(found, np.zeros(3 - terms))


def at_size(coefficients: Array, x: Array) -> Array:
    """a·eˣ + b·eˣᐟ² + c, not below zero."""
    a, b, c = coefficients
    return np.maximum(a * np.exp(x) + b * np.exp(x / 2) + c, 0.0)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a form says that a recipe changes, at K draws of its parameters (`comparing/forms.py`).

    Tokens count κ times as much, κ a power of the size; the effective parameters ν times; and nats
    are added to the loss.
    """

    delta_phi: Array  # (K,)
    log_tokens: Array  # (K,) log κ at the middle size
    log_tokens_by_size: Array  # (K,) change of log κ with log parameters
    middle: float  # log of the middle size, parameters
    log_params: Array  # (K,) log ν
    offset: Array  # (K,) nats per token, at r = 1 and beyond
    offset_over_r: Array  # (K,)
    offset_log_r: Array  # (K,)

    def loss_added(self, r: float) -> Array:
        """(K,) nats per token."""
        return self.offset + self.offset_over_r / r + self.offset_log_r * np.log(r)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model family and its law: the baseline's, with some of what a recipe changes."""

    cost: Arm  # what a token costs
    counts: Arm  # the parameters of a size
    law: FittedLaw  # the baseline's: reference sizes and form
    theta: Array  # (K, p) its parameters
    change: Change | None  # but for Δφ, which is in theta

    def log_loss(self, x: Array, budget: float) -> Array:
        """Log loss (K, m) at sizes x (m,) or (K, m), trained for `budget` FLOPs."""
        tokens = budget / np.maximum(at_size(self.cost.flops_per_token, x), 1.0)
        once, rec = at_size(self.counts.n_once, x), at_size(self.counts.n_rec, x)
        r = np.full(x.shape[-1], float(self.counts.recurrences))
        if self.change is None:
            return self.law.log_loss(once, rec, r, tokens, self.theta)
        c = self.change
        by_size = c.log_tokens_by_size[:, None] * (np.log(once + rec) - c.middle)
        tokens = tokens * np.exp(c.log_tokens[:, None] + by_size)
        grown = np.exp(c.log_params)[:, None]
        drawn = self.law.log_loss(once * grown, rec * grown, r, tokens, self.theta)
        loss = np.exp(drawn) + c.loss_added(self.counts.recurrences)[:, None]
        return np.log(np.maximum(loss, 1e-6))

    def optimum(self, budget: float) -> tuple[Array, Array]:
        """Compute-optimal log size (K,) and its loss (K,) [nats], within 4 × the sizes run."""
        ends = (self.counts.lowest - _REACH, self.counts.highest + _REACH)
        x = np.linspace(*ends, _GRID)
        best = x[np.argmin(self.log_loss(x, budget), axis=1)]
        step = float(x[1] - x[0])
        for _ in range(_ZOOMS):
            near = np.clip(best[:, None] + step * np.linspace(-1, 1, _ZOOM), *ends)
            lowest = np.argmin(self.log_loss(near, budget), axis=1)
            best = near[np.arange(len(near)), lowest]
            step *= 2 / (_ZOOM - 1)
        return best, np.exp(self.log_loss(best[:, None], budget)[:, 0])

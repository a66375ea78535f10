"""Unlooped runs by their graphs: a surface for each where they suffice, and whether graphs differ.

An unlooped run is the published r = 1, or the graph of a looped one with weights of its own in
every pass. Against the first, looped runs differ in injection, prelude and norms as well as in
sharing; against the second in sharing alone. So a looped run has its twin on the surface of its own
graph, where every looped r has untied runs enough for a curved one; else all unlooped give one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag

from isodepth.fitting.errors import Cells, Errors
from isodepth.fitting.problem import Problem
from isodepth.fitting.surface import Surface, surface_of
from isodepth.laws import Array, Bools, Integers
from isodepth.runs.groups import graph_of

_CURVED = 2  # degree that a graph's own surface must have: iso-FLOP curves bend


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The surfaces on which looped runs (n,) have their unlooped twins."""

    parts: tuple[Surface, ...]
    graphs: tuple[float, ...] | None  # r of each part's graph; None: one part of all unlooped runs
    which: Integers  # (n,) the part of each looped run
    behind: Integers  # rows of the problem's unlooped runs, part by part

    def only(self, kept: Bools) -> Ground:
        """The ground of some of the looped runs."""
        return replace(self, which=self.which[kept])

    def of_run(self, i: int) -> Surface:
        """The surface of one looped run."""
        return self.parts[self.which[i]]

    def log_loss(self, log_size: Array, log_tokens: Array) -> Array:
        """(n,) of the looped runs at sizes and tokens (n,)."""
        found = np.zeros(self.which.size)
        for k, part in enumerate(self.parts):
            rows = self.which == k
            found[rows] = part.log_loss(log_size[rows], log_tokens[rows])
        return found

    def slopes(self, log_size: Array, log_tokens: Array) -> tuple[Array, Array]:
        """∂ log L / ∂ log N and ∂ log L / ∂ log D, each (n,)."""
        found = np.zeros((2, self.which.size))
        for k, part in enumerate(self.parts):
            rows = self.which == k
            found[:, rows] = part.slopes(log_size[rows], log_tokens[rows])
        return found[0], found[1]

    def holds(self, log_size: Array, log_tokens: Array) -> Bools:
        """Whether points (n,) lie inside the hull of their surface's runs."""
        found = np.zeros(self.which.size, dtype=bool)
        for k, part in enumerate(self.parts):
            rows = self.which == k
            found[rows] = part.holds(log_size[rows], log_tokens[rows])
        return found

    def columns(self, log_size: Array, log_tokens: Array) -> Array:
        """(n, k) in the coefficients of all parts."""
        widths = np.cumsum([0, *(part.coefficients.size for part in self.parts)])
        found = np.zeros((self.which.size, widths[-1]))
        for k, part in enumerate(self.parts):
            rows = np.flatnonzero(self.which == k)
            at = np.arange(widths[k], widths[k + 1])
            found[np.ix_(rows, at)] = part.columns(log_size[rows], log_tokens[rows])
        return found

    @property
    def design(self) -> Array:
        """(m, k) of the unlooped runs behind it."""
        return np.asarray(block_diag(*(part.design for part in self.parts)))

    @property
    def influence(self) -> Array:
        """(k, m)."""
        return np.asarray(block_diag(*(part.influence for part in self.parts)))

    @property
    def residual(self) -> Array:
        """(m,) log loss of the unlooped runs less their surface's."""
        return np.concatenate([part.residual for part in self.parts])


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """Do unlooped runs of several graphs have one surface?"""

    reference: float  # r of the graph that the others are held against; 1: no looped one's
    offsets: dict[str, dict[str, object]]  # r of a graph → value and ci95: log loss less its
    p_value: float  # of no offset at all
    one_each: bool  # whether every looped run has its twin on the surface of its own graph


def ground_of(problem: Problem, looped: Integers) -> Ground | None:
    """The surfaces under the looped runs (rows of the problem); None where there is none."""
    r, graph = problem.frame["recurrences"].to_numpy(dtype=float), graph_of(problem.frame)
    own = {level: np.flatnonzero((r == 1) & (graph == level)) for level in np.unique(r[looped])}
    parts = [_surface(problem, rows) for rows in own.values()]
    curved = [part for part in parts if part is not None and part.degree >= _CURVED]
    if len(curved) == len(own):
        return Ground(
            parts=tuple(curved),
            graphs=tuple(map(float, own)),
            which=np.searchsorted(list(own), r[looped]).astype(np.int64),
            behind=np.concatenate(list(own.values())),
        )
    every = np.flatnonzero(r == 1)
    surface = _surface(problem, every)
    if surface is None:
        return None
    which = np.zeros(len(looped), dtype=np.int64)
    return Ground(parts=(surface,), graphs=None, which=which, behind=every)


def graphs_of(problem: Problem, ground: Ground) -> Graphs | None:
    """Offsets of the graphs' unlooped runs from one surface; None where there is one graph.

    The first graph is the reference: the unlooped model where there is one.
    """
    every = np.flatnonzero(problem.frame["recurrences"].to_numpy() == 1)
    graph = graph_of(problem.frame)[every]
    levels = np.unique(graph)
    surface = _surface(problem, every)
    if levels.size < 2 or surface is None:
        return None
    columns = np.hstack([surface.design, (graph[:, None] == levels[1:]).astype(float)])
    inverse = np.linalg.pinv(columns)
    log_loss = problem.log_loss[every]
    theta = inverse @ log_loss
    if every.size <= theta.size or np.linalg.matrix_rank(columns) < theta.size:
        return None
    budgets = None if problem.budgets is None else problem.budgets[every]
    errors = Errors(
        cells=Cells.of(problem.frame.iloc[every], budgets),
        columns=columns,
        residual=log_loss - columns @ theta,
    )
    first = surface.coefficients.size
    offsets = {
        f"{level:g}": {
            "value": float(theta[first + i]),
            "ci95": errors.interval(float(theta[first + i]), inverse[first + i]),
        }
        for i, level in enumerate(levels[1:])
    }
    return Graphs(
        reference=float(levels[0]),
        offsets=offsets,
        p_value=errors.p_value(theta[first:], inverse[first:]),
        one_each=ground.graphs is not None,
    )


def _surface(problem: Problem, rows: Integers) -> Surface | None:
    if not len(rows):
        return None
    design = problem.design
    size = np.log(design.n_once[rows] + design.n_rec[rows])
    return surface_of(size, design.log_tokens[rows], problem.log_loss[rows])

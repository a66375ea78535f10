"""Errors that runs share, and what they do to an interval.

Runs of one (recipe, r, budget) cell may share noise (one data order, one learning rate), and where
a law misses the runs the misses go on from budget to budget at the same r. An error structure says
how much: of a run's variance σ² a share ρ belongs to its cell, and the cells of one (recipe, r) are
correlated by a^|steps between their budgets|; a = 0 is noise shared within cells, a = 1 noise
common to an r. Every structure is weighed by its restricted likelihood (Patterson & Thompson 1971,
Biometrika 58, 545) with a flat prior on a grid of (ρ, a), and an interval is that of the mixture:
Student's t in every structure, with the variance that the ordinary estimate has there. The estimate
itself never moves: generalised least squares runs off where a law misses.

Structures along r (a > 0) enter only where the residuals ask for them (`along`): with a flat prior
they alone would make every interval half as wide again. Measured coverage: docs/intervals.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import optimize, special

from isodepth.laws import Array, Integers
from isodepth.runs.groups import graph_of

LEVEL = 0.95
ASKED = 0.05  # p-value of `along` below which structures along r enter the intervals
_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # ρ
_DECAYS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)  # a
_NULL = 400  # simulated sweeps behind the p-value of `along`
_FAR = 4.0  # robust standard deviations at which a residual is cut before structures are weighed
_MOST = 90_000  # lines × squared budgets of a line; more cost more than structures tell
_AT_ONCE = 4_000_000  # numbers that are weighed together
_UNSEEN = 1e-5  # weight of a structure that no interval shows


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Which runs may share noise, and which cells follow one another."""

    of_run: Integers  # (n,) cell of each run, from 0
    line: Integers  # (c,) the (recipe, r) of each cell
    step: Integers  # (c,) rank of its budget among all budgets

    @classmethod
    def of(cls, frame: pd.DataFrame, budgets: Array | None) -> Cells:
        """(recipe, r, budget) cells of the runs of a frame.

        Each run is its own where budgets are unknown, or so many that weighing would not pay.
        """
        alone = np.arange(len(frame), dtype=np.int64)
        apart = cls(of_run=alone, line=alone, step=np.zeros(len(frame), dtype=np.int64))
        if budgets is None:
            return apart
        keys = pd.DataFrame(
            {
                "recipe": frame["recipe"].to_numpy(),
                "r": frame["recurrences"].to_numpy(),
                "graph": graph_of(frame),
                "step": np.unique(budgets, return_inverse=True)[1],
            }
        )
        lines = keys.groupby(["recipe", "r", "graph"], sort=False).ngroup().to_numpy()
        cells = keys.groupby(["recipe", "r", "graph", "step"], sort=False).ngroup().to_numpy()
        first = np.unique(cells, return_index=True)[1]
        per_line = np.bincount(lines[first])
        if per_line.size * int(per_line.max()) ** 2 > _MOST:
            return apart
        return cls(
            of_run=cells.astype(np.int64),
            line=lines[first].astype(np.int64),
            step=keys["step"].to_numpy()[first].astype(np.int64),
        )

    @property
    def n(self) -> int:
        return int(self.line.size)

    @cached_property
    def shared(self) -> bool:
        """Whether any cell holds two runs."""
        return self.n < self.of_run.size

    @cached_property
    def followed(self) -> bool:
        """Whether any line has cells at two budgets."""
        return self.shared and bool((np.bincount(self.line) > 1).any())

    def total(self, values: Array) -> Array:
        """Sums (c, …) over the runs of each cell of values (n, …)."""
        order, first = self._sorted
        return np.asarray(np.add.reduceat(values[order], first, axis=0))

    def by_line(self, values: Array) -> Array:
        """The same, line by line (l, b, …): in order of budget, 0 where a line has no more."""
        lines, longest = self._steps.shape
        out = np.zeros((lines * longest, *values.shape[1:]))
        out[self._places] = self.total(values)
        return out.reshape(lines, longest, *values.shape[1:])

    def along(self, decay: float) -> Array:
        """(l, b, b) of the cell effects of each line."""
        lag = np.abs(self._steps[:, :, None] - self._steps[:, None, :])
        return np.asarray(np.where(lag == 0, 1.0, decay ** np.maximum(lag, 1.0)))

    @cached_property
    def structures(self) -> list[tuple[float, float]]:
        """(ρ, a) that are weighed."""
        if not self.shared:
            return [(0.0, 0.0)]
        decays = _DECAYS if self.followed else (0.0,)
        return [(s, d) for s in _SHARES for d in decays if s > 0 or d == 0]

    @cached_property
    def through(self) -> tuple[Array, Array]:
        """W (G, l, b, b) and log det Ω (G,): Ω⁻¹ = (I − B·WᵀW·Bᵀ)/(1 − ρ), B runs × cells.

        By Woodbury: WᵀW = ρ/(1−ρ)·R(I + ρ/(1−ρ)·Rᵀ·BᵀB·R)⁻¹Rᵀ with RRᵀ the cells' correlation.
        """
        counts = self.by_line(np.ones(self.of_run.size))
        roots = {}
        for decay in {d for _, d in self.structures}:
            values, vectors = np.linalg.eigh(self.along(decay))
            roots[decay] = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        root = np.array([roots[decay] for _, decay in self.structures])
        share = np.array([share for share, _ in self.structures])
        odds = (share / (1 - share))[:, None, None, None]
        inner = odds * (root.swapaxes(2, 3) @ (counts[:, :, None] * root))
        inverse = np.linalg.inv(np.linalg.cholesky(inner + np.eye(counts.shape[1])))
        log_det = self.of_run.size * np.log(1 - share)
        log_det -= 2 * np.log(np.diagonal(inverse, axis1=2, axis2=3)).sum(axis=(1, 2))
        return np.sqrt(odds) * (inverse @ root.swapaxes(2, 3)), log_det

    @cached_property
    def _sorted(self) -> tuple[Integers, Integers]:
        """Runs in order of their cells, and where each cell begins."""
        order = np.argsort(self.of_run, kind="stable")
        return order, np.searchsorted(self.of_run[order], np.arange(self.n))

    @cached_property
    def _places(self) -> Integers:
        """(c,) place of each cell among lines × the longest line's cells."""
        order = np.lexsort((self.step, self.line))
        counts = np.bincount(self.line)
        place = np.empty(self.n, dtype=np.int64)
        place[order] = np.arange(self.n) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.line * int(counts.max()) + place

    @cached_property
    def _steps(self) -> Array:
        """(l, b) rank of the budget at each place; far from every other where there is no cell."""
        longest = int(np.bincount(self.line).max())
        out = np.full((int(self.line.max()) + 1) * longest, np.inf)
        out[self._places] = self.step
        gone = np.isinf(out)
        out[gone] = 1e6 * (1 + np.arange(int(gone.sum())))
        return out.reshape(-1, longest)


@dataclass(frozen=True, kw_only=True)
class Along:
    """Do residuals go on along budgets at one r, as no noise of single cells does?"""

    correlation: float  # of (recipe, r, budget) residual means with the next budget's
    p_value: float  # likelihood ratio of a > 0 against a = 0, by simulated sweeps

    @property
    def asked_for(self) -> bool:
        """Whether structures along r enter the intervals."""
        return self.p_value < ASKED


@dataclass(frozen=True, kw_only=True)
class Errors:
    """The error structures of a fit, weighed by its residuals."""

    cells: Cells
    columns: Array  # (n, p) Jacobian of the scaled residuals
    residual: Array  # (n,) scaled residuals
    excess: float = 0.0  # variance of the estimator over least squares', less 1 (Huber's)
    go_along: bool | None = None  # structures along r: taken or not; None: as `along` finds

    def interval(self, value: float, influence: Array) -> tuple[float, float]:
        """95% interval of an estimate that moves by influence (n,) · (scaled noise)."""
        half = self.half_width(influence)
        return value - half, value + half

    def half_width(self, influence: Array) -> float:
        """Half the 95% interval."""
        scale = np.sqrt(self._covariance(influence[None])[:, 0, 0])
        if not scale.max() > 0:
            return 0.0

        def beyond(half: float) -> float:
            return float(self._kept @ (2 * special.stdtr(self.freedom, -half / scale))) - 1 + LEVEL

        widest = float(scale.max() * special.stdtrit(self.freedom, 0.5 + LEVEL / 2))
        return float(optimize.brentq(beyond, 0.0, 1.01 * widest, rtol=1e-9))

    def p_value(self, values: Array, influence: Array) -> float:
        """Of values (q,) with influence (q, n) being all 0: Wald's F, averaged over structures."""
        values = np.atleast_1d(values)
        solved = np.linalg.pinv(self._covariance(np.atleast_2d(influence)), rcond=1e-12) @ values
        statistic = solved @ values / values.size
        return float(self._kept @ special.fdtrc(values.size, self.freedom, statistic))

    def draws(self, influence: Array, n: int, seed: int) -> Array:
        """Deviations (n, q) of estimates with influence (q, n runs) from their truth."""
        rng = np.random.default_rng(seed)
        covariance = self._covariance(np.atleast_2d(influence))
        values, vectors = np.linalg.eigh(covariance)
        roots = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        which = rng.choice(len(roots), size=n, p=self._kept)
        normal = rng.normal(size=(n, covariance.shape[1]))
        tail = np.sqrt(self.freedom / rng.chisquare(self.freedom, size=n))
        return np.asarray(np.einsum("nij,nj->ni", roots[which], normal) * tail[:, None])

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the noise."""
        return max(int(self.residual.size - self.columns.shape[1]), 1)

    @cached_property
    def along(self) -> Along | None:
        """None where no cell is followed by another, or no residual is left."""
        if not self.cells.followed or self.residual.size <= self.columns.shape[1] + 2:
            return None
        free = np.array([decay == 0.0 for _, decay in self.cells.structures])
        seen = self._seen[0][:, 0]
        shared = self.cells.structures[int(np.argmax(np.where(free, seen, -np.inf)))][0]
        rng = np.random.default_rng(0)
        n = self.residual.size
        noise = np.sqrt(1 - shared) * rng.normal(size=(n, _NULL))
        noise += np.sqrt(shared) * rng.normal(size=(self.cells.n, _NULL))[self.cells.of_run]
        drawn = self._likelihoods(noise)[0]
        ratio = seen[~free].max() - seen[free].max()
        null = drawn[~free].max(axis=0) - drawn[free].max(axis=0)
        return Along(
            correlation=_lagged(self.cells, self.residual),
            p_value=float((1 + (null >= ratio).sum()) / (1 + _NULL)),
        )

    @property
    def goes_along(self) -> bool:
        """Whether structures along r are taken."""
        if self.go_along is not None:
            return self.go_along
        return self.along is not None and self.along.asked_for

    @cached_property
    def weights(self) -> Array:
        """(G,) of the structures."""
        found = self._seen[0][:, 0]
        if not self.goes_along:
            along = np.array([decay > 0.0 for _, decay in self.cells.structures])
            found = np.where(along, -np.inf, found)
        found = np.exp(found - found.max())
        return found / found.sum()

    @cached_property
    def _used(self) -> Integers:
        """Structures whose weight can be seen in an interval."""
        return np.flatnonzero(self.weights > _UNSEEN)

    @cached_property
    def _kept(self) -> Array:
        """Their weights."""
        found = self.weights[self._used]
        return np.asarray(found / found.sum())

    @cached_property
    def _cut(self) -> Array:
        """Residuals, cut where they lie too far out for any normal noise."""
        size = float(np.median(np.abs(self.residual)) / special.ndtri(0.75))
        if size == 0.0:
            return self.residual
        return np.clip(self.residual, -_FAR * size, _FAR * size)

    @cached_property
    def _seen(self) -> tuple[Array, Array]:
        """Likelihoods and weighted squares (G, 2) of the residuals, cut and as they are."""
        return self._likelihoods(np.stack([self._cut, self.residual], axis=1))

    def _likelihoods(self, y: Array) -> tuple[Array, Array]:
        """Restricted log likelihood (G, m), σ² profiled, and weighted squares (G, m) of y."""
        found = [self._likelihoods_of(part, y) for part in self._parts(y.shape[1])]
        return np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])

    def _parts(self, m: int) -> list[slice]:
        """Some structures at a time."""
        n = len(self.cells.structures)
        places = self.cells.through[0][0, ..., 0].size
        few = max(1, _AT_ONCE // ((m + self.columns.shape[1]) * places))
        return [slice(i, i + few) for i in range(0, n, few)]

    def _likelihoods_of(self, part: slice, y: Array) -> tuple[Array, Array]:
        """The same for some structures."""
        x = self.columns
        n, p = x.shape
        xx, xy, yy = x.T @ x, x.T @ y, np.einsum("nm,nm->m", y, y)
        through, log_det = self.cells.through[0][part], self.cells.through[1][part]
        bx, by = through @ self.cells.by_line(x), through @ self.cells.by_line(y)
        bx, by = bx.reshape(len(bx), -1, p), by.reshape(len(by), -1, y.shape[1])
        rest = np.array([1 - share for share, _ in self.cells.structures[part]])[:, None, None]
        axx = (xx - bx.swapaxes(1, 2) @ bx) / rest
        axy = (xy - bx.swapaxes(1, 2) @ by) / rest
        ayy = (yy - np.einsum("gcm,gcm->gm", by, by)) / rest[:, 0]
        # a little ridge in the columns' own units, for those that the runs can't tell apart
        scale = np.sqrt(np.maximum(np.diagonal(axx, axis1=1, axis2=2), 1e-300))
        axx = axx / scale[:, None, :] / scale[:, :, None] + 1e-12 * np.eye(p)
        axy = axy / scale[:, :, None]
        lower = np.linalg.cholesky(axx)
        drawn = np.linalg.inv(lower) @ axy
        left = np.maximum(ayy - np.einsum("gpm,gpm->gm", drawn, drawn), 1e-300)
        log_det = (
            log_det
            + 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
            + 2 * np.log(scale).sum(axis=1)
        )
        return -0.5 * (log_det[:, None] + (n - p) * np.log(left)), left

    def _covariance(self, influence: Array) -> Array:
        """(used, q, q) of influence (q, n) · noise, in each structure that is used."""
        alone = influence @ influence.T
        sums = self.cells.by_line(influence.T)  # (l, b, q)
        between, within = self._passed
        sigma2 = self._seen[1][self._used, 1] / self.freedom
        found = np.einsum("lbq,ulbs->uqs", sums, between @ sums, optimize=True)
        found += (1 + self.excess - within)[:, None, None] * alone
        return np.asarray(sigma2[:, None, None] * found)

    @cached_property
    def _passed(self) -> tuple[Array, Array]:
        """Correlation of runs in different cells (used, l, b, b), and in one cell (used,).

        Huber's loss passes a correlation c of two runs on as c + excess·(arcsin c − c)/(π/2 − 1):
        exact for least squares (excess 0) and for δ → 0 (the arcsine law of signs).
        """
        used = [self.cells.structures[i] for i in self._used]
        by_decay = {decay: self.cells.along(decay) for _, decay in used}
        between = np.array([share * by_decay[decay] for share, decay in used])
        within = np.array([share for share, _ in used])
        bend = self.excess / (np.pi / 2 - 1)
        if bend:
            between = between + bend * (np.arcsin(between) - between)
            within = within + bend * (np.arcsin(within) - within)
        return between, within


def _lagged(cells: Cells, residual: Array) -> float:
    """Correlation of the cells' mean residuals with the next cell's of the same line."""
    means = cells.total(residual) / np.bincount(cells.of_run, minlength=cells.n)
    here, after = [], []
    for line in np.unique(cells.line):
        at = np.flatnonzero(cells.line == line)
        at = at[np.argsort(cells.step[at])]
        here += means[at[:-1]].tolist()
        after += means[at[1:]].tolist()
    if np.ptp(here) == 0 or np.ptp(after) == 0:
        return 0.0
    return float(np.corrcoef(here, after)[0, 1])

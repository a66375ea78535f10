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
from scipy import optimize, special, stats

from isodepth.laws import Array, Integers

LEVEL = 0.95
ASKED = 0.05  # p-value of `along` below which structures along r enter the intervals
_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # ρ
_DECAYS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)  # a
_NULL = 400  # simulated sweeps behind the p-value of `along`
_FAR = 4.0  # robust standard deviations at which a residual is cut before structures are weighed
_MOST_CELLS = 300  # beyond which structures cost more than they tell
_CELLS_AT_ONCE = 400_000  # cells × cells × structures that are weighed together
_UNSEEN = 1e-5  # weight of a structure that no interval shows


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Which runs may share noise, and which cells follow one another."""

    of_run: Integers  # (n,) cell of each run, from 0
    line: Integers  # (c,) the (recipe, r) of each cell
    step: Integers  # (c,) rank of its budget among all budgets

    @classmethod
    def of(cls, frame: pd.DataFrame, budgets: Array | None) -> Cells:
        """(recipe, r, budget) cells of the runs of a frame; each run its own without budgets."""
        n = len(frame)
        if budgets is None:
            alone = np.arange(n, dtype=np.int64)
            return cls(of_run=alone, line=alone, step=np.zeros(n, dtype=np.int64))
        keys = pd.DataFrame(
            {
                "recipe": frame["recipe"].to_numpy(),
                "r": frame["recurrences"].to_numpy(),
                "step": np.unique(budgets, return_inverse=True)[1],
            }
        )
        lines = keys.groupby(["recipe", "r"], sort=False).ngroup().to_numpy()
        cells = keys.groupby(["recipe", "r", "step"], sort=False).ngroup().to_numpy()
        first = np.unique(cells, return_index=True)[1]
        return cls(
            of_run=cells.astype(np.int64),
            line=lines[first].astype(np.int64),
            step=keys["step"].to_numpy()[first].astype(np.int64),
        )

    @property
    def n(self) -> int:
        return int(self.line.size)

    @property
    def shared(self) -> bool:
        """Whether any cell holds two runs, and few enough cells to weigh structures."""
        return self.n < self.of_run.size and self.n <= _MOST_CELLS

    @property
    def followed(self) -> bool:
        """Whether any line has cells at two budgets."""
        return self.shared and bool((np.bincount(self.line) > 1).any())

    def total(self, values: Array) -> Array:
        """Sums (c, …) over the runs of each cell of values (n, …)."""
        out = np.zeros((self.n, *values.shape[1:]))
        np.add.at(out, self.of_run, values)
        return out

    def correlation(self, decay: float) -> Array:
        """(c, c) of cell effects."""
        lag = np.abs(self.step[:, None] - self.step)
        along = np.where(lag == 0, 1.0, decay ** np.maximum(lag, 1))
        return np.where(self.line[:, None] == self.line, along, 0.0)


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
        return float(self._kept @ stats.f.sf(statistic, values.size, self.freedom))

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
        free = np.array([decay == 0.0 for _, decay in self._grid])
        seen = self._seen[0][:, 0]
        shared = self._grid[int(np.argmax(np.where(free, seen, -np.inf)))][0]
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

    @cached_property
    def weights(self) -> Array:
        """(G,) of the structures."""
        found = self._seen[0][:, 0]
        asked = self.go_along
        if asked is None:
            asked = self.along is not None and self.along.asked_for
        if not asked:
            along = np.array([decay > 0.0 for _, decay in self._grid])
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
    def _grid(self) -> list[tuple[float, float]]:
        if not self.cells.shared:
            return [(0.0, 0.0)]
        decays = _DECAYS if self.cells.followed else (0.0,)
        return [(s, d) for s in _SHARES for d in decays if s > 0 or d == 0]

    @cached_property
    def _cut(self) -> Array:
        """Residuals, cut where they lie too far out for any normal noise."""
        size = float(np.median(np.abs(self.residual)) / stats.norm.ppf(0.75))
        if size == 0.0:
            return self.residual
        return np.clip(self.residual, -_FAR * size, _FAR * size)

    @cached_property
    def _seen(self) -> tuple[Array, Array]:
        """Likelihoods and weighted squares (G, 2) of the residuals, cut and as they are."""
        return self._likelihoods(np.stack([self._cut, self.residual], axis=1))

    def _likelihoods(self, y: Array) -> tuple[Array, Array]:
        """Restricted log likelihood (G, m), σ² profiled, and weighted squares (G, m) of y."""
        # some structures at a time: each takes arrays of cells × cells
        few = max(1, _CELLS_AT_ONCE // self.cells.n**2)
        parts = [
            self._likelihoods_of(self._grid[i : i + few], y) for i in range(0, len(self._grid), few)
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _likelihoods_of(self, grid: list[tuple[float, float]], y: Array) -> tuple[Array, Array]:
        """The same for some structures."""
        x, cells = self.columns, self.cells
        n, p = x.shape
        xx, xy, yy = x.T @ x, x.T @ y, np.einsum("nm,nm->m", y, y)
        share = np.array([share for share, _ in grid])
        # Woodbury: Ω⁻¹ = (I − ρ·B(I + ρ/(1−ρ)·BᵀB)⁻¹Bᵀ/(1−ρ)) / (1 − ρ), BBᵀ the cells' correlation
        odds = (share / (1 - share))[:, None, None]
        roots = np.array([self._roots[decay] for _, decay in grid])
        counts = np.bincount(cells.of_run, minlength=cells.n).astype(float)
        inner = odds * (roots.swapaxes(1, 2) @ (counts[:, None] * roots)) + np.eye(cells.n)
        inverse = np.linalg.inv(np.linalg.cholesky(inner))
        through = np.sqrt(odds) * (inverse @ roots.swapaxes(1, 2))
        bx, by = through @ cells.total(x), through @ cells.total(y)
        rest = (1 - share)[:, None, None]
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
            n * np.log(1 - share)
            - 2 * np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(axis=1)
            + 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
            + 2 * np.log(scale).sum(axis=1)
        )
        return -0.5 * (log_det[:, None] + (n - p) * np.log(left)), left

    @cached_property
    def _roots(self) -> dict[float, Array]:
        """L (c, c) with LLᵀ the correlation of the cells, by decay."""
        found = {}
        for decay in {d for _, d in self._grid}:
            values, vectors = np.linalg.eigh(self.cells.correlation(decay))
            found[decay] = vectors * np.sqrt(np.maximum(values, 0.0))
        return found

    def _covariance(self, influence: Array) -> Array:
        """(used, q, q) of influence (q, n) · noise, in each structure that is used."""
        alone = influence @ influence.T
        sums = self.cells.total(influence.T)  # (c, q)
        between, within = self._passed
        sigma2 = self._seen[1][self._used, 1] / self.freedom
        found = sums.T @ between @ sums + (1 + self.excess - within)[:, None, None] * alone
        return np.asarray(sigma2[:, None, None] * found)

    @cached_property
    def _passed(self) -> tuple[Array, Array]:
        """Correlation of runs in different cells (used, c, c), and in one cell (used,).

        Huber's loss passes a correlation c of two runs on as c + excess·(arcsin c − c)/(π/2 − 1):
        exact for least squares (excess 0) and for δ → 0 (the arcsine law of signs).
        """
        used = [self._grid[i] for i in self._used]
        by_decay = {decay: self.cells.correlation(decay) for _, decay in used}
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

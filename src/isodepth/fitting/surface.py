"""A smooth surface of log loss over (log N, log D), read off runs without a law.

A polynomial of total degree 1, 2 or 3, whichever predicts a left-out run best. It is linear in the
log losses, so its error is carried exactly into whatever is read off it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from isodepth.laws import Array, Bools, Integers

DEGREES = (1, 2, 3)
# exponents (i, j) of every column, lower degrees first
_I, _J = np.array([(i, k - i) for k in range(max(DEGREES) + 1) for i in range(k + 1)]).T
SLACK = 0.03  # how far beyond the runs' hull it may be read, as a share of the hull's extent
_SPARE = 2  # runs that a degree needs beyond its coefficients
LEAST_RUNS = 3 + _SPARE  # of a plane
_TIED = 1e-9  # smallest over largest singular value below which runs can't tell the coefficients


@dataclass(frozen=True, kw_only=True)
class Surface:
    """log loss = Σ c_ij·x^i·t^j, i + j ≤ degree, in centred and scaled log sizes and log tokens."""

    degree: int
    center: Array  # (2,) means of log size and log tokens
    spread: Array  # (2,) their standard deviations
    coefficients: Array  # (k,)
    design: Array  # (n, k) columns at the runs
    influence: Array  # (k, n) of the runs' log losses on the coefficients
    residual: Array  # (n,) log loss less the surface's
    rmse: float  # of log loss
    left_out_rmse: float  # of log loss, each run predicted by the others
    planes: Array  # (f, 3) the runs' hull in scaled coordinates: inside where planes·(x, t, 1) ≤ 0

    def columns(self, log_size: Array, log_tokens: Array) -> Array:
        """(n, k) at sizes and tokens (n,)."""
        x, t = self._scaled(log_size, log_tokens)
        return _columns(x, t, self.degree)

    def log_loss(self, log_size: Array, log_tokens: Array) -> Array:
        """(n,)."""
        return np.asarray(self.columns(log_size, log_tokens) @ self.coefficients)

    def slopes(self, log_size: Array, log_tokens: Array) -> tuple[Array, Array]:
        """∂ log L / ∂ log N and ∂ log L / ∂ log D, each (n,)."""
        x, t = self._scaled(log_size, log_tokens)
        _, by_x, by_t = _evaluated(x, t, self.coefficients)
        return by_x / self.spread[0], by_t / self.spread[1]

    def distance(self, log_size: Array, log_tokens: Array) -> Array:
        """How far points (n,) lie outside the runs' hull, as a share of its extent; below 0: in."""
        x, t = self._scaled(log_size, log_tokens)
        return np.asarray((self.planes @ np.stack([x, t, np.ones_like(x)])).max(axis=0))

    def holds(self, log_size: Array, log_tokens: Array) -> Bools:
        """Whether points (n,) lie inside the runs' hull, with a little slack."""
        return np.asarray(self.distance(log_size, log_tokens) <= SLACK)

    def reach(self, log_tokens: Array) -> tuple[Array, Array]:
        """Lowest and highest log size (n,) inside the hull at tokens (n,); NaN where none is."""
        _, t = self._scaled(np.zeros_like(log_tokens), log_tokens)
        low, high = np.full_like(t, -np.inf), np.full_like(t, np.inf)
        for a, b, c in self.planes:
            room = SLACK - b * t - c
            if abs(a) < 1e-12:
                low = np.where(room < 0, np.inf, low)
            elif a > 0:
                high = np.minimum(high, room / a)
            else:
                low = np.maximum(low, room / a)
        low, high = (np.where(low <= high, end, np.nan) for end in (low, high))
        return self.center[0] + self.spread[0] * low, self.center[0] + self.spread[0] * high

    def _scaled(self, log_size: Array, log_tokens: Array) -> tuple[Array, Array]:
        return (
            (log_size - self.center[0]) / self.spread[0],
            (log_tokens - self.center[1]) / self.spread[1],
        )


def surface_of(log_size: Array, log_tokens: Array, log_loss: Array) -> Surface | None:
    """The surface of runs (n,); None where they are too few or lie on a line."""
    center = np.array([log_size.mean(), log_tokens.mean()])
    spread = np.array([log_size.std(), log_tokens.std()])
    if not (spread > 1e-9).all():
        return None
    x, t = (log_size - center[0]) / spread[0], (log_tokens - center[1]) / spread[1]
    planes = _hull(x, t)
    if planes is None:
        return None
    best: Surface | None = None
    for degree in DEGREES:
        design = _columns(x, t, degree)
        n, k = design.shape
        if n < k + _SPARE:
            break
        u, sizes, _ = np.linalg.svd(design, full_matrices=False)
        if sizes[-1] < _TIED * sizes[0]:
            break
        leverage = (u**2).sum(axis=1)
        influence: Array = np.asarray(np.linalg.pinv(design), dtype=np.float64)
        residual = log_loss - design @ (influence @ log_loss)
        # a run that alone holds a coefficient can't be predicted by the others
        if (leverage > 1 - 1e-9).any():
            break
        left_out = residual / (1 - leverage)
        found = Surface(
            degree=degree,
            center=center,
            spread=spread,
            coefficients=influence @ log_loss,
            design=design,
            influence=influence,
            residual=residual,
            rmse=float(np.sqrt((residual**2).mean())),
            left_out_rmse=float(np.sqrt((left_out**2).mean())),
            planes=planes,
        )
        if best is None or found.left_out_rmse < best.left_out_rmse:
            best = found
    return best


def beyond(
    log_size: Array, log_tokens: Array, at_size: Array, at_tokens: Array, margin: float
) -> Array | None:
    """How far points (m,) lie outside the hull of runs (n,), or within a margin of its edge.

    As a share of its extent, 0 for those further inside. None where the runs are fewer than any
    surface needs, or lie on a line.
    """
    if log_size.size < LEAST_RUNS or min(np.ptp(log_size), np.ptp(log_tokens)) < 1e-9:
        return None
    center, spread = (np.array([f(log_size), f(log_tokens)]) for f in (np.mean, np.std))
    planes = _hull((log_size - center[0]) / spread[0], (log_tokens - center[1]) / spread[1])
    if planes is None:
        return None
    at = [(at_size - center[0]) / spread[0], (at_tokens - center[1]) / spread[1]]
    out = (planes @ np.stack([*at, np.ones_like(at_size)])).max(axis=0)
    return np.asarray(np.maximum(out + margin, 0.0))


@dataclass(frozen=True, kw_only=True)
class Patchwork:
    """Runs (n,) that each lie on a surface of their own."""

    center: Array  # (n, 2)
    spread: Array  # (n, 2)
    coefficients: Array  # (n, k) of the highest degree, 0 beyond the surface's own

    @classmethod
    def of(cls, surfaces: list[Surface], which: Integers) -> Patchwork:
        """which: (n,) the surface of each run."""
        padded = np.zeros((len(surfaces), _I.size))
        for row, surface in zip(padded, surfaces, strict=True):
            row[: surface.coefficients.size] = surface.coefficients
        return cls(
            center=np.array([s.center for s in surfaces])[which],
            spread=np.array([s.spread for s in surfaces])[which],
            coefficients=padded[which],
        )

    def evaluate(self, log_size: Array, log_tokens: Array) -> tuple[Array, Array, Array]:
        """Log loss, ∂ log L / ∂ log N and ∂ log L / ∂ log D, each (n,)."""
        x = (log_size - self.center[:, 0]) / self.spread[:, 0]
        t = (log_tokens - self.center[:, 1]) / self.spread[:, 1]
        drawn, by_x, by_t = _evaluated(x, t, self.coefficients)
        return drawn, by_x / self.spread[:, 0], by_t / self.spread[:, 1]


def _columns(x: Array, t: Array, degree: int) -> Array:
    """(n, k) of x^i·t^j."""
    k = (degree + 1) * (degree + 2) // 2
    return np.asarray(_powers(x)[:, _I[:k]] * _powers(t)[:, _J[:k]])


def _evaluated(x: Array, t: Array, coefficients: Array) -> tuple[Array, Array, Array]:
    """Σ c·x^i·t^j and its derivatives in x and t, each (n,), at coefficients (k,) or (n, k)."""
    k = coefficients.shape[-1]
    i, j = _I[:k], _J[:k]
    px, pt = _powers(x), _powers(t)
    at_x, at_t = px[:, i] * coefficients, pt[:, j]
    by_x = i * px[:, np.maximum(i - 1, 0)] * coefficients
    by_t = j * pt[:, np.maximum(j - 1, 0)]
    return (at_x * at_t).sum(axis=1), (by_x * at_t).sum(axis=1), (at_x * by_t).sum(axis=1)


def _powers(x: Array) -> Array:
    """(n, 4) of x⁰ to x³."""
    return np.stack([np.ones_like(x), x, x * x, x * x * x], axis=1)


def _hull(x: Array, t: Array) -> Array | None:
    """Planes of the hull, distances as a share of its extent in their direction."""
    try:
        hull = ConvexHull(np.stack([x, t], axis=1))
    except QhullError:
        return None
    planes = hull.equations
    depth = -(planes @ np.stack([x, t, np.ones_like(x)])).min(axis=1)
    return np.asarray(planes / np.maximum(depth, 1e-12)[:, None])

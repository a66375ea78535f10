"""Runs so far off the law that no noise explains them."""

from __future__ import annotations

import numpy as np
from scipy import special

from isodepth.fitting.identify import NOISE_FLOOR
from isodepth.fitting.noise import scale_of
from isodepth.fitting.solver import huber
from isodepth.laws import Array

FAR = 6.0  # standard deviations; normal noise goes so far once in 500 million runs
_BY_CHANCE = 1e-3  # of a sweep of clean runs, where few of them tell the noise


def outlying(residual: Array, delta: float, n_params: int) -> list[int]:
    """Runs, the farthest first, more than six standard deviations off; residual (n,) scaled.

    The standard deviation is that of the other runs (`noise_scale` without the run, and without
    those found before it), so that a run doesn't hide behind the noise that it makes; where few
    runs tell it, its own error lets the limit grow as Student's t.
    """
    size = np.abs(residual)
    left = float(huber(residual[None], delta)[0])
    found: list[int] = []
    for i in np.argsort(-size, kind="stable"):
        n = residual.size - len(found) - 1
        if n <= n_params or size[i] <= FAR * NOISE_FLOOR:
            break
        left = max(left - float(huber(residual[i : i + 1][None], delta)[0]), 0.0)
        limit = float(special.stdtrit(n - n_params, 1.0 - _BY_CHANCE / (2 * n)))
        if size[i] <= max(FAR, limit) * scale_of(n, delta, left, n_params):
            break
        found.append(int(i))
    return found

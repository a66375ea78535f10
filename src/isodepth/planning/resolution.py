"""How small a Δφ is told from 0 by runs whose variance of it is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special

from isodepth.laws import Array, Integers
from isodepth.planning.design import LEVEL, Worlds

POWER = 0.8  # chance that a difference of the size named is told from 0
_QUANTILES = 2000


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What runs tell of Δφ, root mean square over the worlds; inf where too few runs."""

    half_width: float  # of Δφ's 95% interval
    smallest: float  # |Δφ| told from 0 at 95% in 80% of sweeps
    by_world: dict[str, float]  # smallest, in each kind of world


def resolution(found: Worlds, counts: Array | Integers) -> Resolution:
    """Of Δφ, by the worlds of `contrast` and counts (n,) of their candidates.

    By Student's t, with the degrees of freedom that the fits find the noise with.
    """
    halves = found.half_widths(counts)
    errors = np.sqrt(found.variances(counts))
    freedom = found.degrees_of_freedom(counts).tolist()
    smallest = np.array([noncentrality(nu) for nu in freedom]) * errors
    kinds, weights = np.array(found.names), found.weights
    return Resolution(
        half_width=_root_mean_square(halves, weights),
        smallest=_root_mean_square(smallest, weights),
        by_world={
            kind: _root_mean_square(smallest[kinds == kind], weights[kinds == kind])
            for kind in dict.fromkeys(found.names)
        },
    )


def _root_mean_square(values: Array, weights: Array) -> float:
    return float(np.sqrt(np.average(values**2, weights=weights)))


@cache
def noncentrality(freedom: float) -> float:
    """|Δφ| in standard errors that a two-sided t test at 5% tells from 0 with 80% chance.

    The noncentral t distribution, as normal tails averaged over quantiles of the estimated
    standard error; 2.80 with many degrees of freedom, inf with none.
    """
    if freedom <= 0:
        return float("inf")
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    limits = special.stdtrit(freedom, 0.5 + LEVEL / 2) * np.sqrt(
        special.chdtri(freedom, 1 - quantiles) / freedom
    )

    def lacking(delta: float) -> float:
        told = special.ndtr(delta - limits) + special.ndtr(-limits - delta)
        return float(told.mean()) - POWER

    return float(optimize.brentq(lacking, 0.0, float(limits.max()) + 5.0))

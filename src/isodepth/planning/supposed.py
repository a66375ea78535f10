"""What to suppose of the next runs, from the runs that are there."""

from __future__ import annotations

from dataclasses import dataclass

from isodepth.fitting import Fit, fit
from isodepth.fitting.identify import NOISE_FLOOR
from isodepth.fitting.noise import scale_of
from isodepth.planning.worlds import NOISES, PRIOR_LAWS, prior
from isodepth.runs import Runs

_LEAST_FREEDOM = 4  # degrees of freedom from which on residuals tell a noise


@dataclass(frozen=True, kw_only=True)
class Supposed:
    """Laws and noises that a design averages over."""

    fits: list[Fit]
    noises: tuple[float, ...]  # standard deviations of the log loss


def supposed(runs: Runs, recipe: str) -> Supposed:
    """The laws fitted to these runs that can tell φ, and the noise of their residuals.

    Laws with 4 degrees of freedom or more, else any, at their optimum: resamples of so few runs as
    a design has include laws that the runs themselves rule out. Where no law can tell φ yet, the
    published laws and noises.
    """
    fits = [fit(runs, recipe=recipe, law=law, bootstrap=0, sensitivity=False) for law in PRIOR_LAWS]
    fits = [one for one in fits if one.phi is not None]
    if not fits:
        return Supposed(fits=prior("published"), noises=NOISES)
    free = [one for one in fits if _freedom(one) >= _LEAST_FREEDOM]
    noises = sorted({noise for noise in map(noise_of, free) if noise is not None})
    return Supposed(fits=free or fits, noises=tuple(noises) or NOISES)


def _freedom(one: Fit) -> int:
    return one.n_runs - one.fitted.theta.size


def noise_of(one: Fit) -> float | None:
    """Standard deviation of the log loss about a fitted law; None where too few runs tell it."""
    if _freedom(one) < _LEAST_FREEDOM:
        return None
    c = one.conventions
    delta = c.huber_delta if c.estimator == "huber" else float("inf")
    scale = scale_of(one.n_runs, delta, one.objective, one.fitted.theta.size)
    return max(scale, NOISE_FLOOR)


def r_doubted(one: Fit) -> bool:
    """Whether a fit found that r^φ does not describe its values of r."""
    return any(warned.code == "multiplicity_form" for warned in one.warnings)

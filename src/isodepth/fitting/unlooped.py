"""φ without r = 1 runs: what looped runs tell of it among themselves, and what they leave open.

At equal depth N_once = p·M and N_rec = (1 − p)·M/r, so that two looped r's see φ in the ratio

    N_eff(r₁) / N_eff(r₂) = (p + (1 − p)·r₁^(φ−1)) / (p + (1 − p)·r₂^(φ−1))

alone: A takes up every common factor. The ratio is 1 at φ = 1, and 1 again where φ falls without
end, because the parameters used once are all that counts then. In between it turns: every value of
it belongs to two φ. Without parameters used once (p = 0) it is (r₁/r₂)^(φ−1), and one φ fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from isodepth.fitting.noise import moments, noise_freedom, noise_scale
from isodepth.fitting.problem import Problem
from isodepth.fitting.solver import minimise, objective
from isodepth.laws import Array

_SCAN = np.arange(-6.0, 4.001, 0.5)  # of φ, to find optima
_FINE = np.arange(-6.0, 4.001, 0.1)  # and how far they reach
_STEPS = 60
_APART = 0.02  # φ's closer than this are one
_LEAST_NOISE = 1e-3  # relative noise of a loss below which no fit is believed to be better
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Optima:
    """The values of φ that describe runs without r = 1."""

    levels: tuple[int, ...]  # their r
    phis: tuple[float, ...]  # optima whose objective lies within the 95% threshold, ascending
    reach: tuple[float, float]  # lowest and highest φ of the scan within it

    @property
    def ambiguous(self) -> bool:
        """Whether two looped r's leave two answers."""
        return len(self.levels) == 2 and len(self.phis) > 1

    @property
    def why(self) -> str:
        """That no number is printed, and which there would be."""
        values = " and ".join(f"{phi:.3f}" for phi in self.phis)
        r = ", ".join(map(str, self.levels))
        return (
            f"no run has r = 1, and at r = {r} two values of φ describe the runs equally well, "
            f"{values}: add runs at r = 1 or at a third r"
        )


def optima(problem: Problem, theta: Array) -> Optima | None:
    """Every optimum of φ around the one at theta (p,); None where there are r = 1 runs or no φ.

    The threshold is the profile likelihood's (`uncertainty.profile`), with noise of at least 0.1%.
    """
    r = problem.frame["recurrences"].to_numpy(dtype=float)
    if problem.eta_names != ("phi",) or (r == 1).any() or problem.n <= theta.size:
        return None
    at = problem.theta_names.index("phi")
    values, profile, theta_at = _profiled(problem, theta, _SCAN)
    padded = np.concatenate([[np.inf], profile, [np.inf]])
    low = np.flatnonzero((profile <= padded[:-2]) & (profile <= padded[2:]))
    inner = low[(low > 0) & (low < values.size - 1)]
    batch = problem.batch()
    free = minimise(batch, theta_at[inner], max_steps=_STEPS)
    best = min(float(objective(batch, theta[None])[0]), float(free.objective.min(initial=np.inf)))
    threshold = best + _likely(problem, best, theta.size)
    phis = [float(theta[at])]
    for phi in np.sort(free.theta[free.objective <= threshold, at]):
        if min(abs(phi - one) for one in phis) > _APART and _SCAN[0] < phi < _SCAN[-1]:
            phis.append(float(phi))
    reach = (min(phis), max(phis))
    if len(phis) > 1:
        values, profile, _ = _profiled(problem, theta, _FINE)
        within = [*values[profile <= threshold], *reach]
        reach = (float(min(within)), float(max(within)))
    return Optima(
        levels=tuple(int(x) for x in np.unique(r)),
        phis=tuple(sorted(phis)),
        reach=reach,
    )


def _profiled(problem: Problem, theta: Array, phis: Array) -> tuple[Array, Array, Array]:
    """φ (m,) in order, with the fit's own, and objective (m,) and θ (m, p) with φ held there."""
    at = problem.theta_names.index("phi")
    start = np.repeat(theta[None], phis.size + 1, axis=0)
    start[1:, at] = phis
    fixed = np.arange(theta.size) == at
    held = minimise(problem.batch(), start, fixed=fixed, max_steps=_STEPS)
    values, order = np.unique(start[:, at], return_index=True)
    return values, held.objective[order], held.theta[order]


def _likely(problem: Problem, best: float, n_params: int) -> float:
    """How far above the best objective 95% of the likelihood reaches."""
    sigma = max(noise_scale(problem, best, n_params), _LEAST_NOISE)
    near = moments(problem.delta / sigma)
    freedom = max(noise_freedom(problem, sigma, n_params), 1.0)
    t = float(special.stdtrit(freedom, 0.5 + _LEVEL / 2))
    return 0.5 * t**2 * sigma**2 * near.square / near.slope


def twin(once: float, recurrences: tuple[float, float], phi: float) -> float | None:
    """The other φ that two looped r's of one depth are described by; None where φ is the only one.

    once: share p of a model's effective size that is used once.
    """
    small, large = sorted(recurrences)

    def log_ratio(x: float) -> float:
        sizes = [once + (1.0 - once) * r ** (x - 1.0) for r in (small, large)]
        return float(np.log(sizes[0] / sizes[1]))

    if once <= 0.0 or phi >= 1.0:
        return None
    turn = optimize.minimize_scalar(lambda x: -log_ratio(x), bounds=(-12.0, 1.0), method="bounded")
    value = log_ratio(phi)
    ends = (float(turn.x), 1.0) if phi < turn.x else (-12.0, float(turn.x))
    if (log_ratio(ends[0]) - value) * (log_ratio(ends[1]) - value) >= 0:
        return None
    return float(optimize.brentq(lambda x: log_ratio(x) - value, *ends))

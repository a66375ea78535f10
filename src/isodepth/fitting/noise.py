"""How large the noise of the log loss is, and what Huber's loss makes of it.

Everything is for normal noise of standard deviation σ in scaled log-loss residuals, and Huber's
threshold δ; δ = ∞ is least squares. ρ is the loss, ψ its derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from isodepth.fitting.problem import Problem

_ALL_INSIDE = 40.0  # thresholds in σ beyond which normal noise, in double precision, never lies
_LEAST = 1e-300  # a run's share of the objective: losses on a law exactly have a noise all the same


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Expectations at standard normal noise and threshold k = δ / σ."""

    loss: float  # E ρ
    loss_square: float  # E ρ²
    square: float  # E ψ²
    slope: float  # E ψ′

    @property
    def variance(self) -> float:
        """Variance of the estimator over least squares': E ψ² / (E ψ′)².

        1 as k → ∞, π/2 as k → 0 (Huber 1964, Annals of Mathematical Statistics 35, 73).
        """
        return self.square / self.slope**2

    @property
    def freedom(self) -> float:
        """Degrees of freedom that a run gives σ, found from the sum of ρ, over least squares'.

        A χ² of ν degrees of freedom over ν has log σ̂ vary by 1/2ν; here it varies by
        Var ρ / (n (Eψ′)²), as d Eρ / d log σ = σ²Eψ′ (Stein). 1 as k → ∞, 1/(π − 2) as k → 0.
        """
        return self.slope**2 / (2.0 * (self.loss_square - self.loss**2))


def moments(k: float) -> Moments:
    """The expectations in closed form; k > 0, inf for least squares."""
    if k > _ALL_INSIDE:
        return Moments(loss=0.5, loss_square=0.75, square=1.0, slope=1.0)
    density, beyond = float(np.exp(-(k**2) / 2) / np.sqrt(2 * np.pi)), float(special.ndtr(-k))
    inside = 1.0 - 2.0 * beyond
    within = inside - 2.0 * k * density  # E z² where |z| < k
    fourth = 3.0 * inside - 2.0 * (k**3 + 3.0 * k) * density  # E z⁴ there
    return Moments(
        loss=0.5 * within + 2.0 * k * density - k**2 * beyond,
        loss_square=0.25 * fourth + 2.0 * k**2 * beyond * (1.0 + k**2 / 4.0),
        square=within + 2.0 * k**2 * beyond,
        slope=inside,
    )


def noise_scale(problem: Problem, objective: float, n_params: int) -> float:
    """σ of the scaled residuals that makes the fit's objective what it is expected to be.

    Fitting p parameters to n runs lowers the expected sum n·σ²Eρ by p·σ²Eψ²/(2Eψ′), to first
    order; solved for σ. For least squares this is √(2F / (n − p)). Residuals can't be asked
    directly where δ lies below the noise: such a fit runs through about p of its runs, and counting
    these among the small residuals makes Eψ′ too large and intervals too narrow.
    Needs n > p.
    """
    return scale_of(problem.n, problem.delta, objective, n_params)


def scale_of(n: int, delta: float, objective: float, n_params: int) -> float:
    """`noise_scale` of n runs and Huber's threshold δ."""
    objective = max(objective, n * _LEAST)
    if np.isinf(delta):
        return float(np.sqrt(2.0 * objective / (n - n_params)))

    def excess(log_sigma: float) -> float:
        sigma = float(np.exp(log_sigma))
        at = moments(delta / sigma)
        return sigma**2 * (n * at.loss - 0.5 * n_params * at.square / at.slope) - objective

    # from noise far below δ, where it is least squares', to so large that ρ is |residual|·δ
    low = 0.5 * np.log(objective / n)
    high = np.log(delta + 10.0 * objective / (delta * (n - n_params)) + np.exp(low))
    while excess(high) < 0:
        high += 1.0
    while excess(low) > 0:
        low -= 1.0
    return float(np.exp(optimize.brentq(excess, low, high, xtol=1e-9)))


def noise_freedom(problem: Problem, sigma: float, n_params: int) -> float:
    """Degrees of freedom of σ by `noise_scale`: runs − parameters for least squares, else less."""
    return (problem.n - n_params) * moments(problem.delta / sigma).freedom

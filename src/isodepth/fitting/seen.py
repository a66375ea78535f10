"""How far a fit's runs reach, and what may be said beyond them.

Inside the runs' sizes, tokens and values of r a law interpolates; beyond them its form decides, and
no interval of its parameters holds the error of its form. So what lies beyond is said, and widened
by what the same runs show: the miss of the highest budget when it is held out, for losses; a φ that
may drift with size, for sizes of equal loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from isodepth.errors import InputError
from isodepth.fitting.diagnostics import Extrapolation
from isodepth.fitting.estimate import Estimate
from isodepth.fitting.identify import NOISE_FLOOR
from isodepth.fitting.noise import noise_freedom, noise_scale
from isodepth.fitting.problem import Problem
from isodepth.laws import Array
from isodepth.warned import Warned

Range = tuple[float, float]
_SLACK = 0.05  # relative distance beyond the runs that is none
_LARGEST = 1e30  # parameters or tokens: what lies above is a slip
FARTHEST = 3.0  # decades beyond the runs, from which on nothing is widened: there is no number


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The ranges of a fit's runs, and how its law errs beyond them."""

    size: Range  # n_once + r·n_rec: parameters, each counted as often as it is passed
    tokens: Range
    recurrences: Range
    # relative error of the loss at the highest budget when it is held out, for ten times the size
    # or tokens; None: fewer than three budgets
    miss: float | None
    phi_drift: float | None  # 95%: change of φ for ten times the size; None: the runs can't tell

    def decades(self, size: Array, tokens: Array | None = None) -> Array:
        """log₁₀ of the distance beyond the runs, in size or tokens, whichever is larger; 0 inside.

        size, tokens: (n,).
        """
        beyond = _beyond(size, self.size)
        return beyond if tokens is None else np.maximum(beyond, _beyond(tokens, self.tokens))

    def said(
        self, size: Array, recurrences: Array, tokens: Array | None = None
    ) -> tuple[Warned, ...]:
        """What lies beyond the runs, and by how much; (n,) each."""
        found = []
        for name, values, seen in (
            ("size n_once + r·n_rec", size, self.size),
            ("tokens", tokens, self.tokens),
            ("r", recurrences, self.recurrences),
        ):
            if values is None:
                continue
            beyond = _beyond(values, seen)
            if not (beyond > 0).any():
                continue
            i = int(np.argmax(beyond))
            side = "above" if values[i] > seen[1] else "below"
            found.append(
                Warned(
                    "extrapolated",
                    f"{name} = {values[i]:.4g} lies {10 ** beyond[i]:.3g} times {side} the runs' "
                    f"{seen[0]:.4g} to {seen[1]:.4g}: the law's form is extrapolated there",
                )
            )
        return tuple(found)


def _beyond(values: Array, seen: Range) -> Array:
    found = np.maximum(np.log10(values / seen[1]), np.log10(seen[0] / values))
    return np.where(found > np.log10(1.0 + _SLACK), found, 0.0)


def size_of(n_once: Array, n_rec: Array, recurrences: Array) -> Array:
    """n_once + r·n_rec (n,). Raises InputError for what is no model's size."""
    with np.errstate(over="ignore"):
        size = n_once + recurrences * n_rec
    if not (size < _LARGEST).all():
        raise InputError(f"{float(np.max(size)):.3g} parameters are no model's")
    return size


def check_tokens(tokens: Array) -> None:
    """Raises InputError for what is no run's number of tokens."""
    if not ((tokens < _LARGEST) & (tokens > 1.0 / _LARGEST)).all():
        raise InputError(f"{float(np.max(tokens)):.3g} tokens are no run's")


def seen_by(problem: Problem, best: Estimate, ahead: Extrapolation | None) -> Seen:
    """The reach of a problem's runs. ahead: of the same problem, where it has one."""
    r = problem.frame["recurrences"].to_numpy(dtype=float)
    size = problem.design.n_once + r * problem.design.n_rec
    tokens = problem.frame["tokens"].to_numpy(dtype=float)
    return Seen(
        size=(float(size.min()), float(size.max())),
        tokens=(float(tokens.min()), float(tokens.max())),
        recurrences=(float(r.min()), float(r.max())),
        miss=_miss(problem, ahead),
        phi_drift=_phi_drift(problem, best, np.log10(size)),
    )


def _miss(problem: Problem, ahead: Extrapolation | None) -> float | None:
    """The held-out budget's relative rms error, for ten times the size or tokens.

    Ten times the size, or the tokens, go with about a hundred times the budget.
    """
    if ahead is None or problem.budgets is None:
        return None
    below = problem.budgets[problem.budgets < ahead.budget_flops].max()
    decades = float(np.log10(ahead.budget_flops / below)) / 2.0
    return ahead.rmse / float(np.exp(problem.log_loss.mean())) / decades


def _phi_drift(problem: Problem, best: Estimate, decades: Array) -> float | None:
    """Half of the 95% interval of φ's change for ten times the size, from the Jacobian."""
    if problem.eta_names != ("phi",) or problem.n <= best.theta.size + 1:
        return None
    jacobian = problem.law.evaluate(best.theta[None], problem.design).jacobian[0] * problem.scale
    drift = jacobian[-1] * (decades - decades.mean())
    rows = np.vstack([jacobian, drift])
    size = np.sqrt((rows**2).sum(axis=1))
    if not (size > 0).all():
        return None
    rows = rows / size[:, None]
    values, vectors = np.linalg.eigh(rows @ rows.T)
    lost = values < 1e-13 * values[-1]
    if (vectors[-1, lost] ** 2).sum() > 1e-6:
        return None
    sigma = max(noise_scale(problem, best.objective, best.theta.size), NOISE_FLOOR)
    freedom = max(noise_freedom(problem, sigma, best.theta.size + 1), 1.0)
    error = sigma * np.sqrt((vectors[-1, ~lost] ** 2 / values[~lost]).sum()) / size[-1]
    half = float(special.stdtrit(freedom, 0.975) * error)
    return half if np.isfinite(half) else None

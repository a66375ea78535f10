"""What is supposed about runs not yet trained: laws, their coefficients and the noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isodepth.errors import InputError
from isodepth.fitting import Fit, fit
from isodepth.fitting.noise import moments
from isodepth.laws import LAWS, Array, Design, LawName
from isodepth.planning.design import Worlds
from isodepth.runs import Runs

# Standard deviation of the log loss about the law: the published baseline's residuals are 0.0025
# about the coupled law and 0.0037 about the additive one (rms, Huber fits of all 116 runs).
NOISES = (0.0025, 0.004)
PRIOR_LAWS: tuple[LawName, ...] = ("additive", "coupled")
_RESAMPLES = 50


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """n runs that could be trained."""

    recurrences: Array  # (n,) r
    n_once: Array  # (n,) parameters
    n_rec: Array  # (n,) parameters of the shared block
    n_inject: Array  # (n,) parameters of the injection
    tokens: Array  # (n,) training tokens
    flops: Array  # (n,) training FLOPs of one run
    budget_flops: Array  # (n,) nominal training FLOPs of its iso-FLOP group


def prior(runs: Runs | str | Path, *, recipe: str | None = None, seed: int = 0) -> list[Fit]:
    """One fit of every supposed law, with resamples. Raises InputError where φ can't be told."""
    fits = [
        fit(runs, recipe=recipe, law=law, bootstrap=_RESAMPLES, seed=seed) for law in PRIOR_LAWS
    ]
    for one in fits:
        if one.phi is None:
            raise InputError(
                f"{one.source} ({one.recipe}) can't tell φ under the {one.conventions.law} law, so "
                "that no design can be made from it"
            )
    return fits


def worlds(
    candidates: Candidates, fits: list[Fit], *, noises: tuple[float, ...], draws: int = 12
) -> Worlds:
    """Gradients of the candidates' log loss in every supposed world; the number wanted is φ.

    Worlds: every fit × (its optimum and the first `draws` of its resamples) × every noise, all of
    one weight within a fit and noise, and the same for every fit and noise. noises: standard
    deviations of the log loss, alike for all runs and independent between them. The variance is
    that of the fit's own estimator (`fitting.noise.Moments.variance`).
    Raises InputError for fits without φ, counting by regression, or noises that aren't positive.
    """
    if not noises or min(noises) <= 0:
        raise InputError("the noise of the log loss must be positive")
    for one in fits:
        if one.conventions.count_injection == "regressed" or one.conventions.multiplicity == "free":
            raise InputError("a design needs fits with multiplicity power, not counted `regressed`")
    width = max(one.fitted.theta.size for one in fits)
    rows, targets, sizes, names = [], [], [], []
    for one in fits:
        jacobian = _jacobian(one, candidates, draws)
        k, p, n = jacobian.shape
        padded = np.zeros((k, n, width))
        padded[:, :, :p] = jacobian.swapaxes(1, 2)
        target = np.zeros((k, width))
        target[:, one.fitted.theta_names.index("phi")] = 1.0
        for noise in noises:
            k_delta = one.conventions.huber_delta / noise
            factor = moments(k_delta).variance if one.conventions.estimator == "huber" else 1.0
            rows.append(padded / (noise * np.sqrt(factor)))
            targets.append(target)
            sizes.append(np.full(k, p))
            names += [f"{one.conventions.law}, noise {noise:g}"] * k
    count = np.array([len(part) for part in rows])
    return Worlds(
        rows=np.concatenate(rows),
        target=np.concatenate(targets),
        weights=np.repeat(1.0 / (count * count.size), count),
        n_params=np.concatenate(sizes),
        names=tuple(names),
    )


def _jacobian(one: Fit, candidates: Candidates, draws: int) -> Array:
    """(K, p, n) of log loss, at the optimum and at resamples."""
    fitted = one.fitted
    if "phi" not in fitted.theta_names:
        raise InputError(f"{one.source} ({one.recipe}) can't tell φ")
    theta = fitted.theta[None]
    if fitted.resamples is not None:
        theta = np.concatenate([theta, fitted.resamples.theta[:draws]])
    once, rec = one.count(candidates.n_once, candidates.n_rec, candidates.n_inject)
    design = Design(
        n_once=once,
        n_rec=rec,
        z=fitted.columns(candidates.recurrences),
        log_tokens=np.log(candidates.tokens),
        log_n0=fitted.log_n0,
        log_d0=fitted.log_d0,
    )
    return LAWS[fitted.law].evaluate(theta, design).jacobian

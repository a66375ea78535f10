"""What is supposed about runs not yet trained: laws, their coefficients and the noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isodepth.errors import InputError
from isodepth.fitting import Fit, fit
from isodepth.fitting.estimate import estimate
from isodepth.fitting.noise import moments
from isodepth.fitting.problem import build
from isodepth.fitting.uncertainty import resample
from isodepth.laws import Array, Bools, Integers, LawName
from isodepth.planning.design import USELESS, Worlds
from isodepth.runs import Runs, load_runs
from isodepth.runs.checks import MOST_FLOPS

# Standard deviation of the log loss about the law: the published baseline's residuals are 0.0025
# about the coupled law and 0.0037 about the additive one (rms, Huber fits of all 116 runs).
NOISES = (0.0025, 0.004)
PRIOR_LAWS: tuple[LawName, ...] = ("additive", "coupled")
_RESAMPLES = 50
_NOISES = (1e-8, 1.0)  # standard deviations of a log loss that can be supposed


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
    seconds: Array | None = None  # (n,) of one run, where time is what a design is to spend
    made: Candidates | None = None  # runs that are there already, and cost nothing
    # (n,) the second recipe's runs, r > 1 all of them, where Δφ is wanted; None: one recipe
    second: Bools | None = None
    # φ supposed, where the unlooped runs are to hold the looped ones' twins; None: they needn't
    phi: float | None = None

    def log_twin(self, phi: float) -> Array:
        """(n,) log of the parameters of the unlooped runs of equal loss at equal tokens."""
        worth = self.recurrences**phi * self.n_rec
        return np.asarray(np.log(self.n_once + self.n_inject + worth))

    @property
    def cost(self) -> Array:
        """(n,) what a design spends on each: seconds where they are given, else FLOPs."""
        return self.flops if self.seconds is None else self.seconds

    @property
    def members(self) -> tuple[Bools, Bools]:
        """Those (n,) that can tell the first recipe's φ, and the second's: with the first's r = 1.

        Raises ValueError where there is one recipe.
        """
        if self.second is None:
            raise ValueError("candidates of one recipe are not shared by two")
        return ~self.second, self.second | (self.recurrences == 1)

    @property
    def known_budgets(self) -> Array:
        """Nominal training FLOPs of those whose iso-FLOP group is known."""
        return self.budget_flops[np.isfinite(self.budget_flops)]

    def only(self, which: Bools) -> Candidates:
        """Some of them (n,), as runs to be counted in FLOPs."""
        return Candidates(
            recurrences=self.recurrences[which],
            n_once=self.n_once[which],
            n_rec=self.n_rec[which],
            n_inject=self.n_inject[which],
            tokens=self.tokens[which],
            flops=self.flops[which],
            budget_flops=self.budget_flops[which],
        )

    def followed_by(self, more: Candidates) -> Candidates:
        """Both, as runs to be counted in FLOPs."""

        def joined(name: str) -> Array:
            return np.concatenate([getattr(self, name), getattr(more, name)])

        two = self.second is not None and more.second is not None

        return Candidates(
            recurrences=joined("recurrences"),
            n_once=joined("n_once"),
            n_rec=joined("n_rec"),
            n_inject=joined("n_inject"),
            tokens=joined("tokens"),
            flops=joined("flops"),
            budget_flops=joined("budget_flops"),
            second=joined("second").astype(bool) if two else None,
        )


def prior(runs: Runs | str | Path, *, recipe: str | None = None, seed: int = 0) -> list[Fit]:
    """One fit of every supposed law, with resamples. Raises InputError where φ can't be told."""
    fits = [
        fit(runs, recipe=recipe, law=law, bootstrap=_RESAMPLES, seed=seed, sensitivity=False)
        for law in PRIOR_LAWS
    ]
    for one in fits:
        if one.phi is None:
            raise InputError(
                f"{one.source} ({one.recipe}) can't tell φ under the {one.conventions.law} law, so "
                "that no design can be made from it"
            )
    return [_by_groups(one, runs, seed) for one in fits]


def _by_groups(one: Fit, runs: Runs | str | Path, seed: int) -> Fit:
    """The fit with resamples of groups where it has draws from error structures.

    What may be true of the law is what its noise leaves open. Draws from structures also hold the
    misses of the law along r, which no design of the same law buys off; the designs' coverage was
    simulated with groups (docs/designing-a-sweep.md).
    """
    drawn = one.fitted.resamples
    if drawn is None or drawn.unit != "structures":
        return one
    table = runs if isinstance(runs, Runs) else load_runs(runs)
    rows, _ = table.of_recipe(one.recipe)
    problem = build(rows[rows["status"] == "done"], one.conventions)
    best = estimate(problem, one.fitted.theta[None])
    groups = resample(problem, best, _RESAMPLES, seed, "groups")
    return replace(one, fitted=replace(one.fitted, resamples=groups))


def worlds(
    candidates: Candidates,
    fits: list[Fit],
    *,
    noises: tuple[float, ...],
    draws: int = 12,
    at_budget: float | None = None,
) -> Worlds:
    """Gradients of the candidates' log loss in every supposed world; the number wanted is φ.

    Worlds: every fit × (its optimum and the first `draws` of its resamples) × every noise, all of
    one weight within a fit and noise, and the same for every fit and noise. noises: standard
    deviations of the log loss, alike for all runs and independent between them. The variance, and
    the degrees of freedom, are those of the fit's own estimator (`fitting.noise.Moments`). What
    `candidates.made` tell is known.
    at_budget: training FLOPs at which φ is wanted where it may drift with the budget's logarithm
    (`fitting.drift`): one more parameter, the last of each world's, supposed to be 0.
    Raises InputError for fits without φ, counting by regression, noises or a budget that aren't
    positive, and, with a drift, for runs of unknown budget.
    """
    if not noises or not all(_NOISES[0] <= noise <= _NOISES[1] for noise in noises):
        raise InputError(
            f"the noise of the log loss must be positive, {_NOISES[0]:g} to {_NOISES[1]:g}"
        )
    for one in fits:
        if one.conventions.count_injection == "regressed" or one.conventions.multiplicity == "free":
            raise InputError("a design needs fits with multiplicity power, not counted `regressed`")
    if candidates.made is not None:
        both = candidates.made.followed_by(candidates)
        known = np.arange(candidates.made.flops.size)
        return worlds(both, fits, noises=noises, draws=draws, at_budget=at_budget).knowing(known)
    if at_budget is not None and not 1.0 <= at_budget <= MOST_FLOPS:
        raise InputError(
            f"a budget of {at_budget:g} FLOPs must be a positive number, up to {MOST_FLOPS:g}"
        )
    if at_budget is not None and not np.isfinite(candidates.budget_flops).all():
        raise InputError(
            "with a drift of φ the runs made need budget_flops, flops_per_token or flops"
        )
    width = max(one.fitted.theta.size for one in fits) + (at_budget is not None)
    rows, targets, sizes, freedom, names = [], [], [], [], []
    for one in fits:
        jacobian = _jacobian(one, candidates, draws)
        if at_budget is not None:
            of_phi = jacobian[:, [one.fitted.theta_names.index("phi")]]
            drift = of_phi * np.log10(candidates.budget_flops / at_budget)
            jacobian = np.concatenate([jacobian, drift], axis=1)
        k, p, n = jacobian.shape
        padded = np.zeros((k, n, width))
        padded[:, :, :p] = jacobian.swapaxes(1, 2)
        target = np.zeros((k, width))
        target[:, one.fitted.theta_names.index("phi")] = 1.0
        for noise in noises:
            threshold = (
                one.conventions.huber_delta if one.conventions.estimator == "huber" else np.inf
            )
            at = moments(threshold / noise)
            rows.append(padded / (noise * np.sqrt(at.variance)))
            freedom.append(np.full(k, at.freedom))
            targets.append(target)
            sizes.append(np.full(k, p))
            names += [f"{one.conventions.law}, noise {noise:.3g}"] * k
    count = np.array([len(part) for part in rows])
    return Worlds(
        rows=np.concatenate(rows),
        target=np.concatenate(targets),
        weights=np.repeat(1.0 / (count * count.size), count),
        n_params=np.concatenate(sizes),
        freedom=np.concatenate(freedom),
        names=tuple(names),
    )


def drift_half_width(
    candidates: Candidates,
    fits: list[Fit],
    counts: Integers,
    *,
    noises: tuple[float, ...],
) -> float | None:
    """Predicted half-width of the 95% interval of φ's change for ten times the FLOPs.

    counts (n,): the runs. None where they can't tell a drift.
    """
    center = float(np.exp(np.log(candidates.known_budgets).mean()))
    with_drift = worlds(candidates, fits, noises=noises, at_budget=center)
    target = np.eye(with_drift.target.shape[1])[with_drift.n_params - 1]
    half = replace(with_drift, target=target).half_width(counts)
    return half if half < USELESS else None


def _jacobian(one: Fit, candidates: Candidates, draws: int) -> Array:
    """(K, p, n) of log loss, at the optimum and at resamples."""
    fitted = one.fitted
    if "phi" not in fitted.theta_names:
        raise InputError(f"{one.source} ({one.recipe}) can't tell φ")
    theta = fitted.theta[None]
    if fitted.resamples is not None:
        theta = np.concatenate([theta, fitted.resamples.theta[:draws]])
    once, rec = one.count(candidates.n_once, candidates.n_rec, candidates.n_inject)
    design = fitted.design(once, rec, candidates.recurrences, candidates.tokens)
    return fitted.form.evaluate(theta, design).jacobian

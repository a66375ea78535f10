"""Which parameters a design can tell, and why it can't tell the others.

Two tests. The first looks at the runs: with one budget, one width, or one r, some parameters never
vary apart whatever the losses are. The second looks at the fit: a parameter whose standard error
(from the Jacobian, at the residuals' spread but no less than 0.1% of the loss, about what two
seeds differ by) is too large to say anything is not identified either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isodepth.fitting.noise import noise_scale
from isodepth.fitting.problem import Problem
from isodepth.fitting.solver import huber
from isodepth.fitting.unlooped import Optima, optima
from isodepth.laws import Array

NOISE_FLOOR = 1e-3  # relative noise of a loss below which no standard error is believed
_LARGEST_SE_PHI = 0.5  # the interval then spans "worth nothing" to "worth a block" twice over
_LARGEST_SE_LOG = 1.0  # a coefficient known to no better than a factor e
_ONE_BUDGET = 0.025  # rms of log tokens about what one budget buys
_BUYS = (-1.15, -0.35)  # slope of log tokens against log size at one budget
_TIED = 1e-4  # share of log D's variation that log N leaves unexplained where they are tied


@dataclass(frozen=True, kw_only=True)
class Identified:
    """Names of reported parameters that the runs identify, and a sentence for each that isn't."""

    names: frozenset[str]
    missing: dict[str, str]  # parameter → why
    codes: dict[str, str]  # why → the code of its warning, where it is not `not_identified`
    standard_errors: dict[str, float]  # of θ, by θ's names
    optima: Optima | None  # the values of φ that runs without r = 1 are described by

    def code(self, name: str) -> str:
        """The code of the warning that a parameter is not identified."""
        return self.codes.get(self.missing[name], "not_identified")


def identify(problem: Problem, theta: Array) -> Identified:
    """What the fit at theta (p,) can be asked for."""
    errors = dict(zip(problem.theta_names, standard_errors(problem, theta), strict=True))
    raw = problem.law.raw(theta[None], problem.design)
    reported = [*raw, *problem.eta_names]
    if not problem.eta_names and problem.multiplicity.name == "power":
        reported.append("phi")
    codes: dict[str, str] = {}
    missing: dict[str, str] = {}
    for doubt in problem.doubts:
        if doubt.withholds:
            codes[doubt.warned.text] = doubt.warned.code
            missing |= {name: doubt.warned.text for name in reported if name not in missing}
    for name, why in _structural(problem, reported, codes).items():
        missing.setdefault(name, why)
    found = None if missing.keys() & {"phi", *problem.eta_names} else optima(problem, theta)
    if found is not None and found.ambiguous:
        codes[found.why] = "two_solutions"
        missing |= {"phi": found.why, "A": found.why}
    for name, why in _numerical(problem, theta, errors).items():
        missing.setdefault(name, why)
    for name, value in raw.items():
        if not np.isfinite(value[0]):
            missing.setdefault(name, "the fit ran to a value too large to write")
    return Identified(
        names=frozenset(reported) - frozenset(missing),
        missing=missing,
        codes=codes,
        standard_errors=errors,
        optima=found,
    )


def standard_errors(problem: Problem, theta: Array) -> Array:
    """Standard error of each θ (p,) from the Jacobian; inf along directions no run constrains."""
    at = problem.law.evaluate(theta[None], problem.design)
    jac = at.jacobian[0] * problem.scale
    residual = problem.scale * (at.log_loss[0] - problem.log_loss)
    sigma = max(_sigma(problem, residual, theta.size), NOISE_FLOOR)
    size = np.sqrt((jac**2).sum(axis=1)) + 1e-300
    values, vectors = np.linalg.eigh((jac / size[:, None]) @ (jac / size[:, None]).T)
    lost = values < 1e-13 * values[-1]
    variance = ((vectors**2)[:, ~lost] / values[~lost]).sum(axis=1)
    variance = np.where((vectors**2)[:, lost].sum(axis=1) > 1e-6, np.inf, variance)
    return np.asarray(sigma * np.sqrt(variance) / size)


def _sigma(problem: Problem, residual: Array, n_params: int) -> float:
    """The noise of the scaled log loss that the residuals (n,) of a fit show."""
    if problem.n <= n_params:
        return 0.0
    value = float(huber(residual[None], problem.delta)[0])
    return noise_scale(problem, value, n_params)


def _structural(problem: Problem, reported: list[str], codes: dict[str, str]) -> dict[str, str]:
    """Parameters that this set of runs can't tell whatever its losses, with the reason.

    codes: where the code of a reason is written that is not `not_identified`.
    """
    frame = problem.frame
    shape = [name for name in reported if not _is_multiplicity(name)]
    eta = [name for name in reported if _is_multiplicity(name)]
    missing: dict[str, str] = {}

    def mark(names: list[str], why: str) -> None:
        for name in names:
            missing.setdefault(name, why)

    recurrences = np.unique(frame["recurrences"])
    if recurrences.size == 1:
        only = recurrences[0]
        mark(
            eta,
            f"every run has r = {only:g}; telling what a recurrence is worth takes two values of r",
        )
        if only > 1:
            mark(["A"], f"every run has r = {only:g}, so A and φ can't be told apart")
    sizes = np.unique(problem.design.n_once + problem.design.n_rec)
    unlooped = frame["n_once"] + frame["n_rec"] * frame["recurrences"]
    if "width" in frame and frame["width"].notna().all():
        one_size = frame["width"].nunique() == 1
    else:
        one_size = unlooped.max() / unlooped.min() < 1.05
    if one_size or sizes.size == 1:
        tied = [name for name in ("E", "A", "alpha", "gamma") if name in shape]
        mark(tied + eta, "every run has one width, so the loss is not seen to fall with size")
    tokens = frame["tokens"]
    if tokens.max() / tokens.min() < 1.05:
        mark(
            [name for name in ("E", "B", "beta", "gamma") if name in shape],
            "every run has the same number of tokens, so the loss is not seen to fall with tokens",
        )
    elif _one_budget(problem):
        why = (
            "every run has one FLOP budget, so tokens follow from size and the two terms of the "
            "law can't be told apart"
        )
        codes[why] = "one_budget"
        mark(shape + eta, why)
    elif recurrences.size == 1 and tokens_follow_size(problem):
        mark(
            shape,
            "tokens are proportional to parameters, so the law's two terms can't be told apart",
        )
    return missing


def _one_budget(problem: Problem) -> bool:
    """Whether the runs name one budget, or their tokens are what one budget buys of their sizes.

    A budget C buys D = C / (6M + what attention and head cost) tokens of a model of M = N_once +
    r·N_rec parameters: log D falls along a parabola in log M, for every r its own where
    backpropagation is cut, with a slope between −1 and that of a model that is nearly all head.
    """
    if problem.budgets is not None:
        return bool(np.unique(problem.budgets).size == 1)
    frame = problem.frame
    r = frame["recurrences"].to_numpy(dtype=float)
    log_m = np.log((frame["n_once"] + r * (frame["n_rec"] + frame["n_inject"])).to_numpy())
    log_d = problem.design.log_tokens
    x = log_m - log_m.mean()
    levels = np.unique(r)
    if problem.n <= 3 + levels.size:
        return False
    columns = np.stack([x, x**2, *(r == level for level in levels)], axis=1)
    found = np.linalg.lstsq(columns, log_d, rcond=None)[0]
    left = log_d - columns @ found
    slope = float((x @ (columns[:, :2] @ found[:2])) / (x @ x)) if x.any() else 0.0
    return bool(np.sqrt((left**2).mean()) < _ONE_BUDGET and _BUYS[0] < slope < _BUYS[1])


def tokens_follow_size(problem: Problem) -> bool:
    """Whether log D is a straight line in log N (unique parameters) over all runs."""
    frame = problem.frame
    log_n = np.log((frame["n_once"] + frame["n_rec"]).to_numpy(dtype=float))
    log_d = problem.design.log_tokens
    columns = np.stack([np.ones_like(log_n), log_n], axis=1)
    left = log_d - columns @ np.linalg.lstsq(columns, log_d, rcond=None)[0]
    spread = float(((log_d - log_d.mean()) ** 2).sum())
    return float((left**2).sum()) <= _TIED * spread


def _numerical(problem: Problem, theta: Array, errors: dict[str, float]) -> dict[str, str]:
    """Parameters whose standard error at the optimum leaves nothing to report."""
    at = dict(zip(problem.theta_names, theta, strict=True))
    shape = problem.law.shape
    floor, log_a, alpha, log_b, beta = shape[:5]
    missing: dict[str, str] = {}
    few = problem.n <= theta.size

    def judge(name: str, limit: float, theta_name: str) -> None:
        worst = errors[theta_name]
        if few:
            missing[name] = f"{problem.n} runs can't hold {theta.size} parameters"
        elif worst > limit:
            size = "without bound" if not np.isfinite(worst) or worst > 1e3 else f"{worst:.2g}"
            missing[name] = f"the runs leave it open (standard error {size})"

    judge("E", abs(at[floor]), floor)
    for exponent, name in ((alpha, "alpha"), (beta, "beta")):
        judge(name, max(abs(at[exponent]), 1e-9), exponent)
    judge("A", _LARGEST_SE_LOG, log_a)
    judge("B", _LARGEST_SE_LOG, log_b)
    for coefficient, name in (("A", "alpha"), ("B", "beta")):
        if name in missing:
            missing.setdefault(coefficient, missing[name])
    if "log_gamma" in shape:
        judge("gamma", _LARGEST_SE_LOG, "log_gamma")
    for name in problem.eta_names:
        judge(name, _LARGEST_SE_PHI, name)
    lowest, highest = problem.bounds
    for i, name in enumerate(problem.theta_names):
        if theta[i] <= lowest[i] + 1e-6 or theta[i] >= highest[i] - 1e-6:
            for reported in _REPORTED.get(name, (name,)):
                missing[reported] = "the fit ran to the end of its range"
    if at[floor] <= 0.0:
        missing["E"] = "the fit ran to E = 0: these runs show no floor"
    return missing


def _is_multiplicity(name: str) -> bool:
    return name.startswith(("phi", "log_m", "log_cost"))


_REPORTED = {
    "log_A0": ("A",),
    "alpha": ("alpha", "A"),
    "log_B0": ("B",),
    "beta": ("beta", "B"),
    "gamma_log_A0": ("A",),
    "gamma_alpha": ("alpha", "A"),
    "gamma_log_B0": ("B",),
    "gamma_beta": ("beta", "B"),
    "log_gamma": ("gamma",),
}

"""Is the law right? Everything here is computed for every fit and printed beside φ.

Likelihood comparisons (BIC) use least squares on log loss, where a likelihood is defined, whatever
the estimator of the fit itself. Prediction errors use the fit's own estimator.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import special

from isodepth.fitting.estimate import MANY, Estimate, estimate, refit, spread_rows
from isodepth.fitting.identify import identify
from isodepth.fitting.one_step import leaving_out
from isodepth.fitting.problem import Problem, build, replicate_sets
from isodepth.laws import LAWS, MULTIPLICITIES, Array, LawName, MultiplicityName

_STARTS = 5  # besides the optimum, shared with a fit that differs in its estimator alone
_NAMED = 5  # most influential runs listed
_MOST_BUDGETS = 20  # that are left out one by one
_LEAST_BUDGETS = 3  # to leave one out and still see how loss falls with compute


@dataclass(frozen=True, kw_only=True)
class CurveCheck:
    """Measured against drawn curvature of one iso-FLOP curve: loss = … + c·(log N)²."""

    recurrences: int
    budget_flops: float  # FLOPs
    n_runs: int
    mean_residual: float  # measured − law, nats
    curvature: float  # measured, nats per (log N)²
    curvature_law: float  # drawn by the law at the same runs
    t: float  # of their difference, against the noise pooled over all curves


@dataclass(frozen=True, kw_only=True)
class CurvatureTest:
    """Are iso-FLOP curves as steep as the law draws them?"""

    groups: tuple[CurveCheck, ...]
    noise: float  # pooled standard deviation about the parabolas, nats
    degrees_of_freedom: int
    steepness: float  # measured over drawn curvature, pooled over the groups
    p_value: float  # of no difference in the pooled curvature


@dataclass(frozen=True, kw_only=True)
class FormFit:
    """One form (law and multiplicity) on the same runs."""

    n_params: int
    rmse: float  # nats, least squares
    bic: float  # least squares on log loss; lower is better
    leave_one_budget_out_rmse: float | None  # nats, over runs of budgets the fit did not see
    phi: float | None
    multiplicity: dict[str, float]  # r → m(r), of those that the runs can tell


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Lack of fit against pure error (F test), where runs differ in their seed alone."""

    n_sets: int
    degrees_of_freedom: int
    noise: float  # relative standard deviation of the loss between replicates
    f: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Influence:
    """How far φ moves when one run is left out."""

    run_id: str
    delta_phi: float


@dataclass(frozen=True, kw_only=True)
class LackOfFit:
    """How the law's form stands up to the runs."""

    curvature: CurvatureTest | None
    laws: dict[LawName, FormFit]  # additive and coupled, with the fit's multiplicity
    multiplicities: dict[MultiplicityName, FormFit]  # power and free, with the fit's law
    replicates: Replicates | None
    influence: tuple[Influence, ...]  # most influential first
    max_abs_delta_phi: float | None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """The highest budget predicted by a fit to the lower ones."""

    budget_flops: float  # FLOPs, the one held out
    n_runs: int
    rmse: float  # nats
    mean_error: float  # predicted − measured, nats
    phi: float | None  # of the fit that did not see it


def lack_of_fit(problem: Problem, fitted: Estimate) -> LackOfFit:
    """Every check of the law's form that these runs allow."""
    own = (problem.law.name, problem.multiplicity.name)
    forms: dict[tuple[LawName, MultiplicityName], FormFit] = {}

    def form(law: LawName, multiplicity: MultiplicityName) -> FormFit:
        key = (law, multiplicity)
        if key not in forms:
            forms[key] = _form(problem, law, multiplicity, fitted if key == own else None)
        return forms[key]

    influence = _influence(problem, fitted)

    def ranked(law: LawName, multiplicity: MultiplicityName) -> bool:
        """Whether runs are left to test a form: through as many points as parameters any runs."""
        levels = problem.frame["recurrences"].to_numpy(dtype=float)
        size = len(LAWS[law].shape) + len(MULTIPLICITIES[multiplicity].names(levels))
        return problem.n > size

    return LackOfFit(
        curvature=curvature_test(problem, fitted.theta),
        laws={law: form(law, own[1]) for law in LAWS if ranked(law, own[1])},
        multiplicities={m: form(own[0], m) for m in MULTIPLICITIES if ranked(own[0], m)}
        if problem.eta_names
        else {},
        replicates=_replicates(problem, fitted.theta),
        influence=influence[:_NAMED],
        max_abs_delta_phi=abs(influence[0].delta_phi) if influence else None,
    )


def extrapolation(problem: Problem, fitted: Estimate) -> Extrapolation | None:
    """None where fewer than three budgets leave nothing to extrapolate from."""
    budgets = problem.budgets
    if budgets is None or np.unique(budgets).size < _LEAST_BUDGETS:
        return None
    highest = budgets == budgets.max()
    theta = refit(problem, fitted, weights=(~highest)[None].astype(float))
    error = (problem.predict(theta)[0] - np.exp(problem.log_loss))[highest]
    lower = build(problem.frame[~highest], problem.conventions, problem.doubts)
    if (~highest).sum() <= theta.shape[1] or lower.theta_names != problem.theta_names:
        return None
    return Extrapolation(
        budget_flops=float(budgets.max()),
        n_runs=int(highest.sum()),
        rmse=float(np.sqrt((error**2).mean())),
        mean_error=float(error.mean()),
        phi=_phi(lower, estimate(lower)),
    )


def _phi(problem: Problem, fitted: Estimate) -> float | None:
    """φ where the runs can tell it."""
    if "phi" not in identify(problem, fitted.theta).names:
        return None
    return float(fitted.theta[problem.theta_names.index("phi")])


def curvature_test(problem: Problem, theta: Array) -> CurvatureTest | None:
    """Curvature of each iso-FLOP curve of three or more sizes; None where no noise can be read."""
    if problem.budgets is None:
        return None
    frame = problem.frame
    log_n = np.log((frame["n_once"] + frame["n_rec"] + frame["n_inject"]).to_numpy(dtype=float))
    loss = np.exp(problem.log_loss)
    drawn = problem.predict(theta)[0]
    recurrences = frame["recurrences"].to_numpy(dtype=int)
    rows_of, contrasts, squares, freedom = [], [], 0.0, 0
    for label in np.unique(problem.groups):
        rows = np.flatnonzero(problem.groups == label)
        x = log_n[rows] - log_n[rows].mean()
        if np.unique(np.round(x, 9)).size < 3:
            continue
        columns = np.vander(x, 3, increasing=True)
        inverse = np.linalg.pinv(columns)
        left = loss[rows] - columns @ (inverse @ loss[rows])
        squares += float(left @ left)
        freedom += len(rows) - 3
        rows_of.append(rows)
        contrasts.append(inverse[2])
    if freedom == 0:
        return None
    noise = float(np.sqrt(squares / freedom))
    checks = []
    for rows, contrast in zip(rows_of, contrasts, strict=True):
        measured, law = float(contrast @ loss[rows]), float(contrast @ drawn[rows])
        checks.append(
            CurveCheck(
                recurrences=int(recurrences[rows[0]]),
                budget_flops=float(problem.budgets[rows[0]]),
                n_runs=len(rows),
                mean_residual=float((loss[rows] - drawn[rows]).mean()),
                curvature=measured,
                curvature_law=law,
                t=(measured - law) / (noise * float(np.sqrt(contrast @ contrast))),
            )
        )
    # pooled with inverse-variance weights: long curves tell curvature far better than short ones
    precision = np.array([1.0 / (c @ c) for c in contrasts])
    gap = np.array([c.curvature - c.curvature_law for c in checks])
    total_t = float((precision * gap).sum() / (noise * np.sqrt(precision.sum())))
    measured_mean = float((precision * [c.curvature for c in checks]).sum())
    law_mean = float((precision * [c.curvature_law for c in checks]).sum())
    return CurvatureTest(
        groups=tuple(checks),
        noise=noise,
        degrees_of_freedom=freedom,
        steepness=measured_mean / law_mean,
        p_value=float(2 * special.stdtr(freedom, -abs(total_t))),
    )


def _form(
    problem: Problem,
    law: LawName,
    multiplicity: MultiplicityName,
    known: Estimate | None,
) -> FormFit:
    """Least squares for the likelihood, the fit's own estimator for prediction."""
    conventions = replace(problem.conventions, law=law, multiplicity=multiplicity)
    same = problem.with_conventions(conventions)
    squares = problem.with_conventions(replace(conventions, estimator="lsq"))
    own = known or estimate(same)
    least = (
        own
        if conventions.estimator == "lsq"
        else estimate(squares, np.vstack([own.theta, own.starts[:_STARTS]]))
    )
    n, p = problem.n, len(squares.theta_names)
    error = squares.predict(least.theta)[0] - np.exp(problem.log_loss)
    told = identify(same, own.theta).names
    levels = np.unique(problem.frame["recurrences"].to_numpy(dtype=float))
    log_m = own.theta[len(same.law.shape) :] @ same.multiplicity.columns(levels)
    return FormFit(
        n_params=p,
        rmse=float(np.sqrt((error**2).mean())),
        bic=float(n * np.log(max(2 * least.objective / n, 1e-300)) + p * np.log(n)),
        leave_one_budget_out_rmse=_leave_one_budget_out(same, own),
        phi=_phi(same, own),
        multiplicity={
            f"{r:g}": float(np.exp(m))
            for r, m in zip(levels, log_m, strict=True)
            if r > 1 and ("phi" in told or f"log_m{r:g}" in told)
        },
    )


def _leave_one_budget_out(problem: Problem, fitted: Estimate) -> float | None:
    if problem.n > MANY:
        problem = problem.only(spread_rows(problem))
    budgets = problem.budgets
    if budgets is None or np.unique(budgets).size < _LEAST_BUDGETS:
        return None
    parts = np.unique(budgets, return_inverse=True)[1]
    if parts.max() >= _MOST_BUDGETS:  # neighbours go together
        parts = parts * _MOST_BUDGETS // (parts.max() + 1)
    out = parts == np.arange(parts.max() + 1)[:, None]
    theta = refit(problem, fitted, weights=(~out).astype(float))
    error = problem.predict(theta) - np.exp(problem.log_loss)
    return float(np.sqrt((error[out] ** 2).mean()))


def _influence(problem: Problem, fitted: Estimate) -> tuple[Influence, ...]:
    if problem.n <= fitted.theta.size + 1 or _phi(problem, fitted) is None:
        return ()
    at = problem.theta_names.index("phi")
    rows = np.arange(problem.n)
    if problem.n > MANY:  # the largest by one step, then exactly
        near = np.abs(leaving_out(problem, fitted)[:, at] - fitted.theta[at])
        rows = np.argsort(-near, kind="stable")[: 2 * _NAMED]
    theta = refit(problem, fitted, weights=(rows[:, None] != np.arange(problem.n)).astype(float))
    delta = theta[:, at] - fitted.theta[at]
    order = np.argsort(-np.abs(delta), kind="stable")
    ids = problem.frame["run_id"].to_numpy()[rows]
    return tuple(Influence(run_id=str(ids[i]), delta_phi=float(delta[i])) for i in order)


def _replicates(problem: Problem, theta: Array) -> Replicates | None:
    sets = replicate_sets(problem.frame)
    freedom = sum(len(rows) - 1 for rows in sets)
    lack_freedom = problem.n - freedom - theta.size
    if freedom == 0 or lack_freedom < 1:
        return None
    y = problem.log_loss
    pure = sum(float(((y[rows] - y[rows].mean()) ** 2).sum()) for rows in sets)
    residual = float(((y - np.log(problem.predict(theta)[0])) ** 2).sum())
    noise = float(np.sqrt(pure / freedom))
    if noise == 0.0:
        return None
    f = max(residual - pure, 0.0) / lack_freedom / (pure / freedom)
    return Replicates(
        n_sets=len(sets),
        degrees_of_freedom=freedom,
        noise=noise,
        f=f,
        p_value=float(special.fdtrc(lack_freedom, freedom, f)),
    )

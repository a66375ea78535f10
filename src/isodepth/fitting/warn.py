"""What a reader must know before publishing a fit, in plain sentences bound to its numbers."""

from __future__ import annotations

import numpy as np

from isodepth.fitting.diagnostics import Extrapolation, LackOfFit
from isodepth.fitting.identify import Identified
from isodepth.fitting.outlying import FAR, outlying
from isodepth.fitting.problem import Problem
from isodepth.fitting.result import Fit
from isodepth.warned import Warned

_BIC = 10.0  # "very strong" evidence (Kass & Raftery 1995)
_P = 0.01
_FEW_AGREE = 3
_FEW_GROUPS = 12  # the smallest count at which coverage was measured (docs/coverage.md)


def warnings_of(
    fit: Fit,
    problem: Problem,
    known: Identified,
    lack: LackOfFit,
    ahead: Extrapolation | None,
    *,
    tied: bool,
) -> list[Warned]:
    """Sentences, the gravest first."""
    said: list[Warned] = []

    def warn(code: str, text: str) -> None:
        said.append(Warned(code, text))

    said += [one.warned for one in problem.doubts if not one.withholds]
    by_reason: dict[str, list[str]] = {}
    for name, why in known.missing.items():
        by_reason.setdefault(why, []).append(name.replace("log_m", "m"))
    for why, names in by_reason.items():
        verb = "is" if len(names) == 1 else "are"
        code = known.codes.get(why, "not_identified")
        warn(code, f"{', '.join(names)} {verb} not identified: {why}")
    if fit.r2 is None:
        warn(
            "too_few_runs",
            f"{fit.n_runs} runs can't test {fit.fitted.theta.size} parameters: any law would run "
            "through them",
        )
    if not fit.converged:
        warn(
            "not_converged", "the optimiser did not converge: treat no number of this fit as final"
        )
    if fit.n_starts_agreeing < _FEW_AGREE:
        warn(
            "few_starts_agree",
            f"only {fit.n_starts_agreeing} of {fit.n_starts} starts reached the best optimum: it "
            "may not be the global one",
        )
    if problem.multiplicity.name == "free" and problem.eta_names:
        warn(
            "free_multiplicity",
            "a free multiplicity has no φ; fit with --multiplicity power for one",
        )
    if fit.phi is None:
        return said
    said += _of_phi(fit, known)
    if tied:
        warn(
            "tokens_follow_size",
            "tokens are proportional to parameters in every run: the law's two terms are told "
            "apart by r alone, which leans on its form",
        )
    said += _intervals(fit, problem)
    said += _outliers(fit, problem)
    said += _forms(fit, lack, ahead)
    return said


def _of_phi(fit: Fit, known: Identified) -> list[Warned]:
    """What the value of φ asks to be said of it."""
    said = []
    found = known.optima
    if found is not None and len(found.phis) > 1:
        values = ", ".join(f"{phi:.3f}" for phi in found.phis)
        said.append(
            Warned(
                "two_solutions",
                f"no run has r = 1, and several values of φ describe the runs about equally well: "
                f"{values}; the interval holds them all",
            )
        )
    elif found is not None and fit.params["phi"] is not None:
        said.append(
            Warned(
                "no_unlooped",
                "no run has r = 1: φ rests on how the looped runs differ among themselves, and on "
                "the form r^φ between them and r = 1",
            )
        )
    phi, ci95 = fit.phi, fit.ci95.get("phi")
    if phi is not None and phi > 1.0:
        surely = "" if ci95 is None or ci95[0] > 1.0 else ", though its interval holds 1"
        said.append(
            Warned(
                "phi_above_one",
                f"φ = {phi:.3f} is above 1{surely}: r passes through one block would be worth more "
                "than r blocks of their own, so that looped and r = 1 runs differ in more than "
                "sharing (docs/phi.md)",
            )
        )
    return said


def _intervals(fit: Fit, problem: Problem) -> list[Warned]:
    said: list[Warned] = []

    def warn(code: str, text: str) -> None:
        said.append(Warned(code, text))

    resamples = fit.fitted.resamples
    ci95 = fit.interval("phi")
    if resamples is None or ci95 is None:
        return [
            Warned("no_interval", "φ is printed without an interval: no resamples were asked for")
        ]
    if problem.budgets is None and resamples.unit == "groups":
        warn(
            "no_budgets",
            "the runs name no budget, so runs were resampled one by one: the interval is too "
            "narrow if runs share noise",
        )
    if resamples.unit == "losses":
        warn(
            "independent_noise",
            "φ hangs on one group of runs, so groups can't be resampled: the interval supposes "
            "that noise is independent between runs, and is too narrow if runs of a group share it",
        )
    elif resamples.n_units < _FEW_GROUPS:
        warn(
            "few_groups",
            f"{resamples.n_units:g} groups of runs are fewer than the {_FEW_GROUPS} at which the "
            "interval's coverage was measured: it may cover less than 95%",
        )
    # the rows are near-copies of each other, so that their number says nothing
    phis = [float(a["phi"]) for a in fit.sensitivity if a["phi"] is not None]
    if phis and (min(phis) < ci95[0] or max(phis) > ci95[1]):
        warn(
            "choice_matters",
            f"φ runs from {min(phis):.3f} to {max(phis):.3f} over laws, estimators and counting "
            f"conventions, out of its interval of [{ci95[0]:.3f}, {ci95[1]:.3f}]: state them "
            "beside it",
        )
    return said


def _outliers(fit: Fit, problem: Problem) -> list[Warned]:
    """Runs that no noise explains: a diverging run, a misread loss, a wrong unit."""
    residual = problem.scale * (problem.log_loss - np.log(problem.predict(fit.fitted.theta)[0]))
    far = outlying(residual, problem.delta, fit.fitted.theta.size)
    if not far:
        return []
    ids = problem.frame["run_id"].astype(str).to_numpy()[far]
    named = ", ".join(ids[:3]) + (f" and {ids.size - 3} more" if ids.size > 3 else "")
    return [
        Warned(
            "outliers",
            f"{ids.size} of {problem.n} runs lie more than {FAR:g} standard deviations off: "
            f"{named}",
        )
    ]


def _forms(fit: Fit, lack: LackOfFit, ahead: Extrapolation | None) -> list[Warned]:
    said: list[Warned] = []

    def warn(code: str, text: str) -> None:
        said.append(Warned(code, text))

    curvature = lack.curvature
    if curvature and curvature.p_value < _P:
        warn(
            "curvature",
            f"iso-FLOP curves are {curvature.steepness:.2f} times as steep as the "
            f"{fit.conventions.law} law draws them (p = {curvature.p_value:.1g})",
        )
    forms = lack.laws
    gain = forms["additive"].bic - forms["coupled"].bic if len(forms) > 1 else 0.0
    if fit.conventions.law == "additive" and gain > _BIC:
        phi = forms["coupled"].phi
        warn(
            "law_form",
            f"the coupled law describes these runs better (BIC lower by {gain:.0f}; rms "
            f"{forms['coupled'].rmse:.4f} against {forms['additive'].rmse:.4f} nats), "
            + ("and can't tell φ" if phi is None else f"with φ = {phi:.3f}"),
        )
    shapes = lack.multiplicities
    if len(shapes) > 1 and shapes["power"].bic - shapes["free"].bic > _BIC:
        free, power = shapes["free"].multiplicity, shapes["power"].multiplicity
        listed = ", ".join(
            f"m({r}) = {free[r]:.2f} against {power[r]:.2f}" for r in free if r in power
        )
        warn(
            "multiplicity_form",
            f"r^φ is not the whole story: a multiplicity of its own for every r does better (BIC "
            f"lower by {shapes['power'].bic - shapes['free'].bic:.0f}): {listed}",
        )
    if lack.replicates and lack.replicates.p_value < _P:
        warn(
            "lack_of_fit",
            f"the law misses the runs by more than replicates differ (F = {lack.replicates.f:.1f},"
            f" p = {lack.replicates.p_value:.1g})",
        )
    ci95 = fit.interval("phi")
    if ci95 and lack.max_abs_delta_phi and lack.max_abs_delta_phi > (ci95[1] - ci95[0]) / 4:
        run = lack.influence[0]
        warn(
            "influential_run",
            f"one run moves φ by {run.delta_phi:+.3f} when it is left out: {run.run_id}",
        )
    if ahead and ahead.rmse > 2 * fit.rmse:
        warn(
            "extrapolates_badly",
            f"fitted to the lower budgets, the law misses the highest by {ahead.rmse:.4f} nats "
            f"rms against {fit.rmse:.4f} within the fit: extrapolate with care",
        )
    if np.unique(fit.fitted.levels).size == 2:
        warn(
            "two_recurrences",
            "two values of r can't test the form r^φ: φ holds between these two alone",
        )
    return said

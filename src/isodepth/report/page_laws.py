"""The laws of the page: what its script needs to draw a recipe's law and to redraw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isodepth.errors import InputError
from isodepth.fitting.estimate import Estimate, estimate
from isodepth.fitting.identify import identify
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.result import Fit, Interval
from isodepth.fitting.uncertainty import held, profile
from isodepth.laws import LAWS, Array
from isodepth.minima import isoflop
from isodepth.recipes.pair import pair_of
from isodepth.recipes.result import Comparison
from isodepth.runs import Runs

_CURVE_POINTS = 40
_SLIDER = np.round(np.arange(-0.2, 1.2001, 0.01), 2)  # φ at which the law is refitted
_SAME = 1e-6  # difference up to which a number refitted is the number saved


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A recipe's runs and the law that is drawn through them."""

    name: str  # of the recipe, as shown
    problem: Problem  # of the recipe's runs alone
    fitted: Problem  # whose optimum the law is: the same, or that of two recipes under one law
    theta: Array  # (p,) the optimum of `fitted`
    phi: str  # the name of this recipe's φ in `fitted`
    told: bool  # whether these runs can tell φ
    ci95: Interval | None  # of φ
    profile: dict[str, Any] | None  # as `fit --json` has it, with its minimum

    def own(self, theta: Array) -> Array:
        """The columns of θ (K, p) of `fitted` that make up this recipe's law."""
        names = self.fitted.theta_names
        shape = list(range(len(self.fitted.law.shape)))
        rest = [i for i in range(len(shape), len(names)) if names[i] == self.phi]
        return theta[:, shape + (rest or list(range(len(shape), len(names))))]

    def predict(self) -> Array:
        """Loss (n,) of the recipe's runs, nats per token."""
        reference = self.fitted.design
        design = replace(self.problem.design, log_n0=reference.log_n0, log_d0=reference.log_d0)
        return np.exp(self.fitted.law.log_loss(self.own(self.theta[None]), design))[0]


def drawn_of_fit(runs: Runs, fit: Fit) -> Drawn:
    """The recipe that was fitted. Raises InputError where `runs` aren't what was fitted."""
    problem = _problem(runs, fit.recipe, fit.conventions)
    left = np.exp(problem.log_loss) - problem.predict(fit.fitted.theta)[0]
    if abs(np.sqrt((left**2).mean()) - fit.rmse) > _SAME:
        raise InputError(f"{runs.source} does not hold the runs that were fitted: fit them again")
    return Drawn(
        name=fit.recipe,
        problem=problem,
        fitted=problem,
        theta=fit.fitted.theta,
        phi="phi",
        told=fit.phi is not None,
        ci95=fit.ci95.get("phi"),
        profile=fit.profile_phi and fit.profile_phi | {"minimum": fit.objective},
    )


def drawn_of_recipe(runs: Runs, recipe: str, conventions: Conventions) -> Drawn:
    """A recipe that was not fitted, under the conventions of one that was; without an interval."""
    problem = _problem(runs, recipe, conventions)
    return _drawn(recipe, problem, problem, estimate(problem), "phi", None)


def drawn_of_comparisons(runs: Runs, results: Sequence[Comparison]) -> list[Drawn]:
    """The laws behind comparisons with one baseline, which stands once where it has its own law.

    Raises InputError where `runs` aren't what was compared.
    """
    found: list[Drawn] = []
    for result in results:
        pair = pair_of(runs, result.baseline, result.recipe, result.conventions)
        joint = estimate(pair.both) if result.method == "joint" else None
        for name, problem, side, phi in (
            (result.baseline, pair.baseline, "phi_baseline", result.phi_baseline),
            (result.recipe, pair.recipe, "phi_recipe", result.phi_recipe),
        ):
            ci95 = result.ci95[side]
            if joint:
                shown = name if side == "phi_recipe" else f"{name}, with {result.recipe}"
                one = _drawn(shown, problem, pair.both, joint, side, ci95)
            elif any(d.name == name for d in found):
                continue
            else:
                one = _drawn(name, problem, problem, estimate(problem), "phi", ci95)
            refitted = one.theta[one.fitted.theta_names.index(one.phi)]
            if phi is not None and abs(refitted - phi) > _SAME:
                raise InputError(
                    f"{runs.source} does not hold the runs that were compared: compare them again"
                )
            found.append(one)
    return found


def _problem(runs: Runs, recipe: str, conventions: Conventions) -> Problem:
    rows, _ = runs.of_recipe(recipe)
    return build(rows[rows["status"] == "done"], conventions)


def _drawn(
    name: str, problem: Problem, fitted: Problem, best: Estimate, phi: str, ci95: Interval | None
) -> Drawn:
    known = identify(fitted, best.theta)
    curve, told = None, phi in known.names
    if told:
        error = known.standard_errors[phi]
        if ci95:  # the curve reaches beyond the interval
            error = max(error, (ci95[1] - ci95[0]) / 4)
        curve = profile(fitted, best, phi, error).to_dict() | {"minimum": best.objective}
    return Drawn(
        name=name,
        problem=problem,
        fitted=fitted,
        theta=best.theta,
        phi=phi,
        told=told,
        ci95=ci95,
        profile=curve,
    )


def law_content(runs: Runs, drawn: Drawn) -> dict[str, Any]:
    """One law in published coefficients, its runs, curves, minima, profile and refits."""
    problem, conventions = drawn.problem, drawn.problem.conventions
    frame = problem.frame
    loss = frame["loss"].to_numpy(dtype=float)
    refits: list[dict[str, float]] = []
    if drawn.told:
        thetas, _ = held(drawn.fitted, drawn.theta, drawn.phi, _SLIDER)
        refits = [_coefficients(drawn, t) for t in thetas]
    return {
        "recipe": drawn.name,
        "formula": LAWS[conventions.law].formula,
        "params": _coefficients(drawn, drawn.theta),
        "phi_ci95": drawn.ci95,
        "profile": drawn.profile,
        "multiplicity": {
            name.removeprefix("log_m"): float(np.exp(value))
            for name, value in zip(drawn.fitted.theta_names, drawn.theta, strict=True)
            if name.startswith("log_m")
        },
        "slider": _SLIDER.tolist() if drawn.told else [],
        "refits": refits,
        "runs": {
            "id": [str(x) for x in frame["run_id"]],
            "r": frame["recurrences"].astype(int).tolist(),
            "size": _size(problem).tolist(),
            "loss": loss.tolist(),
            "left": (loss - drawn.predict()).tolist(),
            "budget": None if problem.budgets is None else problem.budgets.tolist(),
        },
        "curves": _curves(problem),
        "minima": []
        if problem.budgets is None
        else [
            {"r": g.recurrences, "budget": g.budget_flops, "size": g.n_min, "loss": g.loss_min}
            for g in isoflop(replace(runs, frame=frame)).groups
            if g.n_min
        ],
        "counting": conventions.count_injection,
    }


def _coefficients(drawn: Drawn, theta: Array) -> dict[str, float]:
    fitted = drawn.fitted
    raw = fitted.law.raw(drawn.own(theta[None]), fitted.design)
    found = {name: float(value[0]) for name, value in raw.items()}
    if drawn.phi in fitted.theta_names:
        found["phi"] = float(theta[fitted.theta_names.index(drawn.phi)])
    return found


def _size(problem: Problem) -> Array:
    frame = problem.frame
    return (frame["n_once"] + frame["n_rec"] + frame["n_inject"]).to_numpy(dtype=float)


def _curves(problem: Problem) -> list[dict[str, Any]]:
    """Counts and tokens along every iso-FLOP group, straight in log–log between its runs."""
    if problem.budgets is None:
        return []
    size = _size(problem)
    r_all = problem.frame["recurrences"].to_numpy()
    found = []
    for r in np.unique(r_all):
        for budget in np.unique(problem.budgets):
            at = np.flatnonzero((r_all == r) & (problem.budgets == budget))
            if at.size == 0:
                continue
            order = at[np.argsort(size[at])]
            where = np.linspace(0, at.size - 1, _CURVE_POINTS if at.size > 1 else 1)
            curve: dict[str, Any] = {"r": int(r), "budget": float(budget)}
            for name, values in (
                ("size", size),
                ("once", problem.design.n_once),
                ("rec", problem.design.n_rec),
                ("tokens", np.exp(problem.design.log_tokens)),
            ):
                own, steps = values[order], np.arange(at.size)
                curve[name] = (
                    np.exp(np.interp(where, steps, np.log(own)))
                    if (own > 0).all()
                    else np.interp(where, steps, own)
                ).tolist()
            found.append(curve)
    return found

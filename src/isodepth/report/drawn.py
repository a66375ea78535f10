"""A recipe's runs and the law that is drawn through them, on the page and in the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isodepth.comparing.pair import pair_of
from isodepth.comparing.result import Comparison
from isodepth.errors import InputError
from isodepth.fitting.estimate import Estimate, estimate
from isodepth.fitting.identify import identify
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.result import Fit, Interval
from isodepth.fitting.uncertainty import profile
from isodepth.laws import Array, Design
from isodepth.runs import Runs

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

    @property
    def phi_value(self) -> float | None:
        """φ, where these runs can tell it."""
        return float(self.theta[self.fitted.theta_names.index(self.phi)]) if self.told else None

    def loss(self, design: Design) -> Array:
        """Loss (n,) by the law at counts and tokens of one's own, nats per token."""
        reference = self.fitted.design
        design = replace(design, log_n0=reference.log_n0, log_d0=reference.log_d0)
        return np.exp(self.fitted.law.log_loss(self.own(self.theta[None]), design))[0]

    def predict(self) -> Array:
        """Loss (n,) of the recipe's runs, nats per token."""
        return self.loss(self.problem.design)

    @property
    def size(self) -> Array:
        """Unique non-embedding parameters (n,) of the recipe's runs."""
        frame = self.problem.frame
        return (frame["n_once"] + frame["n_rec"] + frame["n_inject"]).to_numpy(dtype=float)


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


def drawn_of_table(runs: Runs, fit: Fit) -> list[Drawn]:
    """The recipe that was fitted, and after it the table's others under the same conventions.

    Raises InputError where `runs` aren't what was fitted.
    """
    finished = set(runs.used["recipe"])
    others = [r for r in runs.recipes if r != fit.recipe and r in finished]
    return [drawn_of_fit(runs, fit), *(drawn_of_recipe(runs, r, fit.conventions) for r in others)]


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

"""The laws of the page: what its script needs to draw a recipe's law and to redraw it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from isodepth.fitting.estimate import MANY, spread_rows
from isodepth.fitting.uncertainty import held
from isodepth.laws import LAWS, Array
from isodepth.minima import isoflop
from isodepth.report.drawn import Drawn
from isodepth.runs import Runs

_CURVE_POINTS = 40
_SLIDER = np.round(np.arange(-0.2, 1.2001, 0.01), 2)  # φ at which the law is refitted


def law_content(runs: Runs, drawn: Drawn) -> dict[str, Any]:
    """One law in published coefficients, its runs, curves, minima, profile and refits."""
    problem, conventions = drawn.problem, drawn.problem.conventions
    frame = problem.frame
    loss = frame["loss"].to_numpy(dtype=float)
    refits: list[dict[str, float]] = []
    if drawn.told:
        fitted = drawn.fitted
        if fitted.n > MANY:  # some of the runs show how a curve moves
            fitted = fitted.only(spread_rows(fitted))
        thetas, _ = held(fitted, drawn.theta, drawn.phi, _SLIDER)
        refits = [_coefficients(drawn, t) for t in thetas]
    return {
        "recipe": drawn.name,
        "formula": LAWS[conventions.law].formula
        + (", m(r) = r^φ" if conventions.multiplicity == "power" else ""),
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
            "size": drawn.size.tolist(),
            "loss": loss.tolist(),
            "left": (loss - drawn.predict()).tolist(),
            "budget": None if problem.budgets is None else problem.budgets.tolist(),
        },
        "curves": _curves(drawn),
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


def _curves(drawn: Drawn) -> list[dict[str, Any]]:
    """Counts and tokens along every iso-FLOP group, straight in log–log between its runs."""
    problem, size = drawn.problem, drawn.size
    if problem.budgets is None:
        return []
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

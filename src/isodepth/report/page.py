"""The page: one self-contained HTML file with plotly's bundle and the results inlined.

Python computes every number that needs a fit; the page's script draws them and evaluates published
formulas. Text from run tables reaches the page as JSON only, in which no tag can begin.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from isodepth.fitting.estimate import estimate
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.result import Fit
from isodepth.fitting.uncertainty import held
from isodepth.laws import LAWS, Array
from isodepth.minima import isoflop
from isodepth.recipes.result import Comparison
from isodepth.runs import Runs

PAGE = "report.html"
_CURVE_POINTS = 40
_SLIDER = np.round(np.arange(-0.2, 1.2001, 0.01), 2)  # φ at which the law is refitted
_COLUMNS = ("run_id", "recipe", "status", "recurrences", "width", "tokens", "loss")
_BIBTEX = """@article{schwethelm2026recurrence,
  title  = {How Much Is One Recurrence Worth? Iso-Depth Scaling Laws for Looped Language Models},
  author = {Schwethelm, Kristian and Rueckert, Daniel and Kaissis, Georgios},
  year   = {2026},
  url    = {https://arxiv.org/abs/2604.21106}
}
@software{isodepth,
  title   = {isodepth: what is one recurrence of a looped language model worth?},
  author  = {{The isodepth authors}},
  version = {%s}
}"""


def plotly_installed() -> bool:
    """Whether the page can be written."""
    return find_spec("plotly") is not None


def write_page(out: Path, content: Callable[[], dict[str, Any]]) -> list[Path]:
    """Write report.html into `out`; [] where plotly isn't installed."""
    if not plotly_installed():
        (out / PAGE).unlink(missing_ok=True)  # of an earlier result: it would contradict this one
        return []
    from plotly.offline import get_plotlyjs

    template = files("isodepth.report") / "template"

    def part(name: str) -> str:
        return (template / name).read_text(encoding="utf-8")

    # no tag can begin inside the data, so no text of a run table ends the script
    data = json.dumps(_finite(content()), allow_nan=False).replace("<", "\\u003c")
    page = part("page.html")
    for mark, text in (
        ("/*style*/", part("page.css")),
        ("/*script*/", part("page.js")),
        ("/*plotly*/", get_plotlyjs()),
        ("/*data*/", data),
    ):
        before, after = page.split(mark, 1)
        page = before + text + after
    (out / PAGE).write_text(page, encoding="utf-8")
    return [out / PAGE]


def fit_page(runs: Runs, fit: Fit) -> dict[str, Any]:
    """What the page of a fit shows; other recipes of the table under the same conventions."""
    finished = set(runs.used["recipe"])
    others = [r for r in runs.recipes if r != fit.recipe and r in finished]
    first = _law(runs, fit.recipe, fit.conventions, fit.fitted.theta)
    first["phi_ci95"] = fit.ci95.get("phi")
    profile = None
    if fit.profile_phi and fit.phi is not None:
        profile = {**fit.profile_phi, "minimum": fit.objective, "phi": fit.phi}
    told = "φ not identified" if fit.phi is None else f"φ = {fit.phi:.3f}"
    ci95 = fit.ci95.get("phi")
    if fit.phi is not None and ci95:
        told += f" [{ci95[0]:.3f}, {ci95[1]:.3f}]"
    return {
        "title": f"{fit.recipe}: {told}",
        "laws": [first, *(_law(runs, r, fit.conventions) for r in others)],
        "profile": profile,
        "forest": [
            {
                "recipe": fit.recipe,
                "label": f"{a['law']}, {a['estimator']}, {a['count_injection']}",
                "value": a["phi"],
                "ci95": a["ci95"],
            }
            for a in fit.sensitivity
        ],
        "forest_of": "φ",
        "channels": [],
        "lists": {"Warnings": fit.warnings, "Notes": fit.notes},
        "runs": _table(runs),
        "made": _made(
            fit.conventions,
            ["fit", fit.source, "--recipe", fit.recipe],
            ["--multiplicity", fit.conventions.multiplicity],
            fit,
        ),
    }


def compare_page(runs: Runs, results: Sequence[Comparison]) -> dict[str, Any]:
    """What the page of comparisons with one baseline shows; every law is a recipe's own fit."""
    first = results[0]
    names = [first.baseline, *(r.recipe for r in results)]
    laws = [_law(runs, name, first.conventions) for name in names]
    laws[0]["phi_ci95"] = first.ci95["phi_baseline"]
    for law, result in zip(laws[1:], results, strict=True):
        law["phi_ci95"] = result.ci95["phi_recipe"]
    asked = [word for r in results for word in ("--recipe", r.recipe)]
    return {
        "title": "; ".join(f"{r.recipe} against {r.baseline}: {r.verdict}" for r in results),
        "laws": laws,
        "profile": None,
        "forest": [
            {
                "recipe": r.recipe,
                "label": f"{a.method}, {a.law}, {a.estimator}, {a.count_injection}"
                + (", every r = 1 run" if a.borrowed == "all budgets" else ""),
                "value": a.delta_phi,
                "ci95": a.ci95,
            }
            for r in results
            for a in r.sensitivity
        ],
        "forest_of": "Δφ",
        "channels": [
            {
                "recipe": r.recipe,
                "r": c.recurrences,
                "budget": c.budget_flops,
                "token_budget": c.optimal.token_budget,
                "capacity": c.optimal.capacity,
                "other": c.optimal.other,
                "ci95": c.optimal.ci95,
            }
            for r in results
            for c in r.channels
        ],
        "lists": {
            "Warnings": list(dict.fromkeys(w for r in results for w in r.warnings)),
            "Assumptions": list(dict.fromkeys(a for r in results for a in r.assumptions)),
        },
        "runs": _table(runs),
        "made": _made(
            first.conventions,
            ["compare", first.source, "--baseline", first.baseline, *asked],
            ["--method", first.method],
            first,
        ),
    }


def _law(
    runs: Runs, recipe: str, conventions: Conventions, theta: Array | None = None
) -> dict[str, Any]:
    """One recipe's law in published coefficients, its runs, curves, minima and refits."""
    rows, _ = runs.of_recipe(recipe)
    problem = build(rows[rows["status"] == "done"], conventions)
    if theta is None:
        theta = estimate(problem).theta
    names = problem.theta_names
    frame = problem.frame
    loss = frame["loss"].to_numpy(dtype=float)
    powered = "phi" in names
    refits: list[dict[str, float]] = []
    if powered:
        thetas, _ = held(problem, theta, "phi", _SLIDER)
        refits = [_coefficients(problem, t) for t in thetas]
    return {
        "recipe": recipe,
        "formula": LAWS[conventions.law].formula,
        "params": _coefficients(problem, theta),
        "phi_ci95": None,
        "multiplicity": {
            name.removeprefix("log_m"): float(np.exp(value))
            for name, value in zip(names, theta, strict=True)
            if name.startswith("log_m")
        },
        "slider": _SLIDER.tolist() if powered else [],
        "refits": refits,
        "runs": {
            "id": [str(x) for x in frame["run_id"]],
            "r": frame["recurrences"].astype(int).tolist(),
            "size": _size(problem).tolist(),
            "loss": loss.tolist(),
            "left": (loss - problem.predict(theta)[0]).tolist(),
            "budget": None if problem.budgets is None else problem.budgets.tolist(),
        },
        "curves": _curves(problem),
        "minima": []
        if problem.budgets is None
        else [
            {"r": g.recurrences, "budget": g.budget_flops, "size": g.n_min, "loss": g.loss_min}
            for g in isoflop(Runs(frame=frame, source=runs.source, checksum=runs.checksum)).groups
            if g.n_min
        ],
        "counting": conventions.count_injection,
    }


def _coefficients(problem: Problem, theta: Array) -> dict[str, float]:
    raw = problem.law.raw(theta[None], problem.design)
    found = {name: float(value[0]) for name, value in raw.items()}
    if "phi" in problem.theta_names:
        found["phi"] = float(theta[problem.theta_names.index("phi")])
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


def _table(runs: Runs) -> dict[str, Any]:
    columns = [c for c in _COLUMNS if c in runs.frame]
    # every further column of text is the user's own, and searched too
    named = [str(c) for c in runs.frame if runs.frame[c].dtype.kind not in "fiu"]
    columns += [c for c in named if c not in columns]
    rows = [
        [x if isinstance(x, int | float) else str(x) for x in row]
        for row in runs.frame[columns].astype(object).itertuples(index=False)
    ]
    return {"columns": columns, "rows": rows}


def _made(
    conventions: Conventions, asked: list[str], own: list[str], result: Fit | Comparison
) -> dict[str, str]:
    c = conventions
    choices = ["--law", c.law, "--estimator", c.estimator, "--count-injection", c.count_injection]
    choices += ["--huber-delta", f"{c.huber_delta:g}", "--bootstrap", str(result.n_resamples)]
    programs = {name: version(name) for name in ("numpy", "scipy", "plotly")}
    return {
        "Command": shlex.join(["isodepth", *asked, *choices, *own, "--seed", str(result.seed)]),
        "Versions": ", ".join(
            [
                f"isodepth {result.version}",
                f"Python {platform.python_version()}",
                *(f"{name} {number}" for name, number in programs.items()),
            ]
        ),
        "SHA-256 of the run table": result.checksum,
        "95% intervals": f"{result.interval_method}; {result.n_resamples} resamples",
        "BibTeX": _BIBTEX % result.version,
    }


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON can't hold."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The page: one self-contained HTML file with plotly's bundle and the results inlined.

Python computes every number that needs a fit; the page's script draws them and evaluates published
formulas. Text from run tables reaches the page as JSON only, in which no tag can begin.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isodepth.citation import bibtex
from isodepth.comparing.result import Comparison
from isodepth.files import write_whole
from isodepth.fitting.problem import Conventions
from isodepth.fitting.result import Fit, Interval
from isodepth.report.compute_tables import (
    EXPONENT_HEADS,
    EXPONENT_TITLE,
    MULTIPLIER_HEADS,
    exponent_rows,
    multiplier_tables,
)
from isodepth.report.drawn import Drawn, drawn_of_fit
from isodepth.report.equal_r import delta_phi_text, equal_r_content
from isodepth.report.forest import Row, forest_rows, sensitivity_rows
from isodepth.report.page_laws import law_content
from isodepth.report.page_shape import shape_of
from isodepth.report.sharing_tables import sharing_page_tables, sharing_sentences
from isodepth.report.tables import SYMBOLS, both_intervals
from isodepth.report.words import interval_text, size_text
from isodepth.report.worth import worth_content, worth_rows
from isodepth.runs import Runs

PAGE = "report.html"
_COLUMNS = ("run_id", "recurrences", "width", "tokens", "loss", "recipe", "status")
_OPEN = ("Warnings", "How far to trust this")  # the lists that are read without a click


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
        ("/*equal r*/", part("equal_r.js")),
        ("/*script*/", part("page.js")),
        ("/*plotly*/", get_plotlyjs()),
        ("/*data*/", data),
    ):
        before, after = page.split(mark, 1)
        page = before + text + after
    write_whole(out / PAGE, page)
    return [out / PAGE]


def fit_page(runs: Runs, fit: Fit, drawn: Sequence[Drawn], table_file: str) -> dict[str, Any]:
    """What the page of a fit shows; other recipes of the table under the same conventions.

    drawn: as `drawn_of_table` finds them. table_file: the run table's file beside the page.
    """
    asked = ["fit", fit.source, "--recipe", fit.recipe]
    asked += ["--multiplicity", fit.conventions.multiplicity]
    asked += ["--arms-differ", fit.conventions.arms_differ]
    return {
        "title": f"{fit.recipe}: {_phi_text(fit)}",
        "headlines": [
            ("", f"{fit.n_runs} runs of {fit.recipe} ({fit.source})"),
            ("", _conventions(fit.conventions)),
        ],
        "tables": [_parameters(fit, "The law"), *map(asdict, worth_rows(fit))],
        "worth": worth_content(fit),
        "shape": shape_of(runs, drawn),
        "laws": [law_content(runs, law) for law in drawn],
        "forests": [_fit_forest(fit)],
        "channels": [],
        "open": _OPEN,
        "lists": {"Warnings": [str(w) for w in fit.warnings], "Notes": fit.notes},
        "runs": _table(runs, table_file),
        "made": _made(fit, asked),
    }


def compare_page(
    runs: Runs, results: Sequence[Comparison], drawn: Sequence[Drawn], table_file: str
) -> dict[str, Any]:
    """What the page of comparisons with one baseline shows.

    drawn: as `drawn_of_comparisons` finds them. table_file: as in `fit_page`.
    """
    first = results[0]
    asked = ["compare", first.source, "--baseline", first.baseline]
    asked += [word for r in results for word in ("--recipe", r.recipe)]
    asked += ["--method", first.method]
    others = ", ".join(r.recipe for r in results)
    return {
        "title": f"{others} against {first.baseline}",
        "headlines": [
            *(_verdict(r, r.recipe) for r in results),
            *(("", s) for r in results if r.sharing for s in sharing_sentences(r)),
            ("", f"{first.source}; {_conventions(first.conventions)}, {_fits(first)}"),
        ],
        "equal_r": equal_r_content(results),
        "tables": [
            *sharing_page_tables(results),
            _phis(results),
            *_use(results),
            *_compute(results),
        ],
        "worth": [],
        "shape": shape_of(runs, drawn),
        "laws": [law_content(runs, law) for law in drawn],
        "forests": [_compare_forest(r) for r in results],
        "channels": _channels(results),
        "open": _OPEN,
        "lists": {
            "Warnings": _once(
                f"{r.recipe}: {w}" if len(results) > 1 else str(w)
                for r in results
                for w in r.warnings
            ),
            "Assumptions": _once(
                [_made_at_once(results), *(a for r in results for a in r.assumptions)]
            ),
        },
        "runs": _table(runs, table_file),
        "made": _made(first, asked),
    }


def sweep_page(
    runs: Runs,
    fits: Sequence[Fit],
    results: Sequence[Comparison],
    table_file: str,
    *,
    title: str,
    said: Sequence[str],
    trust: Sequence[str],
    command: Sequence[str],
    vocab: int,
    sequence_length: int,
) -> dict[str, Any]:
    """What the page of a sweep shows: every recipe's fit, and comparisons with the baseline.

    said: how the sweep stands. trust: how far its numbers carry. command: what makes the page.
    vocab, sequence_length: of the models, in tokens.
    """
    drawn = [drawn_of_fit(runs, fit) for fit in fits]
    warned = [f"{fit.recipe}: {w}" for fit in fits for w in fit.warnings]
    warned += [f"{r.recipe} against {r.baseline}: {w}" for r in results for w in r.warnings]
    made = {
        "Command": shlex.join(command),
        "Versions": _versions(),
        "BibTeX": bibtex(version("isodepth")),
    }
    if fits:
        made = _made(fits[0], []) | {"Command": made["Command"]}
    return {
        "title": title,
        "headlines": [
            *((f"{fit.recipe}: {_phi_text(fit)}", "") for fit in fits),
            *(_verdict(r, f"{r.recipe} against {r.baseline}") for r in results),
            *(("", _conventions(fit.conventions)) for fit in fits[:1]),
            *(("", s) for r in results if r.sharing for s in sharing_sentences(r)),
            *(("", sentence) for sentence in said),
        ],
        "equal_r": equal_r_content(results),
        "tables": [
            *(_parameters(fit, f"The law of {fit.recipe}") for fit in fits),
            *(
                asdict(one) | {"title": f"{fit.recipe}: {one.title}"}
                for fit in fits
                for one in worth_rows(fit)
            ),
            *sharing_page_tables(results),
            *([_phis(results)] if results else []),
            *_use(results),
        ],
        "worth": [one for fit in fits for one in worth_content(fit)],
        "shape": shape_of(runs, drawn, vocab=vocab, sequence_length=sequence_length),
        "laws": [law_content(runs, law) for law in drawn],
        "forests": [*map(_fit_forest, fits), *map(_compare_forest, results)],
        "channels": _channels(results),
        "open": _OPEN,
        "lists": {
            "How far to trust this": [*trust, *([_made_at_once(results)] if results else [])],
            "Warnings": _once(warned),
        },
        "runs": _table(runs, table_file),
        "made": made,
    }


def _made_at_once(results: Sequence[Comparison]) -> str:
    """How many comparisons a reader of the page is shown."""
    losses = sum(len(r.channels) for r in results)
    phis = "one comparison" if len(results) == 1 else f"{len(results)} comparisons"
    return (
        f"this page makes {phis} of φ and {losses} of losses at equal compute, each with a 95% "
        "interval of its own: of twenty that are independent one misses by chance"
    )


def _phi_text(fit: Fit) -> str:
    if fit.phi is None:
        return "φ not identified"
    return f"φ = {fit.phi:.3f} {interval_text(fit.ci95.get('phi'), '.3f')}".rstrip()


def _once(said: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(said))


def _conventions(c: Conventions) -> str:
    """What φ depends on, as it stands beside φ."""
    estimator = f"Huber (δ = {c.huber_delta:g})" if c.estimator == "huber" else "least squares"
    arms = {"none": "", "tokens": " with κ on the tokens of r > 1", "loss": " with δ at r > 1"}
    law = f"{c.law} law{arms[c.arms_differ]}"
    return f"{law}, {estimator} on log loss, injection counted {c.count_injection}"


def _fits(result: Comparison) -> str:
    return "a law for each recipe" if result.method == "separate" else "one law for both recipes"


def _verdict(result: Comparison, name: str) -> tuple[str, list[str]]:
    """Δφ, to be read first, and the parts of the verdict."""
    delta = delta_phi_text(result)
    return f"{name}: {delta}" if delta else name, result.verdict.split("; ")


def _parameters(fit: Fit, title: str) -> dict[str, Any]:
    """The law's parameters as a table of the page."""
    rows = [
        [
            SYMBOLS.get(name, name),
            "not identified" if value is None else f"{value:.6g}",
            interval_text(fit.ci95[name], ".4g"),
        ]
        for name, value in fit.params.items()
    ]
    rows += [[words, "", interval_text(ci95, ".4g")] for words, ci95 in both_intervals(fit)]
    if fit.r2 is not None:
        rows.append(["R²", f"{fit.r2:.4f}", ""])
    rows.append(["rms residual, nats", f"{fit.rmse:.4f}", ""])
    return {"title": title, "columns": ["", "value", "95% interval"], "rows": rows}


def _phis(results: Sequence[Comparison]) -> dict[str, Any]:
    """φ and Δφ of every recipe compared, beside what was published."""
    first = results[0]

    def shown(value: float | None, ci95: Interval | None, form: str) -> str:
        number = "not identified" if value is None else f"{value:{form}}"
        return f"{number} {interval_text(ci95, form)}".rstrip()

    baseline = shown(first.phi_baseline, first.ci95["phi_baseline"], ".3f")
    published = f"{first.published.phi_baseline:.2f}" if first.published else ""
    rows = [[first.baseline, str(first.n_runs_baseline), baseline, "", published]]
    for r in results:
        p = r.published
        rows.append(
            [
                r.recipe,
                str(r.n_runs_recipe),
                shown(r.phi_recipe, r.ci95["phi_recipe"], ".3f"),
                shown(r.delta_phi, r.ci95["delta_phi"], "+.3f"),
                f"{p.phi_recipe:.2f} ({p.phi_recipe_in_code:.2f} in its code's notes)" if p else "",
            ]
        )
    columns = ["", "runs", "φ [95% interval]", "Δφ [95% interval]", "published φ"]
    if not any(r.published for r in results):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return {"title": "φ by the laws", "columns": columns, "rows": rows}


def _compute(results: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Compute multipliers and exponents of every comparison that has them."""
    found = []
    for i, r in enumerate(results):
        tables = multiplier_tables(r)
        if i:  # the baseline's own looping stands once
            tables = [one for one in tables if f"looped {r.baseline}," not in one[0]]
        found += [
            {"title": title, "columns": list(MULTIPLIER_HEADS), "rows": rows}
            for title, rows in tables
        ]
        if rows := exponent_rows(r):
            title = f"{EXPONENT_TITLE}, {r.recipe}"
            found.append({"title": title, "columns": list(EXPONENT_HEADS), "rows": rows})
    return found


def _use(results: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The compute-optimal models in use at the highest shared budget; [] where none is known."""
    models = [i for r in results for i in r.inference]
    if not models:
        return []
    highest = max(i.budget_flops for i in models)
    rows = [
        [
            str(i.recurrences),
            i.recipe,
            str(i.width),
            size_text(i.params),
            f"{i.flops_per_token:.2e}",
            f"{i.kv_bytes_per_token / 1024:.0f} KiB",
        ]
        for i in sorted(models, key=lambda i: i.recurrences)
        if i.budget_flops == highest
    ]
    columns = ["r", "recipe", "width", "parameters", "forward FLOPs/token", "cache/token"]
    unlike = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    title = f"Compute-optimal models in use, {highest:.3g} training FLOPs"
    return [{"title": title, "columns": columns, "rows": unlike}]


def _fit_forest(fit: Fit) -> dict[str, Any]:
    rows = _forest_rows(sensitivity_rows(fit))
    told = fit.phi is not None and len(rows) > 1
    return {"recipe": fit.recipe, "of": "φ", "marks": [], "rows": rows if told else []}


def _forest_rows(rows: dict[str, Row]) -> list[dict[str, Any]]:
    return [{"label": label, "value": v, "ci95": ci95} for label, (v, ci95) in rows.items()]


def _compare_forest(result: Comparison) -> dict[str, Any]:
    rows = _forest_rows(forest_rows(result))
    marks: list[dict[str, Any]] = [{"at": 0.0, "label": "no difference"}]
    if result.published:
        shown = result.published.phi_recipe - result.published.phi_baseline
        marks.append({"at": shown, "label": f"published {shown:+.2f}".replace("-", "−")})
    return {
        "recipe": f"{result.recipe} less {result.baseline}",
        "of": "Δφ",
        "marks": marks,
        "rows": rows if result.delta_phi is not None else [],
    }


def _channels(results: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "recipe": r.recipe,
            "r": c.recurrences,
            "budget": c.budget_flops,
            "optimal": asdict(c.optimal),
            "equal_size": asdict(c.equal_size),
        }
        for r in results
        for c in r.channels
    ]


def _table(runs: Runs, file: str) -> dict[str, Any]:
    columns = [c for c in _COLUMNS if c in runs.frame]
    # every further column of text is the user's own, and searched too
    named = [str(c) for c in runs.frame if runs.frame[c].dtype.kind not in "fiu"]
    columns += [c for c in named if c not in columns]
    rows = [
        ["" if pd.isna(x) else x if isinstance(x, int | float) else str(x) for x in row]
        for row in runs.frame[columns].astype(object).itertuples(index=False)
    ]
    return {"columns": columns, "rows": rows, "file": file}


def _made(result: Fit | Comparison, asked: list[str]) -> dict[str, str]:
    c = result.conventions
    choices = ["--law", c.law, "--estimator", c.estimator, "--count-injection", c.count_injection]
    choices += ["--huber-delta", f"{c.huber_delta:g}", "--bootstrap", str(result.n_resamples)]
    command = shlex.join(["isodepth", *asked, *choices, "--seed", str(result.seed)])
    return {"Command": command} | _shared(result)


def _shared(result: Fit | Comparison) -> dict[str, str]:
    return {
        "Versions": f"numbers by isodepth {result.version}; this page by {_versions()}",
        "SHA-256 of the run table": result.checksum,
        "95% intervals": f"{result.interval_method}; {result.n_resamples} resamples",
        "BibTeX": bibtex(result.version),
    }


def _versions() -> str:
    programs = {name: version(name) for name in ("isodepth", "numpy", "scipy", "plotly")}
    shown = ", ".join(f"{name} {number}" for name, number in programs.items())
    return f"{shown}, Python {platform.python_version()}"


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON can't hold."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

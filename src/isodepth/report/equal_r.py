"""Runs at equal r as the page and the figures show them: pairs, and Δφ under every form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isodepth.comparing.forms import FORM_WORDS, FORMS
from isodepth.comparing.paired_runs import PairedRun
from isodepth.comparing.result import Comparison
from isodepth.fitting.result import Interval
from isodepth.report.compare_tables import FORMS_HEADS, PAIRED_HEADS, forms_rows, paired_rows
from isodepth.report.words import interval_text


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """Δφ under one form of the difference, or by the laws."""

    label: str
    kind: str  # holds, counts (another over which Δφ is given), other (admissible), no or laws
    value: float | None  # None: not told
    ci95: Interval | None


def form_rows(result: Comparison) -> list[FormRow]:
    """Δφ under every form, and by the laws at the end; [] where no form was fitted."""
    split = result.split
    if split is None:
        return []
    rows = []
    for form in FORMS:
        c = split.candidate(form, with_phi=True)
        if c is None or c.delta_phi is None:
            continue
        kind = "counts" if c.counts else "other" if c.admissible else "no"
        if c.counts and form == split.form:
            kind = "holds"
        shown = (c.delta_phi.value, c.delta_phi.ci95)
        rows.append(FormRow(label=FORM_WORDS[form], kind=kind, value=shown[0], ci95=shown[1]))
    laws = (result.delta_phi, result.ci95["delta_phi"])
    return [*rows, FormRow(label="by the laws", kind="laws", value=laws[0], ci95=laws[1])]


def published_change(result: Comparison) -> float | None:
    """Δφ as published, for the shipped grid's recipes."""
    published = result.published
    return None if published is None else published.phi_recipe - published.phi_baseline


def form_range(result: Comparison) -> tuple[float, float]:
    """What an axis of Δφ under every form spans: a contradicted form's interval may run beyond."""
    rows = [row for row in form_rows(result) if row.value is not None]
    ends = [0.0, published_change(result) or 0.0, *(row.value or 0.0 for row in rows)]
    ends += [end for row in rows if row.kind != "no" for end in row.ci95 or ()]
    pad = 0.06 * (max(ends) - min(ends)) or 0.1
    return min(ends) - pad, max(ends) + pad


def by_r(result: Comparison) -> dict[int, list[PairedRun]]:
    """The pairs of every r, sorted by tokens per parameter."""
    assert result.paired is not None
    found: dict[int, list[PairedRun]] = {}
    for run in sorted(result.paired.runs, key=lambda run: (run.recurrences, _per(run))):
        found.setdefault(run.recurrences, []).append(run)
    return found


def _per(run: PairedRun) -> float:
    return run.tokens_per_parameter


def delta_phi_text(result: Comparison) -> str:
    """Δφ at equal r, and beside it the laws'."""
    ends = interval_text(result.ci95["delta_phi"], "+.3f")
    laws = "not identified" if result.delta_phi is None else f"{result.delta_phi:+.3f} {ends}"
    split = result.split
    if split is None:
        return f"Δφ = {laws.rstrip()} by the laws" if result.delta_phi is not None else ""
    beside = f"(by the laws {laws.rstrip()})"
    delta = split.delta_phi
    if delta is None or split.sign is None or delta.ci95 is None:
        return f"Δφ not identified {beside}"
    value = "" if delta.value is None else f"= {delta.value:+.3f} "
    return f"Δφ {value or 'in '}{interval_text(delta.ci95, '+.3f')} {beside}"


def equal_r_content(results: Sequence[Comparison]) -> list[dict[str, Any]]:
    """What the page shows of every comparison at equal r."""
    return [_content(result) for result in results if result.paired and result.split]


def _content(result: Comparison) -> dict[str, Any]:
    assert result.paired is not None and result.split is not None
    names = f"{result.recipe} less {result.baseline}"
    marks: list[dict[str, Any]] = [{"at": 0.0, "label": "no difference"}]
    shown = published_change(result)
    if shown is not None:
        marks.append({"at": shown, "label": f"published {shown:+.2f}".replace("-", "−")})
    delta = result.split.delta_phi
    return {
        "recipe": names,
        "pairs": [
            {"r": r, "runs": [asdict(run) for run in runs]} for r, runs in by_r(result).items()
        ],
        "span": form_range(result),
        "forms": [asdict(row) for row in form_rows(result)],
        "range": None if delta is None else delta.range_over_forms,
        "marks": marks,
        "tables": {
            "paired": {
                "title": f"Mean difference of log loss, {names}",
                "columns": PAIRED_HEADS,
                "rows": paired_rows(result.paired),
            },
            "forms": {
                "title": f"Forms of the difference, {names}",
                "columns": FORMS_HEADS,
                "rows": forms_rows(result.split, intervals=True),
            },
        },
    }

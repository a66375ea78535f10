"""What sharing costs and what a recipe gains without it, in rows and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from isodepth.comparing.result import Comparison
from isodepth.comparing.sharing import Contrast
from isodepth.report.tables import table_of
from isodepth.report.words import interval_text

SHARING_HEADS = ("", "r", "cells", "value", "95% interval")
_MOST = 100.0  # times as many runs, beyond which a number of runs is no advice


def sharing_report(result: Comparison) -> list[RenderableType]:
    """The table and what it says; [] where no run is untied."""
    if result.sharing is None:
        return []
    table = table_of(SHARING_HEADS, sharing_rows(result))
    said = [Text(sentence) for sentence in sharing_sentences(result)]
    return [Text(_title(result)), table, *said]


def sharing_page_tables(results: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A table of the page for each comparison that has one."""
    return [
        {"title": _title(result), "columns": SHARING_HEADS, "rows": sharing_rows(result)}
        for result in results
        if result.sharing is not None
    ]


def _title(result: Comparison) -> str:
    return (
        "What sharing costs, in runs of equal graph, width and budget, log loss; price: looped "
        "less untied, which has weights of its own in every pass; difference: "
        f"{result.recipe} less {result.baseline}"
    )


def sharing_rows(result: Comparison) -> list[list[str]]:
    """A difference at one r, or its mean over r, a row."""
    assert result.sharing is not None
    names = _names(result)
    rows = []
    for c in result.sharing.contrasts:
        r = "mean" if c.recurrences is None else str(c.recurrences)
        value = c.delta_log_loss
        ends = interval_text(value.ci95, "+.4f")
        rows.append([names[c.name], r, str(c.n_cells), f"{value.value:+.4f}", ends])
    return rows


def _names(result: Comparison) -> dict[str, str]:
    base, recipe = result.baseline, result.recipe
    return {
        "price_baseline": f"price, {base}",
        "price_recipe": f"price, {recipe}",
        "gain_looped": "difference, looped",
        "gain_untied": "difference, untied",
        "for_loops": "looped less untied difference",
    }


def sharing_sentences(result: Comparison) -> list[str]:
    """What the differences say over all r, and what would tell those that aren't told."""
    sharing = result.sharing
    assert sharing is not None
    base, recipe = result.baseline, result.recipe
    said = []
    for name, open_, lower, higher in (
        (
            "price_baseline",
            f"whether sharing costs {base} anything",
            f"{base} gains by sharing",
            f"sharing costs {base}",
        ),
        (
            "price_recipe",
            f"whether sharing costs {recipe} anything",
            f"{recipe} gains by sharing",
            f"sharing costs {recipe}",
        ),
        (
            "gain_untied",
            f"whether {recipe} gains without sharing too",
            f"{recipe} gains without sharing too",
            f"{recipe} loses without sharing",
        ),
        (
            "for_loops",
            f"whether {recipe} gains more with sharing than without",
            f"{recipe} gains more with sharing than without",
            f"{recipe} gains less with sharing than without",
        ),
    ):
        c = sharing.overall(name)
        if c is None:
            continue
        value = c.delta_log_loss
        told = f"{value.value:+.4f} {interval_text(value.ci95, '+.4f')} of log loss"
        if c.told:
            said.append(f"{lower if value.value < 0 else higher}: {told}")
        else:
            said.append(f"{open_} is not resolved: {told}; {_wanted(c)}")
    noise = f"noise {sharing.noise:.2g} of log loss ({sharing.freedom} degrees of freedom)"
    left = f"; {sharing.n_left_out} untied runs have no partner" if sharing.n_left_out else ""
    return [*said, f"{sharing.n_runs} runs, {noise}{left}"]


def _wanted(c: Contrast) -> str:
    """How many runs would tell a difference of this size; intervals narrow as 1/√n."""
    value, half = abs(c.delta_log_loss.value), np.ptp(c.delta_log_loss.ci95) / 2
    if not value or (half / value) ** 2 > _MOST:
        return f"more than {_MOST:g} times as many runs would tell a difference so small"
    return f"{(half / value) ** 2:.1f} times as many runs would tell a difference of this size"

"""Forest plots: φ or Δφ under every choice of law, estimator, counting and method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from isodepth.comparing.result import Alternative, Comparison
from isodepth.fitting.result import Fit, Interval
from isodepth.report.drawing import COLOURS, plain, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = tuple[float | None, Interval | None]  # a value and its 95% interval


def sensitivity_figure(fit: Fit) -> Figure | None:
    """φ under every choice, the fit's own on top; None where no φ is told."""
    rows = sensitivity_rows(fit)
    if fit.phi is None or len(rows) < 2:
        return None
    with style():
        figure = Figure(figsize=(4.6, 0.17 * len(rows) + 0.7), layout="constrained")
        axes = figure.subplots()
        _draw(axes, dict(enumerate(rows.values())))
        name_rows(axes, list(rows))
        axes.set_xlabel("φ, with 95% intervals")
        axes.set_title(plain(fit.recipe))
    return figure


def sensitivity_rows(fit: Fit) -> dict[str, Row]:
    """φ and its interval under every choice, by name; the fit's own first."""
    c = fit.conventions
    own = f"as fitted: {c.law}, {c.estimator}, {c.count_injection}{_arms(c.arms_differ)}"
    rows: dict[str, Row] = {own: (fit.phi, fit.ci95.get("phi"))}
    return rows | {
        f"{a['law']}, {a['estimator']}, {a['count_injection']}{_arms(a['arms_differ'])}": (
            a["phi"],
            a["ci95"],
        )
        for a in fit.sensitivity
    }


def delta_phi_figure(results: Sequence[Comparison]) -> Figure:
    """Forest plot: Δφ under every choice, a panel a recipe; the comparison's own on top."""
    found = [forest_rows(result) for result in results]
    names = list(dict.fromkeys(name for rows in found for name in rows))
    with style():
        figure = Figure(
            figsize=(2.9 * len(results) + 2.4, 0.17 * len(names) + 0.9), layout="constrained"
        )
        panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
        for axes, result, rows in zip(panels, results, found, strict=True):
            _forest(axes, result, {names.index(name): row for name, row in rows.items()})
        name_rows(panels[0], names)
        figure.supxlabel("Δφ by the laws, with 95% intervals", fontsize=8)
    return figure


def forest_rows(result: Comparison) -> dict[str, Row]:
    """Δφ and its interval under every choice, by name; the comparison's own first."""
    c = result.conventions
    fits = "" if result.method == "separate" else "one law, "
    own = f"as compared: {fits}{c.law}, {c.estimator}, {c.count_injection}"
    rows: dict[str, Row] = {own: (result.delta_phi, result.ci95["delta_phi"])}
    rows |= {_label(a): (a.delta_phi, a.ci95) for a in result.sensitivity}
    if result.cost:
        rows["one law, κ·r^φ"] = (result.cost.delta_phi, result.cost.delta_phi_ci95)
    return rows


def _arms(differ: str) -> str:
    return {"none": "", "tokens": ", κ on tokens", "loss": ", δ on the loss"}[differ]


def _forest(axes: Axes, result: Comparison, rows: dict[int, Row]) -> None:
    title = plain(f"{result.recipe} less {result.baseline}")
    axes.axvline(0.0, color="0.4", lw=0.8)
    if result.published:
        shown = result.published.phi_recipe - result.published.phi_baseline
        axes.axvline(shown, color=COLOURS[3], lw=1.0, ls="--")
        title += f"\n(dashed: published, {shown:+.2f})".replace("-", "−")
    _draw(axes, rows)
    axes.set_title(title)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows of a forest plot from the top down, with their names."""
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.tick_params(axis="y", length=0)


def _draw(axes: Axes, rows: dict[int, Row]) -> None:
    for at, (value, ci95) in rows.items():
        first = at == min(rows)
        colour = COLOURS[2] if first else COLOURS[1]
        if value is None:
            axes.text(0.0, at, " not identified", va="center", color="0.4")
            continue
        if ci95 is not None:
            axes.plot(ci95, [at, at], color=colour, lw=1.6 if first else 1.0)
        axes.plot(value, at, marker="D" if first else "o", color=colour)


def _label(a: Alternative) -> str:
    name = f"{a.law}, {a.estimator}, {a.count_injection}"
    if a.borrowed == "all budgets":
        return f"{name}, every r = 1 run"
    return name if a.method == "separate" else f"one law, {name}"

"""Static figures of comparisons: where the loss change comes from, and whether Δφ survives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from isodepth.fitting.result import Interval
from isodepth.recipes.channels import CHANNELS, Channel
from isodepth.recipes.result import Alternative, Comparison
from isodepth.report.drawing import COLOURS, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {"token_budget": "token budget", "capacity": "capacity (φ)", "other": "rest of the law"}
_SHADES = dict(zip(CHANNELS, (COLOURS[6], COLOURS[5], COLOURS[4]), strict=True))
_HATCHES = dict(zip(CHANNELS, ("", "///", "..."), strict=True))
_BAR = 0.72


def write_compare_figures(results: Sequence[Comparison], out: Path) -> list[Path]:
    """The figures of one or several comparisons into `out`; the paths written."""
    written = save(delta_phi_figure(results), out, "delta_phi")
    channels = channels_figure(results)
    if channels is not None:
        written += save(channels, out, "channels")
    return written


def channels_figure(results: Sequence[Comparison]) -> Figure | None:
    """Stacked shares of the loss change at equal compute: a row a recipe, a panel an r.

    None where no comparison has a shared budget.
    """
    drawn = [result for result in results if result.channels]
    if not drawn:
        return None
    levels = sorted({c.recurrences for result in drawn for c in result.channels})
    with style():
        figure = Figure(
            figsize=(2.2 * len(levels) + 1.6, 2.1 * len(drawn) + 0.6), layout="constrained"
        )
        grid = figure.subplots(len(drawn), len(levels), sharex=True, sharey="row", squeeze=False)
        for row, result in zip(grid, drawn, strict=True):
            for axes, r in zip(row, levels, strict=True):
                _stacks(axes, [c for c in result.channels if c.recurrences == r])
                axes.set_title(f"{result.recipe}, r = {r}" if r == levels[0] else f"r = {r}")
        figure.supylabel("loss change at equal compute, nats per token", fontsize=8)
        figure.supxlabel("training FLOPs; each model at its own compute-optimal size", fontsize=8)
        handles: list[Patch | Line2D] = [
            Patch(
                facecolor=_SHADES[n], hatch=_HATCHES[n], edgecolor="0.25", lw=0.4, label=_NAMES[n]
            )
            for n in CHANNELS
        ]
        handles.append(Line2D([], [], color="0.25", lw=0.8, label="95% of a share"))
        handles.append(Line2D([], [], color="black", marker="D", lw=1.4, label="change, 95%"))
        figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def _stacks(axes: Axes, channels: list[Channel]) -> None:
    """Shares that lower the loss go down from 0, those that raise it up."""
    axes.axhline(0.0, color="0.4", lw=0.8)
    for at, channel in enumerate(channels):
        split = channel.optimal
        ends = {True: 0.0, False: 0.0}
        for i, name in enumerate(CHANNELS):
            value = float(getattr(split, name))
            axes.bar(
                at,
                value,
                width=_BAR,
                bottom=ends[value >= 0],
                color=_SHADES[name],
                hatch=_HATCHES[name],
                edgecolor="0.25",
                linewidth=0.4,
                zorder=2,
            )
            ends[value >= 0] += value
            where = at + (i - 1) * _BAR / 3.6 - _BAR / 9
            _interval(axes, where, ends[value >= 0], split.ci95[name], value, "0.25", 0.8)
        _interval(
            axes,
            at + _BAR / 2.6,
            split.delta_loss,
            split.ci95["delta_loss"],
            split.delta_loss,
            "black",
            1.4,
        )
        axes.plot(at + _BAR / 2.6, split.delta_loss, marker="D", color="black", zorder=4)
    axes.set_xticks(range(len(channels)), [f"{c.budget_flops:.3g}" for c in channels])
    axes.tick_params(axis="x", labelrotation=30)
    axes.grid(visible=False, axis="x")


def _interval(
    axes: Axes,
    x: float,
    end: float,
    ci95: Interval | None,
    value: float,
    colour: str,
    width: float,
) -> None:
    """A 95% interval of `value` drawn about the end of its bar."""
    if ci95 is not None:
        low, high = end + ci95[0] - value, end + ci95[1] - value
        # a white edge, so that it is seen on the hatched bars
        edge = [withStroke(linewidth=width + 1.2, foreground="white")]
        axes.plot([x, x], [low, high], color=colour, lw=width, zorder=3, path_effects=edge)


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
        panels[0].set_yticks(np.arange(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.7)
        figure.supxlabel("Δφ, with 95% intervals", fontsize=8)
    return figure


_Row = tuple[float | None, Interval | None]


def forest_rows(result: Comparison) -> dict[str, _Row]:
    """Δφ and its interval under every choice, by name; the comparison's own first."""
    c = result.conventions
    fits = "" if result.method == "separate" else "one law, "
    own = f"as compared: {fits}{c.law}, {c.estimator}, {c.count_injection}"
    rows: dict[str, _Row] = {own: (result.delta_phi, result.ci95["delta_phi"])}
    rows |= {_label(a): (a.delta_phi, a.ci95) for a in result.sensitivity}
    if result.cost:
        rows["one law, κ·r^φ"] = (result.cost.delta_phi, result.cost.delta_phi_ci95)
    return rows


def _forest(axes: Axes, result: Comparison, rows: dict[int, _Row]) -> None:
    title = f"{result.recipe} less {result.baseline}"
    axes.axvline(0.0, color="0.4", lw=0.8)
    if result.published:
        shown = result.published.phi_recipe - result.published.phi_baseline
        axes.axvline(shown, color=COLOURS[3], lw=1.0, ls="--")
        title += f"\n(dashed: published, {shown:+.2f})".replace("-", "−")
    for at, (value, ci95) in rows.items():
        first = at == min(rows)
        colour = COLOURS[2] if first else COLOURS[1]
        if value is None:
            axes.text(0.0, at, " not identified", va="center", color="0.4")
            continue
        if ci95 is not None:
            axes.plot(ci95, [at, at], color=colour, lw=1.6 if first else 1.0)
        axes.plot(value, at, marker="D" if first else "o", color=colour)
    axes.set_title(title)


def _label(a: Alternative) -> str:
    name = f"{a.law}, {a.estimator}, {a.count_injection}"
    if a.borrowed == "all budgets":
        return f"{name}, every r = 1 run"
    return name if a.method == "separate" else f"one law, {name}"

"""Figures of what a pass is worth without a law, by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from isodepth.fitting.result import Fit
from isodepth.laws import Array
from isodepth.report.drawing import COLOURS, MARKERS, plain, style
from isodepth.report.worth import law_m, map_cells, split_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 1.025  # factor on r by which marks of one r stand beside each other
_NAMED_CELLS = 120  # cells of a map up to which each has its number
_LEAST_REACH = 0.1  # of log(m / r^φ), at which the colours end at the earliest
# blue below 1, orange above: told apart by colour-blind readers
_MAP = LinearSegmentedColormap.from_list("worth", [COLOURS[1], "#f2f2f2", COLOURS[2]])


def worth_figures(fit: Fit) -> list[tuple[str, Figure | None]]:
    """Named figures; None for what there is nothing to draw of."""
    found = fit.law_free
    if found is None:
        return []
    return [
        ("worth", worth_figure(fit, found)),
        ("worth_residuals", residuals_figure(found)),
        ("worth_map", map_figure(fit, found)),
    ]


def worth_figure(fit: Fit, found: dict[str, Any]) -> Figure:
    """m against r, without a law and by the law."""
    levels = np.array([one["recurrences"] for one in found["m"]])
    with style():
        figure = Figure(figsize=(4.4, 3.0), layout="constrained")
        axes = figure.subplots()
        curve = np.geomspace(1.0, levels.max() * 1.15, 60)
        if fit.phi is not None:
            ends = fit.interval("phi")
            if ends:
                axes.fill_between(
                    curve, curve ** ends[0], curve ** ends[1], color="0.5", alpha=0.18, lw=0
                )
            axes.plot(curve, curve**fit.phi, color="0.35", label="$r^φ$ of the law, 95%")
        axes.plot([1.0], [1.0], ls="", marker="o", color="0.35", fillstyle="none")
        _marks(axes, levels, found["m"], 0, "without a law")
        name = split_name(found)
        if name:
            _marks(axes, levels * _APART, found["split"]["m"], 1, name)
        free = law_m(fit)
        if free:
            at = np.array(sorted(free))
            axes.plot(
                at / _APART,
                [free[r] for r in at],
                ls="",
                marker="D",
                color=COLOURS[3],
                fillstyle="none",
                label="the law's free m",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_axis(axes.xaxis, [1.0, *levels])
        low, high = axes.get_ylim()
        _plain_axis(axes.yaxis, [m for m in _ROUND if low <= m <= high])
        axes.set_xlabel("r, passes")
        axes.set_ylabel("m(r), unlooped blocks that they are worth")
        axes.set_title(plain(fit.recipe))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


_ROUND = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)


def _plain_axis(axis: Any, ticks: list[float]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _marks(axes: Axes, at: Array, m: Any, look: int, label: str) -> None:
    value = np.array([one["value"] for one in m])
    ends = np.array([one["ci95"] for one in m])
    axes.errorbar(
        at,
        value,
        yerr=[value - ends[:, 0], ends[:, 1] - value],
        ls="",
        marker=MARKERS[look],
        color=COLOURS[look + 1],
        capsize=2,
        label=label,
    )


def residuals_figure(found: dict[str, Any]) -> Figure:
    """Log loss of looped runs less that of their r's m, over tokens per parameter."""
    twins = [one for one in found["twins"] if one["kept"]]
    with style():
        figure = Figure(figsize=(4.4, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0.0, color="0.6", lw=0.8)
        for i, r in enumerate(sorted({one["recurrences"] for one in twins})):
            own = [one for one in twins if one["recurrences"] == r]
            axes.plot(
                [one["tokens_per_parameter"] for one in own],
                [1e4 * one["residual"] for one in own],
                ls="",
                marker=MARKERS[i % len(MARKERS)],
                color=COLOURS[1 + i % (len(COLOURS) - 1)],
                label=f"r = {r:g}",
            )
        axes.set_xscale("log")
        seen = np.array([one["tokens_per_parameter"] for one in twins])
        rounds = [n * 10.0**k for k in range(-4, 8) for n in (1, 2, 5)]
        ticks = [x for x in rounds if 0.8 * seen.min() <= x <= 1.2 * seen.max()]
        _plain_axis(axes.xaxis, ticks)
        axes.set_xlabel("training tokens per parameter, each pass counted")
        axes.set_ylabel("measured − m(r) without a law,\n$10^{-4}$ of the loss")
        axes.legend(frameon=False)
    return figure


def map_figure(fit: Fit, found: dict[str, Any]) -> Figure | None:
    """m / r^φ run by run over budget and width, a panel an r; None where runs name neither."""
    cells = map_cells(fit, found)
    if cells is None:
        return None
    budgets, widths, reach = cells.budgets, cells.widths, max(cells.reach, _LEAST_REACH)
    norm = TwoSlopeNorm(0.0, -reach, reach)
    with style(), mpl.rc_context({"axes.grid": False}):
        wide = 0.42 * len(budgets) + 0.25
        tall = max(1.8, 0.17 * len(widths) + 1.0)
        figure = Figure(figsize=(wide * len(cells.grids) + 1.2, tall), layout="constrained")
        panels = figure.subplots(1, len(cells.grids), sharey=True, squeeze=False)[0]
        for axes, (r, grid) in zip(panels, cells.grids.items(), strict=True):
            shown = axes.imshow(grid, norm=norm, cmap=_MAP, origin="lower", aspect="auto")
            if grid.size <= _NAMED_CELLS:
                for (i, j), value in np.ndenumerate(grid):
                    if np.isfinite(value):
                        light = abs(value) > 0.6 * reach
                        axes.text(
                            j,
                            i,
                            f"{np.exp(value):.2f}",
                            ha="center",
                            va="center",
                            fontsize=5.5,
                            color="w" if light else "k",
                        )
            axes.set_title(f"r = {r:g}", fontsize=8)
            axes.set_xticks(range(len(budgets)), [f"{c:.3g}" for c in budgets], rotation=90)
            axes.tick_params(length=0)
        panels[0].set_yticks(range(len(widths)), [f"{w:g}" for w in widths])
        panels[0].set_ylabel("width")
        figure.supxlabel("training FLOPs", fontsize=8)
        bar = figure.colorbar(shown, ax=panels, pad=0.02)
        ticks = np.round(np.exp(np.array([-0.9, -0.45, 0.0, 0.45, 0.9]) * reach), 2)
        bar.set_ticks(np.log(ticks).tolist(), labels=[f"{t:g}" for t in ticks])
        figure.suptitle(f"{plain(fit.recipe)}: m / r^φ, φ = {cells.phi:.3f} {cells.whose}")
    return figure

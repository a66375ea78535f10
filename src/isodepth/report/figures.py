"""Static figures of laws and the runs under them, for papers, by matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from isodepth.fitting.problem import Problem
from isodepth.fitting.result import Fit
from isodepth.laws import Array
from isodepth.minima import Isoflop, isoflop
from isodepth.report.drawing import COLOURS, MARKERS, plain, save, style
from isodepth.report.drawn import Drawn
from isodepth.report.forest import sensitivity_figure
from isodepth.report.words import interval_text, size_text
from isodepth.report.worth_figures import worth_figures
from isodepth.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVE_POINTS = 60
# open, so that the run under it is seen
_STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 7.5,
    "markerfacecolor": "none",
    "markeredgecolor": COLOURS[2],
    "markeredgewidth": 0.9,
}


_MOST_BUDGETS = 12  # drawn one by one


def write_figures(runs: Runs, fit: Fit, drawn: Sequence[Drawn], out: Path) -> list[Path]:
    """All figures of a fit into `out`, each as SVG, PDF and PNG; the paths written.

    drawn: the recipe fitted, and after it the table's others.
    """
    own = drawn[0]
    written = []
    for name, figure in (
        ("isoflop", isoflop_figure(runs, drawn)),
        ("predicted", predicted_figure(fit, own)),
        ("residuals", residuals_figure([own])),
        ("profile", profile_figure([own])),
        ("sensitivity", sensitivity_figure(fit)),
        *worth_figures(fit),
    ):
        if figure is not None:
            written += save(figure, out, name)
    return written


def isoflop_figure(runs: Runs, drawn: Sequence[Drawn]) -> Figure | None:
    """Loss against size: a row of panels a recipe, a panel an r, a curve a budget.

    Dots are runs, lines the law and stars the measured minima.
    None where the runs carry no budget.
    """
    drawn = [d for d in drawn if d.problem.budgets is not None]
    if not drawn:
        return None
    levels = sorted({int(r) for d in drawn for r in d.problem.frame["recurrences"]})
    every = {float(c) for d in drawn for c in np.unique(_budgets(d.problem))}
    budgets = _shown(sorted(every))
    shades = dict(
        zip(budgets, mpl.colormaps["viridis"](np.linspace(0.0, 0.88, len(budgets))), strict=True)
    )
    with style():
        height = 2.2 * len(drawn) + 0.8
        figure = Figure(figsize=(1.75 * len(levels) + 1.1, height), layout="constrained")
        # room above every row for its heading
        figure.set_layout_engine("constrained", h_pad=0.12, rect=(0, 0, 1, 1 - 0.2 / height))
        grid = figure.subplots(len(drawn), len(levels), sharey=True, sharex=True, squeeze=False)
        for row, recipe in zip(grid, drawn, strict=True):
            minima = isoflop(replace(runs, frame=recipe.problem.frame))
            for axes, r in zip(row, levels, strict=True):
                for (budget, shade), marker in zip(shades.items(), cycle(MARKERS), strict=False):
                    _isoflop_curve(axes, recipe, r, budget, shade, marker)
                _minima(axes, minima, r)
                axes.set_xscale("log")
                _size_axis(axes, subs=(1.0,))
            row[0].set_ylabel("loss, nats per token")
            heading = row[0].annotate(
                _title(recipe),
                (0, 1),
                (0, 20 if recipe is drawn[0] else 8),  # points, above the names of r
                xycoords="axes fraction",
                textcoords="offset points",
            )
            heading.set_in_layout(False)  # it runs over the panels to the right of its own
        for axes, r in zip(grid[0], levels, strict=True):
            axes.set_title("unlooped (r = 1)" if r == 1 else f"r = {r}", fontsize=8)
        figure.supxlabel("unique non-embedding parameters", fontsize=8)
        handles = [
            Line2D([], [], color=shade, marker=marker, label=f"{budget:.3g}")
            for (budget, shade), marker in zip(shades.items(), cycle(MARKERS), strict=False)
        ]
        handles.append(Line2D([], [], ls="", label="minimum", **_STAR))
        some = "" if len(budgets) == len(every) else f"\n({len(budgets)} of {len(every)} budgets)"
        title = f"training FLOPs{some}"
        figure.legend(handles=handles, title=title, loc="outside right center", frameon=False)
    return figure


def _shown(budgets: list[float]) -> list[float]:
    """All budgets, or of more than an eye tells apart some, evenly spaced among them."""
    if len(budgets) <= _MOST_BUDGETS:
        return budgets
    return [budgets[i] for i in np.linspace(0, len(budgets) - 1, _MOST_BUDGETS).astype(int)]


def _isoflop_curve(
    axes: Axes, drawn: Drawn, r: int, budget: float, shade: object, marker: str
) -> None:
    problem, frame = drawn.problem, drawn.problem.frame
    at = (frame["recurrences"].to_numpy() == r) & (problem.budgets == budget)
    if not at.any():
        return
    order = np.argsort(drawn.size[at])
    loss = frame["loss"].to_numpy()[at][order]
    # between its runs the law's curve follows their counts, straight in log–log
    where = np.linspace(0, len(loss) - 1, _CURVE_POINTS if len(loss) > 1 else 1)

    def between(values: object) -> Array:
        own = np.asarray(values, dtype=float)[at][order]
        if (own <= 0).any():
            return np.interp(where, np.arange(len(own)), own)
        return np.exp(np.interp(where, np.arange(len(own)), np.log(own)))

    first = np.full(where.size, np.flatnonzero(at)[0])  # what all of them have in common
    design = replace(
        problem.design.only(first),
        n_once=between(problem.design.n_once),
        n_rec=between(problem.design.n_rec),
        log_tokens=np.log(between(frame["tokens"])),
    )
    axes.plot(between(drawn.size), drawn.loss(design), color=shade)
    axes.plot(drawn.size[at][order], loss, ls="", marker=marker, color=shade)


def _minima(axes: Axes, minima: Isoflop, r: int) -> None:
    found = [
        (g.n_min, g.loss_min)
        for g in minima.groups
        if g.recurrences == r and g.n_min and g.loss_min
    ]
    axes.plot([n for n, _ in found], [loss for _, loss in found], ls="", zorder=5, **_STAR)


def predicted_figure(fit: Fit, own: Drawn) -> Figure:
    """Measured against predicted loss."""
    loss, drawn = np.exp(own.problem.log_loss), own.predict()
    with style():
        figure = Figure(figsize=(3.3, 3.1), layout="constrained")
        axes = figure.subplots()
        ends = np.array([min(loss.min(), drawn.min()), max(loss.max(), drawn.max())])
        axes.plot(ends, ends, color="0.6", lw=0.8, zorder=1)
        for r, rows, colour, marker in _by_recurrence(own.problem.frame):
            axes.plot(drawn[rows], loss[rows], ls="", marker=marker, color=colour, label=f"r = {r}")
        axes.set_xlabel("predicted loss, nats per token")
        axes.set_ylabel("measured loss, nats per token")
        axes.legend(frameon=False)
        quality = "" if fit.r2 is None else f"R² = {fit.r2:.4f}, rms = {fit.rmse:.4f} nats, "
        axes.set_title(f"{quality}{fit.n_runs} runs")
    return figure


def residuals_figure(drawn: Sequence[Drawn]) -> Figure:
    """Residuals against size, a panel a budget; of several recipes, a row each."""
    several = len(drawn) > 1
    every = {float(c) for d in drawn for c in np.unique(_budgets(d.problem))}
    budgets = _shown(sorted(every))
    columns = len(budgets) if several else min(len(budgets), 3)
    rows = len(drawn) if several else -(-len(budgets) // columns)
    levels = sorted({int(r) for d in drawn for r in d.problem.frame["recurrences"]})
    looks = {
        r: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, r in enumerate(levels)
    }
    with style():
        figure = Figure(
            figsize=((1.5 if several else 2.1) * columns + 1.0, 1.7 * rows + 0.6),
            layout="constrained",
        )
        grid = figure.subplots(
            rows, columns, sharex="col" if several else "none", sharey=True, squeeze=False
        )
        for axes in grid.flat[len(drawn) * len(budgets) :]:
            axes.set_visible(False)
        panels = ((d, budget) for d in drawn for budget in budgets)
        for axes, (recipe, budget) in zip(grid.flat, panels, strict=False):
            axes.axhline(0.0, color="0.6", lw=0.8)
            left = np.exp(recipe.problem.log_loss) - recipe.predict()
            axes.set_visible(bool((_budgets(recipe.problem) == budget).any()))
            for r, (colour, marker) in looks.items():
                at = recipe.problem.frame["recurrences"].to_numpy() == r
                both = at & (_budgets(recipe.problem) == budget)
                order = np.argsort(recipe.size[both])
                axes.plot(
                    recipe.size[both][order],
                    left[both][order],
                    marker=marker,
                    color=colour,
                    lw=0.7,
                    label=f"r = {r}",
                )
            axes.set_xscale("log")
            _size_axis(axes, subs=(1.0,) if several else (1.0, 3.0))
            if recipe.problem.budgets is not None and (not several or recipe is drawn[0]):
                axes.set_title(f"{budget:.3g} FLOPs")
        if several:
            for row, recipe in zip(grid, drawn, strict=True):
                row[0].set_ylabel(plain(recipe.name))
            for column in grid.T:
                lowest = [axes for axes in column if axes.get_visible()][-1]
                lowest.tick_params(labelbottom=True)
        figure.supylabel("measured − law, nats per token", fontsize=8)
        figure.supxlabel("unique non-embedding parameters", fontsize=8)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def profile_figure(drawn: Sequence[Drawn]) -> Figure | None:
    """The objective against φ with both intervals, a panel a recipe; None where no φ is told."""
    told = [d for d in drawn if d.profile is not None and d.told]
    if not told:
        return None
    with style():
        figure = Figure(figsize=(2.6 * len(told) + 0.9, 2.7), layout="constrained")
        panels = figure.subplots(1, len(told), squeeze=False)[0]
        for axes, recipe in zip(panels, told, strict=True):
            _profile(axes, recipe)
            title = _title(recipe)
            axes.set_title(title if len(told) == 1 else "\n".join(title.rsplit(": ", 1)))
        panels[0].set_ylabel("objective above its minimum, %")
        handles, labels = panels[0].get_legend_handles_labels()
        # below, where no curve runs
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2 * min(len(told), 2), frameon=False
        )
    return figure


def _profile(axes: Axes, recipe: Drawn) -> None:
    phi, curve, interval = recipe.phi_value, recipe.profile, recipe.ci95
    assert phi is not None and curve is not None
    values = np.asarray(curve["values"], dtype=float)
    lowest = float(curve["minimum"])
    rise = np.asarray(curve["objective"], dtype=float) / lowest - 1.0
    axes.plot(values, 100 * rise, color=COLOURS[1], label="profile")
    threshold = 100 * (float(curve["threshold"]) / lowest - 1.0)
    axes.axhline(threshold, color="0.5", lw=0.8, ls="--", label="its 95% threshold")
    if interval:
        axes.axvspan(*interval, color=COLOURS[5], alpha=0.25, lw=0, label="95% interval")
    axes.axvline(phi, color=COLOURS[0], lw=0.8, label="φ")
    reach = interval or (values[0], values[-1])
    half = max(phi - reach[0], reach[1] - phi) * 1.5
    axes.set_xlim(max(values[0], phi - half), min(values[-1], phi + half))
    seen = np.abs(values - phi) <= half
    axes.set_ylim(0.0, 105 * float(rise[seen].max()))
    axes.set_xlabel("φ")


def _by_recurrence(frame: pd.DataFrame) -> Iterator[tuple[int, Array, str, str]]:
    recurrences = frame["recurrences"].to_numpy()
    for i, r in enumerate(np.unique(recurrences)):
        style = i % len(COLOURS)
        yield int(r), recurrences == r, COLOURS[style], MARKERS[style]


def _budgets(problem: Problem) -> Array:
    return np.zeros(problem.n) if problem.budgets is None else problem.budgets


def _size_axis(axes: Axes, subs: tuple[float, ...] = (1.0, 3.0)) -> None:
    """Sizes as 30M, 100M, 300M: a few round numbers whatever the span."""
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: size_text(n)))
    axes.xaxis.set_minor_locator(NullLocator())


def _title(drawn: Drawn) -> str:
    name = plain(drawn.name)
    if drawn.problem.conventions.multiplicity == "free":
        return f"{name}: an m of its own for every r"
    if drawn.phi_value is None:
        return f"{name}: φ not identified"
    interval = interval_text(drawn.ci95, ".3f") or "(no interval)"
    return f"{name}: φ = {drawn.phi_value:.3f} {interval}"

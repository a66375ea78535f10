"""Static figures for papers, by matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from isodepth.fitting.estimate import estimate
from isodepth.fitting.problem import Problem, build
from isodepth.fitting.result import Fit
from isodepth.laws import Array
from isodepth.minima import Isoflop, isoflop
from isodepth.report.drawing import COLOURS, MARKERS, save, style
from isodepth.report.tables import size_text
from isodepth.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVE_POINTS = 60


def write_figures(runs: Runs, fit: Fit, out: Path) -> list[Path]:
    """All figures of a fit into `out`, each as SVG, PDF and PNG; the paths written."""
    problem = problem_of(runs, fit)
    written = []
    for name, figure in (
        ("isoflop", isoflop_figure(runs, fit)),
        ("predicted", predicted_figure(fit, problem)),
        ("residuals", residuals_figure(fit, problem)),
        ("profile", profile_figure(fit)),
    ):
        if figure is not None:
            written += save(figure, out, name)
    return written


def problem_of(runs: Runs, fit: Fit) -> Problem:
    """The runs that a fit saw, under its conventions."""
    return _problem(runs, fit.recipe, fit)


def _problem(runs: Runs, recipe: str, fit: Fit) -> Problem:
    rows, _ = runs.of_recipe(recipe)
    return build(rows[rows["status"] == "done"], fit.conventions)


def isoflop_figure(runs: Runs, fit: Fit) -> Figure | None:
    """Loss against size: a row of panels a recipe, a panel an r, a curve a budget.

    Dots are runs, lines the law and stars the measured minima. The recipe of `fit` is drawn with
    its law, every other recipe of the table with a law of its own under the same conventions.
    None where the runs carry no budget.
    """
    drawn = [_drawn(runs, recipe, fit) for recipe in _recipes(runs, fit)]
    drawn = [d for d in drawn if d.problem.budgets is not None]
    if not drawn:
        return None
    levels = sorted({int(r) for d in drawn for r in d.problem.frame["recurrences"]})
    budgets = sorted({float(c) for d in drawn for c in np.unique(_budgets(d.problem))})
    shades = dict(
        zip(budgets, mpl.colormaps["viridis"](np.linspace(0.0, 0.88, len(budgets))), strict=True)
    )
    with style():
        figure = Figure(
            figsize=(1.75 * len(levels) + 1.1, 2.2 * len(drawn) + 0.6), layout="constrained"
        )
        # room above every row for its heading
        figure.set_layout_engine("constrained", h_pad=0.12, rect=(0, 0, 1, 0.97))
        grid = figure.subplots(len(drawn), len(levels), sharey=True, sharex=True, squeeze=False)
        for row, recipe in zip(grid, drawn, strict=True):
            minima = isoflop(replace(runs, frame=recipe.problem.frame))
            for axes, r in zip(row, levels, strict=True):
                for budget, shade in shades.items():
                    _isoflop_curve(axes, recipe, r, budget, shade)
                _minima(axes, minima, r)
                axes.set_xscale("log")
                _size_axis(axes, subs=(1.0,))
            row[0].set_ylabel("loss, nats per token")
            heading = row[0].annotate(
                recipe.title, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points"
            )
            heading.set_in_layout(False)  # it runs over the panels to the right of its own
        for axes, r in zip(grid[0], levels, strict=True):
            axes.text(
                0.97,
                0.97,
                "unlooped (r = 1)" if r == 1 else f"r = {r}",
                transform=axes.transAxes,
                ha="right",
                va="top",
            )
        figure.supxlabel("unique non-embedding parameters", fontsize=8)
        handles = [
            Line2D([], [], color=shade, marker="o", label=f"{budget:.3g}")
            for budget, shade in shades.items()
        ]
        handles.append(Line2D([], [], color="#D55E00", marker="*", ls="", ms=6, label="minimum"))
        figure.legend(
            handles=handles, title="training FLOPs", loc="outside right center", frameon=False
        )
    return figure


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """One recipe and the law that is drawn through its runs."""

    problem: Problem
    theta: Array  # (p,)
    title: str


def _recipes(runs: Runs, fit: Fit) -> list[str]:
    finished = set(runs.used["recipe"])
    return [fit.recipe, *(r for r in runs.recipes if r != fit.recipe and r in finished)]


def _drawn(runs: Runs, recipe: str, fit: Fit) -> _Drawn:
    problem = _problem(runs, recipe, fit)
    if recipe == fit.recipe:
        return _Drawn(problem=problem, theta=fit.fitted.theta, title=_title(fit))
    theta = estimate(problem).theta
    names = problem.theta_names
    phi = f": φ = {theta[names.index('phi')]:.3f} (no interval: not the recipe fitted)"
    return _Drawn(problem=problem, theta=theta, title=recipe + (phi if "phi" in names else ""))


def _isoflop_curve(axes: Axes, drawn: _Drawn, r: int, budget: float, shade: object) -> None:
    problem, frame = drawn.problem, drawn.problem.frame
    at = (frame["recurrences"].to_numpy() == r) & (problem.budgets == budget)
    if not at.any():
        return
    order = np.argsort(_size(frame)[at])
    loss = frame["loss"].to_numpy()[at][order]
    # between its runs the law's curve follows their counts, straight in log–log
    where = np.linspace(0, len(loss) - 1, _CURVE_POINTS if len(loss) > 1 else 1)

    def between(values: object) -> Array:
        own = np.asarray(values, dtype=float)[at][order]
        if (own <= 0).any():
            return np.interp(where, np.arange(len(own)), own)
        return np.exp(np.interp(where, np.arange(len(own)), np.log(own)))

    design = replace(
        problem.design,
        n_once=between(problem.design.n_once),
        n_rec=between(problem.design.n_rec),
        z=np.repeat(problem.design.z[:, at][:, :1], where.size, axis=1),
        log_tokens=np.log(between(frame["tokens"])),
    )
    size = between(_size(frame))
    axes.plot(size, np.exp(problem.law.log_loss(drawn.theta[None], design))[0], color=shade)
    axes.plot(_size(frame)[at][order], loss, ls="", marker="o", color=shade)


def _minima(axes: Axes, minima: Isoflop, r: int) -> None:
    found = [
        (g.n_min, g.loss_min)
        for g in minima.groups
        if g.recurrences == r and g.n_min and g.loss_min
    ]
    axes.plot(
        [n for n, _ in found],
        [loss for _, loss in found],
        ls="",
        marker="*",
        ms=6,
        color="#D55E00",
        zorder=5,
    )


def predicted_figure(fit: Fit, problem: Problem) -> Figure:
    """Measured against predicted loss."""
    loss = np.exp(problem.log_loss)
    drawn = problem.predict(fit.fitted.theta)[0]
    with style():
        figure = Figure(figsize=(3.3, 3.1), layout="constrained")
        axes = figure.subplots()
        ends = np.array([min(loss.min(), drawn.min()), max(loss.max(), drawn.max())])
        axes.plot(ends, ends, color="0.6", lw=0.8, zorder=1)
        for r, rows, colour, marker in _by_recurrence(problem.frame):
            axes.plot(drawn[rows], loss[rows], ls="", marker=marker, color=colour, label=f"r = {r}")
        axes.set_xlabel("predicted loss, nats per token")
        axes.set_ylabel("measured loss, nats per token")
        axes.legend(frameon=False)
        quality = "" if fit.r2 is None else f"R² = {fit.r2:.4f}, rms = {fit.rmse:.4f} nats, "
        axes.set_title(f"{quality}{fit.n_runs} runs")
    return figure


def residuals_figure(fit: Fit, problem: Problem) -> Figure:
    """Residuals against size, a panel a budget."""
    left = np.exp(problem.log_loss) - problem.predict(fit.fitted.theta)[0]
    size = _size(problem.frame)
    budgets = _budgets(problem)
    names = np.unique(budgets)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    with style():
        figure = Figure(figsize=(2.1 * columns + 1.0, 1.7 * rows + 0.6), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, budget in zip(grid.flat, names, strict=False):
            axes.axhline(0.0, color="0.6", lw=0.8)
            for r, at, colour, marker in _by_recurrence(problem.frame):
                both = at & (budgets == budget)
                order = np.argsort(size[both])
                axes.plot(
                    size[both][order],
                    left[both][order],
                    marker=marker,
                    color=colour,
                    lw=0.7,
                    label=f"r = {r}",
                )
            axes.set_xscale("log")
            _size_axis(axes)
            if problem.budgets is not None:
                axes.set_title(f"{budget:.3g} FLOPs")
        for axes in list(grid.flat)[len(names) :]:
            axes.set_visible(False)
        figure.supylabel("measured − law, nats per token", fontsize=8)
        figure.supxlabel("unique non-embedding parameters", fontsize=8)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def profile_figure(fit: Fit) -> Figure | None:
    """The objective against φ, with both intervals."""
    if fit.profile_phi is None or fit.phi is None:
        return None
    values = np.asarray(fit.profile_phi["values"], dtype=float)
    rise = np.asarray(fit.profile_phi["objective"], dtype=float) / fit.objective - 1.0
    threshold = float(fit.profile_phi["threshold"]) / fit.objective - 1.0
    with style():
        figure = Figure(figsize=(3.6, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.plot(values, 100 * rise, color=COLOURS[1], label="profile")
        axes.axhline(100 * threshold, color="0.5", lw=0.8, ls="--", label="95% threshold")
        interval = fit.interval("phi")
        if interval:
            axes.axvspan(*interval, color=COLOURS[5], alpha=0.25, lw=0, label="95% interval")
        axes.axvline(fit.phi, color=COLOURS[0], lw=0.8, label=f"φ = {fit.phi:.3f}")
        reach = interval or (values[0], values[-1])
        half = max(fit.phi - reach[0], reach[1] - fit.phi) * 1.5
        axes.set_xlim(max(values[0], fit.phi - half), min(values[-1], fit.phi + half))
        seen = np.abs(values - fit.phi) <= half
        axes.set_ylim(0.0, 105 * float(rise[seen].max()))
        axes.set_xlabel("φ")
        axes.set_ylabel("objective above its minimum, %")
        axes.legend(framealpha=0.9, edgecolor="none", loc="upper center")
    return figure


def _by_recurrence(frame: pd.DataFrame) -> Iterator[tuple[int, Array, str, str]]:
    recurrences = frame["recurrences"].to_numpy()
    for i, r in enumerate(np.unique(recurrences)):
        style = i % len(COLOURS)
        yield int(r), recurrences == r, COLOURS[style], MARKERS[style]


def _budgets(problem: Problem) -> Array:
    return np.zeros(problem.n) if problem.budgets is None else problem.budgets


def _size(frame: pd.DataFrame) -> Array:
    return (frame["n_once"] + frame["n_rec"] + frame["n_inject"]).to_numpy(dtype=float)


def _size_axis(axes: Axes, subs: tuple[float, ...] = (1.0, 3.0)) -> None:
    """Sizes as 30M, 100M, 300M: a few round numbers whatever the span."""
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: size_text(n)))
    axes.xaxis.set_minor_locator(NullLocator())


def _title(fit: Fit) -> str:
    if fit.phi is None:
        return f"{fit.recipe}: φ not identified"
    interval = fit.interval("phi")
    ends = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    c = fit.conventions
    return (
        f"{fit.recipe}: φ = {fit.phi:.3f}{ends}   ({c.law} law, {c.estimator}, injection counted "
        f"{c.count_injection}, {fit.n_runs} runs)"
    )

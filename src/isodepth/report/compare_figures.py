"""Static figures of comparisons: Δφ, where the loss change comes from, and the laws under them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from isodepth.comparing.channels import CHANNELS, Channel
from isodepth.comparing.result import Comparison
from isodepth.fitting.result import Interval
from isodepth.report.drawing import COLOURS, plain, save, style
from isodepth.report.drawn import Drawn
from isodepth.report.figures import isoflop_figure, profile_figure, residuals_figure
from isodepth.report.forest import delta_phi_figure
from isodepth.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {"token_budget": "token budget", "capacity": "capacity (φ)", "other": "rest of the law"}
_SHADES = dict(zip(CHANNELS, (COLOURS[6], COLOURS[5], COLOURS[4]), strict=True))
_HATCHES = dict(zip(CHANNELS, ("", "///", "..."), strict=True))
_BAR = 0.72


def write_compare_figures(
    runs: Runs, results: Sequence[Comparison], drawn: Sequence[Drawn], out: Path
) -> list[Path]:
    """The figures of one or several comparisons into `out`; the paths written.

    drawn: the laws compared.
    """
    written = []
    for name, figure in (
        ("delta_phi", delta_phi_figure(results)),
        ("channels", channels_figure(results)),
        ("isoflop", isoflop_figure(runs, drawn)),
        ("profile", profile_figure(drawn)),
        ("residuals", residuals_figure(drawn)),
    ):
        if figure is not None:
            written += save(figure, out, name)
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
                axes.set_title(f"{plain(result.recipe)}, r = {r}" if r == levels[0] else f"r = {r}")
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

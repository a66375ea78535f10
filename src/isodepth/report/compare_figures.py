"""Static figures of comparisons: runs at equal r, Δφ, the shares of a loss change, the laws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from isodepth.comparing.channels import CHANNELS, Channel
from isodepth.comparing.result import Comparison
from isodepth.fitting.result import Interval
from isodepth.report.drawing import COLOURS, MARKERS, plain, save, style
from isodepth.report.drawn import Drawn
from isodepth.report.equal_r import FormRow, by_r, form_range, form_rows, published_change
from isodepth.report.figures import isoflop_figure, profile_figure, residuals_figure
from isodepth.report.forest import delta_phi_figure, name_rows
from isodepth.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# capacity and other stand together where the form that holds leaves Δφ open
_SHARES = (*CHANNELS, "capacity_and_other")
_NAMES = dict(
    zip(
        _SHARES,
        ("token budget", "capacity (φ)", "other", "capacity and other,\nnot told apart"),
        strict=True,
    )
)
_SHADES = dict(zip(_SHARES, (COLOURS[6], COLOURS[5], COLOURS[4], COLOURS[5]), strict=True))
_HATCHES = dict(zip(_SHARES, ("", "///", "...", "xxx"), strict=True))
_BAR = 0.72


def write_compare_figures(
    runs: Runs, results: Sequence[Comparison], drawn: Sequence[Drawn], out: Path
) -> list[Path]:
    """The figures of one or several comparisons into `out`; the paths written.

    drawn: the laws compared.
    """
    written = []
    for name, figure in (
        ("paired", paired_figure(results)),
        ("forms", forms_figure(results)),
        ("delta_phi", delta_phi_figure(results)),
        ("channels", channels_figure(results)),
        ("isoflop", isoflop_figure(runs, drawn)),
        ("profile", profile_figure(drawn)),
        ("residuals", residuals_figure(drawn)),
    ):
        if figure is not None:
            written += save(figure, out, name)
    return written


def paired_figure(results: Sequence[Comparison]) -> Figure | None:
    """Differences at equal r over tokens per parameter, and what is predicted; a panel a recipe.

    None where no comparison has pairs.
    """
    drawn = [result for result in results if result.paired is not None]
    if not drawn:
        return None
    levels = sorted({r for result in drawn for r in by_r(result)})
    looks = dict(zip(levels, zip(_R_COLOURS, MARKERS, strict=False), strict=False))
    with style():
        figure = Figure(figsize=(3.3 * len(drawn) + 1.5, 3.0), layout="constrained")
        panels = figure.subplots(1, len(drawn), squeeze=False)[0]
        for axes, result in zip(panels, drawn, strict=True):
            _pairs(axes, result, looks)
        panels[0].set_ylabel("difference of log loss")
        figure.supxlabel("tokens per parameter", fontsize=8)
        handles = [
            Line2D([], [], color=colour, marker=marker, ls="", label=f"r = {r}")
            for r, (colour, marker) in looks.items()
        ]
        if any(
            not run.matched for result in drawn for runs in by_r(result).values() for run in runs
        ):
            handles.append(
                Line2D(
                    [], [], color="0.3", marker="o", mfc="none", ls="", label="against a surface"
                )
            )
        handles.append(Line2D([], [], color="0.3", label="the form that holds,\na line a budget"))
        handles.append(Line2D([], [], color="0.3", ls=":", label="the laws' Δφ alone,\nlikewise"))
        figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


_R_COLOURS = (*COLOURS[1:], COLOURS[0])


def _pairs(axes: Axes, result: Comparison, looks: dict[int, tuple[str, str]]) -> None:
    axes.axhline(0.0, color="0.4", lw=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    for r, runs in by_r(result).items():
        colour, marker = looks[r]
        for budget in dict.fromkeys(run.budget_flops for run in runs):
            at = [run for run in runs if run.budget_flops == budget]
            x = [run.tokens_per_parameter for run in at]
            if at[0].by_phi is not None:
                axes.plot(x, [run.by_phi or 0.0 for run in at], color=colour, ls=":", lw=1.0)
            axes.plot(x, [run.by_form for run in at], color=colour, lw=0.8)
        for matched in (True, False):
            shown = [run for run in runs if run.matched == matched]
            axes.plot(
                [run.tokens_per_parameter for run in shown],
                [run.delta_log_loss for run in shown],
                marker=marker,
                color=colour,
                mfc=colour if matched else "none",
                ls="",
            )
    axes.set_title(plain(f"{result.recipe} less {result.baseline}"))


def forms_figure(results: Sequence[Comparison]) -> Figure | None:
    """Δφ under every form of the difference, a panel a recipe; None where no form was fitted."""
    drawn = [result for result in results if result.split is not None]
    found = [form_rows(result) for result in drawn]
    names = list(dict.fromkeys(row.label for rows in found for row in rows))
    if len(names) < 2:
        return None
    with style():
        figure = Figure(
            figsize=(2.9 * len(drawn) + 2.8, 0.2 * len(names) + 1.0), layout="constrained"
        )
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, result, rows in zip(panels, drawn, found, strict=True):
            _forms(axes, result, rows, names)
        name_rows(panels[0], names)
        figure.supxlabel("Δφ, with 95% intervals", fontsize=8)
        handles: list[Patch | Line2D] = [
            Line2D(
                [], [], color=colour, marker=marker, mfc=face or colour, alpha=alpha, label=label
            )
            for label, colour, marker, face, alpha in _FORM_LOOKS.values()
        ]
        handles.append(Patch(color=COLOURS[5], alpha=0.3, label="range over\nadmissible forms"))
        figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


# by kind: label, colour, marker, its face where not the colour, opacity
_FORM_LOOKS: dict[str, tuple[str, str, str, str, float]] = {
    "holds": ("beside the form that holds", COLOURS[2], "D", "", 1.0),
    "counts": ("beside another\nadmissible form", COLOURS[1], "o", "", 1.0),
    "other": ("admissible, holds\na simpler one", COLOURS[1], "o", "white", 1.0),
    "no": ("contradicted", COLOURS[0], "o", "", 0.3),
    "laws": ("by the laws", COLOURS[3], "s", "", 1.0),
}


def _forms(axes: Axes, result: Comparison, rows: list[FormRow], names: list[str]) -> None:
    title = plain(f"{result.recipe} less {result.baseline}")
    axes.axvline(0.0, color="0.4", lw=0.8)
    shown = published_change(result)
    if shown is not None:
        axes.axvline(shown, color=COLOURS[3], lw=1.0, ls="--")
        title += f"\n(dashed: published, {shown:+.2f})".replace("-", "−")
    assert result.split is not None
    if result.split.delta_phi is not None:
        low, high = result.split.delta_phi.range_over_forms
        axes.axvspan(low, high, color=COLOURS[5], alpha=0.3, lw=2.0, zorder=0)
    for row in rows:
        at = names.index(row.label)
        _, colour, marker, face, alpha = _FORM_LOOKS[row.kind]
        if row.value is None:
            axes.text(0.0, at, " not identified", va="center", color="0.4")
            continue
        if row.ci95 is not None:
            axes.plot(row.ci95, [at, at], color=colour, lw=1.4, alpha=alpha)
        axes.plot(row.value, at, marker=marker, color=colour, mfc=face or colour, alpha=alpha)
    axes.set_xlim(form_range(result))
    axes.tick_params(axis="y", length=0)
    axes.set_title(title)


def channels_figure(results: Sequence[Comparison]) -> Figure | None:
    """Stacked shares of the loss change at equal compute: a row a recipe, a panel an r.

    None where no comparison has a shared budget.
    """
    drawn = [result for result in results if result.channels]
    if not drawn:
        return None
    levels = sorted({c.recurrences for result in drawn for c in result.channels})
    used = {name for result in drawn for name in _shares(result.channels[0])}
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
            for n in _SHARES
            if n in used
        ]
        handles.append(Line2D([], [], color="0.25", lw=0.8, label="95% of a share"))
        handles.append(Line2D([], [], color="black", marker="D", lw=1.4, label="change, 95%"))
        figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def _shares(channel: Channel) -> tuple[str, ...]:
    """The shares of a channel that the runs tell."""
    return CHANNELS if channel.optimal.capacity is not None else (CHANNELS[0], _SHARES[-1])


def _stacks(axes: Axes, channels: list[Channel]) -> None:
    """Shares that lower the loss go down from 0, those that raise it up."""
    axes.axhline(0.0, color="0.4", lw=0.8)
    for at, channel in enumerate(channels):
        split = channel.optimal
        ends = {True: 0.0, False: 0.0}
        for i, name in enumerate(_shares(channel)):
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

"""What `isodepth power` prints and draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from isodepth.errors import InputError
from isodepth.planning.power import Curve
from isodepth.report.drawing import COLOURS, MARKERS, plain, save, style

_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def write_power_figure(curves: Sequence[Curve], out: Path) -> list[Path]:
    """Interval width against FLOPs into `out`; the paths written.

    Raises InputError where the folder can't be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return save(power_figure(curves), out, "power")
    except OSError as error:
        raise InputError(f"{out} can't be written: {error.strerror}") from error


def power_figure(curves: Sequence[Curve]) -> Figure:
    """Half-width of φ's interval against training FLOPs; dashed where runs are split."""
    with style():
        figure = Figure(figsize=(4.8, 3.0), layout="constrained")
        axes = figure.subplots()
        for i, curve in enumerate(curves):
            axes.loglog(
                curve.flops,
                curve.half_width,
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)] if curve.whole_runs else "",
                linestyle="-" if curve.whole_runs else "--",
                label=plain(curve.name),
            )
        axes.set_xlabel("training FLOPs of all runs")
        axes.set_ylabel("± of φ (half of the 95% interval)")
        low, high = axes.get_ylim()
        shown = [tick for tick in _TICKS if low <= tick <= high]
        axes.yaxis.set_major_locator(FixedLocator(shown))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.legend(frameon=False)
    return figure


def width_lines(curves: Sequence[Curve], ratios: dict[float, float]) -> list[str]:
    """The layout's widths beside the design's at equal FLOPs, a line for each."""
    own = curves[0]
    return [
        f"{flops:.3g} FLOPs: as laid out φ ± {half:.3f}, designed from the same cells "
        f"± {half * ratios[flops]:.3f} ({ratios[flops]:.2f} of it)"
        for flops, half in zip(own.flops, own.half_width, strict=True)
        if np.isfinite(half)
    ]

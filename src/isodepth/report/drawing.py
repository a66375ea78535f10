"""How every static figure looks, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from isodepth.terminal import printable

_PNG_DPI = 200
# Okabe & Ito's palette: told apart by colour-blind readers; markers say the same in grey
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 8.0,
    "legend.fontsize": 7.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.4,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "isodepth",
}


@contextmanager
def style() -> Iterator[None]:
    """Everything drawn inside looks alike."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its keys are literals in the stubs
        yield


def plain(name: str) -> str:
    """A name of the user's as matplotlib shows it: no $ of it begins mathematics, and no control
    character, which SVG can't hold, is in it."""
    return printable(name).replace("$", r"\$")


def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """Write a figure into `out` as SVG, PDF and PNG; the paths written."""
    with style():
        # the layout is found once, in drawing the PNG, and then held: it is most of the cost
        figure.set_dpi(_PNG_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # likewise
        paths = [out / f"{name}.{form}" for form in ("svg", "pdf", "png")]
        partial = [path.with_name(f".{path.name}") for path in paths]
        imsave(partial[2], pixels, format="png")
        figure.set_layout_engine("none")
        # without a date the same runs give the same bytes
        figure.savefig(partial[0], format="svg", metadata={"Date": None})
        figure.savefig(partial[1], format="pdf", metadata={"CreationDate": None})
        for written, path in zip(partial, paths, strict=True):
            written.replace(path)
    return paths

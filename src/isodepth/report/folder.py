"""A fit's folder: fit.json, report.txt and the figures."""

from __future__ import annotations

from pathlib import Path

from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.report.figures import write_figures
from isodepth.runs import Runs


def write_folder(runs: Runs, fit: Fit, out: Path) -> list[Path]:
    """Write everything a fit has to show; the paths written.

    Raises InputError where the folder can't be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        report = out / "report.txt"
        report.write_text(fit.report(), encoding="utf-8")
        fit.save(out / "fit.json")
        return [out / "fit.json", report, *write_figures(runs, fit, out)]
    except OSError as error:
        raise InputError(f"{out} can't be written: {error.strerror}") from error

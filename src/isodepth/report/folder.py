"""The folder of a fit or of comparisons: JSON, report.txt, report.html and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.recipes.result import Comparison
from isodepth.report.compare_figures import write_compare_figures
from isodepth.report.figures import write_figures
from isodepth.report.page import compare_page, fit_page, write_page
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
        page = write_page(out, lambda: fit_page(runs, fit))
        return [out / "fit.json", report, *page, *write_figures(runs, fit, out)]
    except OSError as error:
        raise InputError(f"{out} can't be written: {error.strerror}") from error


def write_compare_folder(
    runs: Runs, results: Sequence[Comparison], text: str, out: Path
) -> list[Path]:
    """Write everything that comparisons have to show; the paths written.

    text: what `compare --json` writes.
    Raises InputError where the folder can't be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        report, data = out / "report.txt", out / "comparison.json"
        report.write_text("\n".join(r.report() for r in results), encoding="utf-8")
        data.write_text(text + "\n", encoding="utf-8")
        page = write_page(out, lambda: compare_page(runs, results))
        return [data, report, *page, *write_compare_figures(results, out)]
    except OSError as error:
        raise InputError(f"{out} can't be written: {error.strerror}") from error

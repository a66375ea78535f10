"""The folder of a fit or of comparisons: numbers as JSON, their runs, and all that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from isodepth.comparing.result import Comparison
from isodepth.errors import InputError
from isodepth.files import write_whole
from isodepth.fitting.result import Fit
from isodepth.report.compare_figures import write_compare_figures
from isodepth.report.drawn import drawn_of_comparisons, drawn_of_table
from isodepth.report.figures import write_figures
from isodepth.report.page import compare_page, fit_page, write_page
from isodepth.runs import Runs, load_runs
from isodepth.runs.writing import write_runs

FIT_FILE = "fit.json"
COMPARISON_FILE = "comparison.json"
# no name that a table of the user's own would have: a report may be written beside one
RUNS_FILE = "report-runs.csv"
_REPORT_FILE = "report.txt"


def write_folder(runs: Runs, fit: Fit, out: Path) -> list[Path]:
    """Write everything a fit has to show; the paths written.

    Raises InputError where the folder can't be made or written.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        fit.save(out / FIT_FILE)
        return [out / FIT_FILE, _write_runs(runs, out), *_show_fit(runs, fit, out)]


def write_compare_folder(
    runs: Runs, results: Sequence[Comparison], text: str, out: Path
) -> list[Path]:
    """Write everything that comparisons have to show; the paths written.

    text: what `compare --json` writes.
    Raises InputError where the folder can't be made or written.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        data = out / COMPARISON_FILE
        write_whole(data, text + "\n")
        return [data, _write_runs(runs, out), *_show_comparisons(runs, results, out)]


def holds_result(out: Path) -> bool:
    """Whether a folder is that of a fit or of comparisons."""
    return (out / FIT_FILE).exists() or (out / COMPARISON_FILE).exists()


def write_again(out: Path) -> list[Path]:
    """Draw a folder's report, page and figures again from its numbers and runs; the paths written.

    Raises InputError where the folder holds no fit and no comparison, or can't be written.
    """
    fitted, compared = (out / FIT_FILE).exists(), (out / COMPARISON_FILE).exists()
    if fitted and compared:
        raise InputError(
            f"{out} holds a fit and comparisons, which have one {_REPORT_FILE} between them: "
            "write each with --out to a folder of its own"
        )
    if not out.is_dir():
        raise InputError(f"{out}: no such folder")
    if not holds_result(out):
        raise InputError(
            f"{out} holds nothing to report: no {FIT_FILE} (`isodepth fit --out`), no "
            f"{COMPARISON_FILE} (`isodepth compare --out`) and no sweep"
        )
    if not (out / RUNS_FILE).exists():
        raise InputError(f"{out / RUNS_FILE} is missing: write the folder again with --out")
    runs = load_runs(out / RUNS_FILE)
    with _writing(out):
        if fitted:
            fit = Fit.load(out / FIT_FILE)
            return _show_fit(_named(runs, fit), fit, out)
        results = Comparison.load_all(out / COMPARISON_FILE)
        return _show_comparisons(_named(runs, results[0]), results, out)


def _show_fit(runs: Runs, fit: Fit, out: Path) -> list[Path]:
    report = out / _REPORT_FILE
    write_whole(report, fit.report())
    drawn = drawn_of_table(runs, fit)
    page = write_page(out, lambda: fit_page(runs, fit, drawn, RUNS_FILE))
    return [report, *page, *write_figures(runs, fit, drawn, out)]


def _show_comparisons(runs: Runs, results: Sequence[Comparison], out: Path) -> list[Path]:
    report = out / _REPORT_FILE
    write_whole(report, "\n".join(r.report() for r in results))
    drawn = drawn_of_comparisons(runs, results)
    page = write_page(out, lambda: compare_page(runs, results, drawn, RUNS_FILE))
    return [report, *page, *write_compare_figures(runs, results, drawn, out)]


def _write_runs(runs: Runs, out: Path) -> Path:
    """The run table, so that the folder can be drawn again wherever it is."""
    write_runs(runs, out / RUNS_FILE)
    return out / RUNS_FILE


def _named(runs: Runs, result: Fit | Comparison) -> Runs:
    """The copy of a run table under the name and checksum of what was read first."""
    return replace(runs, source=result.source, checksum=result.checksum)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{out} can't be written: {error.strerror}") from error

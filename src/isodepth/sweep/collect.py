"""From a sweep's folder to a run table."""

from __future__ import annotations

from pathlib import Path

from isodepth.runs import Runs, load_runs
from isodepth.runs.writing import write_runs
from isodepth.sweep.ledger import Ledger

PARQUET_FILE = "runs.parquet"
CSV_FILE = "runs.csv"


def collect(ledger: Ledger) -> Runs:
    """The table of every run that has been tried, as `load_runs` reads the ledger's folder."""
    return load_runs(ledger.folder)


def write_table(runs: Runs, folder: Path) -> list[Path]:
    """Write runs.parquet and runs.csv, each whole or not at all; their paths.

    Raises InputError where the folder can't be written.
    """
    written = [folder / name for name in (PARQUET_FILE, CSV_FILE)]
    for file in written:
        write_runs(runs, file)
    return written

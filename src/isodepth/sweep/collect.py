"""From a sweep's folder to a run table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from isodepth.errors import InputError
from isodepth.runs import Runs, load_runs
from isodepth.runs.writing import write_runs
from isodepth.sweep.ledger import PLAN_FILE, Entry, Ledger
from isodepth.training.record import read_record

PARQUET_FILE = "runs.parquet"
CSV_FILE = "runs.csv"


def runs_of(source: str) -> Runs:
    """The runs that a command is given: a sweep's folder by its ledger, or what `load_runs` takes.

    Records alone would leave out, unsaid, the runs that failed and have none. Raises InputError as
    `collect` and `load_runs`.
    """
    folder = Path(source)
    if not (folder / PLAN_FILE).is_file():
        return load_runs(source)
    return replace(collect(Ledger(folder)), source=source)


def collect(ledger: Ledger) -> Runs:
    """The table of every run that has been tried, in the plan's order.

    A finished run's row is its record's; one that diverged, failed or was interrupted has no loss
    and keeps its status, so that a fit leaves it out and counts it. Raises InputError where no run
    has been tried, or naming a record that can't be read.
    """
    own_model = ledger.plan.spec.command is None
    rows = [row for entry in ledger.entries() if (row := _row(entry, own_model)) is not None]
    if not rows:
        raise InputError(f"{ledger.folder}: no run has been tried yet")
    return load_runs(pd.DataFrame(rows))


def _row(entry: Entry, own_model: bool) -> dict[str, Any] | None:
    if entry.state in ("done", "diverged"):
        record = read_record(entry.folder)
        if record is None:
            raise InputError(
                f"{entry.folder} has lost its record.json; delete that folder and sweep again"
            )
        return _planned(entry, _NAMES) | record["run"] | {"status": entry.state}
    if entry.version == 0:
        return None
    # what a run table must have; the other counts of a model that isn't ours are its trainer's
    counts = _COUNTS if own_model else ("n_once", "n_rec", "tokens")
    return _planned(entry, (*_NAMES, *counts)) | {"loss": None, "status": entry.state}


_NAMES = ("run_id", "recipe", "recurrences", "budget_flops", "width", "seed")
_COUNTS = ("n_once", "n_rec", "n_inject", "flops_per_token", "tokens", "flops")


def _planned(entry: Entry, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(entry.run, name) for name in names}


def write_table(runs: Runs, folder: Path) -> list[Path]:
    """Write runs.parquet and runs.csv, each whole or not at all; their paths.

    Raises InputError where the folder can't be written.
    """
    written = [folder / name for name in (PARQUET_FILE, CSV_FILE)]
    for file in written:
        write_runs(runs, file)
    return written

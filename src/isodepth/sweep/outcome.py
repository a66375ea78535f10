"""How a run ended, judged by the record that its trainer left and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from isodepth.errors import InputError
from isodepth.runs import load_runs
from isodepth.sweep.ledger import State
from isodepth.training.record import RECORD_FILE, read_record


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attempt came to."""

    state: State
    reason: str | None
    retry: bool  # whether another try may end better


def outcome_of(record: dict[str, Any] | None, *, folder: Path | None = None) -> Outcome:
    """The outcome that a record, or the one in `folder`, tells of.

    A record of another trainer must hold a row of the run table under `run`; it is checked as
    every run table is.
    """
    if folder is not None:
        try:
            record = read_record(folder)
        except InputError as error:
            return Outcome(state="failed", reason=str(error), retry=False)
        if record is None:
            why = f"the command ended without leaving {folder / RECORD_FILE}"
            return Outcome(state="failed", reason=why, retry=True)
        try:
            checked = load_runs(pd.DataFrame([record["run"]]))
        except InputError as error:
            why = f"{folder / RECORD_FILE}: {error}"
            return Outcome(state="failed", reason=why, retry=False)
        record = {"run": record["run"] | {"status": str(checked.frame["status"].iloc[0])}}
    assert record is not None
    status = record["run"]["status"]
    if status == "diverged":
        return Outcome(state="diverged", reason="the loss was not finite", retry=False)
    if status in ("done", "interrupted"):
        return Outcome(state=status, reason=None, retry=False)
    return Outcome(state="failed", reason=f"the record's status is {status!r}", retry=False)


def readable_record(folder: Path) -> bool:
    """Whether the folder holds a record, whole."""
    try:
        return read_record(folder) is not None
    except InputError:
        return False


def put_aside_damaged(folder: Path) -> None:
    """Rename a record that can't be read, so that its run can be finished again."""
    file = folder / RECORD_FILE
    if file.exists() and not readable_record(folder):
        file.replace(folder / f"{RECORD_FILE}.damaged")

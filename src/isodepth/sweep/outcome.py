"""How a run ended, judged by the record that its trainer left and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isodepth.errors import InputError
from isodepth.runs.raw import of_records
from isodepth.runs.records import RECORD_FILE, file_checksum, read_record
from isodepth.runs.states import State
from isodepth.runs.sweeps import believed
from isodepth.runs.table import checked
from isodepth.sweep.ledger import Entry


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attempt came to."""

    state: State
    reason: str | None
    retry: bool  # whether another try may end better


def outcome_of(record: dict[str, Any]) -> Outcome:
    """The outcome that a record of our trainer tells of."""
    return _of_status(record["run"]["status"])


def outcome_of_command(entry: Entry) -> Outcome:
    """The outcome that the record of another trainer tells of.

    It must hold a row of the run table under `run`, of the run that was planned; it is checked as
    every run table is.
    """
    file = entry.folder / RECORD_FILE
    if not file.exists():
        why = f"the command ended without leaving {file}"
        return Outcome(state="failed", reason=why, retry=True)
    try:
        record = read_record(entry.folder)
        assert record is not None
        row = record["run"]
        if row.get("status") in (None, "done", "diverged"):
            row = believed(entry.folder, entry.run, own_model=False)
        table = of_records([row], name=str(file), places=["run"], checksum="")
        frame = checked(table).frame
    except InputError as error:
        return Outcome(state="failed", reason=str(error), retry=False)
    return _of_status(str(frame["status"].iloc[0]))


def _of_status(status: str) -> Outcome:
    if status == "diverged":
        return Outcome(state="diverged", reason="the loss was not finite", retry=False)
    ends: dict[str, State] = {"done": "done", "interrupted": "interrupted"}
    if status in ends:
        return Outcome(state=ends[status], reason=None, retry=False)
    return Outcome(state="failed", reason=f"the record's status is {status!r}", retry=False)


def readable_record(folder: Path) -> bool:
    """Whether the folder holds a record, whole."""
    try:
        return read_record(folder) is not None
    except InputError:
        return False


def put_aside_unbelieved(entry: Entry) -> None:
    """Rename a record that can't be read, or isn't the one that the run ended with, so that the run
    can be finished again."""
    file = entry.folder / RECORD_FILE
    changed = entry.record is not None and entry.record != file_checksum(entry.folder)
    if file.exists() and (changed or not readable_record(entry.folder)):
        file.replace(entry.folder / f"{RECORD_FILE}.damaged")

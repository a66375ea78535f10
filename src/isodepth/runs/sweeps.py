"""The runs of a sweep's folder, by its ledger: what was tried, how it ended, what its record says.

DIR/plan.json                       what was planned
DIR/runs/RUN_ID/state-000003.json   the newest is how the run stands
DIR/runs/RUN_ID/record.json         a finished run's row
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isodepth.decoding import decoded
from isodepth.errors import InputError, reason
from isodepth.runs.raw import RawTable, of_records
from isodepth.runs.records import RECORD_FILE, contradictions, file_checksum, read_record
from isodepth.runs.states import RunState, newest_state

PLAN_FILE = "plan.json"
RUNS = "runs"
PLAN_FORMAT = 1
_LONGEST_NAME = 150  # characters of a run_id; file systems allow 255 bytes, of which some are ours
_LONGEST_PLAN = 1 << 30  # bytes
_SHOWN = 5

_NAMES = ("run_id", "recipe", "recurrences", "graph_recurrences", "width", "seed")
_COUNTS = ("n_once", "n_rec", "n_inject", "flops_per_token", "tokens", "flops")


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """What a plan knows of a run's row; units as in the run table."""

    run_id: str
    recipe: str
    recurrences: int
    width: int
    seed: int
    budget_flops: float
    tokens: int
    flops: float  # training FLOPs: tokens · flops_per_token
    flops_per_token: int
    n_once: int
    n_rec: int
    n_inject: int
    graph_recurrences: int | None = None  # r of an untied run, whose recurrences are 1

    @property
    def arm(self) -> str:
        """Its r, in words."""
        untied = self.graph_recurrences
        return str(self.recurrences) if untied is None else f"{untied} untied"


@dataclass(frozen=True, kw_only=True)
class _Spec:
    command: str | None = None  # of a trainer that isn't ours


@dataclass(frozen=True, kw_only=True)
class _Plan:
    spec: _Spec
    runs: tuple[PlannedRow, ...]


def holds_sweep(folder: Path) -> bool:
    """Whether the folder is a sweep's."""
    return (folder / PLAN_FILE).exists()


def read_sweep(folder: Path, *, name: str) -> RawTable:
    """A row for every run of the sweep that has been tried, in the plan's order.

    A finished run's row is its record's; one that diverged, failed or was interrupted has no loss
    and keeps its status, so that a fit leaves it out and counts it. Raises InputError where no run
    has been tried, and naming every record that is missing or isn't believed, and every run of the
    folder that its plan doesn't have.
    """
    file = folder / PLAN_FILE
    content, data = read_plan_file(file)
    plan = decoded(content, _Plan, where=str(file))
    check_run_ids([run.run_id for run in plan.runs], where=str(file))
    check_strays(folder, {run.run_id for run in plan.runs})
    own_model = plan.spec.command is None
    records: list[dict[str, object]] = []
    places: list[str] = []
    notes: list[str] = []
    problems: list[str] = []
    untried: list[str] = []
    digest = hashlib.sha256(data)
    for run in plan.runs:
        home = folder / RUNS / run.run_id
        version, state, damaged = newest_state(home, run.run_id)
        notes += damaged.values()
        if version == 0:
            untried.append(run.run_id)
            continue
        try:
            row = _row(home, run, state, own_model=own_model)
        except InputError as error:
            problems += error.problems
            continue
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
        records.append(row)
        places.append(f"row {len(records)} ({RUNS}/{run.run_id})")
    if problems:
        again = "`isodepth sweep` finishes such runs again, from their last checkpoints"
        raise InputError([*problems, f"{name}: {again}"])
    if not records:
        raise InputError(f"{name}: no run has been tried yet")
    if untried:
        notes.append(
            f"{len(untried)} of {len(plan.runs)} planned runs have not been tried: "
            + ", ".join(untried[:_SHOWN])
            + (", …" if len(untried) > _SHOWN else "")
        )
    table = of_records(records, name=name, places=places, checksum=digest.hexdigest())
    return table.noting(*notes)


def _row(
    home: Path, run: PlannedRow, state: RunState | None, *, own_model: bool
) -> dict[str, object]:
    planned = asdict(run)
    known = (*_NAMES, "budget_flops")
    names = {name: planned[name] for name in known if planned[name] is not None}
    status = "planned" if state is None else state.state
    if status in ("done", "diverged"):
        assert state is not None
        row = believed(home, run, own_model=own_model, checksum=state.record)
        return names | row | {"status": status}
    # what a run table must have; the other counts of a model that isn't ours are its trainer's
    counts = _COUNTS if own_model else ("n_once", "n_rec", "tokens")
    return names | {name: planned[name] for name in counts} | {"loss": None, "status": status}


def believed(
    home: Path, run: PlannedRow, *, own_model: bool, checksum: str | None = None
) -> dict[str, Any]:
    """The row of a finished run's record, held against its plan and its checksum.

    own_model: whether isodepth trained it, so that the plan's counts must be its own.
    checksum: SHA-256 of the file that the sweep accepted; None: it has accepted none yet.
    Raises InputError, naming the file, for a record that is missing, is another run's, was changed,
    or tells no loss.
    """
    record = read_record(home)
    if record is None:
        raise InputError(f"{home} has lost its {RECORD_FILE}")
    file = home / RECORD_FILE
    if checksum is not None and file_checksum(home) != checksum:
        raise InputError(f"{file} is not the record that this run ended with: it was changed")
    row: dict[str, Any] = record["run"]
    diverged = _diverged(row)
    planned = asdict(run)
    names: tuple[str, ...] = _NAMES if not own_model else (*_NAMES, *_COUNTS)
    if diverged:  # before its last step
        names = tuple(name for name in names if name not in ("tokens", "flops"))
    differing = contradictions(row, {name: planned[name] for name in names})
    if differing:
        raise InputError(f"{file} is not of this run: {'; '.join(differing)}")
    if not diverged and not _is_loss(row.get("loss")):
        raise InputError(f"{file} is damaged: it tells no loss")
    return row


def _diverged(row: Mapping[str, Any]) -> bool:
    loss = row.get("loss")
    return row.get("status") == "diverged" or (isinstance(loss, float) and not math.isfinite(loss))


def _is_loss(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def refuse_part_of_sweep(folder: Path, name: str) -> None:
    """Raise InputError for a folder that holds sweeps, or lies in one: records alone would leave
    out, unsaid, the runs that failed and have none."""
    parts = [above for above in folder.resolve().parents if holds_sweep(above)]
    if folder.resolve().name == RUNS and parts:
        raise InputError(f"{name} is the inside of a sweep; give the sweep's folder, {parts[0]}")
    below = sorted(file.parent for file in folder.rglob(PLAN_FILE))
    if below:
        raise InputError(f"{name} holds the folder of a sweep; give that one: {below[0]}")
    stray = next(iter(sorted(folder.rglob("state-[0-9]*.json"))), None)
    if stray is not None:
        raise InputError(
            f"{name} holds a run of a sweep ({stray.parent}) without the sweep's {PLAN_FILE}; "
            "give the folder that holds both"
        )


def read_plan_file(file: Path) -> tuple[dict[str, Any], bytes]:
    """A plan's content as plain JSON, of a format that we know, and its bytes.

    Raises InputError for anything else.
    """
    try:
        if file.exists() and not file.is_file():
            raise InputError(f"plan {file} is not a file")
        if file.stat().st_size > _LONGEST_PLAN:
            raise InputError(f"plan {file} can't be read: it is too long")
        data = file.read_bytes()
        content = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"plan {file} can't be read: {reason(error)}") from error
    if not isinstance(content, dict) or "format" not in content or "runs" not in content:
        raise InputError(f"{file} is not a plan written by `isodepth plan`")
    if content["format"] != PLAN_FORMAT:
        raise InputError(
            f"{file}: this isodepth reads plans of format {PLAN_FORMAT}, not "
            f"{content['format']!r}; a newer one wrote it"
        )
    return content, data


def check_run_ids(names: Sequence[str], *, where: str) -> None:
    """Raise InputError unless every run_id is a name of its own that can only be a folder's."""
    problems = [
        f"{where}: the run_id {name!r} is no name: it takes letters, digits, '-', '_', '+', '=' "
        f"and '.', not first, {_LONGEST_NAME} at most"
        for name in names
        if not is_name(name)
    ]
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    problems += [f"{where}: two runs are called {name!r}" for name in dict.fromkeys(twice)]
    if problems:
        raise InputError(problems)


def is_name(text: str) -> bool:
    """Whether a text can name a folder and do nothing else: no path, nothing hidden, no control."""
    return (
        0 < len(text) <= _LONGEST_NAME
        and len(text.encode("utf-8", "replace")) <= 200
        and text[0] != "."
        and all(c.isalnum() or c in "-_.+=" for c in text)
    )


def check_strays(folder: Path, planned: set[str]) -> None:
    """Raise InputError where the folder holds runs that its plan doesn't have."""
    try:
        homes = [home for home in (folder / RUNS).iterdir() if home.is_dir()]
    except OSError:
        return
    strays = sorted(
        home.name
        for home in homes
        if home.name not in planned and any(home.glob("state-[0-9]*.json"))
    )
    if strays:
        shown = ", ".join(strays[:_SHOWN]) + (", …" if len(strays) > _SHOWN else "")
        raise InputError(
            f"{folder / PLAN_FILE} lacks {len(strays)} runs that the folder has tried ({shown}): "
            "the plan was changed; put them back, or move their folders elsewhere"
        )

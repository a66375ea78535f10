"""From somebody else's table or logs to a run table, by a map that the user gives."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isodepth.errors import InputError
from isodepth.runs.checks import NUMERIC, TEXT, number, shown
from isodepth.runs.counted import COUNTS, count
from isodepth.runs.logs import flat, read_logs
from isodepth.runs.reading import RawTable, read_table
from isodepth.runs.table import Runs, checked

# what https://docs.wandb.ai/models/runs/run-states calls a state, and we
_STATES = {
    "finished": "done",
    "crashed": "interrupted",  # stopped sending heartbeats
    "killed": "interrupted",
    "pending": "planned",
}
_SHOWN = 30  # columns that a message lists
_ONE_ROW = (
    "one row of a log is read; where other rows of the same step hold the rest, --at STEP=last "
    "takes them as one (STEP: the column of steps)"
)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A run table and where it came from."""

    runs: Runs
    columns: dict[str, str]  # column of the run table → what it was read from, in words
    others: tuple[str, ...]  # further columns of the source, kept as they are


def import_runs(
    source: str | Path,
    *,
    columns: Mapping[str, str],
    constants: Mapping[str, str] | None = None,
    at: tuple[str, str] | None = None,
    finished: tuple[str, str] | None = None,
    shape: Mapping[str, str] | None = None,
) -> Imported:
    """Read runs that were not logged by isodepth.

    Parameters
    ----------
    source: a table with one row a run (a Weights & Biases export, any CSV, Parquet or JSON Lines),
        or a folder of trainer logs.
    columns: column of the run table → column of the source, or a product of such and of numbers:
        `{"tokens": "step*config.batch_tokens"}`. Columns of the source that are named like the run
        table's need no map; what is not mapped stays under its own name.
    constants: column of the run table → the same value for every run.
    at: logs only; (column, value): rows that agree in that column count as one, and the one where
        it is `value`, or the largest with a loss (`last`), is read. Without it, the last row with
        a loss.
    finished: (column, target), each as in `columns`, the target also a number: a run whose column
        is below its target is marked `interrupted`.
    shape: for models as isodepth builds them, what `account` needs beside width and recurrences,
        each a value or a column of the source; the counts then follow from it.

    Raises InputError naming file, row and column of whatever can't be used.
    """
    path, logged = Path(source), Path(source).is_dir()
    columns, constants = dict(columns), dict(constants or {})
    twice = sorted(set(columns) & set(constants))
    if twice:
        raise InputError(f"column {twice[0]!r} has both a map and a constant; give one")
    notes: list[str] = []
    if logged:
        table = _read_logs(path, str(source), columns.get("loss"), at, notes)
    elif at is not None:
        raise InputError("--at is for folders of logs; this source has one row a run")
    else:
        table = _flattened(read_table(path, name=str(source)))
        if {"Name", "State"} <= set(table.columns):  # as Weights & Biases exports it
            for column, theirs in (("run_id", "Name"), ("status", "State")):
                if column not in {*columns, *constants, *table.columns}:
                    columns[column] = theirs
    draft = _Draft(table)
    draft.take(columns, constants)
    if shape is not None:
        _set_counts(draft, shape)
    draft.check_complete(counted=shape is not None)
    _set_statuses(draft, logged)
    if finished is not None:
        _mark_unfinished(draft, finished, notes)
    elif logged and "status" not in {*columns, *constants, *table.columns}:
        notes.append(
            "nothing says which of these runs finished, so one whose log just stops counts as "
            "done; --finished COLUMN=TARGET tells them apart"
        )
    try:
        runs = checked(draft.table())
    except InputError as error:
        if logged and at is None and any(p.endswith("the cell is empty") for p in error.problems):
            raise InputError([*error.problems, _ONE_ROW]) from error
        raise
    ours = [c for c in draft.cells if c in draft.origins or c in NUMERIC or c in TEXT]
    return Imported(
        runs=replace(runs, notes=(*notes, *runs.notes)),
        columns={c: draft.origins.get(c, c) for c in ours},
        others=tuple(c for c in draft.cells if c not in ours),
    )


class _Draft:
    """A run table in the making: columns over the rows of its source."""

    def __init__(self, source: RawTable) -> None:
        self.source = source
        self.cells: dict[str, Sequence[object]] = {}
        # where a column came from, if not from its namesake in the source
        self.origins: dict[str, str] = dict(source.origins)

    def take(self, columns: Mapping[str, str], constants: Mapping[str, str]) -> None:
        """Every mapped column and constant, then the source's others under their own names.

        Raises InputError for a column that the source doesn't have.
        """
        for column, text in columns.items():
            self.cells[column] = self.values(text, f"--map {column}={text}")
            if text != column:
                self.origins[column] = text
        for column, value in constants.items():
            self.cells[column] = [value] * len(self.source.rows)
            self.origins[column] = f"the constant {value}"
        renamed = {text for column, text in columns.items() if text != column}
        for name in self.source.columns:
            if name in renamed or columns.get(name) == name:
                continue
            # a name of the run table that was given to something else
            self.cells[f"source.{name}" if name in self.cells else name] = self._column(name)

    def values(self, text: str, option: str) -> Sequence[object]:
        """A column of the source, or the product that `text` asks for; None where a cell is empty.

        Raises InputError for an unknown column, and for cells of a product that aren't numbers.
        """
        parts = factors(text, self.source, option)
        if parts == [text] and text in self.source.columns:
            return self._column(text)
        problems: list[str] = []
        found: list[object] = [1.0] * len(self.source.rows)
        for part in parts:
            for i, cell in enumerate(self._column(part) if part in self.source.columns else ()):
                factor = None if cell is None else number(cell)
                if cell is not None and factor is None:
                    problems.append(f"{self.source.at(i, part)}: {shown(cell)} is not a number")
                found[i] = _times(found[i], factor)
            if part not in self.source.columns:
                found = [_times(value, number(part)) for value in found]
        if problems:
            raise InputError(problems)
        return found

    def _column(self, name: str) -> Sequence[object]:
        i = self.source.columns.index(name)
        return [row[i] for row in self.source.rows]

    def set(self, column: str, cells: Sequence[object], origin: str) -> None:
        self.cells[column] = cells
        self.origins[column] = origin

    def check_complete(self, *, counted: bool) -> None:
        """Raises InputError naming the required columns that nothing gives."""
        missing = [c for c, rule in NUMERIC.items() if rule.required and c not in self.cells]
        if not missing:
            return
        gives = " ".join(f"--map {c}=…" for c in missing)
        counts = {"n_once", "n_rec"} & set(missing) and not counted
        raise InputError(
            f"{self.source.name}: nothing gives {', '.join(missing)}; say what does: {gives}"
            + ("; --account counts models built as isodepth builds them" if counts else "")
            + f". Its columns: {listed(self.source.columns)}"
        )

    def table(self) -> RawTable:
        """The draft as cells to check."""
        return replace(
            self.source,
            columns=list(self.cells),
            rows=[list(row) for row in zip(*self.cells.values(), strict=True)],
            origins=self.origins,
        )


def _times(value: object, factor: float | None) -> float | None:
    return value * factor if isinstance(value, float) and factor is not None else None


def factors(text: str, source: RawTable, option: str) -> list[str]:
    """The columns and numbers whose product `text` is; at least one is a column.

    Raises InputError for a name that the source doesn't have, with those that resemble it.
    """
    known = source.columns
    if text in known:
        return [text]
    parts = [part.strip() for part in text.split("*")]
    for part in parts:
        if part not in known and number(part) is None:
            ends = [k for k in known if k.endswith((f".{part}", f"/{part}"))]
            ends += [k for k in known if part.endswith((f".{k}", f"/{k}"))]
            close = (ends or difflib.get_close_matches(part, known, n=3))[:3]
            hint = (
                f"did you mean {' or '.join(map(repr, close))}?"
                if close
                else f"its columns: {listed(known)}"
            )
            raise InputError(f"{option}: {source.name} has no column {part!r}; {hint}")
    if not any(part in known for part in parts):
        raise InputError(f"{option} names no column; a constant is given by --set COLUMN=VALUE")
    return parts


def listed(columns: Sequence[str]) -> str:
    """The first names of columns, as a message shows them."""
    return ", ".join(columns[:_SHOWN]) + (", …" if len(columns) > _SHOWN else "")


def _read_logs(
    path: Path, name: str, loss: str | None, at: tuple[str, str] | None, notes: list[str]
) -> RawTable:
    """One row a run, read where its log last has what the loss is made of."""
    logs = read_logs(path, name=name)
    notes += logs.notes
    columns = [*logs.settings, *logs.columns]
    empty = RawTable(name=name, columns=columns, rows=[], places=[], checksum=logs.checksum)
    made_of = ["loss"] if loss is None else factors(loss, empty, f"--map loss={loss}")
    needed = [c for c in made_of if c in logs.columns]
    table, longer = logs.table(needed, at)
    if longer:
        notes.append(
            f"{longer} of {len(table.rows)} logs go on after the row that was read, the last one "
            "with a loss (an empty cell or null is none)"
        )
    if "run_id" in table.columns:
        return table
    return replace(
        table,
        columns=["run_id", *table.columns],
        rows=[[run.run_id, *row] for run, row in zip(logs.runs, table.rows, strict=True)],
        origins={"run_id": "the name of its folder or log"},
    )


def _flattened(table: RawTable) -> RawTable:
    """A table whose cells hold no objects: `{"config": {"r": 4}}` has the column config.r."""
    rows = [dict(flat(dict(zip(table.columns, row, strict=True)))) for row in table.rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return replace(table, columns=columns, rows=[[row.get(c) for c in columns] for row in rows])


def _set_counts(draft: _Draft, shape: Mapping[str, str]) -> None:
    """n_once, n_rec, n_inject and flops_per_token of every run, as `account` counts them."""
    twice = [c for c in COUNTS if c in draft.origins]
    if twice:
        raise InputError(f"both --account and another option give {twice[0]}; drop one")
    lacking = [c for c in ("width", "recurrences") if c not in draft.cells]
    if lacking:
        raise InputError(f"--account needs {lacking[0]}: --map {lacking[0]}=…")
    given: dict[str, Sequence[object]] = {c: draft.cells[c] for c in ("width", "recurrences")}
    for name, text in shape.items():
        known = text in draft.source.columns
        given[name] = (
            draft.values(text, f"--account {name}={text}")
            if known
            else [text] * len(draft.source.rows)
        )
    found = count(given, [f"{draft.source.name}, {place}" for place in draft.source.places])
    words = ", ".join(f"{name} {text}" for name, text in shape.items())
    for column, cells in found.items():
        draft.set(column, cells, f"account: {words}")


def _set_statuses(draft: _Draft, logged: bool) -> None:
    """Statuses in our words; a logged run that never came to a loss was interrupted."""
    states = draft.cells.get("status", [None] * len(draft.source.rows))
    found: list[object] = []
    for state, loss in zip(states, draft.cells["loss"], strict=True):
        ours = _STATES.get(state.lower(), state.lower()) if isinstance(state, str) else state
        found.append("interrupted" if logged and ours is None and loss is None else ours)
    if "status" in draft.cells:
        draft.cells["status"] = found
    elif any(state is not None for state in found):
        draft.set("status", found, "interrupted where the log has no loss")


def _mark_unfinished(draft: _Draft, finished: tuple[str, str], notes: list[str]) -> None:
    """Runs that stopped before their target, as interrupted."""
    column, target = finished
    option = f"--finished {column}={target}"
    reached = draft.values(column, option)
    fixed = None if target in draft.source.columns else number(target)
    targets = draft.values(target, option) if fixed is None else [fixed] * len(reached)
    states = list(draft.cells.get("status", [None] * len(reached)))
    problems: list[str] = []
    stopped: list[str] = []
    for i, (state, loss) in enumerate(zip(states, draft.cells["loss"], strict=True)):
        value = number(loss)
        if state not in (None, "done") or value is None or not math.isfinite(value):
            continue
        at, end = (None if c is None else number(c) for c in (reached[i], targets[i]))
        if at is None or end is None:
            which = column if at is None else target
            problems.append(
                f"{draft.source.name}, {draft.source.places[i]}: {which} is empty or not a number, "
                "so whether the run finished isn't known"
            )
        elif at < end:
            states[i] = "interrupted"
            stopped.append(f"{draft.source.places[i]}: {at:g} of {end:g}")
    if problems:
        raise InputError(problems)
    if stopped:
        notes.append(
            f"stopped before {column} = {target}, so interrupted: {len(stopped)} "
            f"({stopped[0]}{', …' if len(stopped) > 1 else ''})"
        )
        draft.set("status", states, f"{draft.origins.get('status', 'status')}, {option}")

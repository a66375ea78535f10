"""From somebody else's table or logs to a run table, by a map that the user gives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isodepth.errors import InputError
from isodepth.runs.checks import NUMERIC, TEXT, number
from isodepth.runs.counted import COUNTS, count
from isodepth.runs.expressions import evaluated, listed, parsed
from isodepth.runs.histories import Rows, history_of
from isodepth.runs.log_files import flat
from isodepth.runs.logs import Logs, read_logs, with_names
from isodepth.runs.raw import RawTable
from isodepth.runs.reading import read_table
from isodepth.runs.table import Runs, checked

# what https://docs.wandb.ai/models/runs/run-states calls a state, and we
_STATES = {
    "finished": "done",
    "crashed": "interrupted",  # stopped sending heartbeats
    "killed": "interrupted",
    "pending": "planned",
}
# where a trainer itself says how far it meant to go: its settings of the step reached and the last
_REACHED = (("trainer_state.global_step", "trainer_state.max_steps"),)
_HELD_OUT = {"eval_loss", "val_loss", "valid_loss", "validation_loss", "test_loss"}
_BITS = ("bpb", "bpc", "bits")
_NATS = (
    "the loss is in nats per token: bits per token times 0.693147; bits per byte times 0.693147 "
    "times the bytes of a token, as in --map loss=val_bpb*0.693147*bytes_per_token; the logarithm "
    "of a perplexity"
)
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
    lines: Sequence[str] = (),
    rows: Rows = "auto",
    shape: Mapping[str, str] | None = None,
) -> Imported:
    """Read runs that were not logged by isodepth.

    Parameters
    ----------
    source: a table with one row a run (a Weights & Biases export, any CSV, Parquet, JSON or Excel
        file) or of runs' histories, of which the last row of each run is read; or a folder of
        trainer logs.
    columns: column of the run table → column of the source, or an expression of such and of
        numbers by + - * / and brackets: `{"tokens": "step*config.batch_tokens"}`. Columns of
        the source that are named like the run table's need no map; what is not mapped stays under
        its own name.
    constants: column of the run table → the same value for every run.
    at: logs and histories only; (column, value): rows that agree in that column count as one, and
        the one where it is `value`, or the largest with a loss (`last`), is read. Without it, the
        last row with a loss.
    finished: (column, target), each as in `columns`, the target also a number: a run whose column
        is below its target is marked `interrupted`.
    lines: text logs: patterns of their lines, or names of ready ones.
    rows: whether a table has one row a run or is a history of runs; by default that is seen from
        its names and steps.
    shape: for models as isodepth builds them, what `account` needs beside width and recurrences,
        each a value or a column of the source; the counts then follow from it.

    Raises InputError naming file, row and column of whatever can't be used.
    """
    path, folder = Path(source), Path(source).is_dir()
    columns, constants = dict(columns), dict(constants or {})
    twice = sorted(set(columns) & set(constants))
    if twice:
        raise InputError(f"column {twice[0]!r} has both a map and a constant; give one")
    notes: list[str] = []
    logs: Logs | None = None
    if folder:
        logs = read_logs(path, name=str(source), lines=lines)
    elif lines:
        raise InputError("--line is for folders of text logs; this source is a table")
    else:
        table = _flattened(read_table(path, name=str(source)))
        logs = history_of(table, columns, rows)
    logged = logs is not None
    if logs is not None:
        table = _last_rows(logs, columns.get("loss"), at, notes)
        if columns.get("run_id") not in table.columns:
            columns.pop("run_id", None)  # which names the history's runs already
    elif at is not None:
        raise InputError("--at is for logs and histories; this source has one row a run")
    elif {"Name", "State"} <= set(table.columns):  # as Weights & Biases exports it
        for column, theirs in (("run_id", "Name"), ("status", "State")):
            if column not in {*columns, *constants, *table.columns}:
                columns[column] = theirs
    if finished is None and logged and "status" not in {*columns, *constants, *table.columns}:
        finished = next((pair for pair in _REACHED if set(pair) <= set(table.columns)), None)
    if "loss" not in {*columns, *constants} and "loss" in table.columns:
        held_out = [c for c in table.columns if c.rsplit("/")[-1].lower() in _HELD_OUT]
        if held_out:
            notes.append(
                f"the column 'loss' was taken, and there is {held_out[0]!r}: a run table's loss is "
                f"that of held-out text; if that is it, --map loss={held_out[0]}"
            )
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
            self.cells[f"source.{name}" if name in self.cells else name] = self.source.column(name)

    def values(self, text: str, option: str) -> Sequence[object]:
        """A column of the source, or what arithmetic makes of several; None where a cell is empty.

        Raises InputError for an unknown column, and for cells in arithmetic that aren't numbers.
        """
        expression = parsed(text, self.source.columns, option=option, name=self.source.name)
        return evaluated(expression, self.source)

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
            + self._units("loss" in missing)
            + f". Its columns: {listed(self.source.columns)}"
        )

    def _units(self, lacking: bool) -> str:
        """What to do with a loss in bits or a perplexity, where the source has one."""
        names = [c.lower() for c in self.source.columns]
        others = any(mark in c for c in names for mark in (*_BITS, "ppl", "perplexity"))
        return f"; {_NATS}" if lacking and others else ""

    def table(self) -> RawTable:
        """The draft as cells to check."""
        return replace(
            self.source,
            columns=list(self.cells),
            rows=[list(row) for row in zip(*self.cells.values(), strict=True)],
            origins=self.origins,
        )


def _last_rows(
    logs: Logs, loss: str | None, at: tuple[str, str] | None, notes: list[str]
) -> RawTable:
    """One row a run, read where its log last has what the loss is made of."""
    notes += logs.notes
    columns = list(dict.fromkeys([*logs.settings, *logs.columns]))
    made_of = ["loss"]
    if loss is not None:
        try:
            made_of = parsed(loss, columns, option=f"--map loss={loss}", name=logs.name).columns
        except InputError as error:  # what was passed over may hold it
            raise InputError([*error.problems, *logs.notes]) from error
    needed = [c for c in made_of if c in logs.columns]
    if not needed:
        notes.append("no log has a loss, so that every run counts as interrupted")
    table, taken = logs.table(needed, at)
    notes += taken
    how = "the last row with a loss" if at is None else f"the row at {at[0]} = {at[1]}"
    notes.append(f"of each of {len(logs.runs)} runs {how} was taken")
    return with_names(table, logs)


def _flattened(table: RawTable) -> RawTable:
    """A table whose cells hold no objects, nor text of JSON objects: `{"config": {"r": 4}}` has the
    column config.r."""
    rows = []
    for i, row in enumerate(table.rows):
        try:
            cells = dict(zip(table.columns, map(_unpacked, row), strict=True))
            rows.append(dict(flat(cells)))
        except InputError as error:
            raise InputError(f"{table.name}, {table.places[i]}: {error}") from error
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return replace(table, columns=columns, rows=[[row.get(c) for c in columns] for row in rows])


def _unpacked(cell: object) -> object:
    """A cell; the object that a text of JSON stands for."""
    if not (isinstance(cell, str) and cell.startswith("{") and cell.endswith("}")):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if isinstance(value, dict) else cell


def _set_counts(draft: _Draft, shape: Mapping[str, str]) -> None:
    """n_once, n_rec, n_inject and flops_per_token of every run, as `account` counts them."""
    twice = [c for c in COUNTS if c in draft.origins]
    if twice:
        raise InputError(f"both --account and another option give {twice[0]}; drop one")
    lacking = [c for c in ("width", "recurrences") if c not in draft.cells]
    if lacking:
        raise InputError(f"--account needs {lacking[0]}: --map {lacking[0]}=…")
    given: dict[str, Sequence[object]] = {c: draft.cells[c] for c in ("width", "recurrences")}
    if "graph_recurrences" in draft.cells:
        given["graph_recurrences"] = draft.cells["graph_recurrences"]
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
    notes.append(f"finished is a run whose {column} has come to {target}")
    if stopped:
        notes.append(
            f"stopped before {column} = {target}, so interrupted: {len(stopped)} "
            f"({stopped[0]}{', …' if len(stopped) > 1 else ''})"
        )
        draft.set("status", states, f"{draft.origins.get('status', 'status')}, {option}")

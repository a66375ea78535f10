"""Tables that hold the history of runs, a row a step, where a run table has one row a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from isodepth.errors import InputError
from isodepth.runs.log_files import STEPS, Row
from isodepth.runs.logs import LoggedRun, Logs
from isodepth.runs.raw import RawTable

Rows = Literal["auto", "runs", "history"]
_NAMES = ("run_id", "run", "run_name", "Run", "name", "Name", "experiment", "exp", "run.name")
_IDS = ("ID", "id", "run.id")
# what tells models apart; a table in which two rows agree in all of these has steps, not runs
_SIZES = (
    "recurrences", "r", "n_once", "n_rec", "width", "budget_flops", "seed", "recipe", "n_inject",
    "graph_recurrences",
)  # fmt: skip
_WIDE = (" - ", "__MIN", "__MAX", "__STD")  # of a Weights & Biases chart's export


def history_of(table: RawTable, mapped: Mapping[str, str], rows: Rows) -> Logs | None:
    """The table's rows by run, where it is a history of runs; None where it has one row a run.

    mapped: column of the run table → the source's, which tells what names a run.
    Raises InputError for a panel with one column a run, and for a history that doesn't name runs.
    """
    _refuse_panel(table)
    steps = next((c for c in STEPS if c in table.columns), None)
    names = _naming_column(table, mapped)
    if rows == "runs":
        return None
    if rows == "auto" and (steps is None or not _has_histories(table, names, steps)):
        return None
    if names is None:
        raise InputError(
            f"{table.name} has several rows of one size with another {steps or 'step'}, and no "
            "column that names runs: where they are steps of one run, --map run_id=COLUMN says "
            "whose; where each row is a run of its own, --rows runs"
        )
    if rows == "history" and steps is None:
        raise InputError(f"{table.name}: --rows history needs a column of steps ({STEPS[0]})")
    groups: dict[str, list[Row]] = {}
    for i, cells in enumerate(table.rows):
        named = {c: v for c, v in zip(table.columns, cells, strict=True) if v is not None}
        run_id = str(named.pop(names, ""))
        if not run_id:
            raise InputError(f"{table.at(i, names)}: the cell is empty")
        groups.setdefault(run_id, []).append(Row(file="", place=table.places[i], cells=named))
    columns = [c for c in table.columns if c != names]
    for run_id, members in groups.items():
        _check_one_run(table, run_id, members, mapped)
    return Logs(
        name=table.name,
        runs=[
            LoggedRun(run_id=run_id, settings={}, rows=members)
            for run_id, members in groups.items()
        ],
        settings=[],
        columns=columns,
        checksum=table.checksum,
        named_by=names,
        notes=[
            *table.notes,
            f"{table.name} is a history of {len(groups)} runs ({len(table.rows)} rows, by {names} "
            f"and {steps})",
        ],
    )


def _naming_column(table: RawTable, mapped: Mapping[str, str]) -> str | None:
    given = mapped.get("run_id")
    if given is not None and given in table.columns:
        return given
    return next((c for c in _NAMES if c in table.columns), None)


def _has_histories(table: RawTable, names: str | None, steps: str) -> bool:
    """Whether rows of one name, or without names of one size, differ in their step."""
    for column in (*_IDS, *_NAMES):
        if column in table.columns and _unique(table.column(column)):
            return False
    if names is not None:
        keys: list[object] = table.column(names)
    else:
        sizes = [table.column(c) for c in _SIZES if c in table.columns]
        keys = [str(cells) for cells in zip(*sizes, strict=True)] if sizes else []
        if not keys or "tokens" not in table.columns:
            return False
    seen: dict[str, set[object]] = {}
    for key, step in zip(keys, table.column(steps), strict=True):
        seen.setdefault(str(key), set()).add(step)
    return any(len(found) > 1 for found in seen.values())


def _unique(cells: list[object]) -> bool:
    texts = [str(cell) for cell in cells]
    return len(set(texts)) == len(texts)


def _check_one_run(
    table: RawTable, run_id: str, rows: list[Row], mapped: Mapping[str, str]
) -> None:
    """Raise InputError where one name stands for models of several sizes."""
    for column in ("recurrences", "n_once", "n_rec", "width"):
        theirs = mapped.get(column, column)
        values = {str(row.cells[theirs]) for row in rows if theirs in row.cells}
        if len(values) > 1:
            raise InputError(
                f"{table.name}: the rows of run {run_id!r} have several values of {theirs} "
                f"({', '.join(sorted(values)[:3])}), so they are not the history of one run; where "
                "each row is a run, --rows runs"
            )


def _refuse_panel(table: RawTable) -> None:
    """Raise InputError for a chart's export: a row a step and a column a run."""
    others = [c for c in table.columns if c not in STEPS]
    stepped = len(others) < len(table.columns)
    panel = [c for c in others if any(mark in c for mark in _WIDE)]
    if stepped and len(panel) * 2 > len(others) and len(panel) > 1:
        metric = panel[0].split(" - ")[-1]
        runs = len({c.split(" - ")[0] for c in panel})
        raise InputError(
            f"{table.name} is the export of one chart: a row a step and a column a run ({runs} "
            f"runs' {metric}). Sizes and tokens are not in it: export the table of runs instead "
            "(in Weights & Biases the runs table's download as CSV, which has a row a run), or the "
            "history with a column that names the run"
        )


def refuse_history(table: RawTable) -> list[str]:
    """A note where a table that is read as runs may hold their histories.

    Raises InputError where it is sure to: one name stands at several steps.
    """
    _refuse_panel(table)
    steps = next((c for c in STEPS if c in table.columns), None)
    names = "run_id" if "run_id" in table.columns else None
    if steps is None or not _has_histories(table, names, steps):
        return []
    if names is not None:
        raise InputError(
            f"{table.name} is a history, with several rows a run by its column {steps!r}; "
            "`isodepth import` makes a run table of it, from the last row of each run"
        )
    return [
        f"rows of one size differ in their {steps!r}, and each is taken for a run of its own; "
        "where they are steps of one run, `isodepth import` takes the last of each"
    ]

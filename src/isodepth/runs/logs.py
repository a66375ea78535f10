"""Logs of several runs: one row a run, from a row of its log and the settings beside it.

In a folder a run is a sub-folder with files in it, or, where the folder itself holds logs, one log.
Logs have a row a step: JSON Lines, CSV, a JSON list, Hugging Face's trainer_state.json,
TensorBoard's event files, and text that `--line` describes. Settings are JSON, TOML or YAML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isodepth.errors import InputError, reason
from isodepth.runs.checks import number, shown
from isodepth.runs.log_files import (
    EVENTS,
    SETTINGS,
    TABLES,
    LogReader,
    Row,
    by_step,
    stem_of,
    step_of,
)
from isodepth.runs.raw import RawTable
from isodepth.runs.text_logs import Pattern

LAST = "last"
_CHECKPOINT = re.compile(r"(?:checkpoint|ckpt|global_step|step|iter)s?[-_=]?(\d+)", re.IGNORECASE)
_NAMED = 12  # files passed over that a note names


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """What one run left."""

    run_id: str  # path of its folder, or its log's without the ending
    settings: dict[str, object]  # "config.width" of config.json
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Logs:
    """Every run of a source."""

    name: str  # how the user named the source
    runs: list[LoggedRun]
    settings: list[str]  # names of the settings of any run
    columns: list[str]  # columns of any log
    checksum: str  # SHA-256 of the files read
    notes: list[str]  # what was not read
    named_by: str = "the name of its folder or log"  # what run_id comes from

    def table(
        self, needed: Sequence[str], at: tuple[str, str] | None
    ) -> tuple[RawTable, list[str]]:
        """One row a run: its settings, and the last row of its log that has the `needed` columns.

        Last is what has the highest step, where a column tells steps. With `at` = (column, value)
        rows that agree in that column count as one, and the one where it is `value`, or the largest
        that has what is needed (`last`), is taken. Without such a row the run's log cells are None.
        Returns the table, and notes on what was taken. Raises InputError where no run's log has the
        column of `at`, or it isn't a number.
        """
        columns = list(dict.fromkeys([*self.settings, *self.columns]))
        rows: list[list[object]] = []
        places: list[str] = []
        longer = moved = 0
        if at is not None and not any(step_of(r, at[0]) for run in self.runs for r in run.rows):
            raise InputError(f"{self.name}: no log has the column {at[0]!r} of --at")
        for run in self.runs:
            candidates = by_step(run.rows) if at is None else _merged(self.name, run, at)
            moved += at is None and candidates != run.rows
            index = next(
                (
                    i
                    for i in reversed(range(len(candidates)))
                    if all(c in candidates[i].cells for c in needed)
                ),
                None,
            )
            cells = dict(run.settings)
            place = f"run {run.run_id}"
            if index is not None:
                chosen = candidates[index]
                cells |= chosen.cells
                place += f", {chosen.file} {chosen.place}" if chosen.file else f", {chosen.place}"
                longer += index < len(candidates) - 1
            rows.append([cells.get(c) for c in columns])
            places.append(place)
        notes = []
        if longer:
            notes.append(
                f"{longer} of {len(rows)} logs go on after the row that was read, the last one "
                "with a loss (an empty cell or null is none)"
            )
        if moved:
            notes.append(f"the rows of {moved} logs were put in the order of their steps")
        table = RawTable(
            name=self.name, columns=columns, rows=rows, places=places, checksum=self.checksum
        )
        return table, notes


def _merged(name: str, run: LoggedRun, at: tuple[str, str]) -> list[Row]:
    """Rows that agree in a column as one, in that column's order; only one if it is named."""
    column, wanted = at
    value = None if wanted == LAST else number(wanted)
    if wanted != LAST and value is None:
        raise InputError(f"--at {column}={wanted}: give a number, or {LAST!r}")
    groups: dict[float, Row] = {}
    for row in run.rows:
        key = step_of(row, column)
        if key is None:
            continue
        step = number(row.cells[key])
        if step is None:
            raise InputError(
                f"{name}, run {run.run_id}, {row.file} {row.place}, column {column}: "
                f"{shown(row.cells[key])} is not a number"
            )
        before = groups.get(step)
        cells = row.cells if before is None else before.cells | row.cells
        groups[step] = Row(file=row.file, place=row.place, cells=cells)
    return [groups[s] for s in sorted(groups) if value is None or s == value]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The files of one run."""

    run_id: str
    logs: list[Path]
    steps: list[Path]  # files whose names carry their step
    settings: list[tuple[Path, str]]  # with what their settings are called by


def read_logs(folder: Path, *, name: str, lines: Sequence[str] = ()) -> Logs:
    """Every run of a folder of trainer logs.

    lines: patterns of text logs' lines, or names of ready ones (`text_logs.READY`).

    Names: a column of a log is itself (with the file's name before it where a run has several
    logs: `val.loss`), a setting has its file's name before it (`config.width`); nested settings
    are joined by dots. Beside single logs, settings are the file of the same name, as `config`.
    Raises InputError naming every file that can't be read, or where there is no log at all.
    """
    reader = LogReader(folder=folder, name=name, patterns=[Pattern(line) for line in lines])
    try:
        groups = _groups(folder, reader)
    except OSError as error:
        raise InputError(f"{name} can't be read: {reason(error)}") from error
    if not groups:
        texts = [file for file in sorted(folder.rglob("*")) if reader.kind(file) == "text"]
        hint = f"; {reader.suggestion(texts[0])}" if texts else ""
        raise InputError(
            f"{name} holds no trainer logs: give a folder with a log a run, or a sub-folder a run, "
            f"with logs ({', '.join((*TABLES, '.json', EVENTS))}) and settings "
            f"({', '.join(('.json', *SETTINGS))}){hint}"
        )
    several = any(len(group.logs) + bool(group.steps) > 1 for group in groups)
    runs = [_run(group, reader, several=several) for group in groups]
    if reader.problems:
        raise InputError(reader.problems)
    return Logs(
        name=name,
        runs=runs,
        settings=list(dict.fromkeys(key for run in runs for key in run.settings)),
        columns=list(dict.fromkeys(key for run in runs for row in run.rows for key in row.cells)),
        checksum=reader.digest.hexdigest(),
        notes=[*reader.notes, *_passed_over(folder, reader)],
    )


def _run(group: _Group, reader: LogReader, *, several: bool) -> LoggedRun:
    rows: list[Row] = []
    for file in group.logs:
        rows += reader.rows(file, f"{stem_of(file.name)}." if several else "")
    if group.steps:
        stem = stem_of(group.steps[0].name).rstrip("0123456789").rstrip("-_.") or "step"
        rows += reader.step_rows(group.steps, f"{stem}." if several else "")
    settings = {k: v for file, prefix in group.settings for k, v in reader.settings(file, prefix)}
    for file in group.logs:
        if stem_of(file.name) == "trainer_state":  # Hugging Face's: settings stand beside the log
            settings |= dict(reader.settings(file, stem_of(file.name)))
    return LoggedRun(run_id=group.run_id, settings=settings, rows=rows)


def _groups(folder: Path, reader: LogReader) -> list[_Group]:
    """The runs of a folder: the folder itself, one for each log in it, or its sub-folders."""
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    logs = reader.visible(folder, "log")
    steps = reader.visible(folder, "step")
    settings = reader.visible(folder, "settings")
    if not logs and not steps:
        if below and all(_CHECKPOINT.match(p.name) for p in below):
            return _checkpointed(folder, reader, folder.resolve().name)
        return [g for home in below for g in _homes(home, folder, reader)]
    nested = [g for home in below if not _CHECKPOINT.match(home.name)
              for g in _homes(home, folder, reader)]  # fmt: skip
    first = (logs or steps)[0]
    if nested:
        raise InputError(
            f"{reader.name} holds both logs ({first.name}) and folders of runs "
            f"({nested[0].run_id}); move one kind elsewhere"
        )
    stems = {stem_of(p.name) for p in logs}
    matched = [p for p in settings if stem_of(p.name) in stems]
    if steps or (len(logs) == 1 and settings and not matched) or _are_of_one(logs):
        return [_group(folder, folder.resolve().name, reader)]
    if len(stems) < len(logs):
        raise InputError(f"{reader.name}: two logs share one name but for the ending")
    return [
        _Group(
            run_id=stem_of(log.name),
            logs=[log],
            steps=[],
            settings=[(s, "config") for s in matched if stem_of(s.name) == stem_of(log.name)],
        )
        for log in logs
    ]


def _are_of_one(logs: Sequence[Path]) -> bool:
    """Whether a folder's logs are of one run by what they are called."""
    return all(p.name.startswith(EVENTS) or stem_of(p.name) == "trainer_state" for p in logs)


def _homes(folder: Path, top: Path, reader: LogReader) -> list[_Group]:
    """The uppermost folders that hold a log or settings, or checkpoints that do."""
    run_id = folder.relative_to(top).as_posix()
    if reader.visible(folder, "log", "step", "settings"):
        return [_group(folder, run_id, reader)]
    below = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if below and all(_CHECKPOINT.match(p.name) for p in below):
        return _checkpointed(folder, reader, run_id)
    return [group for home in below for group in _homes(home, top, reader)]


def _checkpointed(folder: Path, reader: LogReader, run_id: str) -> list[_Group]:
    """A run that left nothing but its checkpoints' folders: its last one that holds something."""
    numbered = {p: m for p in folder.iterdir() if p.is_dir() and (m := _CHECKPOINT.match(p.name))}
    for home in sorted(numbered, key=lambda p: -int(numbered[p][1])):
        if reader.visible(home, "log", "step", "settings"):
            reader.notes.append(
                f"{run_id}: its {len(numbered)} folders are checkpoints of one run; {home.name}, "
                "the last, was read"
            )
            return [_group(home, run_id, reader)]
    return []


def _group(home: Path, run_id: str, reader: LogReader) -> _Group:
    logs = reader.visible(home, "log")
    if not logs and not reader.visible(home, "step"):
        # logs may lie in folders of their own: run/tensorboard, run/logs, run/version_0
        logs = [p for inner in sorted(home.iterdir()) if inner.is_dir() and inner.name[0] != "."
                for p in reader.visible(inner, "log")]  # fmt: skip
    return _Group(
        run_id=run_id,
        logs=logs,
        steps=reader.visible(home, "step"),
        settings=[(s, stem_of(s.name)) for s in reader.visible(home, "settings")],
    )


def _passed_over(folder: Path, reader: LogReader) -> list[str]:
    """Every file that wasn't read, by name, and how a text log could be."""
    left = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file()
        and p not in reader.read
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )
    if not left:
        return []
    names = [p.relative_to(folder).as_posix() for p in left]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    notes = [f"not read: {', '.join(names[:_NAMED])}{more}"]
    texts = [p for p in left if reader.kind(p) == "text"]
    return [*notes, *(reader.suggestion(p) for p in texts[:1])]


def with_names(table: RawTable, logs: Logs) -> RawTable:
    """The table with the runs' names, unless the logs tell a run_id themselves."""
    if "run_id" in table.columns:
        return table
    return replace(
        table,
        columns=["run_id", *table.columns],
        rows=[[run.run_id, *row] for run, row in zip(logs.runs, table.rows, strict=True)],
        origins={"run_id": logs.named_by},
    )

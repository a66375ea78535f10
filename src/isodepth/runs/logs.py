"""A folder of trainer logs: one row a run, from a row of its log and the settings beside it.

A run is a sub-folder with files in it, or, where the folder itself holds logs, one log. Logs are
JSON Lines or CSV, a row a step; settings are JSON or TOML.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isodepth.errors import InputError
from isodepth.runs.checks import number, shown
from isodepth.runs.reading import READERS, RawTable

LOGS = (".jsonl", ".ndjson", ".csv")
SETTINGS = (".json", ".toml")
LAST = "last"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a log."""

    file: str  # log it stands in
    place: str  # "row 3 (line 4)"
    cells: dict[str, object]  # those that aren't empty


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """What one run left."""

    run_id: str  # path of its folder, or its log's without the ending
    settings: dict[str, object]  # "config.width" of config.json
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Logs:
    """Every run of a folder."""

    name: str  # how the user named the folder
    runs: list[LoggedRun]
    settings: list[str]  # names of the settings of any run
    columns: list[str]  # columns of any log
    checksum: str  # SHA-256 of the files read
    notes: list[str]  # what was not read

    def table(self, needed: Sequence[str], at: tuple[str, str] | None) -> tuple[RawTable, int]:
        """One row a run: its settings, and the last row of its log that has the `needed` columns.

        With `at` = (column, value) rows that agree in that column count as one, and the one where
        it is `value`, or the largest that has what is needed (`last`), is taken. Without such a row
        the run's log cells are None. Returns the table, and how many logs go on after the row.
        Raises InputError where no run's log has the column of `at`, or it isn't a number.
        """
        columns = [*self.settings, *self.columns]
        rows: list[list[object]] = []
        places: list[str] = []
        longer = 0
        if at is not None and not any(_step(r, at[0]) for run in self.runs for r in run.rows):
            raise InputError(f"{self.name}: no log has the column {at[0]!r} of --at")
        for run in self.runs:
            candidates = run.rows if at is None else _merged(self.name, run, at)
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
                place += f", {chosen.file} {chosen.place}"
                longer += index < len(candidates) - 1
            rows.append([cells.get(c) for c in columns])
            places.append(place)
        return (
            RawTable(
                name=self.name, columns=columns, rows=rows, places=places, checksum=self.checksum
            ),
            longer,
        )


def _merged(name: str, run: LoggedRun, at: tuple[str, str]) -> list[Row]:
    """Rows that agree in a column as one, in that column's order; only one if it is named."""
    column, wanted = at
    value = None if wanted == LAST else number(wanted)
    if wanted != LAST and value is None:
        raise InputError(f"--at {column}={wanted}: give a number, or {LAST!r}")
    groups: dict[float, Row] = {}
    for row in run.rows:
        key = _step(row, column)
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


def _step(row: Row, column: str) -> str | None:
    """The column as this row has it, with its file's name before it or without."""
    names = (column, f"{Path(row.file).stem}.{column}")
    return next((name for name in names if name in row.cells), None)


def read_logs(folder: Path, *, name: str) -> Logs:
    """Every run of a folder of trainer logs.

    Names: a column of a log is itself (with the file's name before it where a run has several
    logs: `val.loss`), a setting has its file's name before it (`config.width`); nested settings
    are joined by dots. Beside single logs, settings are the file of the same name, as `config`.
    Raises InputError naming every file that can't be read, or where there is no log at all.
    """
    visible = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = [p for p in visible if p.is_file()]
    single = [p for p in files if p.suffix.lower() in LOGS]
    homes = [] if single else _run_folders([p for p in visible if p.is_dir()])
    if single:
        nested = _run_folders([p for p in visible if p.is_dir()])
        if nested:
            raise InputError(
                f"{name} holds both logs ({single[0].name}) and folders of runs "
                f"({nested[0].relative_to(folder)}); move one kind elsewhere"
            )
        stems = {p.stem for p in single}
        settings = [p for p in files if p.suffix.lower() in SETTINGS and p.stem in stems]
        groups = [
            (log.stem, [log], [(s, "config") for s in settings if s.stem == log.stem])
            for log in single
        ]
        if len(stems) < len(single):
            raise InputError(f"{name}: two logs share one name but for the ending")
    else:
        groups = [
            (
                home.relative_to(folder).as_posix(),
                _visible(home, LOGS),
                [(s, s.stem) for s in _visible(home, SETTINGS)],
            )
            for home in homes
        ]
    if not groups:
        raise InputError(
            f"{name} holds no trainer logs: give a folder with a log a run, or a sub-folder a run, "
            f"with logs ({', '.join(LOGS)}) and settings ({', '.join(SETTINGS)})"
        )
    read = {p for _, logs, settings in groups for p in [*logs, *(s for s, _ in settings)]}
    left = [p for p in visible if not any(p == r or p in r.parents for r in read)]
    reader = _Reader(folder=folder, name=name)
    several = any(len(logs) > 1 for _, logs, _ in groups)
    runs = [
        LoggedRun(
            run_id=run_id,
            settings={k: v for file, prefix in settings for k, v in reader.settings(file, prefix)},
            rows=[
                row
                for file in logs
                for row in reader.rows(file, f"{file.stem}." if several else "")
            ],
        )
        for run_id, logs, settings in groups
    ]
    if reader.problems:
        raise InputError(reader.problems)
    notes = list(reader.notes)
    if left:
        notes.append(f"not read: {', '.join(sorted(p.name for p in left))}")
    return Logs(
        name=name,
        runs=runs,
        settings=list(dict.fromkeys(key for run in runs for key in run.settings)),
        columns=list(dict.fromkeys(key for run in runs for row in run.rows for key in row.cells)),
        checksum=reader.digest.hexdigest(),
        notes=notes,
    )


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    """The uppermost folders that hold a log or settings."""
    found: list[Path] = []
    for folder in folders:
        if _visible(folder, (*LOGS, *SETTINGS)):
            found.append(folder)
        else:
            below = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
            found += _run_folders(below)
    return found


def _visible(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.suffix.lower() in endings and not p.name.startswith(".")
    )


class _Reader:
    """Reads the files of one folder; collects what is wrong with them."""

    def __init__(self, *, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.digest = hashlib.sha256()

    def rows(self, file: Path, prefix: str) -> list[Row]:
        data = self._bytes(file)
        data = self._without_torn_end(data, file)
        if not data.strip():
            return []  # a run that ended before its first line
        try:
            table = READERS[file.suffix.lower()](data, self._called(file))
        except InputError as error:
            self.problems += error.problems
            return []
        found = []
        for cells, place in zip(table.rows, table.places, strict=True):
            named = dict(zip(table.columns, cells, strict=True))
            flat_cells = {f"{prefix}{k}": v for k, v in flat(named) if v is not None}
            found.append(Row(file=file.name, place=place, cells=flat_cells))
        return found

    def settings(self, file: Path, prefix: str) -> list[tuple[str, object]]:
        try:
            text = self._bytes(file).decode("utf-8-sig")
            values = tomllib.loads(text) if file.suffix.lower() == ".toml" else json.loads(text)
        except (ValueError, RecursionError) as error:
            kind = file.suffix.lower().lstrip(".").upper()
            self.problems.append(f"{self._called(file)}: not valid {kind}: {error}")
            return []
        if not isinstance(values, dict):
            self.problems.append(f"{self._called(file)}: not an object of settings")
            return []
        return [(f"{prefix}.{k}", v) for k, v in flat(values)]

    def _bytes(self, file: Path) -> bytes:
        try:
            data = file.read_bytes()
        except OSError as error:
            self.problems.append(f"{self._called(file)} can't be read: {error.strerror}")
            data = b""
        self.digest.update(data)
        return data

    def _without_torn_end(self, data: bytes, file: Path) -> bytes:
        """Without a last line that was cut off when its writer was killed; that is said."""
        whole, _, last = data.rpartition(b"\n")
        if not last.strip():
            return data
        if file.suffix.lower() == ".csv":
            torn = last.count(b",") < whole.split(b"\n", 1)[0].count(b",")
        else:
            try:
                json.loads(last)
                torn = False
            except (ValueError, RecursionError):
                torn = True
        if torn:
            self.notes.append(f"{self._called(file)}: the last line is cut off and left out")
        return whole if torn else data

    def _called(self, file: Path) -> str:
        return f"{self.name}, {file.relative_to(self.folder).as_posix()}"


def flat(values: dict[str, object], before: str = "") -> list[tuple[str, object]]:
    """Nested objects as one, names joined by dots."""
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found += flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found

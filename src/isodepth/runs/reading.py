"""Files to cells: CSV, Parquet, JSON Lines and run records, each row's place kept for messages."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from isodepth.errors import InputError
from isodepth.runs.records import LOSS_FILE, RECORD_FILE, read_record


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """Cells as they were read. A missing cell is None; text is stripped."""

    name: str  # how the user named the source
    columns: list[str]
    rows: list[list[object]]  # cells in the order of `columns`
    places: list[str]  # where each row is, in words: "row 3 (line 4)"
    checksum: str  # SHA-256 of the bytes read
    origins: dict[str, str] = field(default_factory=dict)  # what the file calls a column, if else
    notes: tuple[str, ...] = ()  # what was passed over, and why

    def at(self, row: int, column: str) -> str:
        """Where a cell is, in words, as the user's file names it."""
        origin = self.origins.get(column, column)
        called = "" if origin == column else f" ({origin})"
        return f"{self.name}, {self.places[row]}, column {column}{called}"

    def noting(self, *notes: str) -> RawTable:
        """The table with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> RawTable:
        """A pandas frame as a table; a null cell is None but a float NaN stays NaN."""
        data = frame.to_csv(index=False).encode()
        columns = [str(c) for c in frame.columns]
        cells = [frame.iloc[:, i].tolist() for i in range(len(columns))]
        rows = [
            [None if cell is None or cell is pd.NA or cell is pd.NaT else cell for cell in row]
            for row in zip(*cells, strict=True)
        ]
        return cls(
            name="data frame",
            columns=columns,
            rows=rows,
            places=[f"row {i + 1}" for i in range(len(frame))],
            checksum=hashlib.sha256(data).hexdigest(),
        )


def read_table(path: Path, *, name: str) -> RawTable:
    """Read a file by its ending.

    Raises InputError for a file that isn't there, can't be read, is of no known kind, or is empty.
    """
    reader = READERS.get(path.suffix.lower())
    try:
        if not path.exists():
            raise InputError(f"{name}: no such file (the word 'published' names the shipped grid)")
        if not path.is_file():
            raise InputError(f"{name} is not a file")
        if reader is None:
            raise InputError(f"{name}: unknown kind of file {path.suffix!r}; give {_KINDS}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{name} can't be read: {why}") from error
    table = reader(data, name)
    repeated = sorted({c for c in table.columns if table.columns.count(c) > 1})
    if repeated:
        raise InputError(f"{name}: column {repeated[0]!r} stands in the header more than once")
    if not table.rows:
        raise InputError(f"{name} has no rows")
    return table


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: the text is not UTF-8") from error


def _read_csv(data: bytes, name: str) -> RawTable:
    reader = csv.reader(io.StringIO(_text(data, name), newline=""), strict=True)
    rows: list[list[object]] = []
    places: list[str] = []
    header: list[str] = []
    problems: list[str] = []
    try:
        for record in reader:
            if not any(cell.strip() for cell in record):
                continue
            if not header:
                header = [cell.strip() for cell in record]
                continue
            place = f"row {len(rows) + 1} (line {reader.line_num})"
            if len(record) != len(header):
                problems.append(
                    f"{name}, {place}: {len(record)} cells where the header has {len(header)} "
                    "columns"
                )
                record = (record + [""] * len(header))[: len(header)]
            rows.append([cell.strip() or None for cell in record])
            places.append(place)
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not valid CSV: {error}") from error
    if not header:
        raise InputError(f"{name} is empty")
    if problems:
        raise InputError(problems)
    return RawTable(name=name, columns=header, rows=rows, places=places, checksum=_sha(data))


def _read_jsonl(data: bytes, name: str) -> RawTable:
    records: list[dict[str, object]] = []
    places: list[str] = []
    problems: list[str] = []
    for number, line in enumerate(_text(data, name).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"row {len(records) + 1} (line {number})"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            problems.append(f"{name}, {place}: not valid JSON: {why}")
            record = {}
        if not isinstance(record, dict):
            problems.append(f"{name}, {place}: not a JSON object")
            record = {}
        records.append(record)
        places.append(place)
    if problems:
        raise InputError(problems)
    return of_records(records, name=name, places=places, checksum=_sha(data))


def read_records(folder: Path, *, name: str) -> RawTable:
    """One row from the `run` of every record.json in a folder and the folders below it.

    Folders of runs that have begun and left no record are named in the notes. Raises InputError
    naming every file that is no record, or where there is none.
    """
    records: list[dict[str, object]] = []
    places: list[str] = []
    problems: list[str] = []
    digest = hashlib.sha256()
    for file in sorted(folder.rglob(RECORD_FILE)):
        place = f"row {len(records) + len(problems) + 1} ({file.relative_to(folder)})"
        try:
            record = read_record(file.parent)
        except InputError as error:
            problems += [f"{name}, {place}: {problem}" for problem in error.problems]
            continue
        if record is not None:
            digest.update(file.read_bytes())
            records.append(record["run"])
            places.append(place)
    if problems:
        raise InputError(problems)
    if not records:
        raise InputError(
            f"{name} is a folder without a {RECORD_FILE}; give such a folder, that of a sweep, or "
            f"{_KINDS}"
        )
    begun = {file.parent for file in folder.rglob(LOSS_FILE)}
    lacking = sorted(str(home.relative_to(folder)) for home in begun if not _has_record(home))
    table = of_records(records, name=name, places=places, checksum=digest.hexdigest())
    if not lacking:
        return table
    return table.noting(
        f"{len(lacking)} runs have begun and left no {RECORD_FILE}, so they are not in the table: "
        f"{', '.join(lacking)}"
    )


def _has_record(home: Path) -> bool:
    return (home / RECORD_FILE).exists()


def of_records(
    records: list[dict[str, object]], *, name: str, places: list[str], checksum: str
) -> RawTable:
    """Objects as a table: a column for every key, None where an object lacks it."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    rows = [[_stripped(record.get(c)) for c in columns] for record in records]
    return RawTable(name=name, columns=columns, rows=rows, places=places, checksum=checksum)


def _read_parquet(data: bytes, name: str) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        columns = [str(c) for c in table.column_names]
        cells = [[_stripped(c) for c in table.column(i).to_pylist()] for i in range(len(columns))]
    except (pa.ArrowException, OSError, ValueError) as error:
        first_line = str(error).split("\n")[0]
        raise InputError(f"{name}: not a readable Parquet file: {first_line}") from error
    rows = [list(row) for row in zip(*cells, strict=True)]
    places = [f"row {i + 1}" for i in range(len(rows))]
    return RawTable(name=name, columns=columns, rows=rows, places=places, checksum=_sha(data))


def _stripped(cell: object) -> object:
    return cell.strip() or None if isinstance(cell, str) else cell


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# from a file's bytes and the name to call it by to its cells
READERS: dict[str, Callable[[bytes, str], RawTable]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
_KINDS = "CSV (.csv), Parquet (.parquet) or JSON Lines (.jsonl)"

"""A file's bytes to cells, by the kind that its ending names."""

from __future__ import annotations

import csv
import decimal
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from isodepth.errors import InputError
from isodepth.runs.raw import RawTable, of_records, stripped

KINDS = "CSV (.csv, .tsv), Parquet (.parquet), JSON Lines (.jsonl), JSON (.json) or Excel (.xlsx)"
_MOST_BYTES = 1 << 30  # of a file, unpacked: a bomb of zeros has more
_CELL_LIMIT = 1 << 24  # characters
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)
_LOOKS_NUMERIC = re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?|nan|inf|", re.ASCII | re.IGNORECASE)
# how cells begin that spreadsheets run, one that was guarded before included
_FORMULA = re.compile(r"'*[=+\-@\t\r]")

csv.field_size_limit(_CELL_LIMIT)


def ending_of(file: Path) -> str:
    """The ending that tells a file's kind: `.csv` of runs.csv and of runs.csv.gz."""
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def read_bytes(file: Path) -> bytes:
    """A file's bytes, unpacked where it is a .gz.

    Raises InputError for what is no file or too large, and OSError where it can't be read.
    """
    if not file.is_file():
        raise InputError(f"{file} is not a file")
    if file.stat().st_size > _MOST_BYTES:
        raise InputError(f"{file} is too large for a table of runs")
    data = file.read_bytes()
    if file.suffix.lower() != ".gz":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            unpacked = stream.read(_MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{file} is not a whole gzip file: {error}") from error
    if len(unpacked) > _MOST_BYTES:
        raise InputError(f"{file} is too large for a table of runs when it is unpacked")
    return unpacked


def read_text(data: bytes, name: str) -> str:
    """Bytes as text. Raises InputError naming the line that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}, line {line}: the text is not UTF-8") from error


def _read_csv(data: bytes, name: str) -> RawTable:
    return _delimited(data, name, None)


def _read_tsv(data: bytes, name: str) -> RawTable:
    return _delimited(data, name, "\t")


def _delimited(data: bytes, name: str, delimiter: str | None) -> RawTable:
    text = read_text(data, name)
    named, comments = _leading_comments(text)
    if delimiter is None:
        delimiter = _delimiter(text, comments)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    rows: list[list[object]] = []
    places: list[str] = []
    header: list[str] = []
    problems: list[str] = []
    notes: list[str] = []
    try:
        for record in reader:
            if not any(cell.strip() for cell in record):
                continue
            if record[0].lstrip().startswith("#") and not (header and len(record) == len(header)):
                continue
            cells = [cell.strip() for cell in record]
            if not header:
                header = _header_in_comment(named, cells, delimiter)
                if not header:
                    header = cells
                    continue
                notes.append("the header was read from the comment before the first row")
            place = f"row {len(rows) + 1} (line {reader.line_num})"
            if len(cells) != len(header):
                problems.append(
                    f"{name}, {place}: {len(cells)} cells where the header has {len(header)} "
                    "columns"
                )
                cells = (cells + [""] * len(header))[: len(header)]
            rows.append([unguarded(cell) or None for cell in cells])
            places.append(place)
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not valid CSV: {error}") from error
    if not header:
        raise InputError(f"{name} is empty")
    if problems:
        raise InputError(problems)
    if delimiter == ";" and _with_points(rows):
        notes.append("its cells are parted by ';', so that a comma in a number is its decimal one")
    return RawTable(
        name=name,
        columns=header,
        rows=rows,
        places=places,
        checksum=_sha(data),
        notes=tuple(f"{name}: {note}" for note in notes),
    )


def guarded(cell: object) -> object:
    """A cell for CSV: text that a spreadsheet would run as a formula gets a ' before it."""
    if isinstance(cell, str) and _FORMULA.match(cell) and not _LOOKS_NUMERIC.fullmatch(cell):
        return f"'{cell}"
    return cell


def unguarded(cell: str) -> str:
    """The cell as it was before `guarded`."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell[1:]) else cell


def _leading_comments(text: str) -> tuple[str | None, int]:
    """The last comment line before the first row, and how many lines come before that row."""
    last = None
    for number, line in enumerate(text.splitlines()):
        if line.lstrip().startswith("#"):
            last = line.lstrip().lstrip("#").strip()
        elif line.strip():
            return last, number
    return last, 0


def _delimiter(text: str, skip: int) -> str:
    """What parts the cells of a .csv: the most frequent mark of the first row."""
    first = next(iter(text.splitlines()[skip : skip + 1]), "")
    return max((",", ";", "\t"), key=first.count)  # the first of them where none is there


def _header_in_comment(comment: str | None, cells: list[str], delimiter: str) -> list[str]:
    """The names in a comment like `# r,loss` before a row of numbers; none where it isn't that."""
    names = [name.strip() for name in (comment or "").split(delimiter)]
    if len(names) < 2 or len(names) != len(cells):
        return []
    numeric = [bool(_LOOKS_NUMERIC.fullmatch(cell)) for cell in cells]
    words = [bool(name) and not _LOOKS_NUMERIC.fullmatch(name) for name in names]
    return names if sum(numeric) * 2 >= len(cells) and all(words) else []


def _with_points(rows: list[list[object]]) -> bool:
    """Decimal commas become points, in place; whether there was one."""
    found = False
    for row in rows:
        for i, cell in enumerate(row):
            if isinstance(cell, str) and _DECIMAL_COMMA.fullmatch(cell):
                row[i] = cell.replace(",", ".")
                found = True
    return found


def _read_jsonl(data: bytes, name: str) -> RawTable:
    records: list[dict[str, object]] = []
    places: list[str] = []
    problems: list[str] = []
    for number, line in enumerate(read_text(data, name).split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
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


def _read_json(data: bytes, name: str) -> RawTable:
    try:
        content = json.loads(read_text(data, name))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: not valid JSON: {error}") from error
    records = rows_of_json(content)
    if records is None:
        raise InputError(
            f"{name} holds no list of objects, one a run; a folder of one such file a run is read "
            "by `isodepth import FOLDER`"
        )
    places = [f"row {i + 1}" for i in range(len(records))]
    return of_records(records, name=name, places=places, checksum=_sha(data))


def rows_of_json(content: object) -> list[dict[str, object]] | None:
    """The rows that a JSON file holds as a list of objects or as lists by column; else None."""
    if isinstance(content, list):
        return content if content and all(isinstance(one, dict) for one in content) else None
    if not isinstance(content, dict) or len(content) < 2:
        return None
    lists = [cells for cells in content.values() if isinstance(cells, list)]
    if len(lists) < len(content) or len({len(cells) for cells in lists}) != 1 or not lists[0]:
        return None
    if any(isinstance(cell, dict | list) for cell in chain.from_iterable(lists)):
        return None
    return [dict(zip(content, row, strict=True)) for row in zip(*lists, strict=True)]


def _read_parquet(data: bytes, name: str) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        columns = [str(c) for c in table.column_names]
        cells = [[_plain(c) for c in table.column(i).to_pylist()] for i in range(len(columns))]
    except (pa.ArrowException, OSError, ValueError) as error:
        first_line = str(error).split("\n")[0]
        raise InputError(f"{name}: not a readable Parquet file: {first_line}") from error
    rows = [list(row) for row in zip(*cells, strict=True)]
    places = [f"row {i + 1}" for i in range(len(rows))]
    return RawTable(name=name, columns=columns, rows=rows, places=places, checksum=_sha(data))


def _plain(cell: object) -> object:
    return float(cell) if isinstance(cell, decimal.Decimal) else stripped(cell)


def _read_xlsx(data: bytes, name: str) -> RawTable:
    try:
        import python_calamine as calamine
    except ImportError as error:
        raise InputError(f"{name}: for Excel files, pip install isodepth[excel]") from error
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = {title: book.get_sheet_by_name(title).to_python() for title in book.sheet_names}
    except (calamine.CalamineError, OSError, ValueError) as error:
        raise InputError(f"{name}: not a readable Excel file: {error}") from error
    filled = {title: rows for title, rows in sheets.items() if any(map(any, rows))}
    if not filled:
        raise InputError(f"{name} is empty")
    title, cells = next(iter(filled.items()))
    header: list[str] = []
    rows: list[list[object]] = []
    places: list[str] = []
    for number, row in enumerate(cells, start=1):
        if all(cell in ("", None) for cell in row):
            continue
        if not header:
            header = [str(cell).strip() for cell in row]
            continue
        rows.append([None if cell == "" else stripped(cell) for cell in row])
        places.append(f"row {len(rows)} (line {number} of sheet {title})")
    others = [other for other in filled if other != title]
    note = (f"{name}: sheet {title!r} was read, not {', '.join(map(repr, others))}",)
    return RawTable(
        name=name,
        columns=header,
        rows=rows,
        places=places,
        checksum=_sha(data),
        notes=note if others else (),
    )


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# from a file's bytes and the name to call it by to its cells
READERS: dict[str, Callable[[bytes, str], RawTable]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".tab": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".xlsx": _read_xlsx,
}

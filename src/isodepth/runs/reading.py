"""Files and folders of records to cells, each row's place kept for messages."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isodepth.errors import InputError, reason
from isodepth.runs.formats import KINDS, READERS, ending_of, read_bytes
from isodepth.runs.raw import RawTable, of_records
from isodepth.runs.records import LOSS_FILE, RECORD_FILE, read_record


def read_table(path: Path, *, name: str) -> RawTable:
    """Read a file by its ending, after which `.gz` may stand.

    Raises InputError for a file that isn't there, can't be read, is of no known kind, or is empty.
    """
    reader = READERS.get(ending_of(path))
    try:
        if not path.exists():
            raise InputError(f"{name}: no such file (the word 'published' names the shipped grid)")
        if not path.is_file():
            raise InputError(f"{name} is not a file")
        if reader is None:
            raise InputError(f"{name}: unknown kind of file {path.suffix!r}; give {KINDS}")
        data = read_bytes(path)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        why = reason(error)
        raise InputError(f"{name} can't be read: {why}") from error
    table = reader(data, name)
    repeated = sorted({c for c in table.columns if table.columns.count(c) > 1})
    if repeated:
        raise InputError(f"{name}: column {repeated[0]!r} stands in the header more than once")
    if not table.rows:
        raise InputError(f"{name} has no rows")
    return table


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
            f"{KINDS}"
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

"""What a finished run leaves behind, `record.json`: read, sealed, and held against its plan.

A record's `run` is a row of the run table. Ours carry a checksum of themselves; of every record
that a sweep has accepted, whoever wrote it, the ledger keeps the checksum of the file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isodepth.errors import InputError, reason

RECORD_FILE = "record.json"
LOSS_FILE = "losses.jsonl"  # beside it: the losses of every step
FORMAT = 1
_SEAL = "checksum"
_LONGEST = 64 * 2**20  # bytes; a record is a few kilobytes


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a run's folder as plain JSON; None where there is none.

    Raises InputError for a file that is no record, is newer than this isodepth knows, or was
    changed after it was sealed.
    """
    file = folder / RECORD_FILE
    data = record_bytes(folder)
    if data is None:
        return None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} can't be read ({error}); delete it to go on") from error
    if not isinstance(content, dict) or not isinstance(content.get("run"), dict):
        raise InputError(f"{file} is not the record of a run; delete it to go on")
    if _SEAL in content and content[_SEAL] != seal(content):
        raise InputError(
            f"{file} was changed after it was written (its checksum is another); delete it to go on"
        )
    if _SEAL in content and content.get("format") != FORMAT:
        raise InputError(
            f"{file}: this isodepth reads records of format {FORMAT}, not "
            f"{content.get('format')!r}; a newer one wrote it"
        )
    return content


def record_bytes(folder: Path) -> bytes | None:
    """The file's bytes; None where there is none. Raises InputError where it can't be read."""
    file = folder / RECORD_FILE
    try:
        if not file.is_file():
            if file.exists():
                raise InputError(f"{file} is not a file")
            return None
        if file.stat().st_size > _LONGEST:
            raise InputError(f"{file} is not the record of a run: it has {file.stat().st_size} B")
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file} can't be read ({reason(error)}); delete it to go on") from error


def file_checksum(folder: Path) -> str | None:
    """SHA-256 of the record's file; None where there is none that can be read."""
    try:
        data = record_bytes(folder)
    except InputError:
        return None
    return None if data is None else hashlib.sha256(data).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the checksum of all else in it."""
    return {**content, _SEAL: seal(content)}


def seal(content: Mapping[str, Any]) -> str:
    """SHA-256 of a record's content, however its file is laid out."""
    rest = {key: value for key, value in content.items() if key != _SEAL}
    plain = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def contradictions(run: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    """How a record's row differs from what was planned, in words; what it doesn't say can't."""
    found = []
    for name, wanted in planned.items():
        said = run.get(name)
        if said is None or said == wanted:
            continue
        both = [v for v in (said, wanted) if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(both) == 2 and math.isclose(*both, rel_tol=1e-9):
            continue
        found.append(f"{name} is {said!r}, the plan has {wanted!r}")
    return found

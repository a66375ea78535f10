"""The state files of a sweep's run: what is known of it after its third change, and by whose work.

The newest counts. One that an accident has torn leaves the one before it; one that is whole but
says what this isodepth doesn't know is refused, because passing it over would train the run again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

from isodepth.decoding import decoded
from isodepth.errors import InputError, reason

State = Literal["planned", "running", "done", "diverged", "failed", "interrupted"]
FORMAT = 1
_NAME = re.compile(r"state-(\d{6})\.json")
_LONGEST = 64 * 2**20  # bytes


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process that trains runs."""

    host: str  # machine, its boot, and where that is known its process namespace
    pid: int
    started: str  # when the process began, so that a number used again is told apart
    token: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One worker's try at a run."""

    worker: Worker
    begun: str  # UTC, ISO 8601
    ended: str | None = None
    outcome: str | None = None  # the state it left, or "lost": its worker died
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One state file."""

    run_id: str
    version: int
    state: State
    failures: int  # attempts that failed or were lost, since the sweep was last started
    halvings: int  # times that the micro-batch was halved, main memory having run out
    retry_at: float  # Unix time before which it is not tried again
    attempts: tuple[Attempt, ...]
    format: int = FORMAT
    record: str | None = None  # SHA-256 of the record that the state was given for


def state_file(folder: Path, version: int) -> Path:
    """The file of a run's state after so many changes."""
    return folder / f"state-{version:06d}.json"


def newest_state(folder: Path, run_id: str) -> tuple[int, RunState | None, dict[Path, str]]:
    """The last version, the newest whole state (None: none yet), and files passed over, with why.

    Raises InputError for a whole file of a newer format, of another run, or with an unknown state.
    """
    numbers = _versions(folder)
    damaged: dict[Path, str] = {}
    for version in sorted(numbers, reverse=True):
        file = state_file(folder, version)
        try:
            if file.stat().st_size > _LONGEST:
                raise ValueError("it is too long")
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            damaged[file] = f"{file} is damaged and was passed over: {reason(error)}"
            continue
        if isinstance(content, dict) and content.get("format") != FORMAT:
            raise InputError(
                f"{file}: this isodepth reads states of format {FORMAT}, not "
                f"{content.get('format')!r}; a newer one wrote it"
            )
        state = decoded(content, RunState, where=str(file))
        if state.run_id != run_id:
            raise InputError(f"{file} is the state of another run, {state.run_id!r}: it was copied")
        return max(numbers), state, damaged
    return max(numbers, default=0), None, damaged


def _versions(folder: Path) -> list[int]:
    try:
        names = [file.name for file in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{folder} can't be read: {reason(error)}") from error
    return [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]

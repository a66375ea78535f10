"""The files that trainers leave in a run's folder: which are logs, which settings, and what is in
them."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from isodepth.errors import InputError, reason
from isodepth.runs.checks import number
from isodepth.runs.events import rows_of_events
from isodepth.runs.formats import READERS, ending_of, read_bytes, rows_of_json
from isodepth.runs.text_logs import Pattern, ready_for, rows_of_text

Kind = Literal["log", "settings", "step", "text"]
TABLES = (".jsonl", ".ndjson", ".csv", ".tsv")
SETTINGS = (".toml", ".yaml", ".yml")
TEXTS = (".log", ".txt", ".out")
EVENTS = "events.out.tfevents"
HISTORY = "log_history"  # of Hugging Face's trainer_state.json
# columns that count steps, by the names that trainers give them
STEPS = (
    "step", "_step", "global_step", "Step", "trainer/global_step", "iter", "iteration", "iter_num",
    "train_step",
)  # fmt: skip
_STEPPED = re.compile(r"(.*?)[-_.]?(?:step|iter)?[-_]?(\d{3,})", re.IGNORECASE)
_MOST_SETTINGS = 100_000
_DEEPEST = 200


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a log."""

    file: str  # log it stands in
    place: str  # "row 3 (line 4)"
    cells: dict[str, object]  # those that aren't empty


def step_of(row: Row, column: str) -> str | None:
    """The column as this row has it, with its file's name before it or without."""
    names = (column, f"{stem_of(row.file)}.{column}")
    return next((name for name in names if name in row.cells), None)


def by_step(rows: Sequence[Row]) -> list[Row]:
    """The rows in the order of their steps; those of one step, and those without, as they stood."""
    column = next((c for c in STEPS if any(step_of(row, c) for row in rows)), None)
    if column is None:
        return list(rows)
    keyed: list[tuple[float, Row]] = []
    last = float("-inf")
    for row in rows:
        name = step_of(row, column)
        step = number(row.cells[name]) if name is not None else None
        last = step if step is not None and step == step else last
        keyed.append((last, row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def stem_of(name: str) -> str:
    """A file's name without its ending, and without the step that it may carry."""
    return Path(name.removesuffix(".gz")).stem


@dataclass
class LogReader:
    """Reads the files of one folder; collects what is wrong with them."""

    folder: Path
    name: str  # how the user named the folder
    patterns: Sequence[Pattern] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    read: set[Path] = field(default_factory=set)
    digest: Any = field(default_factory=hashlib.sha256)
    _json: dict[Path, object] = field(default_factory=dict)

    def kind(self, file: Path) -> Kind | None:
        """What a file is; None for one that isn't read."""
        ending = ending_of(file)
        if file.name.startswith("."):
            return None
        if ending in TABLES or file.name.startswith(EVENTS):
            return "log"
        if ending in SETTINGS:
            return "settings"
        if ending in TEXTS:
            return "log" if self.patterns else "text"
        if ending != ".json":
            return None
        content = self._content(file)
        if rows_of_json(content) is not None or _history(content) is not None:
            return "log"
        match = _STEPPED.fullmatch(stem_of(file.name))
        if match is not None and isinstance(content, dict):
            siblings = [p for p in file.parent.glob("*.json") if p != file]
            alike = (_STEPPED.fullmatch(stem_of(p.name)) for p in siblings)
            if match[1].lower() in _CHECKPOINTED or any(m and m[1] == match[1] for m in alike):
                return "step"
        return "settings"

    def visible(self, folder: Path, *kinds: Kind) -> list[Path]:
        """The folder's files of these kinds."""
        try:
            files = sorted(p for p in folder.iterdir() if p.is_file())
        except OSError as error:
            raise InputError(f"{folder} can't be read: {reason(error)}") from error
        return [p for p in files if self.kind(p) in kinds]

    def rows(self, file: Path, prefix: str) -> list[Row]:
        """The rows of a log."""
        data = self._bytes(file)
        ending = ending_of(file)
        if file.name.startswith(EVENTS):
            found, torn = rows_of_events(data)
            if torn:
                self.notes.append(f"{self._called(file)}: its end is cut off and left out")
            return self._rows(file, prefix, [(f"step {row['step']}", row) for row in found])
        if ending in TEXTS:
            lines = rows_of_text(data.decode("utf-8", "replace"), self.patterns)
            if not lines:
                self.notes.append(f"{self._called(file)}: no line is as --line says")
            return self._rows(file, prefix, [(f"line {i}", row) for i, row in lines])
        if ending == ".json":
            content = self._content(file)
            history = _history(content)
            records = rows_of_json(content) if history is None else history
            numbered = enumerate(records or [], start=1)
            return self._rows(file, prefix, [(f"row {i}", row) for i, row in numbered])
        data = self._without_torn_end(data, file)
        if not data.strip():
            return []  # a run that ended before its first line
        try:
            table = READERS[ending](data, self._called(file))
        except InputError as error:
            self.problems += error.problems
            return []
        self.notes += table.notes
        named = [dict(zip(table.columns, cells, strict=True)) for cells in table.rows]
        return self._rows(file, prefix, list(zip(table.places, named, strict=True)))

    def step_rows(self, files: Sequence[Path], prefix: str) -> list[Row]:
        """A row from each file whose name carries the step."""
        found = []
        for file in files:
            self._bytes(file)
            match = _STEPPED.fullmatch(stem_of(file.name))
            content = self._content(file)
            assert match is not None and isinstance(content, dict)
            cells = {"step": int(match[2]), **content}
            found += self._rows(file, prefix, [("its content", cells)])
        return found

    def settings(self, file: Path, prefix: str) -> list[tuple[str, object]]:
        """Names and values of settings, the file's name before each."""
        data = self._bytes(file)
        kind = ending_of(file).lstrip(".").upper()
        try:
            text = data.decode("utf-8-sig")
            if kind == "TOML":
                values: object = tomllib.loads(text)
            elif kind == "JSON":
                values = json.loads(text)
            else:
                values = yaml.load(text, Loader=_Plain)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            said = str(error).split("\n")[0]
            self.problems.append(f"{self._called(file)}: not valid {kind}: {said}")
            return []
        if isinstance(values, dict) and _history(values) is not None:
            values = {k: v for k, v in values.items() if not isinstance(v, list | dict)}
        if not isinstance(values, dict):
            self.problems.append(f"{self._called(file)}: not an object of settings")
            return []
        try:
            return [(f"{prefix}.{k}", v) for k, v in flat(values)]
        except InputError as error:
            self.problems.append(f"{self._called(file)}: {error}")
            return []

    def suggestion(self, file: Path) -> str:
        """A text log that is passed over, and how to have it read."""
        try:
            fits = ready_for(read_bytes(file).decode("utf-8", "replace"))
        except (OSError, InputError):
            fits = []
        ways = [f"--line {name} reads {count} of its lines" for name, count in fits]
        ways = ways or ["--line 'step:{step} loss:{loss}' reads lines like these"]
        return f"{file.relative_to(self.folder).as_posix()} is text: {', '.join(ways)}"

    def _rows(
        self, file: Path, prefix: str, records: Sequence[tuple[str, dict[str, object]]]
    ) -> list[Row]:
        found = []
        for place, record in records:
            try:
                cells = {f"{prefix}{k}": v for k, v in flat(record) if v is not None}
            except InputError as error:
                self.problems.append(f"{self._called(file)}, {place}: {error}")
                continue
            found.append(Row(file=file.name, place=place, cells=cells))
        return found

    def _content(self, file: Path) -> object:
        """A JSON file's content; None where it has none, which `settings` then tells."""
        if file not in self._json:
            try:
                self._json[file] = json.loads(read_bytes(file))
            except (OSError, ValueError, RecursionError):
                self._json[file] = None
        return self._json[file]

    def _bytes(self, file: Path) -> bytes:
        self.read.add(file)
        try:
            data = read_bytes(file)
        except InputError as error:
            self.problems += error.problems
            data = b""
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
        mark = {".csv": b",", ".tsv": b"\t"}.get(ending_of(file))
        if mark is not None:
            torn = last.count(mark) < whole.split(b"\n", 1)[0].count(mark)
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


# what checkpoints' small files are called, of which there may be just one
_CHECKPOINTED = {"meta", "metrics", "eval", "results", "step", "checkpoint", "ckpt", "state", "val"}


def _history(content: object) -> list[dict[str, object]] | None:
    """The rows of Hugging Face's trainer state; None for anything else."""
    rows = content.get(HISTORY) if isinstance(content, dict) else None
    return rows if isinstance(rows, list) and all(isinstance(r, dict) for r in rows) else None


class _Plain(yaml.SafeLoader):
    """YAML's plain values; an object of some program's (`!!python/…`) is no value."""


_Plain.add_multi_constructor("", lambda loader, suffix, node: None)


def flat(values: dict[str, object]) -> list[tuple[str, object]]:
    """Nested objects as one, names joined by dots; Weights & Biases' `{"value": 3}` is 3.

    Raises InputError for what is nested without end.
    """
    found: list[tuple[str, object]] = []
    waiting: list[tuple[str, object, int]] = [(str(k), v, 0) for k, v in values.items()]
    waiting.reverse()
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, dict) and value.keys() <= {"value", "desc"} and "value" in value:
            value = value["value"]
        if isinstance(value, dict) and value:
            if depth >= _DEEPEST or len(found) + len(waiting) > _MOST_SETTINGS:
                raise InputError("it is nested too deep, or holds too much, for settings")
            inner = [(f"{name}.{key}", one, depth + 1) for key, one in value.items()]
            waiting += reversed(inner)
        elif not _small(value):
            raise InputError("it is nested too deep, or holds too much, for settings")
        else:
            found.append((name, value))
    return found


def _small(value: object) -> bool:
    """Whether a value, lists in lists counted out, is one that a message could show."""
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > _MOST_SETTINGS:
            return False
        if isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
    return True

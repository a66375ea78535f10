"""Where training text comes from: a stream of documents from files, the Hub, or Python itself.

A source can be read more than once and gives the same documents in the same order every time;
that is what makes a prepared data set a function of its source, tokenizer and seed.
"""

import gzip
import json
import platform
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from isodepth.errors import InputError

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".py")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
PARQUET_SUFFIXES = (".parquet",)

# Parts of the standard library that are tests, or differ between builds of one Python version.
STDLIB_SKIPPED_FOLDERS = {
    "test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages",
}  # fmt: skip
STDLIB_SKIPPED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")

_CHUNK = 1 << 20  # characters read at a time from a text file that has a separator
_PARQUET_ROWS = 1024  # rows decoded at a time


@dataclass(frozen=True, kw_only=True)
class Source:
    """A named, repeatable stream of documents."""

    name: str  # what goes into the data set's header
    documents: Callable[[], Iterator[str]]  # starts again from the first document at each call


def open_source(
    spec: str,
    *,
    column: str = "text",
    separator: str | None = None,
    subset: str | None = None,
    max_documents: int | None = None,
) -> Source:
    """The source that `spec` names.

    Parameters
    ----------
    spec: `stdlib` (the running Python's standard library without its tests), a file or folder of
        text, JSON Lines or Parquet, or a Hugging Face data set `owner/name`.
    column: the field that holds the text in JSON Lines, Parquet and Hugging Face data sets.
    separator: splits text files into documents; None makes each file one document.
    subset: the configuration of a Hugging Face data set, such as `sample-10BT`.
    max_documents: only so many documents, the first ones; None: all.

    Raises InputError where `spec` names nothing that can be read.
    """
    source = _whole_source(spec, column=column, separator=separator, subset=subset)
    if max_documents is None:
        return source
    if max_documents < 1:
        raise InputError(f"max_documents = {max_documents} must be at least 1")
    return Source(
        name=f"{source.name}, first {max_documents} documents",
        documents=lambda: islice(source.documents(), max_documents),
    )


def _whole_source(spec: str, *, column: str, separator: str | None, subset: str | None) -> Source:
    if spec == "stdlib":
        return Source(name=f"stdlib of Python {platform.python_version()}", documents=_stdlib)
    if separator == "":
        raise InputError("the separator is empty; leave it out to make each file one document")
    path = Path(spec).expanduser()
    if path.exists():
        files = _files(path)
        return Source(name=spec, documents=lambda: _read_files(files, column, separator))
    if spec.count("/") == 1 and not spec.startswith((".", "/", "~")) and not path.suffix:
        name = spec if subset is None else f"{spec} ({subset})"
        return Source(name=name, documents=lambda: _hub(spec, subset, column))
    raise InputError(
        f"source {spec!r} is neither `stdlib`, a file or folder that exists, nor a Hugging Face "
        "data set written owner/name"
    )


def _files(path: Path) -> list[Path]:
    known = TEXT_SUFFIXES + JSON_SUFFIXES + PARQUET_SUFFIXES
    if path.is_file():
        if not path.name.endswith(known):
            raise InputError(f"{path}: the name must end in one of {', '.join(known)}")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(known))
    if not files:
        raise InputError(f"{path} holds no file that ends in one of {', '.join(known)}")
    return files


def _read_files(files: list[Path], column: str, separator: str | None) -> Iterator[str]:
    for file in files:
        if file.name.endswith(JSON_SUFFIXES):
            yield from _json_lines(file, column)
        elif file.name.endswith(PARQUET_SUFFIXES):
            yield from _parquet(file, column)
        elif separator is None:
            yield _decode(file)
        else:
            yield from _separated(file, separator)


def _decode(file: Path) -> str:
    return file.read_bytes().decode("utf-8", errors="replace")


def _separated(file: Path, separator: str) -> Iterator[str]:
    pending = ""
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        while chunk := stream.read(_CHUNK):
            *complete, pending = (pending + chunk).split(separator)
            yield from complete
    yield pending


def _json_lines(file: Path, column: str) -> Iterator[str]:
    opener = gzip.open if file.name.endswith(".gz") else open
    with opener(file, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{file}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise InputError(f"{file}, line {number}: not a JSON object")
            yield _text(row, column, f"{file}, line {number}")


def _parquet(file: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"{file} is not a Parquet file ({error})") from error
    with table:
        if column not in table.schema_arrow.names:
            raise InputError(f"{file} has no column {column!r}, only {table.schema_arrow.names}")
        row = 0
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                row += 1
                yield _text({column: value}, column, f"{file}, row {row}")


def _hub(name: str, subset: str | None, column: str) -> Iterator[str]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"reading {name!r} from the Hugging Face Hub needs `pip install isodepth[hub]`"
        ) from error
    try:
        rows = datasets.load_dataset(name, subset, split="train", streaming=True)
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError, ValueError) as error:
        raise InputError(f"the Hugging Face data set {name!r} can't be opened: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield _text(row, column, f"{name}, row {number}")


def _text(row: dict[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise InputError(f"{where}: no field {column!r}, only {sorted(row)}")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{where}: field {column!r} holds {type(value).__name__}, not text")
    return value


def _stdlib() -> Iterator[str]:
    """The standard library's source files in the order of their relative paths.

    Files that differ between builds of one version are left out, so that a Python version names
    the text.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for file in root.rglob("*.py"):
        relative = file.relative_to(root)
        if STDLIB_SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1]) and not file.name.startswith(
            STDLIB_SKIPPED_FILES
        ):
            files.append((relative.as_posix(), file))
    if not files:
        raise InputError(f"this Python keeps no source files of its standard library in {root}")
    for _, file in sorted(files):
        yield _decode(file)

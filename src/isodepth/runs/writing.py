"""A run table to a file that `load_runs` reads back the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd

from isodepth.errors import InputError
from isodepth.runs.formats import guarded
from isodepth.runs.table import Runs

ENDINGS = (".csv", ".parquet", ".jsonl")


def write_runs(runs: Runs, file: Path) -> None:
    """Write the table in the kind that the file's ending names, whole or not at all.

    Raises InputError for another ending, and where the file can't be written.
    """
    check_ending(file)
    frame = runs.frame.apply(_plain)
    partial = file.with_name(f".{file.name}.writing")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            if file.suffix.lower() == ".parquet":
                frame.to_parquet(partial, index=False)
            elif file.suffix.lower() == ".csv":
                frame.map(guarded).to_csv(partial, index=False)
            else:
                partial.write_text(_lines(frame), encoding="utf-8")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{file} can't be written: {error.strerror}") from error


def check_ending(file: Path) -> None:
    """Raises InputError for a kind of file that a run table isn't written to."""
    if file.suffix.lower() not in ENDINGS:
        hint = "; `isodepth cite` prints BibTeX" if file.suffix.lower() == ".bib" else ""
        raise InputError(f"{file}: a run table is written to {', '.join(ENDINGS)}{hint}")


def _plain(column: pd.Series) -> pd.Series:
    """A column of one kind of cells; a mixed or nested one of the user's own becomes text."""
    cells = [cell for cell in column if cell is not None]
    kinds = {type(cell) for cell in cells}
    fits = not any(isinstance(cell, int) and abs(cell) >= 2**63 for cell in cells)  # in Parquet
    if fits and (kinds <= {int, float} or (len(kinds) == 1 and not kinds & {dict, list})):
        return column
    return column.map(
        lambda cell: (
            cell if cell is None or isinstance(cell, str) else json.dumps(cell, default=str)
        )
    )


def _lines(frame: pd.DataFrame) -> str:
    """JSON Lines with every digit; a number that isn't finite is null."""
    rows = frame.astype(object).to_dict(orient="records")
    return "".join(
        json.dumps(
            {
                k: None if isinstance(v, float) and not math.isfinite(v) else v
                for k, v in row.items()
            },
            ensure_ascii=False,
            default=str,
        )
        + "\n"
        for row in rows
    )

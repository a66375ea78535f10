"""Cells as they were read, before anything is believed of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import pandas as pd


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

    def column(self, name: str) -> list[object]:
        """One column's cells."""
        i = self.columns.index(name)
        return [row[i] for row in self.rows]

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


def of_records(
    records: list[dict[str, object]], *, name: str, places: list[str], checksum: str
) -> RawTable:
    """Objects as a table: a column for every key, None where an object lacks it."""
    columns = list(dict.fromkeys(str(key) for record in records for key in record))
    rows = [[stripped(record.get(c)) for c in columns] for record in records]
    return RawTable(name=name, columns=columns, rows=rows, places=places, checksum=checksum)


def stripped(cell: object) -> object:
    """A cell; text without the blanks around it, None where nothing is left."""
    return cell.strip() or None if isinstance(cell, str) else cell

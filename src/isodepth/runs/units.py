"""In what unit the losses of a table are, where a column or the table's name tells."""

from __future__ import annotations

import re

from isodepth.runs.raw import RawTable

# whole words of a name, however they are joined
_BITS = re.compile(r"(^|[_/.(])(bpb|bpc|bpt|bits?|bits?_?per_?(byte|char|token)\w*)($|[_/.)])")
_PERPLEXITY = re.compile(r"(^|[_/.(])(ppl|perplexity|perplexities)($|[_/.)])")
_UNIT_COLUMNS = ("unit", "units", "loss_unit", "loss_units", "metric", "loss_metric")


def unit_told(table: RawTable) -> tuple[str, bool] | None:
    """What says that losses are bits or perplexities, and whether φ hangs on it; or None."""
    for where, text in _said(table):
        if _PERPLEXITY.search(text):
            return (
                f"{where} says that the losses are perplexities and not nats per token: give their "
                "natural logarithm"
            ), True
        if _BITS.search(text):
            return (
                f"{where} says that the losses are bits and not nats per token: E, A and B are "
                "then in bits, and φ isn't touched (× 0.693147 makes nats; bits per byte also × "
                "bytes per token)"
            ), False
    return None


def unit_of_column(name: str) -> str | None:
    """What a column that is named for another unit holds, in words."""
    text = _plain(name)
    if _PERPLEXITY.search(text):
        return "perplexity, whose natural logarithm is nats per token"
    if _BITS.search(text):
        return "bits: × 0.693147 makes nats, and bits per byte also × bytes per token"
    return None


def _said(table: RawTable) -> list[tuple[str, str]]:
    """Where something is said, in words, and what."""
    file = table.name.replace("\\", "/").split("/")[-1]
    found = [(f"the name {file!r}", _plain(file))]
    if "loss" in table.origins:
        found.append(
            (f"the column {table.origins['loss']!r}", _unscaled(_plain(table.origins["loss"])))
        )
    losses = _cells(table, "loss")
    for column in table.columns:
        if _plain(column) in _UNIT_COLUMNS:
            found += [
                (f"column {column!r}", _plain(str(cell))) for cell in set(_cells(table, column))
            ]
        elif column != "loss" and losses and _cells(table, column) == losses:
            found.append((f"column {column!r}, which equals the loss,", _plain(column)))
    return found


def _cells(table: RawTable, column: str) -> list[object]:
    if column not in table.columns:
        return []
    at = table.columns.index(column)
    return [row[at] for row in table.rows]


def _unscaled(origin: str) -> str:
    """Nothing of a map that multiplies: the user has turned the unit."""
    return "" if "*" in origin else origin


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")

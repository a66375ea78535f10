"""Parameters and FLOPs of imported runs from their shape, for models built as isodepth's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isodepth.accounting import account
from isodepth.errors import InputError
from isodepth.runs.checks import number, shown

COUNTS = ("n_once", "n_rec", "n_inject", "flops_per_token")
# every one of them changes a count, so none has a default here
SHAPE = ("depth", "prelude", "coda", "injection", "vocab", "sequence_length")
OPTIONAL = ("lanes", "backprop_last")  # of hyperconnections; passes with gradient, if not all


def count(shape: Mapping[str, Sequence[object]], places: Sequence[str]) -> dict[str, list[object]]:
    """The columns COUNTS of runs.

    shape: name → one cell a run, for width, recurrences, every name of SHAPE, and OPTIONAL ones;
        graph_recurrences, where it isn't empty, makes a run with recurrences 1 an untied one.
    places: where each run stands, in words, for messages.
    A run whose width or recurrences is empty has no counts. Raises InputError for a name that is
    missing or unknown, and for every run whose shape `account` can't count.
    """
    known = ("width", "recurrences", "graph_recurrences", *SHAPE, *OPTIONAL)
    for name in shape:
        if name not in known:
            raise InputError(f"--account has no {name!r}; it takes {', '.join(known[3:])}")
    lacking = [name for name in SHAPE if name not in shape]
    if lacking:
        raise InputError(f"--account needs {', '.join(lacking)} too: each changes the counts")
    found: dict[str, list[object]] = {column: [] for column in COUNTS}
    problems: list[str] = []
    for i, place in enumerate(places):
        try:
            counts = _count({name: cells[i] for name, cells in shape.items()}, place)
        except InputError as error:
            problems += error.problems
            continue
        for column in COUNTS:
            found[column].append(counts[column])
    if problems:
        raise InputError(problems)
    return found


def _count(cells: Mapping[str, object], place: str) -> Mapping[str, object]:
    if cells["width"] is None or cells["recurrences"] is None:
        return dict.fromkeys(COUNTS)
    known: dict[str, Any] = {}
    for name, cell in cells.items():
        value = None if cell is None else number(cell)
        if name == "injection":
            known[name] = cell
        elif value is not None and value.is_integer():
            known[name] = int(value)
        elif cell is not None or name not in (*OPTIONAL, "graph_recurrences"):
            said = "is empty" if cell is None else f"{shown(cell)} is not a whole number"
            raise InputError(f"{place}, --account: {name} {said}")
    if known["injection"] == "hyperconnections" and "lanes" not in known:
        raise InputError(f"{place}: --account needs lanes where the injection is hyperconnections")
    graph = known.pop("graph_recurrences", known["recurrences"])
    if graph != known["recurrences"]:
        known |= {"recurrences": graph, "untied": True}
    try:
        return vars(account(**known))
    except InputError as error:
        raise InputError(f"{place}, --account: {error}") from error

"""What a run table must satisfy, all of it checked at once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isodepth.errors import InputError
from isodepth.laws import Bools
from isodepth.runs.groups import graph_of
from isodepth.runs.raw import RawTable
from isodepth.runs.units import unit_of_column

STATUSES = ("planned", "running", "done", "diverged", "failed", "interrupted", "duplicate")
MOST_FLOPS = 1e33  # training FLOPs of a run: what lies above is a slip
_FLOPS_TOLERANCE = 0.02
_FAR_OFF = 10.0  # times, from which on a count is in another unit
_LISTED = 5  # rows of one kind that are named one by one
_LEAST_TOKENS = 1e5  # below this, and below a tenth of the parameters, a count is in other units


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One numeric column of the contract."""

    required: bool = False
    zero: bool = False  # may be 0
    whole: bool = False
    least: float = 0.0  # what lies below, or above `most`, is a slip and no run
    most: float = math.inf


NUMERIC: dict[str, _Column] = {
    "recurrences": _Column(required=True, whole=True, most=1e4),
    "n_once": _Column(required=True, zero=True, least=1.0, most=1e15),
    "n_rec": _Column(required=True, zero=True, least=1.0, most=1e15),
    "tokens": _Column(required=True, most=1e18),
    "loss": _Column(required=True, least=1e-6, most=1e6),
    "n_inject": _Column(zero=True, least=1.0, most=1e15),
    "graph_recurrences": _Column(whole=True, most=1e4),
    "flops_per_token": _Column(least=1.0, most=1e21),
    "flops": _Column(least=1.0, most=MOST_FLOPS),
    "budget_flops": _Column(least=1.0, most=MOST_FLOPS),
    "width": _Column(whole=True, most=1e7),
    "seed": _Column(zero=True, whole=True),
    "loss_stderr": _Column(least=1e-12, most=1e3),
}
TEXT = ("run_id", "recipe", "status", "reading")
_ALIASES = {
    "r": "recurrences",
    "recurrence": "recurrences",
    "n_loops": "recurrences",
    "d": "tokens",
    "n_tokens": "tokens",
    "training_tokens": "tokens",
    "val_loss": "loss",
    "validation_loss": "loss",
    "final_loss": "loss",
    "n_recurrent": "n_rec",
    "n_unique": "n_once",
    "c": "flops",
    "compute": "flops",
    "budget": "budget_flops",
    "stderr": "loss_stderr",
    "name": "run_id",
    "id": "run_id",
}
# float() would also take "1_000" and "٣"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = {"nan", "inf", "+inf", "-inf", "infinity", "-infinity"}


def check_columns(table: RawTable) -> list[str]:
    """Notes on optional columns that look misspelt.

    Raises InputError naming every required column that is missing, with a suggestion.
    """
    known = [*NUMERIC, *TEXT]
    strangers = [c for c in table.columns if c not in known]
    missing = [c for c, rule in NUMERIC.items() if rule.required and c not in table.columns]
    problems = []
    for name in missing:
        match = _resembling(name, strangers)
        hint = f"; did you mean column {match!r}? Rename it to {name!r}" if match else ""
        if name == "loss" and not match:
            units = {c: unit_of_column(c) for c in strangers}
            hint = next((f"; column {c!r} holds {unit}" for c, unit in units.items() if unit), "")
        problems.append(f"{table.name}: column {name!r} is missing{hint}")
    if problems:
        raise InputError(problems)
    absent = [c for c in known if c not in table.columns]
    notes = []
    for stranger in strangers:
        meant = next((c for c in absent if _resembling(c, [stranger])), None)
        if meant:
            notes.append(f"column {stranger!r} is kept but not used; did you mean {meant!r}?")
    return notes


def _resembling(name: str, candidates: list[str]) -> str | None:
    plain = {c: re.sub(r"[^a-z0-9]+", "_", c.lower()).strip("_") for c in candidates}
    for candidate, word in plain.items():
        if word == name or _ALIASES.get(word) == name:
            return candidate
    close = difflib.get_close_matches(name, list(plain.values()), n=1, cutoff=0.8)
    return next((c for c, word in plain.items() if close and word == close[0]), None)


def check_cells(table: RawTable) -> pd.DataFrame:
    """Cells as numbers and text. Raises InputError naming every cell that is neither."""
    problems: list[str] = []
    columns: dict[str, object] = {}
    states = _column(table, "status") if "status" in table.columns else [None] * len(table.rows)
    for name in table.columns:
        cells = _column(table, name)
        if name in NUMERIC:
            parsed = []
            for i, (cell, state) in enumerate(zip(cells, states, strict=True)):
                value, problem = _number(name, cell, state)
                parsed.append(value)
                if problem:
                    problems.append(f"{table.at(i, name)}: {problem}")
            columns[name] = np.array(parsed, dtype=float)
        elif name in TEXT:
            columns[name] = ["" if cell is None else str(cell) for cell in cells]
        else:
            columns[name] = cells
    if "status" in table.columns:
        for i, cell in enumerate(states):
            if cell is not None and cell not in STATUSES:
                problems.append(
                    f"{table.at(i, 'status')}: {shown(cell)} is not one of {', '.join(STATUSES)}"
                )
    if problems:
        raise InputError(problems)
    return pd.DataFrame(columns)


def _column(table: RawTable, name: str) -> list[object]:
    i = table.columns.index(name)
    return [row[i] for row in table.rows]


def _number(name: str, cell: object, state: object) -> tuple[float, str | None]:
    """The cell's value and, where it can't stand in this column, why."""
    rule = NUMERIC[name]
    if cell is None:
        # a run that didn't end as it should is kept and never fitted: what it lacks does no harm
        unfinished = name != "recurrences" and state not in (None, "done")
        if rule.required and not unfinished:
            return math.nan, "the cell is empty"
        return math.nan, None
    value = number(cell)
    if value is None:
        return math.nan, f"{shown(cell)} is not a number"
    if math.isnan(value) and not rule.required:
        return math.nan, None  # how frames, Parquet and many programs write an empty cell
    if not math.isfinite(value):
        # a loss that isn't finite is a diverged run, which is kept
        return math.nan, None if name == "loss" else f"{shown(cell)} is not a finite number"
    if value < 0 or (value == 0 and not rule.zero):
        least = "not be negative" if rule.zero else "be greater than 0"
        return math.nan, f"{shown(cell)} must {least}"
    if rule.whole and value != int(value):
        return math.nan, f"{shown(cell)} must be a whole number"
    if value and not rule.least <= value <= rule.most and state in (None, "done"):
        bound, limit = ("below", rule.least) if value < rule.least else ("above", rule.most)
        hint = "; the loss of a diverged run is nan" if name == "loss" else ""
        return math.nan, f"{shown(cell)} is {bound} {limit:g}, where no run lies{hint}"
    return value, None


def number(cell: object) -> float | None:
    """A cell as a number, NaN where it is written as not finite; None where it isn't one."""
    if isinstance(cell, str):
        if cell.lower() in _NOT_FINITE:
            return math.nan
        return float(cell) if _NUMBER.fullmatch(cell) else None
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | np.number):
        return None
    try:
        return float(cell)
    except (OverflowError, TypeError):
        return None


def shown(cell: object) -> str:
    """A cell as a message quotes it."""
    text = repr(cell)
    return text if len(text) <= 40 else text[:37] + "..."


def check_rows(table: RawTable, frame: pd.DataFrame) -> None:
    """Cells that contradict each other. Raises InputError naming every such row."""
    problems: list[str] = []

    def report(mask: object, column: str, say: Callable[[int], str]) -> None:
        for i in np.flatnonzero(np.asarray(mask)):
            problems.append(f"{table.at(int(i), column)}: {say(int(i))}")

    r, n_rec = frame["recurrences"], frame["n_rec"]
    graph = pd.Series(graph_of(frame), index=frame.index)
    total, tokens = frame["n_once"] + n_rec, frame["tokens"]
    report(
        (n_rec == 0) & (graph > 1),
        "n_rec",
        lambda i: f"0 at recurrences = {graph[i]:g}; a looped run has parameters in its loop",
    )
    report(
        (graph != r) & (r > 1),
        "graph_recurrences",
        lambda i: (
            f"{graph[i]:g} at recurrences = {r[i]:g}; a run whose passes have weights of their own "
            "has recurrences = 1, a looped run those of its graph"
        ),
    )
    report((total == 0) & (r == 1), "n_once", lambda i: "n_once + n_rec is 0: no model")
    report(
        (tokens < 1) | ((tokens < _LEAST_TOKENS) & (tokens < 0.1 * total)),
        "tokens",
        lambda i: (
            f"{tokens[i]:g} tokens for {total[i]:.6g} parameters looks like billions or millions; "
            "give the count"
        ),
    )
    _check_ids(table, frame, problems)
    _check_unlooped(table, frame, problems)
    _check_tokens(table, frame, problems)
    if {"flops", "flops_per_token"} <= set(frame.columns):
        flops, product = frame["flops"], frame["flops_per_token"] * tokens
        report(
            np.abs(flops / product - 1.0) > _FLOPS_TOLERANCE,
            "flops",
            lambda i: (
                f"{flops[i]:.6g} contradicts flops_per_token × tokens = {product[i]:.6g} by "
                f"{abs(flops[i] / product[i] - 1):.1%}; up to {_FLOPS_TOLERANCE:.0%} is let pass"
            ),
        )
    if problems:
        raise InputError(problems)


def _check_tokens(table: RawTable, frame: pd.DataFrame, problems: list[str]) -> None:
    """Tokens that no such budget buys, from the FLOPs of a token or 6 a parameter and pass."""
    name = next((c for c in ("budget_flops", "flops") if c in frame), None)
    if name is None:
        return
    tokens, spent = frame["tokens"].to_numpy(), frame[name].to_numpy()
    if name == "budget_flops" and "flops_per_token" in frame:
        off = frame["flops_per_token"].to_numpy() * tokens / spent
        limits, said = (1 / _FAR_OFF, _FAR_OFF), "tokens × flops_per_token are"
    else:
        inject = frame["n_inject"].fillna(0.0).to_numpy() if "n_inject" in frame else 0.0
        looped = frame["recurrences"].to_numpy() * frame["n_rec"].to_numpy()
        looped = looped + graph_of(frame) * inject
        off = 6.0 * (frame["n_once"].to_numpy() + looped) * tokens / spent
        limits, said = (1 / _FAR_OFF**3, 3.0 * _FAR_OFF), "tokens × 6 FLOPs a parameter are"
    with np.errstate(invalid="ignore"):
        far = np.flatnonzero(_ended(frame) & ((off < limits[0]) | (off > limits[1])))
    for i in far[:_LISTED]:
        problems.append(
            f"{table.at(int(i), 'tokens')}: {said} {off[i]:.3g} times {name} = {spent[i]:.6g}: one "
            "of them is in another unit"
        )
    if far.size > _LISTED:
        problems.append(f"{table.name}: {far.size - _LISTED} more rows of this kind")


def _ended(frame: pd.DataFrame) -> Bools:
    """Which runs came to their end: others have spent what they have spent."""
    if "status" not in frame:
        return np.ones(len(frame), dtype=bool)
    return frame["status"].isin(["", "done"]).to_numpy()


def _check_ids(table: RawTable, frame: pd.DataFrame, problems: list[str]) -> None:
    if "run_id" not in frame:
        return
    first: dict[str, int] = {}
    for i, run_id in enumerate(frame["run_id"]):
        if run_id == "":
            problems.append(f"{table.at(i, 'run_id')}: the cell is empty")
        elif run_id in first:
            problems.append(
                f"{table.at(i, 'run_id')}: {shown(run_id)} stands in "
                f"{table.places[first[run_id]]} already"
            )
        else:
            first[run_id] = i


def _check_unlooped(table: RawTable, frame: pd.DataFrame, problems: list[str]) -> None:
    """r = 1 rows of one recipe and graph must agree on whether the model has a loop at all."""
    if "n_inject" not in frame:
        return
    recipe = frame["recipe"] if "recipe" in frame else pd.Series("", index=frame.index)
    injected = frame["n_inject"].fillna(0.0) > 0
    unlooped = frame[frame["recurrences"] == 1]
    graph = pd.Series(graph_of(frame), index=frame.index)
    for (name, _), rows in unlooped.groupby([recipe, graph]):
        plain = rows.index[~injected[rows.index]]
        for i in rows.index[injected[rows.index]] if len(plain) else ():
            problems.append(
                f"{table.at(i, 'n_inject')}: {frame['n_inject'][i]:g} at "
                f"recurrences = 1, but {table.places[plain[0]]} of the same recipe"
                f"{f' ({name})' if name else ''} is unlooped (0)"
            )

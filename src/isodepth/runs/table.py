"""The run table: the one thing that every other room reads or writes.

`load_runs` reads a table, checks all of it at once and reports every bad cell with its file, row
and column. Nothing is dropped: a diverged run stays, marked by its `status`, and is left out of
fits by `Runs.used`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isodepth.errors import InputError, reason
from isodepth.runs.checks import check_cells, check_columns, check_rows
from isodepth.runs.contradictions import Contradiction, contradictions
from isodepth.runs.groups import graph_of, grouped, repeated_rows, untied
from isodepth.runs.histories import refuse_history
from isodepth.runs.raw import RawTable
from isodepth.runs.reading import read_records, read_table
from isodepth.runs.sweeps import holds_sweep, read_sweep, refuse_part_of_sweep
from isodepth.runs.units import unit_told
from isodepth.warned import Warned

PUBLISHED = Path(__file__).parents[1] / "datasets" / "published_runs.csv"
BASELINE = "baseline"
DUPLICATE = "duplicate"  # the status of a row that repeats another


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A validated run table.

    frame: one row a run, with at least recurrences, n_once, n_rec, n_inject [parameters],
    tokens [tokens], loss [nats per token; NaN where diverged], recipe, run_id, status. An untied
    run has recurrences 1, the blocks of all passes in n_rec and its passes in graph_recurrences.
    """

    frame: pd.DataFrame
    source: str  # what was loaded, as the user named it
    checksum: str  # SHA-256 of the data
    notes: tuple[str, ...] = ()  # what the loader wants the reader to know
    unit: Contradiction | None = None  # that losses are in another unit, where a name tells

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def recipes(self) -> list[str]:
        """Recipes in order of first appearance."""
        return list(dict.fromkeys(self.frame["recipe"]))

    @property
    def used(self) -> pd.DataFrame:
        """Finished runs with a finite loss: what a fit sees."""
        return self.frame[self.frame["status"] == "done"]

    def doubts(self, rows: pd.DataFrame) -> tuple[Contradiction, ...]:
        """What a recipe's rows, as `of_recipe` gives them, say against each other."""
        told = () if self.unit is None else (self.unit,)
        done = rows[rows["status"] == "done"]
        found = contradictions(done, rows[rows["status"] == DUPLICATE]) if len(done) else []
        if told:  # the name says what the values do
            found = [one for one in found if one.warned.code != "not_nats"]
        return (*told, *found)

    def choose(self, recipe: str | None) -> str:
        """The recipe named, or `baseline`, or the only one.

        Raises InputError for an unknown name, or where several recipes leave it open.
        """
        names = self.recipes
        if recipe is None:
            if BASELINE in names:
                return BASELINE
            if len(names) == 1:
                return names[0]
            raise InputError(
                f"{self.source} holds several recipes and none is named baseline; "
                f"name one with --recipe: {', '.join(names)}"
            )
        self._check_known(recipe)
        return recipe

    def _check_known(self, recipe: str) -> None:
        if recipe not in self.recipes:
            raise InputError(
                f"{self.source} has no recipe {recipe!r}; it holds {', '.join(self.recipes)}"
            )

    def of_recipe(
        self, recipe: str, lender: str = BASELINE, *, all_budgets: bool = False
    ) -> tuple[pd.DataFrame, str | None]:
        """Every run of one recipe; without r = 1 runs of its own it borrows the lender's.

        Borrowed are the lender's r = 1 runs at the budgets that the recipe was run at, so that
        both are compared at equal compute; all of them where no budget is shared, or where
        `all_budgets` asks for them.
        Returns the rows and, where rows were borrowed, the recipe they came from. Raises InputError
        for a recipe that the table doesn't have.
        """
        self._check_known(recipe)
        own = self.frame[self.frame["recipe"] == recipe]
        unlooped = self.frame[(self.frame["recipe"] == lender) & (self.frame["recurrences"] == 1)]
        if recipe == lender or (own["recurrences"] == 1).any() or unlooped.empty:
            return own, None
        if "budget_flops" in self.frame and not all_budgets:
            shared = unlooped[unlooped["budget_flops"].isin(own["budget_flops"])]
            unlooped = unlooped if shared.empty else shared
        return pd.concat([unlooped, own]), lender


def load_runs(source: str | Path | pd.DataFrame) -> Runs:
    """Load a run table and validate all of it.

    source: a CSV, Parquet or JSON Lines file, the folder of a sweep (by its ledger) or of single
    runs (every record.json below it), the word `published` (the 241 runs of arXiv 2604.21106), or a
    pandas frame.
    Raises InputError naming file, row and column of every fault.
    """
    if isinstance(source, pd.DataFrame):
        table = RawTable.of_frame(source)
    elif str(source) == "published":
        table = read_table(PUBLISHED, name="published")
    elif Path(source).is_dir():
        table = _read_folder(Path(source), str(source))
    else:
        table = read_table(Path(source), name=str(source))
    notes = refuse_history(table)
    return checked(table.noting(*notes))


def _read_folder(folder: Path, name: str) -> RawTable:
    try:
        if holds_sweep(folder):
            return read_sweep(folder, name=name)
        refuse_part_of_sweep(folder, name)
        return read_records(folder, name=name)
    except OSError as error:
        raise InputError(f"{name} can't be read: {reason(error)}") from error


def checked(table: RawTable) -> Runs:
    """Cells as a validated run table. Raises InputError naming every fault."""
    notes = check_columns(table)
    frame = check_cells(table)
    check_rows(table, frame)
    frame = _complete(frame)
    notes += [*table.notes, *_notes(frame)]
    unit = unit_told(table)
    return Runs(
        frame=frame,
        source=table.name,
        checksum=table.checksum,
        notes=tuple(notes),
        unit=None
        if unit is None
        else Contradiction(warned=Warned("not_nats", unit[0]), withholds=unit[1]),
    )


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill what the columns that are there determine."""
    frame = frame.reset_index(drop=True)
    if "run_id" not in frame:
        frame["run_id"] = [f"row-{i + 1}" for i in range(len(frame))]
    if "recipe" not in frame:
        frame["recipe"] = BASELINE
    frame["recipe"] = frame["recipe"].where(frame["recipe"] != "", BASELINE)
    if "n_inject" not in frame:
        frame["n_inject"] = 0.0
    frame["n_inject"] = frame["n_inject"].fillna(0.0)
    if "graph_recurrences" in frame:
        frame["graph_recurrences"] = graph_of(frame)
    if "status" not in frame:
        frame["status"] = ""
    unmarked = frame["status"].isin(["", "done"])
    finite = np.isfinite(frame["loss"])
    frame["status"] = np.where(
        unmarked, np.where(finite, "done", "diverged"), frame["status"].to_numpy()
    )
    if "flops_per_token" in frame:
        spent = frame["flops_per_token"] * frame["tokens"]
        frame["flops"] = frame["flops"].fillna(spent) if "flops" in frame else spent
    _name_budgets(frame)
    repeats = repeated_rows(frame)
    if repeats:
        status = frame["status"].to_numpy(dtype=object, copy=True)
        status[list(repeats)] = DUPLICATE
        frame["status"] = status
    return frame


def _name_budgets(frame: pd.DataFrame) -> None:
    """One number for every budget, so that equal budgets are equal everywhere."""
    named = [c for c in ("budget_flops", "flops") if c in frame and frame[c].notna().any()]
    if not named:
        return
    source = named[0]
    known = frame[source].notna().to_numpy()
    if source == "flops" and not known.all():
        return  # some runs would stand outside every group
    budgets = np.full(len(frame), np.nan)
    budgets[known] = grouped(frame[source].to_numpy(dtype=float)[known])
    frame["budget_flops"] = budgets


def _notes(frame: pd.DataFrame) -> list[str]:
    notes = []
    left_out = frame[frame["status"] != "done"]
    if len(left_out):
        counts = left_out["status"].value_counts()
        words = ", ".join(f"{n} {status}" for status, n in counts.items())
        notes.append(f"{len(left_out)} of {len(frame)} runs are kept but not fitted: {words}")
    unlooped = frame[(frame["recurrences"] == 1) & ~untied(frame)]
    if (unlooped["n_inject"] > 0).any():
        notes.append(
            "the r = 1 runs hold an injection: they are looped models run once, so φ compares "
            "with those and not with an unlooped model"
        )
    return notes

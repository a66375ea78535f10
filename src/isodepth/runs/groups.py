"""Which runs belong together: those of one FLOP budget, and rows that stand there twice."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isodepth.laws import Array, Bools, Integers

_GAP = 0.05  # budgets that lie closer than this (relative) are one budget
_WIDEST = 0.1  # and of FLOPs spread without gaps no budget spans more
_TELLING_DIGITS = 7  # two seeds don't agree in so many digits of their losses


def graph_of(frame: pd.DataFrame) -> Array:
    """Passes of each run's graph (n,): r, but for an unlooped run that is a looped graph whose
    passes have weights of their own. Its `recurrences` are 1, its `graph_recurrences` the passes.
    """
    r = frame["recurrences"].to_numpy(dtype=float)
    if "graph_recurrences" not in frame:
        return r
    named = frame["graph_recurrences"].to_numpy(dtype=float)
    return np.where(np.isnan(named), r, named)


def untied(frame: pd.DataFrame) -> Bools:
    """Which runs (n,) have a looped graph, and weights of their own in every pass."""
    return graph_of(frame) != frame["recurrences"].to_numpy(dtype=float)


def budgets_of(frame: pd.DataFrame) -> Array | None:
    """Each run's iso-FLOP budget [FLOPs], where every run names one or names its FLOPs.

    `budget_flops`, else `flops`; either is grouped, so that what a float product adds to a budget,
    or whole steps to a run's FLOPs, makes no budget of its own.
    """
    for name in ("budget_flops", "flops"):
        if name in frame and frame[name].notna().all():
            return grouped(frame[name].to_numpy(dtype=float))
    return None


def grouped(values: Array) -> Array:
    """Every value (n,) > 0 replaced by that of its group: the commonest in it.

    Neighbours closer than 5% are one group; where these chain up to more than 10%, as FLOPs that
    were not laid out in budgets do, the chain is cut into groups of 5%. Of values of which none is
    the commonest, the shortest to write, else the one next to the mean.
    """
    logs = np.log(values)
    order = np.argsort(logs, kind="stable")
    labels = np.empty(values.size, dtype=np.int64)
    labels[order] = _chained(logs[order])
    found = np.empty_like(values)
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    for rows in np.split(order, ends):
        found[rows] = _named(values[rows])
    return found


def _chained(logs: Array) -> Integers:
    """Group labels of sorted logarithms."""
    starts = np.concatenate([[True], np.diff(logs) > _GAP])
    chain = np.cumsum(starts) - 1
    first = logs[starts][chain]
    last = logs[np.append(np.flatnonzero(starts)[1:], logs.size) - 1][chain]
    part = np.where(last - first > _WIDEST, np.floor((logs - first) / _GAP), 0.0)
    new = np.concatenate([[False], (np.diff(chain) > 0) | (np.diff(part) > 0)])
    return np.cumsum(new).astype(np.int64)


def _named(values: Array) -> float:
    kinds, counts = np.unique(values, return_counts=True)
    commonest = kinds[counts == counts.max()]
    lengths = np.array([len(f"{v:.12g}") for v in commonest])
    shortest = commonest[lengths == lengths.min()]
    centre = float(np.exp(np.log(values).mean()))
    return float(shortest[np.argmin(np.abs(np.log(shortest / centre)))])


def repeated_rows(frame: pd.DataFrame) -> dict[int, int]:
    """Rows that repeat an earlier one to the digit: row number → that of the one they repeat.

    Alike in recipe, r, graph, parameters, tokens and loss. Losses of few digits may agree by chance
    between runs that name different seeds: those are replicates.
    """
    done = frame["status"].isin(["", "done"]) if "status" in frame else frame["loss"].notna()
    keys = ["recipe", "recurrences", "n_once", "n_rec", "n_inject", "tokens", "loss", "_graph"]
    frame = frame.assign(_graph=graph_of(frame))
    keys = [name for name in keys if name in frame]
    rows = np.flatnonzero(done & frame["loss"].notna())
    if not frame.iloc[rows].duplicated(keys).any():
        return {}
    seeds = frame["seed"].to_numpy(dtype=float) if "seed" in frame else np.full(len(frame), np.nan)
    found: dict[int, int] = {}
    for same in frame.iloc[rows].groupby(keys, sort=False).indices.values():
        kept: list[int] = []
        for i in rows[np.sort(same)]:
            by_chance = not _telling(float(frame["loss"].iloc[i]))
            apart = [j for j in kept if by_chance and _differ(seeds[i], seeds[j])]
            if kept and len(apart) < len(kept):
                found[int(i)] = next(j for j in kept if j not in apart)
            else:
                kept.append(int(i))
    return found


def _telling(loss: float) -> bool:
    """Whether a loss is written with more digits than chance fills alike."""
    return float(f"{loss:.{_TELLING_DIGITS - 1}g}") != loss


def _differ(one: float, other: float) -> bool:
    """Whether both name a seed, and not the same."""
    return bool(np.isfinite(one) and np.isfinite(other) and one != other)

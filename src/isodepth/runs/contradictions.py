"""What a recipe's runs say against each other: depth, counts, FLOPs, units, repeats.

A fit of such runs converges and prints a number like any other, so every fit asks here first. Some
contradictions make the law's numbers mean something else (unequal depth); some make them wrong
whatever they mean (`withholds`): then no number is printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isodepth.laws import Array, Bools, Integers
from isodepth.runs.checks import number
from isodepth.runs.groups import graph_of
from isodepth.warned import Warned

_SAME = 0.05  # relative difference up to which two counts or budgets are taken as one
_DEAREST = 1000.0  # times 6 FLOPs a parameter and pass: no head or attention costs so much
_VOCABULARY = ("vocab", "vocabulary", "vocab_size", "vocabulary_size", "n_vocab")
_NO_LOSS = 12.0  # nats: what guessing costs among 163,000 tokens
_EPOCHS = ("epochs", "n_epochs", "num_epochs", "epoch", "repeats", "data_repeats")
_UNIQUE = ("unique_tokens", "n_unique_tokens", "tokens_unique", "dataset_tokens")
_A_VOCABULARY = 1000.0  # parameters a unit of width that norms and biases never have
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """One thing that the runs say against each other."""

    warned: Warned
    withholds: bool  # whether the law's numbers are wrong with it


def contradictions(frame: pd.DataFrame, repeats: pd.DataFrame | None = None) -> list[Contradiction]:
    """Of one recipe's finished runs, the gravest first.

    repeats: its rows that stand in the table a second time and are not among the runs.
    """
    found = [*_no_nats(frame), *_counts_against_flops(frame)]
    if not any(c.warned.code == "counts_contradict_flops" for c in found):
        found += _unequal_depth(frame)
    found += _budget_against_flops(frame)
    if repeats is not None and len(repeats):
        found.append(_repeated(repeats))
    return [*found, *_embedding(frame), *_seen_again(frame)]


def _no_nats(frame: pd.DataFrame) -> list[Contradiction]:
    """Losses that are worse than guessing."""
    vocabulary = _column(frame, _VOCABULARY)
    limit = np.full(len(frame), _NO_LOSS)
    words = f"{_NO_LOSS:g}, what guessing evenly among 163,000 tokens costs"
    if vocabulary is not None and (vocabulary > 1).any():
        known = vocabulary > 1
        limit[known] = np.log(vocabulary[known]) * (1.0 + _SAME)
        words = f"ln(vocabulary) = {math.log(float(vocabulary[known].max())):.3g}"
    over = frame["loss"].to_numpy(dtype=float) > limit
    if not over.any():
        return []
    highest = float(frame["loss"][over].max())
    many = over.mean() >= 0.5
    advice = (
        "perplexities are turned into nats by their natural logarithm, bits by × 0.693147"
        if many
        else f"mark a diverged run by status or by the loss nan: {_named(frame, over)}"
    )
    return [
        Contradiction(
            warned=Warned(
                "not_nats",
                f"{over.sum()} of {len(frame)} losses, up to {highest:.4g}, are no nats per token: "
                f"they lie above {words}; {advice}",
            ),
            withholds=bool(many),
        )
    ]


def _counts_against_flops(frame: pd.DataFrame) -> list[Contradiction]:
    """Parameters that cost more, or less, than the FLOPs of a token leave room for."""
    cost = _cost(frame)
    if cost is None:
        return []
    once, rec, r = _counts(frame)
    least = 6.0 * once + (2.0 * r + 4.0) * rec  # one pass with gradient, the others forward only
    full = 6.0 * (once + r * rec)
    over = least > cost * (1.0 + _SAME)
    drifts = _drifting(frame, cost, full)
    scanty = cost > _DEAREST * full
    wrong = over | drifts | scanty
    if not wrong.any():
        return []
    i = int(np.argmax(np.where(over, least / cost, np.where(drifts, 1e-3, 0.0))))
    if not over.any() and scanty.any():
        i = int(np.argmax(cost / full))
        text = (
            f"flops_per_token is {cost[i] / (6.0 * (once[i] + r[i] * rec[i])):.3g} times "
            f"6·(n_once + r·n_rec) at {_where(frame, i)}: the counts are in thousands or millions, "
            "or of another model"
        )
        return [_withheld("counts_contradict_flops", text)]
    forward = _forward_only(cost, full)
    if forward:
        return [
            Contradiction(
                warned=Warned("counts_contradict_flops", forward),
                withholds=False,
            )
        ]
    if over.any():
        what = (
            f"6·(n_once + r·n_rec) is {full[i] / cost[i]:.2f} times flops_per_token = "
            f"{cost[i]:.4g} at {_where(frame, i)}, which is more than all of it"
        )
    else:
        what = (
            f"flops_per_token over 6·(n_once + r·n_rec) drifts with r at one width: "
            f"{cost[i] / full[i]:.3g} at {_where(frame, i)}"
        )
    return [
        _withheld(
            "counts_contradict_flops",
            f"counts contradict flops_per_token in {wrong.sum()} of {len(frame)} runs: {what}; "
            f"{_cause(frame, cost)}",
        )
    ]


def _withheld(code: str, text: str) -> Contradiction:
    return Contradiction(warned=Warned(code, text), withholds=True)


def _drifting(frame: pd.DataFrame, cost: Array, full: Array) -> Bools:
    """Runs whose counts say another depth than at r = 1 while a token costs the same.

    At one width and depth, with gradient through all passes, a token costs at every r what it costs
    at r = 1, and the injection.
    """
    once, rec, r = _counts(frame, injected=False)
    cost = cost - 6.0 * r * frame["n_inject"].to_numpy(dtype=float)
    wrong = np.zeros(len(frame), dtype=bool)
    for rows in _widths(frame):
        base = rows[r[rows] == r[rows].min()]
        others = np.setdiff1d(rows, base)
        if not len(others):
            continue
        at = base[0]
        depth = (once[others] + r[others] * rec[others]) / (once[at] + r[at] * rec[at])
        same_cost = np.abs(cost[others] / cost[at] - 1.0) < 0.02
        # what the counts add must be more than the head and attention could hide
        added = np.abs(full[others] - full[at]) > _SAME * cost[at]
        wrong[others] = (np.abs(depth - 1.0) > _SAME) & same_cost & added
    return wrong


def _forward_only(cost: Array, full: Array) -> str | None:
    """FLOPs of the forward pass alone (2 a parameter) where they are a third of the counts'."""
    share = full / cost
    if share.min() > 1.0 and share.max() <= 3.0 and np.ptp(np.log(share)) < 0.5:
        third = full / (3.0 * cost)
        if (third <= 1.0).all() and share.min() > 2.0:
            return (
                f"flops_per_token is {1 / share.max():.2f} to {1 / share.min():.2f} of "
                "6·(n_once + r·n_rec) in every run, as the forward pass alone would cost: count "
                "forward and backward; φ doesn't hang on it, FLOPs and budgets do"
            )
    return None


def _cause(frame: pd.DataFrame, cost: Array) -> str:
    """The slip that the numbers look like."""
    once, rec, r = _counts(frame, injected=False)

    def alike(once: Array, rec: Array) -> bool:
        """Whether depths agree over r at each width, and cost no more than a token does."""
        size = once + r * rec
        if (once < 0).any() or (6.0 * size > cost * (1.0 + _SAME)).any():
            return False
        return all(np.ptp(np.log(size[rows])) < _SAME for rows in _widths(frame))

    if (r > 1).any() and alike(once, rec / r):
        return "n_rec looks as if it were multiplied by r already: it counts the block once"
    if (r > 1).any() and alike(once - rec, rec):
        return "n_once looks like the total: it holds the shared block's parameters as well"
    return (
        "n_once or n_rec looks as if it held what costs a token nothing: the embedding, which is a "
        "look-up and is left out, or experts that are not active"
    )


def _unequal_depth(frame: pd.DataFrame) -> list[Contradiction]:
    """Effective size, n_once + r·n_rec, that differs over r at one width."""
    once, rec, r = _counts(frame, injected=False)
    depth = once + r * rec
    worst, pair = 1.0 + _SAME, (0, 0)
    for rows in _widths(frame):
        if np.unique(r[rows]).size < 2:
            continue
        low, high = rows[np.argmin(depth[rows])], rows[np.argmax(depth[rows])]
        if r[low] != r[high] and depth[high] / depth[low] > worst:
            worst, pair = float(depth[high] / depth[low]), (int(low), int(high))
    low, high = pair
    if low == high:
        return []
    total = once + rec
    times = all(np.ptp(np.log(total[rows])) < _SAME for rows in _widths(frame))
    slip = "; if n_rec was multiplied by r already, give the block once" if times else ""
    return [
        Contradiction(
            warned=Warned(
                "unequal_depth",
                f"effective depth differs: n_once + r·n_rec is {worst:.2f} times as much at r = "
                f"{r[high]:g} as at r = {r[low]:g} at one width ({_size(frame, low)}), so φ here "
                "is what further passes add to a model that grows deeper with r: it holds against "
                "N_once + N_rec at equal tokens, and is not the φ of looping at equal depth that "
                f"arXiv 2604.21106 measures{slip}",
            ),
            withholds=False,
        )
    ]


def _embedding(frame: pd.DataFrame) -> list[Contradiction]:
    """A part of n_once that grows like the width, as embedding and head do and blocks don't."""
    if "width" not in frame or frame["width"].isna().any():
        return []
    width = frame["width"].to_numpy(dtype=float)
    once = frame["n_once"].to_numpy(dtype=float)
    if np.unique(width).size < 3 or (once <= 0).any():
        return []
    columns = np.stack([width**2, width], axis=1) / once[:, None]
    scale = columns.max(axis=0)
    found = np.linalg.lstsq(columns / scale, np.ones_like(once), rcond=None)[0]
    left = np.abs(columns / scale @ found - 1.0).max()
    each = float(found[1] / scale[1])
    if left > 0.01 or found[0] <= 0 or each < _A_VOCABULARY:
        return []
    share = float((each * width / once).max())
    if share < 2 * _SAME:
        return []
    return [
        Contradiction(
            warned=Warned(
                "embedding_counted",
                f"n_once holds {each:,.0f} parameters for every unit of width, up to {share:.0%} "
                "of it, as an embedding and a head of a vocabulary do: these are left out of "
                "n_once, and φ is far off with them",
            ),
            withholds=False,
        )
    ]


def _budget_against_flops(frame: pd.DataFrame) -> list[Contradiction]:
    """Budgets that the runs' own FLOPs miss."""
    if not {"budget_flops", "flops"} <= set(frame.columns):
        return []
    ratio = (frame["flops"] / frame["budget_flops"]).to_numpy(dtype=float)
    off = np.abs(np.log(ratio)) > math.log(1.0 + 2 * _SAME)
    if not off.any():
        return []
    worst = int(np.argmax(np.abs(np.nan_to_num(np.log(ratio)))))
    alike = np.ptp(np.log(ratio[np.isfinite(ratio)])) < _SAME
    means = (
        "the budget is counted in another way"
        if alike
        else "runs of one budget were not trained with equal FLOPs"
    )
    return [
        Contradiction(
            warned=Warned(
                "flops_contradict_budget",
                f"tokens × flops_per_token miss budget_flops by more than 10% in {off.sum()} of "
                f"{len(frame)} runs, most at {_where(frame, worst)}, with {ratio[worst]:.3g} of "
                f"it: {means}",
            ),
            withholds=False,
        )
    ]


def _repeated(repeats: pd.DataFrame) -> Contradiction:
    ids = repeats["run_id"].astype(str).tolist()
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return Contradiction(
        warned=Warned(
            "duplicate_rows",
            f"{len(ids)} rows repeat another run's size, tokens and loss to the digit and are "
            f"counted as that one run, not as replicates: {', '.join(ids[:_NAMED])}{more}",
        ),
        withholds=False,
    )


def _seen_again(frame: pd.DataFrame) -> list[Contradiction]:
    """Data repeated, where a column tells."""
    tokens = frame["tokens"].to_numpy(dtype=float)
    epochs = _column(frame, _EPOCHS)
    unique = _column(frame, _UNIQUE)
    if unique is not None:
        epochs = tokens / unique
    if epochs is None or not (epochs > 1.0 + _SAME).any():
        return []
    often = epochs > 1.0 + _SAME
    return [
        Contradiction(
            warned=Warned(
                "repeated_data",
                f"{often.sum()} of {len(frame)} runs saw tokens more than once, up to "
                f"{np.nanmax(epochs):.3g} times: B and β count them as new ones, and with them the "
                "split between size and tokens (arXiv 2305.16264)",
            ),
            withholds=False,
        )
    ]


def _cost(frame: pd.DataFrame) -> Array | None:
    """FLOPs per token, where every run tells them."""
    if "flops_per_token" in frame and frame["flops_per_token"].notna().all():
        return frame["flops_per_token"].to_numpy(dtype=float)
    if "flops" in frame and frame["flops"].notna().all():
        return (frame["flops"] / frame["tokens"]).to_numpy(dtype=float)
    return None


def _counts(frame: pd.DataFrame, *, injected: bool = True) -> tuple[Array, Array, Array]:
    """n_once, n_rec (with the injection, which every pass meets) and r.

    Of an untied run, n_rec as if its passes shared their blocks, and the r of its graph: so many
    FLOPs a token has.
    """
    once, rec, r = (
        frame[name].to_numpy(dtype=float) for name in ("n_once", "n_rec", "recurrences")
    )
    passes = graph_of(frame)
    rec = rec * r / passes
    if injected:
        rec = rec + frame["n_inject"].to_numpy(dtype=float)
    return once, rec, passes


def _widths(frame: pd.DataFrame) -> list[Integers]:
    """Row numbers of the runs of each width; where no width is named, of each n_once."""
    by_width = "width" in frame and frame["width"].notna().all()
    groups = frame.groupby("width" if by_width else "n_once", sort=False).ngroup().to_numpy()
    return [np.flatnonzero(groups == label) for label in range(groups.max() + 1)]


def _column(frame: pd.DataFrame, names: tuple[str, ...]) -> Array | None:
    """The first of these columns, NaN where a cell is no number; None where there is none."""
    for name in frame.columns:
        if str(name).lower() in names:
            cells = [number(cell) for cell in frame[name]]
            return np.array([math.nan if cell is None else cell for cell in cells])
    return None


def _size(frame: pd.DataFrame, i: int) -> str:
    if "width" in frame and np.isfinite(frame["width"].iloc[i]):
        return f"width {frame['width'].iloc[i]:g}"
    return f"n_once = {frame['n_once'].iloc[i]:.4g}"


def _where(frame: pd.DataFrame, i: int) -> str:
    return (
        f"{_size(frame, i)}, r = {frame['recurrences'].iloc[i]:g} (run {frame['run_id'].iloc[i]})"
    )


def _named(frame: pd.DataFrame, which: Bools) -> str:
    ids = frame["run_id"].astype(str).to_numpy()[which]
    more = f" and {ids.size - _NAMED} more" if ids.size > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more

"""What the next runs bring: one at a time, each the one that narrows most for its cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isodepth.laws import Array, Integers
from isodepth.planning.design import Worlds


@dataclass(frozen=True, kw_only=True)
class Step:
    """One more run, and what is expected of all up to it."""

    index: int  # of the candidate
    cost: float  # of this run
    half_width: float  # of φ's 95% interval with it


def in_order(
    worlds: Worlds, cost: Array, n: int, *, among: Integers | None = None
) -> tuple[Step, ...]:
    """The next n runs, greedily: each of largest fall of log variance for its cost.

    among (n_candidates,): how many of each may be taken, those of a finished choice, say; None: any
    number. Fewer than n where those end.
    """
    left = None if among is None else among.copy()
    counts = np.zeros(cost.size, dtype=np.int64)
    steps: list[Step] = []
    while len(steps) < n and (left is None or left.any()):
        after = worlds.after_adding(counts)
        gain = np.log(worlds.variance(counts) / after) / cost
        best = int(np.argmax(gain if left is None else np.where(left > 0, gain, -np.inf)))
        counts[best] += 1
        if left is not None:
            left[best] -= 1
        steps.append(Step(index=best, cost=float(cost[best]), half_width=worlds.half_width(counts)))
    return tuple(steps)

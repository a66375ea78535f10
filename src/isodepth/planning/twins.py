"""Unlooped runs that hold the looped ones' twins, so that a pass can be measured without a law.

A looped run takes part in the measurement without a law where its unlooped twin, of N_once +
r^φ·N_rec parameters at its tokens, lies inside the hull of the unlooped runs
(`fitting/law_free.py`).
"""

from __future__ import annotations

import numpy as np

from isodepth.fitting.surface import LEAST_RUNS, beyond
from isodepth.laws import Bools, Integers
from isodepth.planning.worlds import Candidates

_MARGIN = 0.03  # share of the hull's extent by which a twin is to lie inside, as noise moves it
_FAR = 10.0  # shares of a hull's extent: how far a twin lies from a hull that there isn't


def holding_twins(candidates: Candidates, counts: Integers, spend: float) -> list[int]:
    """Unlooped candidates with which the twins of the runs at counts (n,) all lie inside.

    One after the other, each the one that brings them nearest for its cost. [] where every twin
    lies inside already, where no candidates of at most `spend` together hold all, and where no φ is
    supposed (`candidates.phi`).
    """
    phi, made = candidates.phi, candidates.made
    if phi is None:
        return []
    every = candidates if made is None else made.followed_by(candidates)
    n_made = every.flops.size - counts.size
    used = np.concatenate([np.ones(n_made, dtype=bool), counts > 0])
    size, tokens = every.log_twin(phi), np.log(every.tokens)
    unlooped = every.recurrences == 1
    looped = used & ~unlooped

    def misses(used: Bools) -> float:
        among = used & unlooped
        out = beyond(size[among], tokens[among], size[looped], tokens[looped], _MARGIN)
        if out is not None:
            return float(out.sum())
        lacking = max(LEAST_RUNS - int(among.sum()), 0)
        return _FAR * int(looped.sum()) * (1 + lacking)

    # of the runs of one budget the smallest and the largest hold most
    ends = set()
    for budget in np.unique(candidates.budget_flops):
        mine = np.flatnonzero((candidates.budget_flops == budget) & unlooped[n_made:])
        if mine.size:
            at = size[n_made + mine]
            ends |= {int(mine[at.argmin()]), int(mine[at.argmax()])}
    bought: list[int] = []
    now = misses(used)
    while now > 0:
        gains = {}
        for i in ends:
            if candidates.cost[i] <= spend and not used[n_made + i]:
                used[n_made + i] = True
                gains[i] = (now - misses(used)) / float(candidates.cost[i])
                used[n_made + i] = False
        best = max(gains, key=lambda i: gains[i], default=None)
        if best is None or gains[best] <= 0:
            return []
        used[n_made + best] = True
        spend -= float(candidates.cost[best])
        bought.append(best)
        now = misses(used)
    return bought

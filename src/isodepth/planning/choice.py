"""Which runs to train: a design for φ, runs held for checking, and what it can't tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from isodepth.errors import InputError
from isodepth.laws import Array, Bools, Integers
from isodepth.planning.design import (
    LEVEL,
    USELESS,
    Continuous,
    Limits,
    Worlds,
    continuous,
    exact,
    least_cost,
)
from isodepth.planning.twins import holding_twins
from isodepth.planning.worlds import Candidates

_TARGETS = (1e-6, 100.0)  # half-widths of φ that can be wanted
_CLOSE = 0.005  # relative cost to which the cheapest design is found
_HIGHEST = 1024.0  # times the continuous optimum's cost, where the search gives up
_LEAST_LEVELS = 3  # values of r, and budgets, that let a law be seen to fail
_CHECKS = 3  # times that what is held is looked over
_LEAST_REPLICATES = 2  # degrees of freedom for pure noise


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Whole runs, chosen among candidates."""

    counts: Integers  # (n,) of each candidate
    held: Integers  # (n,) of them held for checking, whatever they tell of φ
    kept: Integers  # (n,) those, and the runs that replicates among them repeat
    flops: float  # training FLOPs of all
    cost: float  # of all, in what the candidates cost: FLOPs or seconds
    half_width: float  # predicted, of φ's 95% interval: root mean square over the worlds
    by_world: dict[str, float]  # the same in each kind of world
    bound: float  # below this cost no design, split runs allowed, reaches the same variance
    unmet: tuple[str, ...]  # what it can't tell

    @property
    def n_runs(self) -> int:
        """Runs in all."""
        return int(self.counts.sum())

    @property
    def tells(self) -> bool:
        """Whether the interval would say anything of φ."""
        return self.half_width < USELESS


def best_for(
    worlds: Worlds,
    candidates: Candidates,
    spend: float,
    *,
    limits: Limits,
    check_share: float,
    ideal: Continuous | None = None,
    dearer: Choice | None = None,
) -> Choice:
    """The runs costing at most `spend`, in FLOPs or seconds as candidates do, that narrow φ most.

    check_share: up to this share of the cost is held, before the rest is optimised, for what the
    optimum alone lacks: unlooped runs that hold the looped ones' twins (`candidates.phi`), a third
    r, a third budget (each the candidate that tells most of φ for its cost) and replicates of the
    two cheapest cells. With `limits.every_r` it is every r, whatever
    its share of the cost. `ideal`: the continuous optimum where known.
    dearer: a good choice for more, to search from as well; what it holds is held where that share
    pays for it.
    Raises InputError for a share outside 0 to 1, or a cost that buys no run.
    """
    if not 0 <= check_share < 1:
        raise InputError(f"the share held for checking, {check_share:g}, must lie from 0 to 1")
    cost, share = candidates.cost, check_share * spend
    best = ideal or continuous(worlds, cost)
    held = kept = np.zeros(cost.size, dtype=int)
    if dearer is not None and dearer.held @ cost <= share:
        held, kept = dearer.held, dearer.kept

    def searched(kept: Integers) -> Integers:
        more = None if dearer is None else dearer.counts
        return exact(worlds, cost, spend, limits=limits, fixed=kept, ideal=best, dearer=more)

    counts = searched(kept)
    if check_share or limits.every_r:
        spends = (spend if limits.every_r else share, share)
        for _ in range(_CHECKS):  # other runs may lack other checks
            held, kept = _checks(worlds, candidates, counts, limits, spends, held, kept)
            if not (counts < kept).any():
                break
            counts = searched(kept)
    choice = choice_of(worlds, candidates, counts)
    if not worlds.n_known:  # the bound proved for the best design is above that at these runs
        choice = replace(choice, bound=best.flops(worlds.variance(counts)))
    return replace(choice, held=held, kept=kept)


def choice_of(worlds: Worlds, candidates: Candidates, counts: Integers) -> Choice:
    """What runs chosen in another way, counts (n,), would give."""
    cost = candidates.cost
    widths = worlds.half_widths(counts)
    kinds = np.array(worlds.names)
    by_world = {
        kind: float(np.sqrt(np.average(widths[kinds == kind] ** 2)))
        for kind in dict.fromkeys(worlds.names)
    }
    return Choice(
        counts=counts,
        held=np.zeros_like(counts),
        kept=np.zeros_like(counts),
        flops=float(counts @ candidates.flops),
        cost=float(counts @ cost),
        half_width=worlds.half_width(counts),
        by_world=by_world,
        bound=least_cost(worlds, cost, counts),
        unmet=_unmet(candidates, counts),
    )


def cheapest(
    worlds: Worlds,
    candidates: Candidates,
    target: float,
    *,
    limits: Limits,
    check_share: float,
) -> Choice:
    """The cheapest runs, in FLOPs or seconds, whose predicted half-width is at most `target`.

    By bisection on the cost of `best_for`, to half a percent. Where the limits keep every design
    from it, the runs of least half-width; whether the target is met is for the caller to see.
    Raises InputError where those can't tell φ at all.
    """
    if not _TARGETS[0] <= target <= _TARGETS[1]:
        raise InputError(
            f"the half-width wanted, {target:g}, must be a positive number, {_TARGETS[0]:g} to "
            f"{_TARGETS[1]:g}"
        )
    ideal = continuous(worlds, candidates.cost)
    z = float(special.ndtri(0.5 + LEVEL / 2))
    least = float(candidates.cost.min())
    low = max(ideal.flops((target / z) ** 2), least)
    most = low * _HIGHEST
    if worlds.n_known:  # the optimum of new runs alone bounds nothing
        low = least
    high, best = low, None
    if limits.max_runs is not None:
        most = min(most, max(low, limits.max_runs * float(candidates.cost.max())))

    def at(spend: float, dearer: Choice | None) -> Choice:
        return best_for(
            worlds,
            candidates,
            spend,
            limits=limits,
            check_share=check_share,
            ideal=ideal,
            dearer=dearer,
        )

    while True:
        found = at(high, None)
        if found.half_width <= target:
            best = found
            break
        if high >= most:
            if found.tells:
                return found
            raise InputError(
                f"{found.n_runs} runs can't tell φ; allow more runs, larger r or other budgets"
            )
        low, high = high, min(2 * high, most)
    while high / low > 1 + _CLOSE:
        middle = float(np.sqrt(low * high))
        found = at(middle, best)
        if found.half_width <= target:
            high, best = min(middle, found.cost), found
        else:
            low = middle
        if high <= low:
            break
    return best


def _checks(
    worlds: Worlds,
    candidates: Candidates,
    counts: Integers,
    limits: Limits,
    spends: tuple[float, float],
    held: Integers,
    kept: Integers,
) -> tuple[Integers, Integers]:
    """What is held for checking at counts (n,), and kept with it, beside what already is.

    spends: what the runs held for r may cost, and all that are held.
    """
    cost, spend = candidates.cost, spends[1]
    telling = worlds.sensitivity(counts) / cost
    held, kept = held.copy(), kept.copy()
    for i in holding_twins(candidates, counts + held, spend - float(held @ cost)):
        held[i] += 1
        kept[i] = max(1, kept[i])
    for _, mine, made in _fitted(candidates):
        every = (limits.every_r, False)
        for level, there, most, all_of in zip(
            _levels(candidates), _made_levels(made), spends, every, strict=True
        ):
            while True:
                used = np.union1d(level[(counts + held > 0) & mine], there)
                missing = mine & ~np.isin(level, used) & (cost <= most - held @ cost)
                if not missing.any() or (used.size >= _LEAST_LEVELS and not all_of):
                    break
                i = int(np.argmax(np.where(missing, telling, -np.inf)))
                held[i] += 1
                kept[i] = max(1, kept[i])
                if not all_of:
                    break
    full = limits.max_replicates or _LEAST_REPLICATES
    lacking = _LEAST_REPLICATES - int(np.maximum(kept - 1, 0).sum())
    cheapest = np.argsort(np.where((counts > 0) & (kept < 2), cost, np.inf), kind="stable")
    for i in cheapest[:lacking].tolist():
        if counts[i] and kept[i] < 2 and full > 1 and held @ cost + cost[i] <= spend:
            held[i] += 1
            kept[i] = 2
    if limits.max_runs is not None and kept.sum() > limits.max_runs // 2 and not limits.every_r:
        return np.zeros_like(counts), np.zeros_like(counts)
    return held, kept


def _unmet(candidates: Candidates, counts: Integers) -> tuple[str, ...]:
    used = counts > 0
    found = []
    for of, mine, made in _fitted(candidates):
        r, budgets = (
            np.union1d(level[used & mine], there)
            for level, there in zip(_levels(candidates), _made_levels(made), strict=True)
        )
        if r.size < _LEAST_LEVELS:
            found.append(
                f"whether m(r) = r^φ{of}: runs at r = {_listed(r)} only, so that another form fits "
                "as well"
            )
        if budgets.size < _LEAST_LEVELS:
            found.append(
                f"whether φ{of} drifts with the budget: {budgets.size} budget(s) only, "
                f"{_listed(budgets)} FLOPs"
            )
        else:
            found.append(
                f"φ{of} outside {budgets[0]:.3g} to {budgets[-1]:.3g} FLOPs a run: beyond them the "
                "law is extrapolated"
            )
    replicates = int(np.maximum(counts - 1, 0).sum()) + _replicates(candidates.made)
    if replicates < _LEAST_REPLICATES:
        found.append("noise apart from the law's misfit: too few replicates")
    return tuple(found)


def _fitted(candidates: Candidates) -> list[tuple[str, Bools, Candidates | None]]:
    """Of every φ: whose it is, which candidates tell it (n,), and the runs made that do.

    A second recipe's φ has r = 1 from the first's runs.
    """
    if candidates.second is None:
        return [("", np.ones(candidates.flops.size, dtype=bool), candidates.made)]
    made = candidates.made
    known = (None, None) if made is None else tuple(made.only(one) for one in made.members)
    names = (" of the baseline", " of the recipe")
    return list(zip(names, candidates.members, known, strict=True))


def _levels(candidates: Candidates) -> tuple[Array, Array]:
    """r (n,) and budgets (n,)."""
    return candidates.recurrences, candidates.budget_flops


def _made_levels(made: Candidates | None) -> tuple[Array, Array]:
    """r and budgets of the runs already made, of unknown budgets none."""
    none = np.empty(0)
    return (none, none) if made is None else (made.recurrences, made.known_budgets)


def _replicates(made: Candidates | None) -> int:
    """Runs already made beyond the first of their kind."""
    if made is None:
        return 0
    kinds = np.stack([made.recurrences, made.n_once, made.n_rec, made.tokens])
    return int(made.flops.size - np.unique(kinds, axis=1).shape[1])


def _listed(values: Array) -> str:
    return ", ".join(f"{v:.3g}" for v in values)

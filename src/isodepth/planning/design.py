"""The cheapest runs that tell one number: c-optimal designs, continuous and in whole runs.

The number is a linear function cᵀθ of a model's parameters near a supposed truth (delta method).
With M = Σᵢ nᵢ gᵢgᵢᵀ, gᵢ the gradient of run i's mean over its noise, its variance is cᵀM⁻¹c:
c-optimality (Elfving 1952; Pukelsheim, Optimal Design of Experiments, 1993, ch. 2). As the truth is
not known, the criterion is the variance averaged over supposed truths, "worlds" (Chaloner & Larntz
1989). Runs differ in cost, so designs share out FLOPs, not runs: nᵢ = shareᵢ·FLOPs/costᵢ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy import special

from isodepth.errors import InputError
from isodepth.laws import Array, Integers

LEVEL = 0.95
USELESS = 1.0  # a half-width from which on an interval of φ says nothing
# What a parameter that no run tells is taken to be known to, as a share of what the most telling
# single run says: small enough to move no identified variance, large enough to invert.
_RIDGE = 1e-10
_ENOUGH = 0.995  # efficiency at which the continuous search stops
_ROUNDS, _STEPS = 60, 100
_FADED = 1e-5  # a share below this part of the largest is left out of a round
_PROGRESS = 1e-4  # the least relative gain in variance that an exchange is made for
# The least part of a variance that one more run is taken to leave: what is below is rounding, of
# runs that can't tell the number at all.
LEAST_LEFT = 1e-12
_EXCHANGED = 300  # candidates, the most telling per FLOP, among which whole runs are exchanged
_ROUNDING = (1.0, 0.6, 0.0)  # shares of the budget rounded down from the continuous optimum


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """S supposed truths about n candidate runs, each with at most p parameters."""

    rows: Array  # (S, n, p) gradient of log loss over its noise; 0 for parameters a world lacks
    target: Array  # (S, p) gradient of the number wanted
    weights: Array  # (S,) of the worlds, summing to 1
    n_params: Integers  # (S,) parameters of a fit in each world
    freedom: Array  # (S,) degrees of freedom that a run gives the noise (`Moments.freedom`)
    names: tuple[str, ...]  # (S,) kinds of worlds, for reports
    known: Array | None = None  # (S, p, p) information of runs that are made already
    n_known: int = 0  # how many those are

    def only(self, which: Integers) -> Worlds:
        """The same worlds with some of the candidates: indices (k,)."""
        return replace(self, rows=self.rows[:, which])

    def knowing(self, made: Integers) -> Worlds:
        """The same worlds with some candidates (k,) made already, once each, and left out."""
        rows = self.rows[:, made]
        left = np.setdiff1d(np.arange(self.rows.shape[1]), made)
        known = rows.swapaxes(1, 2) @ rows
        return replace(self.only(left), known=known, n_known=len(made))

    def per_flop(self, cost: Array) -> Worlds:
        """In units of FLOPs: a row for the part of a run that 1 FLOP buys; cost (n,) of a run.

        Of new runs alone: what is made already is left out.
        """
        return replace(self, rows=self.rows / np.sqrt(cost)[:, None], known=None, n_known=0)

    def merged(self) -> Self:
        """Worlds that differ in noise alone as one, of the same average variance.

        A noise k times as large has k² times the variance whatever the runs are.
        """
        size = np.sqrt((self.rows**2).sum(axis=(1, 2)))
        kinds: dict[bytes, list[int]] = {}
        for i, (rows, target) in enumerate(zip(self.rows, self.target, strict=True)):
            key = np.concatenate([(rows / size[i]).ravel().round(12), target]).tobytes()
            kinds.setdefault(key, []).append(i)
        first = np.array([alike[0] for alike in kinds.values()])
        weights = [
            float((self.weights[alike] * (size[alike[0]] / size[alike]) ** 2).sum())
            for alike in kinds.values()
        ]
        return replace(self._worlds(first), weights=np.array(weights))

    def _worlds(self, which: Integers) -> Self:
        """Some of the worlds: indices (k,)."""
        return replace(
            self,
            rows=self.rows[which],
            target=self.target[which],
            weights=self.weights[which],
            n_params=self.n_params[which],
            freedom=self.freedom[which],
            names=tuple(self.names[i] for i in which),
            known=None if self.known is None else self.known[which],
        )

    @property
    def easier(self) -> Worlds:
        """A linear model of the same runs whose variance is nowhere above this one's: itself."""
        return self

    @property
    def convex(self) -> Worlds:
        """A convex criterion of the same runs, whose optimum is a place to search from: itself."""
        return self

    @cached_property
    def _ridge(self) -> Array:
        """(S, p, p): see _RIDGE."""
        most = (self.rows**2).max(axis=1)
        eye = np.eye(self.rows.shape[2])
        return np.where(most > 0, most * _RIDGE, 1.0)[:, :, None] * eye

    def information(self, counts: Array | Integers) -> Array:
        """M (S, p, p) of a design, counts (n,) runs of each candidate."""
        used = np.flatnonzero(counts)
        rows = self.rows[:, used]
        known = 0.0 if self.known is None else self.known
        return self._ridge + known + (rows * counts[used, None]).swapaxes(1, 2) @ rows

    def variances(self, counts: Array | Integers) -> Array:
        """Variance (S,) of the number in each world; huge where the runs can't tell it."""
        solved = np.linalg.solve(self.information(counts), self.target[:, :, None])[:, :, 0]
        return np.einsum("sp,sp->s", self.target, solved)

    def variance(self, counts: Array | Integers) -> float:
        """The variance averaged over the worlds."""
        return float(self.weights @ self.variances(counts))

    def degrees_of_freedom(self, counts: Array | Integers) -> Array:
        """Of the noise that a fit finds (S,): runs − parameters, times what a run gives."""
        return (counts.sum() + self.n_known - self.n_params) * self.freedom

    def half_widths(self, counts: Array | Integers) -> Array:
        """Predicted half-width (S,) of the 95% interval in each world.

        By Student's t, as the noise is estimated from the same runs; infinite where they have no
        degrees of freedom.
        """
        freedom = self.degrees_of_freedom(counts)
        told = freedom > 0
        t = np.full(freedom.shape, np.inf)
        t[told] = special.stdtrit(freedom[told], 0.5 + LEVEL / 2)
        return t * np.sqrt(self.variances(counts))

    def half_width(self, counts: Array | Integers) -> float:
        """Predicted half-width of the 95% interval: root mean square over the worlds."""
        return float(np.sqrt(self.weights @ self.half_widths(counts) ** 2))

    def sensitivity(self, counts: Array | Integers) -> Array:
        """−∂variance/∂countᵢ (n,): how much a little more of each candidate narrows."""
        solved = np.linalg.solve(self.information(counts), self.target[:, :, None])
        return self.weights @ (self.rows @ solved)[:, :, 0] ** 2

    def after_adding(self, counts: Array | Integers) -> Array:
        """The average variance (n,) after one more run of each candidate (Sherman–Morrison)."""
        inverse = np.linalg.inv(self.information(counts))
        toward = self.rows @ inverse
        leverage = np.einsum("snp,snp->sn", toward, self.rows)
        pull = np.einsum("snp,sp->sn", toward, self.target)
        now = np.einsum("sp,spq,sq->s", self.target, inverse, self.target)
        return np.asarray(
            self.weights
            @ np.maximum(now[:, None] - pull**2 / (1 + leverage), LEAST_LEFT * now[:, None])
        )


@dataclass(frozen=True, kw_only=True)
class Continuous:
    """The best way to share out FLOPs when runs may be split."""

    shares: Array  # (n,) of the FLOPs, summing to 1
    variance_times_flops: float  # variance of the number at 1 FLOP; at B FLOPs 1/B of it
    efficiency: float  # proved lower bound on (best possible variance) / (this variance)

    def flops(self, variance: float) -> float:
        """The FLOPs at which it reaches a variance: whole runs can't need fewer."""
        return self.variance_times_flops * self.efficiency / variance


def continuous(worlds: Worlds, cost: Array) -> Continuous:
    """Shares of the FLOPs of least average variance; cost (n,) FLOPs of one run.

    Of new runs alone: what runs already made tell would change the shares with the FLOPs.

    Multiplicative steps with power ½, monotone for this criterion (Yu 2010, Annals of Statistics
    38, 2593), over the candidates that matter, re-chosen each round by the equivalence theorem:
    with dᵢ the sensitivity per FLOP and Ψ = Σ shareᵢ·dᵢ, no design has a variance below
    Ψ·(Ψ / max dᵢ), because 1/Ψ is concave in M. Where the worlds are no linear model (`contrast`)
    the shares are the optimum of a convex stand-in, and the bound is that of the easier model.
    """
    worlds = worlds.merged()
    found = _shared_out(worlds.convex, cost)
    if worlds.easier is worlds:
        return found
    variance = worlds.per_flop(cost).variance(found.shares)
    bound = _shared_out(worlds.easier, cost)
    return Continuous(
        shares=found.shares,
        variance_times_flops=variance,
        efficiency=min(bound.variance_times_flops * bound.efficiency / variance, 1.0),
    )


def _shared_out(worlds: Worlds, cost: Array) -> Continuous:
    per_flop = worlds.per_flop(cost)
    n = cost.size
    shares = np.full(n, 1.0 / n)
    for _ in range(_ROUNDS):
        active = np.flatnonzero(shares > _FADED * shares.max())
        some = per_flop.only(active)
        part = shares[active] / shares[active].sum()
        for _ in range(_STEPS):
            part = part * np.sqrt(some.sensitivity(part))
            part /= part.sum()
        shares = np.zeros(n)
        shares[active] = part
        slope = per_flop.sensitivity(shares)
        value = float(shares @ slope)
        efficiency = value / float(slope.max())
        if efficiency >= _ENOUGH:
            break
        wanting = np.argsort(-slope)[:20]
        wanting = wanting[(shares[wanting] < 1e-3) & (slope[wanting] > value)]
        shares[wanting] += 1e-3
        shares /= shares.sum()
    return Continuous(
        shares=shares,
        variance_times_flops=per_flop.variance(shares),
        efficiency=min(efficiency, 1.0),
    )


def least_cost(worlds: Worlds, cost: Array, counts: Integers) -> float:
    """A cost below which no new runs, split ones allowed, give the variance of `counts` (n,).

    1/Ψ of the easier model is concave in M, so that a design w whose Ψ is at most the variance v
    of `counts` needs Σ wᵢsᵢ ≥ Σ countsᵢsᵢ + Ψ²/v − Ψ, with Ψ and its sensitivity s at `counts`;
    that costs at least the same over max(sᵢ/costᵢ).
    """
    model = worlds.easier
    slope, value = model.sensitivity(counts), model.variance(counts)
    needed = float(counts @ slope) + value**2 / worlds.variance(counts) - value
    return max(needed, 0.0) / float((slope / cost).max())


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What whole runs must keep to."""

    max_runs: int | None = None  # in all; None: any number
    max_replicates: int | None = None  # of one candidate; None: any number
    every_r: bool = False  # hold a run at every r, whatever it tells of φ


def exact(
    worlds: Worlds,
    cost: Array,
    flops: float,
    *,
    limits: Limits = Limits(),
    fixed: Integers | None = None,
    ideal: Continuous | None = None,
    dearer: Integers | None = None,
) -> Integers:
    """Counts (n,) of whole runs of least average variance that cost at most `flops`.

    Starts from the continuous optimum rounded down, adds the run of largest gain per FLOP while
    one fits, then exchanges one run for another (Fedorov 1972) or adds one while that lowers the
    variance. fixed (n,): runs that must be held. `ideal`: the continuous optimum where it is known.
    dearer (n,): a good design for more FLOPs, to search from as well, by taking runs away.
    Raises InputError where not one run fits, or the fixed ones don't.
    """
    held = np.zeros(cost.size, dtype=int) if fixed is None else fixed
    if cost.min() > flops or held @ cost > flops:
        raise InputError(
            f"{flops:.3g} FLOPs buy no run of {cost.min():.3g}"
            if cost.min() > flops
            else f"{flops:.3g} FLOPs don't buy the runs held, {held @ cost:.3g}"
        )
    best = ideal or continuous(worlds, cost)
    worlds = worlds.merged()
    if not worlds.n_known:
        slope = worlds.convex.per_flop(cost).sensitivity(best.shares)
    else:
        slope = worlds.convex.sensitivity(held) / cost
    must = held if dearer is None else held + dearer
    near = np.union1d(np.argsort(-slope, kind="stable")[:_EXCHANGED], np.flatnonzero(must))
    some, price, floor = worlds.only(near), cost[near], held[near]
    starts = _roundings(best.shares[near], price, flops, limits, floor)
    if dearer is not None:
        starts.append(_lightened(some, price, flops, limits, floor, dearer[near]))
    found = [_exchanged(some, price, flops, limits, floor, start) for start in starts]
    counts = np.zeros(cost.size, dtype=int)
    counts[near] = min(found, key=lambda one: some.variance(one))
    return counts


def _roundings(
    shares: Array, cost: Array, flops: float, limits: Limits, floor: Integers
) -> list[Integers]:
    starts: list[Integers] = []
    for part in _ROUNDING:
        counts = np.maximum(floor, np.floor(part * shares * flops / cost).astype(int))
        if limits.max_replicates is not None:
            counts = np.maximum(floor, np.minimum(counts, limits.max_replicates))
        most = np.inf if limits.max_runs is None else limits.max_runs
        while (counts.sum() > most or counts @ cost > flops) and (counts > floor).any():
            # the fewest FLOPs' worth of share goes first
            spare = np.where(counts > floor, shares / np.maximum(counts, 1), np.inf)
            counts[np.argmin(spare)] -= 1
        if not any((counts == start).all() for start in starts):
            starts.append(counts)
    return starts


def _lightened(
    worlds: Worlds, cost: Array, flops: float, limits: Limits, floor: Integers, counts: Integers
) -> Integers:
    """Counts, with the floor, less the runs whose loss widens least for their cost."""
    counts = np.maximum(counts, floor)
    most = np.inf if limits.max_runs is None else limits.max_runs
    while (counts @ cost > flops or counts.sum() > most) and (counts > floor).any():
        spare = np.flatnonzero(counts > floor)
        left = [worlds.variance(counts - (np.arange(counts.size) == i)) for i in spare]
        lost = np.log(np.array(left) / worlds.variance(counts))
        counts[spare[np.argmin(lost / cost[spare])]] -= 1
    return counts


def _exchanged(
    worlds: Worlds, cost: Array, flops: float, limits: Limits, floor: Integers, counts: Integers
) -> Integers:
    """Counts after greedy additions and exchanges, within the limits, never below `floor`."""
    counts = _filled(worlds, cost, flops, limits, counts)
    full = np.inf if limits.max_replicates is None else limits.max_replicates
    while True:
        left = flops - counts @ cost
        value = worlds.variance(counts)
        best, found = value * (1 - _PROGRESS), None
        for i in np.flatnonzero(counts > floor):
            fewer = counts - (np.arange(counts.size) == i)
            after = np.where(
                (cost <= left + cost[i]) & (fewer < full), worlds.after_adding(fewer), np.inf
            )
            j = int(np.argmin(after))
            if after[j] < best:
                best, found = float(after[j]), fewer + (np.arange(counts.size) == j)
        # with too few runs to invert M well a gain can be rounding alone, and exchanges go round
        if found is not None and worlds.variance(found) >= value * (1 - _PROGRESS):
            best, found = value * (1 - _PROGRESS), None
        if found is None:  # one dear run against several cheap ones
            for i in np.flatnonzero(counts > floor):
                fewer = counts - (np.arange(counts.size) == i)
                refilled = _filled(worlds, cost, flops, limits, fewer)
                after_all = worlds.variance(refilled)
                if after_all < best:
                    best, found = after_all, refilled
        if found is None:
            return counts
        counts = _filled(worlds, cost, flops, limits, found)


def _filled(
    worlds: Worlds, cost: Array, flops: float, limits: Limits, counts: Integers
) -> Integers:
    """Counts with the run of largest gain per FLOP added while one fits."""
    counts = counts.copy()
    most = np.inf if limits.max_runs is None else limits.max_runs
    full = np.inf if limits.max_replicates is None else limits.max_replicates
    while True:
        addable = (cost <= flops - counts @ cost) & (counts < full) & (counts.sum() < most)
        if not addable.any():
            return counts
        after = worlds.after_adding(counts)
        gain = np.log(worlds.variance(counts) / after) / cost
        counts[np.argmax(np.where(addable, gain, -np.inf))] += 1

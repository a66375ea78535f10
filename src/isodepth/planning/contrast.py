"""Δφ between two recipes as the number that a design is for.

Two fits that share runs (`compare --method separate`) are no single linear model: near a supposed
law the baseline's φ is uᵀΣgᵢεᵢ over its runs and the recipe's vᵀΣgᵢεᵢ over its own, u = A⁻¹c and
v = B⁻¹c with A and B the two information matrices, so that

    var Δφ = uᵀ(A − S)u + vᵀ(B − S)v + (u − v)ᵀS(u − v),

S the information of the runs in both, r = 1 above all. One law for both recipes (`--method joint`)
is a linear model with one parameter more. Its Δφ is the best linear unbiased one (Gauss and
Markov), so that what bounds its variance bounds the other's too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np

from isodepth.fitting import Fit
from isodepth.laws import Array, Bools, Integers
from isodepth.planning.design import LEAST_LEFT, Worlds
from isodepth.planning.worlds import Candidates, worlds


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Candidates that the same fits may use."""

    which: Integers  # (m,) of the n
    columns: Array  # (S, p, m) their rows as columns, which lie better for products with vectors
    baseline: bool  # the baseline's fit uses them
    recipe: bool  # the recipe's may

    @property
    def fits(self) -> tuple[int, ...]:
        """Of the baseline's, 0, and the recipe's, 1, those that may use them."""
        return tuple(i for i, used in enumerate((self.baseline, self.recipe)) if used)

    @cached_property
    def _products(self) -> Array:
        """(S, p(p + 1)/2, m): the products of two entries of every row, one of each pair."""
        first, second = self._pairs
        twice = np.where(first == second, 1.0, 2.0)[:, None]
        return self.columns[:, first] * self.columns[:, second] * twice

    @cached_property
    def _pairs(self) -> tuple[Integers, Integers]:
        return np.triu_indices(self.columns.shape[1])

    def dots(self, vectors: Array) -> Array:
        """gᵀx (S, m) of every row and vectors (S, p)."""
        return np.asarray((vectors[:, None, :] @ self.columns)[:, 0])

    def forms(self, matrix: Array) -> Array:
        """gᵀMg (S, m) of every row under symmetric matrices (S, p, p)."""
        return np.asarray((matrix[:, *self._pairs][:, None, :] @ self._products)[:, 0])


@dataclass(frozen=True, kw_only=True)
class _Now:
    """What a design gives; in pairs for the two fits."""

    lent: Bools  # (n,) candidates that both fits use
    first: Array  # (S, p, p) information of the baseline's fit, A
    second: Array  # (S, p, p) of the recipe's, B
    both: Array  # (S, p, p) of the runs in both, S
    inverses: tuple[Array, Array]  # A⁻¹, B⁻¹
    solved: tuple[Array, Array]  # (S, p) u = A⁻¹c, v = B⁻¹c
    shared: tuple[Array, Array]  # (S, p) A⁻¹Sv, B⁻¹Su

    def met_by(self, kind: _Kind, fit: int) -> tuple[Array, Array]:
        """gᵀu and gᵀA⁻¹Sv (S, m) for the baseline's fit, 0; gᵀv and gᵀB⁻¹Su for the recipe's, 1.

        0 for a run that the recipe's fit may use but doesn't.
        """
        pull, shared = (kind.dots(one[fit]) for one in (self.solved, self.shared))
        if fit == 0 or not kind.baseline:
            return pull, shared
        used = self.lent[kind.which]
        return pull * used, shared * used


@dataclass(frozen=True, kw_only=True)
class Difference(Worlds):
    """Worlds in which the number wanted is the recipe's φ less the baseline's, by two fits.

    `target` and `n_params` are those of either fit. As in `compare` the recipe's fit has the
    baseline's r = 1 runs of those budgets that the recipe was run at, or all of them where there is
    no such run, so that which they are depends on the design.
    """

    own: Bools  # (n,) the recipe's runs; the others are the baseline's
    lent: Bools  # (n,) runs of the baseline that the recipe's fit may use
    budget: Array  # (n,) what has to agree for that
    joint: Worlds  # the same candidates, and runs made, under one law
    made: Difference | None = None  # runs that are there already, in place of `known`

    @property
    def easier(self) -> Worlds:
        """A linear model whose variance is nowhere above this one's: one law for both."""
        return self.joint

    @property
    def convex(self) -> Worlds:
        """The sum of the two variances, as if the fits shared no noise: where to search from."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _Unshared(**values)

    def only(self, which: Integers) -> Difference:
        """The same worlds with some of the candidates: indices (k,)."""
        return replace(
            self,
            rows=self.rows[:, which],
            own=self.own[which],
            lent=self.lent[which],
            budget=self.budget[which],
            joint=self.joint.only(which),
        )

    def merged(self) -> Self:
        """Worlds that differ in noise alone as one, under one law as well."""
        return replace(super().merged(), joint=self.joint.merged())

    def _worlds(self, which: Integers) -> Self:
        made = None if self.made is None else self.made._worlds(which)
        return replace(super()._worlds(which), joint=self.joint._worlds(which), made=made)

    def knowing(self, made: Integers) -> Difference:
        """The same worlds with some candidates (k,) made already, once each, and left out."""
        left = np.setdiff1d(np.arange(self.rows.shape[1]), made)
        return replace(
            self.only(left),
            made=self.only(made),
            n_known=len(made),
            joint=self.joint.knowing(made),
        )

    def per_flop(self, cost: Array) -> Difference:
        """In units of FLOPs, of new runs alone; cost (n,) of a run."""
        return replace(
            self,
            rows=self.rows / np.sqrt(cost)[:, None],
            made=None,
            n_known=0,
            joint=self.joint.per_flop(cost),
        )

    @cached_property
    def _budgets(self) -> tuple[Integers, Integers]:
        """`budget` numbered from 0, of the candidates and of the runs made; unknown ones differ."""
        n = self.budget.size
        every = self.budget if self.made is None else np.append(self.budget, self.made.budget)
        numbers = np.unique(every, return_inverse=True, equal_nan=False)[1]
        return numbers[:n], numbers[n:]

    def _lent(self, counts: Array | Integers) -> tuple[Bools, Bools | None]:
        """Which of the lendable runs are lent: of the candidates (n,), and of the runs made."""
        made, (here, there) = self.made, self._budgets
        run = np.zeros(here.size + there.size, dtype=bool)
        run[here[self.own & (counts > 0)]] = True
        if made is not None:
            run[there[made.own]] = True
        lent = self.lent & run[here]
        before = None if made is None else made.lent & run[there]
        if (counts[lent] > 0).any() or (before is not None and before.any()):
            return lent, before
        return self.lent, None if made is None else made.lent

    def _informations(
        self, counts: Array | Integers, lent: tuple[Bools, Bools | None]
    ) -> list[Array]:
        """(S, p, p) each: of the baseline's fit, the recipe's, and the runs in both."""
        here, before = lent
        found = _gathered(self.rows, counts, self.own, here)
        if self.made is not None and before is not None:
            there = _gathered(self.made.rows, np.ones(before.size), self.made.own, before)
            found = [one + more for one, more in zip(found, there, strict=True)]
        return found

    def _sizes(
        self, counts: Array | Integers, lent: tuple[Bools, Bools | None]
    ) -> tuple[tuple[float, float], float]:
        """Runs of the baseline's fit and of the recipe's, and those in both."""
        own, shared = float(counts[self.own].sum()), float(counts[lent[0]].sum())
        alone = float(counts.sum()) - own
        if self.made is not None and lent[1] is not None:
            own += float(self.made.own.sum())
            alone += float((~self.made.own).sum())
            shared += float(lent[1].sum())
        return (alone, own + shared), shared

    def variances(self, counts: Array | Integers) -> Array:
        """Variance (S,) of Δφ in each world; huge where the runs can't tell it."""
        first, second, both = self._informations(counts, self._lent(counts))
        a, b = self._ridge + first, self._ridge + second
        u, v = (np.asarray(np.linalg.solve(m, self.target[:, :, None])[:, :, 0]) for m in (a, b))
        return _form(u, a - both) + _form(v, b - both) + _form(u - v, both)

    def degrees_of_freedom(self, counts: Array | Integers) -> Array:
        """Of the noise pooled over both fits (S,), as `comparing.pair.noise_of` counts them.

        (tr S)² / tr S² with S = Σ(I − H) over the fits. H are the hat matrices, so that over the
        runs in both tr (I − H₁)(I − H₂) = their number − tr A⁻¹S − tr B⁻¹S + tr A⁻¹S B⁻¹S with A, B
        and S the information of the fits' runs and of those in both.
        """
        lent = self._lent(counts)
        first, second, both = self._informations(counts, lent)
        own, shared = self._sizes(counts, lent)
        each = [np.maximum(n - self.n_params, 0) for n in own]
        h, k = (np.asarray(np.linalg.solve(self._ridge + m, both)) for m in (first, second))
        common = shared - _trace(h) - _trace(k) + _trace(h @ k)
        total = each[0] + each[1]
        return self.freedom * total**2 / np.maximum(total + 2 * common, 1.0)

    def sensitivity(self, counts: Array | Integers) -> Array:
        """−∂variance/∂countᵢ (n,): how much a little more of each candidate narrows.

        May be negative: a run of one fit alone loosens what the two have in common.
        """
        now = self._now(counts)
        gained = np.empty(self.own.size)
        for kind in self._kinds:
            met = [now.met_by(kind, fit) for fit in kind.fits]
            each = sum(pull * (pull - 2 * shared) for pull, shared in met)
            if kind.baseline and kind.recipe:
                each += 2 * met[0][0] * met[1][0] * now.lent[kind.which]
            gained[kind.which] = self.weights @ each
        return gained

    def after_adding(self, counts: Array | Integers) -> Array:
        """The average variance (n,) after one more run of each candidate (Sherman–Morrison).

        What the recipe's first run of a budget makes be lent is left out.
        """
        now = self._now(counts)
        (u, v), (a, b) = now.solved, now.inverses
        value = _form(u, now.first) + _form(v, now.second) - 2 * _bilinear(u, now.both, v)
        after = np.empty(self.own.size)
        for kind in self._kinds:
            gained: Array = np.zeros(1)
            less = []
            for fit in kind.fits:
                pull, shared = now.met_by(kind, fit)
                less.append(pull / (1 + kind.forms(now.inverses[fit])))
                gained = gained + less[-1] * (pull - 2 * shared)
            if kind.baseline and kind.recipe:
                crossed = a @ now.both @ b
                between = kind.forms((crossed + crossed.swapaxes(1, 2)) / 2)
                gained += 2 * less[0] * less[1] * now.lent[kind.which] * (1 + between)
            left = np.maximum(value[:, None] - gained, LEAST_LEFT * value[:, None])
            after[kind.which] = self.weights @ left
        return after

    @cached_property
    def _kinds(self) -> tuple[_Kind, ...]:
        """The candidates by the fits that may use them."""
        return tuple(
            _Kind(
                which=which,
                columns=np.ascontiguousarray(self.rows[:, which].swapaxes(1, 2)),
                baseline=baseline,
                recipe=recipe,
            )
            for members, baseline, recipe in (
                (~self.own & ~self.lent, True, False),
                (self.own, False, True),
                (self.lent, True, True),
            )
            if (which := np.flatnonzero(members)).size
        )

    def _now(self, counts: Array | Integers) -> _Now:
        lent = self._lent(counts)
        first, second, both = self._informations(counts, lent)
        first, second = self._ridge + first, self._ridge + second
        a, b = np.linalg.inv(np.stack([first, second]))
        u, v = _times(a, self.target), _times(b, self.target)
        return _Now(
            lent=lent[0],
            first=first,
            second=second,
            both=both,
            inverses=(a, b),
            solved=(u, v),
            shared=(_times(a, _times(both, v)), _times(b, _times(both, u))),
        )


def difference(
    supposed: Worlds, in_baseline: Bools, in_recipe: Bools, budget: Array | None = None
) -> Difference:
    """Δφ by a law for each recipe. supposed: worlds of n candidates for φ, with none made yet.

    in_baseline, in_recipe (n,): which fit uses which. Both recipes are supposed to follow each
    world's law, with about the same φ. budget (n,): runs of both are lent to the recipe's fit where
    it has runs of the same budget; None: whatever its runs are.
    """
    return Difference(
        rows=supposed.rows,
        target=supposed.target,
        weights=supposed.weights,
        n_params=supposed.n_params,
        freedom=supposed.freedom,
        names=supposed.names,
        own=in_recipe & ~in_baseline,
        lent=in_recipe & in_baseline,
        budget=np.zeros(in_recipe.size) if budget is None else budget,
        joint=one_law(supposed, in_baseline, in_recipe),
    )


class _Unshared(Difference):
    """The sum of the variances of the two φ."""

    def variances(self, counts: Array | Integers) -> Array:
        u, v, _ = self._solved(counts)
        return _dots(u, self.target) + _dots(v, self.target)

    def sensitivity(self, counts: Array | Integers) -> Array:
        u, v, lent = self._solved(counts)
        gained = np.zeros(self.own.size)
        for kind in self._kinds:
            if kind.recipe:
                ours = ~self.lent[kind.which] | lent[kind.which]
                gained[kind.which] += self.weights @ kind.dots(v) ** 2 * ours
            if kind.baseline:
                gained[kind.which] += self.weights @ kind.dots(u) ** 2
        return gained

    def _solved(self, counts: Array | Integers) -> tuple[Array, Array, Bools]:
        """A⁻¹c and B⁻¹c (S, p), and which candidates (n,) both fits use."""
        lent = self._lent(counts)
        first, second, _ = self._informations(counts, lent)
        u, v = (
            np.asarray(np.linalg.solve(self._ridge + m, self.target[:, :, None])[:, :, 0])
            for m in (first, second)
        )
        return u, v, lent[0]


def contrast(
    candidates: Candidates, fits: list[Fit], *, noises: tuple[float, ...], draws: int = 12
) -> Difference:
    """Worlds in which the number wanted is Δφ, of the candidates' `second` recipe less the first.

    By a law for each, as `compare` does by default. fits, noises, draws and errors: as `worlds`.
    """
    made = candidates.made
    every = candidates if made is None else made.followed_by(candidates)
    if every.second is None:
        raise ValueError("candidates of one recipe have no Δφ")
    plain = worlds(replace(every, made=None), fits, noises=noises, draws=draws)
    in_recipe = every.second | (every.recurrences == 1)
    found = difference(plain, ~every.second, in_recipe, every.budget_flops)
    return found if made is None else found.knowing(np.arange(made.flops.size))


def one_law(supposed: Worlds, in_baseline: Bools, in_recipe: Bools) -> Worlds:
    """Δφ by one law with two φ; arguments as in `difference`. The last parameter is the recipe's φ.

    Runs in both are r = 1, which say nothing of either φ.
    """
    of_phi = np.einsum("snp,sp->sn", supposed.rows, supposed.target)
    own = in_recipe & ~in_baseline
    rows = np.where(own[:, None], supposed.rows * (1 - supposed.target[:, None]), supposed.rows)
    return Worlds(
        rows=np.concatenate([rows, (of_phi * own)[:, :, None]], axis=2),
        target=np.concatenate([-supposed.target, np.ones((len(supposed.target), 1))], axis=1),
        weights=supposed.weights,
        n_params=supposed.n_params + 1,
        freedom=supposed.freedom,
        names=supposed.names,
    )


def _gathered(rows: Array, counts: Array | Integers, own: Bools, lent: Bools) -> list[Array]:
    """Information (S, p, p): of the baseline's runs, the recipe's and lent ones, and the lent."""
    used = counts > 0
    alone, recipe, both = (
        _information(rows, counts, np.flatnonzero(members & used))
        for members in (~own & ~lent, own, lent)
    )
    return [alone + both, recipe + both, both]


def _information(rows: Array, counts: Array | Integers, which: Integers) -> Array:
    """(S, p, p) of some of the runs."""
    some = rows[:, which]
    return (some * counts[which][:, None]).swapaxes(1, 2) @ some


def _trace(matrices: Array) -> Array:
    """Of (S, p, p): (S,)."""
    return np.asarray(np.trace(matrices, axis1=1, axis2=2))


def _form(vector: Array, matrix: Array) -> Array:
    """xᵀMx (S,)."""
    return _bilinear(vector, matrix, vector)


def _bilinear(left: Array, matrix: Array, right: Array) -> Array:
    """xᵀMy (S,)."""
    return _dots(left, _times(matrix, right))


def _times(matrices: Array, vectors: Array) -> Array:
    """(S, n, p) times (S, p): (S, n)."""
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])


def _dots(left: Array, right: Array) -> Array:
    """Products along the last axis."""
    return np.asarray((left * right).sum(axis=-1))

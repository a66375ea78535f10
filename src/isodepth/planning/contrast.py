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

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import optimize, stats

from isodepth.fitting import Fit
from isodepth.laws import Array, Bools, Integers
from isodepth.planning.design import LEAST_LEFT, LEVEL, Worlds
from isodepth.planning.worlds import Candidates, worlds

POWER = 0.8  # chance that a difference of the size named is told from 0
_QUANTILES = 2000


@dataclass(frozen=True, kw_only=True)
class Difference(Worlds):
    """Worlds in which the number wanted is the recipe's φ less the baseline's, by two fits.

    `target` is that of either fit, `n_params` counts both fits' parameters, and `known` is
    (3, S, p, p): what runs already made tell the baseline's fit, the recipe's, and both.
    """

    in_baseline: Bools  # (n,) candidates that the baseline's fit uses
    in_recipe: Bools  # (n,) that the recipe's uses

    joint: Worlds  # the same candidates, and runs made, under one law

    @property
    def easier(self) -> Worlds:
        """A linear model whose variance is nowhere above this one's: one law for both."""
        return self.joint

    def only(self, which: Integers) -> Difference:
        """The same worlds with some of the candidates: indices (k,)."""
        return replace(
            self,
            rows=self.rows[:, which],
            in_baseline=self.in_baseline[which],
            in_recipe=self.in_recipe[which],
            joint=self.joint.only(which),
        )

    def knowing(self, made: Integers) -> Difference:
        """The same worlds with some candidates (k,) made already, once each, and left out."""
        left = np.setdiff1d(np.arange(self.rows.shape[1]), made)
        there = self.only(made)
        return replace(
            self.only(left),
            known=np.stack(there.informations(np.ones(len(made)))),
            n_known=len(made),
            joint=self.joint.knowing(made),
        )

    def per_flop(self, cost: Array) -> Difference:
        """In units of FLOPs, of new runs alone; cost (n,) of a run."""
        return replace(
            self,
            rows=self.rows / np.sqrt(cost)[:, None],
            known=None,
            n_known=0,
            joint=self.joint.per_flop(cost),
        )

    def informations(self, counts: Array | Integers) -> tuple[Array, Array, Array]:
        """(S, p, p) each: of the baseline's fit, the recipe's, and the runs in both."""
        used = np.flatnonzero(counts)
        rows = self.rows[:, used]
        sets = (self.in_baseline, self.in_recipe, self.in_baseline & self.in_recipe)
        first, second, both = (
            (rows * (counts[used] * members[used])[:, None]).swapaxes(1, 2) @ rows
            for members in sets
        )
        if self.known is not None:
            first, second, both = (
                first + self.known[0],
                second + self.known[1],
                both + self.known[2],
            )
        return first, second, both

    def variances(self, counts: Array | Integers) -> Array:
        """Variance (S,) of Δφ in each world; huge where the runs can't tell it."""
        first, second, both = self.informations(counts)
        a, b = self._ridge + first, self._ridge + second
        u, v = (np.asarray(np.linalg.solve(m, self.target[:, :, None])[:, :, 0]) for m in (a, b))
        return _form(u, a - both) + _form(v, b - both) + _form(u - v, both)

    def sensitivity(self, counts: Array | Integers) -> Array:
        """−∂variance/∂countᵢ (n,): how much a little more of each candidate narrows.

        May be negative: a run of one fit alone loosens what the two have in common.
        """
        _, _, pulls, shared = self._adding(counts)
        (p, q), (x, y) = pulls, shared
        both = self.in_baseline & self.in_recipe
        gained = p**2 + q**2 - 2 * p * x - 2 * q * y + 2 * p * q * both
        return np.asarray(self.weights @ gained)

    def after_adding(self, counts: Array | Integers) -> Array:
        """The average variance (n,) after one more run of each candidate (Sherman–Morrison)."""
        now, leverages, pulls, shared = self._adding(counts)
        (h, k), (p, q), (x, y) = leverages, pulls, shared
        a, b = p / (1 + h), q / (1 + k)
        both = self.in_baseline & self.in_recipe
        cross = -a * x - b * y + a * b * (self._cross(counts) + both)
        after = now[:, None] - p * a - q * b - 2 * cross
        return np.asarray(self.weights @ np.maximum(after, LEAST_LEFT * now[:, None]))

    def _adding(
        self, counts: Array | Integers
    ) -> tuple[Array, tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]:
        """What one more run of each candidate meets: the variance (S,), and (S, n) each for
        either fit, 0 where it doesn't use the run, leverage gᵀA⁻¹g, pull gᵀu, and gᵀA⁻¹Sv."""
        first, second, both = self.informations(counts)
        inverses = [np.linalg.inv(self._ridge + m) for m in (first, second)]
        u, v = (np.einsum("spq,sq->sp", m, self.target) for m in inverses)
        sets = (self.in_baseline, self.in_recipe)
        leverage, pull, shared = [], [], []
        for inverse, own, other, members in zip(inverses, (u, v), (v, u), sets, strict=True):
            toward = (self.rows @ inverse) * members[:, None]
            leverage.append(np.einsum("snp,snp->sn", toward, self.rows))
            pull.append(np.einsum("snp,sp->sn", self.rows, own) * members)
            shared.append(np.einsum("snp,spq,sq->sn", toward, both, other))
        return (
            self.variances(counts),
            (leverage[0], leverage[1]),
            (pull[0], pull[1]),
            (shared[0], shared[1]),
        )

    def _cross(self, counts: Array | Integers) -> Array:
        """gᵀA⁻¹SB⁻¹g (S, n) of the candidates that both fits use, else 0."""
        first, second, both = self.informations(counts)
        a, b = (np.linalg.inv(self._ridge + m) for m in (first, second))
        shared = self.in_baseline & self.in_recipe
        return np.einsum("snp,snp->sn", self.rows @ (a @ both @ b), self.rows) * shared


def difference(supposed: Worlds, in_baseline: Bools, in_recipe: Bools) -> Difference:
    """Δφ by a law for each recipe. supposed: worlds of n candidates for φ, with none made yet.

    in_baseline, in_recipe (n,): which fit uses which. Both recipes are supposed to follow each
    world's law, with about the same φ.
    """
    return Difference(
        rows=supposed.rows,
        target=supposed.target,
        weights=supposed.weights,
        n_params=2 * supposed.n_params,
        names=supposed.names,
        in_baseline=in_baseline,
        in_recipe=in_recipe,
        joint=one_law(supposed, in_baseline, in_recipe),
    )


def contrast(candidates: Candidates, fits: list[Fit], *, noises: tuple[float, ...]) -> Difference:
    """Worlds in which the number wanted is Δφ, of the candidates' `second` recipe less the first,
    by a law for each (`compare`'s default).

    As in `compare` the recipe has the baseline's r = 1 runs at the budgets that it is run at, which
    are here all that its candidates and runs made have. fits, noises and errors: as `worlds`.
    """
    made = candidates.made
    every = candidates if made is None else made.followed_by(candidates)
    plain = worlds(replace(every, made=None), fits, noises=noises)
    found = difference(plain, *every.members)
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
        names=supposed.names,
    )


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What runs tell of Δφ, root mean square over the worlds; inf where too few runs."""

    half_width: float  # of Δφ's 95% interval
    smallest: float  # |Δφ| told from 0 at 95% in 80% of sweeps
    by_world: dict[str, float]  # smallest, in each kind of world


def resolution(found: Worlds, counts: Array | Integers) -> Resolution:
    """Of Δφ, by the worlds of `difference` or `one_law` and counts (n,) of their candidates.

    Student's t with (runs − parameters of both fits) degrees of freedom.
    """
    halves = found.half_widths(counts)
    errors = np.sqrt(found.variances(counts))
    freedom = int(counts.sum()) + found.n_known - found.n_params
    smallest = np.array([noncentrality(int(nu)) for nu in freedom]) * errors
    kinds, weights = np.array(found.names), found.weights
    return Resolution(
        half_width=_root_mean_square(halves, weights),
        smallest=_root_mean_square(smallest, weights),
        by_world={
            kind: _root_mean_square(smallest[kinds == kind], weights[kinds == kind])
            for kind in dict.fromkeys(found.names)
        },
    )


def _root_mean_square(values: Array, weights: Array) -> float:
    return float(np.sqrt(np.average(values**2, weights=weights)))


@cache
def noncentrality(freedom: int) -> float:
    """|Δφ| in standard errors that a two-sided t test at 5% tells from 0 with 80% chance.

    The noncentral t distribution, as normal tails averaged over quantiles of the estimated
    standard error; 2.80 with many degrees of freedom, inf with none.
    """
    if freedom <= 0:
        return float("inf")
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    limits = stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(
        stats.chi2.ppf(quantiles, freedom) / freedom
    )

    def lacking(delta: float) -> float:
        told = stats.norm.sf(limits - delta) + stats.norm.cdf(-limits - delta)
        return float(told.mean()) - POWER

    return float(optimize.brentq(lacking, 0.0, float(limits.max()) + 5.0))


def _form(vector: Array, matrix: Array) -> Array:
    """xᵀMx (S,)."""
    return np.asarray(np.einsum("sp,spq,sq->s", vector, matrix, vector))

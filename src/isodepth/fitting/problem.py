"""What is fitted: runs turned into arrays, under stated conventions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd

from isodepth.counting import COUNTINGS, Counting, count
from isodepth.errors import InputError
from isodepth.fitting.solver import Batch
from isodepth.laws import (
    ARMS_DIFFER,
    ETA_BOUNDS,
    LAWS,
    MULTIPLICITIES,
    ArmsDiffer,
    Array,
    Design,
    Integers,
    Law,
    LawName,
    Multiplicity,
    MultiplicityName,
    law_of,
)
from isodepth.runs.contradictions import Contradiction
from isodepth.runs.groups import budgets_of, graph_of

Estimator = Literal["huber", "lsq"]
_LEAST_REPLICATE_FREEDOM = 8  # degrees of freedom a budget's replicates need to weight its runs


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """Every choice that moves φ, printed beside it."""

    law: LawName = "additive"
    multiplicity: MultiplicityName = "power"
    estimator: Estimator = "huber"
    count_injection: Counting = "once"
    huber_delta: float = 1e-3  # on log-loss residuals
    arms_differ: ArmsDiffer = "none"  # what looped arms may differ by, beside m(r)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("law", self.law, tuple(LAWS)),
            ("multiplicity", self.multiplicity, tuple(MULTIPLICITIES)),
            ("estimator", self.estimator, get_args(Estimator)),
            ("count_injection", self.count_injection, tuple(COUNTINGS)),
            ("arms_differ", self.arms_differ, ARMS_DIFFER),
        ):
            if value not in allowed:
                raise InputError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        if not 1e-12 <= self.huber_delta <= 1e6:
            raise InputError(
                f"huber_delta = {self.huber_delta!r} must be a positive number, 1e-12 to 1e6"
            )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One law to fit to one recipe's finished runs."""

    conventions: Conventions
    law: Law
    multiplicity: Multiplicity
    eta_names: tuple[str, ...]  # of the multiplicity's q parameters
    design: Design
    frame: pd.DataFrame  # the n runs, in the order of every array
    log_loss: Array  # (n,) log of nats per token
    scale: Array  # (n,) 1 / relative noise, geometric mean 1
    weighting: str  # where `scale` comes from, in words
    groups: Integers  # (n,) the (recipe, r, budget) group, whose runs may share noise
    budgets: Array | None  # (n,) FLOPs of each run's iso-FLOP group, where known
    doubts: tuple[Contradiction, ...]  # what the runs say against each other

    @property
    def n(self) -> int:
        return int(self.log_loss.size)

    @property
    def theta_names(self) -> tuple[str, ...]:
        return self.law.shape + self.eta_names

    @property
    def bounds(self) -> Array:
        """(2, p)."""
        return np.array([*self.law.bounds, *[ETA_BOUNDS] * len(self.eta_names)]).T

    @property
    def delta(self) -> float:
        return self.conventions.huber_delta if self.conventions.estimator == "huber" else np.inf

    def batch(self, log_loss: Array | None = None) -> Batch:
        """The solver's view; log_loss (n,) or (K, n) stands in for the measured one."""
        return Batch(
            law=self.law,
            design=self.design,
            log_loss=self.log_loss if log_loss is None else log_loss,
            scale=self.scale,
            delta=self.delta,
            bounds=self.bounds,
        )

    def with_conventions(self, conventions: Conventions) -> Problem:
        """The same runs under other conventions."""
        return build(self.frame, conventions, self.doubts)

    def only(self, rows: Integers) -> Problem:
        """Some of the runs, under the same counts and reference sizes."""
        return replace(
            self,
            design=self.design.only(rows),
            frame=self.frame.iloc[rows].reset_index(drop=True),
            log_loss=self.log_loss[rows],
            scale=self.scale[rows],
            groups=np.unique(self.groups[rows], return_inverse=True)[1].astype(np.int64),
            budgets=None if self.budgets is None else self.budgets[rows],
        )

    def predict(self, theta: Array) -> Array:
        """Loss at theta (K, p) → (K, n), nats per token."""
        return np.exp(self.law.log_loss(np.atleast_2d(theta), self.design))


def build(
    frame: pd.DataFrame, conventions: Conventions, doubts: tuple[Contradiction, ...] = ()
) -> Problem:
    """The problem that a frame of finished runs of one recipe poses.

    doubts: as `Runs.doubts` finds them.

    Raises InputError where there is nothing to fit or the counting convention can't be applied.
    """
    frame = frame.reset_index(drop=True)
    if frame.empty:
        raise InputError("no finished run with a finite loss is left to fit")
    multiplicity = MULTIPLICITIES[conventions.multiplicity]
    n_once, n_rec = count(frame, conventions.count_injection)
    r = frame["recurrences"].to_numpy(dtype=float)
    log_tokens = np.log(frame["tokens"].to_numpy(dtype=float))
    design = Design(
        n_once=n_once,
        n_rec=n_rec,
        z=multiplicity.columns(r),
        log_tokens=log_tokens,
        looped=(r > 1).astype(float),
        log_n0=float(np.log(n_once + n_rec).mean()),
        log_d0=float(log_tokens.mean()),
    )
    # with runs of one kind alone, what the kinds differ by is no parameter: `identify` says why
    both = (r > 1).any() and (r == 1).any()
    budgets = budgets_of(frame)
    scale, weighting = _weights(frame, budgets)
    return Problem(
        conventions=conventions,
        law=law_of(conventions.law, conventions.arms_differ if both else "none"),
        multiplicity=multiplicity,
        eta_names=multiplicity.names(r),
        design=design,
        frame=frame,
        log_loss=np.log(frame["loss"].to_numpy(dtype=float)),
        scale=scale,
        weighting=weighting,
        groups=_groups(frame, budgets),
        budgets=budgets,
        doubts=doubts,
    )


def _groups(frame: pd.DataFrame, budgets: Array | None) -> Integers:
    """Labels of the (recipe, r, graph, budget) groups; without budgets a run is its own group."""
    if budgets is None:
        return np.arange(len(frame), dtype=np.int64)
    keys = pd.DataFrame(
        {
            "recipe": frame["recipe"],
            "r": frame["recurrences"],
            "graph": graph_of(frame),
            "budget": budgets,
        }
    )
    return keys.groupby(list(keys), sort=False).ngroup().to_numpy().astype(np.int64)


def _weights(frame: pd.DataFrame, budgets: Array | None) -> tuple[Array, str]:
    """Residual multipliers and their source: `loss_stderr`, else replicates, else none."""
    ones = np.ones(len(frame))
    if "loss_stderr" in frame and frame["loss_stderr"].notna().any():
        given = frame["loss_stderr"].notna()
        if not given.all():
            return ones, f"equal: loss_stderr is given for {given.sum()} of {len(frame)} runs only"
        relative = (frame["loss_stderr"] / frame["loss"]).to_numpy(dtype=float)
        return _inverse(relative), "1 / loss_stderr"
    sets = replicate_sets(frame)
    if budgets is None or len(sets) == 0:
        return ones, "equal"
    log_loss = np.log(frame["loss"].to_numpy(dtype=float))
    noise = np.empty(len(frame))
    for budget in np.unique(budgets):
        at = [rows for rows in sets if budgets[rows[0]] == budget]
        freedom = sum(len(rows) - 1 for rows in at)
        if freedom < _LEAST_REPLICATE_FREEDOM:
            return ones, "equal"
        spread = sum(float(((log_loss[rows] - log_loss[rows].mean()) ** 2).sum()) for rows in at)
        noise[budgets == budget] = np.sqrt(spread / freedom)
    if not (noise > 0).all():
        return ones, "equal"
    return _inverse(noise), "1 / spread of the replicates at each budget"


def _inverse(noise: Array) -> Array:
    return np.exp(np.log(noise).mean() - np.log(noise))


def replicate_sets(frame: pd.DataFrame) -> list[Integers]:
    """Row numbers of runs that differ in nothing but their seed, sets of two or more."""
    keys = ["recipe", "recurrences", "n_once", "n_rec", "n_inject", "tokens"]
    graph = pd.Series(graph_of(frame), index=frame.index, name="graph")
    sets = frame.groupby([*keys, graph], sort=False).indices.values()
    return [np.sort(rows) for rows in sets if len(rows) > 1]

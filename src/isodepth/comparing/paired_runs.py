"""Runs of equal r, width and budget, one of each recipe: the difference without any model.

A recipe's run is paired with the baseline's of the same r, width and budget; where there is none,
with the baseline's surface at the same size and the tokens that the baseline's models of that size
get for the same FLOPs (at the same tokens where no FLOPs are known). Beside each difference of log
loss stands what a change of φ alone predicts, and what the form that holds predicts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from isodepth.comparing.arms import Arm, at_size
from isodepth.comparing.carry import Carried, Carrier
from isodepth.fitting.errors import Errors
from isodepth.fitting.twins import Value
from isodepth.laws import Array, Bools
from isodepth.runs.groups import graph_of

_THIRDS = ("low", "middle", "high")
_LEAST_PAIRS = 3  # cells of equal width and budget that a growth with r needs


@dataclass(frozen=True, kw_only=True)
class PairedRun:
    """One run of the recipe less the baseline's."""

    run_id: str
    recurrences: int
    budget_flops: float | None
    tokens_per_parameter: float  # of the recipe's run: tokens over n_once + r·n_rec
    delta_log_loss: float
    by_phi: float | None  # predicted by the law's Δφ alone
    by_form: float  # predicted by the form that holds
    matched: bool  # with a run of the baseline, else with its surface


@dataclass(frozen=True, kw_only=True)
class PairedMean:
    """Mean difference of some pairs."""

    by: str  # recurrences, budget_flops or tokens_per_parameter
    recurrences: int | None  # of a mean by r
    budget_flops: float | None  # of a mean by budget
    tokens_per_parameter: tuple[float, float] | None  # lowest and highest of a third of the pairs
    n_runs: int
    delta_log_loss: Value
    by_phi: float | None
    by_form: float


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The difference at the highest r less that at the lowest, at equal width and budget."""

    low: int  # r
    high: int
    n_pairs: int  # (width, budget) cells with both
    delta_log_loss: Value
    by_phi: float | None
    by_form: float


@dataclass(frozen=True, kw_only=True)
class Paired:
    """All pairs, and their means."""

    runs: tuple[PairedRun, ...]
    means: tuple[PairedMean, ...]
    growth: Growth | None  # of looped runs; None: too few cells at two r's
    n_matched: int


def paired_of(
    carrier: Carrier, terms: tuple[str, ...], carried: Carried, delta_phi: float | None
) -> Paired:
    """Pairs of a carrier's runs.

    terms, carried: the form that holds and its fit. delta_phi: the law's, None: not identified.
    """
    weights, matched, other_tokens = _matches(carrier)
    n = carrier.r.size
    behind = len(carrier.in_baseline)
    base = carrier.baseline.log_loss[carrier.in_baseline]
    reference = carrier.at(carrier.r, carrier.once, carrier.rec, other_tokens)
    other = np.where(matched, weights @ base, reference)
    difference = carrier.log_loss - other
    by_form = carrier.drawn(terms, carried.theta[: len(terms)]) - reference
    by_phi = None
    if delta_phi is not None and carrier.phi is not None:
        by_phi = carrier.drawn(("phi",), np.array([delta_phi])) - reference
    influence = np.zeros((n, behind + n))  # of the runs' log losses on each difference
    influence[:, behind:] = np.eye(n)
    influence[:, :behind] = np.where(
        matched[:, None], -weights, -_surface_weights(carrier, other_tokens)
    )
    per_parameter = np.exp(carrier.log_tokens) / (carrier.once + carrier.r * carrier.rec)
    ids = carrier.frame["run_id"].astype(str).tolist()
    budgets = carrier.budgets
    look = _Look(
        difference=difference,
        by_phi=by_phi,
        by_form=by_form,
        influence=influence,
        errors=carried.errors,
    )
    return Paired(
        runs=tuple(
            PairedRun(
                run_id=ids[i],
                recurrences=int(carrier.r[i]),
                budget_flops=None if budgets is None else float(budgets[i]),
                tokens_per_parameter=float(per_parameter[i]),
                delta_log_loss=float(difference[i]),
                by_phi=None if by_phi is None else float(by_phi[i]),
                by_form=float(by_form[i]),
                matched=bool(matched[i]),
            )
            for i in range(n)
        ),
        means=tuple(_means(carrier, look, per_parameter)),
        growth=_growth(carrier, look),
        n_matched=int(matched.sum()),
    )


@dataclass(frozen=True, kw_only=True)
class _Look:
    """Differences, what is predicted of them, and how noise moves them."""

    difference: Array  # (n,)
    by_phi: Array | None  # (n,)
    by_form: Array  # (n,)
    influence: Array  # (n, baseline + recipe)
    errors: Errors

    def mean(self, weights: Array) -> tuple[Value, float | None, float]:
        """Σ weights·difference with its interval, and the same of both predictions."""
        value = float(weights @ self.difference)
        return (
            Value(value=value, ci95=self.errors.interval(value, weights @ self.influence)),
            None if self.by_phi is None else float(weights @ self.by_phi),
            float(weights @ self.by_form),
        )


def _means(carrier: Carrier, look: _Look, per_parameter: Array) -> Iterable[PairedMean]:
    r, budgets = carrier.r, carrier.budgets
    for level in carrier.levels:
        yield _mean(look, r == level, "recurrences", recurrences=int(level))
    if budgets is not None and np.unique(budgets).size > 1:
        for budget in np.unique(budgets):
            yield _mean(look, budgets == budget, "budget_flops", budget_flops=float(budget))
    ends = np.quantile(per_parameter, [0.0, 1 / 3, 2 / 3, 1.0])
    for i in range(len(_THIRDS)):
        at = per_parameter <= ends[i + 1]
        if i:
            at &= per_parameter > ends[i]
        if at.any():
            span = (float(per_parameter[at].min()), float(per_parameter[at].max()))
            yield _mean(look, at, "tokens_per_parameter", tokens_per_parameter=span)


def _mean(
    look: _Look,
    at: Bools,
    by: str,
    *,
    recurrences: int | None = None,
    budget_flops: float | None = None,
    tokens_per_parameter: tuple[float, float] | None = None,
) -> PairedMean:
    value, by_phi, by_form = look.mean(at / at.sum())
    return PairedMean(
        by=by,
        recurrences=recurrences,
        budget_flops=budget_flops,
        tokens_per_parameter=tokens_per_parameter,
        n_runs=int(at.sum()),
        delta_log_loss=value,
        by_phi=by_phi,
        by_form=by_form,
    )


def _growth(carrier: Carrier, look: _Look) -> Growth | None:
    """Highest less lowest looped r over the (width, budget) cells that have both."""
    levels = [level for level in carrier.levels if level > 1]
    if len(levels) < 2:
        return None
    low, high = levels[0], levels[-1]
    keys = _cells(carrier)
    both = sorted(
        {keys[i] for i in np.flatnonzero(carrier.r == low)}
        & {keys[i] for i in np.flatnonzero(carrier.r == high)}
    )
    if len(both) < _LEAST_PAIRS:
        return None
    weights = np.zeros(carrier.r.size)
    for key in both:
        for level, sign in ((high, 1.0), (low, -1.0)):
            at = [i for i in np.flatnonzero(carrier.r == level) if keys[i] == key]
            weights[at] += sign / len(at) / len(both)
    value, by_phi, by_form = look.mean(weights)
    return Growth(
        low=int(low),
        high=int(high),
        n_pairs=len(both),
        delta_log_loss=value,
        by_phi=by_phi,
        by_form=by_form,
    )


def _cells(carrier: Carrier) -> list[tuple[float, float]]:
    """(width, or else the unlooped size, and budget) of each of the recipe's runs."""
    frame = carrier.frame
    if "width" in frame and frame["width"].notna().all():
        width = frame["width"].to_numpy(dtype=float)
    else:
        width = np.round(np.log(carrier.once + carrier.r * carrier.rec), 1)
    budgets = carrier.budgets
    budget = np.zeros(len(frame)) if budgets is None else np.round(np.log(budgets), 2)
    return [(float(w), float(b)) for w, b in zip(width, budget, strict=True)]


def _matches(carrier: Carrier) -> tuple[Array, Bools, Array]:
    """Weights (n, m) of the baseline's runs, which have any, and the other side's log tokens."""
    rows = carrier.in_baseline
    frame, own = carrier.baseline.frame.iloc[rows], carrier.frame
    r = frame["recurrences"].to_numpy(dtype=float)
    tokens = carrier.baseline.design.log_tokens[rows]
    budgets = carrier.baseline.budgets
    weights = np.zeros((carrier.r.size, rows.size))
    known = (
        budgets is not None
        and carrier.budgets is not None
        and all("width" in f and f["width"].notna().all() for f in (frame, own))
    )
    if known:
        assert budgets is not None and carrier.budgets is not None
        same = (carrier.r[:, None] == r) & (graph_of(own)[:, None] == graph_of(frame))
        same &= own["width"].to_numpy(dtype=float)[:, None] == frame["width"].to_numpy(dtype=float)
        same &= np.abs(np.log(carrier.budgets)[:, None] - np.log(budgets[rows])) < 0.01
        weights = same / np.maximum(same.sum(axis=1, keepdims=True), 1)
    matched = weights.sum(axis=1) > 0
    other = np.where(matched, weights @ tokens, _tokens_at_equal_flops(carrier))
    return weights, matched, other


def _tokens_at_equal_flops(carrier: Carrier) -> Array:
    """log tokens (n,) that the baseline's models of these sizes get for the runs' FLOPs."""
    out = carrier.log_tokens.copy()
    if carrier.budgets is None or carrier.baseline.budgets is None:
        return out
    for level in carrier.levels:
        rows = carrier.r == level
        arm = Arm.of(carrier.baseline, int(level))
        frame = carrier.frame[rows]
        size = np.log((frame["n_once"] + frame["n_rec"]).to_numpy(dtype=float))
        out[rows] = np.log(carrier.budgets[rows] / at_size(arm.flops_per_token, size))
    return out


def _surface_weights(carrier: Carrier, log_tokens: Array) -> Array:
    """(n, m): how the surface's log loss at each run moves with the runs behind it."""
    columns = carrier.surface_columns(log_tokens)
    return np.asarray(columns @ carrier.behind_influence)

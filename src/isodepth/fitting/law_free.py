"""What a pass is worth without a law: every looped run's unlooped twin.

The unlooped runs give a smooth surface of log loss over (log N, log D). A looped run has an
unlooped twin of equal loss at equal tokens, and what its r passes are worth is

    m = (N_twin − N_once) / N_rec.

m(r) is estimated by least squares on log loss given the surface, whose error is carried into every
interval (`fitting/errors.py`), to first order. Runs whose twin lies outside the hull of the
unlooped runs are left out and named: the surface isn't known there.

Two exponents are read off it, which differ wherever looped runs differ from unlooped ones in more
than the number of passes: φ anchored at m(1) = 1, as in arXiv 2604.21106, and the slope of log m in
log r among the looped arms alone. A constant for all looped arms may be split off: a factor κ on
their tokens (D → κD), or δ nats on their loss.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from isodepth.fitting.graphs import Graphs, Ground, graphs_of, ground_of
from isodepth.fitting.problem import Problem
from isodepth.fitting.twins import (
    CONSTANTS,
    LOG_M,
    Constant,
    Interval,
    LeftOut,
    Solved,
    Twins,
    Value,
    kept_of,
    solve,
)
from isodepth.laws import Array, Bools
from isodepth.warned import Warned

_LEAST_RUNS = 3  # twins that an r needs
_TELLS = 0.05  # p-value below which a constant is split off
_OPEN = 2 * np.log(10.0)  # width of an interval of log m that says nothing


@dataclass(frozen=True, kw_only=True)
class Worth:
    """m(r): how many unlooped copies of the block r passes are worth."""

    recurrences: float
    value: float
    ci95: Interval
    n_runs: int  # whose twins it was read off


@dataclass(frozen=True, kw_only=True)
class Trend:
    """How log m moves along something beside r."""

    value: float  # change of log m for ten times as much
    ci95: Interval
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """m(r) with one constant for all looped arms."""

    kind: Constant
    tokens_ratio: Value | None  # κ: what a token counts in looped arms against unlooped ones
    loss_offset: Value | None  # δ, nats per token
    p_value: float | None  # of no such constant; None for `none`
    rmse: float  # of log loss over the looped runs
    m: tuple[Worth, ...]
    phi: Value
    phi_looped: Value | None  # None: one value of r > 1


@dataclass(frozen=True, kw_only=True)
class Twin:
    """One looped run's m by itself, for pictures."""

    run_id: str
    recurrences: float
    tokens: float
    budget_flops: float | None
    width: float | None
    m: float | None  # None: no size of the surface has its loss
    kept: bool
    residual: float  # log loss less that of its arm's m(r)
    tokens_per_parameter: float  # tokens over n_once + r·n_rec


@dataclass(frozen=True, kw_only=True)
class LawFree:
    """What a pass is worth, read off unlooped twins."""

    m: tuple[Worth, ...]
    phi: Value  # r^φ through m(1) = 1
    phi_looped: Value | None  # slope of log m in log r among r > 1; None: one value of r > 1
    rmse: float  # of log loss over the looped runs
    surface: dict[str, Any]  # kind, degree, rmse of log loss, left_out_rmse, n_runs, graphs
    graphs: Graphs | None  # whether unlooped runs of several graphs differ; None: of one graph
    left_out: tuple[LeftOut, ...]
    too_few: tuple[float, ...]  # r's of fewer than three such runs, which take no part
    power_law: dict[str, float] | None  # p_value of r^φ against an m of each r
    drift: dict[str, Trend | None]  # of log m with the budget and with tokens per parameter
    along: dict[str, float] | None  # do residuals go on along r: correlation, p_value
    split: dict[str, Any]  # the constant that holds, and the candidates
    twins: tuple[Twin, ...]

    def to_dict(self) -> dict[str, Any]:
        """What `fit --json` holds under `law_free`."""
        twins = tuple(dict(vars(twin)) for twin in self.twins)  # which may be many
        return asdict(replace(self, twins=())) | {"twins": twins}


def law_free(problem: Problem) -> tuple[LawFree | None, str | None]:
    """m(r) of a problem's looped runs by the twins among its unlooped ones; or None and why not."""
    r = problem.frame["recurrences"].to_numpy(dtype=float)
    unlooped = r == 1
    levels = np.unique(r[~unlooped])
    if not unlooped.any() or not levels.size:
        return None, "it takes runs at r = 1 and at r > 1"
    looped = np.flatnonzero(~unlooped)
    surface = ground_of(problem, looped)
    if surface is None:
        return None, (
            f"{unlooped.sum()} unlooped runs don't spread over sizes and tokens enough for a "
            "surface (5 or more, not on one line)"
        )
    runs = Twins(problem=problem, looped=looped, surface=surface)
    kept, log_m, left_out = kept_of(runs, levels)
    short = np.array([(runs.r[kept] == level).sum() < _LEAST_RUNS for level in levels])
    if short.all():
        return None, _too_few(levels, left_out)
    every = levels
    if short.any():
        levels, log_m = levels[~short], log_m[~short]
        told = np.isin(runs.r, levels)
        runs, kept = runs.only(told), kept[told]
    held = runs.only(kept)
    free = solve(held, levels, held.indicator(levels), "none", log_m)
    if why := _open(free, levels):
        return None, why
    candidates = [_candidate(held, levels, constant, log_m, free) for constant in CONSTANTS]
    found = [c for c in candidates[1:] if c.p_value is not None and 2 * c.p_value < _TELLS]
    chosen = min(found, key=lambda c: c.p_value or 0.0) if found else candidates[0]
    plain = candidates[0]
    along = free.errors.along
    return (
        LawFree(
            m=plain.m,
            phi=plain.phi,
            phi_looped=plain.phi_looped,
            rmse=plain.rmse,
            surface=_described(surface),
            graphs=graphs_of(problem, surface),
            left_out=tuple(left_out),
            too_few=tuple(float(level) for level in every[short]),
            power_law=_power_test(free, levels),
            drift=_drifts(held, levels, log_m, free.errors.goes_along),
            along=None if along is None else asdict(along),
            split=asdict(chosen) | {"candidates": [asdict(c) for c in candidates]},
            twins=_twins(runs, kept, levels, free.theta[: levels.size]),
        ),
        None,
    )


def _described(ground: Ground) -> dict[str, Any]:
    """The surface, or all of them: highest degree, and root mean squares over all runs."""
    counts = np.array([len(part.residual) for part in ground.parts])

    def over_all(values: list[float]) -> float:
        return float(np.sqrt(counts @ np.square(values) / counts.sum()))

    return {
        "kind": "polynomial",
        "degree": max(part.degree for part in ground.parts),
        "rmse": over_all([part.rmse for part in ground.parts]),
        "left_out_rmse": over_all([part.left_out_rmse for part in ground.parts]),
        "n_runs": int(counts.sum()),
        "graphs": None if ground.graphs is None else list(ground.graphs),
    }


def _too_few(levels: Array, left_out: list[LeftOut]) -> str:
    """Why no r has enough runs, and which unlooped runs would mend it."""
    said = [
        f"at r = {out.recurrences:g} {len(out.run_ids)} of {out.n_runs} runs have their twin "
        f"outside the unlooped runs: unlooped runs of {out.wanted_params[0]:.3g} to "
        f"{out.wanted_params[1]:.3g} parameters at {out.wanted_tokens[0]:.3g} to "
        f"{out.wanted_tokens[1]:.3g} tokens would hold them"
        for out in left_out
    ]
    return "; ".join(said) or f"fewer than {_LEAST_RUNS} runs at any r, {levels[0]:g} the lowest"


def without_law(
    found: LawFree | None, why: str | None, phi: float | None, ci95: Interval | None
) -> list[Warned]:
    """What a reader must know of it, beside the law's φ and its interval."""
    if found is None:
        return [
            Warned(
                "law_free_missing", f"what a pass is worth can't be read off without a law: {why}"
            )
        ]
    said = []

    def warn(code: str, text: str) -> None:
        said.append(Warned(code, text))

    free = found.phi
    if phi is not None and ci95 is not None:
        apart = not free.ci95[0] <= phi <= free.ci95[1] and not ci95[0] <= free.value <= ci95[1]
        if apart:
            warn(
                "law_disagrees",
                f"without a law φ is {_text(free)}, and the law says {phi:.3f}: each lies outside "
                "the other's interval",
            )
    split = found.split
    if split["kind"] != "none":
        constant = (
            f"a token counts {_text(Value(**split['tokens_ratio']))} times as much in looped runs "
            "as in unlooped ones"
            if split["kind"] == "tokens"
            else f"looped runs lose {_text(Value(**split['loss_offset']))} nats at every r"
        )
        rival = next(c for c in split["candidates"] if c["kind"] not in ("none", split["kind"]))
        also = ""
        if 2 * rival["p_value"] < _TELLS:
            other = "κ on tokens" if rival["kind"] == "tokens" else "δ on the loss"
            also = (
                f"; {other} describes them too (p = {rival['p_value']:.1g}), with which φ is "
                f"{_text(Value(**rival['phi']))}"
            )
        warn(
            "arms_differ",
            f"looped and unlooped runs differ in more than r passes: {constant} (p = "
            f"{split['p_value']:.1g}); with that split off φ is {_text(Value(**split['phi']))} "
            f"without a law, {_text(free)} if it is counted as worth{also}",
        )
    graphs = found.graphs
    if graphs is not None and graphs.p_value < _TELLS and not graphs.one_each:
        warn(
            "graphs_differ",
            f"unlooped runs of unlike graphs differ in log loss (p = {graphs.p_value:.1g}) and "
            "share one surface here, since not every looped r has untied runs enough for its own: "
            "m(r) holds against a mixture of them",
        )
    if found.power_law and found.power_law["p_value"] < _TELLS:
        m = ", ".join(f"m({w.recurrences:g}) = {w.value:.2f}" for w in found.m)
        warn(
            "multiplicity_form",
            f"without a law, r^φ does not describe what r passes are worth (p = "
            f"{found.power_law['p_value']:.1g}): {m}",
        )
    if found.too_few:
        warn(
            "twins_left_out",
            f"fewer than {_LEAST_RUNS} runs have their unlooped twin inside at r = "
            f"{', '.join(f'{r:g}' for r in found.too_few)}, which takes no part in the measurement "
            "without a law",
        )
    out = [one for one in found.left_out if one.recurrences not in found.too_few]
    if out:
        n = sum(len(one.run_ids) for one in out)
        warn(
            "twins_left_out",
            f"{n} of {len(found.twins)} looped runs have their unlooped twin outside the unlooped "
            "runs and take no part in the measurement without a law",
        )
    return said


def _text(value: Value) -> str:
    low, high = value.ci95
    return f"{value.value:.3f} [{low:.3f}, {high:.3f}]"


def _candidate(
    runs: Twins, levels: Array, constant: Constant, log_m: Array, free: Solved
) -> Candidate:
    """m(r), both exponents and the constant, all fitted with that constant allowed."""
    indicator = runs.indicator(levels)
    asked = free.errors.goes_along
    # an m of each r takes up what its runs have in common; r^φ leaves it in the residuals
    lines_asked = asked or None
    own = free if constant == "none" else solve(runs, levels, indicator, constant, log_m, asked)
    log_r = np.log(runs.r)[:, None]
    power = solve(runs, levels, log_r, constant, log_m, lines_asked)
    slope = None
    if levels.size > 1:
        lines = np.hstack([np.ones_like(log_r), log_r])
        slope = solve(runs, levels, lines, constant, log_m, lines_asked).value(1)
    counts = indicator.sum(axis=0)
    worths = []
    for i, level in enumerate(levels):
        at = own.factor(i)
        worths.append(
            Worth(recurrences=float(level), value=at.value, ci95=at.ci95, n_runs=int(counts[i]))
        )
    last = levels.size
    return Candidate(
        kind=constant,
        tokens_ratio=own.factor(last) if constant == "tokens" else None,
        loss_offset=own.value(last) if constant == "loss" else None,
        p_value=None
        if constant == "none"
        else own.errors.p_value(own.theta[last:], own.influence[last:]),
        rmse=float(np.sqrt((own.residual**2).mean())),
        m=tuple(worths),
        phi=power.value(0),
        phi_looped=slope,
    )


def _open(free: Solved, levels: Array) -> str | None:
    """Why the runs leave m(r) open, if they do."""
    for i, level in enumerate(levels):
        low, high = free.value(i).ci95
        at_end = not LOG_M[0] < free.theta[i] < LOG_M[1]
        if at_end or not high - low < _OPEN:
            return f"the runs leave m({level:g}) open by more than a factor of ten either way"
    return None


def _power_test(free: Solved, levels: Array) -> dict[str, float] | None:
    """Does r^φ describe m(r)? None with one value of r > 1."""
    if levels.size < 2:
        return None
    log_r = np.log(levels)
    across = np.eye(levels.size) - np.outer(log_r, log_r) / (log_r @ log_r)
    basis = np.linalg.svd(across)[0][:, : levels.size - 1].T
    values = basis @ free.theta[: levels.size]
    return {"p_value": free.errors.p_value(values, basis @ free.influence[: levels.size])}


def _drifts(runs: Twins, levels: Array, log_m: Array, go_along: bool) -> dict[str, Trend | None]:
    """Does log m move with the budget, or with tokens per parameter, at one r?"""
    along: dict[str, Array | None] = {"budget": None, "tokens_per_parameter": None}
    if runs.problem.budgets is not None:
        along["budget"] = np.log10(runs.problem.budgets[runs.looped])
    per_parameter = runs.log_tokens - np.log(runs.once + runs.r * runs.rec)
    along["tokens_per_parameter"] = per_parameter / np.log(10.0)
    return {name: _trend(runs, levels, x, log_m, go_along) for name, x in along.items()}


def _trend(
    runs: Twins, levels: Array, x: Array | None, log_m: Array, go_along: bool
) -> Trend | None:
    if x is None:
        return None
    indicator = runs.indicator(levels)
    within = x - indicator @ ((indicator.T @ x) / indicator.sum(axis=0))
    if np.ptp(within) < 1e-6 or x.size < levels.size + 2:
        return None
    columns = np.column_stack([indicator, within])
    fitted = solve(runs, levels, columns, "none", log_m, go_along)
    found = fitted.value(levels.size)
    p_value = fitted.errors.p_value(fitted.theta[-1:], fitted.influence[-1:])
    return Trend(value=found.value, ci95=found.ci95, p_value=p_value)


def _twins(runs: Twins, kept: Bools, levels: Array, log_m: Array) -> tuple[Twin, ...]:
    alone = runs.log_m_alone
    drawn = runs.surface.log_loss(runs.log_size(runs.indicator(levels) @ log_m), runs.log_tokens)
    frame = runs.frame
    budgets = runs.problem.budgets
    widths = frame["width"].to_numpy(dtype=float) if "width" in frame else None
    ids = frame["run_id"].astype(str).tolist()
    return tuple(
        Twin(
            run_id=ids[i],
            recurrences=float(runs.r[i]),
            tokens=float(np.exp(runs.log_tokens[i])),
            budget_flops=None if budgets is None else float(budgets[runs.looped[i]]),
            width=None if widths is None or not np.isfinite(widths[i]) else float(widths[i]),
            m=float(np.exp(alone[i])) if np.isfinite(alone[i]) else None,
            kept=bool(kept[i]),
            residual=float(runs.log_loss[i] - drawn[i]),
            tokens_per_parameter=float(
                np.exp(runs.log_tokens[i]) / (runs.once[i] + runs.r[i] * runs.rec[i])
            ),
        )
        for i in range(len(frame))
    )

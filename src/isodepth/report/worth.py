"""What a pass is worth without a law, in rows: the terminal and the page show the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isodepth.fitting.result import Fit, Interval
from isodepth.laws import Array
from isodepth.report.words import interval_text, size_text

ANCHORED = "φ anchored at m(1) = 1"
AMONG = "φ among looped arms (slope of log m in log r, r > 1)"
_SPLIT = {"tokens": "with κ split off", "loss": "with δ split off"}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One table: every row has a cell for each column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def worth_rows(fit: Fit) -> tuple[Rows, ...]:
    """m by r beside the law's, and all that is told of it; () where there is none."""
    found = fit.law_free
    if found is None:
        return ()
    return _by_r(fit, found), _phis(found), _checks(found)


def law_m(fit: Fit) -> dict[float, float]:
    """m of each r > 1 that the law has when r^φ doesn't bind it."""
    forms: Any = fit.lack_of_fit["multiplicities"]
    free: dict[str, float] = forms["free"]["multiplicity"] if "free" in forms else {}
    return {float(r): m for r, m in free.items()}


@dataclass(frozen=True, kw_only=True)
class Cells:
    """log(m / r^φ) of single runs, the mean where several share a cell."""

    phi: float
    whose: str  # φ
    budgets: tuple[float, ...]  # FLOPs
    widths: tuple[float, ...]
    grids: dict[float, Array]  # r → (widths, budgets); NaN where no run is

    @property
    def reach(self) -> float:
        """How far from 0 they go."""
        return max(float(np.nanmax(np.abs(grid))) for grid in self.grids.values())


def map_cells(fit: Fit, found: dict[str, Any]) -> Cells | None:
    """The law's φ where it has one; None where the runs name no budget or no width."""
    twins = [
        one
        for one in found["twins"]
        if one["kept"] and one["m"] and one["width"] and one["budget_flops"]
    ]
    if not twins:
        return None
    phi, whose = fit.phi, "of the law"
    if phi is None:
        phi, whose = float(found["phi"]["value"]), "without a law"
    budgets = sorted({one["budget_flops"] for one in twins})
    widths = sorted({one["width"] for one in twins})
    grids = {}
    for r in sorted({one["recurrences"] for one in twins}):
        total, count = np.zeros((2, len(widths), len(budgets)))
        for one in twins:
            if one["recurrences"] == r:
                at = widths.index(one["width"]), budgets.index(one["budget_flops"])
                total[at] += np.log(one["m"]) - phi * np.log(r)
                count[at] += 1
        grids[r] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return Cells(phi=phi, whose=whose, budgets=tuple(budgets), widths=tuple(widths), grids=grids)


def worth_content(fit: Fit) -> list[dict[str, Any]]:
    """What the page's script draws of it; [] where there is none."""
    found = fit.law_free
    if found is None:
        return []
    cells = map_cells(fit, found)
    name = split_name(found)
    return [
        {
            "recipe": fit.recipe,
            "phi": fit.phi,
            "phi_ci95": fit.ci95.get("phi"),
            "m": found["m"],
            "free": [{"recurrences": r, "value": m} for r, m in law_m(fit).items()],
            "split": {"name": name, "m": found["split"]["m"]} if name else None,
            "twins": [
                {
                    "id": one["run_id"],
                    "r": one["recurrences"],
                    "m": one["m"],
                    "left": one["residual"],
                    "tokens_per_parameter": one["tokens_per_parameter"],
                }
                for one in found["twins"]
                if one["kept"]
            ],
            "map": cells
            and {
                "title": f"m / r^φ, φ = {cells.phi:.3f} {cells.whose}",
                "reach": cells.reach,
                "budgets": [f"{c:.3g}" for c in cells.budgets],
                "widths": [f"{w:g}" for w in cells.widths],
                "panels": [{"r": r, "log": grid.tolist()} for r, grid in cells.grids.items()],
            },
        }
    ]


def split_name(found: dict[str, Any]) -> str | None:
    """What m is called with the constant split off that holds; None where none holds."""
    return _SPLIT.get(found["split"]["kind"])


def _by_r(fit: Fit, found: dict[str, Any]) -> Rows:
    free, split = law_m(fit), split_name(found)
    rows = []
    for i, one in enumerate(found["m"]):
        r = one["recurrences"]
        row = [f"{r:g}", _number(one, ".2f"), str(one["n_runs"]), _power(fit, r)]
        row.append(f"{free[r]:.2f}" if r in free else "")
        if split:
            row.append(_number(found["split"]["m"][i], ".2f"))
        rows.append(tuple(row))
    columns = ("r", "m without a law", "runs", "r^φ of the law", "the law's free m")
    return Rows(
        title="What r passes are worth, m(r)",
        columns=(*columns, split) if split else columns,
        rows=tuple(rows),
    )


def _power(fit: Fit, r: float) -> str:
    if fit.phi is None:
        return ""
    ends = fit.interval("phi")
    held: Interval | None = None if ends is None else (r ** ends[0], r ** ends[1])
    return f"{r**fit.phi:.2f} {interval_text(held, '.2f')}".rstrip()


def _phis(found: dict[str, Any]) -> Rows:
    chosen, split = found["split"], split_name(found)
    rows = [
        (words, _number(found[name], ".3f"), _number(chosen[name], ".3f"))[: 3 if split else 2]
        for words, name in ((ANCHORED, "phi"), (AMONG, "phi_looped"))
        if found[name]
    ]
    columns = ("exponent", "without a law")
    return Rows(
        title="φ without a law, two of them",
        columns=(*columns, split) if split else columns,
        rows=tuple(rows),
    )


def _checks(found: dict[str, Any]) -> Rows:
    rows = []
    if found["power_law"]:
        rows.append(("r^φ against free m", _p(found["power_law"]["p_value"])))
    for name, words in (("budget", "budget"), ("tokens_per_parameter", "tokens/parameter")):
        trend = found["drift"][name]
        if trend:
            said = f"log m {_number(trend, '+.3f')} for ten times, {_p(trend['p_value'])}"
            rows.append((f"drift: {words}", said))
    for one in found["split"]["candidates"]:
        words, said = _constant(one)
        phi = f"φ anchored {one['phi']['value']:.3f}"
        rows.append((words, f"{said}rms {one['rmse']:.4f}, {phi}"))
    surface = found["surface"]
    rows.append(
        (
            "surface of unlooped runs",
            f"{surface['kind']} of degree {surface['degree']}, {surface['n_runs']} runs, "
            f"rms {surface['rmse']:.4f}{_by_graph(surface.get('graphs'))}",
        )
    )
    rows += _graph_rows(found.get("graphs"))
    if found["left_out"]:
        rows.append(("twins outside, left out", _left_out(found["left_out"])))
    return Rows(
        title="Checks without a law",
        columns=("check without a law", "result; rms of log loss"),
        rows=tuple(rows),
    )


def _by_graph(graphs: list[float] | None) -> str:
    if graphs is None:
        return ""
    return f", one of each graph's untied runs, r = {', '.join(f'{r:g}' for r in graphs)}"


def _graph_rows(graphs: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Whether unlooped runs of several graphs have one surface."""
    if graphs is None:
        return []
    first = graphs["reference"]
    name = "plain r = 1" if first == 1 else f"the untied graph of r = {first:g}"
    listed = ", ".join(f"r = {r}: {_number(one, '+.4f')}" for r, one in graphs["offsets"].items())
    return [
        (f"untied graphs less {name}", f"log loss {listed}; none differs: {_p(graphs['p_value'])}")
    ]


def _constant(one: dict[str, Any]) -> tuple[str, str]:
    """A constant for all looped arms, its size and its test."""
    if one["kind"] == "tokens":
        said = f"κ = {_number(one['tokens_ratio'], '.3f')}, {_p(one['p_value'])}, "
        return "looped arms: tokens × κ", said
    if one["kind"] == "loss":
        said = f"δ = {_number(one['loss_offset'], '+.4f')}, {_p(one['p_value'])}, "
        return "looped arms: loss + δ", said
    return "looped arms: no constant", ""


def _left_out(out: list[dict[str, Any]]) -> str:
    by_r = ", ".join(
        f"{len(one['run_ids'])} of {one['n_runs']} at r = {one['recurrences']:g}" for one in out
    )
    sizes = [x for one in out for x in one["wanted_params"]]
    tokens = [x for one in out for x in one["wanted_tokens"]]
    return (
        f"{by_r}; unlooped runs of {size_text(min(sizes))} to {size_text(max(sizes))} parameters "
        f"at {size_text(min(tokens))} to {size_text(max(tokens))} tokens would hold them"
    )


def _number(one: dict[str, Any] | None, form: str) -> str:
    if one is None:
        return ""
    low, high = one["ci95"]
    return f"{one['value']:{form}} {interval_text((low, high), form)}"


def _p(value: float) -> str:
    return f"p = {value:.2g}"

"""A plan's cost, for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isodepth.planning.design import USELESS
from isodepth.report.widths import equal_r_lines, law_free_lines
from isodepth.sweep.plan import Plan, Prediction
from isodepth.sweep.status import duration


def plan_report(plan: Plan) -> RenderableType:
    """A row for every recipe and budget, the whole cost, and what was assumed."""
    spec = plan.spec
    table = Table(title=f"plan {spec.name}: {spec.description}", title_justify="left")
    for name, justify in (
        ("recipe", "left"), ("r", "left"), ("budget", "right"), ("widths", "left"),
        ("runs", "right"), ("steps", "right"), ("FLOPs", "right"), ("time", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # a plain str here
    groups = dict.fromkeys((run.recipe, run.budget_flops) for run in plan.runs)
    for recipe, budget in groups:
        mine = [r for r in plan.runs if (r.recipe, r.budget_flops) == (recipe, budget)]
        steps = [run.steps for run in mine]
        table.add_row(
            recipe,
            " ".join(dict.fromkeys(run.arm for run in mine)),
            f"{budget:.3g}",
            " ".join(str(w) for w in sorted({run.width for run in mine})),
            str(len(mine)),
            f"{min(steps)}–{max(steps)}",
            f"{sum(run.flops for run in mine):.3g}",
            duration(sum(run.seconds for run in mine)),
        )
    largest = max(run.memory_bytes for run in plan.runs)
    lines = [
        f"{len(plan.runs)} runs, {plan.flops:.3g} FLOPs, about {duration(plan.seconds)} one after "
        f"another on {spec.device}; at most {largest / 1e9:.1f} GB a run",
        *(f"  {assumption}" for assumption in plan.assumptions),
    ]
    if plan.waiting:
        waiting = ", ".join(f"{budget.flops:.3g}" for budget in plan.waiting)
        lines.append(f"not counted: budgets {waiting}, whose widths wait for the first budget")
    if plan.prediction is not None:
        lines += _predicted(plan.prediction)
    lines += [f"warning: {warned}" for warned in plan.warnings]
    parts: list[RenderableType] = [table, *(Text(line) for line in lines)]
    if plan.prediction is not None and plan.prediction.steps:
        parts.append(_steps(plan, plan.prediction))
    return Group(*parts)


def _steps(plan: Plan, found: Prediction) -> Table:
    """The runs one after the other, with what each is expected to add."""
    there = "the runs that are there"
    title = f"{there} can't tell {found.of}; with more of them:"
    if found.before is not None and found.before < USELESS:
        title = f"after {there}, {found.of} ± {found.before:.3f} expected:"
    table = Table(title=title, title_justify="left")
    for name in ("", "next run", "FLOPs", "time", "FLOPs so far", f"{found.of} ±"):
        table.add_column(name, justify="left" if name == "next run" else "right")
    by_name = {run.run_id: run for run in plan.runs}
    total = 0.0
    for i, (name, half) in enumerate(found.steps, 1):
        run = by_name[name]
        total += run.flops
        told = f"{half:.3f}" if half < USELESS else "can't tell"
        cells = (f"{run.flops:.3g}", duration(run.seconds), f"{total:.3g}", told)
        table.add_row(str(i), name, *cells)
    return table


def _predicted(found: Prediction) -> list[str]:
    worlds = "; ".join(f"{name}: ±{half:.3f}" for name, half in found.by_world.items())
    wanted = "the narrowest" if found.target is None else f"wanted ± {found.target:g}"
    where = "" if found.at_budget is None else f" at {found.at_budget:.3g} FLOPs, drifting or not,"
    lines = [f"{found.of}{where} ± {found.half_width:.3f} expected (95%; {wanted}): {worlds}"]
    if found.target is not None and found.half_width > found.target:
        needed = "" if found.needed is None else f", which takes {found.needed:.3g} {found.unit}"
        lines.append(
            f"  wider than wanted: {' and '.join(found.limits)} don't give ± "
            f"{found.target:g}{needed}"
        )
    elif found.limits:
        lines.append(f"  within the limits: {' and '.join(found.limits)}")
    return [
        *lines,
        f"  {found.held:.3g} {found.unit} held for checking the law; none of the "
        f"{found.n_candidates} cells' designs does it below {found.bound:.3g} {found.unit}",
        *(f"  supposed: {assumption}" for assumption in found.assumptions),
        *(f"  it can't tell {what}" for what in found.cannot_tell),
        *(f"  {line}" for line in _more(found)),
        *(f"  {line}" for line in _without_law(found)),
        "  where another law is true, such intervals may hold less than 95% (92% of simulated "
        "sweeps of the largest design: docs/designing-a-sweep.md)",
    ]


def _without_law(found: Prediction) -> list[str]:
    lines = [] if found.law_free is None else law_free_lines(found.law_free)
    return lines + ([] if found.equal_r is None else equal_r_lines(found.equal_r))


def _more(found: Prediction) -> list[str]:
    """What the same runs tell of a drift, or of a smallest Δφ."""
    if found.resolves:
        return [
            f"by `isodepth compare --method {name}`: Δφ ± {one.half_width:.3f}, told from 0 where "
            f"it is {one.smallest:.3f} or more (95%, in 80% of sweeps)"
            for name, one in found.resolves.items()
        ]
    if found.drift_half_width is None:
        return ["it can't tell any drift of φ with the budget"]
    return [f"a drift of φ it tells to ± {found.drift_half_width:.2g} for ten times the FLOPs"]

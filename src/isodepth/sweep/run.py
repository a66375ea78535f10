"""A sweep from its plan to its last run: data, workers, and what an adaptive plan does next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from isodepth.errors import InputError
from isodepth.fitting.result import Fit
from isodepth.minima import isoflop
from isodepth.planning.grid import Budget, optimal_width
from isodepth.runs.sweeps import PLAN_FILE
from isodepth.sweep.collect import collect
from isodepth.sweep.executors import Executor, OnChange
from isodepth.sweep.ledger import FINAL, Entry, Ledger
from isodepth.sweep.plan import Plan, plan_of, with_widths
from isodepth.sweep.spec import DataSpec

DATA = "data"
# Times that an adaptive sweep widens its first budget before it goes on as it is.
WIDENINGS = 2

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a sweep stands."""

    folder: str
    counts: dict[str, int]  # runs by state
    flops: float  # training FLOPs of the finished runs
    unfinished: tuple[tuple[str, str, str], ...]  # run, state, reason, of each that isn't done
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every run is done."""
        return not self.unfinished


def summarise(ledger: Ledger) -> Summary:
    """The states of all runs, and why each that isn't done is not."""
    entries = ledger.entries()
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.state] = counts.get(entry.state, 0) + 1
    return Summary(
        folder=str(ledger.folder),
        counts=counts,
        flops=sum(entry.run.flops for entry in entries if entry.state == "done"),
        unfinished=tuple(
            (entry.run.run_id, entry.state, _why(entry))
            for entry in entries
            if entry.state != "done"
        ),
        notes=tuple(ledger.damaged.values()),
    )


def _why(entry: Entry) -> str:
    if entry.reason:
        return entry.reason
    return {"planned": "not begun", "running": "being trained"}.get(entry.state, "stopped")


def prepare_data(spec: DataSpec, folder: Path, say: Say) -> None:
    """Prepare the sweep's text in `folder`, unless that was done.

    Raises InputError where the source can't be read.
    """
    from isodepth.training.data import HEADER_FILE
    from isodepth.training.prepare import prepare
    from isodepth.training.sources import open_source

    if (folder / HEADER_FILE).exists():
        return
    say(f"preparing {spec.source} with tokenizer {spec.tokenizer}")
    source = open_source(spec.source, subset=spec.subset, max_documents=spec.max_documents)
    header = prepare(
        source,
        folder,
        tokenizer=spec.tokenizer,
        validation_fraction=spec.validation,
        seed=spec.seed,
    )
    say(
        f"{header.tokens('train'):,} tokens to train on, "
        f"{header.tokens('validation'):,} for validation"
    )


def check_data(plan: Plan, data: Path) -> None:
    """Raise InputError unless the prepared data have the vocabulary that the plan counts with."""
    from isodepth.training.data import read_header

    found = read_header(data).vocabulary
    if replace(plan.spec, vocabulary=found).shape.vocab != plan.spec.shape.vocab:
        raise InputError(
            f"{data} has a vocabulary of {found}, the plan counts FLOPs with "
            f"{plan.spec.vocabulary}; plan again with --vocabulary {found}"
        )


def sweep(
    ledger: Ledger,
    executor: Executor,
    stop: threading.Event,
    *,
    law: Fit | None,
    on_change: OnChange,
    say: Say,
) -> Summary:
    """Train every run of the ledger's plan; an adaptive one grows as its results come in.

    `law` is what an adaptive plan chose its widths by. Runs that failed before get a fresh set of
    tries, and a finished one whose record was lost, torn, changed or is another run's is finished
    again from its last checkpoint. Raises InputError as the executor does.
    """
    for entry in ledger.entries():
        if entry.state in ("done", "diverged"):
            try:
                entry.believed(own_model=ledger.own_model)
            except InputError as error:
                say(f"{error}; {entry.run.run_id} is finished again")
                ledger.change(entry, state="interrupted")
        if entry.state == "failed" or (entry.state == "planned" and entry.failures):
            ledger.change(entry, state="planned", failures=0, retry_at=0.0)
    widenings = 0
    while True:
        executor.run(ledger, stop, on_change)
        settled = all(entry.state in FINAL for entry in ledger.entries())
        if stop.is_set() or not settled or not ledger.plan.waiting:
            return summarise(ledger)
        if law is None:
            raise InputError("the plan is adaptive: it needs the law that it was made with")
        grown = grow(ledger, law, may_widen=widenings < WIDENINGS)
        widenings += 1
        added = len(grown.runs) - len(ledger.plan.runs)
        what = "the other budgets' widths are chosen" if not grown.waiting else "more widths needed"
        say(f"the first budget is in: {what}, {added} more runs")
        grown.save(ledger.folder / PLAN_FILE)
        ledger.reload()


def grow(ledger: Ledger, law: Fit, *, may_widen: bool) -> Plan:
    """The next plan of an adaptive sweep whose first budget is in.

    Where the law's widths do not bracket an arm's minimum, widths are added on the side to which
    its loss falls. Otherwise the waiting budgets get widths around the law's optima, each arm's
    shifted by the ratio of the measured to the expected optimal width at the first budget.
    """
    plan = ledger.plan
    spec = plan.spec
    settled = _budgets(plan)
    first = min(settled, key=lambda budget: budget.flops)
    assert first.widths is not None
    groups = [g for g in isoflop(collect(ledger)).groups if g.budget_flops == first.flops]
    sizes = {
        (run.recipe, run.recurrences, run.width): run.n_once + run.n_rec + run.n_inject
        for run in plan.runs
    }
    shifts: dict[tuple[str, int], float] = {}
    unit = spec.shape.head_size
    wider = set(first.widths)
    by_name = {recipe.name: recipe for recipe in spec.recipes}
    for group in groups:
        arm = (group.recipe, group.recurrences)
        widths = [w for w in first.widths if (*arm, w) in sizes]
        logs = [sizes[*arm, w] for w in widths]
        if group.bracketed and not group.concave and group.n_min is not None:
            measured = widths[0] * (group.n_min / logs[0]) ** _slope(widths, logs)
        else:
            rising = _falls_to_the_right(ledger, arm, first.flops)
            step = max(unit, round((max(widths) if rising else min(widths)) * 0.25 / unit) * unit)
            edge = max(widths) + step if rising else max(unit, min(widths) - step)
            wider |= {edge}
            measured = float(max(widths) if rising else min(widths))
        recipe = by_name[group.recipe]
        expected = optimal_width(law, recipe, group.recurrences, first.flops, spec.shape)
        shifts[arm] = measured / expected
    if may_widen and wider != set(first.widths):
        others = tuple(b for b in settled if b is not first)
        budgets = (replace(first, widths=tuple(sorted(wider))), *others)
        return plan_of(spec, budgets, plan.waiting, law)
    chosen = tuple(with_widths(spec, budget, law, shifts) for budget in plan.waiting)
    return plan_of(spec, (*settled, *chosen), (), law)


def _slope(widths: list[int], sizes: list[int]) -> float:
    """d log width / d log size over an arm's widths."""
    import numpy as np

    return float(np.log(widths[-1] / widths[0]) / np.log(sizes[-1] / sizes[0]))


def _falls_to_the_right(ledger: Ledger, arm: tuple[str, int], flops: float) -> bool:
    frame = collect(ledger).used
    mine = frame[
        (frame["recipe"] == arm[0])
        & (frame["recurrences"] == arm[1])
        & (frame["budget_flops"] == flops)
    ].sort_values("width")
    best = int(mine["loss"].to_numpy().argmin())
    return best >= len(mine) / 2


def _budgets(plan: Plan) -> tuple[Budget, ...]:
    """The plan's budgets with the widths that its runs have."""
    found = []
    for budget in plan.spec.budgets:
        arms = {(recipe.name, r) for recipe, r in budget.arms(plan.spec.recipes)}
        widths = budget.widths or sorted(
            {
                run.width
                for run in plan.runs
                if run.budget_flops == budget.flops and (run.recipe, run.recurrences) in arms
            }
        )
        if widths:
            found.append(replace(budget, widths=tuple(widths)))
    return tuple(found)

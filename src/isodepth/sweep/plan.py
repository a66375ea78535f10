"""A sweep plan: every run with its full settings, size and cost, as one JSON file."""

from __future__ import annotations

import json
import shlex
import string
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from isodepth.decoding import decoded
from isodepth.errors import InputError
from isodepth.files import replace_synced
from isodepth.fitting.result import Fit
from isodepth.planning.cost import memory_bytes
from isodepth.planning.foreseen import foreseen
from isodepth.planning.grid import Budget, Cell, cells, choose_widths
from isodepth.planning.widths import EqualR, LawFreeWidths
from isodepth.runs.sweeps import PLAN_FORMAT, PlannedRow, check_run_ids, read_plan_file
from isodepth.sweep.spec import Spec, checked
from isodepth.training.config import TrainConfig
from isodepth.warned import Warned, from_json, to_json

# What a command template may name, beside text: one run's own numbers, its folder, and the Python
# that runs isodepth.
_OF_RUN = (
    "run_id", "recipe", "width", "recurrences", "graph_recurrences", "tokens", "flops",
    "budget_flops", "seed",
)  # fmt: skip
PLACEHOLDERS = ("out", *_OF_RUN, "python")


@dataclass(frozen=True, kw_only=True)
class PlannedRun(PlannedRow):
    """One run; units as in the run table."""

    steps: int
    memory_bytes: float  # estimated
    seconds: float  # estimated
    train: dict[str, Any]  # TrainConfig fields but data and out

    def config(self, *, data: Path, out: Path) -> TrainConfig:
        """The trainer's settings. Raises InputError where they can't be trained with."""
        values = self.train | {"data": data, "out": out}
        return TrainConfig.from_mapping(values, where=f"run {self.run_id}")

    def fill(self, command: str, *, out: Path) -> list[str]:
        """The arguments of a command template for this run: split first, filled in after, so
        that no value can become two arguments or an instruction."""
        values = {name: getattr(self, name) for name in _OF_RUN}
        if self.graph_recurrences is None:
            values["graph_recurrences"] = self.recurrences
        plain = {k: f"{v:.10g}" if isinstance(v, float) else str(v) for k, v in values.items()}
        plain |= {"out": str(out), "python": sys.executable}
        return [part.format(**plain) for part in shlex.split(command)]


@dataclass(frozen=True, kw_only=True)
class Resolves:
    """What a plan is expected to tell of Δφ."""

    half_width: float  # of the 95% interval
    smallest: float  # |Δφ| told from 0 at 95% in 80% of sweeps


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a plan that was made for an interval of φ, or Δφ, is expected to give."""

    of: Literal["φ", "Δφ"]  # what the interval is of
    target: float | None  # half-width of the 95% interval asked for; None: the narrowest
    at_budget: float | None  # FLOPs at which φ is wanted if it may drift; None: one for all budgets
    half_width: float  # predicted: root mean square over the supposed worlds
    resolves: dict[str, Resolves]  # Δφ by either method of `compare`; none where φ is wanted
    drift_half_width: (
        float | None
    )  # predicted, of φ's change for ten times the FLOPs; None: no idea, or Δφ is wanted
    by_world: dict[str, float]  # the same for each supposed law and noise
    n_candidates: int  # cells that were chosen from
    unit: Literal["FLOPs", "GPU-hours"]  # what the runs were to cost least of
    bound: float  # [unit] no runs of these budgets and widths give this half-width for less
    held: float  # [unit] of runs held for checking the law
    limits: tuple[str, ...]  # that the runs had to keep, in words
    needed: float | None  # [unit] that the target takes, where the limits don't give it
    before: float | None  # half-width that the runs made already give; None: none are
    # beside runs made already: (run, half-width with it and those before), the most telling first
    steps: tuple[tuple[str, float], ...]
    assumptions: tuple[str, ...]
    cannot_tell: tuple[str, ...]
    law_free: LawFreeWidths | None = None  # of the first recipe; None: not simulated
    equal_r: EqualR | None = None  # of two recipes; None likewise


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a sweep, and what they were made from."""

    spec: Spec
    runs: tuple[PlannedRun, ...]
    waiting: tuple[Budget, ...]  # adaptive: budgets whose widths wait for the first one's results
    assumptions: tuple[str, ...]
    prediction: Prediction | None = None  # of plans made for an interval
    warnings: tuple[Warned, ...] = ()

    @property
    def flops(self) -> float:
        """Training FLOPs of all runs."""
        return sum(run.flops for run in self.runs)

    @property
    def seconds(self) -> float:
        """Estimated seconds of all runs, one after the other."""
        return sum(run.seconds for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": PLAN_FORMAT,
            "name": self.spec.name,
            "cost": {
                "n_runs": len(self.runs),
                "flops": self.flops,
                "seconds_one_after_another": self.seconds,
                "largest_memory_bytes": max(run.memory_bytes for run in self.runs),
            },
            "assumptions": list(self.assumptions),
            **to_json(self.warnings),
            "prediction": None if self.prediction is None else asdict(self.prediction),
            "spec": self.spec.to_json(),
            "waiting": [asdict(budget) for budget in self.waiting],
            "runs": [asdict(run) for run in self.runs],
        }

    def save(self, file: Path) -> None:
        """Write the plan. Raises InputError where the file can't be written."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_synced(file, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise InputError(f"{file} can't be written: {error.strerror}") from error


def make_plan(spec: Spec, law: Fit | None) -> Plan:
    """Work a spec out into runs.

    `law` chooses the widths of budgets that name none; with `spec.adaptive` those of the lowest
    budget only, while the others wait for its results (`recalibrate`). Raises InputError for a
    spec that makes no consistent sweep.
    """
    if spec.command is not None:
        check_command(spec.command)
        if "{graph_recurrences}" not in spec.command and any(r.untied for r in spec.recipes):
            raise InputError(
                f"the command {spec.command!r} must name {{graph_recurrences}}: an untied run has "
                "recurrences 1, and its graph so many passes"
            )
    budgets = sorted(spec.budgets, key=lambda budget: budget.flops)
    waiting: list[Budget] = []
    chosen: list[Budget] = []
    for budget in budgets:
        if budget.widths is None and spec.adaptive and chosen:
            waiting.append(budget)
        else:
            chosen.append(with_widths(spec, budget, law, {}))
    by_law = any(budget.widths is None for budget in budgets)
    plan = plan_of(spec, tuple(chosen), tuple(waiting), law if by_law else None)
    return replace(plan, warnings=(*_foreseen(plan), *plan.warnings))


def _foreseen(plan: Plan) -> tuple[Warned, ...]:
    """What the runs of each recipe, with the r = 1 runs of the first, will leave open."""
    frame = pd.DataFrame([asdict(run) for run in plan.runs]).drop(columns="train")
    if plan.waiting:  # budgets that are to come
        frame = frame.drop(columns="budget_flops")
    unlooped = frame[(frame["recipe"] == plan.spec.recipes[0].name) & (frame["recurrences"] == 1)]
    said = []
    for name, own in frame.groupby("recipe", sort=False):
        lent = () if (own["recurrences"] == 1).any() else (unlooped,)
        said += [one.about(str(name)) for one in foreseen(pd.concat([*lent, own]))]
    return tuple(said)


def with_widths(
    spec: Spec, budget: Budget, law: Fit | None, shifts: dict[tuple[str, int], float]
) -> Budget:
    """The budget with widths: its own, or those that bracket the law's optima."""
    if budget.widths is not None:
        return budget
    if law is None:
        raise InputError(f"budget {budget.flops:.3g} has no widths, and there is no law to choose")
    arms = budget.arms(spec.recipes)
    widths = choose_widths(law, arms, budget.flops, spec.shape, count=spec.n_widths, shifts=shifts)
    return replace(budget, widths=widths)


def plan_of(
    spec: Spec, budgets: tuple[Budget, ...], waiting: tuple[Budget, ...], law: Fit | None
) -> Plan:
    """The plan of budgets whose widths are settled."""
    found = cells(spec.recipes, budgets, spec.shape, seeds=spec.seeds)
    plan = plan_of_cells(spec, found)
    if law is None:
        return replace(plan, waiting=waiting)
    by_law = (
        f"widths: around the optimum that the {law.conventions.law} law fitted to {law.source} "
        f"({law.recipe}) expects"
    )
    return replace(plan, waiting=waiting, assumptions=(*plan.assumptions, by_law))


def plan_of_cells(spec: Spec, found: list[Cell]) -> Plan:
    """The plan of these runs. Raises InputError where there is none, or one can't be trained."""
    if not found:
        raise InputError("the plan holds no run")
    device = spec.processor
    assumptions = [
        f"times: {device.pace}; memory: fp32 weights, gradients and optimiser, at most "
        f"{device.micro_tokens} tokens at once",
    ]
    if spec.command is not None:
        assumptions.append(
            "parameters, tokens and FLOPs are those of isodepth's own model; the command's record "
            "has its own"
        )
    return Plan(
        spec=spec,
        runs=tuple(_run(spec, cell) for cell in found),
        waiting=(),
        assumptions=tuple(assumptions),
    )


def _run(spec: Spec, cell: Cell) -> PlannedRun:
    recipe = cell.recipe
    device = spec.processor
    train = spec.train | {
        "run_id": cell.name,
        "recipe": recipe.in_table,
        "seed": cell.seed,
        "width": cell.width,
        "recurrences": cell.recurrences,
        "injection": recipe.injection,
        "lanes": recipe.lanes,
        "backprop_last": recipe.backprop_last(cell.recurrences),
        "tokens": cell.tokens,
        "budget_flops": cell.budget_flops,
    }
    if recipe.untied:
        train["untied"] = True
    run = PlannedRun(
        run_id=cell.name,
        recipe=recipe.in_table,
        recurrences=1 if recipe.untied else cell.recurrences,
        graph_recurrences=cell.recurrences if recipe.untied else None,
        width=cell.width,
        seed=cell.seed,
        budget_flops=cell.budget_flops,
        steps=cell.steps,
        tokens=cell.tokens,
        flops=cell.flops,
        flops_per_token=cell.account.flops_per_token,
        n_once=cell.account.n_once,
        n_rec=cell.account.n_rec,
        n_inject=cell.account.n_inject,
        memory_bytes=memory_bytes(cell, spec.shape, device),
        seconds=cell.flops / device.flops_per_second(cell.width),
        train=train,
    )
    run.config(data=Path("data"), out=Path("out"))  # every fault shows now, not in the worker
    return run


def check_command(command: str) -> None:
    """Raise InputError unless the template can be split and names known placeholders only."""
    try:
        parts = shlex.split(command)
        named = {name for part in parts for _, name, _, _ in string.Formatter().parse(part) if name}
        empty = [
            part for part in parts for _, name, _, _ in string.Formatter().parse(part) if name == ""
        ]
    except ValueError as error:
        raise InputError(f"the command {command!r} can't be read: {error}") from error
    unknown = sorted(named - set(PLACEHOLDERS)) + ["{}"] * len(empty)
    if not parts or unknown:
        why = f"unknown placeholder {unknown[0]!r}" if unknown else "it is empty"
        raise InputError(
            f"the command {command!r} can't be used: {why}; known are "
            + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        )
    if "out" not in named:
        raise InputError(f"the command {command!r} must name {{out}}, where record.json is to lie")


def load_plan(file: Path) -> Plan:
    """Read a plan that `Plan.save` wrote. Raises InputError for anything else."""
    content, _ = read_plan_file(file)
    where = str(file)
    told = {key: content.pop(key, []) for key in ("warnings", "warning_codes")}
    plan = decoded(content, Plan, where=where)
    try:  # plans saved before they were there have none
        plan = replace(plan, warnings=from_json(told))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: its warnings are not as `isodepth plan` writes them") from error
    check_run_ids([run.run_id for run in plan.runs], where=where)
    problems = [] if plan.runs else [f"{where} holds no run"]
    for run in plan.runs:
        problems += [f"{where}: run {run.run_id}: {fault}" for fault in _faults(run)]
    if problems:
        raise InputError(problems)
    try:
        checked(plan.spec)
        if plan.spec.command is not None:
            check_command(plan.spec.command)
    except InputError as error:
        raise InputError([f"{where}: {problem}" for problem in error.problems]) from error
    return plan


_POSITIVE = (
    "recurrences", "width", "budget_flops", "tokens", "flops", "flops_per_token", "steps",
    "memory_bytes",
)  # fmt: skip
_COUNTS = ("seed", "n_once", "n_rec", "n_inject", "seconds")


def _faults(run: PlannedRun) -> list[str]:
    """What a run's own numbers contradict."""
    found = [f"{n} must be greater than 0" for n in _POSITIVE if getattr(run, n) <= 0]
    found += [f"{n} must not be negative" for n in _COUNTS if getattr(run, n) < 0]
    own = {name: getattr(run, name) for name in ("run_id", "recipe", "width", "seed", "tokens")}
    untied = run.graph_recurrences is not None
    own["recurrences"] = run.graph_recurrences if untied else run.recurrences
    for name, value in own.items():
        if run.train.get(name) != value:
            found.append(f"{name} is {value!r}, and {run.train.get(name)!r} in its train")
    if run.train.get("untied", False) != untied or (untied and run.recurrences != 1):
        found.append("graph_recurrences are of untied runs, whose recurrences are 1")
    return found


_ESTIMATES = ("memory_bytes", "seconds")  # which a later isodepth may make better
_SHOWN = 3


def differences(plan: Plan, there: Plan) -> list[str]:
    """How a sweep's own plan differs from the one it is to go on with, in words; [] if it doesn't.

    A sweep that grows, because it is adaptive or made for an interval, may have more runs.
    """
    found = [
        f"{name} is {getattr(there.spec, name)!r}, not {getattr(plan.spec, name)!r}"
        for name in (field.name for field in fields(Spec))
        if getattr(there.spec, name) != getattr(plan.spec, name)
    ]
    own = {run.run_id: run for run in there.runs}
    wanted = {run.run_id for run in plan.runs}
    for run in plan.runs:
        if run.run_id not in own:
            found.append(f"it has no run {run.run_id}")
            continue
        other = own[run.run_id]
        found += [
            f"{run.run_id}: {name} is {getattr(other, name)!r}, not {getattr(run, name)!r}"
            for name in (field.name for field in fields(PlannedRun))
            if name not in _ESTIMATES and getattr(other, name) != getattr(run, name)
        ]
    if not plan.waiting and plan.prediction is None:
        found += [f"it has the run {name} besides" for name in own if name not in wanted]
    more = len(found) - _SHOWN
    return found if more <= 0 else [*found[:_SHOWN], f"and {more} more differences"]

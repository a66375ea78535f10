"""The commands `plan`, `sweep`, `status` and `collect`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isodepth.errors import InputError
from isodepth.output import Output
from isodepth.sweep.request import Request
from isodepth.sweep.wanted import Wanted
from isodepth.terminal import console
from isodepth.warned import Warned

if TYPE_CHECKING:
    from isodepth.fitting.result import Fit
    from isodepth.sweep.executors import Executor, OnChange
    from isodepth.sweep.ledger import Ledger
    from isodepth.sweep.plan import Plan
    from isodepth.sweep.spec import Spec
    from isodepth.sweep.target import Wish

SweepFolder = Annotated[Positional[Path], arg(metavar="DIR", help="folder of a sweep")]


@dataclass(frozen=True, kw_only=True)
class PlanCommand(Wanted, Request):
    """Plan a sweep: every run with its settings, size, cost and time, as JSON."""

    out: Annotated[Path | None, arg(metavar="PLAN.json")] = None
    """file for the plan, which `isodepth sweep` takes"""
    runs: Annotated[str | None, arg(metavar="RUNS")] = None
    """design: runs made already, which count at no cost; without --fit they tell the laws that are
    supposed, without --noise the noise. A --fit without --noise tells its own noise, its warnings
    are the plan's too, and where it doubts r^φ every r keeps a run"""
    next: int | None = None
    """with --runs: that many more runs, each the one that narrows most for its FLOPs"""

    def run(self) -> None:
        from isodepth.sweep.trust import remember

        spec = self.spec()
        plan = self.plan(spec)
        remember(plan)
        if self.out is not None:
            plan.save(self.out)
        self.write(plan.to_json())
        if not self.quiet and self.json != "-":
            show_plan(plan, stderr=False)
            if self.out is not None:
                self.say(f"plan: {self.out}; `isodepth sweep {self.out} --out DIR` trains it")

    def plan(self, spec: Spec) -> Plan:
        """The grid, or the cheapest runs for the interval wanted."""
        from isodepth.sweep.plan import make_plan
        from isodepth.sweep.target import plan_for, without_law

        if self.target_ci is None and self.gpu_hours is None and self.next is None:
            ways = "--target-ci, --gpu-hours or --next"
            self.refuse_limits(ways)
            if self.runs is not None:
                raise InputError(f"--runs is for designs: give {ways}")
            law = self.law(spec)
            plan = make_plan(spec, law)
            own = () if law is None or self.fit_file is None else carried([law])
            return replace(plan, warnings=(*plan.warnings, *own))
        if self.n_widths is not None:
            raise InputError("--n-widths has no part in a design, which chooses the widths")
        wish, fits = self.design(spec)
        plan = without_law(plan_for(spec, wish, fits), wish, fits)
        if self.fit_file is None:
            return plan
        return replace(plan, warnings=(*plan.warnings, *carried(fits)))

    def design(self, spec: Spec) -> tuple[Wish, list[Fit]]:
        """What is wanted, and the laws to suppose."""
        from isodepth.fitting import Fit
        from isodepth.planning.supposed import noise_of, r_doubted, supposed
        from isodepth.planning.worlds import NOISES, prior
        from isodepth.runs import load_runs
        from isodepth.sweep.target import recipe_of

        own = None if self.fit_file is None else [Fit.load(self.fit_file)]
        made, laws = None, own
        noises: tuple[float, ...] = NOISES
        if own is not None:
            told_by = [noise for noise in map(noise_of, own) if noise is not None]
            noises = tuple(told_by) or NOISES
        if self.runs is not None:
            made = load_runs(self.runs)
            if own is None or self.noise is None:
                told = supposed(made, recipe_of(made, spec))
                noises, laws = told.noises, own or told.fits
        wish = self.wish(noises, made=made, next_runs=self.next)
        doubted = own is not None and any(map(r_doubted, own))
        return replace(wish, every_r=doubted), laws or prior("published")


def carried(fits: list[Fit]) -> tuple[Warned, ...]:
    """The warnings of the fits that a plan supposes, as theirs."""
    return tuple(
        warned.about(f"the supposed fit ({one.source}, {one.recipe})")
        for one in fits
        for warned in one.warnings
    )


def show_plan(plan: Plan, *, stderr: bool) -> None:
    """Print a plan's cost: where it is the result, or on standard error."""
    from isodepth.sweep.plan_report import plan_report

    console(stderr=stderr).print(plan_report(plan))


@dataclass(frozen=True, kw_only=True)
class Execution(Output):
    """How a sweep is trained."""

    data: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """text made by `isodepth data prepare`; default: what the plan names, prepared in DIR/data"""
    executor: Literal["local", "slurm"] = "local"
    """where workers run"""
    workers: int | None = None
    """worker processes, under Slurm of each job; default: what packs this machine best"""
    threads: int | None = None
    """CPU threads of a worker; default: the cores, shared evenly"""
    retries: int = 3
    """times that a run which failed is tried again"""
    jobs: int = 1
    """Slurm: jobs, which share the runs"""
    time: int = 60
    """Slurm: minutes that a job may take; it is requeued with its runs checkpointed when over"""
    cpus: int = 1
    """Slurm: cores of a job"""
    gpus: int = 0
    """Slurm: GPUs of a job"""
    memory: float = 4.0
    """Slurm: main memory of a job, gigabytes"""
    partition: str | None = None
    """Slurm: partition"""
    account: str | None = None
    """Slurm: account"""
    qos: str | None = None
    """Slurm: quality of service"""
    constraint: str | None = None
    """Slurm: features that a node must have"""
    gres: str | None = None
    """Slurm: generic resources, as in gpu:h100:4, where a cluster wants them instead of --gpus"""
    nodes: int = 1
    """Slurm: nodes of a job"""
    sbatch: Annotated[tuple[str, ...], arg(metavar="KEY[=VALUE] ...")] = ()
    """Slurm: any further options of sbatch, as in --sbatch exclusive reservation=winter"""

    def make_executor(self, data: Path | None) -> Executor:
        """The executor that these options describe."""
        if self.executor == "local":
            from isodepth.sweep.executors import LocalExecutor

            return LocalExecutor(
                data=data, workers=self.workers, threads=self.threads, retries=self.retries
            )
        from isodepth.sweep.slurm import SlurmExecutor

        return SlurmExecutor(
            data=data,
            workers=self.workers,
            threads=self.threads,
            retries=self.retries,
            jobs=self.jobs,
            minutes=self.time,
            cpus=self.cpus,
            gpus=self.gpus,
            memory_gb=self.memory,
            partition=self.partition,
            account=self.account,
            qos=self.qos,
            constraint=self.constraint,
            gres=self.gres,
            nodes=self.nodes,
            sbatch=self.sbatch,
        )

    def train_all(self, ledger: Ledger, law: Fit | None) -> int:
        """Prepare the data, train every run, tell how it went; the command's exit status."""
        from isodepth.sweep.run import check_data, prepare_data, summarise, sweep
        from isodepth.training.guards import stop_signals

        plan = ledger.plan
        data = self.data
        try:
            if plan.spec.command is None:
                if data is None and plan.spec.data is not None:
                    data = ledger.folder / "data"
                    prepare_data(plan.spec.data, data, self.say)
                if data is None:
                    raise InputError("the plan names no text: give --data FOLDER")
                check_data(plan, data)
            with stop_signals() as stop, self.progress(ledger) as on_change:
                sweep(
                    ledger,
                    self.make_executor(data),
                    stop,
                    law=law,
                    on_change=on_change,
                    say=self.say,
                )
        except OSError as error:
            raise InputError(
                f"{ledger.folder}: {error.strerror or error}; every run that was finished is kept, "
                "the same command goes on"
            ) from error
        summary = summarise(ledger)
        for note in summary.notes:
            self.say(note)
        words = ", ".join(f"{n} {state}" for state, n in summary.counts.items())
        self.say(f"{ledger.folder}: {words}; {summary.flops:.3g} FLOPs")
        for run_id, state, reason in summary.unfinished:
            self.say(f"  {run_id} is {state}: {reason}")
        if not summary.complete and stop.is_set():
            jobs = "its jobs go on until scancel; " if self.executor == "slurm" else ""
            self.say(f"stopped; {jobs}the same command goes on")
        return 0 if summary.complete else 1

    @contextmanager
    def progress(self, ledger: Ledger) -> Iterator[OnChange]:
        """A bar over training FLOPs on a terminal, a line a finished run elsewhere."""
        if self.quiet:
            yield lambda entries: None
            return
        from isodepth.sweep.watching import Watching

        with Watching() as watching:
            yield watching.update


@dataclass(frozen=True, kw_only=True)
class SweepCommand(Execution):
    """Train every run of a plan, or go on with it, or join in.

    The same command goes on after any interruption, and may run several times at once on one
    folder. Exit status 1 where a run isn't done.
    """

    plan: Annotated[Positional[Path], arg(metavar="PLAN.json", help="made by `isodepth plan`")]
    out: Annotated[Path, arg(metavar="DIR")]
    """folder of the sweep"""
    fit_file: Annotated[str | None, arg(name="fit", metavar="FIT.json")] = None
    """adaptive plans: the law that the plan was made with; default: the published grid's"""
    trust: bool = False
    """run the command of a plan that wasn't made here, without asking"""

    def run(self) -> int:
        from isodepth.sweep.ledger import Ledger
        from isodepth.sweep.plan import load_plan
        from isodepth.sweep.run import summarise
        from isodepth.sweep.trust import check_trusted

        plan = load_plan(self.plan)
        check_trusted(plan, str(self.plan), trust=self.trust)
        ledger = Ledger.open(self.out, plan)
        law = None
        if ledger.plan.waiting:
            law = Request(fit_file=self.fit_file).law(plan.spec)
        if not self.quiet:
            show_plan(ledger.plan, stderr=True)
        status = self.train_all(ledger, law)
        self.write(asdict(summarise(ledger)))
        return status


@dataclass(frozen=True, kw_only=True)
class StatusCommand(Output):
    """How a sweep stands; on a terminal, until it has ended or Ctrl-C."""

    folder: SweepFolder

    def run(self) -> None:
        from isodepth.sweep.ledger import FINAL, Ledger
        from isodepth.sweep.status import standing, status_report

        ledger = Ledger(self.folder)
        entries = ledger.entries()
        self.write(
            standing(entries).to_json()
            | {
                "runs": [
                    {
                        "run_id": entry.run.run_id,
                        "state": entry.state,
                        "attempts": len(entry.attempts),
                        "reason": entry.reason,
                    }
                    for entry in entries
                ]
            }
        )
        if self.quiet or self.json == "-":
            return
        if not sys.stdout.isatty():
            console().print(status_report(entries))
            return
        from rich.live import Live

        with Live(status_report(entries), refresh_per_second=2) as live:
            try:
                while not all(entry.state in FINAL for entry in entries):
                    time.sleep(1.0)
                    ledger.reload()
                    entries = ledger.entries()
                    live.update(status_report(entries))
            except KeyboardInterrupt:
                return


@dataclass(frozen=True, kw_only=True)
class CollectCommand(Output):
    """Write a sweep's run table: runs.parquet and runs.csv."""

    folder: SweepFolder
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """folder for the two files; default: the sweep's own"""

    def run(self) -> None:
        from isodepth.sweep.collect import collect, write_table
        from isodepth.sweep.ledger import Ledger

        runs = collect(Ledger(self.folder))
        files = write_table(runs, self.out or self.folder)
        counts = runs.frame["status"].value_counts().to_dict()
        for note in runs.notes:
            self.say(note)
        self.say(f"{len(runs)} runs: {', '.join(str(file) for file in files)}")
        self.write(
            {
                "files": [str(file) for file in files],
                "n_runs": len(runs),
                "counts": {str(k): int(v) for k, v in counts.items()},
            }
        )

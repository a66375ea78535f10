"""Workers under Slurm, through submitit: array jobs that share the sweep's folder.

Each job trains as a local sweep that joins in on the folder, so that several runs are packed into
one job and a job that comes back after a requeue goes on where the ledger stands. A run is judged
by its record and never by the scheduler's word. Before a job's time is over, or when it is
pre-empted, Slurm sends a signal (SIGUSR2): the runs are checkpointed and the job asks to be
requeued. A sweep that was stopped while its jobs went on follows them when it is given again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isodepth.errors import InputError
from isodepth.sweep.executors import LocalExecutor, OnChange
from isodepth.sweep.ledger import FINAL, Entry, Ledger
from isodepth.training.guards import stop_signals

SLURM_LOGS = "slurm"
POLL_SECONDS = 2.0
SIGNAL_SECONDS = 90  # before a job's end: time to finish a step and write a checkpoint
SHORTEST_MINUTES = 4  # Slurm may send the signal a minute early
# Rounds of jobs in which no run ended, after which it is given up.
FRUITLESS_ROUNDS = 3
# Options of sbatch that are ours to set, and what to give instead.
_HERE = "isodepth sets it itself"
OURS = {
    "time": "give --time",
    "cpus-per-task": "give --cpus",
    "mem": "give --memory",
    "partition": "give --partition",
    "account": "give --account",
    "qos": "give --qos",
    "constraint": "give --constraint",
    "gres": "give --gres",
    "gpus-per-node": "give --gpus",
    "nodes": "give --nodes",
    **dict.fromkeys(
        ("array", "job-name", "output", "error", "open-mode", "signal", "requeue", "no-requeue",
         "ntasks", "ntasks-per-node", "wckey", "wrap"),
        _HERE,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor:
    """Array jobs of `jobs` tasks."""

    data: Path | None
    workers: int | None = None  # worker processes in a job; None: what packs the job best
    threads: int | None = None  # CPU threads of a worker
    retries: int = 3
    jobs: int = 1
    minutes: int = 60  # a job's time limit
    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 4.0  # of a job, GiB
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None  # features that a node must have
    gres: str | None = None  # as in gpu:h100:4; where a cluster wants it instead of `gpus`
    nodes: int = 1  # of a job; each trains as a sweep of its own on the shared folder
    sbatch: tuple[str, ...] = ()  # any further options, KEY or KEY=VALUE

    def run(self, ledger: Ledger, stop: threading.Event, on_change: OnChange) -> None:
        """Submit jobs and follow the ledger until every run has ended.

        `stop` only ends the following: the jobs go on, and a later sweep on the folder follows
        them. Raises InputError where Slurm takes no job, or where its jobs train nothing.
        """
        self._check()
        fruitless = 0
        before: list[int] | None = None  # the ledger when jobs were last submitted
        while not stop.is_set():
            entries = ledger.entries()
            on_change(entries)
            left = sum(entry.state not in FINAL for entry in entries)
            if not left:
                return
            if not _queued(ledger):
                entries = ledger.entries()  # as the last job left it
                fruitless = fruitless + 1 if _versions(entries) == before else 0
                if fruitless >= FRUITLESS_ROUNDS:
                    raise InputError(
                        f"Slurm jobs ended {fruitless} times without training anything; see the "
                        f"logs in {ledger.folder / SLURM_LOGS}"
                    )
                before = _versions(entries)
                self._submit(ledger, min(self.jobs, left))
            stop.wait(POLL_SECONDS)

    def _check(self) -> None:
        least = {"jobs": 1, "time": SHORTEST_MINUTES, "cpus": 1, "gpus": 0, "nodes": 1}
        given = {
            "jobs": self.jobs,
            "time": self.minutes,
            "cpus": self.cpus,
            "gpus": self.gpus,
            "nodes": self.nodes,
        }
        problems = [
            f"--{name} {given[name]} must be at least {lowest}"
            for name, lowest in least.items()
            if given[name] < lowest
        ]
        if shutil.which("srun") is None:
            problems.append("--executor slurm needs Slurm, whose program srun is not here")
        if not self.memory_gb > 0:
            problems.append(f"--memory {self.memory_gb} must be more than 0")
        for name, value in self._further().items():
            if name in OURS:
                problems.append(f"--sbatch {name}: {OURS[name]}")
            elif not name or value == "":
                problems.append(f"--sbatch {name}={value} must be KEY or KEY=VALUE")
        if problems:
            raise InputError(problems)

    def _further(self) -> dict[str, str | bool]:
        """The further options by name; True where one has no value."""
        pairs = (option.partition("=") for option in self.sbatch)
        return {
            name.strip().lstrip("-"): value.strip() if equals else True
            for name, equals, value in pairs
        }

    def _submit(self, ledger: Ledger, jobs: int) -> None:
        """Submit an array of `jobs` jobs, or a single one."""
        submitit = _submitit()
        logs = (ledger.folder / SLURM_LOGS).resolve()
        options = {
            "job_name": f"isodepth-{ledger.plan.spec.name}",
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            # srun doesn't take it over from the job (since Slurm 22.05)
            "srun_args": [f"--cpus-per-task={self.cpus}"],
            "mem": f"{round(self.memory_gb * 1024)}M",
            "signal_delay_s": SIGNAL_SECONDS,
            "array_parallelism": jobs,
            "nodes": self.nodes,
            "additional_parameters": {"requeue": True} | self._further(),
        }
        optional = {
            "gpus_per_node": self.gpus or None,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "gres": self.gres,
        }
        local = LocalExecutor(
            data=None if self.data is None else self.data.resolve(),
            workers=self.workers,
            threads=self.threads,
            retries=self.retries,
            cores=self.cpus,
            memory_bytes=self.memory_gb * 2**30,
        )
        try:
            executor = submitit.SlurmExecutor(folder=logs)
            executor.update_parameters(
                **options, **{k: v for k, v in optional.items() if v is not None}
            )
            executor.map_array(_job, [ledger.folder.resolve()] * jobs, [local] * jobs)
        except RuntimeError as error:  # what sbatch says
            raise InputError(f"Slurm takes no job: {str(error).strip()}") from error


def _job(folder: Path, local: LocalExecutor) -> str:
    """What one Slurm job does: join the sweep, and ask to be requeued if its time ran out."""
    ledger = Ledger(folder)
    with stop_signals() as stop:
        local.run(ledger, stop, lambda entries: None)
    left = [entry for entry in ledger.entries() if entry.state not in FINAL]
    # of a job on several nodes, one asks for all
    if stop.number == signal.SIGUSR2 and left and os.environ.get("SLURM_PROCID", "0") == "0":
        subprocess.run(["scontrol", "requeue", _own_number()], check=True)
        return f"requeued with {len(left)} runs left"
    return f"ended with {len(left)} runs left"


def _own_number() -> str:
    """This job's number. One task of an array has the array's own number in SLURM_JOB_ID, which
    would requeue all of them."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is None:
        return os.environ["SLURM_JOB_ID"]
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def _versions(entries: list[Entry]) -> list[int]:
    """Changes when any run's state does."""
    return [entry.version for entry in entries]


def _queued(ledger: Ledger) -> bool:
    """Whether Slurm still holds a job that a sweep on this folder submitted."""
    scripts = (ledger.folder / SLURM_LOGS).glob("*_submission.sh")  # submitit's, by job
    ours = {file.name.partition("_")[0] for file in scripts}
    if not ours:
        return False
    # %F is the number that the whole array has
    command = ["squeue", "--me", "--noheader", "--format=%F"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    # a controller that doesn't answer is no word on the jobs
    return shown.returncode != 0 or not ours.isdisjoint(shown.stdout.split())


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise InputError("the Slurm executor needs `pip install isodepth[slurm]`") from error
    return submitit

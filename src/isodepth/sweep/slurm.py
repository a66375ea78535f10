"""Workers under Slurm, through submitit: array jobs that share the sweep's folder.

Each job trains as a local sweep that joins in on the folder, so that several runs are packed into
one job and a job that comes back after a requeue goes on where the ledger stands. A run is judged
by its record and never by the scheduler's word. Before a job's time is over, or when it is
pre-empted, Slurm sends a signal (SIGUSR2): the runs are checkpointed and the job asks to be
requeued.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isodepth.errors import InputError
from isodepth.sweep.executors import LocalExecutor, OnChange
from isodepth.sweep.ledger import FINAL, Ledger
from isodepth.training.guards import stop_signals

SLURM_LOGS = "slurm"
POLL_SECONDS = 2.0
SIGNAL_SECONDS = 90  # before a job's end: time to finish a step and write a checkpoint
# Rounds of jobs in which no run ended, after which it is given up.
FRUITLESS_ROUNDS = 3


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
    memory_gb: float = 4.0
    partition: str | None = None
    account: str | None = None

    def run(self, ledger: Ledger, stop: threading.Event, on_change: OnChange) -> None:
        """Submit jobs and follow the ledger until every run has ended.

        `stop` only ends the following: the jobs go on, and a later sweep on the folder joins them.
        """
        fruitless = 0
        while not stop.is_set():
            entries = ledger.entries()
            on_change(entries)
            open_runs = [entry for entry in entries if entry.state not in FINAL]
            if not open_runs:
                return
            before = _progress(ledger)
            job_id = self._submit(ledger, min(self.jobs, len(open_runs)))
            while not stop.wait(POLL_SECONDS):
                entries = ledger.entries()
                on_change(entries)
                if all(entry.state in FINAL for entry in entries) or not _queued(job_id):
                    break
            fruitless = fruitless + 1 if _progress(ledger) == before else 0
            if fruitless >= FRUITLESS_ROUNDS and not stop.is_set():
                raise InputError(
                    f"Slurm jobs ended {fruitless} times without training anything; see the logs "
                    f"in {ledger.folder / SLURM_LOGS}"
                )

    def _submit(self, ledger: Ledger, jobs: int) -> str:
        """Submit an array of `jobs` jobs; its number."""
        submitit = _submitit()
        logs = (ledger.folder / SLURM_LOGS).resolve()
        executor = submitit.SlurmExecutor(folder=logs)
        options = {
            "job_name": f"isodepth-{ledger.plan.spec.name}",
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            "mem": f"{round(self.memory_gb * 1024)}M",
            "signal_delay_s": SIGNAL_SECONDS,
            "array_parallelism": jobs,
        }
        optional = {
            "gpus_per_node": self.gpus or None,
            "partition": self.partition,
            "account": self.account,
        }
        executor.update_parameters(
            **options, **{k: v for k, v in optional.items() if v is not None}
        )
        data = None if self.data is None else self.data.resolve()
        folder = ledger.folder.resolve()
        work = (folder, data, self.workers, self.threads, self.retries)
        submitted = executor.map_array(_job, *([value] * jobs for value in work))
        return str(submitted[0].job_id).split("_")[0]


def _job(
    folder: Path, data: Path | None, workers: int | None, threads: int | None, retries: int
) -> str:
    """What one Slurm job does: join the sweep, and ask to be requeued if its time ran out."""
    ledger = Ledger(folder)
    with stop_signals() as stop:
        executor = LocalExecutor(data=data, workers=workers, threads=threads, retries=retries)
        executor.run(ledger, stop, lambda entries: None)
    left = [entry for entry in ledger.entries() if entry.state not in FINAL]
    if stop.number == signal.SIGUSR2 and left:
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        return f"requeued with {len(left)} runs left"
    return f"ended with {len(left)} runs left"


def _progress(ledger: Ledger) -> list[int]:
    """Changes when any run's state does."""
    return [entry.version for entry in ledger.entries()]


def _queued(job_id: str) -> bool:
    """Whether Slurm still holds any job of the array."""
    shown = subprocess.run(
        ["squeue", "--noheader", "--jobs", job_id], capture_output=True, text=True, check=False
    )
    if shown.returncode == 0:
        return bool(shown.stdout.strip())
    # Slurm forgets a job soon after its end, and then calls its number invalid; anything else, a
    # controller that doesn't answer say, is no word on the job.
    return "Invalid job id" not in shown.stderr


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise InputError("the Slurm executor needs `pip install isodepth[slurm]`") from error
    return submitit

"""Where workers run: on this machine. (`slurm` has the other place.)

An executor keeps workers going until no run of the ledger can be taken any more. It owns no state:
whatever it knows is in the ledger, so that it can be killed and started again, or run beside
another one on the same folder.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from isodepth.errors import InputError
from isodepth.sweep.ledger import FINAL, Entry, Ledger, Watch, process_start
from isodepth.sweep.worker import WorkerOptions

LOGS = "logs"
POLL_SECONDS = 0.25
MEMORY_SHARE = 0.9  # of what is free, that workers may fill
IDLE_DEATHS = 3  # workers in a row that ended in error without taking a run: something is wrong

OnChange = Callable[[list[Entry]], None]


class Executor(Protocol):
    """Trains what the ledger holds."""

    def run(self, ledger: Ledger, stop: threading.Event, on_change: OnChange) -> None:
        """Return when no run is left that can be trained, or soon after `stop` is set.

        `on_change` is called now and then with every entry. Raises InputError where workers can't
        do anything at all.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LocalExecutor:
    """Worker processes on this machine."""

    data: Path | None
    workers: int | None = None  # None: as many as `packing` finds best
    threads: int | None = None  # CPU threads of a worker; None: the cores, shared evenly
    retries: int = 3
    cores: int | None = None  # that workers may use; None: all that this process may
    memory_bytes: float | None = None  # main memory that they may fill; None: what is free

    def run(self, ledger: Ledger, stop: threading.Event, on_change: OnChange) -> None:
        """Start workers, replace those that die, and note what they were training."""
        slots = packing(
            ledger,
            self.workers,
            self.threads,
            cores=self.cores or cpu_cores(),
            memory_bytes=self.memory_bytes or _free_memory(),
        )
        pool = _Pool(ledger, slots, data=self.data, retries=self.retries)
        try:
            while True:
                entries = ledger.entries()
                entries = pool.bury(entries)
                on_change(entries)
                if stop.is_set() or all(entry.state in FINAL for entry in entries):
                    break
                # what another sweep's workers are training is waited for: they may die
                elsewhere = any(entry.state == "running" for entry in entries)
                if not pool.fill(entries) and not pool.working and not elsewhere:
                    break
                stop.wait(POLL_SECONDS)
        finally:
            pool.end()
        on_change(ledger.entries())


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place for one worker."""

    threads: int  # CPU threads
    gpu: str | None = None  # as CUDA_VISIBLE_DEVICES names it


def packing(
    ledger: Ledger,
    workers: int | None,
    threads: int | None,
    *,
    cores: int,
    memory_bytes: float | None,
) -> list[Slot]:
    """A slot for every worker, on `cores` cores with `memory_bytes` of main memory (None: unknown).

    Without a GPU: one worker a core, one thread each, because small operations keep no second
    thread busy, but no more than there are runs or than memory holds. With GPUs: as many workers on
    each as fit its memory, shared evenly.
    Where `threads` is not given, OMP_NUM_THREADS is kept to.
    The number of threads changes the rounding of a loss, not its worth.
    Raises InputError for fewer than one worker or thread.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise InputError(f"{name} = {value} must be at least 1")
    threads = threads or _threads_of_environment()
    runs = [e.run for e in ledger.entries() if e.state not in FINAL]
    largest = max((run.memory_bytes for run in runs), default=1.0)
    wants_gpu = ledger.plan.spec.train.get("device", "auto") != "cpu"
    gpus = _gpus() if wants_gpu else []
    if gpus:
        fitting = int(MEMORY_SHARE * min(free for _, free in gpus) / largest)
        each = max(1, min(fitting, cores // len(gpus)))
        count = workers or max(1, min(each * len(gpus), len(runs)))
        shared = threads or max(1, cores // count)
        return [Slot(threads=shared, gpu=gpus[i % len(gpus)][0]) for i in range(count)]
    if workers is None:
        fitting = cores if memory_bytes is None else int(MEMORY_SHARE * memory_bytes / largest)
        workers = max(1, min(cores, len(runs), fitting))
    return [Slot(threads=threads or max(1, cores // workers))] * workers


@dataclass
class _Working:
    process: subprocess.Popen[bytes]
    started: str
    slot: Slot
    out_of_memory: int  # kills on this machine when it began
    log: Path


@dataclass
class _Pool:
    """The worker processes of one executor."""

    ledger: Ledger
    slots: list[Slot]
    data: Path | None
    retries: int
    working: dict[int, _Working] = field(default_factory=dict)  # by slot
    idle_deaths: int = 0
    watch: Watch = field(default_factory=Watch)

    def fill(self, entries: list[Entry]) -> bool:
        """Start a worker in every free slot there is a run for; whether there is such a run."""
        now = time.time()
        held = {w.process.pid for w in self.working.values()}
        takable = sum(
            entry.state in ("planned", "interrupted")
            or (entry.state == "running" and self.watch.dead(entry))
            for entry in entries
            if not entry.waits(now)
        )
        busy = sum(e.owner is not None and e.owner.pid in held for e in entries)
        waiting = len(self.working) - busy  # started, and yet to take a run
        for index, slot in enumerate(self.slots):
            if takable - waiting <= 0:
                break
            if index not in self.working:
                self.working[index] = self._start(index, slot)
                waiting += 1
        return takable > 0 or any(entry.waits(now) for entry in entries)

    def _start(self, index: int, slot: Slot) -> _Working:
        options = WorkerOptions(
            folder=self.ledger.folder,
            data=self.data,
            retries=self.retries,
            threads=slot.threads,
            parent=os.getpid(),
        )
        environment = os.environ | {"OMP_NUM_THREADS": str(slot.threads)}
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot.gpu
        log = self.ledger.folder / LOGS / f"worker-{os.getpid()}-{index}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                options.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
            )
        return _Working(
            process=process,
            started=process_start(process.pid) or "",
            slot=slot,
            out_of_memory=_out_of_memory_kills(),
            log=log,
        )

    def bury(self, entries: list[Entry]) -> list[Entry]:
        """Free the slots of workers that ended, and note the runs that they died with."""
        for index, working in list(self.working.items()):
            status = working.process.poll()
            if status is None:
                continue
            del self.working[index]
            held = [
                (i, entry)
                for i, entry in enumerate(entries)
                if entry.owner is not None
                and (entry.owner.pid, entry.owner.started) == (working.process.pid, working.started)
            ]
            for i, entry in held:
                current = self.ledger.entry(entry.run)
                if current.version == entry.version:
                    self._note_death(current, status, working)
                entries[i] = self.ledger.entry(entry.run)
            self._judge(status, working, took_a_run=bool(held))
        return entries

    def _note_death(self, entry: Entry, status: int, working: _Working) -> None:
        out_of_memory = status == -9 and _out_of_memory_kills() > working.out_of_memory
        why = (
            f"its worker was killed by signal {-status}"
            if status < 0
            else (f"its worker ended with status {status}; see {working.log}")
        )
        if out_of_memory:
            why += ": main memory ran out, so that the micro-batch is halved"
        self.ledger.worker_died(entry, why, retries=self.retries, out_of_memory=out_of_memory)

    def _judge(self, status: int, working: _Working, *, took_a_run: bool) -> None:
        """Give up where workers can't even begin."""
        self.idle_deaths = self.idle_deaths + 1 if status > 0 and not took_a_run else 0
        if status > 0 and self.idle_deaths >= IDLE_DEATHS:
            lines = working.log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
            raise InputError(f"workers can't begin: {lines[-1]} (all of it: {working.log})")

    def end(self) -> None:
        """Ask every worker to stop after its step, and wait for them."""
        for working in self.working.values():
            working.process.terminate()
        for working in self.working.values():
            working.process.wait()
        self.bury(self.ledger.entries())


def _threads_of_environment() -> int | None:
    """What OMP_NUM_THREADS says; None where it says nothing, or a list for nested loops."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) >= 1 else None


def cpu_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[tuple[str, float]]:
    """Name and free bytes of every GPU that this process may use."""
    try:
        shown = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    found = [[cell.strip() for cell in line.split(",")] for line in shown.splitlines()]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if allowed is None else [name.strip() for name in allowed.split(",")]
    return [
        (uuid, float(mebibytes) * 2**20)
        for index, uuid, mebibytes in found
        if names is None or index in names or any(n and uuid.startswith(n) for n in names)
    ]


def _free_memory() -> float | None:
    """Bytes of main memory that new processes can have; None where the system doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((float(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable")), None)


def _out_of_memory_kills() -> int:
    """Processes that this system has killed for want of memory since it began."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

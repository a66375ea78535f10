"""The ledger: who trains what, kept in the sweep's folder alone, safe with many writers.

    DIR/plan.json                    the plan
    DIR/runs/RUN_ID/state-000003.json   what is known of a run after its third change
    DIR/runs/RUN_ID/heartbeat.json   a number that its worker raises every few seconds
    DIR/runs/RUN_ID/record.json, …   what the trainer leaves

A run's state is the newest of its state files; a run without one is planned. A change is a new
file with the next number, made whole and put in its place by a hard link, which exactly one of
several writers succeeds in, on one machine or on many that share the folder. Nothing is ever
overwritten, so that the files are also the run's history, and a file that an accident has torn
leaves the one before it.

A worker is dead when its process is gone (seen from the same machine), or when its heartbeat has
not moved for `STALE_SECONDS` of the *observer's* own monotonic clock: no two clocks are compared,
and one that is set back does no harm.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from isodepth.errors import InputError
from isodepth.files import create_synced
from isodepth.runs.records import file_checksum
from isodepth.runs.states import Attempt, RunState, State, Worker, newest_state, state_file
from isodepth.runs.sweeps import PLAN_FILE, RUNS, believed, check_strays
from isodepth.sweep.plan import Plan, PlannedRun, differences, load_plan

FINAL = ("done", "diverged", "failed")

HEARTBEAT_FILE = "heartbeat.json"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
BACKOFF_SECONDS = 5.0  # before the first retry of a run that failed; doubled each time
LONGEST_BACKOFF = 300.0


def this_worker() -> Worker:
    """This process."""
    return Worker(host=this_host(), pid=os.getpid(), started=process_start(os.getpid()) or "")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the ledger knows of one run."""

    run: PlannedRun
    folder: Path
    version: int = 0  # of the state file; 0: none yet
    state: State = "planned"
    attempts: tuple[Attempt, ...] = ()
    failures: int = 0  # attempts that failed or were lost, since the sweep was last started
    halvings: int = 0  # times that the micro-batch was halved, main memory having run out
    retry_at: float = 0.0  # Unix time before which it is not tried again
    record: str | None = None  # SHA-256 of the record that it ended with

    @property
    def reason(self) -> str | None:
        """Why the last attempt ended as it did."""
        return self.attempts[-1].reason if self.attempts else None

    @property
    def owner(self) -> Worker | None:
        """Who trains it now."""
        return self.attempts[-1].worker if self.state == "running" else None

    def waits(self, now: float) -> bool:
        """Whether it must not be tried yet; a clock that was set back makes nothing wait long."""
        return 0 < self.retry_at - now <= LONGEST_BACKOFF

    def to_json(self) -> dict[str, Any]:
        """The state file's content."""
        state = RunState(
            run_id=self.run.run_id,
            version=self.version,
            state=self.state,
            failures=self.failures,
            halvings=self.halvings,
            retry_at=self.retry_at,
            attempts=self.attempts,
            record=self.record,
        )
        return asdict(state)

    def believed(self, *, own_model: bool) -> dict[str, Any]:
        """The row of the record that it ended with. Raises InputError where that can't be told."""
        return believed(self.folder, self.run, own_model=own_model, checksum=self.record)


class Ledger:
    """The states of all runs of the sweep in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: dict[Path, str] = {}  # state files passed over, and why
        self.reload()

    def reload(self) -> None:
        """Read the plan again, which an adaptive sweep extends.

        Raises InputError where the folder holds runs that the plan doesn't have.
        """
        for last in (False, True):
            self.plan: Plan = load_plan(self.folder / PLAN_FILE)
            try:
                check_strays(self.folder, {run.run_id for run in self.plan.runs})
                return
            except InputError:
                if last:  # and not a plan that has grown between the two looks
                    raise

    @property
    def own_model(self) -> bool:
        """Whether isodepth's trainer trains it, and not a command of the plan's."""
        return self.plan.spec.command is None

    @classmethod
    def open(cls, folder: Path, plan: Plan) -> Ledger:
        """Begin a sweep in `folder`, or join the one that is there.

        Raises InputError where the folder holds another plan or can't be written.
        """
        file = folder / PLAN_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(plan.to_json(), indent=1, allow_nan=False) + "\n"
            created = create_synced(file, text)
        except OSError as error:
            raise InputError(f"{folder} can't hold a sweep: {error.strerror}") from error
        ledger = cls(folder)
        differing = [] if created else differences(plan, ledger.plan)
        if differing:
            raise InputError(
                f"{folder} holds a sweep of another plan ({ledger.plan.spec.name}): "
                f"{'; '.join(differing)}; choose another folder, or go on with that plan, {file}"
            )
        return ledger

    def entries(self) -> list[Entry]:
        """Every run as it stands, in the plan's order."""
        return [self.entry(run) for run in self.plan.runs]

    def entry(self, run: PlannedRun) -> Entry:
        """One run as it stands. Raises InputError for a state that this isodepth doesn't know."""
        folder = self.folder / RUNS / run.run_id
        version, state, damaged = newest_state(folder, run.run_id)
        self.damaged |= damaged
        entry = Entry(run=run, folder=folder, version=version)
        if state is None:
            return entry
        return replace(
            entry,
            state=state.state,
            attempts=state.attempts,
            failures=state.failures,
            halvings=state.halvings,
            retry_at=state.retry_at,
            record=state.record,
        )

    def change(self, entry: Entry, **changes: Any) -> Entry | None:
        """Write the entry's next state; None where another writer was faster.

        Raises OSError where the folder can't be written.
        """
        following = replace(entry, version=entry.version + 1, **changes)
        entry.folder.mkdir(parents=True, exist_ok=True)
        file = state_file(entry.folder, following.version)
        text = json.dumps(following.to_json(), indent=1, allow_nan=False) + "\n"
        return following if create_synced(file, text) else None

    def claim(self, worker: Worker, watch: Watch, *, retries: int) -> Entry | None:
        """Take the next run for `worker`: interrupted ones first, then the longest.

        A run whose worker is dead is taken over, `retries` times at most. None where none can be
        taken now.
        """
        open_entries = [entry for entry in self.entries() if entry.state not in FINAL]
        order = {"interrupted": 0, "running": 1, "planned": 2}
        open_entries.sort(key=lambda e: (order[e.state], -e.run.seconds))
        for entry in open_entries:
            if entry.waits(time.time()):
                continue
            if entry.state == "running":
                if not watch.dead(entry):
                    continue
                entry = lost(entry, "its worker stopped without a word")
                if entry.failures > retries:
                    self.change(entry, state="failed")
                    continue
            begun = Attempt(worker=worker, begun=_now())
            taken = self.change(entry, state="running", attempts=(*entry.attempts, begun))
            if taken is not None:
                return taken
        return None

    def finish(
        self, entry: Entry, outcome: State, reason: str | None = None, *, retries: int = 0
    ) -> Entry | None:
        """End the entry's attempt. One that failed is planned again while `retries` allow it."""
        ended = ended_attempts(entry, outcome, reason)
        record = file_checksum(entry.folder) if outcome in ("done", "diverged") else None
        if outcome != "failed" or entry.failures >= retries:
            return self.change(entry, state=outcome, attempts=ended, record=record)
        return self.change(
            entry,
            state="planned",
            attempts=ended,
            failures=entry.failures + 1,
            retry_at=time.time() + backoff(entry.failures),
        )

    def worker_died(
        self, entry: Entry, reason: str, *, retries: int, out_of_memory: bool
    ) -> Entry | None:
        """Note that the worker of a running entry is gone; planned again while retries allow it."""
        failures = entry.failures + 1
        return self.change(
            entry,
            state="failed" if failures > retries else "planned",
            attempts=ended_attempts(entry, "lost", reason),
            failures=failures,
            halvings=entry.halvings + int(out_of_memory),
            retry_at=time.time() + backoff(entry.failures) if out_of_memory else 0.0,
        )


class Watch:
    """One observer's memory of heartbeats, by its own monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}

    def dead(self, entry: Entry) -> bool:
        """Whether the worker of a running entry has died."""
        owner = entry.owner
        if owner is None:
            return False
        if owner.host == this_host():
            return process_start(owner.pid) != owner.started
        beat = f"{owner.token} {read_heartbeat(entry.folder).get('beat')}"
        return self.stale(entry.run.run_id, beat, time.monotonic())

    def stale(self, run_id: str, beat: str, now: float) -> bool:
        """Whether `beat` has been the same since `STALE_SECONDS` before `now`."""
        last, since = self._seen.get(run_id, (None, now))
        if last != beat:
            self._seen[run_id] = (beat, now)
            return False
        return now - since > STALE_SECONDS


def lost(entry: Entry, reason: str) -> Entry:
    """The entry with its attempt marked as lost, not yet written."""
    return replace(
        entry, attempts=ended_attempts(entry, "lost", reason), failures=entry.failures + 1
    )


def ended_attempts(entry: Entry, outcome: str, reason: str | None) -> tuple[Attempt, ...]:
    """The entry's attempts, the last one ended now."""
    last = replace(entry.attempts[-1], ended=_now(), outcome=outcome, reason=reason)
    return (*entry.attempts[:-1], last)


def backoff(failures: int) -> float:
    """Seconds to wait before another try, after `failures` earlier ones."""
    return float(min(BACKOFF_SECONDS * 2.0**failures, LONGEST_BACKOFF))


def read_heartbeat(folder: Path) -> dict[str, Any]:
    """The heartbeat in a run's folder: beat, step, steps, tokens_per_second; empty where none."""
    try:
        content = json.loads((folder / HEARTBEAT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@cache
def this_host() -> str:
    """This machine, its boot and its process namespace: where a process number means one thing."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text(encoding="ascii").strip())
    namespace = Path("/proc/self/ns/pid")
    if namespace.is_symlink():
        parts.append(str(namespace.readlink()))
    return " ".join(parts)


def process_start(pid: int) -> str | None:
    """When a process of this machine began, as the system writes it; None where there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in ("Z", "X") else fields[19]
    shown = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

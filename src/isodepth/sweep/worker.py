"""A worker: takes runs from the ledger one after the other until none is left to take.

    python -m isodepth.sweep.worker DIR --data FOLDER --retries 3

Each run is trained in this process by our trainer, or by the plan's command in a process of its
own. A thread raises the run's heartbeat; it also ends the run in order where the sweep that started
this worker has died, or where another worker has taken the run over.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isodepth.errors import InputError
from isodepth.files import replace_synced
from isodepth.sweep.ledger import (
    HEARTBEAT_FILE,
    HEARTBEAT_SECONDS,
    Entry,
    Ledger,
    Watch,
    process_start,
    this_host,
    this_worker,
)
from isodepth.sweep.outcome import (
    Outcome,
    outcome_of,
    outcome_of_command,
    put_aside_unbelieved,
    readable_record,
)
from isodepth.training.guards import FolderBusyError, Stop, stop_signals

COMMAND_LOG = "command.log"
COMMAND_FILE = "command.json"  # the process that a command runs in
ORPHAN_SECONDS = 10.0  # that one left behind may take to end before it is killed
ERROR_FILE = "error.txt"
PARENT_SECONDS = 0.5  # between two looks whether the sweep that started this worker is there
WAIT_SECONDS = 1.0  # between two looks at a ledger whose open runs all have to wait


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How a worker works."""

    folder: Path  # the sweep's
    data: Path | None  # prepared data; None where the plan's command needs none
    retries: int  # times that a run which failed is tried again
    threads: int  # CPU threads
    parent: int | None = None  # process that this worker must not outlive

    def arguments(self) -> list[str]:
        """The command line that starts such a worker."""
        given = {
            "--data": self.data,
            "--retries": self.retries,
            "--threads": self.threads,
            "--parent": self.parent,
        }
        parts = [sys.executable, "-m", "isodepth.sweep.worker", str(self.folder)]
        for flag, value in given.items():
            if value is not None:
                parts += [flag, str(value)]
        return parts


def work(options: WorkerOptions) -> None:
    """Train runs until none can be taken, or a signal asks to stop."""
    ledger = Ledger(options.folder)
    me = this_worker()
    watch = Watch()
    if ledger.plan.spec.command is None:
        _use_threads(options.threads)
    with stop_signals() as stop:
        while not stop.is_set():
            entry = ledger.claim(me, watch, retries=options.retries)
            if entry is None:
                now = time.time()
                if not any(e.state == "planned" and e.waits(now) for e in ledger.entries()):
                    return
                stop.wait(WAIT_SECONDS)
                continue
            with _heartbeat(ledger, entry, options, stop) as pulse:
                outcome = _train(ledger, entry, options, stop, pulse)
            retries = options.retries if outcome.retry else 0
            ledger.finish(entry, outcome.state, outcome.reason, retries=retries)
            if outcome.state == "interrupted":
                return


class Pulse:
    """What the heartbeat tells; a sink of the trainer."""

    def __init__(self, steps: int) -> None:
        self.state: dict[str, Any] = {"step": 0, "steps": steps, "tokens_per_second": None}

    def step(self, report: Any) -> None:
        self.state = {
            **self.state,
            "step": report.step,
            "tokens_per_second": report.tokens_per_second,
        }

    def validation(self, step: int, loss: float) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def _heartbeat(ledger: Ledger, entry: Entry, options: WorkerOptions, stop: Stop) -> Iterator[Pulse]:
    """Raise the entry's heartbeat from a thread until the block ends."""
    pulse = Pulse(entry.run.steps)
    over = threading.Event()
    token = entry.attempts[-1].worker.token
    file = entry.folder / HEARTBEAT_FILE
    partial = entry.folder / f".{HEARTBEAT_FILE}.{token}"

    def beat() -> None:
        count, due = 0, 0.0
        while True:
            if options.parent is not None and os.getppid() != options.parent:
                stop.set()
            if time.monotonic() >= due:
                count, due = count + 1, time.monotonic() + HEARTBEAT_SECONDS
                # On a full disk training may still end well, or will say so itself.
                with suppress(OSError, InputError):
                    partial.write_text(json.dumps({"token": token, "beat": count, **pulse.state}))
                    partial.replace(file)
                    if ledger.entry(entry.run).version > entry.version:
                        stop.set()  # taken over
            if over.wait(PARENT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield pulse
    finally:
        over.set()
        thread.join()


def _train(
    ledger: Ledger, entry: Entry, options: WorkerOptions, stop: Stop, pulse: Pulse
) -> Outcome:
    """Train one run; every way in which it can end is an outcome."""
    try:
        put_aside_unbelieved(entry)
        command = ledger.plan.spec.command
        if command is not None:
            return _run_command(entry, command, stop)
        if options.data is None:
            raise InputError("the plan trains with isodepth's trainer, which needs prepared data")
        from isodepth.training.trainer import train

        config = entry.run.config(data=options.data, out=entry.folder)
        record = train(config, quiet=True, stop=stop, sink=pulse, halvings=entry.halvings)
        return outcome_of(record)
    except FolderBusyError as error:
        return Outcome(state="failed", reason=str(error), retry=True)
    except InputError as error:
        return Outcome(state="failed", reason=str(error), retry=False)
    except Exception as error:
        text = traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        with (entry.folder / ERROR_FILE).open("w", encoding="utf-8") as stream:
            stream.write(text)
        why = f"{type(error).__name__}: {error}".split("\n")[0]
        return Outcome(state="failed", reason=why, retry=True)


def _run_command(entry: Entry, command: str, stop: Stop) -> Outcome:
    """Run the plan's command for one run, without a shell, and judge it by the record it leaves."""
    arguments = entry.run.fill(command, out=entry.folder.resolve())
    _end_orphan(entry.folder)
    log = entry.folder / COMMAND_LOG
    with log.open("ab") as stream:
        try:
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )
        except OSError as error:
            why = f"the command {arguments[0]!r} can't be started: {error.strerror}"
            raise InputError(why) from error
        child = {"host": this_host(), "pid": process.pid, "started": process_start(process.pid)}
        replace_synced(entry.folder / COMMAND_FILE, json.dumps(child))
        while process.poll() is None:
            if stop.wait(0.1):
                process.terminate()
                process.wait()
    if stop.is_set() and (process.returncode != 0 or not readable_record(entry.folder)):
        return Outcome(state="interrupted", reason="stopped", retry=False)
    if process.returncode != 0:
        why = f"the command ended with status {process.returncode}: {_last_line(log)} (all: {log})"
        return Outcome(state="failed", reason=why, retry=True)
    return outcome_of_command(entry)


def _last_line(log: Path) -> str:
    """What a command said last, which for most is why it ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _end_orphan(folder: Path) -> None:
    """End the command of an earlier worker that was killed and left it running here."""
    try:
        child = json.loads((folder / COMMAND_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if child["host"] != this_host():
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + ORPHAN_SECONDS
        while process_start(child["pid"]) == child["started"] and time.monotonic() < until:
            with suppress(ProcessLookupError):
                os.kill(child["pid"], number)
            time.sleep(0.05)


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def main() -> int:
    """Entry point of `python -m isodepth.sweep.worker`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--retries", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parent", type=int)
    args = parser.parse_args()
    try:
        work(WorkerOptions(**vars(args)))
    except (InputError, OSError) as error:
        print(f"isodepth: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

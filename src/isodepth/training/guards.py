"""What keeps a run safe from outside: signals that end it in order, and one process a folder."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from isodepth.errors import InputError

LOCK_FILE = ".lock"
# Ctrl-C reaches a rank twice: from the terminal, and from torchrun, which passes on its own.
ECHO_SECONDS = 2.0


# SIGUSR2 is what Slurm sends before a job's time is over (`sbatch --signal=USR2@90`, submitit).
STOPPING = (signal.SIGTERM, signal.SIGINT) + (
    (signal.SIGUSR2,) if hasattr(signal, "SIGUSR2") else ()
)


class FolderBusyError(InputError):
    """Another process holds the run's folder."""


class Stop(threading.Event):
    """Set when the run is to end after the step in progress."""

    number: int | None = None  # the signal that set it


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """An event that one of `STOPPING` sets; one more, later, acts as if we weren't here.

    Outside the main thread, where Python allows no handlers, no signal sets it.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in STOPPING}
    ignored_until = 0.0

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal ignored_until
        if not stop.is_set():
            stop.number = number
            stop.set()
            ignored_until = time.monotonic() + ECHO_SECONDS
        elif time.monotonic() >= ignored_until:
            restore()
            signal.raise_signal(number)

    for number in previous:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system lets go of it however the process ends.

    Raises FolderBusyError where another process holds it.
    """
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise FolderBusyError(f"another process is training in {folder}") from error
    try:
        yield
    finally:
        lock.release()

"""What keeps a run safe from outside: signals that end it in order, and one process a folder."""

import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from isodepth.errors import InputError

LOCK_FILE = ".lock"
# Ctrl-C reaches a rank twice: from the terminal, and from torchrun, which passes on its own.
ECHO_SECONDS = 2.0


# SIGUSR2 is what Slurm sends before a job's time is over (`sbatch --signal=USR2@90`, submitit).
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


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
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            # A POSIX lock and not flock: helper processes that we start don't inherit it, so it
            # can't outlive us.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderBusyError(f"another process is training in {folder}") from error
        yield

"""Signals that end a run in order, and the lock on its folder."""

import signal
import subprocess
import sys
import threading

import pytest

from isodepth.errors import InputError
from isodepth.training import guards
from isodepth.training.guards import only_process, stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_and_its_echo_only_set_the_event(number):
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
    assert signal.getsignal(number) is before


def test_a_later_signal_acts_as_usual(monkeypatch):
    monkeypatch.setattr(guards, "ECHO_SECONDS", 0.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    try:
        with pytest.raises(KeyboardInterrupt), stop_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set()
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_gets_an_event_that_nothing_sets():
    seen = []

    def work():
        with stop_signals() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_folder_is_free_again_after_use(tmp_path):
    for _ in range(2):
        with only_process(tmp_path):
            pass


def test_a_folder_held_by_another_process_is_refused(tmp_path):

    script = (
        "import sys, pathlib\n"
        "from isodepth.training.guards import only_process\n"
        f"with only_process(pathlib.Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process"), only_process(tmp_path):
        pass
    holder.kill()  # however the process ends, the folder is free
    holder.communicate()
    with only_process(tmp_path):
        pass

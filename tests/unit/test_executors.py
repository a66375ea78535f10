"""Where workers run: how many there are, and what they are given up for."""

import io
import json
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from isodepth.errors import InputError
from isodepth.planning.grid import Budget, Recipe
from isodepth.sweep.executors import LocalExecutor, packing
from isodepth.sweep.ledger import HEARTBEAT_FILE, Attempt, Ledger, Watch, this_worker
from isodepth.sweep.plan import make_plan
from isodepth.sweep.spec import Spec
from isodepth.sweep.status import standing, status_report


@pytest.fixture
def ledger(tmp_path):
    spec = Spec(
        name="small",
        description="",
        recipes=(Recipe(name="baseline", recurrences=(1, 2)),),
        budgets=(Budget(flops=1e18, widths=(640, 768)),),
        train={"device": "cpu"},
        vocabulary=32001,
    )
    return Ledger.open(tmp_path / "sweep", make_plan(spec, None))


def slots(ledger, workers=None, threads=None, cores=8, memory_bytes=None):
    found = packing(ledger, workers, threads, cores=cores, memory_bytes=memory_bytes)
    return len(found), found[0].threads


def test_one_worker_a_core_but_no_more_than_runs_or_memory(ledger, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert slots(ledger, cores=2) == (2, 1)
    assert slots(ledger, cores=8) == (4, 2)  # four runs; the other cores are shared out
    largest = max(run.memory_bytes for run in ledger.plan.runs)
    assert slots(ledger, memory_bytes=2.5 * largest) == (2, 4)
    assert slots(ledger, memory_bytes=0.1 * largest) == (1, 8)  # try it all the same
    assert slots(ledger, workers=3, cores=8) == (3, 2)
    assert slots(ledger, workers=3, threads=1, cores=8) == (3, 1)
    for bad in ({"workers": 0}, {"threads": 0}):
        with pytest.raises(InputError, match="at least 1"):
            slots(ledger, **bad)


def test_workers_that_cant_begin_end_the_sweep_with_their_last_words(ledger):
    (ledger.folder / "plan.json").write_text("{}")  # torn under the workers
    executor = LocalExecutor(data=None, workers=1)
    with pytest.raises(InputError, match=r"workers can't begin: isodepth: .* is not a plan"):
        executor.run(ledger, threading.Event(), lambda entries: None)


def test_the_standing_counts_runs_in_progress_by_their_steps(ledger):
    entries = ledger.entries()
    ledger.change(entries[0], state="done", attempts=(Attempt(worker=this_worker(), begun="now"),))
    running = ledger.change(
        entries[1], state="running", attempts=(Attempt(worker=this_worker(), begun="now"),)
    )
    steps = running.run.steps
    beat = {"beat": 1, "step": steps // 4, "steps": steps, "tokens_per_second": 1000.0}
    (running.folder / HEARTBEAT_FILE).write_text(json.dumps(beat))
    now = standing(ledger.entries())
    assert now.counts == {
        "done": 1, "running": 1, "interrupted": 0, "planned": 2, "diverged": 0, "failed": 0,
    }  # fmt: skip
    flops = [entry.run.flops for entry in entries]
    assert now.flops_done == pytest.approx(flops[0] + flops[1] * (steps // 4) / steps)
    rate = 1000.0 * running.run.flops_per_token
    assert now.seconds_left == pytest.approx((sum(flops) - now.flops_done) / rate)


def test_a_report_of_a_sweep_names_what_failed_and_why(ledger):
    entry = ledger.claim(this_worker(), Watch(), retries=0)
    ledger.finish(entry, "failed", "the [red]disk[/red] is full")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(status_report(ledger.entries()))
    assert f"{entry.run.run_id} failed: the [red]disk[/red] is full" in console.export_text()


def test_the_measuring_half_and_planning_do_without_torch():
    code = (
        "import sys\n"
        "import isodepth.cli, isodepth.sweep.commands, isodepth.sweep.run, isodepth.sweep.collect\n"
        "import isodepth.sweep.executors, isodepth.sweep.measure\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

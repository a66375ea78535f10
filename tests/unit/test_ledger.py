"""The ledger: one winner for every change, nothing lost, no clock believed."""

import multiprocessing
import os
import time
from dataclasses import replace

import pytest

from isodepth.errors import InputError
from isodepth.planning.grid import Budget, Recipe
from isodepth.sweep.ledger import (
    LONGEST_BACKOFF,
    STALE_SECONDS,
    Attempt,
    Ledger,
    Watch,
    Worker,
    process_start,
    this_host,
    this_worker,
)
from isodepth.sweep.plan import make_plan
from isodepth.sweep.spec import Spec


def small_plan(**changes):
    spec = Spec(
        name="small",
        description="",
        recipes=(Recipe(name="baseline", recurrences=(1, 2)),),
        budgets=(Budget(flops=1e18, widths=(640, 768)),),
        train={},
        vocabulary=32001,
    )
    return make_plan(replace(spec, **changes), None)


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(tmp_path / "sweep", small_plan())


def elsewhere(pid=1):
    return Worker(host="another machine", pid=pid, started="then")


def here():
    return this_worker()


def test_a_run_goes_from_planned_to_done(ledger):
    assert [entry.state for entry in ledger.entries()] == ["planned"] * 4
    entry = ledger.claim(here(), Watch(), retries=0)
    assert ledger.entry(entry.run).state == "running"
    ledger.finish(entry, "done")
    after = Ledger(ledger.folder).entry(entry.run)
    assert after.state == "done"
    assert [a.outcome for a in after.attempts] == ["done"]
    assert after.attempts[0].worker == entry.attempts[0].worker


def test_the_longest_run_goes_first_and_an_interrupted_one_before_it(ledger):
    longest = max(ledger.plan.runs, key=lambda run: run.seconds)
    first = ledger.claim(here(), Watch(), retries=0)
    assert first.run == longest
    second = ledger.claim(here(), Watch(), retries=0)
    ledger.finish(second, "interrupted")
    assert ledger.claim(here(), Watch(), retries=0).run == second.run


def test_of_two_changes_of_one_state_one_wins(ledger):
    entry = ledger.entries()[0]
    assert ledger.change(entry, state="running", attempts=(_begun(here()),)) is not None
    assert ledger.change(entry, state="running", attempts=(_begun(elsewhere()),)) is None
    assert ledger.entry(entry.run).owner.host == this_host()


def _begun(worker):
    return Attempt(worker=worker, begun="now")


def _claim_all(folder, queue):
    ledger, watch, me = Ledger(folder), Watch(), this_worker()
    while (entry := ledger.claim(me, watch, retries=0)) is not None:
        queue.put((entry.run.run_id, me.token))
        ledger.finish(entry, "done")


def test_many_processes_take_every_run_once(tmp_path):
    ledger = Ledger.open(tmp_path / "sweep", small_plan(seeds=10))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_claim_all, args=(ledger.folder, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    taken = [queue.get(timeout=60) for _ in range(40)]
    for worker in workers:
        worker.join(60)
    assert queue.empty()
    assert sorted(run for run, _ in taken) == sorted(run.run_id for run in ledger.plan.runs)
    assert all(len(entry.attempts) == 1 for entry in ledger.entries())


def test_a_worker_of_this_machine_is_dead_when_its_process_is(ledger):
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
    process.start()
    gone = Worker(host=this_host(), pid=process.pid, started=process_start(process.pid) or "x")
    process.join()
    entry = ledger.entries()[0]
    running = ledger.change(entry, state="running", attempts=(_begun(gone),))
    assert Watch().dead(running)
    assert not Watch().dead(replace(running, attempts=(_begun(here()),)))
    # the same number, used again by a later process
    reused = Worker(host=this_host(), pid=os.getpid(), started="long ago")
    assert Watch().dead(replace(running, attempts=(_begun(reused),)))


def test_a_worker_elsewhere_is_dead_when_its_heartbeat_stands_still():
    watch = Watch()
    assert not watch.stale("a", "token 1", 1000.0)
    assert not watch.stale("a", "token 1", 1000.0 + STALE_SECONDS)
    assert not watch.stale("a", "token 2", 1001.0 + STALE_SECONDS)  # it moved
    assert not watch.stale("a", "token 2", 1001.0 + 2 * STALE_SECONDS)
    assert watch.stale("a", "token 2", 1002.0 + 2 * STALE_SECONDS)
    assert not watch.stale("a", "other 2", 1003.0 + 2 * STALE_SECONDS)  # another worker's


def test_a_run_whose_worker_died_is_taken_over_until_retries_run_out(ledger):
    gone = Worker(host=this_host(), pid=2**22 + 1, started="x")  # no such process
    run = max(ledger.plan.runs, key=lambda run: run.seconds)
    ledger.change(ledger.entry(run), state="running", attempts=(_begun(gone),))
    taken = ledger.claim(here(), Watch(), retries=1)
    assert taken.run == run
    assert [a.outcome for a in taken.attempts] == ["lost", None]
    again = ledger.change(taken, attempts=(*taken.attempts[:-1], _begun(gone)))
    other = ledger.claim(here(), Watch(), retries=1)
    assert other.run != run
    assert ledger.entry(run).state == "failed"
    assert again is not None


def test_a_failed_run_waits_longer_each_time_and_then_is_failed(ledger):
    waits = []
    for _ in range(3):
        entry = ledger.claim(here(), Watch(), retries=2)
        now = time.time()
        entry = ledger.finish(entry, "failed", "no luck", retries=2)
        waits.append(entry.retry_at - now)
        if entry.state == "failed":
            break
        assert entry.waits(now + 1)
        ledger.change(entry, retry_at=0.0)
    assert entry.state == "failed"
    assert entry.reason == "no luck"
    assert waits[1] > 1.5 * waits[0] > 0


def test_a_clock_set_back_makes_nothing_wait(ledger):
    entry = replace(ledger.entries()[0], retry_at=1e9)
    assert entry.waits(1e9 - 10)
    assert not entry.waits(1e9 + 1)
    assert not entry.waits(1e9 - 2 * LONGEST_BACKOFF)


def test_a_torn_state_file_leaves_the_one_before(ledger):
    entry = ledger.claim(here(), Watch(), retries=0)
    done = ledger.finish(entry, "done")
    file = done.folder / f"state-{done.version:06d}.json"
    file.write_text(file.read_text()[:40])
    again = Ledger(ledger.folder)
    found = again.entry(entry.run)
    assert found.state == "running"
    assert found.version == done.version  # the next change does not collide with the torn file
    assert str(file) in again.damaged[file]
    assert again.finish(found, "done").version == done.version + 1


def test_another_plan_in_the_folder_is_refused(ledger):
    with pytest.raises(InputError, match="another plan"):
        Ledger.open(ledger.folder, small_plan(seeds=2))
    assert Ledger.open(ledger.folder, small_plan()).plan == ledger.plan


def test_a_folder_that_cant_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't hold a sweep"):
        Ledger.open(tmp_path / "file" / "sweep", small_plan())

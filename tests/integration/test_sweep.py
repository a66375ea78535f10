"""Whole sweeps: trained, killed, joined, refused; the table is the same whatever happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import sweeps

pytest.importorskip("torch")

PATIENCE = 120.0  # seconds that anything may take before the test fails
ALONE = ("--workers", 1)  # where how many is not the point: each takes seconds to begin


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return sweeps.write_plan(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    sweeps.isodepth("sweep", plan, "--out", folder)
    return folder


def until(condition, process=None):
    """Wait until `condition` holds, or the process ends."""
    end = time.monotonic() + PATIENCE
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_a_sweep_trains_every_run_of_its_plan(plan, undisturbed):
    runs = json.loads(plan.read_text())["runs"]
    text = sweeps.table(undisturbed)
    table = pd.read_csv(undisturbed / "runs.csv")
    assert list(table["run_id"]) == [run["run_id"] for run in runs]
    assert (table["status"] == "done").all()
    assert table["loss"].between(0.5, 5.5).all()
    for column in ("tokens", "n_once", "n_rec", "n_inject", "flops", "seed", "width"):
        assert list(table[column]) == [run[column] for run in runs]
    parquet = pd.read_parquet(undisturbed / "runs.parquet")
    assert parquet["loss"].tolist() == table["loss"].tolist()
    assert text.count("\n") == len(runs) + 1


def test_workers_and_sweeps_killed_at_random_lose_nothing(plan, undisturbed, tmp_path):
    folder = tmp_path / "sweep"
    chance = random.Random(7)
    total = sum(run["steps"] for run in json.loads(plan.read_text())["runs"])
    command = ("sweep", plan, "--out", folder, "--retries", 100, "--quiet")
    process = sweeps.start(*command)
    kills = {"worker": 0, "sweep": 0}
    for share in (0.1, 0.3, 0.45, 0.6, 0.8):
        mark = total * (share + chance.uniform(-0.05, 0.05))
        until(lambda mark=mark: sweeps.steps_logged(folder) >= mark, process)
        victim = "worker" if kills["worker"] <= kills["sweep"] else "sweep"
        workers = sweeps.children(process.pid)
        if victim == "worker" and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
        else:
            process.kill()
            process.wait()
            process = sweeps.start(*command)
        kills[victim] += 1
    assert process.wait(PATIENCE) == 0, process.stderr.read()
    assert kills == {"worker": 3, "sweep": 2}
    assert sweeps.table(folder) == sweeps.table(undisturbed)
    status = json.loads(sweeps.isodepth("status", folder, "--json", "-").stdout)
    assert status["counts"]["done"] == 6
    assert sum(run["attempts"] for run in status["runs"]) > 6  # the kills were felt


def test_a_second_sweep_joins_in(plan, undisturbed, tmp_path):
    folder = tmp_path / "sweep"
    command = ("sweep", plan, "--out", folder, "--workers", 1, "--threads", 1, "--quiet")
    first = sweeps.start(*command)
    until(lambda: sweeps.steps_logged(folder) > 0, first)
    second = sweeps.start(*command)
    assert first.wait(PATIENCE) == 0, first.stderr.read()
    assert second.wait(PATIENCE) == 0, second.stderr.read()
    status = json.loads(sweeps.isodepth("status", folder, "--json", "-").stdout)
    assert [run["attempts"] for run in status["runs"]] == [1] * 6  # none twice
    assert sweeps.table(folder) == sweeps.table(undisturbed)


def test_an_interrupted_sweep_says_so_and_goes_on(plan, undisturbed, tmp_path):
    folder = tmp_path / "sweep"
    process = sweeps.start("sweep", plan, "--out", folder, *ALONE)
    until(lambda: sweeps.steps_logged(folder) > 50, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 1
    said = process.stderr.read()
    assert "is interrupted" in said and "the same command goes on" in said
    assert "Traceback" not in said
    sweeps.isodepth("sweep", plan, "--out", folder, *ALONE)
    assert sweeps.table(folder) == sweeps.table(undisturbed)


def test_a_truncated_record_is_made_again(undisturbed, plan, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(undisturbed, folder)
    run = sorted((folder / "runs").iterdir())[0]
    whole = (run / "record.json").read_text()
    (run / "record.json").write_text(whole[: len(whole) // 2])
    failed = sweeps.isodepth("collect", folder, status=2)
    assert "record.json can't be read" in failed.stderr and "Traceback" not in failed.stderr
    sweeps.isodepth("sweep", plan, "--out", folder)
    assert sweeps.table(folder) == sweeps.table(undisturbed)


def command_plan(folder, script, arguments, **options):
    """A plan whose runs are trained by a script of its own."""
    file = folder / "train.py"
    file.write_text(script)
    command = f"{{python}} '{file}' {arguments}"
    widths = options.get("widths", [8, 16, 24])
    text = sweeps.TINY.format(text="unused", flops=1.72e9, widths=widths)
    preset = folder / "own.toml"
    preset.write_text(text.replace("[train]", f'[plan]\ncommand = """{command}"""\n[train]'))
    sweeps.isodepth("plan", "--preset", preset, "--out", folder / "plan.json", "--quiet")
    return folder / "plan.json"


RECORD = """
row = {'recurrences': int(r), 'n_once': 100, 'n_rec': 0 if r == '1' else 50,
       'tokens': float(tokens), 'loss': 2.0}
pathlib.Path(out, 'record.json').write_text(json.dumps({'run': row}))
"""


def test_a_bad_run_does_not_stop_the_others(tmp_path):
    script = """
import json, pathlib, sys
out, width, r, tokens = sys.argv[1:]
if width == '16':
    sys.exit('out of luck')
"""
    plan = command_plan(tmp_path, script + RECORD, "{out} {width} {recurrences} {tokens}")
    folder = tmp_path / "sweep folder"
    done = sweeps.isodepth("sweep", plan, "--out", folder, "--retries", 0, status=1)
    for name in ("baseline-r1-c1.72e9-w16-s0", "baseline-r2-c1.72e9-w16-s0"):
        assert f"{name} is failed: the command ended with status 1: out of luck" in done.stderr
        assert "out of luck" in (folder / "runs" / name / "command.log").read_text()
    sweeps.table(folder)
    table = pd.read_csv(folder / "runs.csv").set_index("run_id")
    assert table["status"].value_counts().to_dict() == {"done": 4, "failed": 2}
    # the trainer's own counts, and none of the model that the plan reckons with
    assert table.loc["baseline-r2-c1.72e9-w8-s0", "n_rec"] == 50
    assert (table["n_inject"] == 0).all() and "flops_per_token" not in table
    # an export of the sweep has the failed runs, too, of which there is no record
    sweeps.isodepth("export", folder, "--out", tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text() == (folder / "runs.csv").read_text()
    # and so does whatever else reads the sweep's folder
    said = sweeps.isodepth("fit", folder, "--bootstrap", 0).stdout
    assert "2 of 6 runs are kept but not fitted: 2 failed" in said


def test_a_stopped_command_goes_on_from_what_it_kept(tmp_path):
    script = """
import json, pathlib, signal, sys
out, r, tokens = sys.argv[1:]
kept = pathlib.Path(out, 'kept')
if not kept.exists():
    signal.signal(signal.SIGTERM, lambda *_: (kept.write_text('half way'), sys.exit(0)))
    pathlib.Path(out, 'begun').touch()
    while True:
        signal.pause()
"""
    plan = command_plan(tmp_path, script + RECORD, "{out} {recurrences} {tokens}", widths=[8])
    folder = tmp_path / "sweep"
    command = ("sweep", plan, "--out", folder, "--workers", 2)
    process = sweeps.start(*command)
    until(lambda: len(list(folder.glob("runs/*/begun"))) == 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 1
    assert process.stderr.read().count("is interrupted: stopped") == 2
    sweeps.isodepth(*command)
    assert len(list(folder.glob("runs/*/kept"))) == 2
    status = json.loads(sweeps.isodepth("status", folder, "--json", "-").stdout)
    assert status["counts"]["done"] == 2


def test_a_folder_of_another_plan_is_refused(undisturbed, tmp_path):
    other = sweeps.write_plan(tmp_path, flops=2.98e9)
    done = sweeps.isodepth("sweep", other, "--out", undisturbed, status=2)
    assert "holds a sweep of another plan" in done.stderr and "Traceback" not in done.stderr


def test_a_read_only_folder_is_refused_and_loses_nothing(plan, undisturbed, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(undisturbed, folder)
    lost = next((folder / "runs").iterdir())
    shutil.rmtree(lost)
    held = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    # Root may write anywhere, unless it is without that capability.
    bounded = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    for path in held:
        path.chmod(0o555)
    refused = [
        subprocess.run(
            [*bounded, sys.executable, "-m", "isodepth", *command],
            capture_output=True, text=True, check=False,
        )
        for command in (["sweep", str(plan), "--out", str(folder)], ["collect", str(folder)])
    ]  # fmt: skip
    for path in held:
        path.chmod(0o755)
    for done in refused:
        assert done.returncode == 2
        assert str(folder) in done.stderr and "ermission denied" in done.stderr
        assert "Traceback" not in done.stderr
    assert not lost.exists()
    sweeps.isodepth("sweep", plan, "--out", folder)
    assert sweeps.table(folder) == sweeps.table(undisturbed)


def test_a_full_disk_fails_runs_with_a_reason_and_loses_none(plan, undisturbed, tmp_path):
    folder = tmp_path / "sweep"
    # No file may grow beyond 24 KB, so that the wider models' checkpoints can't be written.
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 24; exec "$@"', "bash", sys.executable, "-m", "isodepth",
         "sweep", str(plan), "--out", str(folder), "--data", str(undisturbed / "data"),
         "--retries", "0", *map(str, ALONE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert limited.returncode == 1, limited.stderr
    assert "Traceback" not in limited.stderr
    status = json.loads(sweeps.isodepth("status", folder, "--json", "-").stdout)
    failed = [run for run in status["runs"] if run["state"] == "failed"]
    assert failed
    for run in failed:
        assert f"{run['run_id']} is failed" in limited.stderr
        assert "File too large" in run["reason"]
    sweeps.isodepth("sweep", plan, "--out", folder, *ALONE)
    assert sweeps.table(folder) == sweeps.table(undisturbed)

"""Sweeps through a real Slurm: requeued, out of time, killed; the table is a local sweep's."""

import json
import signal
import subprocess
import time
from pathlib import Path

import programs
import pytest
import sweeps

pytest.importorskip("torch")
programs.need("slurm", "sbatch", "srun", "slurmctld", "slurmd", "munged")

CLUSTER = Path(__file__).parent / "cluster.sh"
PATIENCE = 180.0  # seconds that anything may take before the test fails


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([CLUSTER, "start", folder], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
        subprocess.run([CLUSTER, "stop", folder], check=True)


@pytest.fixture(scope="module")
def plan(slurm, tmp_path_factory):
    return sweeps.write_plan(tmp_path_factory.mktemp("plan"), flops=1.1e9, widths=(8, 16))


@pytest.fixture(scope="module")
def local(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "sweep"
    sweeps.isodepth("sweep", plan, "--out", folder, "--workers", 1, "--threads", 1)
    return folder


def options(plan, local, folder):
    """A sweep of the same plan and data through Slurm."""
    return ("sweep", plan, "--out", folder, "--data", local / "data", "--executor", "slurm",
            "--threads", 1)  # fmt: skip


def tell(*command: str) -> str:
    """What a program of Slurm's answers."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def until(condition, process):
    """Wait until `condition` holds; the sweep must not end before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def running_jobs() -> list[str]:
    """Jobs that run now; of an array, each task."""
    return sorted(tell("squeue", "--me", "--noheader", "--states=RUNNING", "--format=%i").split())


def in_progress(folder) -> int:
    """Runs that have logged a step and aren't done."""
    begun = {file.parent for file in folder.glob("runs/*/losses.jsonl") if file.stat().st_size}
    return sum(not (run / "record.json").exists() for run in begun)


def runs(folder):
    status = json.loads(sweeps.isodepth("status", folder, "--json", "-").stdout)
    return {run["run_id"]: run for run in status["runs"]}


def test_jobs_that_are_requeued_or_out_of_time_go_on_with_their_runs(plan, local, tmp_path):
    folder = tmp_path / "a sweep"
    process = sweeps.start(*options(plan, local, folder), "--jobs", 2, "--cpus", 1)
    until(lambda: in_progress(folder) == 2, process)
    requeued, out_of_time = running_jobs()
    tell("scontrol", "requeue", requeued)
    tell("scancel", "--signal=USR2", out_of_time)  # what Slurm does when time is nearly over
    assert process.wait(PATIENCE) == 0, process.stderr.read()
    assert sweeps.table(folder) == sweeps.table(local)
    for job in (requeued, out_of_time):  # each by itself: none takes the other with it
        assert "Restarts=1" in tell("scontrol", "show", "job", job)
    states = [json.loads(f.read_text())["state"] for f in folder.glob("runs/*/state-*.json")]
    assert states.count("interrupted") == 2  # one worker in each job, for it has one core
    assert sum(run["attempts"] for run in runs(folder).values()) == 6
    (script,) = folder.glob("slurm/*_submission.sh")
    assert "#SBATCH --signal=USR2@" in script.read_text()


def test_a_killed_job_is_replaced_and_its_runs_taken_over(plan, local, tmp_path):
    folder = tmp_path / "sweep"
    process = sweeps.start(*options(plan, local, folder), "--cpus", 2)
    until(lambda: in_progress(folder) == 2, process)
    (job,) = running_jobs()
    victims = [name for name, run in runs(folder).items() if run["state"] == "running"]
    tell("scancel", "--signal=KILL", job)
    # the sweep ends while its second job runs, and is given again
    until(lambda: running_jobs() not in ([], [job]), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 1
    assert "its jobs go on" in process.stderr.read()
    sweeps.isodepth(*options(plan, local, folder))
    assert sweeps.table(folder) == sweeps.table(local)
    attempts = {runs(folder)[name]["attempts"] for name in victims}
    assert 2 in attempts and attempts <= {1, 2}  # one may have ended just before the job did
    # two jobs in all: the last sweep followed the one that was there
    assert len(list(folder.glob("slurm/*_submission.sh"))) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--partition", "nowhere"), "Slurm takes no job: sbatch: error: invalid partition"),
        (("--time", 1, "--jobs", 0), "--time 1 must be at least"),
        (("--constraint", "gpu80"), "Slurm takes no job: sbatch: error:"),
        (("--sbatch", "array=1-3"), "--sbatch array: isodepth sets it itself"),
    ],
)
def test_what_slurm_would_refuse_is_said(plan, local, tmp_path, wrong, message):
    done = sweeps.isodepth(*options(plan, local, tmp_path / "sweep"), *wrong, status=2)
    assert message in done.stderr and "Traceback" not in done.stderr

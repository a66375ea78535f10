"""What sbatch is given, read from the script that submitit hands to it. No Slurm is needed."""

import os
from pathlib import Path

import pytest

from isodepth.errors import InputError
from isodepth.planning.grid import Budget, Recipe
from isodepth.sweep.ledger import Ledger
from isodepth.sweep.plan import make_plan
from isodepth.sweep.slurm import SlurmExecutor
from isodepth.sweep.spec import Spec

pytest.importorskip("submitit")


@pytest.fixture
def ledger(tmp_path):
    spec = Spec(
        name="small",
        description="",
        recipes=(Recipe(name="baseline", recurrences=(1,)),),
        budgets=(Budget(flops=1e18, widths=(640,)),),
        train={"device": "cpu"},
        vocabulary=32001,
    )
    return Ledger.open(tmp_path / "sweep", make_plan(spec, None))


@pytest.fixture(autouse=True)
def programs(tmp_path, monkeypatch):
    """An sbatch that takes every script, and an srun."""
    for name, text in (("sbatch", "echo Submitted batch job 7"), ("srun", "exit 0")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def script_of(ledger: Ledger, **options: object) -> set[str]:
    SlurmExecutor(data=None, **options)._submit(ledger, 1)  # type: ignore[arg-type]
    (script,) = Path(ledger.folder).glob("slurm/*_submission.sh")
    lines = script.read_text().splitlines()
    return {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}


def test_every_option_reaches_sbatch(ledger):
    found = script_of(
        ledger, qos="long", constraint="h100&nvlink", gres="gpu:h100:4", nodes=2, minutes=30,
        partition="gpu", account="lab", sbatch=("exclusive", "--reservation=winter"),
    )  # fmt: skip
    assert {
        "--qos=long", "--gres=gpu:h100:4", "--nodes=2", "--time=30", "--partition=gpu",
        "--account=lab", "--exclusive", "--reservation=winter", "--requeue",
    } <= found  # fmt: skip
    (constraint,) = (line for line in found if line.startswith("--constraint="))
    assert constraint.removeprefix("--constraint=").strip("'\"") == "h100&nvlink"


def test_what_is_not_given_is_left_to_the_cluster(ledger):
    given = {line.partition("=")[0] for line in script_of(ledger)}
    assert not given & {"--qos", "--gres", "--constraint", "--partition", "--account"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sbatch": ("array=1-3",)}, "--sbatch array: isodepth sets it itself"),
        ({"sbatch": ("--qos=long",)}, "--sbatch qos: give --qos"),
        ({"sbatch": ("reservation=",)}, "must be KEY or KEY=VALUE"),
        ({"nodes": 0}, "--nodes 0 must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        SlurmExecutor(data=None, **options)._check()

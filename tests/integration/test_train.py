"""Training runs as their users meet them: repeated, killed, interrupted, damaged, shared."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import commands
import pytest

torch = pytest.importorskip("torch")

from small_data import standard_library  # noqa: E402
from training_runs import (  # noqa: E402
    PATIENCE,
    STEPS,
    finish,
    free_port,
    losses,
    record,
    small_run,
    start,
    weights,
)

from isodepth.errors import InputError  # noqa: E402
from isodepth.training.checkpoint import newest_checkpoint, save_checkpoint  # noqa: E402
from isodepth.training.data import open_data  # noqa: E402
from isodepth.training.trainer import train  # noqa: E402

KILLS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared data set: 80 files of the standard library, cut short, as bytes."""
    return standard_library(tmp_path_factory.mktemp("data") / "bytes", 80)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing disturbed."""
    config = small_run(data, tmp_path_factory.mktemp("runs") / "whole")
    finish(config)
    return config.out


def test_the_record_is_the_run_tables_row(data, whole):
    content = record(whole)
    row = content["run"]
    account = small_run(data, whole).model(vocabulary=257).account()
    assert row == {
        "run_id": "whole", "recipe": "baseline", "recurrences": 4, "n_once": account.n_once,
        "n_rec": account.n_rec, "n_inject": account.n_inject, "width": 32, "seed": 0,
        "flops_per_token": account.flops_per_token, "tokens": 256 * STEPS, "budget_flops": None,
        "flops": 256.0 * STEPS * account.flops_per_token, "loss": row["loss"], "status": "done",
        "device": "cpu", "precision": "fp32", "kernels": "eager",
    }  # fmt: skip
    log = losses(whole)
    assert [line["step"] for line in log] == [*range(1, STEPS + 1), STEPS]
    assert log[-1]["validation_loss"] == row["loss"]
    assert log[STEPS - 1]["loss"] == content["training_loss"]
    assert row["loss"] < 5.4 < log[0]["loss"]  # log(257) = 5.55 at the start
    assert content["versions"]["torch"] == torch.__version__
    assert content["seconds"] > 0
    assert content["epochs"] == pytest.approx(STEPS * 8 / len(train_rows(data)))
    assert (whole / content["loss_curve"]).exists()
    suffixes = {path.suffix for path in whole.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".jsonl", ".safetensors", ""}  # no pickle ("" is the lock)


def test_the_same_seed_twice_is_identical_and_another_is_not(data, whole, tmp_path):
    again = small_run(data, tmp_path / "again")
    finish(again)
    assert losses(again.out) == losses(whole)
    assert weights(again.out) == weights(whole)
    other = small_run(data, tmp_path / "other", seed=1, tokens=256 * 2)
    finish(other)
    assert losses(other.out)[0]["loss"] != losses(whole)[0]["loss"]


def test_killed_at_random_moments_the_losses_are_the_same_to_the_bit(data, whole, tmp_path):
    config = small_run(data, tmp_path / "killed")
    moments = random.Random(4)
    progress = []
    for kill in range(KILLS):
        process = start(config)
        if kill % 3:  # while it trains: in the middle of a step, of a checkpoint, of a line
            goal = count_lines(config.out) + moments.randint(1, 4)
            wait_for(lambda: count_lines(config.out) >= goal, process)  # noqa: B023
            process.join(moments.uniform(0.0, 0.02))
        else:  # at any moment, loading included
            process.join(moments.uniform(0.0, 1.0))
        process.kill()
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL
        progress.append(count_lines(config.out))
    assert 0 < max(progress) < STEPS
    finish(config)
    assert losses(config.out) == losses(whole)
    assert weights(config.out) == weights(whole)
    assert record(config.out)["run"]["loss"] == record(whole)["run"]["loss"]
    assert len(list((config.out / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_as_interrupted(data, whole, tmp_path, number):
    config = small_run(data, tmp_path / "stopped", checkpoint_seconds=1e6)
    command = [*TRAIN, "--json", "-", "--quiet", *flags(config)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: count_lines(config.out) >= 3, process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    printed = json.loads(out)
    assert printed == record(config.out)
    assert printed["run"]["status"] == "interrupted"
    assert printed["run"]["loss"] is None
    checkpoint, _ = newest_checkpoint(config.out / "checkpoints")
    assert checkpoint.state.step == printed["steps"] == count_lines(config.out) < STEPS
    assert finish(config)["run"]["status"] == "done"
    assert losses(config.out) == losses(whole)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_and_the_losses_are_the_same(
    data, whole, tmp_path, name
):
    config = small_run(data, tmp_path / "damaged")
    interrupt_at(config, 6)
    newest = max((config.out / "checkpoints").iterdir())
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 4
    (newest / name).write_bytes(content)
    finish(config)
    assert losses(config.out) == losses(whole)
    assert weights(config.out) == weights(whole)


def test_a_run_without_a_finite_loss_ends_as_diverged_with_its_record(data, tmp_path):
    config = small_run(data, tmp_path / "diverged")
    interrupt_at(config, 3)
    folder = config.out / "checkpoints"
    checkpoint, _ = newest_checkpoint(folder)
    model = checkpoint.model()
    model["head"][5] = float("inf")
    save_checkpoint(folder, checkpoint.state, model=model, optimizer=checkpoint.optimizer())
    content = finish(config)
    assert content["run"]["status"] == "diverged"
    assert content["run"]["loss"] is None
    assert content["steps"] == checkpoint.state.step
    last = losses(config.out)[-1]
    assert last["step"] == checkpoint.state.step + 1
    assert None in (last["loss"], last["gradient_norm"])
    before = (config.out / "record.json").read_bytes()
    finish(config)  # it would diverge again: nothing is trained
    assert (config.out / "record.json").read_bytes() == before


def test_a_finished_run_is_not_trained_again(data, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert train(small_run(data, whole), quiet=True) == record(whole)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_other_settings_or_data_in_the_same_folder_are_refused(data, whole, tmp_path):
    with pytest.raises(InputError, match="holds another run: seed was 0, now 1"):
        train(small_run(data, whole, seed=1), quiet=True)
    config = small_run(data, tmp_path / "stopped")
    interrupt_at(config, 2)
    with pytest.raises(InputError, match="recurrences was 4, now 2"):
        train(small_run(data, config.out, recurrences=2), quiet=True)


def test_the_command_line_tells_the_users_faults_by_their_exit_code(data, tmp_path):
    config = small_run(data, tmp_path / "run")
    for wrong, message in (
        (["--batch-tokens", "100"], "not a whole number of rows"),
        (["--data", str(tmp_path)], "isodepth data prepare"),
        (["--device", "cuda"], "has no GPU"),
    ):
        if wrong[1] == "cuda" and torch.cuda.is_available():
            continue
        done = commands.run("train", *flags(config), *wrong)
        assert done.returncode == 2
        assert done.stdout == ""
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_generate_goes_on_from_a_prompt(whole):
    command = ("generate", whole, "--prompt", "def ", "--max-new", 20, "--seed", 3)

    def written(*more):
        done = commands.run(*command, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = json.loads(written("--json", "-"))
    assert text["prompt"] == "def "
    assert 1 <= len(text["tokens"]) <= 20
    assert written("--kv-passes", "4") == f"def {text['text']}\n"  # all of r = 4: exact


def test_two_processes_cannot_train_in_one_folder(data, tmp_path):
    config = small_run(data, tmp_path / "shared", tokens=256 * STEPS * 100)
    process = start(config)
    try:
        wait_for(lambda: count_lines(config.out) >= 1, process)
        with pytest.raises(InputError, match="another process"):
            train(config, quiet=True)
    finally:
        process.kill()
        process.join(PATIENCE)


def test_ranks_agree_with_one_process(data, tmp_path):
    runs = {}
    for world_size in (1, 2, 4):
        config = small_run(
            data, tmp_path / f"ranks{world_size}", tokens=256 * 6, micro_batch=1,
            validate_every=3,
        )  # fmt: skip
        content = finish(config, world_size=world_size)
        assert content["world_size"] == world_size
        runs[world_size] = losses(config.out)
    for world_size in (2, 4):
        for one, many in zip(runs[1], runs[world_size], strict=True):
            for key in one:
                # The first step sees the same weights and, in one global order, the same rows.
                within = 1e-6 if one["step"] == 1 or key == "validation_loss" else 1e-5
                assert many[key] == pytest.approx(one[key], rel=within), (world_size, one)
    # Of the very same weights, validated again: rank 0 has trained them alone.
    config = small_run(data, tmp_path / "ranks1", tokens=256 * 6, micro_batch=1)
    alone = record(config.out)["run"]["loss"]
    for world_size in (2, 4):
        (config.out / "record.json").unlink()
        assert finish(config, world_size=world_size)["run"]["loss"] == alone


def test_torchrun_trains_and_resumes_a_run_of_another_number_of_ranks(data, tmp_path):
    config = small_run(data, tmp_path / "torchrun")
    interrupt_at(config, 3)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--master-port", str(free_port()), "-m", "isodepth", "train", "--json", "-",
         *flags(config)],
        env=environment(), capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)  # one rank prints
    assert printed["run"]["status"] == "done"
    assert printed["world_size"] == 2
    assert "ranks 1 -> 2" in done.stderr


def test_no_thread_of_the_ranks_outlives_them(tmp_path):
    """A thread at work when the interpreter ends would abort a run that is long done."""
    script = """
import torch
from pathlib import Path
from isodepth.training.distributed import join_ranks
with join_ranks("cpu") as ranks:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.sum().backward()
    ranks.average_gradients([parameter])
    torch.optim.AdamW([parameter], fused=True).step()
names = [file.read_text() for file in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in names if "gloo" in name], names
"""
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment() | {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [process.wait(PATIENCE) for process in ranks] == [0, 0]


def test_compiled_training_learns_the_same(data, tmp_path):
    short = {"tokens": 256 * 5, "recurrences": 2, "depth": 2, "prelude": 0, "coda": 0}
    config = small_run(data, tmp_path / "compiled", compile=True, **short)
    plain = small_run(data, tmp_path / "plain", **short)
    finish(plain)
    finish(config)
    for one, other in zip(losses(plain.out), losses(config.out), strict=True):
        key = "loss" if "loss" in one else "validation_loss"
        assert other[key] == pytest.approx(one[key], rel=1e-4)


def faulty(graph, inputs):
    raise OSError("no compiler here")


def test_a_record_never_says_compiled_of_an_eager_run(data, whole, tmp_path, monkeypatch, capsys):
    short = {"tokens": 256 * 5, "recurrences": 2, "depth": 2, "prelude": 0, "coda": 0}
    config = small_run(data, tmp_path / "run", compile=True, **short)
    monkeypatch.setattr("isodepth.training.compiling.BACKEND", faulty)
    content = train(config, quiet=True)
    assert "compiling failed" in capsys.readouterr().err
    assert (content["run"]["status"], content["run"]["kernels"]) == ("done", "eager")
    assert (content["config"]["compile"], content["compile_asked"]) == (False, True)
    assert train(config, quiet=True) == content  # the same run, which isn't trained again
    with pytest.raises(InputError, match="compile was"):
        train(small_run(data, tmp_path / "run", **short), quiet=True)


def test_a_run_that_is_compiled_after_a_resumption_only_is_both(data, tmp_path, monkeypatch):
    class StopAt:
        def step(self, report):
            if report.step == 2:
                stop.set()

        def validation(self, step, loss):
            pass

    short = {"tokens": 256 * 4, "recurrences": 2, "depth": 2, "prelude": 0, "coda": 0}
    config = small_run(data, tmp_path / "run", compile=True, **short)
    stop = threading.Event()
    monkeypatch.setattr("isodepth.training.compiling.BACKEND", faulty)
    assert train(config, quiet=True, stop=stop, sink=StopAt())["run"]["status"] == "interrupted"
    monkeypatch.setattr("isodepth.training.compiling.BACKEND", "eager")
    content = train(config, quiet=True)
    assert (content["run"]["status"], content["run"]["kernels"]) == ("done", "compiled + eager")
    assert content["config"]["compile"] is False


def test_reading_a_step_late_changes_no_line_of_the_log(data, whole, tmp_path, monkeypatch):
    """A GPU's way, whose losses are read when the next step has been queued."""
    monkeypatch.setattr("isodepth.training.trainer.LAG", {"cpu": 1})
    config = small_run(
        data, tmp_path / "late", checkpoint_seconds=1e9, validate_every=7, tokens=256 * 20
    )
    late = train(config, quiet=True)
    monkeypatch.undo()
    config = small_run(
        data, tmp_path / "once", checkpoint_seconds=1e9, validate_every=7, tokens=256 * 20
    )
    once = train(config, quiet=True)
    assert losses(tmp_path / "late") == losses(tmp_path / "once")
    assert weights(tmp_path / "late") == weights(tmp_path / "once")
    assert late["run"]["loss"] == once["run"]["loss"]
    assert 0 < late["tokens_per_second"] < float("inf")


def test_a_diverged_step_read_late_ends_the_run_where_it_diverged(data, tmp_path, monkeypatch):
    def exploding(step, steps):
        return 1e30 if step == 3 else 1.0

    monkeypatch.setattr("isodepth.training.trainer.lr_scale", exploding)
    reports = {}
    for lag in (0, 1):
        monkeypatch.setattr("isodepth.training.trainer.LAG", {"cpu": lag})
        config = small_run(data, tmp_path / str(lag), tokens=256 * 12)
        content = train(config, quiet=True)
        reports[lag] = (content["run"]["status"], content["steps"], losses(config.out))
        assert newest_checkpoint(config.out / "checkpoints")[0].state.step == content["steps"]
    assert reports[0] == reports[1]
    assert reports[0][0] == "diverged"


TRAIN = (sys.executable, "-m", "isodepth", "train")


def train_rows(data):
    return open_data(data).rows("train", sequence_length=32)


def environment():
    return os.environ | {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}


def flags(config):
    given = {name: value for name, value in config.to_json().items() if value is not None}
    pairs = [("--" + name.replace("_", "-"), value) for name, value in given.items()]
    return [part for flag, value in pairs if value is not False for part in (flag, str(value))]


def count_lines(out):
    log = out / "losses.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def wait_for(condition, process):
    """Return when the condition holds; fail when the process ends before, or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        ended = process.poll() if isinstance(process, subprocess.Popen) else process.exitcode
        assert ended is None, f"the process ended with {ended}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def interrupt_at(config, lines):
    """Train until so many steps are logged, then stop with a checkpoint."""
    process = start(config)
    wait_for(lambda: count_lines(config.out) >= lines, process)
    process.terminate()
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert record(config.out)["run"]["status"] == "interrupted"

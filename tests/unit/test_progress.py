"""The log of losses and the record: whole after a kill, and JSON that every reader accepts."""

import json
import math

import pytest

torch = pytest.importorskip("torch")

from isodepth.errors import InputError  # noqa: E402
from isodepth.runs.records import read_record  # noqa: E402
from isodepth.training.progress import LossLog, StepReport, TensorBoard  # noqa: E402
from isodepth.training.record import peak_memory, versions  # noqa: E402


def report(step, **changes):
    values = {
        "step": step, "tokens": step * 64, "loss": 5.0 / step, "gradient_norm": 1.0,
        "healthy": True, "lr_scale": 0.5, "seconds": 0.1, "tokens_per_second": 640.0,
        "flops_per_second": 1e9, "peak_share": 0.5,
    }  # fmt: skip
    return StepReport(**(values | changes))


def lines(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def write(folder, *steps, done=0, every=1):
    log = LossLog(folder, done=done, every=every)
    for step in steps:
        log.step(report(step))
    log.close()


def test_a_line_for_every_step_asked_for(tmp_path):
    write(tmp_path, *range(1, 8), every=3)
    assert [line["step"] for line in lines(tmp_path)] == [3, 6]


def test_resuming_drops_what_lies_beyond_the_checkpoint_and_a_torn_line(tmp_path):
    write(tmp_path, 1, 2, 3, 4, 5)
    with (tmp_path / "losses.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    write(tmp_path, 4, done=3)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert lines(tmp_path)[1]["loss"] == 5.0 / 2


@pytest.mark.parametrize("harm", [b"\xff\xfe", b"{", b"[1]", b'{"step": "x"}', b"3", b"\x00"])
def test_a_damaged_log_is_cut_back_and_never_stops_a_resume(tmp_path, capsys, harm):
    write(tmp_path, 1, 2, 3, 4, 5)
    file = tmp_path / "losses.jsonl"
    parts = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*parts[:2], harm, *parts[3:]]) + b"\n")
    write(tmp_path, 5, done=4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 5]
    assert "the losses of steps 3 to 4 are lost" in capsys.readouterr().err
    write(tmp_path, 6, done=5)
    assert capsys.readouterr().err == ""


def test_what_is_not_finite_is_logged_as_null_and_never_skipped(tmp_path):
    log = LossLog(tmp_path, done=0, every=100)
    log.step(report(1, loss=math.nan, gradient_norm=math.inf, healthy=False))
    log.validation(1, math.nan)
    log.close()
    first, second = lines(tmp_path)
    assert first["loss"] is None
    assert first["gradient_norm"] is None
    assert second == {"step": 1, "validation_loss": None}


def test_tensorboard_holds_the_losses(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path, done=0)
    for step in (1, 2):
        board.step(report(step))
    board.validation(2, 4.5)
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 5.0), (2, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("validation/loss")] == [(2, 4.5)]


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"run": 3}'])
def test_a_record_that_is_none_is_an_input_error(tmp_path, content):
    assert read_record(tmp_path) is None
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(InputError, match="delete it"):
        read_record(tmp_path)


def test_versions_and_memory_are_those_of_this_process():
    assert versions()["torch"] == torch.__version__
    before = peak_memory()
    block = bytearray(before + (64 << 20))  # more than ever was held
    block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])  # touch every page
    assert before > 10 << 20
    assert peak_memory() > before + (32 << 20)

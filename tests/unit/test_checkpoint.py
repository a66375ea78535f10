"""Checkpoints: whole or passed over, never half believed."""

import json

import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from isodepth.errors import InputError  # noqa: E402
from isodepth.files import replace_synced  # noqa: E402
from isodepth.training.checkpoint import (  # noqa: E402
    State,
    newest_checkpoint,
    save_checkpoint,
)


def state(step, **changes):
    values = {
        "step": step, "steps": 100, "micro_batch": 4, "world_size": 1, "threads": 1,
        "seconds": 1.5, "step_seconds": 1.25, "training_loss": 5.1, "data_checksum": "abc",
        "vocabulary": 257, "start": 256, "config": {"width": 64}, "versions": {"torch": "2"},
        "ran_on": {"device": ["cpu"]},
    }  # fmt: skip
    return State(**(values | changes))


def tensors(step):
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(5, 7, generator=generator)
    return {
        "model": {"w": weight, "v": weight[:, 0]},
        "optimizer": {"m": weight.mT, "step": weight[0, 0]},
    }


def save(folder, *steps):
    return [save_checkpoint(folder, state(step), **tensors(step)) for step in steps]


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    save(tmp_path, 3)
    checkpoint, damaged = newest_checkpoint(tmp_path)
    assert damaged == []
    assert checkpoint.state == state(3)
    for part in ("model", "optimizer"):
        expected, found = tensors(3)[part], getattr(checkpoint, part)()
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert found[name].shape == tensor.shape
            assert torch.equal(found[name], tensor)


def test_the_last_two_are_kept(tmp_path):
    save(tmp_path, 1, 2, 9, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000009", "step-00000010"]
    assert newest_checkpoint(tmp_path)[0].state.step == 10


def test_no_checkpoints_is_not_an_error(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])
    assert newest_checkpoint(tmp_path) == (None, [])


def test_a_half_written_one_is_not_seen_and_cleared_away(tmp_path):
    half = tmp_path / ".writing-step-00000007"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) == (None, [])
    save(tmp_path, 8)
    assert not half.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "longer"])
def test_a_torn_file_sends_us_to_the_one_before(tmp_path, name, damage):
    _, newest = save(tmp_path, 4, 5)
    file = newest / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        torn = {"cut": content[: len(content) // 2], "empty": b"", "longer": content + b"x"}
        file.write_bytes(torn[damage])
    checkpoint, damaged = newest_checkpoint(tmp_path)
    assert checkpoint.state.step == 4
    assert len(damaged) == 1
    assert "step-00000005" in damaged[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_changed_bit_is_found(tmp_path, data):
    _, newest = save(tmp_path, 4, 5)
    file = newest / data.draw(
        st.sampled_from(["model.safetensors", "optimizer.safetensors", "state.json"])
    )
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    checkpoint, damaged = newest_checkpoint(tmp_path)
    # A changed bit in the spelling of state.json may leave the same values; then it is no damage.
    assert checkpoint.state == (state(4) if damaged else state(5))
    if file.suffix != ".json":
        assert damaged


def test_a_changed_value_is_found_even_where_the_json_is_whole(tmp_path):
    _, newest = save(tmp_path, 4, 5)
    content = json.loads((newest / "state.json").read_text())
    content["state"]["seconds"] = 9.0
    (newest / "state.json").write_text(json.dumps(content))
    assert newest_checkpoint(tmp_path)[0].state.step == 4


def test_when_all_are_damaged_the_user_decides(tmp_path):
    for folder in save(tmp_path, 4, 5):
        (folder / "state.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        newest_checkpoint(tmp_path)
    assert len(caught.value.problems) == 3
    assert "delete" in caught.value.problems[-1]


def test_a_damaged_future_makes_room_for_the_run_that_passed_it_over(tmp_path):
    _, newest = save(tmp_path, 4, 50)
    (newest / "model.safetensors").write_bytes(b"")
    save(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_one_of_another_version_is_passed_over(tmp_path):
    _, newest = save(tmp_path, 4, 5)
    content = json.loads((newest / "state.json").read_text())
    del content["state"]["threads"]
    (newest / "state.json").write_text(json.dumps(content))
    assert newest_checkpoint(tmp_path)[0].state.step == 4


def test_replacing_a_file_leaves_only_the_new_one(tmp_path):
    file = tmp_path / "record.json"
    replace_synced(file, "old")
    replace_synced(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]

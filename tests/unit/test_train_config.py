"""A run's settings: from a file, from flags, and what is refused."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from isodepth.errors import InputError
from isodepth.training.commands import Data, Generate, Prepare, Train
from isodepth.training.config import FREE_SETTINGS, TrainConfig, changed_settings, read_toml

GOOD = {
    "data": Path("d"), "out": Path("runs/first"), "width": 128, "recurrences": 4, "tokens": 10**6,
}  # fmt: skip


def config(**changes):
    return TrainConfig(**(GOOD | changes))


def from_flags(*flags):
    return tyro.cli(Train, args=list(flags)).settings()


REQUIRED = (
    "--data", "d", "--out", "runs/first", "--width", "128", "-r", "4", "--tokens", "1000000",
)  # fmt: skip


class TestBudget:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"tokens": None}, "given: none"),
            ({"flops": 1e15}, "given: flops and tokens"),
            ({"tokens": None, "flops": 1e15, "tokens_per_param": 20.0}, "exactly one budget"),
            ({"tokens": 0}, "at least 1"),
            ({"tokens": None, "flops": float("nan")}, "positive and finite"),
            ({"tokens": None, "flops": -1.0}, "positive and finite"),
            ({"tokens": None, "tokens_per_param": float("inf")}, "positive and finite"),
        ],
    )
    def test_exactly_one_that_makes_sense(self, changes, message):
        with pytest.raises(InputError, match=message):
            config(**changes)

    def test_each_kind_gives_the_nearest_whole_number_of_steps(self):
        account = config().model(vocabulary=4096).account()
        batch = {"batch_tokens": 2**16}

        def steps(**budget):
            return config(**batch, **({"tokens": None} | budget)).steps(account)

        assert steps(tokens=10 * 2**16 + 2**15 - 1) == 10
        assert steps(tokens=10 * 2**16 + 2**15 + 1) == 11
        assert steps(tokens=1) == 1
        assert steps(flops=account.flops_per_token * 2**16 * 7.2) == 7
        n = account.n_once + account.n_rec + account.n_inject
        assert steps(tokens_per_param=20) == round(20 * n / 2**16)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"width": "128"}, "width = '128' must be of type int"),
            ({"width": True}, "must be of type int"),
            ({"width": 100}, "head_size"),
            ({"recurrences": 3}, "does not divide the 16 shared blocks"),
            ({"injection": "magic"}, "not one of linear, additive"),
            ({"precision": "fp8"}, "not one of auto, fp32, tf32, bf16"),
            ({"precision": "bf16", "device": "cpu"}, "bf16 needs a GPU"),
            ({"batch_tokens": 3000}, "not a whole number of rows"),
            ({"micro_batch": 0}, "micro_batch = 0 must be at least 1"),
            ({"log_every": 0}, "log_every = 0 must be at least 1"),
            ({"checkpoint_seconds": -1.0}, "checkpoint_seconds"),
            ({"compile": 1}, "compile = 1 must be of type bool"),
            ({"sequence_length": 0}, "sequence_length = 0 must be at least 1"),
            ({"backprop_last": 9}, "backprop_last"),
        ],
    )
    def test_a_bad_value_is_named(self, changes, message):
        with pytest.raises(InputError, match=message):
            config(**changes)

    def test_every_fault_is_named_at_once(self):
        with pytest.raises(InputError) as caught:
            config(recurrences=3, log_every=0, batch_tokens=5, flops=1.0)
        assert len(caught.value.problems) == 4


class TestModel:
    def test_the_vocabulary_is_padded_as_published(self):
        for true, padded in ((32001, 32064), (4096, 4096)):
            shape = config().model(vocabulary=true)
            assert (shape.vocab, shape.padded_vocab) == (true, padded)
            assert shape.account().n_embedding == 2 * padded * shape.width

    def test_every_setting_of_the_shape_arrives(self):
        shape = config(
            width=64, recurrences=2, depth=9, prelude=2, coda=1, head_size=16, lanes=3,
            injection="hyperconnections", backprop_last=1, recompute=True, sequence_length=64,
        ).model(vocabulary=64)  # fmt: skip
        found = dataclasses.asdict(shape)
        assert found == {
            "width": 64, "head_size": 16, "n_prelude": 2, "n_recurrent": 3, "n_coda": 1,
            "recurrences": 2, "injection": "hyperconnections", "lanes": 3, "backprop_last": 1,
            "vocab": 64, "sequence_length": 64, "recompute": True,
            "untied": False,
        }  # fmt: skip


class TestFilesAndFlags:
    def test_every_field_has_a_flag_that_reaches_the_config(self):
        other = {
            "data": Path("elsewhere"), "out": Path("there"), "recipe": "probe", "run_id": "x1",
            "seed": 7, "width": 64, "recurrences": 2, "depth": 10, "prelude": 1, "coda": 1,
            "head_size": 32, "injection": "hyperconnections", "lanes": 3, "backprop_last": 2,
            "untied": True, "recompute": True, "sequence_length": 64, "batch_tokens": 640,
            "long_documents": "crop", "flops": 1e12, "tokens": None, "tokens_per_param": None,
            "budget_flops": 2e12, "device": "cpu", "precision": "fp32", "micro_batch": 5,
            "compile": True, "deterministic": True, "log_every": 3, "validate_every": 4,
            "checkpoint_seconds": 9.5, "tensorboard": True, "wandb": "project",
        }  # fmt: skip
        assert other.keys() == {field.name for field in dataclasses.fields(TrainConfig)}
        flags = []
        for name, value in other.items():
            if value is not None:
                flags.append("--" + name.replace("_", "-"))
                flags += [] if value is True else [str(value)]
        assert from_flags(*flags) == TrainConfig(**other)
        defaults = dataclasses.asdict(TrainConfig(**GOOD))
        unchanged = {name for name in other if other[name] == defaults[name]}
        assert unchanged == {"tokens_per_param"}  # otherwise this test proves nothing for it
        assert from_flags(*REQUIRED[:-2], "--tokens-per-param", "20").tokens_per_param == 20.0

    def test_flags_win_over_the_file_and_the_file_over_the_defaults(self, tmp_path):
        file = tmp_path / "run.toml"
        file.write_text(
            'data = "d"\nout = "runs/first"\nwidth = 256\nrecurrences = 8\ntokens = 5\n'
            "depth = 12\ncompile = true\n"
        )
        found = from_flags("--config", str(file), "--width", "128", "--recurrences", "4")
        assert (found.width, found.recurrences, found.depth, found.prelude) == (128, 4, 12, 2)
        assert found.compile is True
        assert found.out == Path("runs/first")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("widht = 128", "unknown key 'widht'"),
            ("width = ", "can't be read"),
            ("width = 1.5", "must be of type int"),
            ("[model]\nwidth = 128", "unknown key 'model'"),
            ("seed = 1", "width is missing"),
        ],
    )
    def test_a_bad_file_is_an_error_that_names_it(self, tmp_path, text, message):
        file = tmp_path / "run.toml"
        file.write_text(text)
        needed = [] if "missing" in message else REQUIRED
        if "must be" in message:
            needed = [flag for flag in REQUIRED if flag not in ("--width", "128")]
        with pytest.raises(InputError, match=message) as caught:
            from_flags("--config", str(file), *needed)
        assert all(str(file) in problem for problem in caught.value.problems)

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="can't be read"):
            read_toml(tmp_path / "none.toml")

    def test_json_gives_the_same_config_back(self):
        one = config(backprop_last=2, flops=None)
        assert TrainConfig.from_mapping(one.to_json(), where="test") == one


class TestResuming:
    def test_only_settings_that_move_a_loss_are_held_against_a_resumed_run(self):
        old = config().to_json()
        assert changed_settings(old, config()) == []
        free = config(log_every=5, checkpoint_seconds=1.0, tensorboard=True, out=Path("moved"))
        assert changed_settings(old, free) == []
        assert changed_settings(old, config(seed=1)) == ["seed was 0, now 1"]
        assert len(changed_settings(old, config(width=256, tokens=5))) == 2
        assert {field.name for field in dataclasses.fields(TrainConfig)} >= FREE_SETTINGS


class TestCommands:
    def test_help_needs_no_torch(self):
        script = (
            "import sys, isodepth.training.commands\n"
            "import isodepth.training.sources, isodepth.training.data, isodepth.training.prepare\n"
            "assert not {'torch', 'tokenizers', 'datasets', 'safetensors'} & set(sys.modules)\n"
        )
        env = {"PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", script], check=True, env=env, timeout=60)

    def test_data_prepare_and_check(self, tmp_path, capsys):
        (tmp_path / "a.txt").write_text("|".join(f"document {i} " * 9 for i in range(200)))
        out = str(tmp_path / "d")
        prepare = tyro.cli(
            Data,
            args=["prepare", str(tmp_path / "a.txt"), "--out", out, "--tokenizer", "bytes",
                  "--separator", "|", "--validation", "0.3", "--json", "-"],
        )  # fmt: skip
        assert isinstance(prepare.action, Prepare)
        prepare.run()
        printed = capsys.readouterr()
        assert '"checksum"' in printed.out
        assert printed.out.startswith("{")
        assert "200 documents" in printed.err
        tyro.cli(Data, args=["check", out, "--quiet"]).run()
        assert capsys.readouterr() == ("", "")

    def test_a_json_file_that_cannot_be_written_is_an_input_error(self, tmp_path):
        with pytest.raises(InputError, match="can't be written"):
            Prepare(source="x", out=tmp_path, json=str(tmp_path / "no" / "f.json")).write({})

    def test_generate_without_a_run_is_an_input_error(self, tmp_path):
        pytest.importorskip("torch")
        with pytest.raises(InputError, match="no checkpoint"):
            Generate(folder=tmp_path).run()

"""Untied models: the looped graph with weights of its own in every pass."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from small_data import standard_library
from torch_counter import flops_per_token

from isodepth.errors import InputError
from isodepth.model.cache import KeyValueCache
from isodepth.model.config import LoopedConfig
from isodepth.model.generate import generate
from isodepth.model.looped import LoopedModel
from isodepth.training import compiling
from isodepth.training.config import TrainConfig, changed_settings
from isodepth.training.optim import build_optimizer
from isodepth.training.record import run_row

INJECTIONS = ["linear", "additive", "passthrough", "hyperconnections"]


def config_of(injection="linear", r=4, *, untied=True, width=32, **changes) -> LoopedConfig:
    return LoopedConfig.iso_depth(
        width=width, head_size=16, depth=10, prelude=1, coda=1, vocab=40, sequence_length=12,
        recurrences=r, injection=injection, untied=untied, **changes,
    )  # fmt: skip


def pair_of(injection, r, lanes) -> tuple[LoopedModel, LoopedModel]:
    """A looped model away from its start, and the untied one whose passes all have its block."""
    tied = LoopedModel(config_of(injection, r, untied=False, lanes=lanes)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tied.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator).double()
    own = LoopedModel(config_of(injection, r, lanes=lanes)).double()
    weights = dict(tied.state_dict())
    count = tied.config.n_recurrent
    for name in own.state_dict():
        if name.startswith("recurrent."):
            _, index, rest = name.split(".", 2)
            weights[name] = tied.state_dict()[f"recurrent.{int(index) % count}.{rest}"]
    own.load_state_dict(weights)
    return tied, own


@pytest.mark.parametrize(
    ("injection", "lanes"), [*((i, 2) for i in INJECTIONS), ("hyperconnections", 3)]
)
@pytest.mark.parametrize("r", [2, 4, 8])
def test_with_all_passes_alike_it_is_the_looped_model(injection, lanes, r):
    tied, own = pair_of(injection, r, lanes)
    tokens = torch.randint(40, (2, 12), generator=torch.Generator().manual_seed(0))
    losses = [model.loss(tokens, tokens.roll(1, 1)) for model in (tied, own)]
    assert abs(losses[0] - losses[1]) <= 1e-12
    for loss in losses:
        loss.backward()
    summed = {}
    count = tied.config.n_recurrent
    for name, parameter in own.named_parameters():
        if name.startswith("recurrent."):
            _, index, rest = name.split(".", 2)
            name = f"recurrent.{int(index) % count}.{rest}"
        summed[name] = summed.get(name, 0.0) + parameter.grad
    for name, parameter in tied.named_parameters():
        scale = max(1.0, float(parameter.grad.abs().max()))
        assert (summed[name] - parameter.grad).abs().max() <= 1e-12 * scale, name


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("r", [2, 8])
def test_counts_are_the_models_own_and_torchs(injection, r):
    config = config_of(injection, r, width=128)
    model = LoopedModel(config)
    account = config.account()
    held = sum(p.numel() for p in model.parameters())
    assert held == account.n_total + account.n_embedding
    tied = config_of(injection, r, width=128, untied=False).account()
    assert account.flops_per_token == tied.flops_per_token
    # what the counter doesn't see: tests/unit/test_model_flops.py
    assert account.flops_per_token == pytest.approx(flops_per_token(model, 12), rel=0.01)


def test_every_weight_learns_at_the_rate_of_the_looped_arm():
    model = LoopedModel(config_of())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    looped = model.config.looped
    optimizer = build_optimizer(model, width=32, batch_tokens=24, tokens=240, looped=looped)
    assert looped
    # the head starts near zero, and lets gradient through from the second step on
    tokens = torch.randint(40, (2, 12), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        model.loss(tokens, tokens.roll(1, 1)).backward()
        optimizer.step(1.0)
        model.zero_grad()
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []


def test_recomputed_passes_give_the_same_gradient():
    tokens = torch.randint(40, (2, 12), generator=torch.Generator().manual_seed(0))
    found = []
    for recompute in (False, True):
        model = LoopedModel(config_of(recompute=recompute)).double()
        model.loss(tokens, tokens.roll(1, 1)).backward()
        found.append(model.recurrent[5].mlp.up.grad)
    torch.testing.assert_close(*found, rtol=0, atol=1e-14)


def test_what_an_untied_model_cant_do_is_refused():
    with pytest.raises(InputError, match="first passes' blocks without gradient"):
        config_of(backprop_last=2)
    with pytest.raises(InputError, match="recurrences = 1 has one pass"):
        config_of(r=1)
    model = LoopedModel(config_of())
    with pytest.raises(InputError, match="blocks for its 4 passes"):
        model(torch.zeros(1, 3, dtype=torch.long), recurrences=2)
    with pytest.raises(InputError, match="keys of their own"):
        generate(model, [1], max_new=1, temperature=0.0, seed=0, kv_passes=2)


def test_generation_with_a_cache_is_that_without():
    _, model = pair_of("hyperconnections", 4, 2)
    prompt = [3, 1, 4, 1, 5]
    new = generate(model, prompt, max_new=4, temperature=0.0, seed=0)
    cache = KeyValueCache(model.config, length=9, recurrences=4, dtype=torch.float64)
    assert len(cache.slots) == 4
    for _ in range(4):
        prompt.append(int(model(torch.tensor([prompt]))[0, -1].argmax()))
    assert prompt[5:] == new


def test_it_compiles_whole(monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    model = LoopedModel(config_of("hyperconnections"))
    tokens = torch.randint(40, (2, 12), generator=torch.Generator().manual_seed(0))
    compiled = compiling.CompiledLoss(model)(tokens, tokens)
    torch.testing.assert_close(compiled, model.loss(tokens, tokens))


def train_config(out: Path, data: Path = Path("data"), **changes) -> TrainConfig:
    settings = {
        "data": data, "out": out, "width": 16, "head_size": 8, "recurrences": 2, "depth": 4,
        "prelude": 1, "coda": 1, "sequence_length": 32, "batch_tokens": 256, "tokens": 256 * 12,
        "device": "cpu", "checkpoint_seconds": 0.0, "untied": True, "recipe": "lanes",
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


def test_the_row_of_an_untied_run_is_unlooped_and_names_its_graph():
    config = train_config(Path("out"))
    account = config.model(vocabulary=257).account()
    row = run_row(
        config, account, tokens=256, loss=5.0, status="done", device="cpu", precision="fp32",
        kernels="eager",
    )  # fmt: skip
    assert (row.recipe, row.recurrences, row.graph_recurrences) == ("lanes", 1, 2)
    assert row.n_rec == account.n_rec == 2 * (12 * 16**2 + 2 * 16)


def test_a_run_begun_before_there_were_untied_ones_goes_on():
    config = train_config(Path("out"), untied=False)
    old = config.to_json()
    del old["untied"]
    assert changed_settings(old, config) == []
    own = train_config(Path("out"))
    assert changed_settings(old, own) == ["untied was False, now True"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return standard_library(tmp_path_factory.mktemp("data") / "bytes", 20)


def test_killed_and_resumed_the_losses_are_the_same_to_the_bit(data, tmp_path):
    from isodepth import load_runs
    from isodepth.training.inference import load_trained
    from isodepth.training.trainer import train

    whole = train_config(tmp_path / "whole", data)
    record = train(whole, quiet=True)
    assert record["run"]["status"] == "done"
    killed = train_config(tmp_path / "killed", data)
    context = torch.multiprocessing.get_context("spawn")
    process = context.Process(target=_killed_after, args=(killed, 5))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert len(losses(killed.out)) < 6
    train(killed, quiet=True)
    assert losses(killed.out) == losses(whole.out)
    frame = load_runs(whole.out).frame
    assert frame["recurrences"].tolist() == [1]
    assert frame["graph_recurrences"].tolist() == [2]
    trained = load_trained(whole.out).model
    assert len(trained.recurrent) == 2
    assert generate(trained, [256], max_new=3, temperature=0.0, seed=0)


def losses(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


class _KillsAt:
    """A listener that ends its own process, as `kill -9` does, when it hears of a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, report) -> None:
        if report.step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)

    def validation(self, step: int, loss: float) -> None:
        pass

    def close(self) -> None:
        pass


def _killed_after(config: TrainConfig, steps: int) -> None:
    from isodepth.training.trainer import train

    torch.set_num_threads(1)
    train(config, quiet=True, sink=_KillsAt(steps))

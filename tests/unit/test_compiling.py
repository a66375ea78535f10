"""Compiled losses: one graph a shape, however many runs a process trains, and none unsaid."""

import gc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from isodepth.model.config import LoopedConfig  # noqa: E402
from isodepth.model.looped import LoopedModel  # noqa: E402
from isodepth.training import compiling  # noqa: E402
from isodepth.training.distributed import Ranks  # noqa: E402
from isodepth.training.engine import Engine  # noqa: E402

ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
LENGTH = 6
SHAPES = [
    {"recurrences": 1},
    {"recurrences": 2, "backprop_last": 1, "recompute": True},
]


class Counting:
    """A backend that runs what it is given as it is, and counts."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


def model_of(shape, seed):
    config = LoopedConfig.iso_depth(
        width=16, head_size=8, depth=2, prelude=0, coda=0, vocab=40, sequence_length=LENGTH, **shape
    )
    model = LoopedModel(config)
    model.initialise(seed)
    torch.nn.init.normal_(model.head, generator=torch.Generator().manual_seed(seed))
    return model


def engine(model, *, compile):
    return Engine(
        model, ALONE, rows=4, sequence_length=LENGTH, micro_batch=2, bf16=False, compile=compile
    )


class Rows:
    def __init__(self, rows):
        self.tokens = np.random.default_rng(7).integers(0, 40, size=(rows, LENGTH + 1))

    def __len__(self):
        return len(self.tokens)

    def batch(self, indices):
        return self.tokens[indices]


def results(model, *, compile):
    """Loss, gradients, validation loss and kernels of a batch."""
    runner = engine(model, compile=compile)
    loss = runner.gradients(Rows(4).batch(np.arange(4))).item()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    validation = runner.validate(Rows(4), stop=lambda: False)
    return loss, gradients, validation, runner.kernels


def test_six_runs_of_one_process_share_a_graph_a_shape(monkeypatch):
    """More graphs than torch.compile may keep for one function, none made again or left out."""
    monkeypatch.setattr("isodepth.training.engine.VALIDATION_TOKENS", {"cpu": 4 * LENGTH})
    counting = Counting()
    monkeypatch.setattr(compiling, "BACKEND", counting)
    limit = torch._dynamo.config.patch(recompile_limit=1)
    for seed in range(3):
        for shape in SHAPES:
            with limit:
                got = results(model_of(shape, seed), compile=True)
            want = results(model_of(shape, seed), compile=False)
            assert (got[3], want[3]) == ("compiled", "eager")
            assert got[0] == pytest.approx(want[0], rel=1e-6)
            assert got[2] == pytest.approx(want[2], rel=1e-6)
            for a, b in zip(got[1], want[1], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
            gc.collect()
        assert counting.graphs == 2 * len(SHAPES)  # with gradients and without


def faulty(graph, inputs):
    raise OSError("no compiler here")


def test_a_fault_of_the_compiler_costs_a_warning_and_not_the_run(monkeypatch, capsys):
    monkeypatch.setattr(compiling, "BACKEND", faulty)
    loss, gradients, _, kernels = results(model_of(SHAPES[1], 0), compile=True)
    assert kernels == "eager"
    said = capsys.readouterr().err
    assert said.count("warning: compiling failed") == 1
    assert "no compiler here" in said
    want = results(model_of(SHAPES[1], 0), compile=False)
    assert loss == want[0]
    for a, b in zip(gradients, want[1], strict=True):
        assert torch.equal(a, b)


def test_a_fault_of_the_compiler_in_validation_costs_no_more(monkeypatch, capsys):
    monkeypatch.setattr("isodepth.training.engine.VALIDATION_TOKENS", {"cpu": 4 * LENGTH})
    monkeypatch.setattr(compiling, "BACKEND", faulty)
    runner = engine(model_of(SHAPES[0], 0), compile=True)
    loss = runner.validate(Rows(4), stop=lambda: False)
    assert runner.kernels == "eager"
    assert "compiling failed" in capsys.readouterr().err
    plain = engine(model_of(SHAPES[0], 0), compile=False)
    assert loss == plain.validate(Rows(4), stop=lambda: False)

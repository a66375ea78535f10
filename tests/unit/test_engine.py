"""The engine: what a batch's pieces add up to, and what happens when memory runs out."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from isodepth.errors import InputError  # noqa: E402
from isodepth.model.config import LoopedConfig  # noqa: E402
from isodepth.model.looped import LoopedModel  # noqa: E402
from isodepth.training.distributed import Ranks  # noqa: E402
from isodepth.training.engine import (  # noqa: E402
    VALIDATION_TOKENS,
    Engine,
    gradient_norm,
    largest_divisor,
)

ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
LENGTH = 6


class Bigram(torch.nn.Module):
    """Scores the next token by a table; a device with room for only `capacity` rows."""

    config = "bigram"

    def __init__(self, capacity=10**9):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(9, 9, generator=generator).double())
        self.capacity = capacity
        self.seen = []

    def loss(self, tokens, targets):
        self.seen.append(len(tokens))
        if len(tokens) > self.capacity:
            raise torch.OutOfMemoryError("out of memory")
        logits = self.table[tokens].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, targets.flatten())


def engine(model, rows, micro_batch=None):
    return Engine(
        model, ALONE, rows=rows, sequence_length=LENGTH, micro_batch=micro_batch, bf16=False,
        compile=False,
    )  # fmt: skip


def batch(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 9, size=(rows, LENGTH + 1))


def whole_batch_gradient(rows):
    model = Bigram()
    tokens = torch.from_numpy(batch(rows))
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    return loss.item(), model.table.grad


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 5, 12, 100, None])
def test_pieces_add_up_to_the_whole_batch(micro_batch):
    model = Bigram()
    loss = engine(model, 12, micro_batch).gradients(batch(12)).item()
    expected, gradient = whole_batch_gradient(12)
    assert loss == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(model.table.grad, gradient, rtol=1e-12, atol=1e-15)
    assert max(model.seen) <= (micro_batch or 12)
    assert len(set(model.seen)) == 1  # equal pieces: one shape to compile


def test_out_of_memory_lowers_the_micro_batch_and_changes_no_gradient():
    model = Bigram(capacity=3)
    runner = engine(model, 12)
    loss = runner.gradients(batch(12)).item()
    expected, gradient = whole_batch_gradient(12)
    assert loss == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(model.table.grad, gradient, rtol=1e-12, atol=1e-15)
    assert model.seen == [12, 6, *[3] * 4]
    assert runner.micro_batch == 3
    model.table.grad = None
    runner.gradients(batch(12))
    assert model.seen[6:] == [3] * 4  # found once


def test_out_of_memory_half_way_leaves_no_gradient_behind():
    class Late(Bigram):
        def loss(self, tokens, targets):
            if len(self.seen) == 1 and len(tokens) == 6:  # the second piece of the first try
                self.seen.append(6)
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return super().loss(tokens, targets)

    model = Late()
    engine(model, 12, 6).gradients(batch(12))
    torch.testing.assert_close(
        model.table.grad, whole_batch_gradient(12)[1], rtol=1e-12, atol=1e-15
    )


def test_no_room_for_one_row_is_an_input_error():
    with pytest.raises(InputError, match="not even one row"):
        engine(Bigram(capacity=0), 4).gradients(batch(4))


def test_other_runtime_errors_are_not_taken_for_memory():
    class Broken(Bigram):
        def loss(self, tokens, targets):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        engine(Broken(), 4).gradients(batch(4))


class AllRows:
    """Rows as `Rows` gives them, from an array."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __len__(self):
        return len(self.tokens)

    def batch(self, indices):
        return self.tokens[indices]


def test_validation_reads_every_row_once():
    rows = 2 * (VALIDATION_TOKENS["cpu"] // LENGTH) + 17  # two whole pieces and a short one
    tokens = batch(rows, seed=3)
    model = Bigram()
    found = engine(model, 4).validate(AllRows(tokens), stop=lambda: False)
    assert sum(model.seen) == rows
    everything = torch.from_numpy(tokens)
    expected = Bigram().loss(everything[:, :-1], everything[:, 1:]).item()
    assert found == pytest.approx(expected, rel=1e-12)


def test_validation_can_be_stopped():
    assert engine(Bigram(), 4).validate(AllRows(batch(9)), stop=lambda: True) is None


def test_autocast_changes_the_products_and_not_the_precision_of_the_gradients():
    shape = LoopedConfig.iso_depth(
        width=32, head_size=16, recurrences=2, depth=4, prelude=1, coda=1, vocab=64,
        sequence_length=LENGTH,
    )  # fmt: skip
    found = {}
    for bf16 in (False, True):
        model = LoopedModel(shape)
        torch.nn.init.normal_(model.head, generator=torch.Generator().manual_seed(1))
        runner = Engine(
            model, ALONE, rows=4, sequence_length=LENGTH, micro_batch=2, bf16=bf16, compile=False
        )
        loss = runner.gradients(batch(4)).item()
        assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
        found[bf16] = loss, gradient_norm(model).item()
    assert found[True] != found[False]
    assert found[True] == pytest.approx(found[False], rel=0.02)


@pytest.mark.parametrize(
    ("number", "limit", "expected"), [(12, 5, 4), (12, 100, 12), (7, 6, 1), (8, 0, 1), (9, 3, 3)]
)
def test_largest_divisor(number, limit, expected):
    assert largest_divisor(number, limit) == expected


def test_gradient_norm_is_over_all_parameters_and_shows_what_is_not_finite():
    model = torch.nn.Module()
    model.a = torch.nn.Parameter(torch.zeros(3))
    model.b = torch.nn.Parameter(torch.zeros(2, 2))
    model.without = torch.nn.Parameter(torch.zeros(1))
    model.a.grad, model.b.grad = torch.full((3,), 2.0), torch.full((2, 2), 1.0)
    assert gradient_norm(model).item() == pytest.approx(4.0)
    model.b.grad[1, 1] = float("nan")
    assert not np.isfinite(gradient_norm(model).item())

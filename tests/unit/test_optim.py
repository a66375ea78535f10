"""The optimiser against a plain fp64 reference, and its promises."""

import math

import pytest
import torch
from torch import Tensor

from isodepth.accounting import Injection
from isodepth.errors import InputError
from isodepth.model.config import LoopedConfig
from isodepth.model.looped import LoopedModel
from isodepth.training.optim import Optimizer, Rates, build_optimizer, group_parameters
from isodepth.training.polar import COEFFICIENTS, orthogonalise


def model_of(
    injection: Injection = "linear", recurrences: int = 2, dtype: torch.dtype = torch.float32
) -> LoopedModel:
    return LoopedModel(
        LoopedConfig.iso_depth(
            width=32,
            head_size=16,
            depth=6,
            prelude=1,
            coda=1,
            vocab=40,
            sequence_length=12,
            recurrences=recurrences,
            injection=injection,
        )
    ).to(dtype)


def optimizer_of(model: LoopedModel) -> Optimizer:
    return build_optimizer(
        model, width=32, batch_tokens=4096, tokens=1e8, looped=model.config.looped
    )


def train(model: LoopedModel, optimizer: Optimizer, steps: range, scale: float = 1.0) -> None:
    for step in steps:
        rows = torch.randint(40, (4, 13), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model.loss(rows[:, :-1], rows[:, 1:]).backward()
        optimizer.step(scale)


# --- the plain reference: one matrix at a time, fp64, straight from the formulas ---------------


def polar(g: Tensor) -> Tensor:
    x = g / (1.02 * math.sqrt((g * g).sum().item()) + 1e-6)
    for a, b, c in COEFFICIENTS:
        x = a * x + b * (x @ x.T @ x) + c * (x @ x.T @ x @ x.T @ x)
    return x


class Reference:
    """MuonH and AdamW on a dict of fp64 weights."""

    def __init__(self, weights: dict[str, Tensor], width: int, batch: int, tokens: float) -> None:
        self.w = weights
        by_width = (width / 640) ** -0.5
        by_batch = (batch / 262_144) ** 0.558
        self.matrix_rate = 0.014 * by_batch * (tokens / 1_016_083_200) ** -0.32
        self.rates = {
            "head": 0.004 * by_width * by_batch,
            "embedding": 0.3 * by_width * by_batch,
            "norm": 0.005 * by_width,
            "lane": 0.01 * by_width,
        }
        self.m = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.v = {name: torch.zeros_like(w) for name, w in weights.items()}
        self.radius = {name: self.parts(name, w) for name, w in weights.items()}
        self.radius = {name: [p.norm() for p in parts] for name, parts in self.radius.items()}
        self.count = 0

    @staticmethod
    def parts(name: str, w: Tensor) -> list[Tensor]:
        return list(w.split(w.shape[1])) if name.endswith("qkv") else [w]

    def step(self, grads: dict[str, Tensor], scale: float) -> None:
        self.count += 1
        for name, g in grads.items():
            if name in ("head", "embedding") or "norm" in name:
                self.adam(name, g, scale * self.rates["norm" if "norm" in name else name])
            elif name.startswith("injection.") and not name.endswith("weight"):
                self.adam(name, g, scale * self.rates["lane"])
            else:
                self.muon(name, g, scale * self.matrix_rate)

    def adam(self, name: str, g: Tensor, rate: float) -> None:
        self.m[name] = 0.8 * self.m[name] + 0.2 * g
        self.v[name] = 0.95 * self.v[name] + 0.05 * g * g
        mean = self.m[name] / (1 - 0.8**self.count)
        square = self.v[name] / (1 - 0.95**self.count)
        self.w[name] = self.w[name] - rate * mean / (square.sqrt() + 1e-10)

    def muon(self, name: str, g: Tensor, rate: float) -> None:
        self.m[name] = 0.95 * self.m[name] + 0.05 * g
        mixed = 0.05 * g + 0.95 * self.m[name]
        new = []
        for w, u, radius in zip(
            self.parts(name, self.w[name]), self.parts(name, mixed), self.radius[name], strict=True
        ):
            direction = polar(u)
            w = w - rate * radius * direction / direction.norm()
            new.append(radius * w / w.norm())
        self.w[name] = torch.cat(new)


@pytest.mark.parametrize("injection", ["linear", "hyperconnections"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_three_steps_match_the_reference(
    injection: Injection, dtype: torch.dtype, tolerance: float
) -> None:
    """In fp32 the small singular values that Polar Express lifts a thousandfold carry rounding."""
    model = model_of(injection, dtype=dtype)
    optimizer = optimizer_of(model)
    start = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    expected = Reference(dict(start), width=32, batch=4096, tokens=1e8)
    for step, scale in enumerate((1.0, 0.7, 0.4)):
        generator = torch.Generator().manual_seed(step)
        grads = {
            name: 1e-3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for name, p in model.named_parameters()
        }
        for name, parameter in model.named_parameters():
            parameter.grad = grads[name].to(dtype)
        optimizer.step(scale)
        expected.step(grads, scale)
    for name, parameter in model.named_parameters():
        moved = (expected.w[name] - start[name]).abs().max()
        error = (parameter.detach().double() - expected.w[name]).abs().max()
        assert moved > 1e-4
        rounding = 4 * torch.finfo(dtype).eps * start[name].abs().max()
        assert error <= tolerance * moved + rounding, name


@pytest.mark.parametrize("shape", [(32, 32), (32, 64), (16, 128), (1, 5)])
def test_orthogonalise_is_the_five_steps_in_full(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    x[1] *= 1e-6
    x[2] = torch.outer(x[2, :, 0], x[2, 0])  # rank one
    got = orthogonalise(x)
    for mine, matrix in zip(got, x, strict=True):
        torch.testing.assert_close(mine, polar(matrix), rtol=1e-9, atol=1e-9)


def test_orthogonalise_brings_singular_values_near_one() -> None:
    x = torch.randn(4, 48, 96, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    got = orthogonalise(x)
    values = torch.linalg.svdvals(got)
    assert values.min() > 0.8
    assert values.max() < 1.2
    assert (left @ right - got).norm() < 0.15 * got.norm()


def test_a_zero_gradient_is_harmless() -> None:
    model = model_of()
    optimizer = optimizer_of(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=1e-6, atol=0)


def test_norms_stay_on_the_sphere() -> None:
    model = model_of()
    optimizer = optimizer_of(model)

    def norms() -> dict[str, Tensor]:
        return {
            f"{name}.{i}": part.detach().double().norm()
            for name, p in group_parameters(model)["matrices"].items()
            for i, part in enumerate(Reference.parts(name, p))
        }

    before = norms()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer, range(30))
    for name, norm in norms().items():
        assert norm.item() == pytest.approx(before[name].item(), rel=1e-6), name
    moved = (
        model.get_parameter("recurrent.0.mlp.up").detach() - start["recurrent.0.mlp.up"]
    ).norm()
    assert moved > 0.01 * before["recurrent.0.mlp.up.0"]


@pytest.mark.parametrize("injection", ["linear", "additive", "hyperconnections"])
@pytest.mark.parametrize("recurrences", [1, 2])
def test_every_parameter_is_in_its_group(injection: Injection, recurrences: int) -> None:
    model = model_of(injection, recurrences)
    groups = group_parameters(model)
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert list(groups["head"]) == ["head"]
    assert list(groups["embedding"]) == ["embedding"]
    assert all(p.ndim == 1 for p in groups["norms"].values())
    assert all(p.ndim == 2 for p in groups["matrices"].values())
    looped = recurrences > 1
    assert ("injection.weight" in groups["matrices"]) == (looped and injection == "linear")
    assert bool(groups["lanes"]) == (looped and injection == "hyperconnections")


def test_rates_at_the_reference_are_the_published_ones() -> None:
    for looped, tokens in ((True, 1_016_083_200), (False, 983_315_200)):
        rates = Rates.transferred(width=640, batch_tokens=262_144, tokens=tokens, looped=looped)
        assert rates == Rates(matrices=0.014, head=0.004, embedding=0.3, norms=0.005, lanes=0.01)


def test_rates_transfer_as_published() -> None:
    rates = Rates.transferred(
        width=160, batch_tokens=524_288, tokens=2 * 1_016_083_200, looped=True
    )
    batch = 1.472225  # 2^0.558
    assert rates.matrices == pytest.approx(0.014 * batch * 0.801070, rel=1e-5)  # 2^-0.32
    assert rates.head == pytest.approx(0.008 * batch, rel=1e-5)
    assert rates.embedding == pytest.approx(0.6 * batch, rel=1e-5)
    assert rates.norms == pytest.approx(0.010)
    assert rates.lanes == pytest.approx(0.020)


@pytest.mark.parametrize("name", ["width", "batch_tokens", "tokens"])
def test_bad_sizes_are_refused(name: str) -> None:
    good = {"width": 32, "batch_tokens": 4096, "tokens": 1e8}
    with pytest.raises(InputError, match=f"{name} = 0"):
        build_optimizer(model_of(), looped=True, **(good | {name: 0}))  # type: ignore[arg-type]


def test_two_ranks_step_as_one() -> None:
    """Gradients averaged over two halves of a batch give the whole batch's step."""
    rows = torch.randint(40, (4, 13), generator=torch.Generator().manual_seed(0))
    whole, halves = model_of(dtype=torch.float64), model_of(dtype=torch.float64)
    whole.loss(rows[:, :-1], rows[:, 1:]).backward()
    for half in rows.chunk(2):
        (halves.loss(half[:, :-1], half[:, 1:]) / 2).backward()
    for model in (whole, halves):
        optimizer_of(model).step(1.0)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("injection", ["linear", "hyperconnections"])
def test_a_resumed_run_is_the_same_bit_for_bit(injection: Injection) -> None:
    straight = model_of(injection)
    optimizer = optimizer_of(straight)
    train(straight, optimizer, range(3))
    weights = {name: value.clone() for name, value in straight.state_dict().items()}
    state = {name: value.clone() for name, value in optimizer.state_tensors().items()}
    train(straight, optimizer, range(3, 6))

    resumed = model_of(injection)
    resumed.initialise(99)  # other radii and weights, all of which loading must replace
    again = optimizer_of(resumed)
    resumed.load_state_dict(weights)
    again.load_state_tensors(state)
    train(resumed, again, range(3, 6))
    for (name, a), b in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_foreign_state_is_refused() -> None:
    optimizer = optimizer_of(model_of())
    state = optimizer.state_tensors()
    name = next(iter(state))
    lacking = {key: value for key, value in state.items() if key != name}
    for bad, message in (
        (lacking, "lacks"),
        (state | {"more": torch.zeros(1)}, "no use for more"),
        (state | {name: torch.zeros(3, 3, 3)}, "shape"),
    ):
        with pytest.raises(InputError, match=message):
            optimizer.load_state_tensors(bad)


def test_zero_grad_forgets() -> None:
    model = model_of()
    optimizer = optimizer_of(model)
    train(model, optimizer, range(1))
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_missing_gradient_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="no gradient"):
        optimizer_of(model_of()).step(1.0)

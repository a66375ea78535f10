"""The model against a plain fp64 reference, and the promises that its docstrings make."""

import dataclasses
import math
from itertools import pairwise

import pytest
import reference_model as reference
import torch
from torch import Tensor
from torch.nn import functional as F

from isodepth.accounting import Injection
from isodepth.errors import InputError
from isodepth.model.config import LoopedConfig
from isodepth.model.head import CAP, capped_logits, capped_loss
from isodepth.model.looped import LoopedModel

INJECTIONS: list[Injection] = ["linear", "additive", "passthrough", "hyperconnections"]
RECURRENCES = [1, 2, 4, 8]
ARMS = [
    (injection, r, k)
    for injection in INJECTIONS
    for r in RECURRENCES
    for k in (None, math.ceil(r / 2))
    if k is None or (k < r and injection != "passthrough")
]


def config_of(
    injection: Injection = "linear",
    recurrences: int = 4,
    backprop_last: int | None = None,
    *,
    width: int = 32,
    recompute: bool = False,
    sequence_length: int = 12,
    lanes: int = 2,
) -> LoopedConfig:
    return LoopedConfig.iso_depth(
        width=width,
        head_size=16,
        depth=10,
        prelude=1,
        coda=1,
        vocab=40,
        sequence_length=sequence_length,
        recurrences=recurrences,
        injection=injection,
        lanes=lanes,
        backprop_last=backprop_last,
        recompute=recompute,
    )


def shaken(config: LoopedConfig, seed: int = 0, scale: float = 1.0) -> LoopedModel:
    """A model away from its start, where W = [I | 0], unit norms and a tiny head hide faults."""
    model = LoopedModel(config)
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = scale * (0.2 if name == "head" else 0.1)
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def batch_of(config: LoopedConfig, rows: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, config.sequence_length)
    return (
        torch.randint(config.vocab, shape, generator=generator),
        torch.randint(config.vocab, shape, generator=generator),
    )


def gradients(model: LoopedModel, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model.loss(tokens, targets).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize(("injection", "recurrences", "backprop_last"), ARMS)
def test_logits_and_gradients_match_the_fp64_reference(
    injection: Injection, recurrences: int, backprop_last: int | None
) -> None:
    config = config_of(injection, recurrences, backprop_last)
    model = shaken(config)
    tokens, targets = batch_of(config)
    weights = reference.weights_of(model.state_dict())
    expected = reference.logits(weights, config, tokens)
    assert expected.std() > 0.5  # large enough for an absolute 1e-5 to mean something
    torch.testing.assert_close(model(tokens).double(), expected, rtol=1e-5, atol=1e-5)

    loss = reference.loss(weights, config, tokens, targets)
    assert abs(model.loss(tokens, targets).item() - loss.item()) < 1e-5
    loss.backward()
    for name, got in gradients(model, tokens, targets).items():
        want = weights[name].grad
        want = torch.zeros_like(weights[name]) if want is None else want
        error = (got.double() - want).abs().max()
        assert error <= 1e-5 * max(want.abs().max().item(), 1e-3), (name, error)


def test_truncation_changes_the_gradient_and_not_the_loss() -> None:
    """Otherwise the agreement above could be between two models that both ignore it."""
    tokens, targets = batch_of(config_of())
    for injection in ("linear", "additive", "hyperconnections"):
        whole, cut = (shaken(config_of(injection, 4, k)) for k in (None, 2))
        torch.testing.assert_close(whole(tokens), cut(tokens), rtol=0, atol=1e-5)
        a, b = gradients(whole, tokens, targets), gradients(cut, tokens, targets)
        assert (a["recurrent.0.mlp.up"] - b["recurrent.0.mlp.up"]).abs().max() > 1e-3
        for name in ("embedding", "prelude.0.mlp.up"):
            assert b[name].abs().max() > 0, f"{injection}: {name} must still learn"


def test_lane_scalars_before_the_cut_get_no_gradient() -> None:
    config = config_of("hyperconnections", 4, 2)
    got = gradients(shaken(config), *batch_of(config))
    for name in ("alpha", "mix", "beta"):
        grad = got[f"injection.{name}"]
        assert not grad[:2].any()
        assert grad[2:].flatten(1).any(1).all()


@pytest.mark.parametrize("injection", INJECTIONS)
def test_initial_loop_state_is_the_published_one(injection: Injection) -> None:
    """At the start W = [I | 0]: a linear pass ignores s, so that r passes equal one."""
    config = config_of(injection, 2)
    model = LoopedModel(config)
    tokens, _ = batch_of(config)
    one, two = (model.hidden(tokens, recurrences=r) for r in (1, 2))
    same = torch.allclose(one, two, atol=1e-5)
    assert same == (injection == "linear")


def test_initialisation_is_the_published_one() -> None:
    config = LoopedConfig.iso_depth(width=128, recurrences=4, vocab=2048, sequence_length=8)
    model = LoopedModel(config)
    model.initialise(3)
    width = config.width
    assert model.embedding.std().item() == pytest.approx(1, rel=0.01)
    assert model.head.std().item() == pytest.approx(0.001, rel=0.01)
    for block in model.blocks():
        for weight in (block.attention.qkv, block.attention.out, block.mlp.up):
            assert weight.std().item() == pytest.approx(width**-0.5, rel=0.02)
            assert weight.abs().max() <= (3 / width) ** 0.5
        assert block.mlp.down.std().item() == pytest.approx((4 * width) ** -0.5, rel=0.02)
        assert (block.norm_mlp.weight == 1).all()
    inject = model.state_dict()["injection.weight"]
    assert torch.equal(inject, torch.cat([torch.eye(width), torch.zeros(width, width)], dim=1))


def test_the_seed_decides_the_weights() -> None:
    models = [LoopedModel(config_of()) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        model.initialise(seed)
    a, b, c = (model.state_dict() for model in models)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head"], c["head"])


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("recurrences", RECURRENCES)
def test_parameters_are_what_accounting_says(
    injection: Injection, recurrences: int, lanes: int
) -> None:
    config = config_of(injection, recurrences, lanes=lanes)
    held = sum(parameter.numel() for parameter in LoopedModel(config).parameters())
    counted = config.account()
    assert held == counted.n_total + counted.n_embedding


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("recurrences", [1, 4])
def test_every_arm_keeps_its_stream_in_one_dtype(
    injection: Injection, recurrences: int, autocast: bool
) -> None:
    """The published code's looped arms fall to bf16 under autocast; its unlooped arm doesn't."""
    config = config_of(injection, recurrences)
    model = shaken(config)
    seen: dict[str, set[torch.dtype]] = {"stream": set(), "state": set()}

    def note_stream(_module: object, args: tuple[Tensor, ...], out: Tensor) -> None:
        seen["stream"] |= {args[0].dtype, out.dtype}

    for block in model.blocks():
        block.register_forward_hook(note_stream)
    model.norm_recur.register_forward_hook(note_stream)
    model.norm_final.register_forward_hook(note_stream)
    if model.injection is not None:
        write, finish = model.injection.write, model.injection.finish

        def noting_write(step: int, state: Tensor, s: Tensor) -> Tensor:
            after = write(step, state, s)
            seen["state"] |= {state.dtype, s.dtype, after.dtype}
            return after

        def noting_finish(state: Tensor) -> Tensor:
            out = finish(state)
            seen["state"] |= {state.dtype, out.dtype}
            return out

        model.injection.write = noting_write  # type: ignore[method-assign]
        model.injection.finish = noting_finish  # type: ignore[method-assign]
    tokens, targets = batch_of(config)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(tokens)
        model.loss(tokens, targets).backward()
    assert seen["stream"] == {torch.float32}
    assert seen["state"] <= {torch.float32}
    assert logits.dtype == torch.float32
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize(("injection", "recurrences", "backprop_last"), ARMS)
def test_recomputation_changes_nothing(
    injection: Injection, recurrences: int, backprop_last: int | None
) -> None:
    config, again = (
        config_of(injection, recurrences, backprop_last, recompute=x) for x in (False, True)
    )
    a = gradients(shaken(config), *batch_of(config))
    b = gradients(shaken(again), *batch_of(config))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-7)


def bytes_kept(config: LoopedConfig) -> int:
    """Bytes that the graph of one loss keeps for the backward, each storage counted once."""
    model = LoopedModel(config)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.loss(*batch_of(config))
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("injection", ["linear", "additive", "hyperconnections"])
def test_memory_falls_under_truncation(injection: Injection) -> None:
    """Eight equal passes: what the graph keeps must fall about as the passes that carry it."""
    kept = {k: bytes_kept(config_of(injection, 8, k, sequence_length=64)) for k in (1, 2, 4, None)}
    rising = [kept[1], kept[2], kept[4], kept[None]]
    assert all(a < b for a, b in pairwise(rising))
    per_pass = (kept[None] - kept[4]) / 4
    assert kept[2] - kept[1] == pytest.approx(per_pass, rel=0.1)
    assert kept[None] - kept[1] == pytest.approx(7 * per_pass, rel=0.1)


def test_memory_hardly_grows_with_passes_under_recomputation() -> None:
    """Same blocks, twice the passes: what is added is a state per pass, not its activations."""
    grown = {}
    for recompute in (False, True):
        sizes = [
            bytes_kept(
                LoopedConfig(
                    width=32,
                    head_size=16,
                    n_prelude=1,
                    n_recurrent=2,
                    n_coda=1,
                    recurrences=r,
                    vocab=40,
                    sequence_length=64,
                    recompute=recompute,
                )
            )
            for r in (4, 8)
        ]
        grown[recompute] = sizes[1] - sizes[0]
    state = 2 * 64 * 32 * 4
    assert grown[True] <= 2 * 4 * state
    assert grown[True] < 0.1 * grown[False]


@pytest.mark.parametrize("vocab", [257, 1000, 32001])  # none a multiple of 64
@pytest.mark.parametrize("recurrences", [1, 4])
def test_the_loss_starts_at_the_logarithm_of_the_true_vocabulary(
    vocab: int, recurrences: int
) -> None:
    config = dataclasses.replace(config_of("linear", recurrences), vocab=vocab)
    tokens, targets = batch_of(config, rows=64)  # enough for the targets' own logits to cancel
    loss = LoopedModel(config).loss(tokens, targets).item()
    assert loss == pytest.approx(math.log(vocab), abs=1e-3)


@pytest.mark.parametrize("aligned", [False, True])
def test_padding_has_no_logit_no_loss_and_no_gradient(
    aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isodepth.model.head.ALIGNED", {"cpu"} if aligned else set())
    config = config_of()
    assert (config.vocab, config.padded_vocab) == (40, 64)
    model = shaken(config)
    tokens, targets = batch_of(config)
    loss, logits = model.loss(tokens, targets).item(), model(tokens)
    assert logits.shape[-1] == config.vocab
    with torch.no_grad():
        model.head[config.vocab :] = 1e3
        model.embedding[config.vocab :] = 1e3
    assert model.loss(tokens, targets).item() == loss
    assert torch.equal(model(tokens), logits)
    got = gradients(model, tokens, targets)
    for name in ("head", "embedding"):
        assert not got[name][config.vocab :].any()
        assert got[name][: config.vocab].any()


@pytest.mark.parametrize("aligned", [False, True])
def test_chunked_loss_is_the_loss_of_the_whole_logits(
    aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isodepth.model.head.ALIGNED", {"cpu"} if aligned else set())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 16, generator=generator, dtype=torch.float64)
    head = 3 * torch.randn(40, 16, generator=generator, dtype=torch.float64)
    targets = torch.randint(37, (50,), generator=generator)
    results = []
    for elements in (40, 40 * 7, 2**20):  # a row, 7 rows (50 = 7 · 7 + 1) and all rows at a time
        monkeypatch.setattr("isodepth.model.head.CHUNK_ELEMENTS", {"cpu": elements})
        a, b = x.clone().requires_grad_(), head.clone().requires_grad_()
        loss = capped_loss(a, b, targets, vocab=37)
        (3 * loss).backward()
        results.append((loss.detach(), a.grad, b.grad))
    a, b = x.clone().requires_grad_(), head.clone().requires_grad_()
    plain = F.cross_entropy(CAP * torch.tanh(a @ b[:37].T / CAP), targets)
    (3 * plain).backward()
    for loss, grad_x, grad_head in results:
        torch.testing.assert_close(loss, plain.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(grad_x, a.grad, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(grad_head, b.grad, rtol=1e-10, atol=1e-14)


def test_full_logits_are_never_held() -> None:
    """No tensor as large as a tenth of B·T·V appears in loss and backward."""
    rows, width, vocab = 4096, 8, 4096
    x = torch.randn(rows, width, requires_grad=True)
    head = torch.randn(vocab, width, requires_grad=True)
    targets = torch.randint(vocab, (rows,))

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, Tensor):
                    self.size = max(getattr(self, "size", 0), tensor.numel())
            return out

    with Largest() as largest:
        capped_loss(x, head, targets, vocab=vocab).backward()
    assert 0 < largest.size <= rows * vocab / 10


def test_logits_are_capped() -> None:
    logits = capped_logits(torch.full((1, 4), 1e3), torch.ones(4, 4), vocab=3)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.full((1, 3), 15.0))


@pytest.mark.parametrize("injection", ["linear", "additive", "passthrough"])
def test_more_passes_than_trained_may_be_run(injection: Injection) -> None:
    config = config_of(injection, 2)
    more = LoopedConfig(
        **{f: getattr(config, f) for f in config.__dataclass_fields__ if f != "recurrences"},
        recurrences=5,
    )
    model = shaken(config)
    tokens, _ = batch_of(config)
    expected = reference.logits(reference.weights_of(model.state_dict()), more, tokens)
    torch.testing.assert_close(
        model(tokens, recurrences=5).double(), expected, rtol=1e-5, atol=1e-5
    )


def test_passes_that_cannot_be_run_are_refused() -> None:
    tokens, _ = batch_of(config_of())
    lanes = shaken(config_of("hyperconnections", 4))
    assert lanes(tokens, recurrences=3).shape == (2, 12, 40)
    with pytest.raises(InputError, match="4 trained passes"):
        lanes(tokens, recurrences=5)
    with pytest.raises(InputError, match="unlooped"):
        shaken(config_of("linear", 1))(tokens, recurrences=2)
    with pytest.raises(InputError, match="at least 1"):
        lanes(tokens, recurrences=0)


def test_rows_longer_than_the_model_are_refused() -> None:
    with pytest.raises(InputError, match="12 tokens"):
        LoopedModel(config_of())(torch.zeros(1, 13, dtype=torch.long))


def test_later_tokens_do_not_reach_earlier_logits() -> None:
    config = config_of()
    model = shaken(config)
    tokens, _ = batch_of(config)
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % config.vocab
    difference = (model(tokens) - model(changed)).abs().amax((0, 2))
    assert difference[:7].max() < 1e-5
    assert (difference[7:] > 1e-3).all()


class Products(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes every matrix product, attention among them, with the dtypes of its matrices."""

    NAMES = frozenset(
        {
            "mm",
            "bmm",
            "addmm",
            "baddbmm",
            "addbmm",
            "mv",
            "addmv",
            "dot",
            "vdot",
            "matmul",
            "linear",
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func._overloadpacket.__name__.rstrip("_")
        if name in self.NAMES or "attention" in name:
            matrices = [x for x in args if isinstance(x, Tensor) and x.ndim > 1]
            self.seen |= {(name, x.dtype) for x in matrices[:3]}  # attention's fourth is statistics
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("injection", "recurrences", "backprop_last"),
    [("linear", 1, None), ("additive", 4, None), ("passthrough", 2, None)]
    + [(injection, 4, 2) for injection in ("linear", "additive", "hyperconnections")],
)
def test_every_product_is_in_bf16_under_autocast(
    injection: Injection, recurrences: int, backprop_last: int | None, recompute: bool
) -> None:
    model = shaken(config_of(injection, recurrences, backprop_last, recompute=recompute))
    tokens, targets = batch_of(model.config)
    with Products() as products:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.loss(tokens, targets)
        loss.backward()  # type: ignore[no-untyped-call]
    assert {"mm"} < {name for name, _ in products.seen}
    assert {dtype for _, dtype in products.seen} == {torch.bfloat16}


@pytest.mark.parametrize(("injection", "recurrences", "backprop_last"), ARMS)
def test_bf16_gradients_are_those_of_fp32_to_two_percent(
    injection: Injection, recurrences: int, backprop_last: int | None
) -> None:
    """Also where passes without gradient come first, whose cast weights must not be used again."""
    model = shaken(config_of(injection, recurrences, backprop_last, width=64), scale=0.2)
    tokens, targets = batch_of(model.config, rows=4)
    exact = gradients(model, tokens, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = gradients(model, tokens, targets)
    for name, want in exact.items():
        assert rounded[name].any() == want.any(), name
    flat = [torch.cat([g.flatten() for g in x.values()]) for x in (exact, rounded)]
    # Without an injection nothing reaches the later passes around the rounded ones.
    most = 0.03 if injection == "passthrough" else 0.02
    assert (flat[1] - flat[0]).norm() <= most * flat[0].norm()

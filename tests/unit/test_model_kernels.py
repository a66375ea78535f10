"""The hand-written gradients against autograd on the plain formulas, in fp64."""

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from isodepth.model import kernels
from isodepth.model.blocks import NORM_EPS, Block, Rotary


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def check(mine: Callable[..., Tensor], plain: Callable[..., Tensor], *leaves: Tensor) -> None:
    """Same value and same gradient of every leaf, for an uneven weighting of the output."""
    a, b = mine(*leaves), plain(*leaves)
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    weighting = draw(*a.shape, seed=99).detach()
    got = torch.autograd.grad(a, leaves, weighting)
    want = torch.autograd.grad(b, leaves, weighting)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def norm(x: Tensor, scale: Tensor) -> Tensor:
    return F.rms_norm(x, scale.shape, scale, NORM_EPS)


def test_rms_norm() -> None:
    check(
        lambda x, s: kernels.rms_norm(x, s, NORM_EPS),
        norm,
        draw(3, 5, 16, seed=0),
        draw(16, seed=1),
    )


def test_normed_linear() -> None:
    check(
        lambda x, s, w: kernels.normed_linear(x, s, w, NORM_EPS),
        lambda x, s, w: norm(x, s) @ w.mT,
        draw(3, 5, 16, seed=0),
        draw(16, seed=1),
        draw(48, 16, seed=2),
    )


@pytest.mark.parametrize("elements", [64 * 64, 2**18])  # slices of 64 of the 165 tokens; one slice
def test_normed_mlp(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SLICE_ELEMENTS", elements)
    check(
        lambda x, s, u, d: kernels.normed_mlp(x, s, u, d, NORM_EPS),
        lambda x, s, u, d: x + F.relu(norm(x, s) @ u.mT).square() @ d.mT,
        draw(3, 55, 16, seed=0),
        draw(16, seed=1),
        draw(64, 16, seed=2),
        draw(16, 64, seed=3),
    )


@pytest.mark.parametrize("length", [1, 7, kernels.SPAN, kernels.SPAN + 1, 2 * kernels.SPAN + 3])
@pytest.mark.parametrize("size", [8, 16])  # narrow heads go another way
def test_attend(length: int, size: int) -> None:
    rotary = Rotary(length, size).double()
    # Exact unit rotations: the fp32 tables' are so to 1e-7 only.
    radius = torch.sqrt(rotary.cos**2 + rotary.sin**2)
    rotary.cos /= radius
    rotary.sin /= radius

    turn = rotary(0, length, torch.float64)

    def plain(qkv: Tensor) -> Tensor:
        q, k, v = qkv.unbind(2)
        q, k = (F.rms_norm(turn(x), (size,), eps=NORM_EPS).transpose(1, 2) for x in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        return mixed.transpose(1, 2).flatten(2)

    check(
        lambda qkv: kernels.attend(qkv, rotary.cos, rotary.sin, NORM_EPS),
        plain,
        draw(2, length, 3, 2, size, seed=0),
    )


@pytest.mark.parametrize("length", [40, kernels.MAX_LENGTH + 1])
def test_a_block_is_the_same_by_hand_and_plainly(length: int) -> None:
    block, turn = Block(16, 8), Rotary(length, 8)(0, length, torch.float32)
    block.initialise(torch.Generator().manual_seed(0))
    results = []
    for by_hand in (True, False):
        x = draw(1, length, 16, seed=1).detach().float().requires_grad_()
        with patch("isodepth.model.blocks.by_hand", return_value=by_hand):
            out = block(x, turn)
        block.zero_grad()
        out.square().sum().backward()
        results.append([out.detach(), x.grad, *(p.grad.clone() for p in block.parameters())])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()

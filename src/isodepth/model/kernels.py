"""The block's parts with their gradients written out, for training on the CPU without a compiler.

There, an operation on activations costs a trip through memory, and autograd's share of a block has
dozens. These functions compute the same formulas (`blocks` has them plainly) in fewer trips:

* A norm's scale is folded into the matrix behind it, W·diag(scale), whose gradient gives both back.
* The MLP runs over slices of tokens that stay in cache, and keeps relu(z) alone.
* The rotation keeps lengths, so q and k are normed by the length that they had before it.
* Causal attention skips, span by span, the keys that a span of queries can't see. It keeps its
  odds, T² / 2 numbers per head, hence `MAX_LENGTH`; longer rows use torch's own.

Gradients of gradients are not there.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SLICE_ELEMENTS = 2**18  # numbers in a slice of the MLP's hidden layer: 1 MB in fp32
SPAN = 128  # queries that share their visible keys
MAX_LENGTH = 512  # tokens in a row
NARROW_HEAD = 8  # numbers in a head up to which odds meet it transposed
LOG2E = 1 / math.log(2)


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x / rms(x) · scale over the last axis of x, [..., d]."""
    out: Tensor = _RMSNorm.apply(x, scale, eps)  # type: ignore[no-untyped-call]  # torch's
    return out


def normed_linear(x: Tensor, scale: Tensor, weight: Tensor, eps: float) -> Tensor:
    """rms_norm(x, scale) weightᵀ: x is [..., d], weight [m, d]."""
    out: Tensor = _NormedLinear.apply(x, scale, weight, eps)  # type: ignore[no-untyped-call]  # torch's
    return out


def normed_mlp(x: Tensor, scale: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
    """x + relu(rms_norm(x, scale) upᵀ)² downᵀ: x is [..., d], up [h, d], down [d, h]."""
    out: Tensor = _NormedMLP.apply(x, scale, up, down, eps)  # type: ignore[no-untyped-call]  # torch's
    return out


def attend(qkv: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Causal attention of q, k, v packed in [B, T, 3, H, D], after rotation and norm: [B, T, H·D].

    `cos` and `sin` are [T, D / 2].
    """
    out: Tensor = _Attend.apply(qkv, cos, sin, eps)  # type: ignore[no-untyped-call]  # torch's
    return out


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_backward(grad: Tensor, unit: Tensor, inverse: Tensor, share: float) -> Tensor:
    """Gradient of x from that of unit = x · inverse; overwrites `grad`.

    `share` is 1 / Σ unit²: one over the width, unless `inverse` carries a factor of its own.
    """
    along = torch.linalg.vecdot(grad, unit).unsqueeze(-1)
    return grad.addcmul_(unit, along, value=-share).mul_(inverse)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        ctx.save_for_backward(x, scale, inverse)
        return (x * inverse).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, inverse = ctx.saved_tensors
        unit = x * inverse
        grad_scale = (grad * unit).flatten(0, -2).sum(0)
        return _norm_backward(grad * scale, unit, inverse, 1 / x.shape[-1]), grad_scale, None


class _NormedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        ctx.save_for_backward(x, scale, weight, inverse)
        return (x * inverse) @ (weight * scale).mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, weight, inverse = ctx.saved_tensors
        unit = x * inverse
        folded = grad.flatten(0, -2).mT @ unit.flatten(0, -2)
        grad_x = _norm_backward(grad @ (weight * scale), unit, inverse, 1 / x.shape[-1])
        grad_scale = (folded * weight).sum(0)
        return grad_x, grad_scale, folded.mul_(scale), None


class _NormedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
        rows = x.flatten(0, -2)
        inverse = _inverse_rms(rows, eps)
        folded = (up * scale).mT
        active = rows.new_empty(rows.shape[0], up.shape[0])
        out = torch.empty_like(rows)
        for part in _slices(rows, up):
            torch.mm(rows[part] * inverse[part], folded, out=active[part])
            hidden = active[part].clamp_min_(0).square()
            torch.addmm(rows[part], hidden, down.mT, out=out[part])
        ctx.save_for_backward(x, scale, up, down, inverse, active)
        return out.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, scale, up, down, inverse, active = ctx.saved_tensors
        rows, grads = x.flatten(0, -2), grad.flatten(0, -2)
        weight = up * scale
        # Both wide side last, which the library adds up a tenth faster.
        folded, grad_down = torch.zeros_like(down), torch.zeros_like(down)
        grad_x = torch.empty_like(rows)
        for part in _slices(rows, up):
            g, a, unit = grads[part], active[part], rows[part] * inverse[part]
            grad_down.addmm_(g.mT, a.square())
            # d relu(z)² = 2 relu(z) dz; the 2 goes where it costs least.
            inner = (g @ down).mul_(a)
            folded.addmm_(unit.mT, inner, alpha=2)
            back = _norm_backward((inner @ weight).mul_(2), unit, inverse[part], 1 / x.shape[-1])
            torch.add(g, back, out=grad_x[part])
        grad_scale = torch.linalg.vecdot(folded, up.mT)
        grad_up = folded.mT * scale
        return grad_x.view_as(x), grad_scale, grad_up, grad_down, None


def _slices(rows: Tensor, up: Tensor) -> list[slice]:
    step = max(64, SLICE_ELEMENTS // up.shape[0])
    return [slice(first, first + step) for first in range(0, rows.shape[0], step)]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        batch, length, _, heads, size = qkv.shape
        inverse = _inverse_rms(qkv[:, :, :2], eps)
        # q carries the scores' scale, and log₂e, since 2^x is cheaper than e^x.
        inverse[:, :, 0] *= size**-0.5 * LOG2E
        turned = qkv.new_empty(2, batch, heads, length, size)
        packed = turned.permute(1, 3, 0, 2, 4)
        _rotate(qkv[:, :, :2], cos, sin, packed)
        packed.mul_(inverse)
        q, k = turned.flatten(1, 2)
        v = _by_head(qkv[:, :, 2])
        out = torch.empty_like(q)
        odds, totals = [], []
        for span in _spans(length):
            # Scores lie within ±√D, so that their powers need no maximum taken off.
            p = torch.bmm(q[:, span], k[:, : span.stop].mT).exp2_()
            p[:, :, span.start :].tril_()
            odds.append(p)
            totals.append(p.sum(-1, keepdim=True))
            _mix(p, v[:, : span.stop], out=out[:, span])
            out[:, span].div_(totals[-1])
        ctx.save_for_backward(turned, qkv, inverse, out, cos, sin, *odds, *totals)
        return out.view(batch, heads, length, size).transpose(1, 2).reshape(batch, length, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        turned, qkv, inverse, mixed, cos, sin, *rest = ctx.saved_tensors
        _, batch, heads, length, size = turned.shape
        q, k = turned.flatten(1, 2)
        v = _by_head(qkv[:, :, 2])
        g = _by_head(grad.view(batch, length, heads, size))
        grads = torch.empty_like(turned)
        grad_q, grad_k = grads.flatten(1, 2)
        grad_v = torch.empty_like(q)
        spans = _spans(length)
        # The last span sees every key: it comes first, and its gradients need nothing to add to.
        for span, p, total in reversed(list(zip(spans, rest, rest[len(spans) :], strict=False))):
            seen = slice(0, span.stop)
            # With odds p / Σp: d score = p · (g·v − g·out) / Σp.
            part = g[:, span] / total
            slope = part @ v[:, seen].mT
            slope.sub_(torch.linalg.vecdot(part, mixed[:, span]).unsqueeze(-1)).mul_(p)
            add = span.stop < length
            _mix(slope, k[:, seen], out=grad_q[:, span])
            _mix(p.mT, part, out=grad_v[:, seen], add=add)
            _mix(slope.mT, q[:, span], out=grad_k[:, seen], add=add)
        out = torch.empty_like(qkv)
        # The turned vectors' norm comes first, then the turn. k has a mean square of 1, q one of
        # (log₂e)² / D; both gradients lack the ln 2 of 2^x.
        share = turned.new_tensor([1 / LOG2E**2, 1 / size]).view(2, 1, 1, 1, 1)
        along = torch.linalg.vecdot(grads, turned).unsqueeze(-1).mul_(share)
        grads.addcmul_(turned, along, value=-1)
        packed = grads.permute(1, 3, 0, 2, 4).mul_(inverse.mul(1 / LOG2E))
        _rotate(packed, cos, -sin, out[:, :, :2])
        out[:, :, 2] = grad_v.view(batch, heads, length, size).transpose(1, 2)
        return out, None, None, None


def _mix(odds: Tensor, x: Tensor, *, out: Tensor, add: bool = False) -> None:
    """odds @ x, [n, T, S] by [n, S, D], into `out`, or added to it.

    Narrow heads are met transposed: at D = 8 the library is four times as fast that way.
    """
    if x.shape[-1] > NARROW_HEAD:
        torch.baddbmm(out, odds, x, beta=int(add), out=out)
    elif add:
        out.add_(torch.bmm(x.mT, odds.mT).mT)
    else:
        out.copy_(torch.bmm(x.mT, odds.mT).mT)


def _by_head(x: Tensor) -> Tensor:
    """[B, T, H, D] as [B·H, T, D]; no copy where there is one head."""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _spans(length: int) -> list[slice]:
    return [slice(first, min(first + SPAN, length)) for first in range(0, length, SPAN)]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Turn x, [B, T, n, H, D], by position into `out`."""
    cos, sin = cos[:, None, None], sin[:, None, None]
    first, second = x.chunk(2, dim=-1)
    low, high = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=low)
    low.addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=high)
    high.addcmul_(first, sin)

"""The head: logits capped at ±15, and their cross-entropy without ever holding all of them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CAP = 15.0  # arXiv 2604.21106: logits are 15 tanh(z / 15)
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**28}  # logits held at once


def capped_logits(x: Tensor, head: Tensor) -> Tensor:
    """15 tanh(x headᵀ / 15) in fp32 (or wider): x is [..., d], head [V, d]."""
    return CAP * torch.tanh(_wide(F.linear(x, head)) / CAP)


def capped_loss(x: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of x, [n, d], against targets, [n]: a scalar.

    Rows go through the head a slice at a time. Where gradient is wanted it is made during that
    visit, since the loss is a mean and its gradient needs nothing from later on; the backward only
    scales it. Costs 6·V·d per row, as an ordinary head does, and one slice of logits in memory.
    """
    loss: Tensor = _CappedLoss.apply(x, head, targets)  # type: ignore[no-untyped-call]  # torch's
    return loss


class _CappedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = x.shape[0]
        step = max(1, CHUNK_ELEMENTS.get(x.device.type, 2**28) // head.shape[0])
        grad_x = torch.empty_like(x) if wanted else None
        grad_head = torch.zeros_like(head) if wanted else None
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for first in range(0, rows, step):
            part = slice(first, first + step)
            target = targets[part, None]
            tanh = _wide(F.linear(x[part] / CAP, head)).tanh_()
            odds = torch.softmax(tanh * CAP, dim=1)
            # Logits within ±15 keep every odd above e⁻³⁰ / V, far from where its log would suffer.
            picked = odds.gather(1, target)
            total -= picked.log().sum()
            if grad_x is None or grad_head is None:
                continue
            # d loss / d z = (softmax − onehot) · (1 − tanh²) / rows; the backward divides.
            odds.scatter_(1, target, picked - 1)
            slope = odds.addcmul_(odds, tanh.square_(), value=-1)
            grad_x[part] = slope @ head
            grad_head += slope.mT @ x[part]
        if grad_x is not None and grad_head is not None:
            ctx.save_for_backward(grad_x, grad_head)
        return (total / rows).to(head.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_head = ctx.saved_tensors
        scale = grads[0] / grad_x.shape[0]
        return grad_x * scale, grad_head * scale, None


def _wide(z: Tensor) -> Tensor:
    return z if z.dtype == torch.float64 else z.float()

"""The head: logits capped at ±15, and their cross-entropy without ever holding all of them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CAP = 15.0  # arXiv 2604.21106: logits are 15 tanh(z / 15)
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**28}  # logits held at once


def capped_logits(x: Tensor, head: Tensor) -> Tensor:
    """15 tanh(x headᵀ / 15) in fp32 (or wider): x is [..., d], head [V, d]."""
    z = F.linear(x, head)
    z = z if z.dtype == torch.float64 else z.float()
    return CAP * torch.tanh(z / CAP)


def capped_loss(x: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of x, [n, d], against targets, [n]: a scalar.

    Rows go through the head a slice at a time. Where gradient is wanted it is made during that
    visit, since the loss is a mean and its gradient needs nothing from later on; the backward only
    scales it. Costs 6·V·d per row, as an ordinary head does, and one slice of logits in memory.
    """
    loss: Tensor = _CappedLoss.apply(x, head, targets)  # type: ignore[no-untyped-call]
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
            capped = capped_logits(x[part], head)
            peak = capped.amax(1, keepdim=True)
            odds = (capped - peak).exp_()
            sums = odds.sum(1, keepdim=True)
            total += (sums.log() + peak - capped.gather(1, target)).sum()
            if grad_x is None or grad_head is None:
                continue
            # d loss / d z = (softmax − onehot) · (1 − tanh²) / rows
            odds /= sums * rows
            odds.scatter_add_(1, target, torch.full_like(sums, -1 / rows))
            slope = odds.mul_(capped.mul_(1 / CAP).square_().neg_().add_(1))
            grad_x[part] = slope @ head
            grad_head += slope.mT @ x[part]
        if grad_x is not None and grad_head is not None:
            ctx.save_for_backward(grad_x, grad_head)
        return (total / rows).to(head.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_head = ctx.saved_tensors
        return grad_x * grads[0], grad_head * grads[0], None

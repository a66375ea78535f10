"""The head: logits capped at ±15, and their cross-entropy without ever holding all of them.

The head's matrix is padded to V rows; only its first `vocab` rows, the true vocabulary, have a
logit, a share of the softmax and a gradient.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CAP = 15.0  # arXiv 2604.21106: logits are 15 tanh(z / 15)
LOG2E = 1 / math.log(2)
CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**28}  # logits held at once
# Where products with the padded matrix are taken, and its logits cut off afterwards: tensor cores
# want sizes that are multiples of 8. A CPU is faster without the padding.
ALIGNED = frozenset({"cuda"})


def capped_logits(x: Tensor, head: Tensor, *, vocab: int) -> Tensor:
    """15 tanh(x headᵀ / 15) in fp32 (or wider), [..., vocab]: x is [..., d], head [V, d]."""
    return CAP * torch.tanh(_wide(F.linear(x, head[:vocab])) / CAP)


def capped_loss(x: Tensor, head: Tensor, targets: Tensor, *, vocab: int) -> Tensor:
    """Mean cross-entropy in nats of x, [n, d], against targets below `vocab`, [n]: a scalar.

    Rows go through the head a slice at a time. Where gradient is wanted it is made during that
    visit, since the loss is a mean and its gradient needs nothing from later on; the backward only
    scales it. Costs 6·V·d per row, as an ordinary head does, and one slice of logits in memory.
    """
    loss: Tensor = _CappedLoss.apply(x, head, targets, vocab)  # type: ignore[no-untyped-call]  # torch's
    return loss


class _CappedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Tensor, targets: Tensor, vocab: int) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = x.shape[0]
        used = head if x.device.type in ALIGNED else head[:vocab]
        step = max(1, CHUNK_ELEMENTS.get(x.device.type, 2**28) // used.shape[0])
        grad_x = torch.empty_like(x) if wanted else None
        grad_head = torch.zeros_like(head) if wanted else None
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for first in range(0, rows, step):
            part = slice(first, first + step)
            target = targets[part, None]
            # tanh(z / 15) = 1 − 2w with w = sigmoid(−2z / 15), far cheaper on a CPU than tanh.
            # What all logits share cancels in the softmax, so that −30 w stands for each; within
            # [−30, 0], its power needs no maximum taken off.
            w = _wide(F.linear(x[part] * (-2 / CAP), used)).sigmoid_()
            odds = (w * (-2 * CAP * LOG2E)).exp2_()
            if used.shape[0] > vocab:
                odds[:, vocab:] = 0
            whole = odds.sum(1, keepdim=True)
            total += (whole.log() + 2 * CAP * w.gather(1, target)).sum()
            if grad_x is None or grad_head is None:
                continue
            # d loss / d z = (softmax − onehot) · (1 − tanh²) / rows, and 1 − tanh² = 4 (w − w²).
            # What belongs to a row as a whole waits for the narrow side of the products.
            odds.scatter_add_(1, target, -whole)
            slope = odds.mul_(w.addcmul_(w, w, value=-1))
            scale = (4 / whole).to(x.dtype)
            torch.mul(slope @ used, scale, out=grad_x[part])
            _add_product(slope.mT, x[part] * scale, to=grad_head[: used.shape[0]])
        if grad_x is not None and grad_head is not None:
            ctx.save_for_backward(grad_x, grad_head)
        return (total / rows).to(head.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_x, grad_head = ctx.saved_tensors
        scale = grads[0] / grad_x.shape[0]
        return grad_x * scale, grad_head * scale, None, None


def _add_product(a: Tensor, b: Tensor, *, to: Tensor) -> None:
    """to ← to + a b, the product in autocast's dtype where it is on: it knows no `addmm_`."""
    if torch.is_autocast_enabled(to.device.type):
        to.add_(a @ b)
    else:
        to.addmm_(a, b)


def _wide(z: Tensor) -> Tensor:
    return z if z.dtype == torch.float64 else z.float()

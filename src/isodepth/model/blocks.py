"""The transformer block of arXiv 2604.21106 and what it is made of.

x ← x + attention(norm(x)); x ← x + mlp(norm(x)). Pre-norm RMSNorm with a learned scale, causal
attention with rotary positions and then a scale-free norm on q and k, MLP of width 4d with squared
ReLU; no biases, no residual multiplier: 12d² + 2d parameters. Products run in autocast's dtype
where it is on; the residual stream x keeps its own. q and k are turned and normed together, in the
products' dtype, by tables that are made once a forward.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isodepth.model import kernels
from isodepth.model.cache import LayerCache

NORM_EPS = 1e-6
ROTARY_BASE = 10_000.0


def by_hand(x: Tensor) -> bool:
    """Whether `kernels` has the faster way: on the CPU, in fp32 or fp64, outside a compiler."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis, in x's own dtype."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        if by_hand(x):
            return kernels.rms_norm(x, self.weight, NORM_EPS)
        return F.rms_norm(x, self.weight.shape, self.weight, NORM_EPS)

    @torch.no_grad()
    def initialise(self) -> None:
        self.weight.fill_(1)


class Turn(NamedTuple):
    """The rotation of consecutive positions: cos and sin, each [t, head_size / 2]."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x, [B, t, …, H, head_size], turned."""
        shape = (x.shape[1], *(1 for _ in x.shape[3:]), self.cos.shape[1])
        cos, sin = self.cos.view(shape), self.sin.view(shape)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Rotary(nn.Module):
    """Rotary positions (Su et al., arXiv 2104.09864): cos and sin, each [T, head_size / 2]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, length: int, head_size: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
        angles = torch.outer(torch.arange(length, dtype=torch.float64), ROTARY_BASE**-exponents)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, start: int, stop: int, dtype: torch.dtype) -> Turn:
        """The turn to positions start … stop − 1, for a model in `dtype`."""
        device = self.cos.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return Turn(self.cos[start:stop].to(dtype), self.sin[start:stop].to(dtype))


class Attention(nn.Module):
    """Causal attention without grouped queries; q, k and v are one product, three matrices."""

    def __init__(self, width: int, head_size: int) -> None:
        super().__init__()
        self.head_size = head_size
        self.qkv = nn.Parameter(torch.empty(3 * width, width))
        self.out = nn.Parameter(torch.empty(width, width))

    def forward(
        self, x: Tensor, turn: Turn, start: int = 0, cache: LayerCache | None = None
    ) -> Tensor:
        """x is [B, T, d]; with a cache it is either a whole prompt or one further token."""
        batch, length, width = x.shape
        qkv = F.linear(x, self.qkv).view(batch, length, 3, -1, self.head_size)
        with torch.autocast(x.device.type, enabled=False):  # which would norm and keep them in fp32
            turned = F.rms_norm(turn(qkv[:, :, :2]), (self.head_size,), eps=NORM_EPS)
        q, k = turned.permute(2, 0, 3, 1, 4).unbind(0)
        v = qkv[:, :, 2].transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(start, k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=start == 0)
        return F.linear(mixed.transpose(1, 2).reshape(batch, length, width), self.out)


class MLP(nn.Module):
    """x ↦ relu(x Wᵤᵀ)² W_dᵀ, hidden width 4d."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(4 * width, width))
        self.down = nn.Parameter(torch.empty(width, 4 * width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, self.up)).square(), self.down)


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, head_size: int) -> None:
        super().__init__()
        self.norm_attention = RMSNorm(width)
        self.attention = Attention(width, head_size)
        self.norm_mlp = RMSNorm(width)
        self.mlp = MLP(width)

    def forward(
        self, x: Tensor, turn: Turn, start: int = 0, cache: LayerCache | None = None
    ) -> Tensor:
        """The residual stream x, [B, T, d], after this block; same shape and dtype."""
        if by_hand(x) and cache is None and x.shape[1] <= kernels.MAX_LENGTH:
            return self._by_hand(x, turn)
        x = x + self.attention(self.norm_attention(x), turn, start, cache)
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out

    def _by_hand(self, x: Tensor, turn: Turn) -> Tensor:
        batch, length, _ = x.shape
        attention, mlp = self.attention, self.mlp
        qkv = kernels.normed_linear(x, self.norm_attention.weight, attention.qkv, NORM_EPS)
        qkv = qkv.view(batch, length, 3, -1, attention.head_size)
        mixed = kernels.attend(qkv, turn.cos, turn.sin, NORM_EPS)
        x = x + F.linear(mixed, attention.out)
        return kernels.normed_mlp(x, self.norm_mlp.weight, mlp.up, mlp.down, NORM_EPS)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Uniform of standard deviation fan_in^-½: d^-½, and (4d)^-½ for the MLP's way out."""
        self.norm_attention.initialise()
        self.norm_mlp.initialise()
        for weight in (self.attention.qkv, self.attention.out, self.mlp.up, self.mlp.down):
            bound = (3 / weight.shape[1]) ** 0.5
            weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))

"""The looped decoder in fp64, written plainly from the formulas of arXiv 2604.21106.

Shares no code with `isodepth.model`: complex rotations, explicit softmax, logits held whole, one
matrix at a time. Weights come from a `LoopedModel.state_dict()`.
"""

import math

import torch
from torch import Tensor

from isodepth.model.config import LoopedConfig


def weights_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leaves in fp64, from which gradients can be taken."""
    return {
        name: value.detach().to(torch.float64).requires_grad_() for name, value in state.items()
    }


def rms(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + 1e-6)


def rotate(x: Tensor) -> Tensor:
    """x: [T, head]; the pair (x_j, x_{j + head/2}) is a complex number turned by its position."""
    length, head = x.shape
    half = head // 2
    pairs = torch.complex(x[:, :half], x[:, half:])
    position = torch.arange(length, dtype=torch.float64)[:, None]
    frequency = torch.tensor([10000.0 ** (-2 * j / head) for j in range(half)]).double()
    turned = pairs * torch.exp(1j * position * frequency)
    return torch.cat([turned.real, turned.imag], dim=1)


def attention(x: Tensor, qkv: Tensor, out: Tensor, head: int) -> Tensor:
    """x: [T, d], one row of the batch."""
    length, width = x.shape
    w_q, w_k, w_v = qkv[:width], qkv[width : 2 * width], qkv[2 * width :]
    heads = []
    for i in range(width // head):
        span = slice(i * head, (i + 1) * head)
        q = rms(rotate(x @ w_q[span].T))
        k = rms(rotate(x @ w_k[span].T))
        v = x @ w_v[span].T
        scores = q @ k.T / math.sqrt(head)
        future = torch.ones(length, length).triu(1).bool()
        odds = torch.exp(scores.masked_fill(future, -math.inf))
        heads.append(odds / odds.sum(1, keepdim=True) @ v)
    return torch.cat(heads, dim=1) @ out.T


def block(x: Tensor, w: dict[str, Tensor], name: str, head: int) -> Tensor:
    """x: [B, T, d]."""
    normed = rms(x) * w[f"{name}.norm_attention.weight"]
    qkv, out = w[f"{name}.attention.qkv"], w[f"{name}.attention.out"]
    x = x + torch.stack([attention(row, qkv, out, head) for row in normed])
    normed = rms(x) * w[f"{name}.norm_mlp.weight"]
    hidden = torch.clamp(normed @ w[f"{name}.mlp.up"].T, min=0) ** 2
    return x + hidden @ w[f"{name}.mlp.down"].T


def logits(w: dict[str, Tensor], config: LoopedConfig, tokens: Tensor) -> Tensor:
    """[B, T, vocab] in fp64, with the graph that truncation asks for."""

    def blocks(x: Tensor, part: str, count: int) -> Tensor:
        for i in range(count):
            x = block(x, w, f"{part}.{i}", config.head_size)
        return x

    def norm_recur(x: Tensor) -> Tensor:
        return rms(x) * w["norm_recur.weight"]

    r = config.recurrences
    e = rms(w["embedding"][tokens]) * w["norm_embedding.weight"]
    e = blocks(e, "prelude", config.n_prelude)
    if r == 1:
        x = blocks(blocks(e, "recurrent", config.n_recurrent), "coda", config.n_coda)
        x = norm_recur(x)
    elif config.injection == "hyperconnections":
        x = lanes(w, config, e, lambda u: norm_recur(blocks(u, "recurrent", config.n_recurrent)))
        x = blocks(x, "coda", config.n_coda)
    else:
        kept = r if config.backprop_last is None else config.backprop_last
        s = torch.zeros_like(e) if config.injection == "additive" else e
        for t in range(1, r + 1):
            if config.injection == "linear":
                u = torch.cat([e, s], dim=-1) @ w["injection.weight"].T
            else:
                u = e + s if config.injection == "additive" else s
            s = norm_recur(blocks(u, "recurrent", config.n_recurrent))
            if t <= r - kept:
                s = s.detach()
        x = blocks(s, "coda", config.n_coda)
    x = rms(x) * w["norm_final.weight"]
    return 15 * torch.tanh(x @ w["head"][: config.vocab].T / 15)


def lanes(w: dict[str, Tensor], config: LoopedConfig, e: Tensor, run) -> Tensor:  # type: ignore[no-untyped-def]
    """Hyperconnections, one lane at a time; before the cut every scalar and output is constant."""
    r, n = config.recurrences, config.lanes
    kept = r if config.backprop_last is None else config.backprop_last
    state = [e] * n
    for t in range(r):
        alpha, mix, beta = (w[f"injection.{key}"][t] for key in ("alpha", "mix", "beta"))
        s = run(sum(alpha[i] * state[i] for i in range(n)))
        if t < r - kept:
            mix, beta, s = mix.detach(), beta.detach(), s.detach()
        state = [sum(mix[i, j] * state[j] for j in range(n)) + beta[i] * s for i in range(n)]
    return sum(state[1:], state[0])


def loss(w: dict[str, Tensor], config: LoopedConfig, tokens: Tensor, targets: Tensor) -> Tensor:
    """Mean nats per token."""
    z = logits(w, config, tokens)
    picked = torch.gather(z, 2, targets[..., None])[..., 0]
    return (torch.log(torch.exp(z).sum(-1)) - picked).mean()

"""How the prelude's output e enters each pass of the loop (arXiv 2604.21106).

Every injection keeps a loop state, and answers four questions: what the state is before the first
pass, what pass t reads from it, what the state is once pass t has put out s, and what the coda
gets. A fifth, `cut`, is truncated backpropagation: the same state, without a way for gradient into
the passes before it. All of it happens in the dtype of e, whatever autocast does to the products,
so that no arm keeps its residual stream in another precision than the rest.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isodepth.model.config import LoopedConfig


class Injection(nn.Module, ABC):
    """The loop's state and the way in and out of it. Shapes: e, s, u are [B, T, d]."""

    @abstractmethod
    def start(self, e: Tensor) -> Tensor:
        """The state before the first pass."""

    @abstractmethod
    def read(self, step: int, e: Tensor, state: Tensor) -> Tensor:
        """u, what pass `step` (from 0) works on."""

    def write(self, step: int, state: Tensor, s: Tensor) -> Tensor:
        """The state after pass `step` has put out `s`: `s` itself but for hyperconnections."""
        return s

    def finish(self, state: Tensor) -> Tensor:
        """What the coda gets, [B, T, d]."""
        return state

    def cut(self, steps: int, e: Tensor, state: Tensor) -> Tensor:
        """The state after `steps` passes, carrying no gradient into them."""
        return state.detach()

    @abstractmethod
    def initialise(self) -> None:
        """Set the parameters, where there are any, to their published start."""


class Passthrough(Injection):
    """u = s, s₀ = e: the prelude is seen once. Can't be truncated; `LoopedConfig` refuses it."""

    def start(self, e: Tensor) -> Tensor:
        return e

    def read(self, step: int, e: Tensor, state: Tensor) -> Tensor:
        return state

    def initialise(self) -> None:
        pass


class Additive(Injection):
    """u = e + s, s₀ = 0."""

    def start(self, e: Tensor) -> Tensor:
        return torch.zeros_like(e)

    def read(self, step: int, e: Tensor, state: Tensor) -> Tensor:
        return e + state

    def initialise(self) -> None:
        pass


class Linear(Injection):
    """u = W[e; s], s₀ = e; W, [d, 2d], starts as [I | 0], so that the first u is e."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 2 * width))

    def start(self, e: Tensor) -> Tensor:
        return e

    def read(self, step: int, e: Tensor, state: Tensor) -> Tensor:
        return F.linear(torch.cat((e, state), dim=-1), self.weight).to(e.dtype)

    @torch.no_grad()
    def initialise(self) -> None:
        nn.init.eye_(self.weight)


class Hyperconnections(Injection):
    """N lanes with static scalars of their own for every pass (N² + 2N of them each).

    u = Σₙ αₜₙ laneₙ; laneₘ ← Σₙ Mₜₘₙ laneₙ + βₜₘ s; the coda gets Σₙ laneₙ. All lanes start at e;
    αₜ starts as onehot(t mod N), Mₜ as I, βₜ as ones. The state is [N, B, T, d].

    Truncation: scalars of the passes before the cut get no gradient, and neither does what those
    passes computed. The lanes are linear in e, though, with coefficients (Mₜ … M₁)1 that are held
    constant; that path stays open, since without it embedding and prelude would never learn.
    """

    def __init__(self, lanes: int, recurrences: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(recurrences, lanes))
        self.mix = nn.Parameter(torch.empty(recurrences, lanes, lanes))
        self.beta = nn.Parameter(torch.empty(recurrences, lanes))

    def start(self, e: Tensor) -> Tensor:
        return e.expand(self.alpha.shape[1], *e.shape)

    def read(self, step: int, e: Tensor, state: Tensor) -> Tensor:
        scalars = self.alpha[step].to(e.dtype).view(-1, 1, 1, 1)
        return (scalars * state).sum(0)

    def write(self, step: int, state: Tensor, s: Tensor) -> Tensor:
        mix = self.mix[step].to(s.dtype)[:, :, None, None, None]
        beta = self.beta[step].to(s.dtype).view(-1, 1, 1, 1)
        return (mix * state).sum(1) + beta * s

    def finish(self, state: Tensor) -> Tensor:
        return state.sum(0)

    def cut(self, steps: int, e: Tensor, state: Tensor) -> Tensor:
        share = torch.ones_like(self.beta[0]).detach()
        for mix in self.mix.detach()[:steps]:
            share = (mix * share).sum(1)  # no product of matrices: autocast would round it
        # The value added is zero; its gradient is what the lanes owe to e.
        return state.detach() + share.to(e.dtype).view(-1, 1, 1, 1) * (e - e.detach())

    @torch.no_grad()
    def initialise(self) -> None:
        passes, lanes = self.alpha.shape
        steps = torch.arange(passes) % lanes
        self.alpha.copy_(F.one_hot(steps, lanes))
        self.mix.copy_(torch.eye(lanes).expand(passes, lanes, lanes))
        self.beta.fill_(1)


def build_injection(config: LoopedConfig) -> Injection | None:
    """The injection that `config` names; None where there is no loop."""
    if not config.looped:
        return None
    match config.injection:
        case "linear":
            return Linear(config.width)
        case "additive":
            return Additive()
        case "passthrough":
            return Passthrough()
        case "hyperconnections":
            return Hyperconnections(config.lanes, config.recurrences)

"""The looped decoder of arXiv 2604.21106, all of its arms in one class.

    x = norm(embedding[tokens]);  e = prelude(x)
    for t = 1 … r:  u = inject(e, s);  s = norm_recur(blocks(u))
    logits = 15 tanh(head(norm(coda(s))) / 15)

* Embedding and head are untied; there is no step embedding.
* The residual stream, the loop state and the lanes have the parameters' dtype (fp32) in every arm,
  whatever autocast does inside: the published code keeps the looped arms' stream in bf16 and the
  unlooped arm's in fp32, so that its arms differ in more than sharing.
* Unlooped (r = 1): one pass through unlike blocks, no injection; `norm_recur` closes that pass,
  after the last block, which is what the published parameter count holds.
* Untied: the looped graph, pass t through blocks of its own; norm_recur and injection are shared.
* Truncated backpropagation: the passes but the last k run without a graph, on a detached e.
* Logits are fp32, and there is one for every entry of the true vocabulary: the padding of embedding
  and head is in nothing but their shapes. `loss` never holds all logits.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from isodepth.errors import InputError
from isodepth.model.blocks import Block, RMSNorm, Rotary, Turn
from isodepth.model.cache import KeyValueCache, LayerCache
from isodepth.model.config import LoopedConfig
from isodepth.model.head import capped_logits, capped_loss
from isodepth.model.injection import Hyperconnections, Injection, build_injection

HEAD_STD = 0.001


class LoopedModel(nn.Module):
    """A looped decoder. Built with `initialise(0)` done; call it again for another seed."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.rotary = Rotary(config.sequence_length, config.head_size)
        self.embedding = nn.Parameter(torch.empty(config.padded_vocab, width))
        self.norm_embedding = RMSNorm(width)
        self.prelude = self._blocks(config.n_prelude)
        self.recurrent = self._blocks(config.recurrent_blocks)
        self.norm_recur = RMSNorm(width)
        self.injection: Injection | None = build_injection(config)
        self.coda = self._blocks(config.n_coda)
        self.norm_final = RMSNorm(width)
        self.head = nn.Parameter(torch.empty(config.padded_vocab, width))
        self.initialise(0)

    def _blocks(self, count: int) -> nn.ModuleList:
        return nn.ModuleList(Block(self.config.width, self.config.head_size) for _ in range(count))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Published start: embedding N(0, 1), head N(0, 0.001), blocks uniform, norms 1.

        Drawn on the CPU in fp32, so that one seed means the same weights on every device.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = self.embedding.shape
        self.embedding.copy_(torch.empty(shape).normal_(generator=generator))
        self.head.copy_(torch.empty(shape).normal_(std=HEAD_STD, generator=generator))
        for block in self.blocks():
            block.initialise(generator)
        for norm in (self.norm_embedding, self.norm_recur, self.norm_final):
            norm.initialise()
        if self.injection is not None:
            self.injection.initialise()

    def blocks(self) -> list[Block]:
        """Every block once: prelude, recurrent (untied: pass after pass), coda."""
        return [
            block
            for part in (self.prelude, self.recurrent, self.coda)
            for block in part
            if isinstance(block, Block)
        ]

    def forward(self, tokens: Tensor, *, recurrences: int | None = None) -> Tensor:
        """fp32 logits, [B, T, vocab], of tokens, [B, T]; `recurrences` may differ from training's.

        Raises InputError where the model can't run that many passes: any but one without a loop,
        any but its own where it is untied, more than it was trained with under hyperconnections.
        """
        x = self.hidden(tokens, recurrences=recurrences)
        return capped_logits(x, self.head, vocab=self.config.vocab)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token (a scalar) of tokens and targets, both [B, T].

        The head runs over slices of rows, and its gradient is made in the same visit, so that
        the logits, B·T·vocab numbers, are never held at once.
        """
        x = self.hidden(tokens).flatten(0, 1)
        return capped_loss(x, self.head, targets.flatten(), vocab=self.config.vocab)

    def hidden(
        self,
        tokens: Tensor,
        *,
        recurrences: int | None = None,
        start: int = 0,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The stream that the head reads, [B, T, d].

        `start` is the position of the first token, and `cache` holds what came before it.
        """
        passes = self.config.recurrences if recurrences is None else recurrences
        self._check(tokens, passes, start)
        prelude = cache.prelude if cache else None
        coda = cache.coda if cache else None
        x = self.norm_embedding(F.embedding(tokens, self.embedding))
        turn = self.rotary(start, start + tokens.shape[1], x.dtype)
        x = self._run(self.prelude, x, turn, start, prelude)
        if self.injection is None:
            x = self._run(self.recurrent, x, turn, start, cache.recurrent(0) if cache else None)
            x = self.norm_recur(self._run(self.coda, x, turn, start, coda))
        else:
            x = self._loop(self.injection, x, turn, passes, start, cache)
            x = self._run(self.coda, x, turn, start, coda)
        out: Tensor = self.norm_final(x)
        return out

    def _loop(
        self,
        injection: Injection,
        e: Tensor,
        turn: Turn,
        passes: int,
        start: int,
        cache: KeyValueCache | None,
    ) -> Tensor:
        kept = passes if self.config.backprop_last is None else self.config.backprop_last
        free = max(passes - kept, 0) if torch.is_grad_enabled() else 0
        state = injection.start(e)
        if free:
            with torch.no_grad(), _uncached(e.device.type):
                for step in range(free):
                    state = self._pass(injection, step, e, state, turn, start, cache)
            state = injection.cut(free, e, state)
        for step in range(free, passes):
            if self.config.recompute and torch.is_grad_enabled():
                state = checkpoint(
                    self._pass,
                    injection,
                    step,
                    e,
                    state,
                    turn,
                    start,
                    cache,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                state = self._pass(injection, step, e, state, turn, start, cache)
        return injection.finish(state)

    def _pass(
        self,
        injection: Injection,
        step: int,
        e: Tensor,
        state: Tensor,
        turn: Turn,
        start: int,
        cache: KeyValueCache | None,
    ) -> Tensor:
        u = injection.read(step, e, state)
        caches = cache.recurrent(step) if cache else None
        s = self.norm_recur(self._run(self._blocks_of(step), u, turn, start, caches))
        return injection.write(step, state, s)

    def _blocks_of(self, step: int) -> nn.ModuleList:
        if not self.config.untied:
            return self.recurrent
        count = self.config.n_recurrent
        return self.recurrent[step * count : (step + 1) * count]

    def _run(
        self,
        blocks: nn.ModuleList,
        x: Tensor,
        turn: Turn,
        start: int,
        caches: list[LayerCache] | None,
    ) -> Tensor:
        for index, block in enumerate(blocks):
            x = block(x, turn, start, caches[index] if caches else None)
        return x

    def _check(self, tokens: Tensor, passes: int, start: int) -> None:
        if tokens.ndim != 2 or start + tokens.shape[1] > self.config.sequence_length:
            raise InputError(
                f"tokens of shape {tuple(tokens.shape)} from position {start} on don't fit rows of "
                f"{self.config.sequence_length} tokens"
            )
        if passes < 1:
            raise InputError(f"recurrences = {passes} must be at least 1")
        if self.injection is None and passes != 1:
            raise InputError(f"an unlooped model can't run recurrences = {passes}")
        if self.config.untied and passes != self.config.recurrences:
            raise InputError(
                f"an untied model has blocks for its {self.config.recurrences} passes, no more and "
                f"no fewer; recurrences = {passes} can't be run"
            )
        if isinstance(self.injection, Hyperconnections) and passes > self.config.recurrences:
            raise InputError(
                f"hyperconnections have scalars for the {self.config.recurrences} trained passes "
                f"only; recurrences = {passes} can't be run"
            )


def _uncached(device: str) -> AbstractContextManager[object]:
    """Autocast, where it is on, without its memory of weights that it has cast.

    What it casts under `no_grad` has no way back to the weight, and some versions of torch would
    hand it to the passes that carry gradient.
    """
    if not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=False)

"""Keys and values of the tokens already seen, for generation."""

import torch
from torch import Tensor

from isodepth.errors import InputError
from isodepth.model.config import LoopedConfig


class LayerCache:
    """Keys and values of one block in one pass, each [B, H, length, head_size], filled in order."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values

    def extend(self, start: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v, [B, H, t, head_size], from position `start` on; all up to there back."""
        stop = start + k.shape[2]
        self.keys[:, :, start:stop] = k
        self.values[:, :, start:stop] = v
        return self.keys[:, :, :stop], self.values[:, :, :stop]


class KeyValueCache:
    """Caches of every block, one per pass in the loop, of which only the last `kv_passes` are kept.

    Pass t reads and writes slot t mod m (Geiping et al., arXiv 2502.05171, on sharing the cache
    between recurrences): once a token is through, its slots hold its last m passes, and a later
    token's pass t attends to whatever pass is in that slot. With m = r that is pass t itself, as
    without a cache. Within the prompt, which is run whole, every pass attends to itself.

    Raises InputError unless 1 ≤ kv_passes ≤ recurrences, and for fewer than all of an untied model,
    whose passes make keys by weights of their own.
    """

    def __init__(
        self,
        config: LoopedConfig,
        *,
        length: int,
        recurrences: int,
        kv_passes: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        slots = recurrences if kv_passes is None else kv_passes
        if not 1 <= slots <= recurrences:
            raise InputError(
                f"kv_passes = {slots} must lie between 1 and recurrences = {recurrences}"
            )
        if config.untied and slots < recurrences:
            raise InputError(
                f"kv_passes = {slots}: the {recurrences} passes of an untied model have keys of "
                "their own and can't share them"
            )
        shape = (1, config.width // config.head_size, length, config.head_size)

        def caches(count: int) -> list[LayerCache]:
            return [
                LayerCache(
                    torch.zeros(shape, device=device, dtype=dtype),
                    torch.zeros(shape, device=device, dtype=dtype),
                )
                for _ in range(count)
            ]

        self.prelude = caches(config.n_prelude)
        self.slots = [caches(config.n_recurrent) for _ in range(slots)]
        self.coda = caches(config.n_coda)

    def recurrent(self, step: int) -> list[LayerCache]:
        """The recurrent blocks' caches in pass `step` (from 0)."""
        return self.slots[step % len(self.slots)]

    def bytes(self) -> int:
        """Memory held, in bytes."""
        parts = [self.prelude, *self.slots, self.coda]
        return sum(c.keys.nbytes + c.values.nbytes for part in parts for c in part)

"""Losses and gradients of whole batches, in pieces that fit the memory."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isodepth.errors import InputError
from isodepth.training.data import Rows
from isodepth.training.distributed import Ranks

# Tokens in the first micro-batch tried. On a CPU a larger one is no faster, and running out of
# memory there ends the process instead of raising an error.
FIRST_MICRO_TOKENS = {"cpu": 1 << 13, "cuda": 1 << 16}
# Tokens validated at once: fixed, so that neither ranks nor memory decide how losses are rounded.
# On a CPU what stays in cache goes through twice as fast.
VALIDATION_TOKENS = {"cpu": 1 << 11, "cuda": 1 << 13}

# Rows of the square matrices that measure the peak. On a CPU one product takes a few milliseconds,
# so that some are done between two interruptions by other processes.
PEAK_SIZE = {"cpu": 512, "cuda": 8192}
PEAK_SECONDS = 0.3


class LossModel(Protocol):
    """What can be trained: parameters, and a mean loss in nats per token."""

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class Engine:
    """Runs one model on one rank's device.

    `micro_batch` is the number of rows handled at once: the given one, or else a first guess; it is
    halved `halvings` times, and again whenever memory runs out. `bf16` runs the model under
    autocast.
    """

    def __init__(
        self,
        model: LossModel,
        ranks: Ranks,
        *,
        rows: int,
        sequence_length: int,
        micro_batch: int | None,
        halvings: int = 0,
        bf16: bool,
        compile: bool,
    ) -> None:
        self._model = model
        self._ranks = ranks
        self._bf16 = bf16
        self._loss: Callable[[Tensor, Tensor], Tensor] = (
            torch.compile(model.loss, dynamic=False) if compile else model.loss
        )
        self._rows = rows
        self._sequence_length = sequence_length
        guess = FIRST_MICRO_TOKENS[ranks.device.type] // sequence_length
        self.micro_batch = largest_divisor(rows, micro_batch or max(1, guess))
        if halvings:  # main memory ran out, perhaps since `micro_batch` was found
            limit = largest_divisor(rows, max(1, guess)) >> halvings
            self.micro_batch = largest_divisor(rows, min(self.micro_batch, limit))

    def gradients(self, batch: NDArray[np.int64]) -> float:
        """Leave the gradient of the mean loss of this rank's `batch` on the parameters.

        `batch` holds [rows, sequence_length + 1] tokens, and the result is its mean loss in nats
        per token. Gradients must be clear before. Raises InputError where not even one row fits.
        """
        tokens = torch.from_numpy(batch).to(self._ranks.device)
        while (loss := self._try_gradients(tokens)) is None:
            if self.micro_batch == 1:
                raise InputError(
                    f"not even one row of {self._sequence_length} tokens fits the memory of "
                    f"{self._ranks.device}; try --recompute, shorter rows or a smaller model"
                )
            self.micro_batch = largest_divisor(self._rows, self.micro_batch // 2)
            if self._ranks.device.type == "cuda":
                torch.cuda.empty_cache()
        return loss

    def _try_gradients(self, tokens: Tensor) -> float | None:
        """The mean loss, or None with clear gradients where memory ran out."""
        losses = []
        try:
            for rows in torch.split(tokens, self.micro_batch):
                with self._autocast():
                    loss = self._loss(rows[:, :-1], rows[:, 1:])
                (loss * (len(rows) / len(tokens))).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach() * (len(rows) / len(tokens)))
            return float(torch.stack(losses).double().sum())
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        for parameter in self._model.parameters():
            parameter.grad = None
        return None

    def validate(self, rows: Rows, stop: Callable[[], bool]) -> float | None:
        """Mean loss over every row, in nats per token; None if `stop` became true.

        The rows are cut into the same pieces, and the pieces' losses added in the same order, for
        any number of ranks. All ranks must call this together; `stop` must agree on all of them.
        """
        size = max(1, VALIDATION_TOKENS[self._ranks.device.type] // self._sequence_length)
        pieces = np.array_split(np.arange(len(rows)), range(size, len(rows), size))
        sums = [0.0] * len(pieces)  # nats of each piece; zero where another rank computes it
        for index in range(0, len(pieces), self._ranks.world_size):
            mine = index + self._ranks.rank
            if mine < len(pieces):
                sums[mine] = self._sum_of_losses(rows.batch(pieces[mine]), whole=size)
            if stop():
                return None
        return sum(self._ranks.sum(sums)) / (len(rows) * self._sequence_length)

    @torch.no_grad()
    def _sum_of_losses(self, batch: NDArray[np.int64], *, whole: int) -> float:
        tokens = torch.from_numpy(batch).to(self._ranks.device)
        # A shorter last piece isn't worth compiling for.
        loss = self._loss if len(tokens) == whole else self._model.loss
        with self._autocast():
            mean = loss(tokens[:, :-1], tokens[:, 1:])
        return float(mean.double()) * len(tokens) * self._sequence_length

    def _autocast(self) -> AbstractContextManager[object]:
        if not self._bf16:
            return nullcontext()
        return torch.autocast(self._ranks.device.type, dtype=torch.bfloat16)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit` (and at least 1)."""
    return next(d for d in range(min(number, max(limit, 1)), 0, -1) if number % d == 0)


def gradient_norm(model: LossModel) -> float:
    """Euclidean norm of all gradients together; not finite where one of them isn't."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


@functools.cache
def measure_peak(ranks: Ranks, *, bf16: bool) -> float:
    """FLOP/s of a large matrix product, the best of `PEAK_SECONDS` on every rank at the same time,
    summed over ranks: what shares of the peak are given of. Measured once in a process."""
    device = ranks.device
    size = PEAK_SIZE[device.type]
    matrix = torch.ones(size, size, dtype=torch.bfloat16 if bf16 else torch.float32, device=device)
    best = float("inf")
    end = time.perf_counter() + PEAK_SECONDS
    while (begin := time.perf_counter()) < end:
        torch.mm(matrix, matrix)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return ranks.sum([2 * size**3 / best])[0]


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

"""Losses and gradients of whole batches, in pieces that fit the memory."""

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isodepth.errors import InputError
from isodepth.training import compiling
from isodepth.training.config import RunPrecision
from isodepth.training.data import Rows
from isodepth.training.distributed import Ranks

# Tokens in the first micro-batch tried. On a CPU a larger one is no faster, and running out of
# memory there ends the process instead of raising an error.
FIRST_MICRO_TOKENS = {"cpu": 1 << 13, "cuda": 1 << 16}
# Tokens validated at once: fixed (unless memory runs out), so that ranks don't decide how losses
# are rounded. On a CPU what stays in cache goes through twice as fast.
VALIDATION_TOKENS = {"cpu": 1 << 11, "cuda": 1 << 16}

# Rows of the square matrices that measure the peak. On a CPU one product takes a few milliseconds,
# so that some are done between two interruptions by other processes.
PEAK_SIZE = {"cpu": 512, "cuda": 8192}
PEAK_SECONDS = 0.3


Kernels = Literal["eager", "compiled"]


class LossModel(compiling.LossModel, Protocol):
    """What can be trained: parameters, and a mean loss in nats per token."""

    def parameters(self) -> Iterator[nn.Parameter]: ...


class Engine:
    """Runs one model on one rank's device.

    `micro_batch` is the number of rows handled at once: the given one, or else a first guess; it is
    halved `halvings` times, and again whenever memory runs out. `bf16` runs the model under
    autocast. `compile` asks for compiled losses; where the compiler fails, `kernels` says so.
    Nothing here waits for a GPU: losses come back as tensors.
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
            compiling.CompiledLoss(model) if compile else model.loss
        )
        self.kernels: Kernels = "compiled" if compile else "eager"
        self._rows = rows
        self._sequence_length = sequence_length
        guess = FIRST_MICRO_TOKENS[ranks.device.type] // sequence_length
        self.micro_batch = largest_divisor(rows, micro_batch or max(1, guess))
        if halvings:  # main memory ran out, perhaps since `micro_batch` was found
            limit = largest_divisor(rows, max(1, guess)) >> halvings
            self.micro_batch = largest_divisor(rows, min(self.micro_batch, limit))

    def gradients(self, batch: NDArray[np.int64]) -> Tensor:
        """Leave the gradient of the mean loss of this rank's `batch` on the parameters.

        `batch` holds [rows, sequence_length + 1] tokens, and the result is its mean loss in nats
        per token, an fp64 scalar on the device. Gradients must be clear before.
        Raises InputError where not even one row fits.
        """
        tokens = self._place(batch)
        while (loss := self._try_gradients(tokens)) is None:
            if self.micro_batch == 1:
                raise InputError(
                    f"not even one row of {self._sequence_length} tokens fits the memory of "
                    f"{self._ranks.device}; try --recompute, shorter rows or a smaller model"
                )
            self.micro_batch = largest_divisor(self._rows, self.micro_batch // 2)
            self._free_memory()
        return loss

    def _try_gradients(self, tokens: Tensor) -> Tensor | None:
        """The mean loss, or None with clear gradients where memory ran out."""
        losses = []
        try:
            for rows in torch.split(tokens, self.micro_batch):
                with self._autocast():
                    loss = self._loss(rows[:, :-1], rows[:, 1:])
                (loss * (len(rows) / len(tokens))).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach() * (len(rows) / len(tokens)))
            return torch.stack(losses).double().sum()
        except Exception as error:
            out_of_memory = _is_out_of_memory(error)
            if not out_of_memory and not self._gave_up_compiling(error):
                raise
        for parameter in self._model.parameters():
            parameter.grad = None
        return None if out_of_memory else self._try_gradients(tokens)

    def _gave_up_compiling(self, error: Exception) -> bool:
        """Go on without the compiler, if it was in use: then whatever failed may be its fault."""
        if self.kernels == "eager":
            return False
        self._loss, self.kernels = self._model.loss, "eager"
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        why = " ".join(f"{type(root).__name__}: {root}".split("\n")[:2]).strip()
        print(
            f"warning: compiling failed, and the run goes on without: {why}",
            file=sys.stderr,
            flush=True,
        )
        return True

    def _place(self, batch: NDArray[np.int64]) -> Tensor:
        """The batch on the device; its copy to a GPU is not waited for."""
        tokens = torch.from_numpy(batch)
        if self._ranks.device.type == "cuda":
            tokens = tokens.pin_memory()
        return tokens.to(self._ranks.device, non_blocking=True)

    def _free_memory(self) -> None:
        if self._ranks.device.type == "cuda":
            torch.cuda.empty_cache()

    def validate(self, rows: Rows, stop: Callable[[], bool]) -> float | None:
        """Mean loss over every row, in nats per token; None if `stop` became true.

        The rows are cut into the same pieces, and the pieces' losses added in the same order, for
        any number of ranks. All ranks must call this together; `stop` must agree on all of them.
        """
        size = max(1, VALIDATION_TOKENS[self._ranks.device.type] // self._sequence_length)
        pieces = np.array_split(np.arange(len(rows)), range(size, len(rows), size))
        # nats of each piece; zero where another rank computes it
        sums = torch.zeros(len(pieces), dtype=torch.float64, device=self._ranks.device)
        for index in range(0, len(pieces), self._ranks.world_size):
            mine = index + self._ranks.rank
            if mine < len(pieces):
                sums[mine] = self._sum_of_losses(self._place(rows.batch(pieces[mine])), whole=size)
            if stop():
                return None
        return math.fsum(self._ranks.sum_tensor(sums).tolist()) / (
            len(rows) * self._sequence_length
        )

    @torch.no_grad()
    def _sum_of_losses(self, tokens: Tensor, *, whole: int) -> Tensor:
        # A shorter last piece isn't worth compiling for.
        loss = self._loss if len(tokens) == whole else self._model.loss
        try:
            with self._autocast():
                mean = loss(tokens[:, :-1], tokens[:, 1:])
            return mean.double() * (len(tokens) * self._sequence_length)
        except Exception as error:
            if _is_out_of_memory(error) and len(tokens) > 1:
                halves = torch.tensor_split(tokens, 2)
            elif not _is_out_of_memory(error) and self._gave_up_compiling(error):
                halves = (tokens,)
            else:
                raise
        self._free_memory()
        return torch.stack([self._sum_of_losses(half, whole=whole) for half in halves]).sum()

    def _autocast(self) -> AbstractContextManager[object]:
        if not self._bf16:
            return nullcontext()
        return torch.autocast(self._ranks.device.type, dtype=torch.bfloat16)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit` (and at least 1)."""
    return next(d for d in range(min(number, max(limit, 1)), 0, -1) if number % d == 0)


def gradient_norm(model: LossModel) -> Tensor:
    """Euclidean norm of all gradients together, a scalar; not finite where one of them isn't."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


@functools.cache
def measure_peak(ranks: Ranks, precision: RunPrecision) -> float:
    """FLOP/s of a large matrix product, the best of `PEAK_SECONDS` on every rank at the same time,
    summed over ranks: what shares of the peak are given of. Measured once in a process."""
    device = ranks.device
    size = PEAK_SIZE[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    end = time.perf_counter() + PEAK_SECONDS
    while (begin := time.perf_counter()) < end:
        torch.mm(matrix, matrix)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return ranks.sum([2 * size**3 / best])[0]


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, perhaps inside the compiler, which wraps what it meets."""
    if error is None:
        return False
    # The CPU's allocator raises a plain RuntimeError.
    ours = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return ours or _is_out_of_memory(error.__cause__)

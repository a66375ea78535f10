"""Ranks that train one model together: one process alone, or many under `torchrun`.

Gradients are averaged by all-reduces of flat buckets once a step, after all micro-batches. We do
that by hand and not by `DistributedDataParallel`: a rank that runs out of memory can then start
its step again with smaller micro-batches without leaving the others in the middle of a
collective, and parameters without gradient (truncated backpropagation) need no special case.
Overlapping communication with the backward would gain little, since there is one exchange for a
whole batch, however many micro-batches it has.
"""

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from isodepth.errors import InputError
from isodepth.training.config import Device

BUCKET_ELEMENTS = 1 << 24  # gradients exchanged at a time: bounds the copy's memory


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    local_rank: int  # within this machine
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, in fp64, the same to the bit on every rank."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        summed: list[float] = self.sum_tensor(tensor).tolist()
        return summed

    def sum_tensor(self, values: Tensor) -> Tensor:
        """`values` summed over all ranks in place; a GPU is not waited for."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all ranks."""
        if self.world_size == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            flat /= self.world_size
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, mean in zip(bucket, torch.split(flat, sizes), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.sum([0.0])


@contextmanager
def join_ranks(device: Device) -> Iterator[Ranks]:
    """The ranks that `torchrun` started, or this process alone.

    NCCL carries GPU ranks, gloo CPU ranks. Raises InputError where a GPU is asked for and there
    is none for this rank.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _choose(device, local_rank)
    if world_size > 1:
        # Its functions take the group of all ranks as a default argument, at the moment of their
        # import. Imported later (an optimiser step does so), they would keep the group and its
        # threads alive beyond `destroy_process_group`, and a thread that the interpreter's end
        # finds at work aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
        if chosen.type == "cuda":
            dist.init_process_group("nccl", device_id=chosen)
        else:
            dist.init_process_group("gloo")
    try:
        yield Ranks(rank=rank, local_rank=local_rank, world_size=world_size, device=chosen)
    finally:
        if world_size > 1:
            dist.destroy_process_group()


def _choose(device: Device, local_rank: int) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"local rank {local_rank} has no GPU: this machine shows {torch.cuda.device_count()}; "
            "start fewer ranks, or choose device cpu"
        )
    chosen = torch.device("cuda", local_rank)
    torch.cuda.set_device(chosen)
    return chosen


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for gradient in gradients:
        if bucket and elements + gradient.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(gradient)
        elements += gradient.numel()
    if bucket:
        yield bucket

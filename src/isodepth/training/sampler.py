"""Which rows a rank reads at a step: a pure function, so nothing about it needs saving.

Rows are taken from an endless sequence, one permutation of all rows per epoch; step s reads the
next `batch_rows` of it and the ranks share those in equal, contiguous parts. The sequence knows
neither ranks nor steps, so the global order is the same for any number of ranks and through any
resume.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isodepth.errors import InputError

Indices = NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def rows_at(
    step: int, *, rows: int, batch_rows: int, seed: int, rank: int = 0, world_size: int = 1
) -> Indices:
    """Row indices [batch_rows / world_size] that `rank` reads at `step` (counted from 0).

    Raises InputError where the ranks can't share a batch equally, or there are no rows.
    """
    if rows < 1:
        raise InputError("the data set has no full row to train on")
    if batch_rows % world_size:
        raise InputError(
            f"a batch of {batch_rows} rows can't be shared equally by {world_size} ranks"
        )
    share = batch_rows // world_size
    start = step * batch_rows + rank * share
    parts = []
    while share:
        epoch, within = divmod(start, rows)
        part = permutation(rows, seed=seed, epoch=epoch)[within : within + share]
        parts.append(part)
        start, share = start + len(part), share - len(part)
    return np.concatenate(parts)


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def permutation(rows: int, *, seed: int, epoch: int) -> Indices:
    """The order of all rows in one epoch: [rows] of int64, read-only.

    Rows are sorted by a 64-bit hash (the finaliser of SplitMix64) of seed, epoch and row. Unlike
    a library's shuffle, its result can't change from one version of the library to the next.
    """
    stream = int(_mix(np.array([(_int_mix(seed) + epoch) & _MASK], dtype=np.uint64))[0])
    with np.errstate(over="ignore"):
        counter = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(stream)
    order = np.argsort(_mix(counter), kind="stable").astype(np.int64)
    order.setflags(write=False)
    return order


def _int_mix(value: int) -> int:
    return int(_mix(np.array([(value * _GOLDEN + _GOLDEN) & _MASK], dtype=np.uint64))[0])


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: Steele, Lea & Flood, "Fast splittable pseudorandom number
    generators" (OOPSLA 2014), with Stafford's constants."""
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))

"""The rows of coming steps, read while the device works on the one before."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

Batch = NDArray[np.int64]


class Feed:
    """Batches by step from `make`, a pure function; with `ahead`, a thread makes the next one.

    Steps may be asked for in any order, but only the one after the last is there already.
    """

    def __init__(self, make: Callable[[int], Batch], *, ahead: bool) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1) if ahead else None
        self._next: tuple[int, Future[Batch]] | None = None

    def batch(self, step: int) -> Batch:
        """The batch of `step`; raises what `make` raises."""
        if self._thread is None:
            return self._make(step)
        waiting = self._next
        if waiting is None or waiting[0] != step:
            waiting = (step, self._thread.submit(self._make, step))
        self._next = (step + 1, self._thread.submit(self._make, step + 1))
        return waiting[1].result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

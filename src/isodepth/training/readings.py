"""Numbers on their way from the device, so that nothing waits for a step that is still running."""

import torch
from torch import Tensor


class Reading:
    """A vector that was computed, or will have been, on the device; `wait` gives it as numbers.

    On a GPU its copy is queued behind the work that makes it, and an event tells its arrival:
    whatever is queued after it is not waited for.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = values
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
            self._event.record()

    def wait(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._host.tolist()
        return numbers

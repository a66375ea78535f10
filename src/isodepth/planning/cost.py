"""What a run will take: memory and time, estimated before anything runs.

Both are estimates with stated assumptions. Memory counts what the trainer must hold (weights,
gradients, optimiser, activations kept for the backward). Time is training FLOPs over a rate: the
user's own by width, or one that grows with the width up to a limit, because small matrices keep no
processor busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from isodepth.planning.grid import Cell, Shape


@dataclass(frozen=True, kw_only=True)
class Device:
    """A processor that one run has for itself."""

    name: str
    rate: float  # training FLOP/s that wide models reach
    rate_per_width: float  # FLOP/s that each unit of width brings, up to that
    memory: float | None  # bytes; None: the machine's own
    base_memory: float  # bytes held before the model is: libraries, data
    micro_tokens: int  # tokens that go through the model at once
    basis: str  # where the numbers come from
    own: tuple[tuple[float, float], ...] = ()  # (width, FLOP/s) of the user's; these win

    def flops_per_second(self, width: int) -> float:
        """Model FLOP/s of the trainer at this width.

        The user's own rates are interpolated as powers of the width; outside their widths the
        nearest one's holds.
        """
        if not self.own:
            return min(self.rate, self.rate_per_width * width)
        widths, rates = np.log(np.array(self.own)).T
        return float(np.exp(np.interp(np.log(width), widths, rates)))

    @property
    def pace(self) -> str:
        """Its rates, in words."""
        if len(self.own) == 1:
            return f"{self.own[0][1]:.3g} FLOP/s a run, as given"
        if self.own:
            listed = ", ".join(f"{rate:.3g} at width {width:g}" for width, rate in self.own)
            return f"{listed} FLOP/s a run, as given; outside those widths the nearest one's"
        return (
            f"{self.flops_per_second(256) / 1e9:.3g} GFLOP/s a run at width 256, fewer at smaller "
            f"widths ({self.basis})"
        )


DEVICES = {
    device.name: device
    for device in (
        Device(
            name="cpu",
            rate=65e9,
            rate_per_width=0.4e9,
            memory=None,
            base_memory=450e6,
            micro_tokens=8192,
            basis="measured on one core of a server CPU, the laptop preset's runs and "
            "docs/benchmarks.md",
        ),
        Device(
            name="h100",
            rate=450e12,
            rate_per_width=0.25e12,
            memory=80e9,
            base_memory=1.5e9,
            micro_tokens=65536,
            basis="assumed, not measured: 45% of the bf16 peak from width 1,800 on",
        ),
        Device(
            name="h200",
            rate=450e12,
            rate_per_width=0.25e12,
            memory=141e9,
            base_memory=1.5e9,
            micro_tokens=65536,
            basis="assumed, not measured: 45% of the bf16 peak from width 1,800 on",
        ),
    )
}


def processor(
    name: str, *, rates: Mapping[str, float] | None = None, memory_gb: float | None = None
) -> Device:
    """A known device, with the user's own rates (by width, FLOP/s) and memory where given."""
    device = DEVICES[name]
    own = sorted((float(width), rate) for width, rate in (rates or {}).items())
    memory = device.memory if memory_gb is None else memory_gb * 1e9
    return replace(device, own=tuple(own), memory=memory)


def memory_bytes(cell: Cell, shape: Shape, device: Device) -> float:
    """Bytes that training one model holds at most.

    Weights, gradients and optimiser state: 16 bytes a parameter (fp32; AdamW keeps two numbers,
    Muon one and a copy of its batch). Activations: 18 d numbers a token and block, and on a CPU
    the attention's odds, T/2 a token and head; 4 bytes each on a CPU, 2 on a GPU. Where the
    device's memory is known, fewer tokens go through at once until the run fits, down to one row:
    so does the trainer on a GPU.
    """
    parameters = cell.account.n_total + cell.account.n_embedding
    tokens = min(device.micro_tokens, shape.batch_tokens)
    on_cpu = device.name == "cpu"
    per_token = 18.0 * cell.width
    if on_cpu:
        per_token += cell.width / shape.head_size * shape.sequence_length / 2
    fixed = device.base_memory + 16.0 * parameters
    of_token = shape.depth * per_token * (4.0 if on_cpu else 2.0)
    while (
        device.memory is not None
        and fixed + tokens * of_token > device.memory
        and tokens >= 2 * shape.sequence_length
    ):
        tokens //= 2
    return fixed + tokens * of_token

"""`accounting` against torch's own FLOP counter.

What the counter does not see, and hence the 1%: norms' scales (2d of a block's 12d² + 2d) and the
scalars of hyperconnections, both elementwise, which the published formula counts as if they were
products. Both sides leave out the embedding look-up, softmax, norms' sums and activations, and
both count attention unhalved, which is why it runs on the plain backend here: the fused one is
counted with the scores that its backward computes again. The CPU's own kernels are left out for
the same reason: they skip what causality hides, and use in-place products that the counter misses.
Recomputed passes are not in the formula.
"""

from typing import get_args

import pytest
from torch_counter import flops_per_token

from isodepth.accounting import Injection
from isodepth.model.config import LoopedConfig
from isodepth.model.looped import LoopedModel

WIDTH = 128


def config_of(injection: Injection, recurrences: int, backprop_last: int | None) -> LoopedConfig:
    return LoopedConfig.iso_depth(
        width=WIDTH,
        head_size=64,
        depth=10,
        prelude=1,
        coda=1,
        vocab=128,
        sequence_length=64,
        recurrences=recurrences,
        injection=injection,
        backprop_last=backprop_last,
    )


def counted(config: LoopedConfig) -> float:
    """Training FLOPs per token by torch's counter, on the plain path."""
    return flops_per_token(LoopedModel(config), config.sequence_length)


ARMS = [
    (injection, recurrences, backprop_last)
    for injection in get_args(Injection)
    for recurrences in (1, 2, 4, 8)
    for backprop_last in sorted({recurrences, (recurrences + 1) // 2, 1})
    # LoopedConfig refuses to cut passthrough.
    if injection != "passthrough" or backprop_last == recurrences
]


@pytest.mark.parametrize(("injection", "recurrences", "backprop_last"), ARMS)
def test_accounting_agrees_with_torch(
    injection: Injection, recurrences: int, backprop_last: int | None
) -> None:
    config = config_of(injection, recurrences, backprop_last)
    assert config.account().flops_per_token == pytest.approx(counted(config), rel=0.01)


def test_truncation_and_injection_are_far_more_than_the_tolerance() -> None:
    """So that the test above would notice either of them missing."""
    whole, cut = (counted(config_of("linear", 8, k)) for k in (None, 4))
    without = counted(config_of("passthrough", 8, None))
    assert cut < 0.8 * whole
    assert without < 0.9 * whole

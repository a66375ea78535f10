"""Training FLOPs by torch's own counter."""

from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def flops_per_token(model: torch.nn.Module, n_tokens: int) -> float:
    """Of one row of n_tokens, on the plain path."""
    tokens = torch.zeros(1, n_tokens, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with (
        patch("isodepth.model.blocks.by_hand", return_value=False),
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        model.loss(tokens, tokens).backward()
    return counter.get_total_flops() / n_tokens

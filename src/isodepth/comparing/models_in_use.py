"""What the compute-optimal model of a recipe holds and costs when it is used.

The width follows from the size that the law finds optimal, the rest from `isodepth.accounting`:
forward FLOPs are a third of the training FLOPs of a model whose every pass carries gradient (2 of 6
FLOPs per parameter, 4 of 12 in attention), whatever the recipe cut from its backward pass. The
key-value cache holds one key and one value of the model's width for each token, block and pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isodepth.accounting import LOOP_NORMS as NORMS
from isodepth.accounting import Account, Injection, account, block_params
from isodepth.comparing.channels import Channel, Optimum
from isodepth.errors import InputError
from isodepth.fitting.problem import Problem
from isodepth.fitting.result import Interval

CACHE_BYTES = 2  # of one cached number, bf16
_SAME_COST = 0.005  # relative difference up to which FLOPs per token agree with the table's


@dataclass(frozen=True, kw_only=True)
class Inference:
    """A compute-optimal model in use. Intervals follow from that of its size."""

    recipe: str
    budget_flops: float  # training FLOPs
    recurrences: int
    width: int
    params: int  # unique non-embedding parameters
    flops_per_token: float  # forward, at a full sequence
    kv_bytes_per_token: int  # key-value cache in bf16, every pass keeping its own
    ci95: dict[str, Interval | None]  # of width, params, flops_per_token, kv_bytes_per_token


@dataclass(frozen=True, kw_only=True)
class Family:
    """The models of one recipe and r: what changes is the width."""

    recurrences: int
    blocks_once: int
    blocks_loop: int
    injection: Injection
    lanes: int
    vocab: int
    sequence_length: int

    @property
    def depth(self) -> int:
        return self.blocks_once + self.recurrences * self.blocks_loop

    def account(self, width: int, backprop_last: int | None = None) -> Account:
        return account(
            width=width,
            recurrences=self.recurrences,
            depth=self.depth,
            prelude=self.blocks_once,
            coda=0,
            injection=self.injection,
            lanes=self.lanes,
            backprop_last=backprop_last,
            vocab=self.vocab,
            sequence_length=self.sequence_length,
        )

    def width(self, log_size: float) -> int:
        """The whole width whose parameters outside the injection are nearest to exp(log_size)."""
        a, b = 12.0 * self._blocks, 2.0 * self._blocks + NORMS
        return max(1, round((np.sqrt(b**2 + 4 * a * np.exp(log_size)) - b) / (2 * a)))

    @property
    def _blocks(self) -> int:
        return self.blocks_once + self.blocks_loop

    def uses(self, log_size: float) -> dict[str, float]:
        width = self.width(log_size)
        held = self.account(width)
        return {
            "width": width,
            "params": held.n_total,
            "flops_per_token": held.flops_per_token / 3,
            "kv_bytes_per_token": 2 * CACHE_BYTES * self.depth * width,
        }


def inference_of(
    problem: Problem,
    recipe: str,
    channels: tuple[Channel, ...],
    which: str,
    *,
    vocab: int,
    sequence_length: int,
) -> tuple[list[Inference], str | None]:
    """The models in use of one side of every channel; or none, and why not.

    which: `baseline` or `recipe`, the side of the channels that belongs to `problem`.
    """
    found = []
    families: dict[int, Family] = {}
    for channel in channels:
        r = channel.recurrences
        if r not in families:
            family, why = family_of(problem, r, vocab, sequence_length)
            if family is None:
                return [], f"the inference side of {recipe} is left out: {why}"
            families[r] = family
        optimum: Optimum = getattr(channel, which)
        at = families[r].uses(optimum.log_size)
        ends = optimum.log_size_ci95
        bounds = None if ends is None else [families[r].uses(x) for x in ends]
        found.append(
            Inference(
                recipe=recipe,
                budget_flops=channel.budget_flops,
                recurrences=r,
                width=int(at["width"]),
                params=int(at["params"]),
                flops_per_token=at["flops_per_token"],
                kv_bytes_per_token=int(at["kv_bytes_per_token"]),
                ci95={k: (bounds[0][k], bounds[1][k]) if bounds else None for k in at},
            )
        )
    return found, None


def family_of(
    problem: Problem, r: int, vocab: int, sequence_length: int
) -> tuple[Family | None, str | None]:
    """The shape behind a recipe's runs of one r; or None and why they don't show it."""
    frame = problem.frame[problem.frame["recurrences"] == r]
    if "width" not in frame or frame["width"].isna().any():
        return None, "it needs the column width"
    row = frame.iloc[int(frame["width"].to_numpy().argmax())]
    width, n_inject = int(row["width"]), float(row["n_inject"])
    block = block_params(width)
    once, loop = (row["n_once"] - NORMS * width) / block, row["n_rec"] / block
    if once < 0 or loop < 1 or not (once.is_integer() and loop.is_integer()):
        return None, f"its blocks don't have 12d² + 2d parameters at width {width}, r = {r}"
    lanes = int(np.sqrt(n_inject / r + 1)) - 1  # N² + 2N scalars a pass
    if n_inject == 2 * width**2:
        injection: Injection = "linear"
    elif n_inject == 0:
        injection = "passthrough"
    elif n_inject == r * (lanes**2 + 2 * lanes):
        injection = "hyperconnections"
    else:
        return None, f"{n_inject:g} parameters are no injection of width {width}, r = {r}"
    try:
        family = Family(
            recurrences=r,
            blocks_once=int(once),
            blocks_loop=int(loop),
            injection=injection,
            lanes=max(lanes, 1) if injection == "hyperconnections" else 1,
            vocab=vocab,
            sequence_length=sequence_length,
        )
        costs = [family.account(width, k).flops_per_token for k in range(1, r + 1)]
    except InputError as error:
        return None, str(error)
    told = row.get("flops_per_token")
    if told and not any(abs(cost / told - 1) < _SAME_COST for cost in costs):
        return None, (
            f"{told:.4g} FLOPs per token at width {width}, r = {r} fit no model with a vocabulary "
            f"of {vocab} and sequences of {sequence_length} tokens; give --vocab and "
            "--sequence-length"
        )
    return family, None

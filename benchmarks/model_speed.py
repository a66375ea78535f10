"""Training speed of model and optimiser: tokens/s, share of the matrix peak, optimiser's share.

    python benchmarks/model_speed.py --widths 128 256 --recurrences 4 1 --micro 16 4

A step is a batch of 16 rows of 256 tokens over a vocabulary of 4,096, as in the table of the
released trainer; `--micro` says in how many rows at a time it goes through the model. The matrix
peak is that of 1024³ products in fp32, taken right before and after every step, and a step's share
is against the mean of the two, so that a busy machine slows both. Reported are the step with the
best share and the median over steps.
"""

import argparse
import json
import statistics
import time

import torch

from isodepth.model.config import LoopedConfig
from isodepth.model.looped import LoopedModel
from isodepth.training.optim import build_optimizer

ROWS, LENGTH, VOCAB = 16, 256, 4096
PEAK_SIDE = 1024
TABLE_PEAK_PER_THREAD = 75.0  # GFLOP/s on the machine of the table in docs/benchmarks.md


def matrix_peak(a: torch.Tensor, out: torch.Tensor) -> float:
    """FLOP/s of one fp32 product, the best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        times.append(time.perf_counter() - start)
    return 2 * PEAK_SIDE**3 / min(times)


def measure(
    width: int, recurrences: int, compiled: bool, micro: int, steps: int
) -> dict[str, object]:
    config = LoopedConfig.iso_depth(
        width=width, recurrences=recurrences, vocab=VOCAB, sequence_length=LENGTH
    )
    model = LoopedModel(config)
    if compiled:
        model.compile_blocks()
    optimizer = build_optimizer(
        model, width=width, batch_tokens=ROWS * LENGTH, tokens=1e7, looped=config.looped
    )
    rows = torch.randint(VOCAB, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    a, out = torch.randn(PEAK_SIDE, PEAK_SIDE), torch.empty(PEAK_SIDE, PEAK_SIDE)
    flops = config.account().flops_per_token * ROWS * LENGTH
    taken = []
    for step in range(steps + 2):
        before = matrix_peak(a, out)
        start = time.perf_counter()
        optimizer.zero_grad()
        for part in rows.split(micro):
            loss = model.loss(part[:, :-1], part[:, 1:]) * (len(part) / ROWS)
            loss.backward()
        middle = time.perf_counter()
        optimizer.step(1.0)
        end = time.perf_counter()
        peak = (before + matrix_peak(a, out)) / 2
        if step >= 2:  # compilation and first allocations
            taken.append(
                (flops / (end - start) / peak, end - start, (end - middle) / (end - start), peak)
            )
    share, seconds, optimizer_share, peak = max(taken)
    per_token = ROWS * LENGTH / seconds
    return {
        "width": width,
        "recurrences": recurrences,
        "mode": "compiled" if compiled else "eager",
        "micro_rows": micro,
        "threads": torch.get_num_threads(),
        "tokens_per_s": round(per_token),
        "share_of_peak": round(share, 3),
        "share_of_peak_median": round(statistics.median(t[0] for t in taken), 3),
        "optimizer_share": round(optimizer_share, 3),
        "optimizer_share_median": round(statistics.median(t[2] for t in taken), 3),
        "peak_gflops": round(peak / 1e9),
        "tokens_per_s_at_the_tables_peak": round(
            per_token * TABLE_PEAK_PER_THREAD * 1e9 * torch.get_num_threads() / peak
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--recurrences", type=int, nargs="+", default=[4, 1])
    parser.add_argument("--micro", type=int, nargs="+", default=[16, 4])
    parser.add_argument(
        "--modes", nargs="+", choices=["eager", "compiled"], default=["eager", "compiled"]
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for width in args.widths:
        for recurrences in args.recurrences:
            for mode in args.modes:
                for micro in args.micro:
                    row = measure(width, recurrences, mode == "compiled", micro, args.steps)
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

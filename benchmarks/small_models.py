r"""Training speed of small models on one thread: GFLOP/s of whole steps, where overhead reigns.

    python benchmarks/small_models.py --widths 16 32 --recurrences 1 4 8

A step is one batch (1,024 tokens at width 16, 2,048 above) in rows of 256 tokens over a vocabulary
of 1,024, through a model 10 layers deep (1 + 8/r × r + 1), with the optimiser: the pilot runs that
got 7 GFLOP/s at width 16 and 20 at width 32. The laptop preset's:

    python benchmarks/small_models.py --widths 8 12 16 20 --recurrences 1 8 --head-size 4 \
        --length 64 --vocab 320 --batch 512
 FLOPs are the model's, as `isodepth account` counts
them. The matrix peak is that of 512³ products in fp32, taken right before and after every group of
steps, so that a busy machine slows both. Reported is the median over groups.
"""

import argparse
import json
import statistics
import time

import torch

from isodepth.model.config import LoopedConfig
from isodepth.model.looped import LoopedModel
from isodepth.training.optim import build_optimizer

PEAK_SIDE = 512
GROUP = 5  # steps between two looks at the peak


def matrix_peak(a: torch.Tensor, out: torch.Tensor) -> float:
    """FLOP/s of one fp32 product, the best of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        times.append(time.perf_counter() - start)
    return 2 * PEAK_SIDE**3 / min(times)


def measure(config: LoopedConfig, rows: int, groups: int, compiled: bool) -> dict[str, object]:
    begin = time.perf_counter()
    length = config.sequence_length
    model = LoopedModel(config)
    loss_of = torch.compile(model.loss, dynamic=False) if compiled else model.loss
    optimizer = build_optimizer(
        model, width=config.width, batch_tokens=rows * length, tokens=1e7, looped=config.looped
    )
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(config.vocab, (rows, length + 1), generator=generator)
    a, out = torch.randn(PEAK_SIDE, PEAK_SIDE), torch.empty(PEAK_SIDE, PEAK_SIDE)
    flops = config.account().flops_per_token * rows * length

    def step() -> tuple[float, float]:
        """Seconds of a step, and of the optimiser in it."""
        start = time.perf_counter()
        optimizer.zero_grad()
        loss_of(tokens[:, :-1], tokens[:, 1:]).backward()
        middle = time.perf_counter()
        optimizer.step(1.0)
        end = time.perf_counter()
        return end - start, end - middle

    for _ in range(3):
        step()
    ready = time.perf_counter() - begin
    rates, shares, optimizer_shares = [], [], []
    before = matrix_peak(a, out)
    for _ in range(groups):
        whole, tail = (
            sum(seconds) for seconds in zip(*(step() for _ in range(GROUP)), strict=True)
        )
        after = matrix_peak(a, out)
        rates.append(flops * GROUP / whole)
        shares.append(rates[-1] / ((before + after) / 2))
        optimizer_shares.append(tail / whole)
        before = after
    return {
        "width": config.width,
        "head_size": config.head_size,
        "recurrences": config.recurrences,
        "batch_tokens": rows * length,
        "mode": "compiled" if compiled else "eager",
        "gflops": round(statistics.median(rates) / 1e9, 1),
        "share_of_peak": round(statistics.median(shares), 3),
        "peak_gflops": round(
            statistics.median(r / s for r, s in zip(rates, shares, strict=True)) / 1e9
        ),
        "ms_per_step": round(flops / statistics.median(rates) * 1e3, 2),
        "optimizer_share": round(statistics.median(optimizer_shares), 3),
        "seconds_until_fast": round(ready, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--recurrences", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--head-size", type=int, help="default: one head")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--length", type=int, default=256, help="tokens in a row")
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--batch", type=int, help="tokens; default: 1,024 at width 16, 2,048 above")
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled"], default=["eager"])
    parser.add_argument("--groups", type=int, default=10, help=f"of {GROUP} steps each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for width in args.widths:
        for recurrences in args.recurrences:
            for mode in args.modes:
                config = LoopedConfig.iso_depth(
                    width=width, head_size=args.head_size or width, recurrences=recurrences,
                    depth=args.depth, prelude=1, coda=1, vocab=args.vocab,
                    sequence_length=args.length,
                )  # fmt: skip
                batch = args.batch or (1024 if width <= 16 else 2048)
                row = measure(config, batch // args.length, args.groups, mode == "compiled")
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

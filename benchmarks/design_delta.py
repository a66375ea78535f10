"""Do sweeps designed for Δφ give the interval that was predicted, and does it hold Δφ?

    python benchmarks/design_delta.py --simulations 300 --write docs/designing-a-sweep.md

Designs: what `plan --target-ci` makes of the baseline and truncated backpropagation at published
budgets. Truths: both recipes follow the additive or the coupled law of the published baseline, with
the same φ, so that Δφ is 0. Fits are those of `isodepth compare`, under the law that is true, with
100 resamples. Columns: bias and spread of Δφ; predicted half-width; share of intervals that hold 0,
in percent; realised half-width over the predicted, root mean square and median.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from compare_coverage import with_losses
from coverage import record_of, write
from design_coverage import BUDGETS, runs_of, supposed

import isodepth
from isodepth.comparing.pair import Method, Pair, fit_pair, pair_of
from isodepth.fitting.problem import Conventions
from isodepth.planning.candidates import candidate_cells, candidates_of
from isodepth.planning.choice import cheapest
from isodepth.planning.contrast import contrast
from isodepth.planning.cost import DEVICES
from isodepth.planning.design import Limits
from isodepth.planning.grid import Budget, Recipe, Shape
from isodepth.planning.resolution import resolution
from isodepth.planning.worlds import NOISES

TARGETS = (0.1, 0.05)
RESAMPLES = 100
BASELINE = Recipe(name="baseline", recurrences=(1, 2, 4, 8))
PROBE = Recipe(name="truncated_bptt", recurrences=(2, 4, 8), backprop="half")
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A designed sweep of both recipes, before its losses are known."""

    frame: pd.DataFrame
    flops: float
    predicted: dict[tuple[str, float, str], float]  # half-width by law, noise, method


@cache
def design(target: float) -> Sweep:
    fits = supposed()
    budgets = tuple(Budget(flops=flops) for flops in BUDGETS)
    cells = candidate_cells((BASELINE, PROBE), budgets, Shape(), fits[0], DEVICES["h100"])
    second = np.array([cell.recipe.name == PROBE.name for cell in cells])
    candidates = replace(candidates_of(cells), second=second)
    choice = cheapest(
        contrast(candidates, fits, noises=NOISES),
        candidates,
        target,
        limits=Limits(),
        check_share=0.1,
    )
    predicted = {}
    for one, noise in product(fits, NOISES):
        here = contrast(candidates, [one], noises=(noise,), draws=0)
        for method, way in (("separate", here), ("joint", here.joint)):
            predicted[one.conventions.law, noise, method] = resolution(
                way, choice.counts
            ).half_width
    return Sweep(frame=runs_of(cells, choice.counts), flops=choice.flops, predicted=predicted)


@cache
def pair(target: float, law: str) -> tuple[Pair, np.ndarray]:
    """The two recipes' problems, and the log losses (n,) of their runs without noise."""
    frame = design(target).frame
    known = next(one for one in supposed() if one.conventions.law == law)
    loss = known.predict(
        **{k: frame[k] for k in ("n_once", "n_rec", "n_inject", "recurrences", "tokens")}
    )
    table = isodepth.load_runs(frame.assign(loss=loss))
    found = pair_of(table, BASELINE.name, PROBE.name, Conventions(law=law))
    return found, found.both.log_loss


Case = tuple[float, str, float]  # target, law, noise


def simulation(job: tuple[Case, int, int]) -> dict[str, np.ndarray]:
    """Δφ and both ends of its interval (K, 3) by either method, of K sweeps."""
    (target, law, noise), n, seed = job
    known, exact = pair(target, law)
    rng = np.random.default_rng([seed, int(1e6 * noise), law == "coupled"])
    rows: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    for k in range(n):
        swept = with_losses(known, exact + noise * rng.normal(size=exact.size))
        draws = swept.draw(RESAMPLES, seed * n + k)
        for method in METHODS:
            found, _ = fit_pair(swept, method, draws)
            low, high = found.recipe.resamples.interval(found.delta, found.delta_draws)
            rows[method].append([found.delta, low, high])
    return {method: np.array(values) for method, values in rows.items()}


def summary(found: np.ndarray, predicted: float) -> list[str]:
    """Table cells of Δφ and its ends (K, 3)."""
    value, low, high = found.T
    covered = float(((low <= 0) & (high >= 0)).mean())
    text = f"{100 * covered:.1f}"
    wide = (high - low) / 2 / predicted
    return [
        f"{value.mean():+.4f}",
        f"{value.std():.4f}",
        f"{predicted:.4f}",
        text if 0.93 <= covered <= 0.97 else f"**{text}**",
        f"{np.sqrt((wide**2).mean()):.2f}, {np.median(wide):.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", type=float, default=TARGETS)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    lines = [
        "| runs, truth, noise, method | bias | spread | predicted | covers | width |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    share = options.simulations // options.workers
    with ProcessPoolExecutor(options.workers) as pool:
        for cell in product(options.targets, ("additive", "coupled"), NOISES):
            target, law, noise = cell
            seeds = [options.seed * options.workers + i for i in range(options.workers)]
            parts = list(pool.map(simulation, [(cell, share, one) for one in seeds]))
            made = design(target)
            for method in METHODS:
                every = np.concatenate([part[method] for part in parts])
                cells = summary(every, made.predicted[law, noise, method])
                label = f"{len(made.frame)}, {law}, {noise:g}, {method}"
                lines.append(f"| {label} | " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
    record = record_of(share * options.workers, RESAMPLES, options.workers, options.seed)
    print(record)
    if options.write:
        write(options.write, "delta coverage", [record, "", *lines])


if __name__ == "__main__":
    main()

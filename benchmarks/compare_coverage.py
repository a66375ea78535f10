"""Coverage of the intervals for Δφ by simulation, in the worlds of benchmarks/coverage.py.

    python benchmarks/compare_coverage.py --size published --write docs/coverage.md
    python benchmarks/compare_coverage.py --size small --write docs/coverage.md

The truth is one law (the shipped grid's) with φ = 0.458 for the baseline and 0.558 for a probe that
borrows the baseline's r = 1 runs. Besides the four worlds of noise there is a fifth, `own law`:
the probe's data term is 2% larger, so that no one law describes both.
"""

from __future__ import annotations

import argparse
import json
import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from coverage import NOISE, TRUTH, WORLDS, commit, layout, simulate, table, truth, write

import isodepth
from isodepth.comparing.pair import Pair, Sides, fit_pair, pair_of
from isodepth.fitting.problem import Conventions

DELTA = 0.1
OWN_LAW = "own law"
ALL_WORLDS = (*WORLDS, OWN_LAW)
EXTRA_DATA_TERM = 0.02  # of the probe, in the world where it has a law of its own


def pair(size: str) -> Pair:
    """published: 116 runs, and a probe of 62. small: 36 runs, and a probe of 27."""
    if size == "published":
        runs, probe = isodepth.load_runs("published"), "truncated_bptt"
    else:
        base = layout(36)
        looped = base[base["recurrences"] > 1].assign(recipe="probe")
        rows = pd.concat([base, looped]).drop(columns=["run_id", "status"])
        runs, probe = isodepth.load_runs(rows), "probe"
    return pair_of(runs, "baseline", probe, Conventions())


def losses(both: Pair, world: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Log losses (n, runs of `both.both`)."""
    problem = both.both
    theta = np.append(truth(problem), TRUTH["phi"] + DELTA)[None]
    if world != OWN_LAW:
        return simulate(problem, theta, world, n, rng)
    exact = problem.predict(theta)[0]
    own = problem.frame["recipe"] != "baseline"
    data = TRUTH["B"] * problem.frame["tokens"] ** -TRUTH["beta"]
    exact = exact + (EXTRA_DATA_TERM * data * own).to_numpy()
    return np.log(exact) + NOISE * rng.normal(size=(n, problem.n))


def with_losses(known: Pair, y: np.ndarray) -> Pair:
    return replace(
        known,
        baseline=replace(known.baseline, log_loss=y[known.in_baseline]),
        recipe=replace(known.recipe, log_loss=y[known.in_recipe]),
        both=replace(known.both, log_loss=y),
    )


def intervals(found: Sides) -> dict[str, tuple[float, float]]:
    draws = found.delta_draws
    sample = found.recipe.resamples
    return {
        f"{found.method}, SE × t": sample.interval(found.delta, draws),
        f"{found.method}, percentile": tuple(np.quantile(draws, [0.025, 0.975])),
    }


def simulation(job: tuple[str, str, int, int, int, int]) -> list[dict[str, list[float]]]:
    """Δφ and its intervals by every method, of simulations [start, stop) of one cell."""
    size, world, start, stop, resamples, seed = job
    layout_of = pair(size)
    one = losses(layout_of, world, 1, np.random.default_rng(seed))[0]
    draws = with_losses(layout_of, one).draw(resamples, seed)
    rows = []
    for k in range(start, stop):
        rng = np.random.default_rng([len(size), ALL_WORLDS.index(world), seed, k])
        simulated = with_losses(layout_of, losses(layout_of, world, 1, rng)[0])
        row = {}
        for method in ("separate", "joint"):
            found, _ = fit_pair(simulated, method, draws)
            for name, ends in intervals(found).items():
                row[name] = [found.delta, *ends]
        rows.append(row)
    return rows


def summary(rows: list[dict[str, list[float]]]) -> dict[str, tuple[float, float]]:
    """Coverage and the median width over the ideal one, by method."""
    result = {}
    for name in rows[0]:
        value, low, high = np.array([row[name] for row in rows]).T
        covered = ((low <= DELTA) & (high >= DELTA)).mean()
        ideal = 3.92 * np.std(value)
        result[name] = (float(covered), float(np.median(high - low) / ideal))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("published", "small"), default="published")
    parser.add_argument("--worlds", nargs="+", choices=ALL_WORLDS, default=ALL_WORLDS)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cells", type=Path, help="keep finished cells here, to go on from")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    settings = (options.resamples, options.seed)
    known = (
        json.loads(options.cells.read_text()) if options.cells and options.cells.exists() else {}
    )
    edges = np.linspace(0, options.simulations, 4 * options.workers + 1).astype(int).tolist()
    with ProcessPoolExecutor(options.workers) as pool:
        for world in options.worlds:
            key = f"{options.size} {world} {options.simulations} {settings}"
            if key not in known:
                jobs = [(options.size, world, a, b, *settings) for a, b in pairwise(edges)]
                rows = [row for part in pool.map(simulation, jobs) for row in part]
                values = {name: np.array([row[name][0] for row in rows]) for name in rows[0]}
                known[key] = {
                    "cells": summary(rows),
                    "mean": {n: float(v.mean()) for n, v in values.items()},
                    "sd": {n: float(v.std()) for n, v in values.items()},
                }
                if options.cells:
                    options.cells.write_text(json.dumps(known))
    cells, spread = {}, {}
    for world in options.worlds:
        found = known[f"{options.size} {world} {options.simulations} {settings}"]
        cells[(options.size, world)] = found["cells"]
        spread[world] = found
    lines = [
        *table(cells),
        "",
        f"Mean and standard deviation of Δφ over the simulations (truth {DELTA}):",
        "",
        "| method | " + " | ".join(options.worlds) + " |",
        "|---|" + "---|" * len(options.worlds),
        *(
            f"| {method} | "
            + " | ".join(
                f"{spread[w]['mean'][f'{method}, SE × t']:.3f} ± "
                f"{spread[w]['sd'][f'{method}, SE × t']:.3f}"
                for w in options.worlds
            )
            + " |"
            for method in ("separate", "joint")
        ),
    ]
    record = (
        f"{date.today()}, commit {commit()}, {platform.machine()}, {options.workers} processes, "
        f"{options.simulations} simulations a cell, {options.resamples} resamples, huber, "
        f"seed {options.seed}"
    )
    print("\n".join([record, "", *lines]))
    if options.write:
        write(options.write, f"delta {options.size}", [record, "", *lines])


if __name__ == "__main__":
    main()

"""Coverage of every interval for φ by simulation: 4 worlds of noise × 3 sizes of sweep.

    python benchmarks/coverage.py --simulations 400 --write docs/coverage.md

The truth is the published law (φ = 0.458, the shipped grid's fit). Every simulated sweep is fitted
and resampled with isodepth's own functions. Rows of the table: share of 95% intervals that hold the
true φ, and their median width over that of the ideal interval (3.92 standard deviations of the
estimates over the simulations).
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import isodepth
from isodepth.fitting.estimate import estimate, refit
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.uncertainty import Resamples, profile, resample

TRUTH = {"E": 1.5717, "A": 28.744, "alpha": 0.20100, "B": 897.26, "beta": 0.36751, "phi": 0.458}
NOISE = 0.004  # standard deviation of the log loss, about the misfit of the published runs
WORLDS = ("independent", "shared", "growing", "outliers")
SIZES = (36, 116, 240)
# smallest and largest published size (width / 64) at every published budget
RANGES = {
    4.64e17: (6, 12),
    1e18: (6, 14),
    2.15e18: (8, 16),
    4.64e18: (10, 20),
    1e19: (12, 24),
    2.15e19: (18, 34),
}
DEFAULT = "groups, SE × t (default)"


def layout(n: int) -> pd.DataFrame:
    """116: the published grid. 36: three of its budgets × 4 r × 3 widths. 240: six × 4 r × 10."""
    published = isodepth.load_runs("published").of_recipe("baseline")[0]
    if n == 116:
        return published
    budgets = [4.64e17, 2.15e18, 1e19] if n == 36 else list(RANGES)
    rows = []
    for budget in budgets:
        smallest, largest = RANGES[budget]
        for width in np.linspace(smallest * 64, largest * 64, n // (4 * len(budgets))).astype(int):
            for r in (1, 2, 4, 8):
                a = isodepth.account(width=int(width), recurrences=r)
                rows.append(
                    {
                        "recipe": "baseline",
                        "recurrences": r,
                        "n_once": a.n_once,
                        "n_rec": a.n_rec,
                        "n_inject": a.n_inject,
                        "tokens": budget / a.flops_per_token,
                        "budget_flops": budget,
                        "loss": 1.0,
                    }
                )
    return isodepth.load_runs(pd.DataFrame(rows)).used


def simulate(
    problem: Problem, theta: np.ndarray, world: str, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Log losses (n, runs) of sweeps whose truth is theta (1, p)."""
    exact = problem.predict(theta)[0]
    shape = (n, problem.n)
    noise = rng.normal(size=shape)
    if world == "shared":  # half of the variance belongs to the (r, budget) group
        groups = rng.normal(size=(n, problem.groups.max() + 1))[:, problem.groups]
        noise = np.sqrt(0.5) * (noise + groups)
    elif world == "growing":  # in proportion to the reducible loss
        size = exact - TRUTH["E"]
        noise = noise * size / np.sqrt((size**2).mean())
    elif world == "outliers":  # 3% of ten standard deviations
        noise = noise * np.where(rng.random(shape) < 0.03, 10.0, 1.0)
    return np.log(exact) + NOISE * noise


def truth(problem: Problem) -> np.ndarray:
    """TRUTH as θ (1, p)."""
    d = problem.design
    t = TRUTH
    log_a = np.log(t["A"]) - t["alpha"] * d.log_n0
    log_b = np.log(t["B"]) - t["beta"] * d.log_d0
    return np.array([[t["E"], log_a, t["alpha"], log_b, t["beta"], t["phi"]]])


def intervals(problem: Problem, resamples: int, seed: int) -> tuple[float, dict[str, tuple]]:
    """φ and its 95% interval by every method."""
    best = estimate(problem)
    phi = float(best.theta[5])
    found = {}
    drawn: dict[str, Resamples] = {
        unit: resample(problem, best, resamples, seed, unit) for unit in ("runs", "groups")
    }
    for unit, sample in drawn.items():
        draws = sample.theta[:, 5]
        found[f"{unit}, percentile"] = tuple(np.quantile(draws, [0.025, 0.975]))
        name = DEFAULT if unit == "groups" else "runs, SE × t"
        found[name] = sample.interval(phi, draws)
    labels = problem.groups
    units = labels.max() + 1
    left_out = refit(problem, best, weights=(labels != np.arange(units)[:, None]).astype(float))[
        :, 5
    ]
    error = np.sqrt((units - 1) / units * ((left_out - left_out.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, units - 1) * error
    found["groups, jackknife × t"] = (phi - half, phi + half)
    curve = profile(problem, best, "phi", Resamples.standard_error(drawn["groups"].theta[:, 5]))
    low, high = curve.interval
    found["profile likelihood"] = (
        -np.inf if low is None else low,
        np.inf if high is None else high,
    )
    return phi, found


def cell(job: tuple[int, str, str, int, int, int]) -> dict[str, tuple[float, float]]:
    """Coverage and relative width of every method in one world at one size."""
    n, world, estimator, simulations, resamples, seed = job
    rng = np.random.default_rng([n, WORLDS.index(world), seed])
    problem = build(layout(n), Conventions(estimator=estimator))
    phis, found = [], defaultdict(list)
    for k, y in enumerate(simulate(problem, truth(problem), world, simulations, rng)):
        phi, ends = intervals(replace(problem, log_loss=y), resamples, k)
        phis.append(phi)
        for method, interval in ends.items():
            found[method].append(interval)
    ideal = 3.92 * np.std(phis)
    result = {}
    for method, rows in found.items():
        low, high = np.array(rows).T
        covered = ((low <= TRUTH["phi"]) & (high >= TRUTH["phi"])).mean()
        result[method] = (float(covered), float(np.median(high - low) / ideal))
    return result


def table(cells: dict[tuple[int, str], dict[str, tuple[float, float]]]) -> list[str]:
    keys = list(cells)
    lines = [
        "| method | " + " | ".join(f"{n} {world}" for n, world in keys) + " |",
        "|---|" + "---|" * len(keys),
    ]
    for method in cells[keys[0]]:
        marks = []
        for key in keys:
            covered, width = cells[key][method]
            text = f"{100 * covered:.1f} ({width:.2f})"
            marks.append(text if 0.93 <= covered <= 0.97 else f"**{text}**")
        lines.append(f"| {method} | " + " | ".join(marks) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--estimator", default="huber")
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    started = time.time()
    keys = [(n, world) for n in options.sizes for world in WORLDS]
    settings = (options.estimator, options.simulations, options.resamples, options.seed)
    jobs = [(n, w, *settings) for n, w in keys]
    with ProcessPoolExecutor(options.workers) as pool:
        cells = dict(zip(keys, pool.map(cell, jobs), strict=True))
    lines = table(cells)
    record = (
        f"{date.today()}, commit {commit()}, {platform.machine()} {options.workers} cores, "
        f"{options.simulations} simulations a cell, {options.resamples} resamples, "
        f"{options.estimator}, seed {options.seed}, {time.time() - started:.0f} s"
    )
    print("\n".join([record, "", *lines]))
    if options.write:
        write(options.write, options.estimator, [record, "", *lines])


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()


def record_of(sweeps: int, resamples: int | None, workers: int, seed: int) -> str:
    """What a simulation was run with, to stand over its table."""
    drawn = "" if resamples is None else f"{resamples} resamples, "
    return (
        f"{date.today()}, commit {commit()}, {platform.machine()}, {workers} processes, "
        f"{sweeps} sweeps a row, {drawn}seed {seed}"
    )


def write(path: Path, mark: str, lines: list[str]) -> None:
    """Put lines between the document's marks of that name."""
    head, _, rest = path.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
    _, _, tail = rest.partition("<!-- end -->")
    body = "\n".join([f"<!-- {mark} -->", *lines, "", "<!-- end -->"])
    path.write_text(head + body + tail, encoding="utf-8")


if __name__ == "__main__":
    main()

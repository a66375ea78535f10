"""Speed of the solver and of the whole `fit` command, against a plain scipy loop in the same run.

    OMP_NUM_THREADS=1 python benchmarks/fit_speed.py

1. 4,000 bootstrap resamples (Huber, δ = 1e-3) of a 240-run, 5-parameter Chinchilla fit on one
   core; on a sample of 200 every resample's objective against a cold multi-start's.
2. The same resamples by the straightforward loop: scipy's L-BFGS-B with an analytic gradient from
   a grid of starts for every resample, timed on a few of them.
3. `isodepth fit published --bootstrap 2000 --out …` as a whole process: wall time and peak memory.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd
from scipy import optimize

import isodepth
from isodepth.fitting.estimate import estimate, refit
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.seeds import seeds
from isodepth.fitting.solver import minimise, objective

# the law of Besiroglu et al. (2404.10102), table 1, with noise of the size of their residuals
E, A, ALPHA, B, BETA = 1.8172, 482.01, 0.3478, 2085.43, 0.3658
NOISE = 0.004


def chinchilla(n: int = 240, seed: int = 0) -> Problem:
    """An unlooped sweep of n runs with heavy-tailed noise."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), n))
    tokens = size * np.exp(rng.uniform(np.log(2), np.log(200), n))
    loss = E + A * size**-ALPHA + B * tokens**-BETA
    frame = pd.DataFrame(
        {
            "recurrences": 1,
            "n_once": size,
            "n_rec": 0.0,
            "tokens": tokens,
            "loss": loss * np.exp(NOISE * rng.standard_t(4, n)),
        }
    )
    return build(isodepth.load_runs(frame).used, Conventions())


def ours(problem: Problem, resamples: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Seconds for the cold fit and all resamples, θ (resamples, 5) and the weights used."""
    rng = np.random.default_rng(1)
    n = problem.n
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    started = time.perf_counter()
    best = estimate(problem)
    theta = refit(problem, best, weights=weights, n_problems=resamples)
    return time.perf_counter() - started, theta, weights


def worst_gap(problem: Problem, theta: np.ndarray, weights: np.ndarray, sample: int) -> float:
    """Largest relative excess of a resample's objective over a cold multi-start's."""
    starts = seeds(problem)
    gaps = []
    for k in np.linspace(0, len(theta) - 1, sample).astype(int):
        warm = objective(problem.batch(), theta[k : k + 1], weights[k])[0]
        cold = minimise(problem.batch(), starts, weights[k]).objective.min()
        gaps.append(warm / cold - 1.0)
    return float(max(gaps))


def plain_loop(problem: Problem, weights: np.ndarray) -> tuple[float, float]:
    """Seconds a resample by L-BFGS-B from a grid of 4 × 4 × 4 × 3 × 3 starts, and its objective."""
    d = problem.design
    x, y, target, delta = np.log(d.n_once), d.log_tokens, problem.log_loss, problem.delta

    def value(t: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
        e, a, alpha, b, beta = t
        terms = np.stack([np.full_like(x, e), a - alpha * x, b - beta * y])
        top = terms.max(axis=0)
        share = np.exp(terms - top)
        total = share.sum(axis=0)
        residual = top + np.log(total) - target
        inner = np.minimum(np.abs(residual), delta)
        pull = w * np.clip(residual, -delta, delta) * share / total
        gradient = [pull[0].sum(), pull[1].sum(), -(pull[1] * x).sum()]
        gradient += [pull[2].sum(), -(pull[2] * y).sum()]
        return float((w * inner * (np.abs(residual) - inner / 2)).sum()) * 1e3, (
            np.array(gradient) * 1e3
        )

    grid = itertools.product(
        [-1, 0, 0.5, 1], [0, 5, 10, 20], [0.2, 0.5, 1, 2], [0, 10, 20], [0.2, 0.5, 1]
    )
    starts = [np.array([e, a, alpha, b, beta]) for e, a, alpha, b, beta in grid]
    started = time.perf_counter()
    found = [
        optimize.minimize(value, s, args=(weights,), jac=True, method="L-BFGS-B").fun
        for s in starts
    ]
    return time.perf_counter() - started, min(found) / 1e3


def whole_command() -> tuple[float, float]:
    """Wall seconds and peak memory (GB) of `isodepth fit published --bootstrap 2000 --out …`."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "isodepth", "fit", "published", "--bootstrap", "2000"]
        started = time.perf_counter()
        subprocess.run([*command, "--out", out, "--quiet"], check=True)
        seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resamples", type=int, default=4000)
    parser.add_argument("--loop", type=int, default=2, help="resamples timed in the scipy loop")
    options = parser.parse_args()
    problem = chinchilla()
    ours(problem, 64)  # first calls pay for imports
    seconds, theta, weights = ours(problem, options.resamples)
    print(f"isodepth: fit and {options.resamples} resamples of 240 runs in {seconds:.2f} s")
    gap = worst_gap(problem, theta, weights, 200)
    print(f"worst objective against a cold multi-start, 200 of them: {gap:+.1e}")
    loop = [plain_loop(problem, w) for w in weights[: options.loop]]
    each = float(np.mean([s for s, _ in loop]))
    whole = each * options.resamples
    print(
        f"scipy L-BFGS-B multi-start: {each:.1f} s a resample, {whole:.0f} s for all: "
        f"{whole / seconds:.0f} times as long"
    )
    for k, (_, value) in enumerate(loop):
        mine = objective(problem.batch(), theta[k : k + 1], weights[k])[0]
        print(f"  resample {k}: isodepth's objective / scipy's best = {mine / value:.9f}")
    seconds, memory = whole_command()
    print(
        f"isodepth fit published --bootstrap 2000 --out DIR: {seconds:.1f} s, {memory:.2f} GB peak"
    )


if __name__ == "__main__":
    main()

"""Do designed sweeps give the interval that was predicted, and does it hold φ? By simulation.

    python benchmarks/design_coverage.py --simulations 500 --write docs/designing-a-sweep.md

Designs: what `plan --target-ci` makes of the published budgets for three wishes. Truths: the
additive and the coupled law as fitted to the published baseline, and the additive law with the
multiplicity that each r has of its own there, which is no power of r. Every simulated sweep is
built, fitted, resampled and profiled by isodepth's own functions, with the defaults of
`isodepth fit` but 200 resamples, and with eight starts near the truth instead of 64.

Where the truth is no power of r, the φ to be held is that of the same runs without noise; how far
it lies from the whole published grid's is printed beside it.
"""

from __future__ import annotations

import argparse
import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
from coverage import commit, write

import isodepth
from isodepth.fitting import Fit, fit
from isodepth.fitting.estimate import estimate
from isodepth.fitting.identify import standard_errors
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.seeds import seeds
from isodepth.fitting.uncertainty import profile, resample, resampling
from isodepth.planning.candidates import candidate_cells, candidates_of
from isodepth.planning.choice import cheapest
from isodepth.planning.cost import DEVICES
from isodepth.planning.design import Limits
from isodepth.planning.grid import Budget, Recipe, Shape
from isodepth.planning.worlds import NOISES, prior, worlds

BUDGETS = (4.64e17, 1e18, 2.15e18, 4.64e18)
# what is asked of the plan: half-width, runs at most
WISHES = {"± 0.05": (0.05, None), "± 0.08": (0.08, None), "± 0.1, 12 runs": (0.1, 12)}
TRUTHS = ("additive", "coupled", "free")
RESAMPLES = 200
STARTS = 8
WORLDS = ("independent", "shared", "outliers")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A designed sweep and what is known of it before its losses are."""

    frame: pd.DataFrame
    flops: float
    predicted: dict[tuple[str, str, float], float]  # half-width by law, estimator, noise


@cache
def supposed() -> list[Fit]:
    return prior("published", recipe="baseline")


@cache
def design(wish: str) -> Sweep:
    target, most = WISHES[wish]
    fits = supposed()
    recipe = Recipe(name="baseline", recurrences=(1, 2, 4, 8))
    budgets = tuple(Budget(flops=flops) for flops in BUDGETS)
    cells = candidate_cells(recipe, budgets, Shape(), fits[0], DEVICES["h100"])
    candidates = candidates_of(cells)
    choice = cheapest(
        worlds(candidates, fits, noises=NOISES),
        candidates,
        target,
        limits=Limits(max_runs=most),
        check_share=0.1,
    )
    rows = [
        {
            "recipe": "baseline",
            "recurrences": cell.recurrences,
            "n_once": cell.account.n_once,
            "n_rec": cell.account.n_rec,
            "n_inject": cell.account.n_inject,
            "tokens": cell.tokens,
            "budget_flops": cell.budget_flops,
            "seed": seed,
            "loss": 1.0,
        }
        for cell, count in zip(cells, choice.counts, strict=True)
        for seed in range(count)
    ]
    predicted = {}
    for one, estimator, noise in product(fits, ("huber", "lsq"), NOISES):
        at = replace(one, conventions=replace(one.conventions, estimator=estimator))
        here = worlds(candidates, [at], noises=(noise,), draws=0)
        predicted[one.conventions.law, estimator, noise] = here.half_width(choice.counts)
    return Sweep(
        frame=isodepth.load_runs(pd.DataFrame(rows)).used, flops=choice.flops, predicted=predicted
    )


@cache
def truth(name: str) -> Fit:
    if name == "free":
        return fit("published", multiplicity="free", bootstrap=0)
    return next(one for one in supposed() if one.conventions.law == name)


def exact_losses(name: str, frame: pd.DataFrame) -> np.ndarray:
    """Losses (n,) of the runs under the truth, without noise."""
    known = truth(name)
    once, rec = known.count(*(frame[c].to_numpy(float) for c in ("n_once", "n_rec", "n_inject")))
    r, tokens = (frame[c].to_numpy(dtype=float) for c in ("recurrences", "tokens"))
    return np.exp(known.fitted.log_loss(once, rec, r, tokens, known.fitted.theta[None])[0])


def noise_of(world: str, problem: Problem, n: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (n, runs) of variance 1, of outliers before they are blown up."""
    noise = rng.normal(size=(n, problem.n))
    if world == "shared":  # half of the variance belongs to the (r, budget) group
        groups = rng.normal(size=(n, problem.groups.max() + 1))[:, problem.groups]
        noise = np.sqrt(0.5) * (noise + groups)
    elif world == "outliers":  # 3% of the runs with ten times the noise
        noise = noise * np.where(rng.random(noise.shape) < 0.03, 10.0, 1.0)
    return noise


Job = tuple[str, str, str, str, float, int, int, int, int]


def sweeps(job: Job) -> tuple[float, list[dict[str, list[float]]]]:
    """The φ to be held; φ and its intervals by method, of simulations [start, stop) of a cell."""
    wish, name, world, estimator, noise, groups, seed, start, stop = job
    frame = design(wish).frame
    law = "additive" if name == "free" else name
    conventions = Conventions(law=law, estimator=estimator)
    loss = exact_losses(name, frame)
    bare = build(frame.assign(loss=loss), conventions)
    noiseless = estimate(bare)
    near = np.vstack([noiseless.theta, seeds(bare)[: STARTS - 1]])
    at = bare.theta_names.index("phi")
    rows = []
    for k in range(start, stop):
        rng = np.random.default_rng([WORLDS.index(world), TRUTHS.index(name), seed, k])
        drawn = loss * np.exp(noise * noise_of(world, bare, 1, rng)[0])
        problem = build(frame.assign(loss=drawn), conventions)
        best = estimate(problem, near)
        phi = float(best.theta[at])
        unit = resampling(problem, best.theta)
        sample = resample(problem, best, RESAMPLES, k, unit)
        error = max(
            standard_errors(problem, best.theta)[at], sample.standard_error(sample.theta[:, at])
        )
        low, high = profile(problem, best, "phi", error).interval
        row = {
            f"{unit} (default)": [phi, *sample.interval(phi, sample.theta[:, at])],
            "profile": [phi, -np.inf if low is None else low, np.inf if high is None else high],
        }
        if k < groups:
            sample = resample(problem, best, RESAMPLES, k, "groups")
            row["groups"] = [phi, *sample.interval(phi, sample.theta[:, at])]
        rows.append(row)
    return float(noiseless.theta[at]), rows


def summary(held: float, rows: list[dict[str, list[float]]], predicted: float) -> list[str]:
    """Table cells: bias, spread, then per method coverage and half-width over the predicted."""
    phis = np.array([next(iter(row.values()))[0] for row in rows])
    cells = [f"{phis.mean() - held:+.4f}", f"{phis.std():.4f}", f"{predicted:.4f}"]
    for method in dict.fromkeys(name for row in rows for name in row):
        _, low, high = np.array([row[method] for row in rows if method in row]).T
        covered = float(((low <= held) & (high >= held)).mean())
        half = (high - low) / 2
        wide = np.sqrt((half**2).mean()) / predicted
        text = f"{100 * covered:.1f} ({np.median(half) / predicted:.2f}, {wide:.2f})"
        cells.append(f"{method}: " + (text if 0.93 <= covered <= 0.97 else f"**{text}**"))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wishes", nargs="+", choices=WISHES, default=list(WISHES))
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=TRUTHS)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS[:1])
    parser.add_argument("--estimators", nargs="+", choices=("huber", "lsq"), default=("huber",))
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--groups", type=int, default=0, help="sweeps resampled by groups as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    for wish in options.wishes:
        made = design(wish)
        levels = made.frame.groupby(["recurrences", "budget_flops"]).size()
        print(f"{wish}: {len(made.frame)} runs, {made.flops:.3g} FLOPs, {len(levels)} groups")
    lines = [
        "| runs, truth, noise | bias | spread | predicted | intervals |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    edges = np.linspace(0, options.simulations, 2 * options.workers + 1).astype(int).tolist()
    with ProcessPoolExecutor(options.workers) as pool:
        for cell in product(
            options.wishes, options.truths, options.worlds, options.estimators, NOISES
        ):
            wish, name, world, estimator, noise = cell
            jobs = [(*cell, options.groups, options.seed, a, b) for a, b in pairwise(edges)]
            parts = list(pool.map(sweeps, jobs))
            rows = [row for _, part in parts for row in part]
            made = design(wish)
            law = "additive" if name == "free" else name
            label = f"{len(made.frame)}, {name}, {noise:g}"
            label += "" if world == "independent" else f" {world}"
            label += "" if estimator == "huber" else f", {estimator}"
            cells = summary(parts[0][0], rows, made.predicted[law, estimator, noise])
            if name == "free":
                whole = fit("published", estimator=estimator, bootstrap=0).phi
                cells[0] += f" (held φ {parts[0][0]:.3f}, grid's {whole:.3f})"
            lines.append(f"| {label} | " + " | ".join([*cells[:3], "; ".join(cells[3:])]) + " |")
            print(lines[-1], flush=True)
    record = (
        f"{date.today()}, commit {commit()}, {platform.machine()}, {options.workers} processes, "
        f"{options.simulations} sweeps a row, {RESAMPLES} resamples, seed {options.seed}"
    )
    print(record)
    if options.write:
        write(options.write, "design coverage", [record, "", *lines])


if __name__ == "__main__":
    main()

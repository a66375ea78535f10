"""Do designed sweeps give the interval that was predicted, and does it hold φ? By simulation.

    python benchmarks/design_coverage.py --simulations 500 --write docs/designing-a-sweep.md

Designs: what `plan --target-ci` makes of the published budgets for three wishes. Truths: the
additive and the coupled law as fitted to the published baseline, and the additive law with the
multiplicity that each r has of its own there, which is no power of r; and `wrong`, the coupled law
fitted by the additive one and held to the coupled law's φ. Fits, resamples and
profiles are those of `isodepth fit`, in batches, with five starts near the truth.
Columns: bias and spread of φ; predicted half-width; share of intervals that hold φ, in percent;
realised half-width over the predicted, root mean square, mean and median; the profile's share.

Where the truth is no power of r, the φ to be held is that of the same runs without noise; how far
it lies from the whole published grid's is printed beside it.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from coverage import record_of, write
from scipy import stats

import isodepth
from isodepth.fitting import Fit, fit
from isodepth.fitting.estimate import estimate
from isodepth.fitting.noise import noise_freedom, noise_scale
from isodepth.fitting.problem import Conventions, Problem, build
from isodepth.fitting.seeds import seeds
from isodepth.fitting.solver import minimise
from isodepth.fitting.uncertainty import (
    Resamples,
    likelihood_unit,
    resample,
    resampling,
    simulated,
)
from isodepth.planning.candidates import candidate_cells, candidates_of
from isodepth.planning.choice import cheapest
from isodepth.planning.cost import DEVICES
from isodepth.planning.design import Limits
from isodepth.planning.grid import Budget, Cell, Recipe, Shape
from isodepth.planning.worlds import NOISES, prior, worlds

BUDGETS = (4.64e17, 1e18, 2.15e18, 4.64e18)
# what is asked of the plan: half-width, runs at most
WISHES = {"± 0.05": (0.05, None), "± 0.08": (0.08, None), "± 0.1, 12 runs": (0.1, 12)}
TRUTHS = ("additive", "coupled", "free", "wrong")
RESAMPLE_STEPS = 60  # of a resample's fit; isodepth takes up to 400
STARTS = 5
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
    cells = candidate_cells((recipe,), budgets, Shape(), fits[0], DEVICES["h100"])
    candidates = candidates_of(cells)
    choice = cheapest(
        worlds(candidates, fits, noises=NOISES),
        candidates,
        target,
        limits=Limits(max_runs=most),
        check_share=0.1,
    )
    predicted = {}
    for one, estimator, noise in product(fits, ("huber", "lsq"), NOISES):
        at = replace(one, conventions=replace(one.conventions, estimator=estimator))
        here = worlds(candidates, [at], noises=(noise,), draws=0)
        predicted[one.conventions.law, estimator, noise] = here.half_width(choice.counts)
    frame = isodepth.load_runs(runs_of(cells, choice.counts)).used
    return Sweep(frame=frame, flops=choice.flops, predicted=predicted)


def runs_of(cells: list[Cell], counts: np.ndarray) -> pd.DataFrame:
    """A row for each of the counts (n,) runs of n cells, without a loss yet."""
    rows = [
        {
            "recipe": cell.recipe.name,
            "recurrences": cell.recurrences,
            "n_once": cell.account.n_once,
            "n_rec": cell.account.n_rec,
            "n_inject": cell.account.n_inject,
            "tokens": cell.tokens,
            "budget_flops": cell.budget_flops,
            "seed": seed,
            "loss": 1.0,
        }
        for cell, count in zip(cells, counts, strict=True)
        for seed in range(count)
    ]
    return pd.DataFrame(rows)


@cache
def truth(name: str) -> Fit:
    if name == "free":
        return fit("published", multiplicity="free", bootstrap=0)
    law = "coupled" if name == "wrong" else name
    return next(one for one in supposed() if one.conventions.law == law)


def fitted_law(name: str) -> str:
    """The law that sweeps of a truth are fitted by."""
    return "additive" if name in ("free", "wrong") else name


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


Case = tuple[str, str, str, str, float]  # wish, truth, world, estimator, noise


@dataclass(frozen=True, kw_only=True)
class Found:
    """K sweeps of a cell."""

    held: float  # the φ to be held
    phi: np.ndarray  # (K,)
    half: np.ndarray  # (K,) of the default interval
    in_profile: np.ndarray  # (K,) whether the profile's interval holds φ
    groups: np.ndarray  # (up to K, 2) intervals by resampling groups


def simulation(job: tuple[Case, int, int, int, int]) -> Found:
    """K sweeps of one cell, all fits of one kind advancing together."""
    (wish, name, world, estimator, noise), n, resamples, groups, seed = job
    frame = design(wish).frame
    conventions = Conventions(law=fitted_law(name), estimator=estimator)
    loss = exact_losses(name, frame)
    problem = build(frame.assign(loss=loss), conventions)
    noiseless = estimate(problem)
    near = np.vstack([noiseless.theta, seeds(problem)[: STARTS - 1]])
    at, p = problem.theta_names.index("phi"), noiseless.theta.size
    held = float(truth(name).phi if name == "wrong" else noiseless.theta[at])
    rng = np.random.default_rng([WORLDS.index(world), TRUTHS.index(name), seed])
    drawn = np.log(loss) + noise * noise_of(world, problem, n, rng)
    theta, objective = best_of(problem, drawn, near)
    fits = [
        replace(noiseless, theta=one, objective=float(value), starts=near)
        for one, value in zip(theta, objective, strict=True)
    ]
    units = {resampling(problem, one) for one in theta}
    if units != {"losses"}:
        raise SystemExit(f"{wish}: these sweeps are not resampled by losses")
    noises = np.random.default_rng([seed, 1]).normal(size=(n, resamples, problem.n))
    scales = [noise_scale(problem, one.objective, p) for one in fits]
    freedoms = np.array([noise_freedom(problem, sigma, p) for sigma in scales])
    again = np.concatenate(
        [
            simulated(problem, one, sigma * noises[k] / problem.scale)
            for k, (one, sigma) in enumerate(zip(fits, scales, strict=True))
        ]
    )
    start = np.repeat(theta, resamples, axis=0)
    draws = minimise(problem.batch(again), start, max_steps=RESAMPLE_STEPS).theta
    half = []
    for k, one in enumerate(draws.reshape(n, resamples, p)):
        sample = Resamples(theta=one, unit="losses", n_units=p + freedoms[k])
        low, high = sample.interval(theta[k, at], one[:, at])
        half.append((high - low) / 2)
    # the profile's interval holds φ where the objective there lies below the threshold
    there = theta.copy()
    there[:, at] = held
    risen = minimise(problem.batch(drawn), there, fixed=np.arange(p) == at).objective
    t = stats.t.ppf(0.975, freedoms)
    unit = np.array([likelihood_unit(problem, one) for one in fits])
    by_groups = []
    for k in range(min(groups, n)):
        swept = replace(problem, log_loss=drawn[k])
        sample = resample(swept, fits[k], resamples, k, "groups")
        by_groups.append(sample.interval(theta[k, at], sample.theta[:, at]))
    return Found(
        held=held,
        phi=theta[:, at],
        half=np.array(half),
        in_profile=risen <= objective + 0.5 * t**2 * unit,
        groups=np.array(by_groups).reshape(-1, 2),
    )


def best_of(problem: Problem, drawn: np.ndarray, starts: np.ndarray) -> tuple:
    """θ (K, p) and objective (K,) of K sweeps' log losses (K, n), the best of several starts."""
    found = [minimise(problem.batch(drawn), np.tile(s, (len(drawn), 1))) for s in starts]
    best = np.argmin([one.objective for one in found], axis=0)
    rows = np.arange(len(drawn))
    return (
        np.stack([one.theta for one in found])[best, rows],
        np.stack([one.objective for one in found])[best, rows],
    )


def summary(parts: list[Found], predicted: float) -> list[str]:
    """Table cells: bias, spread, predicted half-width, coverage and realised over predicted."""
    held = parts[0].held
    phi, half = (np.concatenate([getattr(x, name) for x in parts]) for name in ("phi", "half"))
    covered = float((np.abs(phi - held) <= half).mean())
    wide = np.sqrt((half**2).mean()) / predicted
    text = f"{100 * covered:.1f}"
    cells = [
        f"{phi.mean() - held:+.4f}",
        f"{phi.std():.4f}",
        f"{predicted:.4f}",
        text if 0.93 <= covered <= 0.97 else f"**{text}**",
        f"{wide:.2f}, {half.mean() / predicted:.2f}, {np.median(half) / predicted:.2f}",
        f"{100 * np.concatenate([x.in_profile for x in parts]).mean():.1f}",
    ]
    groups = np.concatenate([x.groups for x in parts])
    if len(groups):
        inside = (groups[:, 0] <= held) & (groups[:, 1] >= held)
        cells[-1] += f"; groups {100 * inside.mean():.0f} of {len(groups)}"
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wishes", nargs="+", choices=WISHES, default=list(WISHES))
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=TRUTHS)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS[:1])
    parser.add_argument("--estimators", nargs="+", choices=("huber", "lsq"), default=("huber",))
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=100)
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
        "| runs, truth, noise | bias | spread | predicted | covers | width | profile covers |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    share = options.simulations // options.workers
    with ProcessPoolExecutor(options.workers) as pool:
        for cell in product(
            options.wishes, options.truths, options.worlds, options.estimators, NOISES
        ):
            wish, name, world, estimator, noise = cell
            seeded = [options.seed * options.workers + i for i in range(options.workers)]
            grouped = options.groups // options.workers
            jobs = [(cell, share, options.resamples, grouped, one) for one in seeded]
            parts = list(pool.map(simulation, jobs))
            made = design(wish)
            label = f"{len(made.frame)}, {name}, {noise:g}"
            label += "" if world == "independent" else f" {world}"
            label += "" if estimator == "huber" else f", {estimator}"
            cells = summary(parts, made.predicted[fitted_law(name), estimator, noise])
            if name == "free":
                whole = fit("published", estimator=estimator, bootstrap=0).phi
                cells[0] += f" of {parts[0].held:.3f}; grid's {whole:.3f}"
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    record = record_of(options.simulations, options.resamples, options.workers, options.seed)
    print(record)
    if options.write:
        write(options.write, "design coverage", [record, "", *lines])


if __name__ == "__main__":
    main()

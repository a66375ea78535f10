"""At equal FLOPs, how much less does φ scatter than over the published layout? By simulation.

    python benchmarks/design_equal.py --simulations 500 --write docs/designing-a-sweep.md

Layout: the published baseline's runs from its lowest budgets alone to all six. Design: the cheapest
runs for φ from the same cells at the same FLOPs, a tenth held for checking, as `isodepth power`
draws it. Losses are drawn from the law that was fitted to the published baseline, with independent
noise, and φ is fitted as `isodepth fit` does by default under that law. Columns: runs of either;
spread (standard deviation over the sweeps) of φ of either; its ratio, ± one standard error, beside
the ratio of the half-widths predicted.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from coverage import record_of, write
from design_coverage import STARTS, best_of, exact_losses, supposed

import isodepth
from isodepth.fitting.estimate import estimate
from isodepth.fitting.problem import Conventions, build
from isodepth.fitting.seeds import seeds
from isodepth.planning.choice import best_for
from isodepth.planning.design import Limits
from isodepth.planning.power import priced_runs
from isodepth.planning.worlds import NOISES, PRIOR_LAWS, worlds

LAYOUTS, DESIGNS = "as laid out", "designed"


@cache
def published() -> pd.DataFrame:
    return isodepth.load_runs("published").of_recipe("baseline")[0]


@cache
def counts_of(kind: str, highest: float) -> np.ndarray:
    """Runs (n,) of every published cell; `highest`: the layout's dearest budget."""
    candidates = priced_runs(published())
    layout = (candidates.budget_flops <= highest).astype(int)
    if kind == LAYOUTS:
        return layout
    choice = best_for(
        worlds(candidates, supposed(), noises=NOISES),
        candidates,
        float(layout @ candidates.flops),
        limits=Limits(),
        check_share=0.1,
    )
    return choice.counts


def predicted(kind: str, highest: float, law: str, noise: float) -> float:
    """Half-width of φ's interval where this is the law and the noise."""
    known = next(one for one in supposed() if one.conventions.law == law)
    alone = worlds(priced_runs(published()), [known], noises=(noise,), draws=0)
    return alone.half_width(counts_of(kind, highest))


Job = tuple[str, float, str, float, int, int]  # kind, highest, law, noise, sweeps, seed


def phis(job: Job) -> np.ndarray:
    """φ (K,) of K simulated sweeps."""
    kind, highest, law, noise, n, seed = job
    counts = counts_of(kind, highest)
    frame = published().iloc[np.repeat(np.arange(counts.size), counts)].reset_index(drop=True)
    loss = exact_losses(law, frame)
    problem = build(frame.assign(loss=loss), Conventions(law=law))
    near = np.vstack([estimate(problem).theta, seeds(problem)[: STARTS - 1]])
    rng = np.random.default_rng([seed, int(1e6 * noise), PRIOR_LAWS.index(law), kind == DESIGNS])
    drawn = np.log(loss) + noise * rng.normal(size=(n, problem.n))
    return best_of(problem, drawn, near)[0][:, problem.theta_names.index("phi")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    lines = [
        "| FLOPs, truth, noise | runs | spread, as laid out | designed | ratio | predicted |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    n = options.simulations
    budgets = np.unique(published()["budget_flops"])[1:].tolist()
    cells = list(product(budgets, PRIOR_LAWS, NOISES))
    jobs = [(kind, *cell, n, options.seed) for cell in cells for kind in (LAYOUTS, DESIGNS)]
    with ProcessPoolExecutor(options.workers) as pool:
        found = pool.map(phis, jobs)
        for highest, law, noise in cells:
            laid, designed = (float(next(found).std()) for _ in range(2))
            halves = [predicted(kind, highest, law, noise) for kind in (LAYOUTS, DESIGNS)]
            flops = counts_of(LAYOUTS, highest) @ priced_runs(published()).flops
            runs = [counts_of(kind, highest).sum() for kind in (LAYOUTS, DESIGNS)]
            ratio = designed / laid
            lines.append(
                f"| {flops:.3g}, {law}, {noise:g} | {runs[0]}, {runs[1]} | {laid:.4f} | "
                f"{designed:.4f} | {ratio:.2f} ± {ratio / np.sqrt(n):.2f} | "
                f"{halves[1] / halves[0]:.2f} |"
            )
            print(lines[-1], flush=True)
    record = record_of(n, None, options.workers, options.seed)
    print(record)
    if options.write:
        write(options.write, "equal FLOPs", [record, "", *lines])


if __name__ == "__main__":
    main()

"""Does `measure --target-ci` end with intervals that hold φ, though it stops at a narrow one?

    python benchmarks/rounds_coverage.py --simulations 200 --write docs/designing-a-sweep.md

Every simulation is a whole `measure --target-ci` at published budgets with 100 resamples; its runs
are not trained but drawn from a known law and independent noise. The first batch is planned from
the published fits. φ to be held: that of the fit to the last table's runs without noise, which
differs from the truth's own only where the truth is not the additive law. Columns: rounds, runs and
FLOPs at the end, medians; share of sweeps that reached the target; of these the bias and spread of
φ, the share of last intervals that hold φ, in percent, and the half-width over 1.96 spreads, root
mean square: what an interval that knew the noise would have been. The last column is the coverage
of the same sweeps' first batch, before anything was chosen by its outcome.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from coverage import record_of, write
from design_coverage import BUDGETS, exact_losses, supposed

import isodepth
from isodepth.planning.worlds import NOISES, prior
from isodepth.runs import Runs
from isodepth.sweep.measure_command import MeasureCommand
from isodepth.sweep.plan import Plan
from isodepth.sweep.rounds import Goal, Round, first_batch, next_batch

TRUTHS = ("additive", "coupled")
RESAMPLES = 100
COLUMNS = ("run_id", "recipe", "recurrences", "n_once", "n_rec", "n_inject", "tokens")
COLUMNS += ("budget_flops", "width", "seed")


@cache
def command(target: float) -> MeasureCommand:
    return MeasureCommand(
        out=Path("nowhere"), target_ci=target, budgets=BUDGETS, device="h100", rate="2e14",
        bootstrap=RESAMPLES, command="train {out}",
    )  # fmt: skip


@cache
def first(target: float) -> Plan:
    asked = command(target)
    return first_batch(asked.spec(), asked.wish(NOISES), prior("published"))


def table(plan: Plan, truth: str, noise: float, seed: int) -> Runs:
    """The plan's runs with losses of the truth; a run has the same noise in every round."""
    frame = pd.DataFrame([{name: getattr(run, name) for name in COLUMNS} for run in plan.runs])
    drawn = np.random.default_rng(seed).normal(size=500)[: len(frame)]
    loss = exact_losses(truth, frame) * np.exp(noise * drawn)
    return isodepth.load_runs(frame.assign(loss=loss, status="done"))


def rounds(target: float, truth: str, noise: float, seed: int) -> Iterator[tuple[Round, Plan]]:
    """Each round of one sweep, and the plan that it judged."""
    asked = command(target)
    goal = Goal(wish=asked.wish(()), bootstrap=asked.bootstrap, seed=seed)
    plan, before = first(target), ()
    while True:
        now, grown = next_batch(plan, table(plan, truth, noise, seed), goal, before)
        yield now, plan
        if not now.added:
            return
        plan, before = grown, (*before, now)


def true_phi(truth: str, plan: Plan) -> float:
    """φ that the additive law has without noise: the truth's own, else that of these runs."""
    if truth == "additive":
        return next(one for one in supposed() if one.conventions.law == truth).phi
    return isodepth.fit(table(plan, truth, 0.0, 0), bootstrap=0, sensitivity=False).phi


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One sweep: φ less what is to be held, and its half-width, at the first round and the last."""

    first: tuple[float, float]
    last: tuple[float, float]
    rounds: int
    runs: int
    flops: float
    reached: bool


def simulation(job: tuple[float, str, float, int]) -> Ended:
    target, truth, noise, seed = job
    seen = list(rounds(target, truth, noise, seed))
    ends = []
    for now, plan in (seen[0], seen[-1]):
        held = true_phi(truth, plan)
        told = now.phi is not None and now.half_width is not None
        ends.append((now.phi - held, now.half_width) if told else (np.nan, np.inf))
    now = seen[-1][0]
    return Ended(
        first=ends[0],
        last=ends[1],
        rounds=len(seen),
        runs=now.n_runs,
        flops=now.flops,
        reached=now.reached,
    )


def summary(found: list[Ended]) -> list[str]:
    """Table cells."""
    off, half = np.array([one.last for one in found if one.reached]).T
    first = np.array([one.first for one in found])
    first = first[np.isfinite(first).all(axis=1)]
    covered = 100 * float((np.abs(off) <= half).mean())
    return [
        f"{np.median([one.rounds for one in found]):.0f} "
        f"({min(one.rounds for one in found)} to {max(one.rounds for one in found)})",
        f"{np.median([one.runs for one in found]):.0f}",
        f"{np.median([one.flops for one in found]):.2g}",
        f"{100 * np.mean([one.reached for one in found]):.0f}%",
        f"{off.mean():+.4f}",
        f"{off.std():.4f}",
        f"{covered:.1f}",
        f"{np.sqrt((half**2).mean()) / (1.96 * off.std()):.2f}",
        f"{100 * (np.abs(first[:, 0]) <= first[:, 1]).mean():.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", type=float, default=(0.08,))
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=TRUTHS)
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    supposed()
    lines = [
        "| target, truth, noise | rounds | runs | FLOPs | reached | bias | spread | covers | width "
        "| first batch covers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with ProcessPoolExecutor(options.workers) as pool:
        for target, truth, noise in product(options.targets, options.truths, NOISES):
            seeds = [options.seed * options.simulations + k for k in range(options.simulations)]
            jobs = [(target, truth, noise, seed) for seed in seeds]
            cells = summary(list(pool.map(simulation, jobs, chunksize=5)))
            lines.append(f"| ± {target:g}, {truth}, {noise:g} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    record = record_of(options.simulations, RESAMPLES, options.workers, options.seed)
    print(record)
    if options.write:
        write(options.write, "rounds coverage", [record, "", *lines])


if __name__ == "__main__":
    main()

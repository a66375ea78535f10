"""Coverage of what is measured without a law, and at equal r, by simulated sweeps.

    export OPENBLAS_NUM_THREADS=1
    python benchmarks/equal_r_coverage.py --simulations 2000 --write docs/intervals.md

The published layout: 116 runs of a baseline and 63 of a probe that borrows its unlooped runs. The
truth is the published law, or one that bends it (coupled, other m(r)), the noise 0.0025 of the
loss in one of nine worlds; the probe differs as named. Every sweep goes through isodepth's own
functions. A cell is the share of sweeps whose 95% interval holds the truth, in percent; the last
columns are false alarms: a constant between looped and unlooped runs, or a change of φ, where
there is none.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from coverage import TRUTH, record_of, write

import isodepth
from isodepth.comparing.carry import carrier_of
from isodepth.comparing.forms import split_of
from isodepth.fitting.estimate import estimate
from isodepth.fitting.fit import _resamples
from isodepth.fitting.law_free import law_free
from isodepth.fitting.problem import Conventions, Problem, build

NOISE = 0.0025  # standard deviation of the log loss
GAMMA = 0.6
MARK = "equal r"


@dataclass(frozen=True)
class World:
    """One truth and one kind of noise."""

    name: str
    noise: str = "independent"
    law: str = "additive"
    worth: str = "power"
    change: dict[str, float] = field(default_factory=dict)  # of the probe


WORLDS = [
    World("independent"),
    World("shared in (r, budget)", noise="cells"),
    World("shared in budgets", noise="budgets"),
    World("shared in widths", noise="widths"),
    World("growing with r", noise="growing"),
    World("t, 2.5 degrees of freedom", noise="heavy"),
    World("half the runs missing", noise="missing"),
    World("half common to an r", noise="common"),
    World("half AR(.8) over budgets", noise="ar"),
    World("coupled law", law="coupled"),
    World("m = 1 + .8 ln r", worth="log"),
    World("m saturating at 3", worth="saturating"),
    World("probe: tokens × 1.2", change={"tokens": 1.2}),
    World("probe: loss − .04", change={"offset": -0.04}),
    World("probe: loss + .04", change={"offset": 0.04}),
    World("probe: loss + .08/r", change={"over_r": 0.08}),
    World("probe: Δφ + .1", change={"phi": 0.1}),
]


def worth(world: World, r: np.ndarray, more: float = 0.0) -> np.ndarray:
    """m(r) of the truth; more: added to φ."""
    if world.worth == "log":
        return (1 + 0.8 * np.log(r)) * r**more
    if world.worth == "saturating":
        return (1 + 2 * (1 - np.exp(-(r - 1) / 2))) * r**more
    return r ** (TRUTH["phi"] + more)


def exact(frame: pd.DataFrame, world: World) -> np.ndarray:
    """Losses without noise."""
    r = frame["recurrences"].to_numpy(dtype=float)
    change = world.change
    own = (frame["recipe"] == "probe").to_numpy()
    m = np.where(own, worth(world, r, change.get("phi", 0.0)), worth(world, r))
    n = frame["n_once"] + frame["n_inject"] + m * frame["n_rec"]
    tokens = frame["tokens"] * np.where(own, change.get("tokens", 1.0), 1.0)
    t = TRUTH
    if world.law == "additive":
        loss = t["E"] + t["A"] * n ** -t["alpha"] + t["B"] * tokens ** -t["beta"]
    else:
        bracket = 29.0 * n ** (-t["alpha"] / GAMMA) + 12000.0 * tokens ** (-t["beta"] / GAMMA)
        loss = (
            t["E"] + (t["A"] * n ** -t["alpha"]).mean() / (bracket**GAMMA).mean() * bracket**GAMMA
        )
    added = change.get("offset", 0.0) + change.get("over_r", 0.0) / r
    return np.asarray(loss + np.where(own, added, 0.0), dtype=float)


def drawn(frame: pd.DataFrame, world: World, rng: np.random.Generator) -> np.ndarray:
    """Noise of the log loss."""
    n = len(frame)
    noise = rng.normal(size=n)
    budgets = np.unique(frame["budget_flops"], return_inverse=True)[1]
    lines = frame.groupby(["recipe", "recurrences"]).ngroup().to_numpy()
    widths = np.unique(frame["width"], return_inverse=True)[1]
    if world.noise == "cells":
        shared = rng.normal(size=(lines.max() + 1, budgets.max() + 1))[lines, budgets]
    elif world.noise == "budgets":
        shared = rng.normal(size=budgets.max() + 1)[budgets]
    elif world.noise == "widths":
        shared = rng.normal(size=widths.max() + 1)[widths]
    elif world.noise == "common":
        shared = rng.normal(size=lines.max() + 1)[lines]
    elif world.noise == "ar":
        steps = rng.normal(size=(lines.max() + 1, budgets.max() + 1))
        for k in range(1, steps.shape[1]):
            steps[:, k] = 0.8 * steps[:, k - 1] + 0.6 * steps[:, k]
        shared = steps[lines, budgets]
    else:
        if world.noise == "growing":
            r = frame["recurrences"].to_numpy(dtype=float)
            noise = noise * np.sqrt(r) / np.sqrt(r.mean())
        elif world.noise == "heavy":
            noise = rng.standard_t(2.5, size=n) / np.sqrt(5.0)
        return NOISE * noise
    return NOISE * np.sqrt(0.5) * (noise + shared)


@cache
def layout() -> pd.DataFrame:
    """The published baseline's and lanes' runs as baseline and probe."""
    frame = isodepth.load_runs("published").frame
    frame = frame[frame["recipe"].isin(["baseline", "hyperconnections"])].reset_index(drop=True)
    return frame.assign(recipe=frame["recipe"].replace("hyperconnections", "probe"))


def problems(frame: pd.DataFrame) -> tuple[Problem, Problem]:
    """Of the baseline, and of the probe with the unlooped runs that it borrows."""
    base = frame[frame["recipe"] == "baseline"]
    own = frame[frame["recipe"] == "probe"]
    lent = base[(base["recurrences"] == 1) & base["budget_flops"].isin(own["budget_flops"])]
    return build(base, Conventions()), build(pd.concat([lent, own]), Conventions())


def held(interval: tuple[float, float], truth: float) -> float:
    return float(interval[0] <= truth <= interval[1])


def sweep(job: tuple[World, int]) -> dict[str, float]:
    """What one simulated sweep's intervals hold: 1, 0; absent where nothing was printed."""
    world, seed = job
    rng = np.random.default_rng([seed, WORLDS.index(world)])
    frame = layout()
    if world.noise == "missing":
        frame = frame[rng.random(len(frame)) < 0.5].reset_index(drop=True)
    frame = frame.assign(loss=exact(frame, world) * np.exp(drawn(frame, world, rng)))
    base, probe = problems(frame)
    found: dict[str, float] = {}
    best = estimate(base)
    phi = float(best.theta[-1])
    sample, _ = _resamples(base, best, 200, seed, "groups")
    if world.worth == "power" and world.law == "additive":
        found["φ, law"] = held(sample.interval(phi, sample.theta[:, -1]), TRUTH["phi"])
    free, _ = law_free(base)
    if free is not None:
        for w in free.m:
            truth = float(worth(world, np.array([w.recurrences]))[0])
            found[f"m({w.recurrences:g})"] = held(w.ci95, truth)
        if world.worth == "power":
            found["φ, no law"] = held(free.phi.ci95, TRUTH["phi"])
        if free.phi_looped is not None and world.worth == "power":
            found["φ, looped"] = held(free.phi_looped.ci95, TRUTH["phi"])
        found["false constant"] = float(free.split["kind"] != "none")
    own = np.flatnonzero((probe.frame["recipe"] == "probe").to_numpy())
    carrier, _ = carrier_of(base, probe, own.tolist(), phi)
    if carrier is None:
        return found
    misfit = base.log_loss - np.log(base.predict(best.theta)[0])
    split = split_of(carrier, float(np.sqrt((misfit**2).mean())))
    if split is None:
        return found
    change = world.change
    form = {"tokens": "tokens", "offset": "offset", "over_r": "offset_over_r"}.get(
        next(iter(change), ""), "none"
    )
    with_phi = split.candidate(form, with_phi=True)
    name = {"tokens": "tokens_ratio", "offset": "loss_offset", "over_r": "loss_offset_times_r"}
    delta = change.get("phi", 0.0)
    if with_phi is not None and with_phi.delta_phi is not None:
        found["Δφ, true form"] = held(with_phi.delta_phi.ci95, delta)
        for key, value in change.items():
            if key in name:
                found["κ, δ or c"] = held(with_phi.params[name[key]].ci95, value)
    if split.delta_phi is not None and split.delta_phi.ci95 is not None:
        found["Δφ, all forms"] = held(split.delta_phi.ci95, delta)
    if delta == 0.0:
        found["false Δφ"] = float(split.sign in (1, -1))
    else:
        found["Δφ told"] = float(split.sign == 1)
    return found


COLUMNS = (
    "φ, law",
    "m(2)",
    "m(4)",
    "m(8)",
    "φ, no law",
    "φ, looped",
    "κ, δ or c",
    "Δφ, true form",
    "Δφ, all forms",
    "Δφ told",
    "false constant",
    "false Δφ",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--worlds", nargs="*", help="names of worlds; all by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    asked = parser.parse_args()
    worlds = [w for w in WORLDS if not asked.worlds or w.name in asked.worlds]
    lines = [f"| world | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    with ProcessPoolExecutor(asked.workers) as pool:
        for world in worlds:
            kept: dict[str, list[float]] = defaultdict(list)
            for one in pool.map(sweep, [(world, k) for k in range(asked.simulations)], chunksize=4):
                for key, value in one.items():
                    kept[key].append(value)
            cells = [f"{100 * np.mean(kept[c]):.1f}" if kept[c] else "" for c in COLUMNS]
            lines.append(f"| {world.name} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    lines = [record_of(asked.simulations, 200, asked.workers, 0), "", *lines]
    print("\n".join(lines))
    if asked.write:
        write(asked.write, MARK, lines)


if __name__ == "__main__":
    main()

"""How often the intervals of `compare`'s table "sharing" hold the truth: simulated sweeps.

The layout of the preset `laptop-lanes`, or a wider one, with losses of a law in which a recipe
counts tokens κ times at any r, raises φ, or does both. Truth: the mean of the noiseless losses over
the cells that the table uses. Noise is independent, or half of its variance shared in (recipe,
looped or untied, r, budget). Writes JSON; `docs/coverage.md` has the numbers.

    python benchmarks/sharing_coverage.py --sweeps 100
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from isodepth.comparing.sharing import sharing_of
from isodepth.planning.grid import Budget, cells
from isodepth.sweep.spec import read_spec

E, A, ALPHA, B, BETA, PHI = 1.0, 30.0, 0.5, 3000.0, 0.6, 0.5
WORLDS = {"none": (1.0, 0.0), "kappa": (1.2, 0.0), "phi": (1.0, 0.1), "both": (1.2, 0.1)}
LAYOUTS = {
    "laptop-lanes": None,
    "wide": [(4e10, (8, 12, 16)), (1e11, (8, 12, 16, 20)), (2.5e11, (8, 12, 16, 20))],
}


def layout(name: str) -> pd.DataFrame:
    """The runs of a plan, without their losses."""
    spec = read_spec("laptop-lanes")
    if LAYOUTS[name] is not None:
        budgets = tuple(Budget(flops=flops, widths=w) for flops, w in LAYOUTS[name])
        spec = replace(spec, budgets=budgets)
    return pd.DataFrame(
        [
            {
                "recipe": cell.recipe.in_table,
                "recurrences": 1 if cell.recipe.untied else cell.recurrences,
                "graph_recurrences": cell.recurrences,
                "width": cell.width,
                "budget_flops": cell.budget_flops,
                "n_once": cell.account.n_once + cell.account.n_inject,
                "n_rec": cell.account.n_rec,
                "tokens": cell.tokens,
            }
            for cell in cells(spec.recipes, spec.budgets, spec.shape)
        ]
    )


def losses(frame: pd.DataFrame, kappa: float, phi: float) -> np.ndarray:
    """Noiseless losses (n,), nats per token."""
    second = (frame["recipe"] == "hyperconnections").to_numpy()
    size = frame["n_once"] + frame["recurrences"] ** (PHI + phi * second) * frame["n_rec"]
    tokens = frame["tokens"] * np.where(second, kappa, 1.0)
    return (E + A * size**-ALPHA + B * tokens**-BETA).to_numpy()


def noisy(frame: pd.DataFrame, truth: np.ndarray, size: float, share: float, seed: int):
    """The frame with losses whose logarithms have noise of standard deviation `size`."""
    rng = np.random.default_rng(seed)
    keys = ["recipe", "recurrences", "graph_recurrences", "budget_flops"]
    group = frame.groupby(keys).ngroup().to_numpy()
    noise = np.sqrt(1 - share) * rng.normal(size=len(frame))
    noise += np.sqrt(share) * rng.normal(size=group.max() + 1)[group]
    return frame.assign(loss=truth * np.exp(size * noise))


def contrasts(frame: pd.DataFrame) -> dict:
    found = sharing_of(frame, "baseline", "hyperconnections")
    return {(c.name, c.recurrences): c.delta_log_loss for c in found.contrasts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.004)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS))
    parser.add_argument("--out", default=None)
    flags = parser.parse_args()
    results = []
    for name in flags.layouts:
        frame = layout(name)
        for world, (kappa, phi) in WORLDS.items():
            truth = losses(frame, kappa, phi)
            exact = contrasts(frame.assign(loss=truth))
            for share in (0.0, 0.5):
                began = time.process_time()
                held, wide, told = defaultdict(list), defaultdict(list), []
                for seed in range(flags.sweeps):
                    found = contrasts(noisy(frame, truth, flags.noise, share, seed))
                    for key, value in found.items():
                        low, high = value.ci95
                        held[key[0]].append(low <= exact[key].value <= high)
                        wide[key[0]].append((high - low) / 2)
                    low, high = found["for_loops", None].ci95
                    told.append(not low <= 0 <= high)
                result = {
                    "layout": name, "n_runs": len(frame), "world": world, "shared": share,
                    "noise": flags.noise, "sweeps": flags.sweeps,
                    "true_for_loops": exact["for_loops", None].value,
                    "coverage": {key: float(np.mean(values)) for key, values in held.items()},
                    "half_width": {key: float(np.median(v)) for key, v in wide.items()},
                    "for_loops_told": float(np.mean(told)),
                    "seconds": time.process_time() - began,
                }  # fmt: skip
                results.append(result)
                print(json.dumps(result), flush=True)
    if flags.out:
        Path(flags.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

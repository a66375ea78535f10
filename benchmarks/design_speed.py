"""How long it takes to choose a design among many candidates.

    python benchmarks/design_speed.py
    python benchmarks/design_speed.py --candidates 20000

Candidates: r = 1, 2, 4, 8 at as many budgets from 4.64e17 to 2.15e19 FLOPs as it takes, with every
multiple of 64 as a width. Timed: the candidates' gradients in all supposed worlds, and `cheapest`
for φ ± 0.05 (continuous optimum, bisection, exchange), as `isodepth plan --target-ci 0.05` does;
the supposed laws are fitted before. Then the same for Δφ of a second recipe.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from isodepth.planning.candidates import candidate_cells, candidates_of
from isodepth.planning.choice import cheapest
from isodepth.planning.contrast import contrast
from isodepth.planning.cost import DEVICES
from isodepth.planning.design import Limits
from isodepth.planning.grid import Budget, Recipe, Shape
from isodepth.planning.worlds import NOISES, Candidates, prior, worlds

TARGET = 0.05
SHAPE = Shape(head_size=64)
BASELINE = Recipe(name="baseline", recurrences=(1, 2, 4, 8))
PROBE = Recipe(name="truncated_bptt", recurrences=(2, 4, 8), backprop="half")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=5000)
    wanted = parser.parse_args().candidates
    began = time.perf_counter()
    fits = prior("published", recipe="baseline")
    print(f"supposed laws: {time.perf_counter() - began:.1f} s")
    for recipes in ((BASELINE,), (BASELINE, PROBE)):
        candidates = some(recipes, wanted, fits)
        began = time.perf_counter()
        if len(recipes) == 1:
            supposed = worlds(candidates, fits, noises=NOISES)
        else:
            supposed = contrast(candidates, fits, noises=NOISES)
        built = time.perf_counter() - began
        found = cheapest(supposed, candidates, TARGET, limits=Limits(), check_share=0.1)
        took = time.perf_counter() - began
        print(
            f"{'φ' if len(recipes) == 1 else 'Δφ'} ± {found.half_width:.4f} from "
            f"{candidates.flops.size} candidates: {took:.1f} s, {built:.1f} s of it gradients; "
            f"{found.n_runs} runs, {found.flops:.3g} FLOPs, {found.flops / found.bound:.2f} of the "
            "bound",
            flush=True,
        )


def some(recipes: tuple[Recipe, ...], wanted: int, fits: list) -> Candidates:
    """At least so many candidates."""
    n = 2
    while True:
        budgets = tuple(Budget(flops=float(x)) for x in np.geomspace(4.64e17, 2.15e19, n))
        cells = candidate_cells(recipes, budgets, SHAPE, fits[0], DEVICES["h100"])
        if len(cells) >= wanted:
            break
        n = max(n + 1, int(n * wanted / len(cells)))
    found = candidates_of(cells)
    if len(recipes) == 1:
        return found
    return replace(found, second=np.array([cell.recipe is not BASELINE for cell in cells]))


if __name__ == "__main__":
    main()

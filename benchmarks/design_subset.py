"""φ and Δφ from the published runs at a small share of their FLOPs, chosen by the design alone.

    python benchmarks/design_subset.py
    python benchmarks/design_subset.py --delta

The choice sees the runs' sizes, tokens and costs, and as the supposed laws the fits to the whole
grid (`planning.worlds.prior`), but never the loss of one run apart from another: it is the design
of least predicted variance at 1% of the FLOPs, each run at most once. Then φ is fitted from the
chosen runs alone. Both estimators and both laws are printed, whatever they give.

--delta: Δφ of both probes at 2% of the FLOPs of the baseline and the probe together. Three fifths
of it buys the baseline's design for φ; the rest buys the probe's looped runs that narrow its φ
most beside the r = 1 runs already chosen. First what these can resolve, then what they say.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

import isodepth
from isodepth.fitting.problem import Conventions
from isodepth.planning.choice import best_for
from isodepth.planning.design import Limits, exact
from isodepth.planning.power import borrowed, priced_runs, resolution
from isodepth.planning.worlds import NOISES, prior, worlds
from isodepth.recipes.pair import fit_pair, pair_of

SHARE = 0.01
SHARE_OF_BOTH = 0.02
BASELINE_PART = 0.6
RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delta", action="store_true", help="Δφ of both probes instead of φ")
    if parser.parse_args().delta:
        for probe in ("truncated_bptt", "hyperconnections"):
            delta(probe)
        return
    frame = isodepth.load_runs("published").of_recipe("baseline")[0]
    candidates = priced_runs(frame)
    flops = candidates.flops
    supposed = worlds(candidates, prior("published", recipe="baseline"), noises=NOISES)
    print(f"whole grid: {len(frame)} runs, {flops.sum():.3g} FLOPs")
    seen: set[tuple[str, ...]] = set()
    for check_share in (0.0, 0.2):
        choice = best_for(
            supposed,
            candidates,
            SHARE * flops.sum(),
            limits=Limits(max_replicates=1),
            check_share=check_share,
        )
        chosen = frame[choice.counts > 0]
        print(
            f"\n{check_share:.0%} held for checking: {choice.n_runs} runs, {choice.flops:.3g} "
            f"FLOPs, {choice.flops / flops.sum():.2%}; predicted φ ± {choice.half_width:.3f}"
        )
        print(
            "  "
            + ", ".join(
                f"r{r.recurrences} {r.budget_flops:.3g} w{r.width}" for r in chosen.itertuples()
            )
        )
        if (ids := tuple(chosen["run_id"])) in seen:
            print("  the same runs")
            continue
        seen.add(ids)
        report(chosen)


def delta(probe: str) -> None:
    """Choose runs of the baseline and one probe, say what they resolve, and fit them."""
    table = isodepth.load_runs("published")
    base, both = table.of_recipe("baseline")[0], table.of_recipe(probe)[0]
    own = both[both["recipe"] == probe]
    fits = prior("published", recipe="baseline")
    total = base["flops"].sum() + own["flops"].sum()
    flops, limits = SHARE_OF_BOTH * total, Limits(max_replicates=1)
    first = priced_runs(base)
    counts = exact(
        worlds(first, fits, noises=NOISES), first.flops, BASELINE_PART * flops, limits=limits
    )
    chosen = base[counts > 0]
    unlooped = chosen[chosen["recurrences"] == 1]
    rows = pd.concat([unlooped, own])
    second = priced_runs(rows)
    held = (rows["recurrences"] == 1).to_numpy().astype(int)
    # the r = 1 runs are paid for
    cost = np.where(held == 1, second.flops.min() * 1e-6, second.flops)
    left = flops - chosen["flops"].sum()
    counts = exact(worlds(second, fits, noises=NOISES), cost, left, limits=limits, fixed=held)
    probed = rows[counts > 0]
    layout = borrowed(chosen, probed)
    runs = pd.concat([chosen, probed[probed["recipe"] == probe]])
    print(
        f"\n{probe}: {len(runs)} runs, {runs['flops'].sum():.3g} FLOPs, "
        f"{runs['flops'].sum() / total:.2%} of {total:.3g}"
    )
    for recipe, part in runs.groupby("recipe"):
        names = [f"r{r.recurrences:g} {r.budget_flops:.3g} w{r.width:g}" for r in part.itertuples()]
        print(f"  {recipe}: {', '.join(names)}")
    supposed = worlds(layout.candidates, fits, noises=NOISES)
    for law in ("additive", "coupled"):
        for method in ("separate", "joint"):
            able = resolution(supposed, layout, joint=method == "joint")
            conventions = Conventions(law=law)
            pair = pair_of(isodepth.load_runs(runs), "baseline", probe, conventions)
            draws = pair.draw(RESAMPLES, 0)
            found = fit_pair(pair, method, draws)[0]
            low, high = found.recipe.resamples.interval(found.delta, found.delta_draws)
            missing = f", not told: {found.missing}" if found.missing else ""
            whole = fit_pair(pair_of(table, "baseline", probe, conventions), method, None)[0]
            print(
                f"  {law} {method}: can resolve {able.smallest:.3f}; Δφ {found.delta:+.3f} "
                f"[{low:+.3f}, {high:+.3f}] by {draws.unit}{missing}; all runs {whole.delta:+.3f}",
                flush=True,
            )


def report(chosen: pd.DataFrame) -> None:
    """φ of the chosen runs beside the whole grid's under the same conventions."""
    for law in ("additive", "coupled"):
        for estimator in ("huber", "lsq"):
            whole = isodepth.fit("published", law=law, estimator=estimator, bootstrap=0)
            part = isodepth.fit(
                isodepth.load_runs(chosen), law=law, estimator=estimator, bootstrap=RESAMPLES
            )
            profile = None if part.profile_phi is None else part.profile_phi["ci95"]
            print(
                f"  {law} {estimator}: {phi(part.phi)} {ends(part.interval('phi'))} by "
                f"{part.fitted.resamples.unit}, profile {ends(profile)}; whole grid "
                f"{phi(whole.phi)}",
                flush=True,
            )


def ends(interval: tuple[float | None, float | None] | None) -> str:
    if interval is None:
        return "none"
    return " to ".join("none" if end is None else f"{end:.3f}" for end in interval)


def phi(value: float | None) -> str:
    return "not identified" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()

"""φ and Δφ from the published runs at a small share of their FLOPs, chosen by the design alone.

    python benchmarks/design_subset.py
    python benchmarks/design_subset.py --delta

The choice sees the runs' sizes, tokens and costs, and as the supposed laws the fits to the whole
grid (`planning.worlds.prior`), but never the loss of one run apart from another: it is the design
of least predicted variance at 1% of the FLOPs, each run at most once. Then φ is fitted from the
chosen runs alone. Both estimators and both laws are printed, whatever they give.

--delta: Δφ of both probes at 2% of the FLOPs of the baseline and the probe together, by the design
for Δφ that `isodepth plan --target-ci` makes of two recipes. What the runs can resolve is printed
beside what they say, by separate laws and by one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

import isodepth
from isodepth.comparing.pair import fit_pair, pair_of
from isodepth.fitting import Fit
from isodepth.fitting.problem import Conventions
from isodepth.laws import Integers
from isodepth.planning.choice import best_for
from isodepth.planning.contrast import contrast
from isodepth.planning.design import Limits
from isodepth.planning.power import priced_runs
from isodepth.planning.resolution import resolution
from isodepth.planning.worlds import NOISES, PRIOR_LAWS, Candidates, prior, worlds

SHARE = 0.01
SHARE_OF_BOTH = 0.02
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
    rows = pd.concat([base, both[both["recipe"] == probe]])
    candidates = replace(priced_runs(rows), second=(rows["recipe"] == probe).to_numpy())
    fits = prior("published", recipe="baseline")
    total = rows["flops"].sum()
    counts = chosen_for(candidates, fits, SHARE_OF_BOTH * total)
    runs = rows[counts > 0]
    print(
        f"\n{probe}: {len(runs)} runs, {runs['flops'].sum():.3g} FLOPs, "
        f"{runs['flops'].sum() / total:.2%} of {total:.3g}"
    )
    for recipe, part in runs.groupby("recipe"):
        names = [f"r{r.recurrences} {r.budget_flops:.3g} w{r.width}" for r in part.itertuples()]
        print(f"  {recipe}: {', '.join(names)}")
    bought = replace(
        candidates.only(counts > 0), second=(runs["recipe"] == probe).to_numpy(dtype=bool)
    )
    separate = contrast(bought, fits, noises=NOISES)
    for law in PRIOR_LAWS:
        for method, supposed in (("separate", separate), ("joint", separate.joint)):
            able = resolution(supposed, np.ones(len(runs)))
            conventions = Conventions(law=law)
            pair = pair_of(isodepth.load_runs(runs), "baseline", probe, conventions)
            draws = pair.draw(RESAMPLES, 0)
            found = fit_pair(pair, method, draws)[0]
            low, high = found.recipe.resamples.interval(found.delta, found.delta_draws)
            missing = f", not told: {found.missing}" if found.missing else ""
            whole = fit_pair(pair_of(table, "baseline", probe, conventions), method, None)[0]
            print(
                f"  {law} {method}: expected ± {able.half_width:.3f}, can resolve "
                f"{able.smallest:.3f}; Δφ {found.delta:+.3f} [{low:+.3f}, {high:+.3f}] by "
                f"{draws.unit}{missing}; all runs {whole.delta:+.3f}",
                flush=True,
            )


def chosen_for(candidates: Candidates, fits: list[Fit], flops: float) -> Integers:
    """Counts of the runs of least predicted variance of Δφ, each at most once."""
    supposed = contrast(candidates, fits, noises=NOISES)
    limits = Limits(max_replicates=1)
    return best_for(supposed, candidates, flops, limits=limits, check_share=0.0).counts


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

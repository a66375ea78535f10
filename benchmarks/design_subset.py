"""φ from the published baseline's own runs at 1% of its FLOPs, chosen by the design alone.

    python benchmarks/design_subset.py

The choice sees the runs' sizes, tokens and costs, and as the supposed laws the fits to the whole
grid (`planning.worlds.prior`), but never the loss of one run apart from another: it is the design
of least predicted variance at 1% of the FLOPs, each run at most once. Then φ is fitted from the
chosen runs alone. Both estimators and both laws are printed, whatever they give.
"""

from __future__ import annotations

import pandas as pd

import isodepth
from isodepth.planning.choice import best_for
from isodepth.planning.design import Limits
from isodepth.planning.worlds import NOISES, Candidates, prior, worlds

SHARE = 0.01
COLUMNS = ("recurrences", "n_once", "n_rec", "n_inject", "tokens", "budget_flops")


def main() -> None:
    frame = isodepth.load_runs("published").of_recipe("baseline")[0]
    values = {name: frame[name].to_numpy(dtype=float) for name in COLUMNS}
    flops = (frame["tokens"] * frame["flops_per_token"]).to_numpy(dtype=float)
    candidates = Candidates(**values, flops=flops)
    supposed = worlds(candidates, prior("published", recipe="baseline"), noises=NOISES)
    print(f"whole grid: {len(frame)} runs, {flops.sum():.3g} FLOPs")
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
        report(chosen)


def report(chosen: pd.DataFrame) -> None:
    """φ of the chosen runs beside the whole grid's under the same conventions.

    With the profile's interval: a bootstrap over five groups of eleven runs says little.
    """
    for law in ("additive", "coupled"):
        for estimator in ("huber", "lsq"):
            whole = isodepth.fit("published", law=law, estimator=estimator, bootstrap=0)
            part = isodepth.fit(
                isodepth.load_runs(chosen), law=law, estimator=estimator, bootstrap=0
            )
            profile = None if part.profile_phi is None else part.profile_phi["ci95"]
            print(
                f"  {law} {estimator}: {phi(part.phi)} {profile}, whole grid {phi(whole.phi)}",
                flush=True,
            )


def phi(value: float | None) -> str:
    return "not identified" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()

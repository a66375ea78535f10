"""What a fit of runs not yet trained would warn of: what their design alone leaves open."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isodepth.fitting.unlooped import twin
from isodepth.warned import Warned

PHI = 0.46  # the published baseline's (arXiv 2604.21106): an example where none is supposed


def foreseen(frame: pd.DataFrame, phi: float = PHI) -> tuple[Warned, ...]:
    """Of one recipe's runs, with those that it borrows; phi: supposed."""
    r = np.unique(frame["recurrences"].to_numpy(dtype=float))
    looped = [int(x) for x in r if x > 1]
    if not looped:
        return ()
    if len(looped) == 1 and r.size == 1:
        return (
            Warned(
                "not_identified",
                f"φ will not be identified: every run has r = {looped[0]}; telling what a "
                "recurrence is worth takes two values of r",
            ),
        )
    said = []
    if r[0] > 1 and (frame["n_once"] > 0).any():
        said.append(_no_unlooped(frame, looped, phi))
    if "budget_flops" in frame and frame["budget_flops"].nunique(dropna=False) == 1:
        said.append(
            Warned(
                "one_budget",
                "φ will not be identified: every run has one FLOP budget, so tokens follow from "
                "size and the two terms of the law can't be told apart",
            )
        )
    return tuple(said)


def _no_unlooped(frame: pd.DataFrame, looped: list[int], phi: float) -> Warned:
    listed = ", ".join(map(str, looped))
    if len(looped) > 2:
        return Warned(
            "no_unlooped",
            f"no run has r = 1: φ will rest on how the runs at r = {listed} differ among "
            "themselves, and several values of it may describe them",
        )
    size = frame["n_once"] + frame["recurrences"] * frame["n_rec"]
    other = twin(float((frame["n_once"] / size).median()), (looped[0], looped[1]), phi)
    which = "" if other is None else f" (where φ is {phi:.3f}, {other:.3f} as well)"
    return Warned(
        "two_solutions",
        f"φ will not be identified: no run has r = 1, and two looped r's, {listed}, are described "
        f"equally well by two values of φ{which}; add r = 1 or a third r",
    )

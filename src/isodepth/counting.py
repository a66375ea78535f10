"""How the injection's parameters enter N_once and N_rec: each convention moves φ a little."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from isodepth.errors import InputError
from isodepth.laws import Array

Counting = Literal["once", "rec", "none", "regressed"]
COUNTINGS: dict[Counting, str] = {
    "once": "n_once includes the injection",
    "rec": "n_rec includes the injection",
    "none": "the injection is not counted",
    "regressed": "n_once and n_rec regressed per width on (1, 1/r)",
}


def count(frame: pd.DataFrame, counting: Counting) -> tuple[Array, Array]:
    """(N_once, N_rec) of every run [parameters], under a counting convention.

    `regressed` is the convention behind the published coefficients (arXiv 2604.21106): per width,
    ordinary least squares of the total unique parameters on (1, 1/r) over the arms; the intercept
    is N_once for every r, the slope over r is N_rec.
    Raises InputError where `regressed` lacks a width or a second r for one.
    """
    once = frame["n_once"].to_numpy(dtype=float, copy=True)
    rec = frame["n_rec"].to_numpy(dtype=float, copy=True)
    inject = frame["n_inject"].to_numpy(dtype=float)
    if counting == "once":
        return once + inject, rec
    if counting == "rec":
        return once, rec + inject
    if counting == "none":
        return once, rec
    why = why_not_regressed(frame)
    if why:
        raise InputError(f"counting the injection as 'regressed' is not possible: {why}")
    r = frame["recurrences"].to_numpy(dtype=float)
    total = once + rec + inject
    for width in frame["width"].unique():
        rows = (frame["width"] == width).to_numpy()
        once[rows], rec[rows] = regress(r[rows], total[rows])
    return once, rec


def regress(recurrences: Array, total: Array) -> tuple[float, Array]:
    """N_once and N_rec (n,) from the total unique parameters of arms of one width.

    Each arm (r and size) counts once, however many runs it has.
    """
    arms = np.unique(np.stack([recurrences, total]), axis=1)
    columns = np.stack([np.ones_like(arms[0]), 1.0 / arms[0]], axis=1)
    intercept, slope = np.linalg.lstsq(columns, arms[1], rcond=None)[0]
    return float(intercept), slope / recurrences


def why_not_regressed(frame: pd.DataFrame) -> str | None:
    """What keeps `regressed` from being used on these runs, in words."""
    if "width" not in frame or frame["width"].isna().any():
        return "it needs the column width in every run"
    arms = frame.groupby("width")["recurrences"].nunique()
    lonely = arms[arms < 2]
    if len(lonely):
        return (
            f"it needs at least two values of r at every width; width {lonely.index[0]:g} has one"
        )
    return None

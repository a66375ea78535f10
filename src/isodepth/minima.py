"""Iso-FLOP curves read without any law: a parabola of loss against log N in every group.

Method: "approach 2" of Hoffmann et al. (arXiv 2203.15556), one group per (recipe, r, budget). The
parabola is a local picture: off its centre the optimum it gives is biased by several percent, so a
minimum near the edge of the widths tried carries a warning.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from isodepth.errors import InputError
from isodepth.laws import Array
from isodepth.runs import Runs
from isodepth.runs.groups import budgets_of, graph_of
from isodepth.warned import Warned, to_json

_LEAST_RUNS = 3
_CENTRAL = 0.25  # a minimum within this share of the range from either end is off centre


@dataclass(frozen=True, kw_only=True)
class Group:
    """One iso-FLOP curve. n_min and loss_min are None where the curve has no minimum to report."""

    recipe: str
    recurrences: int
    graph_recurrences: int  # r of the graph: of untied runs, whose recurrences are 1, their passes
    budget_flops: float  # FLOPs
    n_runs: int
    n_min: float | None  # unique non-embedding parameters at the minimum
    n_min_ci95: tuple[float, float] | None
    loss_min: float | None  # nats per token
    loss_min_ci95: tuple[float, float] | None
    tokens_min: float | None  # tokens at the minimum, interpolated between the runs
    bracketed: bool  # the minimum lies between the smallest and the largest run
    concave: bool  # the parabola opens downward: its extremum is a maximum
    warning: Warned | None  # what keeps the minimum from being reported or trusted

    @property
    def arm(self) -> str:
        """Its r, in words."""
        tied = self.graph_recurrences == self.recurrences
        return f"r = {self.recurrences}" if tied else f"r = {self.graph_recurrences} untied"


@dataclass(frozen=True, kw_only=True)
class Isoflop:
    """Every group of a table."""

    groups: tuple[Group, ...]
    noise: float | None  # pooled residual standard deviation about the parabolas, nats
    freedom: int  # degrees of freedom behind `noise`

    def to_dict(self) -> dict[str, object]:
        """What `isoflop --json` prints."""
        return {
            "groups": [
                asdict(g) | {"warning": None if g.warning is None else g.warning.text}
                for g in self.groups
            ],
            "noise": self.noise,
            "degrees_of_freedom": self.freedom,
            **to_json(self.warnings),
        }

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """Every group's, with its name."""
        return tuple(
            g.warning.about(f"{g.recipe}, {g.arm}, {g.budget_flops:.3g} FLOPs")
            for g in self.groups
            if g.warning
        )


def isoflop(runs: Runs) -> Isoflop:
    """Parabola minima of every (recipe, r, graph, budget) group, in the order of the table.

    Intervals are 95% by the delta method with the noise pooled over all groups; where no group
    has more than three runs there is no noise to read and they are None.
    Raises InputError where the runs carry no budget.
    """
    frame = runs.used.reset_index(drop=True)
    budgets = budgets_of(frame)
    if budgets is None:
        raise InputError(
            f"{runs.source}: iso-FLOP groups need the column budget_flops, or flops_per_token "
            "from which to form them"
        )
    frame = frame.assign(
        _budget=budgets,
        _size=frame["n_once"] + frame["n_rec"] + frame["n_inject"],
        _graph=graph_of(frame),
    )
    tables: list[tuple[tuple[object, object, object, float], pd.DataFrame]] = [
        (key, rows.sort_values("_size"))  # type: ignore[misc]  # stubs lose the key's parts
        for key, rows in frame.groupby(["recipe", "recurrences", "_graph", "_budget"], sort=False)
    ]
    curves = [_parabola(rows) for _, rows in tables]
    squares = sum(c.residual_squares for c in curves if c)
    freedom = sum(c.freedom for c in curves if c)
    noise = float(np.sqrt(squares / freedom)) if freedom else None
    groups = tuple(
        _group(rows, float(key[3]), curve, noise, freedom)
        for (key, rows), curve in zip(tables, curves, strict=True)
    )
    return Isoflop(groups=groups, noise=noise, freedom=freedom)


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """loss = c₀ + c₁x + c₂x², x = log N − centre."""

    coefficients: Array  # (3,)
    covariance: Array  # (3, 3) in units of the noise variance
    centre: float
    residual_squares: float
    freedom: int


def _parabola(rows: pd.DataFrame) -> _Curve | None:
    x = np.log(rows["_size"].to_numpy(dtype=float))
    if np.unique(np.round(x, 9)).size < _LEAST_RUNS:
        return None
    y = rows["loss"].to_numpy(dtype=float)
    centre = float(x.mean())
    columns = np.vander(x - centre, 3, increasing=True)
    coefficients = np.linalg.lstsq(columns, y, rcond=None)[0]
    left = y - columns @ coefficients
    return _Curve(
        coefficients=coefficients,
        covariance=np.linalg.inv(columns.T @ columns),
        centre=centre,
        residual_squares=float(left @ left),
        freedom=len(x) - 3,
    )


def _group(
    rows: pd.DataFrame, budget: float, curve: _Curve | None, noise: float | None, freedom: int
) -> Group:
    log_n = np.log(rows["_size"].to_numpy(dtype=float))
    group = Group(
        recipe=str(rows["recipe"].iloc[0]),
        recurrences=int(rows["recurrences"].iloc[0]),
        graph_recurrences=int(rows["_graph"].iloc[0]),
        budget_flops=budget,
        n_runs=len(rows),
        n_min=None,
        n_min_ci95=None,
        loss_min=None,
        loss_min_ci95=None,
        tokens_min=None,
        bracketed=False,
        concave=False,
        warning=None,
    )
    if curve is None:
        few = Warned("few_sizes", f"a parabola needs {_LEAST_RUNS} sizes; this group has fewer")
        return replace(group, warning=few)
    c0, c1, c2 = (float(c) for c in curve.coefficients)
    if c2 <= 0:
        down = Warned("concave", "the curve opens downward, so it has no minimum")
        return replace(group, concave=True, warning=down)
    at = -c1 / (2 * c2)
    log_min = at + curve.centre
    if not log_n[0] < log_min < log_n[-1]:
        side = "smaller" if log_min <= log_n[0] else "larger"
        outside = f"the minimum is not bracketed: try {side} models at this budget"
        return replace(group, warning=Warned("not_bracketed", outside))
    loss_min = c0 - c1**2 / (4 * c2)
    n_ci = loss_ci = None
    if noise is not None:
        t = float(special.stdtrit(freedom, 0.975)) * noise
        d_at = np.array([0.0, -1 / (2 * c2), c1 / (2 * c2**2)])
        d_loss = np.array([1.0, at, at**2])
        half = t * float(np.sqrt(d_at @ curve.covariance @ d_at))
        half_loss = t * float(np.sqrt(d_loss @ curve.covariance @ d_loss))
        n_ci = (float(np.exp(log_min - half)), float(np.exp(log_min + half)))
        loss_ci = (loss_min - half_loss, loss_min + half_loss)
    where = (log_min - log_n[0]) / (log_n[-1] - log_n[0])
    edge = Warned("off_centre", "near the edge of the sizes tried: biased")
    log_d = np.log(rows["tokens"].to_numpy(dtype=float))
    return replace(
        group,
        n_min=float(np.exp(log_min)),
        n_min_ci95=n_ci,
        loss_min=loss_min,
        loss_min_ci95=loss_ci,
        tokens_min=float(np.exp(np.interp(log_min, log_n, log_d))),
        bracketed=True,
        warning=edge if not _CENTRAL <= where <= 1 - _CENTRAL else None,
    )

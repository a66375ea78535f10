"""A baseline's runs as surfaces that carry a recipe's: what is its loss at equal r?

At every r that both recipes were run at, the baseline's runs give a smooth surface of log loss
over (log N_eff, log D) (`fitting/surface.py`). A form of the difference (`comparing/forms.py`)
moves a recipe's run on it: other effective parameters, other tokens, a loss added. No unlooped run
of either recipe is needed, and no law but for the N_eff of the baseline, N_once + r^φ·N_rec, in
which a change of φ is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from isodepth.fitting.errors import Cells, Errors
from isodepth.fitting.problem import Problem
from isodepth.fitting.surface import Patchwork, Surface, surface_of
from isodepth.laws import Array, Bools, Integers

_STEPS = 80
_DONE = 1e-9  # largest step of any term that no longer matters
_REACH = 0.5  # how far outside the baseline's hull a run may lie, as a share of its extent
_TIED = 1e-4  # smallest over largest singular value below which terms can't be told apart

# What a form may change, and the unit of its parameter:
#   phi           change of φ
#   tokens        log of κ, what a token counts
#   tokens_size   change of log κ for e times the parameters
#   parameters    log of a factor on the effective parameters
#   offset        nats per token
#   offset_over_r nats per token at r = 1, falling as 1/r
#   offset_log_r  nats per token for e times the r


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """A recipe's runs beside the baseline's surfaces, and the baseline's runs behind them."""

    phi: float | None  # the baseline's; None: not identified, so no change of φ can be told
    surfaces: dict[float, Surface]  # by r
    baseline: Problem
    recipe: Problem
    in_baseline: Integers  # rows of the baseline's problem behind the surfaces, r by r
    in_recipe: Integers  # rows of the recipe's problem that are carried

    @property
    def levels(self) -> list[float]:
        return sorted(self.surfaces)

    @cached_property
    def r(self) -> Array:
        return self.recipe.frame["recurrences"].to_numpy(dtype=float)[self.in_recipe]

    @cached_property
    def log_tokens(self) -> Array:
        return self.recipe.design.log_tokens[self.in_recipe]

    @cached_property
    def log_loss(self) -> Array:
        return self.recipe.log_loss[self.in_recipe]

    @cached_property
    def once(self) -> Array:
        return self.recipe.design.n_once[self.in_recipe]

    @cached_property
    def rec(self) -> Array:
        return self.recipe.design.n_rec[self.in_recipe]

    @cached_property
    def log_size(self) -> Array:
        """log of the unique parameters."""
        return np.log(self.once + self.rec)

    @property
    def frame(self) -> pd.DataFrame:
        return self.recipe.frame.iloc[self.in_recipe]

    @cached_property
    def budgets(self) -> Array | None:
        return None if self.recipe.budgets is None else self.recipe.budgets[self.in_recipe]

    def drawn(self, terms: tuple[str, ...], theta: Array) -> Array:
        """Log loss (n,) of the recipe's runs with terms at theta (p,)."""
        return self._model(terms, theta)[0]

    @cached_property
    def _patchwork(self) -> Patchwork:
        """The surface of each of the recipe's runs."""
        which = np.searchsorted(self.levels, self.r)
        return Patchwork.of([self.surfaces[level] for level in self.levels], which)

    def at(self, r: Array, once: Array, rec: Array, log_tokens: Array) -> Array:
        """The baseline's log loss (n,) at counts and tokens of one's own."""
        out = np.full(r.size, np.nan)
        for level, surface in self.surfaces.items():
            rows = r == level
            size = effective(once[rows], rec[rows], level, self.phi or 0.0)
            out[rows] = surface.log_loss(size, log_tokens[rows])
        return out

    def surface_columns(self, log_tokens: Array) -> Array:
        """(n, k): the surfaces' columns at the recipe's sizes and at tokens of one's own."""
        return self._columns_at(self._moved({})[0], log_tokens)

    @property
    def behind_influence(self) -> Array:
        """(k, m) of the baseline's log losses on the surfaces' coefficients."""
        return self._behind[1]

    def solve(
        self, terms: tuple[str, ...], kept: Bools | None = None, start: Array | None = None
    ) -> Array | None:
        """θ (p,) by least squares over the recipe's runs; None where the terms can't be told apart.

        kept: (n,) bool, the runs that are fitted; None: all. start: (p,), else no difference.
        """
        rows = np.ones(self.r.size, dtype=bool) if kept is None else kept
        theta = np.zeros(len(terms)) if start is None else start
        drawn, jacobian = self._model(terms, theta)
        if not terms:
            return theta
        sizes = np.sqrt((jacobian[rows] ** 2).sum(axis=0))
        if not (sizes > 0).all() or rows.sum() <= len(terms):
            return None
        values = np.linalg.svd(jacobian[rows] / sizes, compute_uv=False)
        if values[-1] < _TIED * values[0]:
            return None
        residual, damping = (self.log_loss - drawn)[rows], 0.0  # Gauss and Newton's, while it helps
        for _ in range(_STEPS):
            own = jacobian[rows]
            gram = own.T @ own
            step = np.linalg.solve(gram + damping * np.diag(np.diag(gram)), own.T @ residual)
            if np.abs(step).max() < _DONE:
                break
            step = np.clip(step, -0.5, 0.5)
            trial = self._model(terms, theta + step)
            left = (self.log_loss - trial[0])[rows]
            if left @ left <= residual @ residual:
                theta, residual, jacobian = theta + step, left, trial[1]
                damping *= 0.3
            else:
                damping = max(8 * damping, 1e-3)
                if damping > 1e9:
                    break
        return theta

    def solved(
        self, terms: tuple[str, ...], added: tuple[str, ...] = (), go_along: bool | None = None
    ) -> Carried | None:
        """The fit of `terms`, with what `added` terms would be, to first order, beside them.

        go_along: as in `Errors`.
        """
        theta = self.solve(terms)
        if theta is None:
            return None
        theta = np.append(theta, np.zeros(len(added)))
        drawn, jacobian = self._model((*terms, *added), theta)
        by_surface = self._by_surface((*terms, *added), theta)
        residual = self.log_loss - drawn
        inverse = np.linalg.pinv(jacobian) if theta.size else np.zeros((0, residual.size))
        if added:
            step = inverse @ residual
            theta, residual = theta + step, residual - jacobian @ step
        behind = len(self.in_baseline)
        columns = np.zeros((behind + residual.size, by_surface.shape[1] + theta.size))
        columns[:behind, : by_surface.shape[1]] = self._behind[0]
        columns[behind:, : by_surface.shape[1]] = by_surface
        columns[behind:, by_surface.shape[1] :] = jacobian
        return Carried(
            theta=theta,
            residual=residual,
            influence=np.hstack([-inverse @ by_surface @ self._behind[1], inverse]),
            errors=Errors(
                cells=self._cells,
                columns=columns,
                residual=np.concatenate([self._behind[2], residual]),
                go_along=go_along,
            ),
        )

    @cached_property
    def _behind(self) -> tuple[Array, Array, Array]:
        """The surfaces' columns (m, k), the influence (k, m) of their runs, and residuals (m,)."""
        surfaces = [self.surfaces[level] for level in self.levels]
        m, k = len(self.in_baseline), sum(s.coefficients.size for s in surfaces)
        columns, influence = np.zeros((m, k)), np.zeros((k, m))
        row = at = 0
        for s in surfaces:
            rows, cols = slice(row, row + len(s.residual)), slice(at, at + s.coefficients.size)
            columns[rows, cols], influence[cols, rows] = s.design, s.influence
            row, at = rows.stop, cols.stop
        return columns, influence, np.concatenate([s.residual for s in surfaces])

    @cached_property
    def _cells(self) -> Cells:
        frames = [self.baseline.frame.iloc[self.in_baseline], self.frame]
        known = self.baseline.budgets is not None and self.budgets is not None
        budgets = None
        if known:
            assert self.baseline.budgets is not None and self.budgets is not None
            budgets = np.concatenate([self.baseline.budgets[self.in_baseline], self.budgets])
        return Cells.of(pd.concat(frames), budgets)

    def _moved(self, value: dict[str, float]) -> tuple[Array, Array, Array]:
        """log N_eff, log D and the nats added (each (n,)) with terms at their values."""
        log_d = self.log_tokens + value.get("tokens", 0.0)
        log_d = log_d + value.get("tokens_size", 0.0) * self._centred
        offset = (
            value.get("offset", 0.0)
            + value.get("offset_over_r", 0.0) / self.r
            + value.get("offset_log_r", 0.0) * self._log_r
        )
        log_m = ((self.phi or 0.0) + value.get("phi", 0.0)) * self._log_r
        for level in self.levels:
            if worth_at(level) in value:
                log_m = log_m + value[worth_at(level)] * (self.r == level)
        size = np.log(self.once + np.exp(log_m) * self.rec)
        return size + value.get("parameters", 0.0), log_d, offset

    @cached_property
    def _centred(self) -> Array:
        return self.log_size - self.log_size.mean()

    @cached_property
    def _log_r(self) -> Array:
        return np.log(self.r)

    def _model(self, terms: tuple[str, ...], theta: Array) -> tuple[Array, Array]:
        """Log loss (n,) and its derivatives in theta (n, p)."""
        value = dict(zip(terms, theta, strict=True))
        size, log_d, offset = self._moved(value)
        share = 1 - self.once / np.exp(size - value.get("parameters", 0.0))
        drawn, by_size, by_tokens = self._patchwork.evaluate(size, log_d)
        loss = np.maximum(np.exp(drawn) + offset, 1e-6)
        kept = np.exp(drawn) / loss
        columns = []
        for term in terms:
            if term == "phi":
                columns.append(kept * by_size * share * self._log_r)
            elif term == "tokens":
                columns.append(kept * by_tokens)
            elif term == "tokens_size":
                columns.append(kept * by_tokens * self._centred)
            elif term == "parameters":
                columns.append(kept * by_size)
            elif term == "offset":
                columns.append(1.0 / loss)
            elif term == "offset_over_r":
                columns.append(1.0 / (self.r * loss))
            elif term == "offset_log_r":
                columns.append(self._log_r / loss)
            else:
                at = next(level for level in self.levels if worth_at(level) == term)
                columns.append(kept * by_size * share * (self.r == at))
        jacobian = np.stack(columns, axis=1) if terms else np.zeros((self.r.size, 0))
        return np.log(loss), jacobian

    def _by_surface(self, terms: tuple[str, ...], theta: Array) -> Array:
        """(n, k): how the log loss moves with the surfaces' coefficients."""
        size, log_d, offset = self._moved(dict(zip(terms, theta, strict=True)))
        drawn = np.exp(self._patchwork.evaluate(size, log_d)[0])
        kept = drawn / np.maximum(drawn + offset, 1e-6)
        return kept[:, None] * self._columns_at(size, log_d)

    def _columns_at(self, size: Array, log_tokens: Array) -> Array:
        """(n, k): the surfaces' columns at sizes and tokens (n,), each run on its own surface."""
        widths = [self.surfaces[level].coefficients.size for level in self.levels]
        out = np.zeros((self.r.size, sum(widths)))
        at = 0
        for level, k in zip(self.levels, widths, strict=True):
            rows = self.r == level
            out[rows, at : at + k] = self.surfaces[level].columns(size[rows], log_tokens[rows])
            at += k
        return out


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A form fitted to the recipe's runs."""

    theta: Array  # (p,)
    residual: Array  # (n,) log loss less the form's
    influence: Array  # (p, baseline + recipe) of the runs' log losses
    errors: Errors


def worth_at(level: float) -> str:
    """The term of Δ log m at one r."""
    return f"log_m{level:g}"


def effective(once: Array, rec: Array, r: float, phi: float) -> Array:
    """log N_eff (n,)."""
    return np.asarray(np.log(once + r**phi * rec))


def carrier_of(
    baseline: Problem, recipe: Problem, own: Iterable[int], phi: float | None
) -> tuple[Carrier | None, list[str]]:
    """The carrier of a recipe's own runs (rows of its problem); or None. And what was left out."""
    said = []
    surfaces: dict[float, Surface] = {}
    behind: list[Integers] = []
    r_base = baseline.frame["recurrences"].to_numpy(dtype=float)
    rows = np.array(sorted(own), dtype=np.int64)
    r_own = recipe.frame["recurrences"].to_numpy(dtype=float)[rows]
    for level in np.unique(r_own):
        at = np.flatnonzero(r_base == level)
        surface = None
        if at.size:
            design = baseline.design
            surface = surface_of(
                effective(design.n_once[at], design.n_rec[at], float(level), phi or 0.0),
                design.log_tokens[at],
                baseline.log_loss[at],
            )
        if surface is None:
            said.append(
                f"{int((r_own == level).sum())} runs at r = {level:g} are not compared at equal r: "
                f"the baseline's {at.size} runs there give no surface"
            )
            continue
        surfaces[float(level)] = surface
        behind.append(at.astype(np.int64))
    if not surfaces:
        return None, said
    design = recipe.design
    kept = []
    far = 0
    for row, r in zip(rows, r_own, strict=True):
        if r not in surfaces:
            continue
        size = effective(design.n_once[[row]], design.n_rec[[row]], float(r), phi or 0.0)
        if surfaces[r].distance(size, design.log_tokens[[row]])[0] > _REACH:
            far += 1
        else:
            kept.append(row)
    if far:
        said.append(
            f"{far} runs lie too far from the baseline's in size and tokens to be compared at "
            "equal r"
        )
    if not kept:
        return None, said
    return (
        Carrier(
            phi=phi,
            surfaces=surfaces,
            baseline=baseline,
            recipe=recipe,
            in_baseline=np.concatenate(behind),
            in_recipe=np.array(kept, dtype=np.int64),
        ),
        said,
    )

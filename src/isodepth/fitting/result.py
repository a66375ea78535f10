"""What a fit returns: numbers with intervals and conventions, and how to predict with them."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isodepth.errors import InputError, reason
from isodepth.files import read_whole, write_whole
from isodepth.fitting.problem import Conventions
from isodepth.fitting.seen import FARTHEST, Seen, check_tokens, size_of
from isodepth.fitting.uncertainty import Resamples
from isodepth.laws import (
    MULTIPLICITIES,
    ArmsDiffer,
    Array,
    Design,
    Law,
    LawName,
    MultiplicityName,
    law_of,
)
from isodepth.warned import Warned, from_json, to_json

FORMAT = 1
_LATER = {"drift", "errors_along_r", "law_free"}  # fits saved before these were there have none
_SAME_ARMS = {"arms_differ": "none", "tokens_ratio": None, "loss_offset": None, "p_value": None}
Interval = tuple[float, float]


class Extrapolated(UserWarning):
    """A prediction beyond the runs that it was made from."""


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """The law at the optimum and at every resample: all that prediction needs."""

    law: LawName
    multiplicity: MultiplicityName
    arms_differ: ArmsDiffer  # beside m(r); none where the runs can't tell it
    levels: tuple[float, ...]  # the values of r that were fitted
    theta_names: tuple[str, ...]
    theta: Array  # (p,)
    log_n0: float  # log of the reference size, parameters
    log_d0: float  # log of the reference token count
    resamples: Resamples | None

    @property
    def form(self) -> Law:
        """The law itself."""
        return law_of(self.law, self.arms_differ)

    @property
    def loops(self) -> bool:
        """Whether the fit holds a multiplicity (runs with r > 1)."""
        return len(self.theta_names) > len(self.form.shape)

    @property
    def twin_takes_tokens(self) -> bool:
        """Whether a looped model's unlooped size of equal loss depends on the tokens of both.

        The additive law's loss is a sum, so that a constant δ is made up for by size alone.
        """
        return self.arms_differ == "tokens" or (
            self.arms_differ == "loss" and self.law != "additive"
        )

    def columns(self, recurrences: Array) -> Array:
        """z (q, n) for new runs. Raises InputError for an r that a free fit has not seen."""
        if not self.loops:
            if (recurrences != 1).any():
                raise InputError("the fit has runs of one r only, so it can't speak of another")
            return np.empty((0, recurrences.size))
        if self.multiplicity == "power":
            return MULTIPLICITIES["power"].columns(np.append(recurrences, 2.0))[:, :-1]
        looped = [r for r in self.levels if r > 1]
        unseen = sorted(set(recurrences.tolist()) - set(looped) - {1.0})
        if unseen:
            raise InputError(
                f"the fit has a multiplicity of its own for every r and none for r = {unseen[0]:g}"
            )
        return np.array([recurrences == r for r in looped], dtype=float)

    def log_twin(self, n_once: Array, n_rec: Array, r: Array, tokens: Array, theta: Array) -> Array:
        """log of the unlooped sizes (K, n) of equal loss at equal tokens; inf: none has it.

        That is log N_eff where looped arms differ by nothing beside m(r). `twin_takes_tokens` says
        whether it depends on the tokens.
        """
        design = self.design(n_once, n_rec, r, tokens)
        return np.broadcast_to(self.form.log_twin(theta, design), (len(theta), r.size))

    def log_loss(self, n_once: Array, n_rec: Array, r: Array, tokens: Array, theta: Array) -> Array:
        """log loss (K, n) at theta (K, p)."""
        return self.form.log_loss(theta, self.design(n_once, n_rec, r, tokens))

    def design(self, n_once: Array, n_rec: Array, r: Array, tokens: Array) -> Design:
        """What the law sees of models of such counts, r and tokens, each (n,)."""
        return Design(
            n_once=n_once,
            n_rec=n_rec,
            z=self.columns(r),
            log_tokens=np.log(tokens),
            looped=(r > 1).astype(float),
            log_n0=self.log_n0,
            log_d0=self.log_d0,
        )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One law fitted to one recipe. Numbers that the runs can't support are None; see warnings."""

    recipe: str
    source: str
    checksum: str  # SHA-256 of the run table
    version: str  # of isodepth
    n_runs: int  # runs fitted
    n_excluded: int  # runs of the recipe that are kept but not fitted (diverged, unfinished)
    borrowed_unlooped_from: str | None  # recipe whose r = 1 runs were used
    conventions: Conventions
    weighting: str
    seed: int
    # E [nats], A, alpha, B, beta, phi (or m<r>)[, gamma][, tokens_ratio or loss_offset [nats]]
    params: dict[str, float | None]
    ci95: dict[str, Interval | None]
    interval_method: str
    n_resamples: int
    profile_phi: dict[str, Any] | None  # the profile's 95% interval and its curve
    r2: float | None  # of the loss; None: as many parameters as runs, so that it says nothing
    rmse: float  # nats
    objective: float  # summed over runs
    gradient_norm: float
    converged: bool
    n_starts: int
    n_starts_agreeing: int
    lack_of_fit: dict[str, object]
    sensitivity: list[dict[str, Any]]
    extrapolation: dict[str, object] | None
    drift: dict[str, Any] | None  # φ against the budget, where it was asked for
    errors_along_r: dict[str, Any] | None  # do residuals go on along r, and φ's intervals by both
    law_free: dict[str, Any] | None  # what a pass is worth without a law; None: see warnings
    seen: Seen | None  # how far the runs reach; None: saved before it was there
    warnings: tuple[Warned, ...]
    notes: list[str]
    fitted: FittedLaw

    @property
    def phi(self) -> float | None:
        """The recurrence-equivalence exponent, None where the runs can't tell it."""
        return self.params.get("phi")

    def interval(self, name: str) -> Interval | None:
        """95% interval of a parameter. Raises InputError for an unknown name."""
        if name not in self.ci95:
            raise InputError(f"the fit has no parameter {name!r}; it has {', '.join(self.ci95)}")
        return self.ci95[name]

    def predict(
        self,
        *,
        n_once: ArrayLike,
        n_rec: ArrayLike,
        recurrences: ArrayLike,
        tokens: ArrayLike,
        n_inject: ArrayLike = 0.0,
    ) -> Array:
        """Loss in nats per token, shape (n,).

        n_once, n_rec, n_inject: parameters, entering as the fit's counting convention says (under
        `regressed`, n_once and n_rec must be regressed counts and n_inject 0). tokens: tokens.
        What lies beyond the fit's runs is said by a Python warning, `Extrapolated`.
        Raises InputError for values that aren't positive, no model's, or an r that a free fit has
        not seen.
        """
        for one in self.beyond(
            n_once=n_once, n_rec=n_rec, recurrences=recurrences, tokens=tokens, n_inject=n_inject
        ):
            warnings.warn(one.text, Extrapolated, stacklevel=2)
        return self.drawn(
            n_once=n_once, n_rec=n_rec, recurrences=recurrences, tokens=tokens, n_inject=n_inject
        )

    def drawn(
        self,
        *,
        n_once: ArrayLike,
        n_rec: ArrayLike,
        recurrences: ArrayLike,
        tokens: ArrayLike,
        n_inject: ArrayLike = 0.0,
    ) -> Array:
        """`predict` for curves that are known to leave the runs: nothing is said of it."""
        return np.exp(self._log_loss(n_once, n_rec, recurrences, tokens, n_inject, self._best))[0]

    def beyond(
        self,
        *,
        n_once: ArrayLike,
        n_rec: ArrayLike,
        recurrences: ArrayLike,
        tokens: ArrayLike | None = None,
        n_inject: ArrayLike = 0.0,
    ) -> tuple[Warned, ...]:
        """What of these models lies beyond the fit's runs, and by how much."""
        given = (n_once, n_rec, recurrences, 1.0 if tokens is None else tokens, n_inject)
        once, rec, r, d, _ = self._counted(*given)
        if self.seen is None:
            return ()
        return self.seen.said(size_of(once, rec, r), r, None if tokens is None else d)

    def predict_interval(
        self,
        *,
        n_once: ArrayLike,
        n_rec: ArrayLike,
        recurrences: ArrayLike,
        tokens: ArrayLike,
        n_inject: ArrayLike = 0.0,
    ) -> Array:
        """95% interval (2, n) of the law's mean loss in nats per token, from the fit's resamples.

        It covers the uncertainty of the law's parameters, not one run's noise; of an error of the
        law's form, beyond the runs' sizes and tokens, as much as the law missed the highest budget
        by when it was held out, growing with the logarithm of the distance.
        Raises InputError as `predict`, for a fit without resamples, and where nothing tells how far
        the law errs beyond its runs: fewer than three budgets, or a thousand times beyond.
        """
        resamples = self.fitted.resamples
        if resamples is None:
            raise InputError("the fit holds no resamples; fit again with --bootstrap")
        value = self._log_loss(n_once, n_rec, recurrences, tokens, n_inject, self._best)[0]
        draws = self._log_loss(n_once, n_rec, recurrences, tokens, n_inject, resamples.theta)
        bounds = np.array([resamples.interval(v, d) for v, d in zip(value, draws.T, strict=True)])
        half = np.hypot(
            (bounds[:, 1] - bounds[:, 0]) / 2.0,
            self._miss(value.size, n_once, n_rec, recurrences, tokens, n_inject),
        )
        return np.exp(np.array([value - half, value + half]))

    def _miss(self, n: int, *given: ArrayLike) -> Array:
        """What the law may miss log losses (n,) by beyond the runs, two standard errors."""
        if self.seen is None:
            return np.zeros(n)
        once, rec, r, tokens, _ = self._counted(*given)
        decades = self.seen.decades(size_of(once, rec, r), tokens)
        if not decades.any():
            return np.zeros(n)
        if self.seen.miss is None or decades.max() > FARTHEST:
            why = (
                "runs of fewer than three budgets don't show how far the law errs beyond them"
                if self.seen.miss is None
                else f"10^{decades.max():.1f} times beyond the runs no law is to be trusted"
            )
            raise InputError(f"no interval: {why}")
        return 2.0 * self.seen.miss * decades

    @property
    def _best(self) -> Array:
        return self.fitted.theta[None]

    def _log_loss(
        self,
        n_once: ArrayLike,
        n_rec: ArrayLike,
        recurrences: ArrayLike,
        tokens: ArrayLike,
        n_inject: ArrayLike,
        theta: Array,
    ) -> Array:
        once, rec, r, d, _ = self._counted(n_once, n_rec, recurrences, tokens, n_inject)
        return self.fitted.log_loss(once, rec, r, d, theta)

    def _counted(self, *given: ArrayLike) -> tuple[Array, Array, Array, Array, Array]:
        """n_once and n_rec as the fit counts, r, tokens and n_inject, each (n,)."""
        once, rec, r, d, inject = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(x, dtype=float)) for x in given)
        )
        once, rec = self.count(once, rec, inject)
        if not ((once + rec > 0).all() and (d > 0).all() and (r >= 1).all()):
            raise InputError("parameters and tokens must be positive and recurrences at least 1")
        size_of(once, rec, r)
        check_tokens(d)
        return once, rec, r, d, inject

    def count(self, n_once: Array, n_rec: Array, n_inject: Array) -> tuple[Array, Array]:
        """N_once and N_rec with the injection where the fit's convention puts it."""
        where = self.conventions.count_injection
        if where == "regressed" and (n_inject != 0).any():
            raise InputError(
                "the fit counts by regression over arms: give n_once and n_rec so counted, "
                "without n_inject"
            )
        return (
            n_once + n_inject if where == "once" else n_once,
            n_rec + n_inject if where == "rec" else n_rec,
        )

    def to_dict(self) -> dict[str, object]:
        """The contract of `fit --json`, with the resamples that intervals are made from."""
        known = asdict(self)
        for name in ("conventions", "params", "ci95", "fitted", "interval_method", "warnings"):
            del known[name]
        resamples = self.fitted.resamples
        return {
            "format": FORMAT,
            **known,
            **to_json(self.warnings),
            **asdict(self.conventions),
            "formula": self.fitted.form.formula,
            "params": self.params,
            "ci95": self.ci95,
            "phi": {
                "value": self.phi,
                "ci95": self.ci95.get("phi"),
                "method": self.interval_method,
                "n_resamples": self.n_resamples,
            },
            "fitted": {
                "arms_differ": self.fitted.arms_differ,
                "levels": self.fitted.levels,
                "theta_names": self.fitted.theta_names,
                "theta": self.fitted.theta.tolist(),
                "log_n0": self.fitted.log_n0,
                "log_d0": self.fitted.log_d0,
                "resamples": None
                if resamples is None
                else {
                    "unit": resamples.unit,
                    "n_units": resamples.n_units,
                    "theta": [[float(f"{x:.9g}") for x in row] for row in resamples.theta],
                },
            },
        }

    def to_json(self) -> str:
        """JSON text; `Fit.from_json` reads it back."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def save(self, path: str | Path) -> None:
        """Write the JSON text. Raises InputError where the path can't be written."""
        try:
            write_whole(Path(path), self.to_json() + "\n")
        except OSError as error:
            raise InputError(f"{path} can't be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> Fit:
        """Read what `save` or `fit --json` wrote. Raises InputError for anything else."""
        try:
            text = read_whole(Path(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} can't be read as a fit: {reason(error)}") from error
        return cls.from_json(text, name=str(path))

    @classmethod
    def from_json(cls, text: str, *, name: str = "fit") -> Fit:
        """Raises InputError for text that `to_json` did not write."""
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise InputError(f"{name}: format {data['format']!r} is not {FORMAT}")
            fit = cls._from(data)
            fit.report()  # one that holds something else somewhere can't be shown
            return fit
        except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name} is not a fit written by `isodepth fit --json`") from error

    @classmethod
    def _from(cls, data: dict[str, Any]) -> Fit:
        # fits saved before arms could differ name nothing that they differ by
        data["sensitivity"] = [_SAME_ARMS | row for row in data["sensitivity"]]
        given = {k: data[k] for k in Conventions.__dataclass_fields__ if k != "arms_differ"}
        conventions = Conventions(**given, arms_differ=data.get("arms_differ", "none"))
        saved: dict[str, Any] = data["fitted"]
        drawn: dict[str, Any] | None = saved["resamples"]
        fitted = FittedLaw(
            law=conventions.law,
            multiplicity=conventions.multiplicity,
            arms_differ=saved.get("arms_differ", "none"),
            levels=tuple(saved["levels"]),
            theta_names=tuple(saved["theta_names"]),
            theta=np.array(saved["theta"], dtype=float),
            log_n0=float(saved["log_n0"]),
            log_d0=float(saved["log_d0"]),
            resamples=None
            if drawn is None
            else Resamples(
                theta=np.array(drawn["theta"], dtype=float),
                unit=drawn["unit"],
                n_units=float(drawn["n_units"]),
            ),
        )
        ci95 = {k: None if v is None else tuple(v) for k, v in data["ci95"].items()}
        phi: dict[str, Any] = data["phi"]
        made = {"conventions", "ci95", "fitted", "interval_method", "warnings"}
        plain = set(cls.__dataclass_fields__) - made
        later: dict[str, Any] = {name: data.get(name) for name in _LATER}
        return cls(
            **{name: data[name] for name in plain - _LATER - {"seen"}},
            **later,
            seen=_seen(data.get("seen")),
            conventions=conventions,
            ci95=ci95,
            interval_method=phi["method"],
            fitted=fitted,
            warnings=from_json(data),
        )

    def report(self) -> str:
        """The report that `isodepth fit` prints, as plain text."""
        from isodepth.report.tables import fit_report, to_text

        return to_text(fit_report(self))


def _seen(saved: dict[str, Any] | None) -> Seen | None:
    if saved is None:
        return None
    ranges: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
    return Seen(**ranges)

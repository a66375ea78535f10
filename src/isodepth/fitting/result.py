"""What a fit returns: numbers with intervals and conventions, and how to predict with them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isodepth.errors import InputError, reason
from isodepth.files import read_whole, write_whole
from isodepth.fitting.problem import Conventions
from isodepth.fitting.uncertainty import Resamples
from isodepth.laws import LAWS, MULTIPLICITIES, Array, Design, LawName, MultiplicityName

FORMAT = 1
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FittedLaw:
    """The law at the optimum and at every resample: all that prediction needs."""

    law: LawName
    multiplicity: MultiplicityName
    levels: tuple[float, ...]  # the values of r that were fitted
    theta_names: tuple[str, ...]
    theta: Array  # (p,)
    log_n0: float  # log of the reference size, parameters
    log_d0: float  # log of the reference token count
    resamples: Resamples | None

    @property
    def loops(self) -> bool:
        """Whether the fit holds a multiplicity (runs with r > 1)."""
        return len(self.theta_names) > len(LAWS[self.law].shape)

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

    def log_effective(self, n_once: Array, n_rec: Array, r: Array, theta: Array) -> Array:
        """log N_eff (K, n) at theta (K, p)."""
        design = self._design(n_once, n_rec, r, np.ones_like(r))
        eta = theta[:, len(LAWS[self.law].shape) :]
        log_n, _ = design.effective(eta)
        return np.broadcast_to(log_n + self.log_n0, (len(theta), r.size))

    def log_loss(self, n_once: Array, n_rec: Array, r: Array, tokens: Array, theta: Array) -> Array:
        """log loss (K, n) at theta (K, p)."""
        design = self._design(n_once, n_rec, r, tokens)
        return LAWS[self.law].log_loss(theta, design)

    def _design(self, n_once: Array, n_rec: Array, r: Array, tokens: Array) -> Design:
        return Design(
            n_once=n_once,
            n_rec=n_rec,
            z=self.columns(r),
            log_tokens=np.log(tokens),
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
    params: dict[str, float | None]  # E [nats], A, alpha, B, beta, phi (or m<r>)[, gamma]
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
    warnings: list[str]
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
        Raises InputError for values that aren't positive or an r that a free fit has not seen.
        """
        return np.exp(self._log_loss(n_once, n_rec, recurrences, tokens, n_inject, self._best))[0]

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

        It covers the uncertainty of the law's parameters, not one run's noise nor an error of the
        law's form. Raises InputError as `predict`, and for a fit without resamples.
        """
        resamples = self.fitted.resamples
        if resamples is None:
            raise InputError("the fit holds no resamples; fit again with --bootstrap")
        value = self._log_loss(n_once, n_rec, recurrences, tokens, n_inject, self._best)[0]
        draws = self._log_loss(n_once, n_rec, recurrences, tokens, n_inject, resamples.theta)
        bounds = [resamples.interval(v, d) for v, d in zip(value, draws.T, strict=True)]
        return np.exp(np.array(bounds).T)

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
        once, rec, r, d, inject = np.broadcast_arrays(
            *(
                np.atleast_1d(np.asarray(x, dtype=float))
                for x in (n_once, n_rec, recurrences, tokens, n_inject)
            )
        )
        once, rec = self.count(once, rec, inject)
        if not ((once + rec > 0).all() and (d > 0).all() and (r >= 1).all()):
            raise InputError("parameters and tokens must be positive and recurrences at least 1")
        return self.fitted.log_loss(once, rec, r, d, theta)

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
        for name in ("conventions", "params", "ci95", "fitted", "interval_method"):
            del known[name]
        resamples = self.fitted.resamples
        return {
            "format": FORMAT,
            **known,
            **asdict(self.conventions),
            "formula": LAWS[self.conventions.law].formula,
            "params": self.params,
            "ci95": self.ci95,
            "phi": {
                "value": self.phi,
                "ci95": self.ci95.get("phi"),
                "method": self.interval_method,
                "n_resamples": self.n_resamples,
            },
            "fitted": {
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
            return cls._from(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name} is not a fit written by `isodepth fit --json`") from error

    @classmethod
    def _from(cls, data: dict[str, Any]) -> Fit:
        conventions = Conventions(**{k: data[k] for k in Conventions.__dataclass_fields__})
        saved: dict[str, Any] = data["fitted"]
        drawn: dict[str, Any] | None = saved["resamples"]
        fitted = FittedLaw(
            law=conventions.law,
            multiplicity=conventions.multiplicity,
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
        plain = set(cls.__dataclass_fields__) - {"conventions", "ci95", "fitted", "interval_method"}
        return cls(
            **{name: data[name] for name in plain - {"drift"}},
            drift=data.get("drift"),  # fits saved before it was there have none
            conventions=conventions,
            ci95=ci95,
            interval_method=phi["method"],
            fitted=fitted,
        )

    def report(self) -> str:
        """The report that `isodepth fit` prints, as plain text."""
        from isodepth.report.tables import fit_report, to_text

        return to_text(fit_report(self))

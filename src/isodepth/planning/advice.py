"""Equivalence: what size of unlooped model a looped one is worth, and what it costs like.

Both follow from the law (arXiv 2604.21106, section on equivalence): a looped model reaches the
loss of an unlooped one of N_eff = N_once + r^φ·N_rec parameters at the same tokens, and its
training costs as much per token as that of an unlooped model of its effective depth. Beside the
law's size stands the one without a law, N_once + m(r)·N_rec, at an r whose m was measured by
unlooped twins (`fitting/law_free.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isodepth.accounting import Account, Injection, account
from isodepth.counting import regress
from isodepth.errors import InputError
from isodepth.fitting.result import Fit, Interval
from isodepth.fitting.seen import FARTHEST, Seen, size_of
from isodepth.laws import Array
from isodepth.warned import Warned, to_json


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """An estimate and its 95% interval; value None: the fit can't tell it."""

    value: float | None
    ci95: Interval | None

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return {"value": self.value, "ci95": None if self.ci95 is None else [*self.ci95]}


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """What one looped model is worth."""

    recurrences: int
    unique_params: int  # non-embedding parameters that the looped model holds
    equivalent_params: Quantity  # unlooped size of equal loss at equal tokens
    equivalent_params_law_free: Quantity  # the same without a law
    same_cost_params: float  # unlooped size of equal training FLOPs per token
    flops_per_token: float  # training FLOPs per token of the looped model
    assumptions: tuple[str, ...]
    warnings: tuple[Warned, ...]

    def to_dict(self) -> dict[str, object]:
        """What `equivalent --json` prints; exact numbers as they are, estimated ones with ci95."""
        return {
            "recurrences": self.recurrences,
            "unique_params": self.unique_params,
            "equivalent_params": self.equivalent_params.to_dict(),
            "equivalent_params_law_free": self.equivalent_params_law_free.to_dict(),
            "same_cost_params": self.same_cost_params,
            "flops_per_token": self.flops_per_token,
            "assumptions": list(self.assumptions),
            **to_json(self.warnings),
        }


def equivalent_to_width(
    fit: Fit,
    *,
    width: int,
    recurrences: int,
    depth: int = 20,
    prelude: int = 2,
    coda: int = 2,
    injection: Injection = "linear",
    lanes: int = 2,
    backprop_last: int | None = None,
    vocab: int = 32064,
    sequence_length: int = 2048,
) -> Equivalence:
    """The equivalence of a model given by its shape; arguments as in `isodepth.account`.

    The unlooped model of the same cost has the same depth, vocabulary and sequence length; its
    width is solved for as a real number.
    Raises InputError for a shape that can't be built or an r that the fit can't speak of.
    """

    def arm(r: int) -> Account:
        return account(
            width=width,
            recurrences=r,
            depth=depth,
            prelude=prelude,
            coda=coda,
            injection=injection,
            lanes=lanes,
            backprop_last=min(backprop_last, r) if backprop_last else None,
            vocab=vocab,
            sequence_length=sequence_length,
        )

    if backprop_last is not None and not 1 <= backprop_last <= recurrences:
        raise InputError(
            f"backprop_last = {backprop_last} must lie between 1 and recurrences = {recurrences}"
        )
    own = arm(recurrences)
    if fit.conventions.count_injection == "regressed":
        levels = sorted({*(int(r) for r in fit.fitted.levels), recurrences})
        total = np.array([arm(r).n_total for r in levels], dtype=float)
        once_value, rec_all = regress(np.array(levels, dtype=float), total)
        once, rec = np.array([once_value]), rec_all[[levels.index(recurrences)]]
    else:
        once, rec = fit.count(
            np.array([float(own.n_once)]),
            np.array([float(own.n_rec)]),
            np.array([float(own.n_inject)]),
        )
    same_cost = _unlooped_of_cost(
        own.flops_per_token, depth=depth, vocab=vocab, sequence_length=sequence_length
    )
    return _equivalence(
        fit,
        once,
        rec,
        recurrences,
        unique=own.n_total,
        same_cost=same_cost,
        flops=float(own.flops_per_token),
        assumptions=(
            f"unlooped models of depth {depth}, vocabulary {vocab}, sequences of "
            f"{sequence_length} tokens; attention not halved for causality",
        ),
    )


def equivalent_to_counts(
    fit: Fit, *, n_once: int, n_rec: int, recurrences: int, n_inject: int = 0
) -> Equivalence:
    """The equivalence of a model given by its parameter counts.

    Without a shape FLOPs are 6 per parameter and pass (attention and head left out), so that the
    unlooped model of the same cost has N_once + r·(N_rec + N_inject) parameters.
    Raises InputError for counts that aren't positive, or an r that the fit can't speak of.
    """
    if n_once < 0 or n_rec < 0 or n_inject < 0 or n_once + n_rec == 0 or recurrences < 1:
        raise InputError("n_once, n_rec and n_inject must not be negative, recurrences at least 1")
    once, rec = fit.count(
        np.array([float(n_once)]), np.array([float(n_rec)]), np.array([float(n_inject)])
    )
    cost = n_once + recurrences * (n_rec + n_inject)
    return _equivalence(
        fit,
        once,
        rec,
        recurrences,
        unique=n_once + n_rec + n_inject,
        same_cost=float(cost),
        flops=6.0 * cost,
        assumptions=("6 FLOPs per parameter and pass: attention and head are left out",),
    )


def _equivalence(
    fit: Fit,
    once: Array,
    rec: Array,
    recurrences: int,
    *,
    unique: int,
    same_cost: float,
    flops: float,
    assumptions: tuple[str, ...],
) -> Equivalence:
    r = np.array([float(recurrences)])
    warnings = list(fit.warnings)
    known = recurrences == 1 or fit.phi is not None or fit.params.get(f"m{recurrences}") is not None
    value: float | None = None
    ci95: Interval | None = None
    if known:
        value = float(np.exp(fit.fitted.log_effective(once, rec, r, fit.fitted.theta[None]))[0, 0])
        drawn = fit.fitted.resamples
        if drawn is not None:
            draws = np.exp(fit.fitted.log_effective(once, rec, r, drawn.theta))[:, 0]
            ci95 = drawn.interval(value, draws, log=True)
    if known and recurrences > 1 and fit.seen is not None:
        value, ci95 = _beyond(fit, fit.seen, once, rec, recurrences, value, ci95)
        warnings += fit.seen.said(size_of(once, rec, r), r)
        if value is None:
            warnings.append(
                Warned("not_identified", "so far beyond the runs there is no number of equal loss")
            )
    if not known:
        open_size = "the unlooped size of equal loss needs φ, which these runs can't tell"
        warnings.insert(0, Warned("not_identified", open_size))
    without_law, why_none = _law_free(fit, float(once[0]), float(rec[0]), recurrences)
    if why_none:
        warnings.append(why_none)
    return Equivalence(
        recurrences=recurrences,
        unique_params=unique,
        equivalent_params=Quantity(value=value, ci95=ci95),
        equivalent_params_law_free=without_law,
        same_cost_params=same_cost,
        flops_per_token=flops,
        assumptions=(
            f"{fit.conventions.law} law, {fit.conventions.estimator} estimator, injection counted "
            f"{fit.conventions.count_injection}",
            *assumptions,
        ),
        warnings=tuple(warnings),
    )


def _law_free(
    fit: Fit, once: float, rec: float, recurrences: int
) -> tuple[Quantity, Warned | None]:
    """N_once + m(r)·N_rec by the m measured without a law; or why there is none."""
    if recurrences == 1:
        size = once + rec
        return Quantity(value=size, ci95=(size, size)), None
    none = Quantity(value=None, ci95=None)
    if fit.law_free is None:
        code = "law_free_missing"
        if any(w.code == code for w in fit.warnings):
            return none, None  # which says why
        text = "the fit holds nothing measured without a law: fit the runs again"
        return none, Warned(code, text)
    measured = {one["recurrences"]: one for one in fit.law_free["m"]}
    one = measured.get(float(recurrences))
    if one is None:
        known = ", ".join(f"{r:g}" for r in measured)
        text = (
            f"without a law m is known where it was measured (r = {known}), not at r = "
            f"{recurrences}"
        )
        return none, Warned("not_identified", text)
    low, high = one["ci95"]
    return Quantity(
        value=once + one["value"] * rec, ci95=(once + low * rec, once + high * rec)
    ), None


def _beyond(
    fit: Fit,
    seen: Seen,
    once: Array,
    rec: Array,
    recurrences: int,
    value: float | None,
    ci95: Interval | None,
) -> tuple[float | None, Interval | None]:
    """The unlooped size and its interval, widened for a model beyond the runs.

    Beyond their sizes φ may drift with the logarithm of size, as far as the runs let it; beyond
    their r further passes may add nothing. A thousand times beyond there is no number.
    """
    r = np.array([float(recurrences)])
    decades = float(seen.decades(size_of(once, rec, r))[0])
    most = seen.recurrences[1]
    if decades > FARTHEST or recurrences > most * 10**FARTHEST:
        return None, None
    if value is None or ci95 is None:
        return value, ci95
    low, high = ci95
    if decades > 0:
        if seen.phi_drift is None:
            return value, None
        half = np.hypot(np.log(high / low) / 2, _change(once, rec, r, value, seen, decades))
        low, high = value * float(np.exp(-half)), value * float(np.exp(half))
    if recurrences > most:
        theta = fit.fitted.theta[None]
        held = np.exp(fit.fitted.log_effective(once, rec, np.array([most]), theta))[0, 0]
        low = min(low, float(held))
    return value, (low, high)


def _change(once: Array, rec: Array, r: Array, value: float, seen: Seen, decades: float) -> float:
    """Change of the logarithm of the unlooped size with the drift that φ may have there."""
    assert seen.phi_drift is not None
    share = 1.0 - float(once[0]) / value  # of the looped block's parameters, however often counted
    return share * float(np.log(r[0])) * seen.phi_drift * decades


def _unlooped_of_cost(flops: float, *, depth: int, vocab: int, sequence_length: int) -> float:
    """Parameters (non-embedding) of the unlooped model that costs `flops` per token.

    Solves 6(depth·(12d² + 2d) + V·d) + 12·depth·d·T = flops for a real width d.
    """
    a = 72.0 * depth
    b = 12.0 * depth + 6.0 * vocab + 12.0 * depth * sequence_length
    width = (-b + np.sqrt(b**2 + 4 * a * flops)) / (2 * a)
    return float(depth * (12 * width**2 + 2 * width) + 3 * width)

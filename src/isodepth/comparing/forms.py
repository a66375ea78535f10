"""Forms of what a recipe changes, fitted at equal r, and what each says of Δφ.

A change of φ is one form of the difference among several. Each form below carries the recipe's runs
on the baseline's own surfaces (`comparing/carry.py`), with and without a change of φ:

    none             no other difference
    tokens           D → κD: a token counts κ times as much
    tokens_size      log κ moves with log N
    offset           L → L + δ, nats per token
    offset_over_r    L → L + c/r
    offset_log_r     L → L + δ₀ + δ₁·ln r
    parameters       N_eff → ν·N_eff

A form is admissible where the runs don't contradict it: what the best form would add beside it is
not significant (Wald's test, the surfaces' error and errors shared within groups carried along), or
it predicts left-out budgets no worse than the law that φ belongs to describes the baseline's runs.
Δφ is given over the admissible forms (a form that holds a simpler admissible one doesn't count
again); where they disagree on its sign it is not identified. The form that holds is the admissible
one of fewest parameters, and of those the one that predicts left-out budgets best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isodepth.comparing.arms import Change
from isodepth.comparing.carry import Carried, Carrier, worth_at
from isodepth.fitting.law_free import Worth
from isodepth.fitting.twins import Value
from isodepth.laws import Array, Bools

FORMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "tokens": ("tokens",),
    "tokens_size": ("tokens", "tokens_size"),
    "offset": ("offset",),
    "offset_over_r": ("offset_over_r",),
    "offset_log_r": ("offset", "offset_log_r"),
    "parameters": ("parameters",),
}
FORM_WORDS = {
    "none": "Δφ alone",
    "tokens": "tokens × κ",
    "tokens_size": "tokens × κ·N^c",
    "offset": "loss + δ",
    "offset_over_r": "loss + c/r",
    "offset_log_r": "loss + δ₀ + δ₁·ln r",
    "parameters": "parameters × ν",
}
_TELLS = 0.05  # p-value below which a form is contradicted
_LEAST_FOLDS = 3
_WIDER = {"tokens_size": "tokens", "offset_log_r": "offset"}  # forms that hold a simpler one


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One form of the difference."""

    form: str  # one of FORMS
    with_phi: bool  # whether φ may change too
    params: dict[
        str, Value
    ]  # tokens_ratio, loss_offset, …; in the units of `carry`'s terms, or a factor
    delta_phi: Value | None  # None: φ does not change, or can't be told
    rmse: float  # of log loss over the recipe's runs
    held_out_rmse: float  # of log loss, each budget predicted by the others
    p_value: (
        float | None
    )  # of nothing being left that the best form would add; None: it is the best
    admissible: bool
    counts: bool  # whether its Δφ counts: admissible, and no simpler form that it holds is


@dataclass(frozen=True, kw_only=True)
class DeltaPhi:
    """Δφ over the admissible forms."""

    value: float | None  # under the form that holds; None: not identified
    ci95: tuple[float, float] | None  # all admissible forms' intervals together
    range_over_forms: tuple[float, float]  # lowest and highest value under an admissible form


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a recipe changes, beside the baseline at equal r."""

    form: str  # that holds: the simplest that predicts left-out budgets about as well as the best
    candidates: tuple[Candidate, ...]
    delta_phi: DeltaPhi | None  # None: no admissible form tells it
    sign: int | None  # of Δφ: −1, 0 (not significant), 1; None: not identified
    tokens_ratio: Value | None  # κ under the form that holds
    loss_offset: Value | None  # δ, nats per token, likewise (of a form with one offset)
    phi_contradicted: bool  # whether a change of φ alone is not admissible
    law_misfit: float  # rms of log loss by which the law misses the baseline's runs
    residuals_go_along_r: bool  # at the best form: structures along r then enter every interval
    n_runs: int  # of the recipe, carried

    @property
    def go_along(self) -> bool | None:
        """As `fitting.errors.Errors` takes it: structures along r, or as its own residuals ask."""
        return self.residuals_go_along_r or None

    def candidate(self, form: str, *, with_phi: bool) -> Candidate | None:
        """One of the candidates."""
        found = (c for c in self.candidates if c.form == form and c.with_phi == with_phi)
        return next(found, None)

    @property
    def chosen(self) -> Candidate:
        """The form that holds, without a change of φ where it needs none."""
        found = self.candidate(self.form, with_phi=self.form == "none")
        found = found or self.candidate(self.form, with_phi=False)
        assert found is not None
        return found

    @property
    def counted(self) -> list[Candidate]:
        """The forms over which Δφ is given."""
        return [c for c in self.candidates if c.counts]


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    form: str
    terms: tuple[str, ...]
    found: Carried
    held_out: float  # rms of log loss over left-out budgets

    @property
    def with_phi(self) -> bool:
        return "phi" in self.terms

    def along(self) -> _Fitted:
        """With structures along r taken, whatever its own residuals say."""
        errors = replace(self.found.errors, go_along=True)
        return replace(self, found=replace(self.found, errors=errors))


def split_of(carrier: Carrier, law_misfit: float) -> Split | None:
    """Every form fitted, ranked and judged; None where the runs can't hold any.

    law_misfit: rms of log loss by which the law misses the baseline's runs.
    """
    fitted = []
    for form, terms in FORMS.items():
        for with_phi in (False, True):
            if with_phi and (carrier.phi is None or max(carrier.levels) == 1):
                continue
            every = (*terms, "phi") if with_phi else terms
            found = carrier.solved(every)
            held_out = None if found is None else _held_out(carrier, every, found.theta)
            if found is not None and held_out is not None:
                fitted.append(_Fitted(form=form, terms=every, found=found, held_out=held_out))
    if not fitted:
        return None
    best = min(fitted, key=lambda f: (f.held_out, len(f.terms)))
    # where what the best form leaves goes on along r, so does noise about every other
    go_along = best.found.errors.goes_along
    if go_along:
        fitted = [one.along() for one in fitted]
        best = next(one for one in fitted if one.terms == best.terms)
    candidates: list[Candidate] = []
    for one in fitted:
        judged = _candidate(carrier, one, best, law_misfit)
        told = judged.admissible and judged.delta_phi is not None
        simpler = [c for c in candidates if c.counts and c.form == _WIDER.get(one.form)]
        candidates.append(replace(judged, counts=told and not simpler))
    holds = min(
        (one for one, c in zip(fitted, candidates, strict=True) if c.admissible),
        key=lambda f: (len(f.terms), f.held_out),
    )
    return _split(holds.form, tuple(candidates), law_misfit, go_along, carrier.r.size)


def _split(
    form: str, candidates: tuple[Candidate, ...], law_misfit: float, go_along: bool, n: int
) -> Split:
    told = [c.delta_phi for c in candidates if c.counts and c.delta_phi is not None]
    own = next((c for c in candidates if c.form == form and c.with_phi), None)
    delta, sign = None, None
    if told:
        signs = {1 if v.ci95[0] > 0 else -1 if v.ci95[1] < 0 else 0 for v in told}
        opposed = {1, -1} <= signs
        sign = None if opposed else signs.pop() if len(signs) == 1 else 0
        delta = DeltaPhi(
            value=own.delta_phi.value if own and own.delta_phi and not opposed else None,
            ci95=(min(v.ci95[0] for v in told), max(v.ci95[1] for v in told)),
            range_over_forms=(min(v.value for v in told), max(v.value for v in told)),
        )
    plain = next((c for c in candidates if c.form == form and not c.with_phi), None)
    params = plain.params if plain else {}
    alone = next((c for c in candidates if c.form == "none" and c.with_phi), None)
    return Split(
        form=form,
        candidates=candidates,
        delta_phi=delta,
        sign=sign,
        tokens_ratio=params.get("tokens_ratio") if form == "tokens" else None,
        loss_offset=params.get("loss_offset") if form == "offset" else None,
        phi_contradicted=alone is not None and not alone.admissible,
        law_misfit=law_misfit,
        residuals_go_along_r=go_along,
        n_runs=n,
    )


def _candidate(carrier: Carrier, one: _Fitted, best: _Fitted, law_misfit: float) -> Candidate:
    found = one.found
    values = {}
    for i, term in enumerate(one.terms):
        at = float(found.theta[i])
        values[term] = Value(value=at, ci95=found.errors.interval(at, found.influence[i]))
    p_value = None
    if one is not best:
        added = tuple(term for term in best.terms if term not in one.terms)
        p_value = _left_over(carrier, one, added)
    return Candidate(
        form=one.form,
        with_phi=one.with_phi,
        params={_NAMES[t]: _shown(t, v) for t, v in values.items() if t != "phi"},
        delta_phi=values.get("phi"),
        rmse=float(np.sqrt((found.residual**2).mean())),
        held_out_rmse=one.held_out,
        p_value=p_value,
        admissible=p_value is None or p_value >= _TELLS or one.held_out <= law_misfit,
        counts=False,
    )


_NAMES = {
    "tokens": "tokens_ratio",
    "tokens_size": "log_tokens_ratio_per_log_params",
    "parameters": "params_ratio",
    "offset": "loss_offset",
    "offset_over_r": "loss_offset_times_r",
    "offset_log_r": "loss_offset_per_log_r",
}


def _shown(term: str, value: Value) -> Value:
    """A factor as a factor, anything else as it is."""
    if term not in ("tokens", "parameters"):
        return value
    low, at, high = np.exp(np.clip([value.ci95[0], value.value, value.ci95[1]], -99, 99))
    return Value(value=float(at), ci95=(float(low), float(high)))


def _left_over(carrier: Carrier, one: _Fitted, added: tuple[str, ...]) -> float:
    """p-value of the added terms being nothing beside a form; 1 where there is nothing to add."""
    if not added:
        return 1.0
    wider = carrier.solved(one.terms, added, one.found.errors.goes_along)
    if wider is None:
        return 1.0
    k = len(one.terms)
    return wider.errors.p_value(wider.theta[k:], wider.influence[k:])


def _held_out(carrier: Carrier, terms: tuple[str, ...], start: Array) -> float | None:
    """rms of log loss where every budget (else group, else run) is left out in turn."""
    squares = 0.0
    folds = _folds(carrier)
    for fold in folds:
        theta = carrier.solve(terms, ~fold, start)
        if theta is None:
            return None
        error = (carrier.log_loss - carrier.drawn(terms, theta))[fold]
        squares += float(error @ error)
    return float(np.sqrt(squares / carrier.r.size)) if len(folds) > 1 else None


def _folds(carrier: Carrier) -> list[Bools]:
    budgets = carrier.budgets
    if budgets is not None and np.unique(budgets).size >= _LEAST_FOLDS:
        return [budgets == b for b in np.unique(budgets)]
    if budgets is not None:
        cells = np.unique(np.stack([budgets, carrier.r]), axis=1, return_inverse=True)[1]
        if cells.max() + 1 >= _LEAST_FOLDS:
            return [cells == c for c in range(int(cells.max()) + 1)]
    return list(np.eye(carrier.r.size, dtype=bool))


def change_of(carrier: Carrier, split: Split, n: int, seed: int) -> tuple[Change, bool]:
    """What the form that holds changes, at its optimum and n draws; and whether Δφ is in it.

    Where Δφ is identified the form is taken with its change of φ, else without.
    """
    terms = FORMS[split.form]
    with_phi = split.candidate(split.form, with_phi=True)
    told = split.sign is not None and with_phi is not None and with_phi.admissible
    if told:
        terms = (*terms, "phi")
    found = carrier.solved(terms, go_along=split.go_along)
    assert found is not None  # it was fitted before
    theta = found.theta[None]
    if n:
        theta = np.vstack([theta, found.theta + found.errors.draws(found.influence, n, seed)])
    at = {term: theta[:, i] for i, term in enumerate(terms)}
    zero = np.zeros(1 + n)
    change = Change(
        delta_phi=at.get("phi", zero),
        log_tokens=at.get("tokens", zero),
        log_tokens_by_size=at.get("tokens_size", zero),
        middle=float(carrier.log_size.mean()),
        log_params=at.get("parameters", zero),
        offset=at.get("offset", zero),
        offset_over_r=at.get("offset_over_r", zero),
        offset_log_r=at.get("offset_log_r", zero),
    )
    return change, told


def delta_log_m(carrier: Carrier, split: Split) -> tuple[Worth, ...]:
    """Δ log m(r) of the recipe, an own one at every r > 1, beside the form that holds.

    () where the baseline's m is unknown or the runs can't tell them apart.
    """
    levels = [level for level in carrier.levels if level > 1]
    if carrier.phi is None or not levels:
        return ()
    terms = (*FORMS[split.form], *(worth_at(level) for level in levels))
    found = carrier.solved(terms, go_along=split.go_along)
    if found is None:
        return ()
    first = len(FORMS[split.form])
    return tuple(
        Worth(
            recurrences=level,
            value=float(found.theta[first + i]),
            ci95=found.errors.interval(float(found.theta[first + i]), found.influence[first + i]),
            n_runs=int((carrier.r == level).sum()),
        )
        for i, level in enumerate(levels)
    )

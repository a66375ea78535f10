"""What runs not yet trained would tell without a law, and of two recipes at equal r.

No formula stands for these widths: which surface the runs allow, which twins it holds and how much
noise they seem to share all depend on the losses. So a few sweeps are simulated, with the losses of
a supposed law and independent noise, and taken through the estimators that `fit` and `compare` use
(`fitting/law_free.py`, `comparing/forms.py`). Two recipes are supposed not to differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from isodepth.comparing.carry import carrier_of
from isodepth.comparing.forms import FORMS
from isodepth.fitting import Fit
from isodepth.fitting.law_free import law_free
from isodepth.fitting.problem import Problem, build
from isodepth.fitting.surface import SLACK, beyond
from isodepth.laws import Array
from isodepth.planning.widths import Addition, EqualR, FormWidths, LawFreeWidths

SWEEPS = 2  # simulated of every supposed law and noise
_HALF = 0.5  # of a run's tokens, where other tokens are tried
# forms beside which Δφ is told
_ASKED = ("none", "tokens", "offset", "offset_over_r", "offset_log_r")


def law_free_widths(
    frame: pd.DataFrame, fits: list[Fit], noises: tuple[float, ...]
) -> LawFreeWidths:
    """Of one recipe's runs, with those it borrows; a run table without losses."""
    found = [law_free(problem)[0] for (problem,) in _simulated([frame], fits, noises)]
    phi = [None if one is None else _half(one.phi.ci95) for one in found]
    looped = [
        None if one is None or one.phi_looped is None else _half(one.phi_looped.ci95)
        for one in found
    ]
    n_looped = int((frame["recurrences"] > 1).sum())
    return LawFreeWidths(
        phi=_middle(phi),
        phi_looped=_middle(looped),
        n_looped=n_looped,
        **_outside(frame, fits[0]),
    )


def _outside(frame: pd.DataFrame, law: Fit) -> dict[str, Any]:
    """How many looped runs' twins lie outside by the supposed law, and where."""
    once, rec, r, tokens = _counted(frame, law)
    size, log_tokens, looped = np.log(once + r ** _phi(law) * rec), np.log(tokens), r > 1
    out = beyond(
        size[~looped], log_tokens[~looped], size[looped], log_tokens[looped], margin=-SLACK
    )
    outside = np.ones(int(looped.sum()), dtype=bool) if out is None else out > 0
    if not outside.any():
        return {"twins_outside": 0, "wanted_params": None, "wanted_tokens": None}
    n, d = np.exp(size[looped][outside]), tokens[looped][outside]
    return {
        "twins_outside": int(outside.sum()),
        "wanted_params": (float(n.min()), float(n.max())),
        "wanted_tokens": (float(d.min()), float(d.max())),
    }


def equal_r(
    baseline: pd.DataFrame, recipe: pd.DataFrame, fits: list[Fit], noises: tuple[float, ...]
) -> EqualR | None:
    """Of a baseline's runs and a recipe's own: run tables with flops, without losses.

    None where the runs share no r at which the baseline's give a surface.
    """
    forms = _forms(baseline, recipe, fits, noises, _ASKED)
    if forms is None:
        return None
    before = next(one for one in forms if one.form == "tokens").delta_phi
    flops = float(baseline["flops"].sum() + recipe["flops"].sum())
    additions = []
    for name, (to_baseline, to_recipe) in _more(baseline, recipe).items():
        wider = _forms(
            pd.concat([baseline, to_baseline], ignore_index=True),
            pd.concat([recipe, to_recipe], ignore_index=True),
            fits,
            noises,
            ("tokens",),
        )
        after = None if wider is None else wider[-1].delta_phi
        cost = float(to_baseline["flops"].sum() + to_recipe["flops"].sum())
        gained = None
        if before is not None and after is not None and np.isfinite(flops):
            gained = (before**2 / after**2 - 1) * flops / cost
        additions.append(
            Addition(
                name=name,
                n_runs=len(to_baseline) + len(to_recipe),
                flops=cost,
                delta_phi=after,
                per_flop=gained,
            )
        )
    return EqualR(forms=forms, additions=tuple(additions))


def _forms(
    baseline: pd.DataFrame,
    recipe: pd.DataFrame,
    fits: list[Fit],
    noises: tuple[float, ...],
    names: tuple[str, ...],
) -> tuple[FormWidths, ...] | None:
    widths: dict[tuple[str, ...], list[tuple[float, ...] | None]] = {}
    every = [FORMS[name] for name in names]
    any_carried = False
    for i, (base, own) in enumerate(_simulated([baseline, recipe], fits, noises)):
        phi = _phi(fits[i // (SWEEPS * len(noises))])
        carrier, _ = carrier_of(base, own, range(own.n), phi)
        any_carried |= carrier is not None
        for form in every:
            for terms in (form, (*form, "phi")):
                if not terms:
                    continue
                found = None if carrier is None else carrier.solved(terms, go_along=False)
                widths.setdefault(terms, []).append(
                    None if found is None else tuple(map(found.errors.half_width, found.influence))
                )
    if not any_carried:
        return None
    return tuple(
        FormWidths(
            form=name,
            delta_phi=_column(widths[(*FORMS[name], "phi")], -1),
            constant=_column(widths[FORMS[name]], 0) if FORMS[name] else None,
            constant_with_phi=_column(widths[(*FORMS[name], "phi")], 0) if FORMS[name] else None,
        )
        for name in names
    )


def _more(
    baseline: pd.DataFrame, recipe: pd.DataFrame
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Runs that could be added, of the baseline and of the recipe."""
    found = {}
    unlooped = baseline[baseline["recurrences"] == 1]
    if len(unlooped) and not (recipe["recurrences"] == 1).any():
        own = unlooped.assign(recipe=recipe["recipe"].iloc[0])
        found["unlooped runs of the recipe's own"] = (unlooped.iloc[:0], own)
    most = recipe["recurrences"].max()
    further = tuple(_twice(frame[frame["recurrences"] == most]) for frame in (baseline, recipe))
    if len(further[0]):
        found[f"r = {2 * most:g}, in both"] = (further[0], further[1])
    shorter = tuple(_shorter(frame[frame["recurrences"] > 1]) for frame in (baseline, recipe))
    found["looped runs at half the tokens, in both"] = (shorter[0], shorter[1])
    return found


def _twice(frame: pd.DataFrame) -> pd.DataFrame:
    """At twice the r with half the block: equal depth, equal FLOPs."""
    return frame.assign(recurrences=2 * frame["recurrences"], n_rec=frame["n_rec"] / 2)


def _shorter(frame: pd.DataFrame) -> pd.DataFrame:
    """Of equal width at half the tokens."""
    names = [name for name in ("tokens", "flops", "budget_flops") if name in frame]
    return frame.assign(**{name: frame[name] * _HALF for name in names})


def _simulated(
    frames: list[pd.DataFrame], fits: list[Fit], noises: tuple[float, ...]
) -> Iterator[list[Problem]]:
    """The frames with losses of every supposed law and noise, `SWEEPS` of each."""
    rng = np.random.default_rng(0)
    for one in fits:
        for noise in noises:
            for _ in range(SWEEPS):
                yield [
                    build(with_losses(frame, one, noise, rng), one.conventions) for frame in frames
                ]


def with_losses(
    frame: pd.DataFrame, one: Fit, noise: float, rng: np.random.Generator
) -> pd.DataFrame:
    """A run table with losses of a supposed law; noise: standard deviation of the log loss."""
    once, rec, r, tokens = _counted(frame, one)
    log_loss = one.fitted.log_loss(once, rec, r, tokens, one.fitted.theta[None])[0]
    named = frame if "run_id" in frame else frame.assign(run_id=np.arange(len(frame)).astype(str))
    return named.assign(loss=np.exp(log_loss + noise * rng.normal(size=len(frame))))


def _counted(frame: pd.DataFrame, one: Fit) -> tuple[Array, Array, Array, Array]:
    """N_once, N_rec, r and tokens of the runs, each (n,), as the fit counts."""
    counts = (frame[name].to_numpy(dtype=float) for name in ("n_once", "n_rec", "n_inject"))
    r, tokens = (frame[name].to_numpy(dtype=float) for name in ("recurrences", "tokens"))
    return *one.count(*counts), r, tokens


def _phi(one: Fit) -> float:
    return float(one.fitted.theta[one.fitted.theta_names.index("phi")])


def _half(ci95: tuple[float, float]) -> float:
    return (ci95[1] - ci95[0]) / 2


def _column(values: list[tuple[float, ...] | None], i: int) -> float | None:
    return _middle([None if one is None else one[i] for one in values])


def _middle(values: list[float | None]) -> float | None:
    """The median, which a sweep whose noise seems to be shared doesn't move."""
    told = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.median(told)) if 2 * len(told) > len(values) else None

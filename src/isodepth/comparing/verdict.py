"""The verdict of a comparison in words: worth, tokens, loss, in that order, and no cause.

What is said first is what pairs of equal r show without a model. Δφ follows over every admissible
form of the difference; a change of φ is said to be there where all of them agree on it.
"""

from __future__ import annotations

from math import ceil, isfinite

from isodepth.comparing.forms import FORM_WORDS, Candidate, Split
from isodepth.comparing.multiplier import Multiplier
from isodepth.comparing.paired_runs import Paired
from isodepth.fitting.result import Interval
from isodepth.fitting.twins import Value

_LEAST_MEASURED = 3  # iso-FLOP minima that a statement about all of them takes
MOST = 100  # times as many runs, beyond which a number of runs is no advice
VERDICTS = {1: "raises φ", -1: "lowers φ", 0: "not resolved"}


def sign_of(ci95: Interval | None) -> int:
    """The sign of what an interval tells from 0, or 0."""
    if ci95 is None:
        return 0
    return 1 if ci95[0] > 0 else -1 if ci95[1] < 0 else 0


def verdict_of(split: Split, paired: Paired, shift: tuple[Multiplier, ...]) -> str:
    """What the runs say by compute, at equal r, of the form of the difference, and of Δφ.

    A recipe that wins at some compute and loses at other has that said first.
    """
    said = [
        _crossing(shift),
        _without_loop(paired),
        _growth(split, paired),
        _form(split),
        _delta_phi(split),
        _saves(shift),
    ]
    return "; ".join(part for part in said if part)


def _crossing(shift: tuple[Multiplier, ...]) -> str:
    """Where the recipe begins to win, or to lose, where every r says so."""
    crossings = [one.crossing_flops for one in shift if one.crossing_flops is not None]
    signs = {_above_one(one.per_decade) for one in shift}
    if not shift or len(crossings) < len(shift) or len(signs) > 1 or signs == {0}:
        return ""
    below, above = ("loses", "wins") if signs == {1} else ("wins", "loses")
    each = ", ".join(
        f"{at.value:.3g} [{at.ci95[0]:.3g}, {at.ci95[1]:.3g}] at r = {one.recurrences}"
        for one, at in zip(shift, crossings, strict=True)
    )
    return f"by compute it {below} below and {above} above {each} FLOPs"


def _saves(shift: tuple[Multiplier, ...]) -> str:
    """What the recipe saves or costs, where every measured multiplier agrees on it."""
    measured = [at.measured for one in shift for at in one.at if at.measured is not None]
    signs = {_above_one(value) for value in measured}
    if len(measured) < _LEAST_MEASURED or len(signs) > 1 or signs == {0}:
        return ""
    low, high = min(v.value for v in measured), max(v.value for v in measured)
    return f"the baseline takes {low:.2f} to {high:.2f} times its compute for the same loss"


def _above_one(value: Value | None) -> int:
    """1 or −1 where the interval lies above or below 1, else 0."""
    low, high = (0.0, 2.0) if value is None else value.ci95
    return 1 if low > 1 else -1 if high < 1 else 0


def verdict_of_laws(
    delta: float | None, ci95: Interval | None, n_runs: int, missing: dict[str, str], borrowed: int
) -> tuple[str, int | None]:
    """The verdict where the runs can't be compared at equal r, and how many more would resolve Δφ.

    It rests on the laws alone. The interval is taken to narrow as 1/√n, n the runs compared, at the
    Δφ found: it leaves 0 out once n has grown by (half its width / Δφ)².
    """
    if delta is None:
        why = next(iter(missing.values()), "no φ")
        return f"not identified by these runs: {why}", None
    if ci95 is None:
        return "no interval, so no verdict: compare again with --bootstrap", None
    low, high = ci95
    if sign := sign_of(ci95):
        if not borrowed:
            return VERDICTS[sign], None
        return (
            f"not identified: the laws' Δφ is told from 0, but with borrowed r = 1 runs a "
            f"{'gain' if sign > 0 else 'loss'} at every r looks like one of φ, and these runs "
            "can't be compared at equal r"
        ), None
    growth = ((high - low) / 2 / abs(delta)) ** 2 if delta else float("inf")
    if not isfinite(growth) or growth > MOST:
        return (
            f"{VERDICTS[0]} by these runs: the difference is so small that more than {MOST} times "
            "as many would be needed"
        ), None
    more = max(1, ceil(n_runs * (growth - 1)))
    return f"{VERDICTS[0]} by these runs: {more} more runs like these would", more


def _without_loop(paired: Paired) -> str:
    """The gain without a loop, where the recipe has unlooped runs of its own: the direct answer."""
    own = [m for m in paired.means if m.by == "recurrences" and m.recurrences == 1]
    if not own:
        return ""
    return f"without a loop (r = 1) its log loss differs by {_signed(own[0].delta_log_loss, 4)}"


def _growth(split: Split, paired: Paired) -> str:
    """Does the gain, or the loss, grow with r at equal width and budget?"""
    growth = paired.growth
    if growth is None:
        return ""
    pairs = [m for m in paired.means if m.by == "recurrences" and (m.recurrences or 0) > 1]
    mean = sum(m.n_runs * m.delta_log_loss.value for m in pairs)
    what = "gain" if mean < 0 else "penalty"
    better = sign_of(growth.delta_log_loss.ci95) * (1 if mean < 0 else -1)
    seen = (
        f"r = {growth.high} less r = {growth.low}: {_signed(growth.delta_log_loss, 4)} in log loss"
    )
    told = growth.by_phi is not None and not _holds(growth.delta_log_loss, growth.by_phi)
    if told and growth.by_phi is not None:
        seen += f", where the laws' Δφ alone predicts {growth.by_phi:+.4f}"
    if better < 0:
        said = f"at equal r and budget the {what} grows with r ({seen})"
    elif better > 0 or told:
        said = f"at equal r and budget the {what} does not grow with r ({seen})"
    else:
        said = f"at equal r and budget it is open whether the {what} grows with r ({seen})"
    if not split.phi_contradicted or split.sign is not None:
        return said
    alone = split.candidate("none", with_phi=True)
    assert alone is not None and alone.delta_phi is not None
    pure = "rise" if alone.delta_phi.value > 0 else "fall"
    return f"a {pure} of φ alone is contradicted: {said}"


def _form(split: Split) -> str:
    """The form that holds, where it is anything but a change of φ; or that none is told."""
    chosen = split.chosen
    terms = len(chosen.params) + chosen.with_phi
    equals = [
        c
        for c in split.candidates
        if c.admissible and len(c.params) + c.with_phi == terms and c != chosen
    ]
    if split.form == "none" and not chosen.with_phi:
        return "no difference between the recipes is told"
    if equals:
        return "which form the difference has is not told: " + " or ".join(
            _params(c) for c in (chosen, *equals)
        )
    if split.form == "none":
        return ""
    rivals = ", ".join(FORM_WORDS[c.form] for c in split.counted if c.form != split.form)
    return _params(chosen) + (f" (not told from: {rivals}, each with a Δφ)" if rivals else "")


def _params(chosen: Candidate) -> str:
    p = chosen.params
    if chosen.form == "none":
        return f"Δφ = {_signed(chosen.delta_phi, 3)}" if chosen.delta_phi else "no difference"
    if chosen.form == "tokens":
        return f"a token counts {_plain(p['tokens_ratio'])} times as much"
    if chosen.form == "tokens_size":
        more = "more" if p["log_tokens_ratio_per_log_params"].value > 0 else "less"
        return (
            f"a token counts {_plain(p['tokens_ratio'])} times as much at the middle size, and "
            f"{more} the larger the model"
        )
    if chosen.form == "offset":
        return f"at equal tokens its loss differs by {_signed(p['loss_offset'], 4)} nats at every r"
    if chosen.form == "offset_over_r":
        return (
            f"at equal tokens its loss differs by {_signed(p['loss_offset_times_r'], 3)} / r nats"
        )
    if chosen.form == "offset_log_r":
        return (
            f"at equal tokens its loss differs by {_signed(p['loss_offset'], 3)} "
            f"{p['loss_offset_per_log_r'].value:+.3f}·ln r nats"
        )
    return f"its effective parameters count {_plain(p['params_ratio'])} times as much"


def _delta_phi(split: Split) -> str:
    delta = split.delta_phi
    if delta is None:
        return "Δφ is not identified: no admissible form tells it"
    low, high = delta.range_over_forms
    over = f"from {low:+.2f} to {high:+.2f} over {len(split.counted)} admissible forms"
    if split.sign is None:
        what = "penalty" if _worse(split) else "gain"
        return f"Δφ is not identified: what it is depends on how the {what} runs with r, {over}"
    assert delta.ci95 is not None
    ends = f"[{delta.ci95[0]:+.3f}, {delta.ci95[1]:+.3f}]"
    value = "" if delta.value is None else f"{delta.value:+.3f} "
    left = "" if split.form == "none" else " left over"
    if split.sign == 0:
        return f"the change of φ{left}, {value}{ends}, is not significant"
    forms = "" if len(split.counted) == 1 else f" under all {len(split.counted)} admissible forms"
    return f"{VERDICTS[split.sign]}: Δφ{left} = {value}{ends}{forms}"


def _worse(split: Split) -> bool:
    """Whether the form that holds says that something is lost."""
    values = list(split.chosen.params.items())
    if not values:
        return False
    name, value = values[0]
    return value.value < 1 if name.endswith("ratio") else value.value > 0


def _holds(value: Value, number: float) -> bool:
    return value.ci95[0] <= number <= value.ci95[1]


def _signed(value: Value, digits: int) -> str:
    low, high = value.ci95
    return f"{value.value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _plain(value: Value) -> str:
    low, high = value.ci95
    return f"{value.value:.2f} [{low:.2f}, {high:.2f}]"

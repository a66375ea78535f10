"""What a recipe saves or costs in compute, and how its law's exponents differ: rows of tables."""

from __future__ import annotations

from isodepth.comparing.multiplier import Multiplier
from isodepth.comparing.result import Comparison
from isodepth.fitting.twins import Value
from isodepth.report.words import interval_text

MULTIPLIER_HEADS = ("r", "budget", "measured minima", "by the laws")
EXPONENT_TITLE = "The laws' other parameters, recipe less baseline"
EXPONENT_HEADS = ("parameter", "difference", "95% interval", "")


def multiplier_tables(result: Comparison) -> list[tuple[str, list[list[str]]]]:
    """(what, rows) of the recipe against the baseline, and of looping against none of either."""
    looping = result.looping
    found = [
        (f"{result.baseline}'s compute for the loss of {result.recipe}", result.compute_multiplier)
    ]
    if looping is not None:
        for name, rows in ((result.baseline, looping.baseline), (result.recipe, looping.recipe)):
            found.append((f"unlooped compute for the loss of looped {name}", rows))
    return [
        (f"Compute multiplier: {what}, over the latter's", multiplier_rows(several))
        for what, several in found
        if several
    ]


def multiplier_rows(several: tuple[Multiplier, ...]) -> list[list[str]]:
    """A row for every r and budget, and one for the trend and the crossing of each r."""
    rows = []
    for one in several:
        for at in one.at:
            by_law = _factor(at.by_law)
            rows.append(
                [
                    str(one.recurrences),
                    f"{at.budget_flops:.3g}",
                    _factor(at.measured),
                    f"{by_law}, extrapolated" if by_law and at.beyond else by_law,
                ]
            )
        rows.append([str(one.recurrences), "× for ten times it", "", _factor(one.per_decade)])
        if one.crossing_flops is not None:
            crossing = one.crossing_flops
            text = f"{crossing.value:.3g} {interval_text(crossing.ci95, '.3g')} FLOPs"
            rows.append([str(one.recurrences), "it is 1 at", "", text])
    return rows


def exponent_rows(result: Comparison) -> list[list[str]]:
    """Whether each parameter differs significantly."""
    rows = []
    for one in result.exponents:
        low, high = one.difference.ci95
        told = "" if low <= 0 <= high else "significant"
        interval = interval_text(one.difference.ci95, "+.4g")
        rows.append([one.name, f"{one.difference.value:+.4g}", interval, told])
    return rows


def _factor(value: Value | None) -> str:
    return "" if value is None else f"{value.value:.2f} {interval_text(value.ci95, '.2f')}"

"""The verdict of a comparison in words: what its interval tells, and what other choices say."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite

from isodepth.comparing.pair import Cost
from isodepth.comparing.result import Alternative
from isodepth.fitting.result import Interval

MOST = 100  # times as many runs, beyond which a number of runs is no advice
VERDICTS = {1: "raises φ", -1: "lowers φ", 0: "not resolved"}


def verdict_of(
    delta: float | None, ci95: Interval | None, n_runs: int, missing: dict[str, str]
) -> tuple[str, int | None]:
    """The verdict in words, and how many more runs would resolve Δφ.

    The interval is taken to narrow as 1/√n, n the runs compared, at the Δφ found: it leaves 0 out
    once n has grown by (half its width / Δφ)².
    """
    if delta is None:
        why = next(iter(missing.values()), "no φ")
        return f"not identified by these runs: {why}", None
    if ci95 is None:
        return "no interval, so no verdict: compare again with --bootstrap", None
    low, high = ci95
    if sign := sign_of(ci95):
        return VERDICTS[sign], None
    growth = ((high - low) / 2 / abs(delta)) ** 2 if delta else float("inf")
    if not isfinite(growth) or growth > MOST:
        return (
            f"{VERDICTS[0]} by these runs: the difference is so small that more than {MOST} times "
            "as many would be needed"
        ), None
    more = max(1, ceil(n_runs * (growth - 1)))
    return f"{VERDICTS[0]} by these runs: {more} more runs like these would", more


def sign_of(ci95: Interval | None) -> int:
    """The sign of what an interval tells from 0, or 0."""
    if ci95 is None:
        return 0
    return 1 if ci95[0] > 0 else -1 if ci95[1] < 0 else 0


def qualified(
    verdict: str, ci95: Interval | None, cost: Cost | None, others: Sequence[Alternative]
) -> str:
    """The verdict with every choice under which it would be another.

    ci95: of Δφ, which the verdict was read from. cost: counts where BIC asks for it.
    """
    if ci95 is None:
        return verdict
    said = []
    if cost and cost.asked_for and cost.delta_phi_ci95:
        sign = sign_of(cost.delta_phi_ci95)
        if sign != sign_of(ci95):
            said.append(
                f"{VERDICTS[sign]} with a cost of looping κ, which these runs ask for "
                f"(BIC lower by {cost.bic_gain:.0f})"
            )
    told = [sign_of(a.ci95) for a in others if a.ci95 is not None]
    said += [
        f"{VERDICTS[sign]} under {told.count(sign)} of {len(told)} choices of law, estimator, "
        "counting and method"
        for sign in VERDICTS
        if sign != sign_of(ci95) and sign in told
    ]
    if not said:
        return verdict
    first = f"{verdict} under these assumptions" if sign_of(ci95) else verdict
    return "; ".join([first, *said])

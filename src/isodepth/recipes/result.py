"""What a comparison returns: Δφ with its interval, what it rests on, and where the loss went."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import ceil, isfinite

from isodepth.fitting.problem import Conventions
from isodepth.fitting.result import Interval
from isodepth.recipes.channels import Channel
from isodepth.recipes.inference import Inference
from isodepth.recipes.pair import Cost, Method

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Δφ under one other choice. None: the runs can't tell it under that choice."""

    method: Method
    law: str
    estimator: str
    count_injection: str
    borrowed: str  # which r = 1 runs the recipe uses: `own budgets`, `all budgets` or `own runs`
    phi_baseline: float | None
    phi_recipe: float | None
    delta_phi: float | None
    ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class Published:
    """φ as arXiv 2604.21106 states it; in brackets what its released code notes."""

    phi_baseline: float
    phi_recipe: float
    phi_recipe_in_code: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One recipe against its baseline. Numbers that the runs can't tell are None; see warnings."""

    baseline: str
    recipe: str
    source: str
    checksum: str  # SHA-256 of the run table
    version: str  # of isodepth
    conventions: Conventions
    method: Method
    seed: int
    n_runs_baseline: int
    n_runs_recipe: int  # with those it borrows
    n_borrowed: int
    phi_baseline: float | None
    phi_recipe: float | None
    delta_phi: float | None
    ci95: dict[str, Interval | None]  # of phi_baseline, phi_recipe, delta_phi
    interval_method: str
    n_resamples: int
    verdict: str
    more_runs: int | None  # that would resolve Δφ; None: it is resolved, or no number would
    channels: tuple[Channel, ...]
    inference: tuple[Inference, ...]
    cost: Cost | None
    sensitivity: tuple[Alternative, ...]
    published: Published | None  # for the shipped grid alone
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The contract of `compare --json`."""
        known = asdict(self)
        for name in ("conventions", "delta_phi", "channels", "ci95"):
            del known[name]
        return {
            "format": FORMAT,
            **known,
            **asdict(self.conventions),
            "ci95": {k: v for k, v in self.ci95.items() if k != "delta_phi"},
            "delta_phi": {"value": self.delta_phi, "ci95": self.ci95["delta_phi"]},
            "channels": [_channel(c) for c in self.channels],
        }

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def report(self) -> str:
        """The report that `isodepth compare` prints, as plain text."""
        from isodepth.report.compare_tables import compare_report
        from isodepth.report.tables import to_text

        return to_text(compare_report(self))


def _channel(channel: Channel) -> dict[str, object]:
    """A channel at the compute-optimal sizes, with that at equal size inside."""
    return {
        "budget_flops": channel.budget_flops,
        "recurrences": channel.recurrences,
        **asdict(channel.optimal),
        "equal_size": asdict(channel.equal_size),
        "optimum_baseline": asdict(channel.baseline),
        "optimum_recipe": asdict(channel.recipe),
    }


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
    if low > 0:
        return "raises φ", None
    if high < 0:
        return "lowers φ", None
    growth = ((high - low) / 2 / abs(delta)) ** 2 if delta else float("inf")
    if not isfinite(growth) or growth > MOST:
        return (
            f"not resolved by these runs: the difference is so small that more than {MOST} times "
            "as many would be needed"
        ), None
    more = max(1, ceil(n_runs * (growth - 1)))
    return f"not resolved by these runs: {more} more runs like these would", more


MOST = 100  # times as many runs, beyond which a number of runs is no advice

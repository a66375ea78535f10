"""What a comparison returns: Δφ with its interval, what it rests on, and where the loss went."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from isodepth.comparing.channels import Channel, Optimum, Split
from isodepth.comparing.models_in_use import Inference
from isodepth.comparing.pair import Cost, Method
from isodepth.errors import InputError, reason
from isodepth.files import read_whole
from isodepth.fitting.problem import Conventions
from isodepth.fitting.result import Interval

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

    @classmethod
    def load_all(cls, path: str | Path) -> list[Comparison]:
        """Every comparison of a file that `compare --json` wrote. Raises InputError for others."""
        try:
            text = read_whole(Path(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} can't be read as a comparison: {reason(error)}") from error
        try:
            data = json.loads(text)
            return [_comparison(one) for one in data.get("comparisons", [data])]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is not a comparison written by `isodepth compare --json`"
            ) from error

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


def _comparison(data: dict[str, Any]) -> Comparison:
    """What `to_dict` made, read back."""
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}")
    delta: dict[str, Any] = data["delta_phi"]
    made: dict[str, Any] = {f.name: data[f.name] for f in fields(Comparison) if f.name in data}
    made |= {
        "conventions": _made(Conventions, data),
        "delta_phi": delta["value"],
        "ci95": _intervals(data["ci95"] | {"delta_phi": delta["ci95"]}),
        "channels": tuple(
            Channel(
                budget_flops=c["budget_flops"],
                recurrences=c["recurrences"],
                baseline=_made(Optimum, c["optimum_baseline"]),
                recipe=_made(Optimum, c["optimum_recipe"]),
                optimal=_made(Split, c),
                equal_size=_made(Split, c["equal_size"]),
            )
            for c in data["channels"]
        ),
        "inference": tuple(_made(Inference, i) for i in data["inference"]),
        "cost": data["cost"] and _made(Cost, data["cost"]),
        "sensitivity": tuple(_made(Alternative, a) for a in data["sensitivity"]),
        "published": data["published"] and _made(Published, data["published"]),
        "assumptions": tuple(data["assumptions"]),
        "warnings": tuple(data["warnings"]),
    }
    return Comparison(**made)


def _made(kind: type[Any], data: dict[str, Any]) -> Any:
    """A frozen dataclass of plain values and intervals from its JSON."""
    values = {f.name: data[f.name] for f in fields(kind)}
    return kind(**_intervals(values))


def _intervals(values: dict[str, Any]) -> dict[str, Any]:
    """The same with every pair of numbers a tuple again."""
    return {
        name: tuple(value)
        if isinstance(value, list)
        else _intervals(value)
        if isinstance(value, dict)
        else value
        for name, value in values.items()
    }

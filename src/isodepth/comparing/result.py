"""What a comparison returns: Δφ with its interval, what it rests on, and where the loss went."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from isodepth.comparing.channels import Channel
from isodepth.comparing.forms import Split
from isodepth.comparing.models_in_use import Inference
from isodepth.comparing.multiplier import Exponent, Looping, Multiplier
from isodepth.comparing.pair import Cost, Method
from isodepth.comparing.paired_runs import Paired
from isodepth.comparing.sharing import Sharing
from isodepth.errors import InputError, reason
from isodepth.files import read_whole
from isodepth.fitting.law_free import Worth
from isodepth.fitting.problem import Conventions
from isodepth.fitting.result import Interval
from isodepth.warned import Warned, from_json, to_json

FORMAT = 3


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
    more_runs: int | None  # that would resolve the laws' Δφ, where nothing better is known
    paired: Paired | None  # runs at equal r; None: the baseline's runs give no surface
    split: Split | None  # what the recipe changes at equal r; None likewise
    sharing: Sharing | None  # against untied runs; None: none are paired with looped ones
    delta_log_m: tuple[Worth, ...]  # Δ log m(r), an own one at every r, beside the form that holds
    compute_multiplier: tuple[Multiplier, ...]  # by r; () where it can't be told
    looping: Looping | None  # compute multipliers of r against r = 1; None likewise
    exponents: tuple[Exponent, ...]  # of the recipe's law less the baseline's
    channels: tuple[Channel, ...]
    inference: tuple[Inference, ...]
    cost: Cost | None
    sensitivity: tuple[Alternative, ...]
    published: Published | None  # for the shipped grid alone
    assumptions: tuple[str, ...]
    warnings: tuple[Warned, ...]

    def to_dict(self) -> dict[str, object]:
        """The contract of `compare --json`."""
        known = asdict(self)
        for name in ("conventions", "delta_phi", "channels", "ci95", "warnings", "paired"):
            del known[name]
        paired = self.paired
        return {
            "format": FORMAT,
            **known,
            **to_json(self.warnings),
            **asdict(self.conventions),
            "ci95": {k: v for k, v in self.ci95.items() if k != "delta_phi"},
            "delta_phi": {"value": self.delta_phi, "ci95": self.ci95["delta_phi"]},
            "paired": [] if paired is None else [asdict(mean) for mean in paired.means],
            "paired_growth": paired and paired.growth and asdict(paired.growth),
            "paired_runs": [] if paired is None else [asdict(run) for run in paired.runs],
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
    paired = None
    if data["paired"]:
        paired = {
            "runs": data["paired_runs"],
            "means": data["paired"],
            "growth": data["paired_growth"],
            "n_matched": sum(run["matched"] for run in data["paired_runs"]),
        }
    plain = (
        {"sharing": None}
        | data
        | {  # before there were untied runs
            "conventions": data,
            "delta_phi": delta["value"],
            "ci95": data["ci95"] | {"delta_phi": delta["ci95"]},
            "paired": paired,
            "channels": [
                c | {"baseline": c["optimum_baseline"], "recipe": c["optimum_recipe"], "optimal": c}
                for c in data["channels"]
            ],
            "warnings": [],
        }
    )
    found: Comparison = _revived(Comparison, plain)
    return replace(found, warnings=from_json(data))


def _revived(kind: Any, data: Any) -> Any:
    """A value of a type made of frozen dataclasses, tuples, dictionaries and plain values."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{f.name: _revived(hints[f.name], data[f.name]) for f in fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        if data is None:
            return None
        return _revived(next(a for a in arguments if a is not type(None)), data)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_revived(arguments[0], one) for one in data)
        return tuple(_revived(a, one) for a, one in zip(arguments, data, strict=True))
    if origin is dict:
        return {name: _revived(arguments[1], one) for name, one in data.items()}
    return data

"""What a sweep is asked for: a preset or a TOML file of the user's, checked where it enters."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from isodepth.accounting import Injection
from isodepth.errors import InputError, reason
from isodepth.model.config import padded
from isodepth.planning.cost import DEVICES, Device, processor
from isodepth.planning.grid import Backprop, Budget, Recipe, Shape
from isodepth.runs.checks import MOST_FLOPS
from isodepth.training.config import TrainConfig

PRESETS = Path(__file__).parents[1] / "presets"

_SHAPE = tuple(f.name for f in dataclasses.fields(Shape) if f.name != "vocab")
# A plan sets these itself, run by run.
_PER_RUN = frozenset(
    {
        "data", "out", "recipe", "run_id", "seed", "width", "recurrences", "injection", "lanes",
        "backprop_last", "flops", "tokens", "tokens_per_param", "budget_flops", "tensorboard",
        "wandb",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """How to prepare the text: what `isodepth data prepare` takes."""

    source: str = "stdlib"
    tokenizer: str = "bpe:4096"
    validation: float = 0.05  # share of documents
    seed: int = 0
    subset: str | None = None
    max_documents: int | None = None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A sweep before widths, steps and costs are worked out."""

    name: str
    description: str
    recipes: tuple[Recipe, ...]
    budgets: tuple[Budget, ...]
    train: dict[str, Any]  # TrainConfig fields that all runs share
    vocabulary: int  # of the tokenizer, before padding
    data: DataSpec | None = None  # None: the user names a prepared folder
    seeds: int = 1  # replicates of every run
    n_widths: int = 5  # where a budget names none
    adaptive: bool = False  # later budgets' widths wait for the first budget's results
    command: str | None = None  # template of another trainer's command line
    device: str = "cpu"  # what times are estimated for
    rates: dict[str, float] | None = None  # its training FLOP/s by width; None: what we assume
    memory_gb: float | None = None  # its memory, 1e9 bytes; None: what we know of it

    @property
    def shape(self) -> Shape:
        """What all models have in common."""
        given = {name: self.train[name] for name in _SHAPE if name in self.train}
        return Shape(vocab=padded(self.vocabulary), **given)

    @property
    def processor(self) -> Device:
        """The device, as the user knows it."""
        return processor(self.device, rates=self.rates, memory_gb=self.memory_gb)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `spec_from_json` reads them back."""
        return dataclasses.asdict(self)


def preset_names() -> list[str]:
    """The presets that ship."""
    return sorted(file.stem for file in PRESETS.glob("*.toml"))


def read_spec(source: str) -> Spec:
    """The preset or TOML file that `source` names. Raises InputError where it can't be used."""
    file = PRESETS / f"{source}.toml"
    if source not in preset_names():
        file = Path(source)
        if file.suffix != ".toml":
            raise InputError(
                f"{source!r} is no preset ({', '.join(preset_names())}) and no .toml file"
            )
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{source} can't be read: {reason(error)}") from error
    return spec_of(content, name=file.stem, where=source)


def spec_of(content: dict[str, Any], *, name: str, where: str) -> Spec:
    """A spec from the tables of a preset: data, train, plan, recipes, budgets.

    Raises InputError, naming the place, for unknown or missing keys and values of a wrong kind.
    """
    content = dict(content)
    read = _Reader(where)
    description = content.pop("description", "")
    train = read.table(content.pop("train", {}), "train", TrainConfig, without=_PER_RUN)
    data = content.pop("data", None)
    plan = read.table(
        content.pop("plan", {}),
        "plan",
        Spec,
        without=frozenset({"name", "description", "recipes", "budgets", "train", "data"}),
    )
    recipes = [
        Recipe(**_tuples(read.table(one, f"recipes[{i}]", Recipe, needs=("name", "recurrences"))))
        for i, one in enumerate(read.tables(content.pop("recipes", []), "recipes"))
    ]
    budgets = [
        Budget(**_tuples(read.table(one, f"budgets[{i}]", Budget, needs=("flops",))))
        for i, one in enumerate(read.tables(content.pop("budgets", []), "budgets"))
    ]
    parsed = None if data is None else DataSpec(**read.table(data, "data", DataSpec))
    read.problems += [f"{where}: unknown key {key!r}" for key in sorted(content)]
    if "vocabulary" not in plan:
        known = None if parsed is None else vocabulary_of(parsed.tokenizer)
        if known is None:
            read.problems.append(
                f"{where}: plan.vocabulary is missing, and follows from no tokenizer `bytes` or "
                "`bpe:SIZE`"
            )
        plan["vocabulary"] = known or 0
    read.raise_problems()
    spec = Spec(
        name=name,
        description=str(description),
        recipes=tuple(recipes),
        budgets=tuple(budgets),
        train=train,
        data=parsed,
        **plan,
    )
    try:
        return checked(spec)
    except InputError as error:
        raise InputError([f"{where}: {problem}" for problem in error.problems]) from error


def checked(spec: Spec) -> Spec:
    """The spec itself. Raises InputError, naming every fault, where its values make no sweep."""
    problems = _problems(spec)
    if problems:
        raise InputError(problems)
    return spec


def vocabulary_of(tokenizer: str) -> int | None:
    """Entries of a tokenizer that is named by its size; None for a file."""
    if tokenizer == "bytes":
        return 257
    size = tokenizer.removeprefix("bpe:")
    return int(size) if tokenizer.startswith("bpe:") and size.isdecimal() else None


def _problems(spec: Spec) -> list[str]:
    problems = []
    for recipe in spec.recipes:
        if recipe.injection not in get_args(Injection):
            problems.append(f"recipe {recipe.name}: no injection is called {recipe.injection!r}")
        if recipe.backprop not in get_args(Backprop):
            problems.append(f"recipe {recipe.name}: backprop is all or half, not {recipe.backprop}")
        if not recipe.recurrences or not all(_whole(r) for r in recipe.recurrences):
            problems.append(f"recipe {recipe.name}: recurrences must be whole numbers from 1")
        if not recipe.name or not all(c.isalnum() or c in "-_." for c in recipe.name):
            problems.append(f"recipe {recipe.name!r}: a name is letters, digits, '-', '_' and '.'")
    for budget in spec.budgets:
        if not isinstance(budget.flops, float | int) or not 1 <= budget.flops <= MOST_FLOPS:
            problems.append(
                f"budget {budget.flops!r} must be a positive number of FLOPs, 1 to {MOST_FLOPS:g}"
            )
        for name in ("widths", "recurrences"):
            if not all(_whole(value) for value in getattr(budget, name) or ()):
                problems.append(f"budget {budget.flops!r}: {name} must be whole numbers from 1")
    for name in ("seeds", "n_widths", "vocabulary"):
        if not _whole(getattr(spec, name)):
            problems.append(f"plan.{name} must be a whole number from 1")
    if not spec.recipes:
        problems.append("a sweep needs at least one recipe")
    if not spec.budgets:
        problems.append("a sweep needs at least one budget in training FLOPs")
    for width, rate in (spec.rates or {}).items():
        if not (str(width).isdecimal() and int(width) > 0 and _positive(rate)):
            problems.append(f"plan.rates: {width} = {rate!r} is no width with its FLOP/s")
    if spec.memory_gb is not None and not _positive(spec.memory_gb):
        problems.append("plan.memory_gb must be a positive number of gigabytes")
    if spec.device not in DEVICES:
        problems.append(f"plan.device {spec.device!r} is not one of {', '.join(DEVICES)}")
    return problems


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _positive(value: object) -> bool:
    return isinstance(value, float | int) and 0 < value < float("inf")


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}


class _Reader:
    """Checks the keys of tables and gathers what is wrong with them."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[str] = []

    def table(
        self,
        content: object,
        place: str,
        kind: type,
        *,
        without: frozenset[str] = frozenset(),
        needs: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """The table, if all of its keys are fields of `kind`, a dataclass."""
        if not isinstance(content, dict):
            self.problems.append(f"{self.where}: {place} is not a table")
            return dict.fromkeys(needs)
        known = {f.name for f in dataclasses.fields(kind)} - without
        self.problems += [
            f"{self.where}: unknown key {key!r} in {place}; known are {', '.join(sorted(known))}"
            for key in sorted(content.keys() - known)
        ]
        self.problems += [
            f"{self.where}: {place} lacks {key!r}" for key in needs if key not in content
        ]
        known_values = {key: value for key, value in content.items() if key in known}
        return known_values | dict.fromkeys(set(needs) - content.keys())

    def tables(self, content: object, place: str) -> list[object]:
        if isinstance(content, list):
            return content
        self.problems.append(f"{self.where}: {place} is not a list of tables [[{place}]]")
        return []

    def raise_problems(self) -> None:
        if self.problems:
            raise InputError(self.problems)

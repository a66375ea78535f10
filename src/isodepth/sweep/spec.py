"""What a sweep is asked for: a preset or a TOML file of the user's, checked where it enters."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isodepth.decoding import fields_of
from isodepth.errors import InputError, reason
from isodepth.files import read_whole
from isodepth.model.config import padded
from isodepth.planning.cost import DEVICES, Device, processor
from isodepth.planning.grid import Budget, Recipe, Shape
from isodepth.runs.checks import MOST_FLOPS
from isodepth.runs.sweeps import is_name
from isodepth.training.config import TrainConfig

PRESETS = Path(__file__).parents[1] / "presets"

_SHAPE = tuple(f.name for f in dataclasses.fields(Shape) if f.name != "vocab")
# A plan sets these itself, run by run.
_PER_RUN = frozenset(
    {
        "data", "out", "recipe", "run_id", "seed", "width", "recurrences", "injection", "lanes",
        "backprop_last", "untied", "flops", "tokens", "tokens_per_param", "budget_flops",
        "tensorboard", "wandb",
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


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """A preset's tables beside `train` and `plan`."""

    description: str = ""
    recipes: tuple[Recipe, ...] = ()
    budgets: tuple[Budget, ...] = ()
    data: DataSpec | None = None


# What a preset's `plan` table doesn't hold of a Spec.
_NOT_PLAN = frozenset({"name", "description", "recipes", "budgets", "train", "data"})
# Beyond these something was mistyped, and making the plan would not end.
_MOST = {"seeds": 10_000, "n_widths": 1_000, "vocabulary": 10**9}
_MOST_RECURRENCES = 10**5
_WIDEST = 10**7
_MOST_RUNS = 100_000


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
        content = tomllib.loads(read_whole(file))
    except (OSError, ValueError) as error:
        raise InputError(f"{source} can't be read: {reason(error)}") from error
    return spec_of(content, name=file.stem, where=source)


def spec_of(content: dict[str, Any], *, name: str, where: str) -> Spec:
    """A spec from the tables of a preset: data, train, plan, recipes, budgets.

    Raises InputError, naming the place, for unknown or missing keys and values of a wrong kind.
    """
    problems: list[str] = []

    def table(key: str, kind: type, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        known = frozenset(f.name for f in dataclasses.fields(kind)) - without
        return fields_of(
            content.get(key, {}), kind, where=where, place=key, known=known, problems=problems
        )

    top = fields_of(
        {key: value for key, value in content.items() if key not in ("train", "plan")},
        _Lists,
        where=where,
        place="",
        known=frozenset(f.name for f in dataclasses.fields(_Lists)),
        problems=problems,
    )
    train = table("train", TrainConfig, _PER_RUN)
    given = content.get("plan")
    unnamed = not (isinstance(given, dict) and "vocabulary" in given)
    plan = table("plan", Spec, _NOT_PLAN | ({"vocabulary"} if unnamed else set()))
    parsed = top.get("data")
    if unnamed:
        known = None if parsed is None else vocabulary_of(parsed.tokenizer)
        if known is None and not problems:
            problems.append(
                f"{where}: plan.vocabulary is missing, and follows from no tokenizer `bytes` or "
                "`bpe:SIZE`"
            )
        plan["vocabulary"] = known or 0
    if problems:
        raise InputError(problems)
    spec = Spec(
        name=name,
        description=top.get("description", ""),
        recipes=top.get("recipes", ()),
        budgets=top.get("budgets", ()),
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
        if not recipe.recurrences or not _all_within(recipe.recurrences, _MOST_RECURRENCES):
            problems.append(
                f"recipe {recipe.name}: recurrences must be whole numbers from 1 to "
                f"{_MOST_RECURRENCES}"
            )
        if not is_name(recipe.name):
            problems.append(
                f"recipe {recipe.name!r}: a name is letters, digits, '-', '_' and '.', not first"
            )
    problems += _untied_problems(spec)
    for budget in spec.budgets:
        if not 1 <= budget.flops <= MOST_FLOPS:
            problems.append(
                f"budget {budget.flops!r} must be a positive number of FLOPs, 1 to {MOST_FLOPS:g}"
            )
        for name, most in (("widths", _WIDEST), ("recurrences", _MOST_RECURRENCES)):
            if not _all_within(getattr(budget, name) or (), most):
                problems.append(
                    f"budget {budget.flops!r}: {name} must be whole numbers from 1 to {most}"
                )
    for name, most in _MOST.items():
        if not 1 <= getattr(spec, name) <= most:
            problems.append(f"plan.{name} must be a whole number from 1 to {most}")
    runs = spec.seeds * sum(
        len(budget.arms(spec.recipes)) * len(budget.widths or range(spec.n_widths))
        for budget in spec.budgets
    )
    if runs > _MOST_RUNS and not problems:
        problems.append(f"these are {runs} runs; a sweep takes {_MOST_RUNS} at most")
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


def _untied_problems(spec: Spec) -> list[str]:
    problems = []
    known = {recipe.name: recipe for recipe in spec.recipes}
    for recipe in spec.recipes:
        where = f"recipe {recipe.name}"
        if not recipe.untied:
            if recipe.of is not None:
                problems.append(f"{where}: of = {recipe.of!r} goes with untied = true")
            continue
        if recipe.of is None or recipe.of == recipe.name:
            problems.append(f"{where}: untied = true needs of, the recipe whose graph it has")
            continue
        if min(recipe.recurrences, default=2) < 2:
            problems.append(f"{where}: untied needs recurrences of 2 or more, one pass is one pass")
        tied = known.get(recipe.of)
        if "half" in (recipe.backprop, "all" if tied is None else tied.backprop):
            problems.append(
                f"{where}: without gradient the first passes' own blocks would never learn; the "
                "control of a truncated recipe is the untied one with gradient through all passes"
            )
        elif tied is not None and tied.untied:
            problems.append(f"{where}: {tied.name} is untied itself")
        elif tied is not None and _graph(tied) != _graph(recipe):
            problems.append(
                f"{where}: it is to have the graph of {tied.name}, whose injection is "
                f"{tied.injection} with lanes = {tied.lanes}, not {recipe.injection} with "
                f"{recipe.lanes}"
            )
    if spec.adaptive and any(recipe.untied for recipe in spec.recipes):
        problems.append("an adaptive plan takes no untied recipes: give widths, or no --adaptive")
    return problems


def _graph(recipe: Recipe) -> tuple[str, int | None]:
    return recipe.injection, recipe.lanes if recipe.injection == "hyperconnections" else None


def _all_within(values: tuple[int, ...], most: int) -> bool:
    return all(1 <= value <= most for value in values)


def _positive(value: float) -> bool:
    return 0 < value < float("inf")

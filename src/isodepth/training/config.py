"""Everything that decides a training run, checked where it enters. No torch here."""

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from isodepth.accounting import Account, Injection
from isodepth.errors import InputError, reason
from isodepth.model.config import HEAD_SIZE, LoopedConfig

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
RunPrecision = Literal["fp32", "tf32", "bf16"]  # what `auto` has become
LongDocuments = Literal["split", "crop"]  # what packing does with those longer than a row

# What may differ between the start of a run and its resumption: none of it is meant to change a
# loss. (On one machine; `device` and `compile` change the rounding, so they are not among them.)
FREE_SETTINGS = frozenset(
    {
        "data", "out", "budget_flops", "log_every", "validate_every", "checkpoint_seconds",
        "tensorboard", "wandb",
    }
)  # fmt: skip


def _setting(default: Any = dataclasses.MISSING, *, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Exactly one of `flops`, `tokens` and `tokens_per_param` is given.

    Raises InputError, naming every fault, for values that can't be trained with.
    """

    data: Path = _setting(help="folder made by `isodepth data prepare`")
    out: Path = _setting(help="folder of the run: log, checkpoints, record.json")
    recipe: str = _setting("baseline", help="name of the recipe in the run table")
    run_id: str | None = _setting(None, help="name of the run in the run table; default: OUT's")
    seed: int = _setting(0, help="of the initialisation and of the order of rows")

    width: int = _setting(help="model width d")
    recurrences: int = _setting(help="passes r through the recurrent block")
    depth: int = _setting(20, help="effective depth: prelude + r * recurrent + coda blocks")
    prelude: int = _setting(2, help="blocks before the loop")
    coda: int = _setting(2, help="blocks after the loop")
    head_size: int = _setting(HEAD_SIZE, help="width of an attention head")
    injection: Injection = _setting("linear", help="how the prelude's output enters each pass")
    lanes: int = _setting(2, help="lanes of hyperconnections")
    backprop_last: int | None = _setting(None, help="passes that carry gradient; default: all")
    untied: bool = _setting(
        False, help="blocks of its own for every pass: the unlooped control of a looped run"
    )
    recompute: bool = _setting(False, help="recompute passes in the backward to save memory")

    sequence_length: int = _setting(2048, help="tokens in a row")
    batch_tokens: int = _setting(2**18, help="tokens in a step, over all ranks")
    long_documents: LongDocuments = _setting(
        "split", help="documents longer than a row: split into pieces, or crop as published"
    )
    flops: float | None = _setting(None, help="budget in training FLOPs")
    tokens: int | None = _setting(None, help="budget in tokens")
    tokens_per_param: float | None = _setting(
        None, help="budget in tokens per unique non-embedding parameter"
    )
    budget_flops: float | None = _setting(
        None, help="nominal budget of the run's iso-FLOP group in the run table; default: FLOPS"
    )

    device: Device = _setting("auto", help="auto takes a GPU where there is one")
    precision: Precision = _setting(
        "auto", help="of products: auto is bf16 autocast on a GPU, else fp32"
    )
    micro_batch: int | None = _setting(
        None, help="rows that one rank handles at once; default: found automatically"
    )
    compile: bool = _setting(False, help="compile the model with torch.compile")
    deterministic: bool = _setting(
        False, help="on a GPU, only kernels that repeat to the bit (a CPU always does)"
    )

    log_every: int = _setting(1, help="steps between two lines of the log")
    validate_every: int | None = _setting(
        None, help="steps between two validations; default: only at the end"
    )
    checkpoint_seconds: float = _setting(300.0, help="between two checkpoints; 0: at every step")
    tensorboard: bool = _setting(False, help="log to OUT/tensorboard as well")
    wandb: str | None = _setting(None, help="log to this Weights & Biases project as well")

    def __post_init__(self) -> None:
        problems = _type_problems(self)
        if problems:
            raise InputError(problems)
        least = {"batch_tokens": 1, "sequence_length": 1, "log_every": 1}
        least |= dict.fromkeys(("micro_batch", "validate_every", "tokens"), 1)
        for name, floor in least.items():
            value = getattr(self, name)
            if value is not None and value < floor:
                problems.append(f"{name} = {value} must be at least {floor}")
        for name in ("flops", "tokens_per_param", "budget_flops"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                problems.append(f"{name} = {value} must be positive and finite")
        if not 0 <= self.checkpoint_seconds < float("inf"):
            problems.append(f"checkpoint_seconds = {self.checkpoint_seconds} must be 0 or more")
        if self.sequence_length >= 1 and self.batch_tokens % self.sequence_length:
            problems.append(
                f"batch_tokens = {self.batch_tokens} is not a whole number of rows of "
                f"sequence_length = {self.sequence_length} tokens"
            )
        names = ("flops", "tokens", "tokens_per_param")
        budgets = [name for name in names if getattr(self, name) is not None]
        if len(budgets) != 1:
            given = " and ".join(budgets) or "none"
            problems.append(
                f"give exactly one budget: flops, tokens or tokens_per_param (given: {given})"
            )
        if self.precision in ("tf32", "bf16") and self.device == "cpu":
            problems.append(f"precision {self.precision} needs a GPU")
        try:
            self.model(vocabulary=1)
        except InputError as error:
            problems += error.problems
        if problems:
            raise InputError(problems)

    @property
    def batch_rows(self) -> int:
        """Rows in a step, over all ranks."""
        return self.batch_tokens // self.sequence_length

    @property
    def name(self) -> str:
        """The run's name in the run table."""
        return self.run_id if self.run_id is not None else self.out.resolve().name

    def model(self, *, vocabulary: int) -> LoopedConfig:
        """The model's shape for a tokenizer of so many entries."""
        return LoopedConfig.iso_depth(
            width=self.width,
            recurrences=self.recurrences,
            depth=self.depth,
            prelude=self.prelude,
            coda=self.coda,
            head_size=self.head_size,
            injection=self.injection,
            lanes=self.lanes,
            backprop_last=self.backprop_last,
            recompute=self.recompute,
            untied=self.untied,
            vocab=vocabulary,
            sequence_length=self.sequence_length,
        )

    def steps(self, account: Account) -> int:
        """Whole steps nearest to the budget, at least one."""
        if self.flops is not None:
            tokens = self.flops / account.flops_per_token
        elif self.tokens_per_param is not None:
            tokens = self.tokens_per_param * account.n_total
        else:
            tokens = float(self.tokens or 0)
        return max(1, round(tokens / self.batch_tokens))

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `from_mapping` reads them."""
        plain = dataclasses.asdict(self)
        return {name: str(v) if isinstance(v, Path) else v for name, v in plain.items()}

    @classmethod
    def from_mapping(cls, values: dict[str, Any], *, where: str) -> Self:
        """A config from plain values, such as a TOML table; None counts as not given.

        Raises InputError for unknown or missing keys and bad values; `where` begins the message.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        values = {name: value for name, value in values.items() if value is not None}
        problems = [f"{where}: unknown key {name!r}" for name in sorted(values.keys() - known)]
        problems += [
            f"{where}: {name} is missing ({f.metadata['help']})"
            for name, f in known.items()
            if f.default is dataclasses.MISSING and name not in values
        ]
        if problems:
            raise InputError(problems)
        for name in ("data", "out"):
            if isinstance(values[name], str):
                values[name] = Path(values[name])
        try:
            return cls(**values)
        except InputError as error:
            raise InputError([f"{where}: {problem}" for problem in error.problems]) from error


def read_toml(file: Path) -> dict[str, Any]:
    """The keys of a TOML config; raises InputError where the file can't be read."""
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"config {file} can't be read: {reason(error)}") from error


def changed_settings(old: dict[str, Any], new: TrainConfig) -> list[str]:
    """How `new` differs from the JSON of the config that started a run, where that matters."""
    current = new.to_json()
    old = {"untied": False} | old  # runs begun before it could be set
    return [
        f"{name} was {old.get(name)!r}, now {current[name]!r}"
        for name in current
        if name not in FREE_SETTINGS and old.get(name) != current[name]
    ]


def _type_problems(config: TrainConfig) -> list[str]:
    """What has the wrong type, whole numbers being welcome where fractions are."""
    problems = []
    for name, hint in typing.get_type_hints(TrainConfig).items():
        value = getattr(config, name)
        if typing.get_origin(hint) is types.UnionType:
            if value is None:
                continue
            (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        if typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            if value not in choices:
                problems.append(f"{name} = {value!r} is not one of {', '.join(choices)}")
            continue
        accepted = (int, float) if hint is float else (hint,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            problems.append(f"{name} = {value!r} must be of type {hint.__name__}")
    return problems

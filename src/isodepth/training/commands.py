"""The commands `train`, `data` and `generate`. Torch is imported only when one of them runs."""

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from isodepth.errors import InputError
from isodepth.output import Output
from isodepth.training.config import TrainConfig, read_toml


def _flags() -> list[tuple[str, Any, Any]]:
    """A flag for every field of `TrainConfig`; None, or a switch that is off, is "not given"."""
    flags: list[tuple[str, Any, Any]] = []
    for name, hint in typing.get_type_hints(TrainConfig).items():
        setting = TrainConfig.__dataclass_fields__[name]
        required = setting.default is dataclasses.MISSING
        shown = "(required)" if required else f"(default: {setting.default})"
        switch = hint is bool
        if switch or setting.default is None:
            shown = ""
        help_text = tyro.conf.arg(
            help=setting.metadata["help"],
            help_behavior_hint=shown,
            aliases=["-r"] if name == "recurrences" else None,
        )
        flags.append(
            (name, Annotated[hint if switch else hint | None, help_text], False if switch else None)
        )
    return flags


_Settings: type = dataclasses.make_dataclass(
    "_Settings",
    [(name, hint, dataclasses.field(default=default)) for name, hint, default in _flags()],
    frozen=True,
    kw_only=True,
)


@dataclass(frozen=True, kw_only=True)
class Train(Output, _Settings):  # type: ignore[misc]  # a class made from TrainConfig's fields
    """Train one looped language model, or go on with a run that was interrupted.

    Settings come from --config, then from flags, which win. Run again with the same settings to
    go on after an interruption. Under torchrun every rank trains on its share of each batch.
    """

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """TOML file whose keys are the settings below; unknown keys are errors"""

    def settings(self) -> TrainConfig:
        """The run that file and flags describe; raises InputError where they can't be used."""
        given = {} if self.config is None else read_toml(self.config)
        where = "settings" if self.config is None else str(self.config)
        for field in dataclasses.fields(TrainConfig):
            value = getattr(self, field.name)
            if value is not None and value is not False:
                given[field.name] = value
        return TrainConfig.from_mapping(given, where=where)

    def run(self) -> None:
        config = self.settings()
        _need_torch()
        from isodepth.training.trainer import train

        record = train(config, quiet=self.quiet)
        if _first_rank():
            run = record["run"]
            loss = "" if run["loss"] is None else f", validation loss {run['loss']:.6f}"
            self.say(
                f"{run['status']}: {record['steps']} of {record['steps_planned']} steps, "
                f"{run['tokens']:,} tokens, {run['flops']:.3g} FLOPs{loss}; see {config.out}"
            )
            self.write(record)


@dataclass(frozen=True, kw_only=True)
class Prepare(Output):
    """Tokenise text into a data set that `isodepth train --data` reads."""

    source: tyro.conf.Positional[str]
    """`stdlib`, a file or folder of text, JSON Lines or Parquet, or a Hugging Face owner/name"""
    out: Path
    """the new folder"""
    tokenizer: str = "bpe:4096"
    """`bpe:SIZE` trained on the source, `bytes`, or a tokenizer.json"""
    validation: float = 0.05
    """share of documents held out"""
    seed: int = 0
    """decides which documents are held out"""
    column: str = "text"
    """the field with the text, in JSON Lines, Parquet and Hugging Face data"""
    separator: str | None = None
    """splits text files into documents; otherwise each file is one"""
    subset: str | None = None
    """configuration of a Hugging Face data set, such as sample-10BT"""
    max_documents: int | None = None
    """read only so many documents, the first ones; default: all"""
    start_token: str | None = None
    """the token of a tokenizer.json that begins a document, if it isn't a common one"""

    def run(self) -> None:
        from isodepth.training.prepare import prepare
        from isodepth.training.sources import open_source

        def progress(documents: int, tokens: int) -> None:
            self.say(f"{documents:,} documents, {tokens:,} tokens")

        source = open_source(
            self.source,
            column=self.column,
            separator=self.separator,
            subset=self.subset,
            max_documents=self.max_documents,
        )
        header = prepare(
            source,
            self.out,
            tokenizer=self.tokenizer,
            validation_fraction=self.validation,
            seed=self.seed,
            start_token=self.start_token,
            on_progress=progress,
        )
        self.say(
            f"{self.out}: vocabulary {header.vocabulary:,}, training on "
            f"{header.tokens('train'):,} tokens of {header.documents('train'):,} documents, "
            f"validation on {header.tokens('validation'):,} of {header.documents('validation'):,}"
        )
        self.write(header.to_json())


@dataclass(frozen=True, kw_only=True)
class Check(Output):
    """Read a prepared data set once and compare every checksum."""

    folder: tyro.conf.Positional[Path]
    """made by `isodepth data prepare`"""

    def run(self) -> None:
        from isodepth.training.data import open_data

        data = open_data(self.folder)
        data.verify()
        self.say(f"{self.folder}: every checksum is right")
        self.write(data.header.to_json())


@dataclass(frozen=True, kw_only=True)
class Data:
    """Prepare text for training, or check what was prepared."""

    action: tyro.conf.OmitArgPrefixes[
        tyro.conf.OmitSubcommandPrefixes[
            Annotated[Prepare, tyro.conf.subcommand("prepare")]
            | Annotated[Check, tyro.conf.subcommand("check")]
        ]
    ]

    def run(self) -> None:
        self.action.run()


@dataclass(frozen=True, kw_only=True)
class Generate(Output):
    """Write text with a trained model."""

    folder: tyro.conf.Positional[Path]
    """of a run made by `isodepth train`"""
    prompt: str = ""
    """what the text begins with; nothing is the start of a document"""
    max_new: int = 100
    """tokens to add; prompt and new ones must fit a row of the training"""
    temperature: float = 0.8
    """of the sampling; 0 takes the likeliest token"""
    seed: int = 0
    """of the sampling"""
    kv_passes: int | None = None
    """keep keys and values of only the last so many of r passes; default: all, which is exact"""
    recurrences: int | None = None
    """passes through the recurrent block; default: as trained"""

    def run(self) -> None:
        _need_torch()
        from isodepth.model.generate import generate
        from isodepth.training.inference import load_trained

        trained = load_trained(self.folder)
        for note in trained.notes:
            self.say(note)
        prompt = [trained.state.start, *trained.tokenizer.encode([self.prompt])[0].tolist()]
        tokens = generate(
            trained.model,
            prompt,
            max_new=self.max_new,
            temperature=self.temperature,
            seed=self.seed,
            kv_passes=self.kv_passes,
            recurrences=self.recurrences,
            stop_id=trained.state.start,
        )
        text = trained.tokenizer.decode(tokens)
        if self.json != "-":
            print(self.prompt + text)
        self.write(
            {
                "prompt": self.prompt,
                "text": text,
                "tokens": tokens,
                "step": trained.state.step,
                "run": trained.state.config["run_id"] or self.folder.resolve().name,
            }
        )


def _need_torch() -> None:
    try:
        import safetensors
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError("training needs `pip install isodepth[train]`") from error
    del safetensors


def _first_rank() -> bool:
    """Whether this process speaks for all that `torchrun` started."""
    import os

    return os.environ.get("RANK", "0") == "0"

"""The commands `import`, `export` and `cite`: what goes in from elsewhere, and out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from isodepth.errors import InputError
from isodepth.output import Output

if TYPE_CHECKING:
    from isodepth.runs import Runs

Pairs = Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="COLUMN=VALUE")]
TableFile = Annotated[Path, arg(metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class ImportCommand(Output):
    """Make a run table of runs that another trainer logged: a Weights & Biases export, any table
    with one row a run, or a folder of logs."""

    source: Annotated[
        Positional[str],
        arg(metavar="SOURCE", help="table (CSV, Parquet, JSON, Excel) or folder of trainer logs"),
    ]
    out: TableFile
    """the run table: .csv, .parquet or .jsonl"""
    map: Annotated[Pairs, arg(metavar="COLUMN=THEIRS")] = ()
    """the run table's column and the source's, or what + - * / make of several:
    loss=val/loss tokens=step*config.batch_tokens n_once=n_total-n_emb"""
    set: Pairs = ()
    """a column that is the same for every run: recipe=mine"""
    finished: Annotated[str | None, arg(metavar="THEIRS=TARGET")] = None
    """runs are finished where this column has come to its target, a column or a number; others are
    marked interrupted"""
    at: Annotated[str | None, arg(metavar="THEIRS=VALUE")] = None
    """logs and histories: rows that agree in this column count as one; which one to read, or 'last'
    with a loss (default: the last row with a loss)"""
    line: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PATTERN")] = ()
    """text logs: what a line looks like, 'step:{step}/{steps} train_loss:{loss}', or the trainer
    that wrote it: nanogpt, nanochat, modded-nanogpt; may be given several times"""
    rows: Literal["auto", "runs", "history"] = "auto"
    """tables: one row a run, or a history with a row a step; by default told by names and steps"""
    account: Annotated[Pairs, arg(metavar="NAME=VALUE")] = ()
    """count n_once, n_rec, n_inject and flops_per_token as `isodepth account` does, from width,
    recurrences and: depth=20 prelude=2 coda=2 injection=linear vocab=32064 sequence_length=2048;
    a value may be a column"""

    def run(self) -> None:
        from isodepth.runs.expressions import listed
        from isodepth.runs.importing import import_runs
        from isodepth.runs.writing import check_ending, write_runs

        check_ending(self.out)
        found = import_runs(
            self.source,
            columns=_pairs("map", self.map),
            constants=_pairs("set", self.set),
            at=None if self.at is None else _pair("at", self.at),
            finished=None if self.finished is None else _pair("finished", self.finished),
            lines=self.line,
            rows=self.rows,
            shape=_pairs("account", self.account) or None,
        )
        write_runs(found.runs, self.out)
        for column, origin in found.columns.items():
            self.say(f"{column} ← {origin}")
        if found.others:
            self.say(f"{len(found.others)} others kept as they are: {listed(found.others)}")
        self.write(
            _told(self, found.runs, self.out)
            | {"columns": found.columns, "others": list(found.others)}
        )


@dataclass(frozen=True, kw_only=True)
class ExportCommand(Output):
    """Write any source of runs as one table."""

    runs: Annotated[
        Positional[str],
        arg(metavar="RUNS", help="run table, folder of runs or of a sweep, or 'published'"),
    ]
    out: TableFile
    """the table: .csv, .parquet or .jsonl"""

    def run(self) -> None:
        from isodepth.runs import load_runs
        from isodepth.runs.writing import check_ending, write_runs

        check_ending(self.out)
        runs = load_runs(self.runs)
        write_runs(runs, self.out)
        self.write(_told(self, runs, self.out))


@dataclass(frozen=True, kw_only=True)
class CiteCommand(Output):
    """Print what to cite, as BibTeX: the paper of φ and the law, and isodepth."""

    def run(self) -> None:
        from isodepth.citation import bibtex

        text = bibtex(version("isodepth"))
        self.write({"bibtex": text})
        if not self.quiet and self.json != "-":
            sys.stdout.write(text + "\n")


def _told(output: Output, runs: Runs, file: Path) -> dict[str, object]:
    """Say what a table holds; the same as JSON."""
    counts = {str(k): int(v) for k, v in runs.frame["status"].value_counts().items()}
    for note in runs.notes:
        output.say(note)
    words = ", ".join(f"{n} {status}" for status, n in counts.items())
    output.say(f"{len(runs)} runs ({words}): {file}")
    return {"file": str(file), "n_runs": len(runs), "counts": counts, "notes": list(runs.notes)}


def _pairs(option: str, given: Sequence[Sequence[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in (text for group in given for text in group):
        name, value = _pair(option, text)
        if name in found:
            raise InputError(f"--{option} gives {name} twice: {found[name]} and {value}")
        found[name] = value
    return found


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise InputError(f"--{option} {text}: write it as NAME=VALUE")
    return name, value

"""The command line: parse, call one function, print. The contract is in the README."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import RenderableType
from tyro.conf import Positional, arg

from isodepth.errors import InputError
from isodepth.exchange import CiteCommand, ExportCommand, ImportCommand
from isodepth.output import Output
from isodepth.sweep.commands import (
    CollectCommand,
    PlanCommand,
    StatusCommand,
    SweepCommand,
)
from isodepth.sweep.measure_command import MeasureCommand
from isodepth.sweep.power_command import PowerCommand
from isodepth.terminal import console, prepare_streams, printable
from isodepth.training.commands import Data, Generate, Train

RunsArgument = Annotated[
    Positional[str],
    arg(
        metavar="RUNS",
        help="CSV, Parquet or JSON Lines table, folder of runs, or 'published'",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Common(Output):
    """Options of every measuring command."""

    seed: int = 0
    """Seed of everything random."""

    def deliver(self, result: dict[str, Any], report: RenderableType) -> None:
        """Write the JSON, print the report."""
        self.write(result)
        if not self.quiet and self.json != "-":
            console().print(report)


@dataclass(frozen=True, kw_only=True)
class LawOptions(Common):
    """What is fitted, and how."""

    law: Literal["additive", "coupled"] = "additive"
    """L = E + A·N_eff^(−α) + B·D^(−β), or E + (A·N_eff^(−α) + B·D^(−β))^γ."""
    estimator: Literal["huber", "lsq"] = "huber"
    """Loss of the log-loss residuals, summed."""
    huber_delta: float = 1e-3
    """Huber's threshold on log-loss residuals."""
    count_injection: Literal["once", "rec", "none", "regressed"] = "once"
    """Where the injection's parameters are counted."""
    bootstrap: int = 1000
    """Resamples behind the intervals; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class FitOptions(LawOptions):
    """How to fit."""

    recipe: str | None = None
    """Which recipe; by default 'baseline', or the only one."""
    multiplicity: Literal["power", "free"] = "power"
    """m(r) = r^φ, or an m of its own for every r."""
    arms_differ: Literal["none", "tokens", "loss"] = "none"
    """One constant for all looped runs: κ on their tokens, or δ nats on their loss."""

    def fit(self, runs: Any, out: Path | None = None, *, at_budgets: tuple[float, ...] = ()) -> Any:
        """Fit, and write the folder where one is asked for, under one progress bar."""
        from isodepth.fitting import fit

        with self.fitting() as on_progress:
            result = fit(
                runs,
                recipe=self.recipe,
                law=self.law,
                multiplicity=self.multiplicity,
                estimator=self.estimator,
                count_injection=self.count_injection,
                huber_delta=self.huber_delta,
                arms_differ=self.arms_differ,
                bootstrap=self.bootstrap,
                seed=self.seed,
                at_budgets=at_budgets,
                on_progress=on_progress,
            )
            if out is not None:
                from isodepth.report.folder import write_folder

                on_progress("figures", 1.0)
                write_folder(runs, result, out)
        return result


@dataclass(frozen=True, kw_only=True)
class FitCommand(FitOptions):
    """Fit φ to a table of runs, with intervals and every diagnostic."""

    runs: RunsArgument
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for figures, the page, the report and fit.json."""
    latex: Annotated[Path | None, arg(metavar="FILE.tex")] = None
    """File for the law as a LaTeX table (booktabs)."""
    at_budgets: tuple[float, ...] = ()
    """Training FLOPs of a run at which φ is wanted, if it may drift with their logarithm."""

    def run(self) -> None:
        from isodepth.report.latex import fit_latex, write_latex
        from isodepth.report.tables import fit_report
        from isodepth.runs import load_runs

        result = self.fit(load_runs(self.runs), self.out, at_budgets=self.at_budgets)
        if self.latex is not None:
            write_latex(fit_latex(result), self.latex)
        self.deliver(result.to_dict(), fit_report(result))
        if self.out is not None:
            self.say(f"figures, report and fit.json: {self.out}")
            self.say_page(self.out)


@dataclass(frozen=True, kw_only=True)
class CompareCommand(LawOptions):
    """Did a recipe's loop get better, or did it see more tokens? Δφ and the split of the loss."""

    runs: RunsArgument
    recipe: tyro.conf.UseAppendAction[tuple[str, ...]]
    """Recipe to compare with the baseline; may be given several times."""
    baseline: str = "baseline"
    """Recipe to compare with."""
    method: Literal["separate", "joint"] = "separate"
    """A law of its own for each recipe, or one law for both."""
    vocab: int = 32064
    """Padded vocabulary, for the models' cost in use."""
    sequence_length: int = 2048
    """Tokens in a row, likewise."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for figures, the page, the report and comparison.json."""
    latex: Annotated[Path | None, arg(metavar="FILE.tex")] = None
    """File for φ and Δφ as a LaTeX table (booktabs)."""

    def run(self) -> None:
        from rich.console import Group

        from isodepth.comparing import compare
        from isodepth.report.compare_tables import compare_report
        from isodepth.report.latex import compare_latex, write_latex
        from isodepth.runs import load_runs

        if not self.recipe:
            raise InputError("name at least one recipe with --recipe")
        runs = load_runs(self.runs)
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("json", "quiet", "runs", "recipe", "out", "latex"):
            del given[name]
        with self.fitting() as on_progress:
            results = [
                compare(runs, recipe=name, on_progress=on_progress, **given)
                for name in dict.fromkeys(self.recipe)
            ]
            shown = [r.to_dict() for r in results]
            result = shown[0] if len(shown) == 1 else {"comparisons": shown}
            if self.out is not None:
                from isodepth.report.folder import write_compare_folder

                on_progress("figures", 1.0)
                text = json.dumps(result, allow_nan=False)
                write_compare_folder(runs, results, text, self.out)
        if self.latex is not None:
            write_latex(compare_latex(results), self.latex)
        self.deliver(result, Group(*(compare_report(r) for r in results)))
        if self.out is not None:
            self.say(f"figures, report and comparison.json: {self.out}")
            self.say_page(self.out)


@dataclass(frozen=True, kw_only=True)
class ReportCommand(Output):
    """The page, the figures and the report again: of a fit, of comparisons, of a sweep as it is."""

    folder: Annotated[
        Positional[Path],
        arg(metavar="DIR", help="what `fit --out`, `compare --out`, `measure` or `sweep` wrote"),
    ]

    def run(self) -> None:
        from isodepth.report.folder import holds_result, write_again
        from isodepth.runs.sweeps import PLAN_FILE

        if not holds_result(self.folder) and (self.folder / PLAN_FILE).exists():
            from isodepth.sweep.measure import measure_again

            with self.fitting() as on_progress:
                result = measure_again(self.folder, on_progress=on_progress)
            self.write(result.to_dict())
        else:
            self.write({"files": [str(file) for file in write_again(self.folder)]})
        self.say(f"figures and report: {self.folder}")
        self.say_page(self.folder)


@dataclass(frozen=True, kw_only=True)
class IsoflopCommand(Common):
    """Parabola minima of every (recipe, r, budget), and whether each is bracketed."""

    runs: RunsArgument

    def run(self) -> None:
        from isodepth.minima import isoflop
        from isodepth.report.tables import isoflop_report
        from isodepth.runs import load_runs

        result = isoflop(load_runs(self.runs))
        self.deliver(result.to_dict(), isoflop_report(result))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's shape."""

    depth: int = 20
    """Effective depth: prelude + r · recurrent + coda blocks."""
    prelude: int = 2
    """Blocks before the loop."""
    coda: int = 2
    """Blocks after the loop."""
    injection: Literal["linear", "additive", "passthrough", "hyperconnections"] = "linear"
    """How the prelude's output enters each pass."""
    lanes: int = 2
    """Lanes of hyperconnections."""
    backprop_last: int | None = None
    """Passes that carry gradient; by default all."""
    vocab: int = 32064
    """Padded vocabulary."""
    sequence_length: int = 2048
    """Tokens in a row."""

    def shape(self) -> dict[str, Any]:
        """These as arguments of `account` and `equivalent_to_width`."""
        return {field.name: getattr(self, field.name) for field in fields(Shape)}


@dataclass(frozen=True, kw_only=True)
class AccountCommand(Shape, Common):
    """Parameters and training FLOPs per token of a looped architecture."""

    width: int
    """Model width."""
    recurrences: Annotated[int, arg(aliases=["-r"])]
    """Passes through the recurrent block."""
    untied: bool = False
    """Every pass has blocks of its own: the unlooped control of the looped model."""

    def run(self) -> None:
        from isodepth.accounting import account
        from isodepth.report.tables import account_report

        result = account(
            width=self.width,
            recurrences=self.recurrences,
            untied=self.untied,
            **self.shape(),
        )
        self.deliver(asdict(result), account_report(result))


@dataclass(frozen=True, kw_only=True)
class EquivalentCommand(Shape, FitOptions):
    """The unlooped sizes of equal loss and of equal training cost, with intervals."""

    recurrences: Annotated[int, arg(aliases=["-r"])]
    """Passes through the recurrent block."""
    width: int | None = None
    """Model width; or give the counts."""
    n_once: int | None = None
    """Parameters used once per token."""
    n_rec: int | None = None
    """Parameters of the shared block."""
    n_inject: int | None = None
    """Parameters of the injection; goes with the counts, 0 if not given."""
    tokens: float | None = None
    """Training tokens of both models, where the size of equal loss depends on them."""
    runs: str | None = None
    """Run table to fit."""
    fit_file: Annotated[str | None, arg(name="fit", metavar="FIT.json")] = None
    """A fit written by `isodepth fit --json`."""

    def run(self) -> None:
        from isodepth.fitting import Fit
        from isodepth.planning.advice import equivalent_to_counts, equivalent_to_width
        from isodepth.report.tables import equivalence_report

        if (self.runs is None) == (self.fit_file is None):
            raise InputError("give either --runs or --fit")
        counts = (self.n_once, self.n_rec)
        by_counts = None not in counts
        if (self.width is None) != by_counts or (not by_counts and counts != (None, None)):
            raise InputError("give either --width, or both --n-once and --n-rec")
        if self.n_inject is not None and not by_counts:
            raise InputError("--n-inject goes with --n-once and --n-rec")
        fit = self.fit(self.runs) if self.fit_file is None else Fit.load(self.fit_file)
        if by_counts:
            assert self.n_once is not None and self.n_rec is not None
            result = equivalent_to_counts(
                fit,
                n_once=self.n_once,
                n_rec=self.n_rec,
                n_inject=self.n_inject or 0,
                recurrences=self.recurrences,
                tokens=self.tokens,
            )
        else:
            assert self.width is not None
            result = equivalent_to_width(
                fit,
                width=self.width,
                recurrences=self.recurrences,
                tokens=self.tokens,
                **self.shape(),
            )
        self.deliver(result.to_dict(), equivalence_report(result))


COMMANDS: dict[str, Any] = {
    "fit": FitCommand,
    "compare": CompareCommand,
    "report": ReportCommand,
    "isoflop": IsoflopCommand,
    "equivalent": EquivalentCommand,
    "account": AccountCommand,
    "plan": PlanCommand,
    "power": PowerCommand,
    "sweep": SweepCommand,
    "measure": MeasureCommand,
    "status": StatusCommand,
    "collect": CollectCommand,
    "import": ImportCommand,
    "export": ExportCommand,
    "cite": CiteCommand,
    "data": Data,
    "train": Train,
    "generate": Generate,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0 done, 1 our fault, 2 the user's input."""
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="isodepth",
        description="What is one recurrence of a looped language model worth?",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    try:
        status: int | None = command.run()
    except InputError as error:
        print(printable(f"isodepth: {error}"), file=sys.stderr)
        return 2
    return status or 0


# what the system says of an output that takes nothing more, or was closed
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG)


def _forget_output() -> None:
    """Have whatever is still to be written go nowhere, also at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def entry() -> None:
    """The console script."""
    prepare_streams()
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("isodepth: stopped", file=sys.stderr)
        status = 130  # what a shell says of a command that Ctrl-C ended
    except BrokenPipeError:
        # the reader, `head` say, has left: nothing more can be said, not even at exit
        _forget_output()
        status = 1
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _forget_output()
        print(f"isodepth: the output can't be written: {error.strerror}", file=sys.stderr)
        status = 2
    sys.exit(status)

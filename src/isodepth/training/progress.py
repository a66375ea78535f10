"""How a run tells of itself: a JSON Lines log, a progress line, and two optional loggers.

Nothing here touches standard output.
"""

import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from isodepth.errors import InputError
from isodepth.files import replace_synced
from isodepth.runs.records import LOSS_FILE
from isodepth.training.config import TrainConfig
from isodepth.training.record import finite

PLAIN_SECONDS = 10.0  # between two lines where standard error is no terminal


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One training step."""

    step: int  # steps done, this one included
    tokens: int  # trained on so far
    loss: float  # nats per token, before the update
    gradient_norm: float
    healthy: bool  # loss and gradient are finite; otherwise the update was not made
    lr_scale: float
    seconds: float  # that the step took
    tokens_per_second: float
    flops_per_second: float
    peak_share: float  # flops_per_second over the measured peak

    def to_json(self) -> dict[str, Any]:
        """The log's line. Rates are left out: they follow from `seconds`."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loss": finite(self.loss),
            "gradient_norm": finite(self.gradient_norm),
            "lr_scale": self.lr_scale,
            "seconds": round(self.seconds, 6),
        }


class Sink(Protocol):
    """A place that steps and validations are reported to."""

    def step(self, report: StepReport) -> None: ...
    def validation(self, step: int, loss: float) -> None: ...
    def close(self) -> None: ...


def open_sinks(config: TrainConfig, *, done: int, steps: int, quiet: bool) -> list[Sink]:
    """Every sink that the config asks for; they go on after step `done`.

    Raises InputError where a logger isn't installed.
    """
    sinks: list[Sink] = []
    if config.tensorboard:
        sinks.append(TensorBoard(config.out / "tensorboard", done=done))
    if config.wandb is not None:
        sinks.append(WeightsAndBiases(config.wandb, config))
    if not quiet:
        sinks.append(ProgressLine(done=done, steps=steps))
    return sinks


class LossLog:
    """`losses.jsonl`: a line for every `every`th step and every validation, written at once.

    Lines beyond step `done` (and a last line that a kill has torn) are dropped at the start, so
    that a resumed run's log reads as if it had never stopped. A log that was damaged before that is
    cut back to its last whole line, and what is lost is said.
    """

    def __init__(self, folder: Path, *, done: int, every: int) -> None:
        self._file = folder / LOSS_FILE
        self._every = every
        whole, damaged = _whole_lines(self._file)
        kept = [line for line in whole if line["step"] <= done]
        last = kept[-1]["step"] if kept else 0
        if damaged and last + every <= done:
            print(
                f"isodepth: {self._file} is damaged: the losses of steps {last + 1} to {done} are "
                "lost, and the run goes on",
                file=sys.stderr,
            )
        replace_synced(self._file, "".join(json.dumps(line) + "\n" for line in kept))
        self._stream: TextIO = self._file.open("a", encoding="utf-8")

    def step(self, report: StepReport) -> None:
        if report.step % self._every == 0 or not report.healthy:
            self._write(report.to_json())

    def validation(self, step: int, loss: float) -> None:
        self._write({"step": step, "validation_loss": finite(loss)})

    def sync(self) -> None:
        """Wait until everything logged is on the disk."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._stream.flush()


class ProgressLine:
    """A bar on a terminal's standard error, or a plain line now and then elsewhere."""

    def __init__(self, *, done: int, steps: int) -> None:
        self._steps = steps
        self._begin = time.monotonic()
        self._first = done
        self._last_line = -math.inf
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("starting", total=steps, completed=done)
            self._bar.start()

    def step(self, report: StepReport) -> None:
        elapsed = time.monotonic() - self._begin
        left = elapsed / (report.step - self._first) * (self._steps - report.step)
        text = (
            f"loss {report.loss:.4f}  {report.tokens_per_second:,.0f} tok/s  "
            f"{report.flops_per_second / 1e9:,.1f} GFLOP/s  {report.peak_share:.0%} of peak  "
            f"{_duration(left)} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=report.step, description=text)
        elif elapsed - self._last_line >= PLAIN_SECONDS or report.step == self._steps:
            self._last_line = elapsed
            self._say(f"step {report.step}/{self._steps}  {text}")

    def validation(self, step: int, loss: float) -> None:
        self._say(f"step {step}/{self._steps}  validation loss {loss:.6f}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


class TensorBoard:
    """Event files for TensorBoard in the run's folder."""

    def __init__(self, folder: Path, *, done: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs `pip install isodepth[loggers]`") from error
        self._writer: Any = SummaryWriter(folder, purge_step=done + 1)

    def step(self, report: StepReport) -> None:
        for name in ("loss", "gradient_norm", "lr_scale", "tokens_per_second", "flops_per_second"):
            self._writer.add_scalar(f"train/{name}", getattr(report, name), report.step)

    def validation(self, step: int, loss: float) -> None:
        self._writer.add_scalar("validation/loss", loss, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run in a Weights & Biases project, resumed under the same name."""

    def __init__(self, project: str, config: TrainConfig) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("--wandb needs `pip install isodepth[loggers]`") from error
        self._run: Any = wandb.init(
            project=project,
            name=config.name,
            id=config.name,
            resume="allow",
            dir=config.out,
            config=config.to_json(),
        )

    def step(self, report: StepReport) -> None:
        names = ("loss", "gradient_norm", "lr_scale", "tokens_per_second", "flops_per_second")
        self._run.log({f"train/{n}": getattr(report, n) for n in names}, step=report.step)

    def validation(self, step: int, loss: float) -> None:
        self._run.log({"validation/loss": loss}, step=step)

    def close(self) -> None:
        self._run.finish()


def _whole_lines(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a log up to the first that is none, and whether there is such a one."""
    if not file.exists():
        return [], False
    lines: list[dict[str, Any]] = []
    for text in file.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return lines, True
        step = line.get("step") if isinstance(line, dict) else None
        if not isinstance(step, int) or isinstance(step, bool):
            return lines, True
        lines.append(line)
    return lines, False


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

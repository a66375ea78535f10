"""One training run from its start, or its newest checkpoint, to its record.

The life of a step: the sampler names this rank's rows; the engine leaves the gradient of their
mean loss; the ranks average loss and gradient; the optimiser steps; the log gets a line; now and
then a checkpoint is written. On a GPU all of it is queued, and a step's loss is read when the next
one has been: a step whose loss or gradient isn't finite spoils the model in memory, which then goes
nowhere, and never a checkpoint, before which everything queued is read. Everything that decides the
next step is in a checkpoint or follows from the config and the step's number, so a run killed at
any moment goes on to the same losses.
"""

import json
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isodepth.errors import InputError
from isodepth.files import replace_synced
from isodepth.model.looped import LoopedModel
from isodepth.runs.records import LOSS_FILE, RECORD_FILE, read_record
from isodepth.training.checkpoint import (
    Checkpoint,
    State,
    newest_checkpoint,
    save_checkpoint,
)
from isodepth.training.config import RunPrecision, TrainConfig, changed_settings
from isodepth.training.data import TOKENIZER_FILE, TokenData, open_data
from isodepth.training.distributed import Ranks, join_ranks
from isodepth.training.engine import Engine, gradient_norm, measure_peak
from isodepth.training.feeding import Feed
from isodepth.training.guards import only_process, stop_signals
from isodepth.training.optim import build_optimizer
from isodepth.training.progress import LossLog, Sink, StepReport, open_sinks
from isodepth.training.readings import Reading
from isodepth.training.record import Record, Status, finite, peak_memory, run_row, versions
from isodepth.training.sampler import rows_at
from isodepth.training.schedule import lr_scale

CHECKPOINTS = "checkpoints"
LAG = {"cpu": 0, "cuda": 1}  # steps that are queued before the first of them is read


def train(
    config: TrainConfig,
    *,
    quiet: bool = False,
    stop: threading.Event | None = None,
    sink: Sink | None = None,
    halvings: int = 0,
) -> dict[str, Any]:
    """Train, or go on with, the run in `config.out`, and return its record as JSON values.

    SIGTERM, SIGINT and SIGUSR2 end it after the step in progress, with a checkpoint, as
    `interrupted`, and so does `stop` where it is given, which then takes the signals' place;
    calling this again goes on. A run that is done or diverged is not trained again: its record
    is returned as it is. `sink` is told of every step. A micro-batch that is found automatically
    begins 2^`halvings` times smaller. Under `torchrun` every rank calls this; `data` and `out` must
    be the same folders for all of them.

    Raises InputError for data, settings or a folder that can't be used, among them a folder that
    holds another run, or the same run with settings that would change its losses.
    """
    with ExitStack() as cleanup:
        if stop is None:
            stop = cleanup.enter_context(stop_signals())
        ranks = cleanup.enter_context(join_ranks(config.device))
        data = open_data(config.data)
        if ranks.local_rank == 0:
            data.verify()
        if (finished := _finished(config, data)) is not None:
            return finished
        if ranks.first:
            config.out.mkdir(parents=True, exist_ok=True)
            cleanup.enter_context(only_process(config.out))
        _choose_kernels(deterministic=config.deterministic, tf32=config.precision == "tf32")
        session = _Session(config, data, ranks, stop, quiet=quiet, halvings=halvings)
        return session.run(sink).to_json()


def _finished(config: TrainConfig, data: TokenData) -> dict[str, Any] | None:
    """The record of this run where nothing is left to train."""
    record = read_record(config.out)
    if record is None or record["run"].get("status") not in ("done", "diverged"):
        return None
    settings = record["config"]
    if record.get("compile_asked"):  # the compiler failed, and the record doesn't claim otherwise
        settings = settings | {"compile": True}
    _check_same_run(config, data, settings, record["data_checksum"])
    return record


def _check_same_run(
    config: TrainConfig, data: TokenData, old_config: dict[str, Any], old_checksum: str
) -> None:
    problems = changed_settings(old_config, config)
    if data.header.checksum() != old_checksum:
        problems.append(f"the data in {config.data} are not those that it was started with")
    if problems:
        raise InputError([f"{config.out} holds another run: {problem}" for problem in problems])


def _choose_kernels(*, deterministic: bool, tf32: bool) -> None:
    # Both hold for the process, in which another run may have had other wishes.
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    # Sums of bf16 products stay in fp32, also where a product is split.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    if deterministic:
        # cuBLAS repeats to the bit only with a workspace of fixed size (its documentation).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Asked only where it changes something: it loads all of torch's compiler, for over a second.
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)


@dataclass(frozen=True, kw_only=True)
class _Launched:
    """A step that is queued."""

    number: int  # from 1
    lr_scale: float
    # mean loss, gradient norm, ranks that were asked to stop, ranks where a checkpoint is due
    reading: Reading


class _Session:
    """One process's part in a run, from its start or resumption to its end or interruption."""

    def __init__(
        self,
        config: TrainConfig,
        data: TokenData,
        ranks: Ranks,
        stop: threading.Event,
        *,
        quiet: bool,
        halvings: int,
    ) -> None:
        self._config, self._data, self._ranks, self._stop = config, data, ranks, stop
        self._quiet = quiet
        on_gpu = ranks.device.type == "cuda"
        if config.precision in ("tf32", "bf16") and not on_gpu:
            raise InputError(f"precision {config.precision} needs a GPU")
        self._precision: RunPrecision = "bf16" if on_gpu else "fp32"
        if config.precision != "auto":
            self._precision = config.precision
        if config.batch_rows % ranks.world_size:
            raise InputError(
                f"batch_tokens = {config.batch_tokens} is {config.batch_rows} rows, which "
                f"{ranks.world_size} ranks can't share equally"
            )
        packed = {"sequence_length": config.sequence_length}
        self._train_rows = data.rows("train", long_documents=config.long_documents, **packed)
        self._validation_rows = data.rows(
            "validation", long_documents=config.long_documents, **packed
        )
        shape = config.model(vocabulary=data.header.vocabulary)
        self._account = shape.account()
        self._steps = config.steps(self._account)
        self._model = LoopedModel(shape)
        self._model.initialise(config.seed)
        self._model.to(ranks.device)
        self._optimizer = build_optimizer(
            self._model,
            width=config.width,
            batch_tokens=config.batch_tokens,
            tokens=self._steps * config.batch_tokens,
            looped=shape.looped,
        )
        checkpoint = self._load()
        before = None if checkpoint is None else checkpoint.state
        self._done = 0 if before is None else before.step
        self._seconds_before = 0.0 if before is None else before.seconds
        self._step_seconds = 0.0 if before is None else before.step_seconds
        self._training_loss = None if before is None else before.training_loss
        self._engine = Engine(
            self._model,
            ranks,
            rows=config.batch_rows // ranks.world_size,
            sequence_length=config.sequence_length,
            micro_batch=config.micro_batch if before is None else before.micro_batch,
            halvings=halvings if config.micro_batch is None else 0,
            bf16=self._precision == "bf16",
            compile=config.compile,
        )
        self._ran_before = {} if before is None else before.ran_on
        self._peak = measure_peak(ranks, self._precision)
        self._begin = time.perf_counter()

    def run(self, sink: Sink | None) -> Record:
        """Train to the end or an interruption; rank 0 writes what is written."""
        with ExitStack() as cleanup:
            sinks: list[Sink] = [] if sink is None else [sink]
            sync_log: Callable[[], None] = _nothing
            if self._ranks.first:
                tokenizer = self._data.folder / TOKENIZER_FILE
                (self._config.out / TOKENIZER_FILE).write_bytes(tokenizer.read_bytes())
                log = LossLog(self._config.out, done=self._done, every=self._config.log_every)
                sync_log = log.sync
                others = open_sinks(
                    self._config, done=self._done, steps=self._steps, quiet=self._quiet
                )
                sinks += [log, *others]
                for other in (log, *others):
                    cleanup.callback(other.close)
            ahead = self._ranks.device.type == "cuda"
            feed = cleanup.enter_context(Feed(self._batch, ahead=ahead))
            status, loss = self._train(feed, sinks, sync_log)
        record = self._record(status, loss)
        if self._ranks.first:
            text = json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"
            replace_synced(self._config.out / RECORD_FILE, text)
        self._ranks.wait()
        return record

    def _train(
        self, feed: Feed, sinks: list[Sink], sync_log: Callable[[], None]
    ) -> tuple[Status, float | None]:
        saved = time.monotonic()
        every, lag = self._config.validate_every, LAG[self._ranks.device.type]
        queued: deque[_Launched] = deque()
        while self._done < self._steps:
            if not queued:
                self._clock = time.perf_counter()
            number = self._done + len(queued) + 1
            due = time.monotonic() - saved >= self._config.checkpoint_seconds
            queued.append(self._launch(number, feed.batch(number - 1), due=due))
            last, stop, save = number == self._steps, False, False
            validate = every is not None and number % every == 0 and not last
            while queued and (len(queued) > lag or last or validate or stop or save):
                report, stops, saves = self._read(queued.popleft())
                for sink in sinks:
                    sink.step(report)
                if not report.healthy:
                    return "diverged", None
                stop, save = stop or stops, save or saves
            if validate and self._validate(sinks) is None:
                stop = True
            if stop or save or last:
                sync_log()
                self._save()
                saved = time.monotonic()
            if stop:
                return "interrupted", None
        loss = self._validate(sinks)
        if loss is None:
            return "interrupted", None
        return ("done", loss) if math.isfinite(loss) else ("diverged", None)

    def _batch(self, step: int) -> NDArray[np.int64]:
        """What this rank reads at `step` (from 0)."""
        indices = rows_at(
            step,
            rows=len(self._train_rows),
            batch_rows=self._config.batch_rows,
            seed=self._config.seed,
            rank=self._ranks.rank,
            world_size=self._ranks.world_size,
        )
        return self._train_rows.batch(indices)

    def _launch(self, number: int, batch: NDArray[np.int64], *, due: bool) -> _Launched:
        """Queue step `number` (from 1); nothing here waits for a GPU."""
        ranks = self._ranks
        self._optimizer.zero_grad()
        mine = self._engine.gradients(batch)
        ranks.average_gradients(self._model.parameters())
        norm = gradient_norm(self._model)
        scale = lr_scale(number - 1, self._steps)
        self._optimizer.step(scale)
        flags = torch.tensor([self._stop.is_set(), due], dtype=torch.float64)
        if ranks.device.type == "cuda":
            flags = flags.pin_memory().to(ranks.device, non_blocking=True)
        values = ranks.sum_tensor(torch.cat([(mine / ranks.world_size).view(1), flags]))
        values = torch.cat([values, norm.double().view(1)])
        return _Launched(number=number, lr_scale=scale, reading=Reading(values))

    def _read(self, launched: _Launched) -> tuple[StepReport, bool, bool]:
        """The step's report, and whether any rank was asked to stop, or wants a checkpoint."""
        config = self._config
        loss, stops, saves, norm = launched.reading.wait()
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        healthy = math.isfinite(loss) and math.isfinite(norm)
        if healthy:
            self._done = launched.number
            self._training_loss = loss
            self._step_seconds += seconds
        rate = config.batch_tokens / seconds
        flops_rate = rate * self._account.flops_per_token
        report = StepReport(
            step=launched.number,
            tokens=self._done * config.batch_tokens,
            loss=loss,
            gradient_norm=norm,
            healthy=healthy,
            lr_scale=launched.lr_scale,
            seconds=seconds,
            tokens_per_second=rate,
            flops_per_second=flops_rate,
            peak_share=flops_rate / self._peak,
        )
        return report, stops > 0, saves > 0

    def _validate(self, sinks: list[Sink]) -> float | None:
        loss = self._engine.validate(
            self._validation_rows, stop=lambda: self._any_rank(self._stop.is_set())[0]
        )
        if loss is not None:
            for sink in sinks:
                sink.validation(self._done, loss)
        return loss

    def _any_rank(self, *flags: bool) -> list[bool]:
        """Whether each flag is up on any rank: the same answer on all of them."""
        return [total > 0 for total in self._ranks.sum([float(flag) for flag in flags])]

    def _load(self) -> Checkpoint | None:
        """Load the newest whole checkpoint into model and optimiser."""
        checkpoint, damaged = newest_checkpoint(self._config.out / CHECKPOINTS)
        step = 0 if checkpoint is None else checkpoint.state.step
        if self._ranks.sum([step])[0] != step * self._ranks.world_size:
            raise InputError(f"the ranks see different checkpoints in {self._config.out}")
        for sentence in damaged:
            self._say(sentence)
        if checkpoint is None:
            return None
        state = checkpoint.state
        _check_same_run(self._config, self._data, state.config, state.data_checksum)
        self._model.load_state_dict(checkpoint.model())
        self._optimizer.load_state_tensors(checkpoint.optimizer())
        self._say(f"going on from step {state.step} of {state.steps}")
        here = {"ranks": self._ranks.world_size, "threads": torch.get_num_threads()} | versions()
        there = {"ranks": state.world_size, "threads": state.threads} | state.versions
        changes = [f"{k} {there.get(k)} -> {here[k]}" for k in here if there.get(k) != here[k]]
        if changes:
            self._say(f"losses may differ in their last digits: {', '.join(changes)}")
        return checkpoint

    def _ran_on(self) -> dict[str, list[str]]:
        """Device, precision and kernels, each in every kind that trained a part of this run.

        All ranks must call this together.
        """
        device = self._ranks.device
        eager = self._ranks.sum([float(self._engine.kernels == "eager")])[0]
        kernels = {0: ["compiled"], self._ranks.world_size: ["eager"]}
        now: dict[str, list[str]] = {
            "device": [torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"],
            "precision": [self._precision],
            "kernels": kernels.get(int(eager), ["compiled", "eager"]),
        }
        return {
            name: sorted({*values, *self._ran_before.get(name, [])}) for name, values in now.items()
        }

    def _save(self) -> None:
        ran_on = self._ran_on()
        if self._ranks.first:
            state = State(
                step=self._done,
                steps=self._steps,
                micro_batch=self._engine.micro_batch,
                world_size=self._ranks.world_size,
                threads=torch.get_num_threads(),
                seconds=self._seconds(),
                step_seconds=self._step_seconds,
                training_loss=self._training_loss,
                data_checksum=self._data.header.checksum(),
                vocabulary=self._data.header.vocabulary,
                start=self._data.header.start,
                config=self._config.to_json(),
                versions=versions(),
                ran_on=ran_on,
            )
            save_checkpoint(
                self._config.out / CHECKPOINTS,
                state,
                model=self._model.state_dict(),
                optimizer=self._optimizer.state_tensors(),
            )
        self._ranks.wait()

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._begin

    def _record(self, status: Status, loss: float | None) -> Record:
        tokens = self._done * self._config.batch_tokens
        rate = tokens / self._step_seconds if self._step_seconds else None
        device = self._ranks.device
        memory = peak_memory()
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        ran_on = {name: " + ".join(values) for name, values in self._ran_on().items()}
        compiled = ran_on["kernels"] == "compiled"
        return Record(
            run=run_row(
                self._config, self._account, tokens=tokens, loss=loss, status=status, **ran_on
            ),
            config=replace(self._config, compile=compiled).to_json(),
            compile_asked=self._config.compile and not compiled,
            steps=self._done,
            steps_planned=self._steps,
            epochs=self._done * self._config.batch_rows / len(self._train_rows),
            training_loss=None if self._training_loss is None else finite(self._training_loss),
            loss_curve=LOSS_FILE,
            seconds=self._seconds(),
            tokens_per_second=rate,
            flops_per_second=None if rate is None else rate * self._account.flops_per_token,
            peak_flops_per_second=self._peak,
            peak_memory_bytes=memory,
            world_size=self._ranks.world_size,
            threads=torch.get_num_threads(),
            micro_batch=self._engine.micro_batch,
            data_checksum=self._data.header.checksum(),
            validation_tokens=len(self._validation_rows) * self._config.sequence_length,
            versions=versions(),
        )

    def _say(self, sentence: str) -> None:
        if self._ranks.first and not self._quiet:
            print(sentence, file=sys.stderr, flush=True)


def _nothing() -> None:
    """Other ranks have no log to sync."""

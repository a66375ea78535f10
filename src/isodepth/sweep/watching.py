"""A sweep's progress on standard error while it runs."""

from __future__ import annotations

import json
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isodepth.runs.records import RECORD_FILE
from isodepth.sweep.ledger import FINAL, Entry
from isodepth.sweep.status import duration, standing
from isodepth.terminal import console


class Watching:
    """A bar over training FLOPs, and a line for every run that ends."""

    def __init__(self) -> None:
        self._ended: set[str] | None = None  # None: nothing seen yet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console(stderr=True),
            speed_estimate_period=120.0,
        )
        self._task = self._bar.add_task("runs", total=1.0)

    def __enter__(self) -> Watching:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, entries: list[Entry]) -> None:
        """Show how every run stands."""
        now = standing(entries)
        ended = {entry.run.run_id for entry in entries if entry.state in FINAL}
        words = f"{now.counts['done']} of {len(entries)} runs"
        if now.counts["failed"] or now.counts["diverged"]:
            words += f", {now.counts['failed'] + now.counts['diverged']} failed"
        self._bar.update(self._task, completed=now.flops_done, total=now.flops, description=words)
        if self._ended is not None:
            for entry in entries:
                if entry.run.run_id in ended - self._ended:
                    self._bar.console.print(_line(entry), highlight=False, markup=False)
        self._ended = ended


def _line(entry: Entry) -> str:
    if entry.state != "done":
        return f"{entry.run.run_id}: {entry.state}, {entry.reason}"
    try:
        record = json.loads((entry.folder / RECORD_FILE).read_text(encoding="utf-8"))
        loss, seconds = record["run"]["loss"], record.get("seconds")
    except (OSError, ValueError, KeyError):
        return f"{entry.run.run_id}: done"
    took = "" if seconds is None else f" in {duration(seconds)}"
    return f"{entry.run.run_id}: loss {loss:.4f}{took}"

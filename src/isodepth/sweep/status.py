"""How a sweep stands, for people: a table by arm, a bar, and the time left."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from isodepth.sweep.ledger import FINAL, Entry, read_heartbeat

STATES = ("done", "running", "interrupted", "planned", "diverged", "failed")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One moment of a sweep."""

    counts: dict[str, int]  # runs by state
    flops_done: float  # training FLOPs, those of runs in progress included
    flops: float  # of the whole plan
    flops_per_second: float | None  # of the runs in progress together
    seconds_left: float | None  # at that rate; None: nothing is running
    running: tuple[dict[str, Any], ...]  # run_id, step, steps, tokens_per_second

    def to_json(self) -> dict[str, Any]:
        """What `status --json` prints, beside the runs."""
        return asdict(self)


def standing(entries: list[Entry]) -> Standing:
    """The sweep's standing, from the ledger and the heartbeats."""
    counts = dict.fromkeys(STATES, 0)
    done = rate = 0.0
    running = []
    for entry in entries:
        counts[entry.state] += 1
        if entry.state in FINAL:
            done += entry.run.flops
        elif entry.state == "running":
            beat = read_heartbeat(entry.folder)
            step, steps = beat.get("step") or 0, beat.get("steps") or entry.run.steps
            speed = beat.get("tokens_per_second")
            done += entry.run.flops * step / steps
            rate += (speed or 0.0) * entry.run.flops_per_token
            running.append(
                {
                    "run_id": entry.run.run_id,
                    "step": step,
                    "steps": steps,
                    "tokens_per_second": speed,
                }
            )
    total = sum(entry.run.flops for entry in entries)
    return Standing(
        counts=counts,
        flops_done=done,
        flops=total,
        flops_per_second=rate or None,
        seconds_left=(total - done) / rate if rate else None,
        running=tuple(running),
    )


def status_report(entries: list[Entry]) -> RenderableType:
    """A table of arms by budgets, a bar, what runs now, and why runs failed."""
    now = standing(entries)
    budgets = sorted({entry.run.budget_flops for entry in entries})
    table = Table(title="runs done / planned", title_justify="left")
    table.add_column("recipe")
    table.add_column("r", justify="right")
    for budget in budgets:
        table.add_column(f"{budget:.3g} FLOPs", justify="right")
    arms = dict.fromkeys((entry.run.recipe, entry.run.arm) for entry in entries)
    for recipe, arm in arms:
        cells = []
        for budget in budgets:
            mine = [
                entry
                for entry in entries
                if (entry.run.recipe, entry.run.arm, entry.run.budget_flops)
                == (recipe, arm, budget)
            ]
            finished = sum(entry.state == "done" for entry in mine)
            cells.append(f"{finished} / {len(mine)}" if mine else "")
        table.add_row(recipe, arm, *cells)
    words = ", ".join(f"{n} {state}" for state, n in now.counts.items() if n)
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    parts: list[RenderableType] = [
        table,
        ProgressBar(total=now.flops, completed=now.flops_done, width=60),
        Text(f"{words}; {now.flops_done:.3g} of {now.flops:.3g} FLOPs{left}"),
    ]
    parts += [
        Text(f"  {r['run_id']}: step {r['step']} of {r['steps']}", style="dim") for r in now.running
    ]
    parts += [
        Text(f"  {entry.run.run_id} {entry.state}: {entry.reason}", style="red")
        for entry in entries
        if entry.state in ("failed", "diverged")
    ]
    return Group(*parts)


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

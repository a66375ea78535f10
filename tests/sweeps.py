"""Small sweeps for tests: a few runs of a second each."""

import json
import os
import subprocess
import sys
from pathlib import Path

from commands import Done, run

TINY = """
description = "tiny"
[data]
source = "{text}"
tokenizer = "bytes"
validation = 0.1
[train]
depth = 4
prelude = 1
coda = 1
head_size = 8
sequence_length = 32
batch_tokens = 192
device = "cpu"
checkpoint_seconds = 0.3
[[recipes]]
name = "baseline"
recurrences = [1, 2]
[[budgets]]
flops = {flops}
widths = {widths}
"""


def write_text(folder: Path) -> Path:
    """A hundred short documents, the same every time."""
    words = [
        "the",
        "loop",
        "reads",
        "its",
        "own",
        "words",
        "and",
        "writes",
        "them",
        "back",
        "a",
        "little",
        "better",
        "each",
        "time",
    ]
    lines = [
        json.dumps({"text": " ".join(words[(i * k) % len(words)] for k in range(1, 60))})
        for i in range(1, 101)
    ]
    file = folder / "text.jsonl"
    file.write_text("\n".join(lines))
    return file


def write_plan(
    folder: Path, *, flops: float = 2.73e9, widths: tuple[int, ...] = (16, 24, 32), extra: str = ""
) -> Path:
    """A plan of two runs a width, made by the command."""
    preset = folder / "tiny.toml"
    preset.write_text(TINY.format(text=write_text(folder), flops=flops, widths=[*widths]) + extra)
    plan = folder / "plan.json"
    isodepth("plan", "--preset", preset, "--out", plan, "--quiet")
    return plan


def isodepth(*arguments, status: int = 0, cwd: Path | None = None) -> Done:
    """Run a command to its end."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == status, done.stderr
    return done


def start(*arguments) -> subprocess.Popen[str]:
    """Begin a command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "isodepth", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    """Processes that `pid` started and that still run."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(child) for child in found.read_text().split()]
    except OSError:
        return []


def steps_logged(folder: Path) -> int:
    """Training steps that all runs of a sweep have logged."""
    return sum(len(file.read_bytes().splitlines()) for file in folder.glob("runs/*/losses.jsonl"))


def table(folder: Path) -> str:
    """The collected run table."""
    isodepth("collect", folder, "--quiet")
    return (folder / "runs.csv").read_text()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False

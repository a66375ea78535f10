"""Which plans may run programs: those made here, and those that the user has looked at.

A plan with a command runs it, for every run. `isodepth plan` remembers what it made, in a file of
the user's that holds nothing but checksums; any other plan's command is shown before it is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from isodepth.errors import InputError
from isodepth.sweep.plan import Plan
from isodepth.terminal import printable

_FILE = Path("isodepth") / "plans"


def remember(plan: Plan) -> None:
    """Note that the plan was made or trusted here; where that can't be noted it is asked about."""
    if plan.spec.command is None or is_known(plan):
        return
    file = _known_plans()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="ascii") as stream:
            stream.write(checksum(plan) + "\n")


def is_known(plan: Plan) -> bool:
    """Whether the plan was made or trusted here before."""
    try:
        return checksum(plan) in _known_plans().read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def check_trusted(plan: Plan, name: str, *, trust: bool) -> None:
    """Ask about the command of a plan that was not made here, on a terminal.

    name: the plan's file. trust: whether the user has said that it may run. Raises InputError where
    the answer is no, or nobody can be asked.
    """
    command = plan.spec.command
    if command is None or is_known(plan):
        return
    shown = printable(command)
    if not trust:
        if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
            raise InputError(
                f"{name} was not made here, and runs a program for each of its "
                f"{len(plan.runs)} runs: {shown}; if that is meant, give --trust"
            )
        print(f"{printable(name)} was not made here. For each of its {len(plan.runs)} runs it "
              f"starts:\n  {shown}", file=sys.stderr)  # fmt: skip
        print("Run it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise InputError(f"{name} is not run")
    remember(plan)


def checksum(plan: Plan) -> str:
    """SHA-256 of all that a plan can make happen."""
    content = plan.to_json()
    kept = {key: content[key] for key in ("spec", "runs", "waiting")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _known_plans() -> Path:
    """The user's file of plans, where programs keep such notes (XDG Base Directory)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home else Path.home() / ".local" / "state") / _FILE

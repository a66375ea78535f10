"""Console blocks of a documentation page: every command run in order, its output compared.

In a block fenced as `console`, `$ ` begins a command, `> ` goes on with it, and the other lines are
what it prints, standard error included. `…` stands for anything, on a line of its own for any
lines. Spaces, rules and blank lines don't count; whole numbers agree exactly, others to 1% or to
one in the last decimal, which rounding may turn.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import commands
import pytest

_OF_THE_SHELL = {"|", ">", "&&"}
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a page."""

    where: str  # page and line
    command: str
    output: str


def steps(page: Path) -> list[Step]:
    """The commands of a page, in order."""
    found: list[Step] = []
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Step(where=f"{page.name}:{number}", command=line[2:], output=""))
        elif inside:
            last = found[-1]
            more = line.startswith("> ") and not last.output
            found[-1] = Step(
                where=last.where,
                command=f"{last.command}\n{line[2:]}" if more else last.command,
                output=last.output if more else f"{last.output}{line}\n",
            )
    return found


def run(page: Path, folder: Path) -> None:
    """Run a page's commands in a folder, and compare what they print."""
    programs = folder / ".bin"
    programs.mkdir()
    for name, begin in (("isodepth", "-m isodepth "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {begin}"$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    for step in steps(page):
        words = shlex.split(step.command)
        if words[0] == "isodepth" and not set(words) & _OF_THE_SHELL:
            done = commands.run(*words[1:], cwd=folder, together=True)
        else:
            done = subprocess.run(
                ["bash", "-c", step.command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                cwd=folder,
                env=os.environ | {"PATH": path},
                check=False,
            )
        assert done.returncode == 0, f"{step.where}: {step.command}\n{done.stdout}"
        why = difference(step.output, done.stdout)
        assert why is None, f"{step.where}: {step.command}\n{why}; it printed:\n{done.stdout}"


def difference(shown: str, printed: str) -> str | None:
    """What the page shows that a command doesn't print, in words."""
    shown, printed = _plain(shown), _plain(printed)
    numbers: list[str] = []
    pattern = ""
    for part in re.split(r"(\n?…\n?)", shown):
        if "…" in part:
            lines = part.startswith("\n") or part.endswith("\n") or shown == "…"
            pattern += r"[\s\S]*?" if lines else ".*?"
            continue
        end = 0
        for match in _NUMBER.finditer(part):
            pattern += re.escape(part[end : match.start()]) + f"({_NUMBER.pattern})"
            numbers.append(match.group())
            end = match.end()
        pattern += re.escape(part[end:])
    found = re.fullmatch(pattern, printed)
    if found is None:
        return "the text differs"
    for expected, number in zip(numbers, found.groups(), strict=True):
        decimals = re.search(r"\.(\d+)$", expected)
        near = {"abs": 1.01 * 10.0 ** -len(decimals[1])} if decimals else {}
        exact = re.fullmatch(r"[-+]?[\d,]+", expected)
        if _value(number) != pytest.approx(_value(expected), rel=1e-12 if exact else 0.01, **near):
            return f"{expected} is {number}"
    return None


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _plain(text: str) -> str:
    lines = (re.sub(r"\s+", " ", re.sub("─+|━+", "", line)).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)

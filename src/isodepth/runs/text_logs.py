"""Lines of text that a trainer printed, to rows, by patterns like `step:{step} loss:{loss}`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from isodepth.errors import InputError

# What these trainers print, as of 2026; a number stands where a name is in braces.
READY: dict[str, tuple[str, ...]] = {
    "nanogpt": (
        "step {step}: train loss {train_loss}, val loss {val_loss}",
        "iter {step}: loss {loss}, time",
    ),
    "nanochat": (
        "step {step}/{steps} ({}%) | loss: {loss}",
        "Step {step} | Validation bpb: {val_bpb}",
    ),
    "modded-nanogpt": (
        "step:{step}/{steps} val_loss:{val_loss}",
        "step:{step}/{steps} train_loss:{train_loss}",
    ),
}
_NUMBER = r"([-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|nan|inf|-inf)"
_HOLE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][\w./]*", re.ASCII)
_LONGEST_LINE = 2_000


class Pattern:
    """A line with names for the numbers in it, or every line of a trainer that we know."""

    def __init__(self, text: str) -> None:
        """Raises InputError for a text that names no number, or names one twice."""
        self.text = text
        self._lines = [_compiled(line) for line in READY.get(text, (text,))]

    def row(self, line: str) -> dict[str, object] | None:
        """The numbers of a line; None where it is another one."""
        for pattern, names in self._lines:
            match = pattern.search(line[:_LONGEST_LINE])
            if match is not None:
                cells = zip(names, match.groups(), strict=True)
                return {name: cell.replace(",", "") for name, cell in cells if name}
        return None


def _compiled(text: str) -> tuple[re.Pattern[str], list[str]]:
    """A pattern, and the name of each of its groups; "" for one that is passed over."""
    names = _HOLE.findall(text)
    for name in filter(None, names):
        if not _NAME.fullmatch(name):
            raise InputError(f"--line {text!r}: {name!r} is no name for a number")
    given = [name for name in names if name]
    if not given or len(set(given)) < len(given):
        why = "names no number; write {step} where one stands" if not given else "names one twice"
        ready = ", ".join(READY)
        raise InputError(f"--line {text!r} {why} (ready ones: {ready})")
    parts = _HOLE.split(text)[::2]
    return re.compile(r"(?<![\w.])" + _NUMBER.join(map(_literal, parts)), re.IGNORECASE), names


def _literal(part: str) -> str:
    """The words between two numbers, with any blanks for theirs."""
    return r"\s*".join(re.escape(word) for word in re.split(r"\s+", part))


def rows_of_text(text: str, patterns: Sequence[Pattern]) -> list[tuple[int, dict[str, object]]]:
    """Number of each line that a pattern fits, with its numbers: of the first that does."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        row = next((row for one in patterns if (row := one.row(line)) is not None), None)
        if row:
            found.append((number, row))
    return found


def ready_for(text: str) -> list[tuple[str, int]]:
    """The ready patterns that fit lines of a text, with how many."""
    counts = {name: len(rows_of_text(text, [Pattern(name)])) for name in READY}
    return [(name, count) for name, count in counts.items() if count]

"""Sums, differences, products and quotients of a table's columns, as `--map` takes them.

    n_once = n_total - n_emb        loss = val_bpb * 0.693147 * bytes / tokens

A column's name may hold any sign: where a name of the table stands it is that column, the longest
first, and only what is left over is arithmetic.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isodepth.errors import InputError
from isodepth.runs.checks import number, shown
from isodepth.runs.raw import RawTable

SHOWN = 30  # columns that a message lists
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WORD = re.compile(r"[^\s()*/+]+")
_MOST_SIGNS = 200
_JOINT = frozenset(" \t()*/+-")


@dataclass(frozen=True, kw_only=True)
class Expression:
    """What `--map` asks for, in the order in which it is worked out (last first: postfix)."""

    text: str
    steps: tuple[str | float, ...]  # a column as "=name", a number, or one of + - * / ~ (negated)

    @property
    def columns(self) -> list[str]:
        """The columns that it is made of, each once."""
        names = [s[1:] for s in self.steps if isinstance(s, str) and s.startswith("=")]
        return list(dict.fromkeys(names))

    @property
    def plain(self) -> bool:
        """Whether it is a column as it stands."""
        return len(self.steps) == 1 and isinstance(self.steps[0], str)


def parsed(text: str, known: Sequence[str], *, option: str, name: str) -> Expression:
    """The expression that a text is; at least one part of it is a column.

    known: the columns of the source, which messages call `name`. Raises InputError for a name that
    isn't known, with the one that was meant where that is clear, and for what can't be read.
    """
    parser = _Parser(text, known, option, name)
    steps = parser.sum()
    if parser.next() is not None:
        raise InputError(f"{option} can't be read from {parser.rest()!r} on")
    found = Expression(text=text, steps=tuple(steps))
    if not found.columns:
        raise InputError(f"{option} names no column; a constant is given by --set COLUMN=VALUE")
    return found


def evaluated(expression: Expression, table: RawTable) -> list[object]:
    """A cell for each row; None where a cell it is made of is empty, NaN for a quotient by 0.

    Raises InputError naming every cell of an arithmetic one that is not a number.
    """
    if expression.plain:
        return table.column(expression.columns[0])
    problems: list[str] = []
    cells: dict[str, list[float | None]] = {}
    for column in expression.columns:
        values: list[float | None] = []
        for i, cell in enumerate(table.column(column)):
            value = None if cell is None else number(cell)
            if cell is not None and value is None:
                problems.append(f"{table.at(i, column)}: {shown(cell)} is not a number")
            values.append(value)
        cells[column] = values
    if problems:
        raise InputError(problems)
    return [_value(expression, cells, i) for i in range(len(table.rows))]


def _value(expression: Expression, cells: dict[str, list[float | None]], row: int) -> float | None:
    stack: list[float | None] = []
    for step in expression.steps:
        if isinstance(step, float):
            stack.append(step)
        elif step.startswith("="):
            stack.append(cells[step[1:]][row])
        elif step == "~":
            last = stack.pop()
            stack.append(None if last is None else -last)
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(None if left is None or right is None else _OF[step](left, right))
    return stack.pop()


def _quotient(left: float, right: float) -> float:
    return left / right if right else math.nan


_OF: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _quotient,
}


class _Parser:
    def __init__(self, text: str, known: Sequence[str], option: str, name: str) -> None:
        self.text, self.option, self.name = text, option, name
        self.known = known
        self.longest_first = sorted(known, key=len, reverse=True)
        self.at = 0
        self.signs = 0

    def rest(self) -> str:
        return self.text[self.at :].strip()

    def next(self) -> str | None:
        """The sign that comes next; "" before a column or number, None at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        if self.at == len(self.text):
            return None
        sign = self.text[self.at]
        return sign if sign in "()*/+-" and self.column() is None else ""

    def take(self) -> None:
        self.at += 1
        self.signs += 1
        if self.signs > _MOST_SIGNS:
            raise InputError(f"{self.option} has more than {_MOST_SIGNS} signs")

    def sum(self) -> list[str | float]:
        steps = self.product()
        while (sign := self.next()) in ("+", "-"):
            self.take()
            steps += [*self.product(), sign]
        return steps

    def product(self) -> list[str | float]:
        steps = self.part()
        while (sign := self.next()) in ("*", "/"):
            self.take()
            steps += [*self.part(), sign]
        return steps

    def part(self) -> list[str | float]:
        sign = self.next()
        if sign == "-":
            self.take()
            return [*self.part(), "~"]
        if sign == "(":
            self.take()
            steps = self.sum()
            if self.next() != ")":
                raise InputError(f"{self.option} lacks a closing ')'")
            self.take()
            return steps
        if sign is None or sign:
            where = "at its end" if sign is None else f"before {self.rest()!r}"
            raise InputError(f"{self.option} lacks a column or a number {where}")
        column = self.column()
        if column is not None:
            self.at += len(column)
            return [f"={column}"]
        match = _NUMBER.match(self.text, self.at)
        if match is not None and self._ends(match.end()):
            self.at = match.end()
            return [float(match[0])]
        word = _WORD.match(self.text, self.at)
        raise InputError(self.unknown(word[0] if word else self.rest()))

    def column(self) -> str | None:
        """The longest column that stands here and ends where a name can."""
        for name in self.longest_first:
            if name and self.text.startswith(name, self.at) and self._ends(self.at + len(name)):
                return name
        return None

    def _ends(self, at: int) -> bool:
        return at == len(self.text) or self.text[at] in _JOINT

    def unknown(self, part: str) -> str:
        close = meant(part, self.known)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"its columns: {listed(self.known)}"
        )
        return f"{self.option}: {self.name} has no column {part!r}; {hint}"


def meant(part: str, known: Sequence[str]) -> list[str]:
    """Columns that are this name written otherwise: never one of another meaning."""
    ends = [k for k in known if k.endswith((f".{part}", f"/{part}"))]
    ends += [k for k in known if part.endswith((f".{k}", f"/{k}"))]
    words = _words(part)
    typos = [
        k
        for k in known
        if len(own := _words(k)) == len(words)
        and all(
            a == b or difflib.SequenceMatcher(None, a, b).ratio() >= 0.8
            for a, b in zip(own, words, strict=True)
        )
    ]
    return (ends or typos)[:3]


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def listed(columns: Sequence[str]) -> str:
    """The first names of columns, as a message shows them."""
    return ", ".join(columns[:SHOWN]) + (", …" if len(columns) > SHOWN else "")

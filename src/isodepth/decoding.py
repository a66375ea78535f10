"""Plain values, as JSON or TOML hold them, into the dataclasses that they stand for.

The types are checked by msgspec: it converts into standard dataclasses as they are, takes no text
for a number nor a fraction for a whole one, depends on nothing, and is there in milliseconds
(pydantic does the same in tens of megabytes; cattrs takes `"3"` for 3 unless told otherwise). It
stops at the first fault, so that fields are given to it one by one here and every fault is told.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from functools import cache
from typing import Any, Literal, TypeVar

import msgspec

from isodepth.errors import InputError

T = TypeVar("T")

_LARGEST = 2**63 - 1
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_FAULT = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - (?:at|value in) `\$([^`]*)`)?")
_PLACE = re.compile(r" - (?:at|value in) `\$([^`]*)`$")


def decoded(
    content: object,
    kind: type[T],
    *,
    where: str,
    place: str = "",
    known: frozenset[str] | None = None,
) -> T:
    """`content` as a `kind`, a dataclass, with every dataclass inside it.

    where: what was read, as messages begin. place: where in it the content lies ("budgets[0]").
    known: keys that the content may have, where others are to be refused; by default keys that
    `kind` doesn't have are let pass, so that files of a later day can be read.
    Raises InputError with one sentence for every fault.
    """
    problems: list[str] = []
    values = fields_of(content, kind, where=where, place=place, known=known, problems=problems)
    if problems:
        raise InputError(problems)
    return kind(**values)


def fields_of(
    content: object,
    kind: type,
    *,
    where: str,
    place: str,
    known: frozenset[str] | None,
    problems: list[str],
) -> dict[str, Any]:
    """The fields of `kind` that the content gives, each of its type; faults go to `problems`."""
    if not isinstance(content, dict):
        problems.append(f"{where}{_called(place)} must be a table, not {_kind(content)}")
        return {}
    hints = _hints(kind)
    found: dict[str, Any] = {}
    if known is not None:
        inside = f" in {place}" if place else ""
        problems += [
            f"{where}: unknown key {key!r}{inside}; known are {', '.join(sorted(known))}"
            for key in sorted(map(str, content.keys() - known))
        ]
    for field in dataclasses.fields(kind):
        if known is not None and field.name not in known:
            continue
        if field.name in content:
            inner = f"{place}.{field.name}" if place else field.name
            found[field.name] = _value(
                content[field.name], hints[field.name], where, inner, known is not None, problems
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where}{_called(place)} lacks {field.name!r}")
    return found


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(
    value: object, hint: Any, where: str, place: str, strict: bool, problems: list[str]
) -> object:
    """A field's value in its type."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
        if value is None:
            hint = types.NoneType
        elif len(kinds) == 1:
            (hint,) = kinds
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        keys = frozenset(f.name for f in dataclasses.fields(hint)) if strict else None
        before = len(problems)
        values = fields_of(value, hint, where=where, place=place, known=keys, problems=problems)
        return hint(**values) if len(problems) == before else None
    arguments = typing.get_args(hint)
    if (
        typing.get_origin(hint) is tuple
        and len(arguments) == 2
        and arguments[1] is Ellipsis
        and dataclasses.is_dataclass(arguments[0])
    ):
        if not isinstance(value, list | tuple):
            problems.append(f"{where}: {place} must be a list of tables, not {_kind(value)}")
            return ()
        return tuple(
            _value(one, arguments[0], where, f"{place}[{i}]", strict, problems)
            for i, one in enumerate(value)
        )
    try:
        converted = msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        problems.append(f"{where}: {_said(str(error), value, hint, place)}")
        return None
    fault = _out_of_range(converted)
    if fault is not None:
        problems.append(f"{where}: {place} holds {fault}")
    return converted


def _said(error: str, value: object, hint: Any, place: str) -> str:
    """What msgspec found, in our words."""
    if (match := _FAULT.match(error)) is not None:
        wanted = " or ".join(
            _KINDS.get(one.strip(), one.strip())
            for one in match[1].split("|")
            if one.strip() != "null"
        )
        at = place + (match[3] or "").replace("[...]", "")
        got = "a fraction" if match[2] == "float" else _KINDS.get(match[2], match[2])
        shown = f", not {_shown(value)}" if not match[3] else f", not {got}"
        return f"{at} must be {wanted}{shown}"
    if typing.get_origin(hint) is Literal:
        return f"{place} is {_shown(value)}, not one of {', '.join(typing.get_args(hint))}"
    at = place + (match[1] if (match := _PLACE.search(error)) else "")
    return f"{at}: {_PLACE.sub('', error).lower()}"


def _out_of_range(value: object) -> str | None:
    """Why a number, or one inside a list or table, is none that we count with."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, which is no finite number"
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "a number that is too large"
    inner = list(value.values()) if isinstance(value, dict) else value
    if isinstance(inner, list | tuple):
        return next((f for one in inner if (f := _out_of_range(one)) is not None), None)
    return None


def _called(place: str) -> str:
    return f": {place}" if place else ""


def _kind(value: object) -> str:
    names = {
        bool: "true or false", int: "a number", float: "a number", str: "text",
        list: "a list", tuple: "a list", dict: "a table", type(None): "nothing",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits has no text
        return "what it holds"
    return text if len(text) <= 40 else text[:37] + "..."

"""TensorBoard's event files to rows: the scalars of one step together.

A file is a list of records (length, checksum, bytes, checksum), each of them a protocol-buffer
`Event` (tensorflow/core/util/event.proto): step in field 2, and in field 5 a summary of values with
a tag (1) and a number (2), or a tensor of one number (8), which newer writers use. Only these few
fields are read here, so that no package is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_FLOAT, _DOUBLE = 1, 2  # DataType of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def rows_of_events(data: bytes) -> tuple[list[dict[str, object]], bool]:
    """A row for each step, in the order of their first values, and whether the file ends torn."""
    rows: dict[int, dict[str, object]] = {}
    at = 0
    try:
        while at + 12 <= len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            if at + 12 + length + 4 > len(data):
                break
            step, scalars = _event(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            if scalars:
                rows.setdefault(step, {"step": step}).update(scalars)
    except (struct.error, IndexError, UnicodeDecodeError):
        return list(rows.values()), True
    return list(rows.values()), at != len(data)


def _event(data: bytes) -> tuple[int, dict[str, object]]:
    step = 0
    scalars: dict[str, object] = {}
    for number, value in _fields(data):
        if number == 2 and isinstance(value, int):
            step = value
        elif number == 5 and isinstance(value, bytes):
            for inner, one in _fields(value):
                if inner == 1 and isinstance(one, bytes):
                    scalars |= _scalar(one)
    return step, scalars


def _scalar(data: bytes) -> dict[str, object]:
    tag, found = "", None
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            (found,) = struct.unpack("<f", value)
        elif number == 8 and isinstance(value, bytes):
            found = _tensor(value)
    return {tag: found} if tag and found is not None else {}


def _tensor(data: bytes) -> float | None:
    """The number of a tensor that holds just one; None of another."""
    kind, held = 0, b""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number in (4, 5, 6) and isinstance(value, bytes):  # content, floats, doubles
            held += value
    if kind == _FLOAT and len(held) == 4:
        return float(struct.unpack("<f", held)[0])
    if kind == _DOUBLE and len(held) == 8:
        return float(struct.unpack("<d", held)[0])
    return None


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message; fixed-width numbers as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise IndexError("a field reaches past the end")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise IndexError("a number is too long")

"""Text as people see it: no name of a run table moves a cursor, and no terminal ends a command."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# what our own words use that plain ASCII lacks
_PLAIN = {
    "×": "x", "·": "*", "–": "-", "—": "-", "−": "-", "←": "<-", "→": "->", "…": "...", "±": "+-",
    "∞": "inf", "√": "sqrt", "≥": ">=", "≤": "<=", "⌈": "[", "⌉": "]", "’": "'", "•": "*",
    "²": "^2", "Δ": "delta ",
}  # fmt: skip
_ERRORS = "isodepth.plain"


def printable(text: str) -> str:
    """Text with every control character but the line's end and the tab shown as its number.

    Among them are the escapes that terminals obey, and those that turn the direction of writing.
    """
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else _number(ord(c))
        for c in text
    )


def _number(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class SafeConsole(Console):
    """A console on which text can't do what only styles may."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False, file: IO[str] | None = None, **options: Any) -> Console:
    """A console of the terminal's width, or of 100 characters where there is no terminal."""
    stream = file or (sys.stderr if stderr else sys.stdout)
    if "width" not in options and not stream.isatty():
        options["width"] = 100
    return SafeConsole(stderr=stderr, file=file, **options)


def prepare_streams() -> None:
    """Give standard output and error what they need to take any text of ours.

    A closed one becomes the null device; one that has no Greek gets words.
    """
    codecs.register_error(_ERRORS, _spelt)
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:  # closed before we began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """What can't be encoded, in words: `phi` for φ."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_word, error.object[error.start : error.end])), error.end


def _word(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK SMALL LETTER "):
        return name.removeprefix("GREEK SMALL LETTER ").lower()
    if name.startswith(("BOX DRAWINGS", "BLOCK", "BRAILLE")):
        return "-" if "HORIZONTAL" in name else "|"
    return _number(ord(character))

"""Numbers as every report writes them."""

from __future__ import annotations

from isodepth.fitting.result import Interval


def size_text(params: float) -> str:
    """A parameter count as people write it: 411M, 1.04B."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if params >= unit:
            return f"{params / unit:.3g}{letter}"
    return f"{params:.3g}"


def interval_text(interval: Interval | None, form: str) -> str:
    """[low, high] or nothing."""
    return "" if interval is None else f"[{interval[0]:{form}}, {interval[1]:{form}}]"

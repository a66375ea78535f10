"""Widths of what runs not yet trained would tell without a law, and at equal r: the numbers alone.

How they are found stands in `planning/equal_r.py`, which needs the estimators.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LawFreeWidths:
    """Half-widths of 95% intervals, medians of simulated sweeps; None: half of them tell none."""

    phi: float | None  # anchored at m(1) = 1
    phi_looped: float | None
    twins_outside: int  # looped runs whose twin, by the first law, no unlooped runs surround
    n_looped: int
    # lowest and highest of the unlooped runs that would hold those; None: none is left out
    wanted_params: tuple[float, float] | None
    wanted_tokens: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class FormWidths:
    """Likewise, of one form of the difference."""

    form: str  # of `comparing.forms.FORMS`
    delta_phi: float | None  # beside it
    constant: float | None  # its own first number, without a change of φ; None: it has none
    constant_with_phi: float | None


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What some more runs would add."""

    name: str
    n_runs: int
    flops: float
    delta_phi: float | None  # half-width beside κ, with them
    per_flop: float | None  # information on that Δφ per FLOP, over that of the runs as they are


@dataclass(frozen=True, kw_only=True)
class EqualR:
    """What two recipes' runs would tell at equal r."""

    forms: tuple[FormWidths, ...]
    additions: tuple[Addition, ...]

"""What runs not yet trained would tell without a law and at equal r, in words."""

from __future__ import annotations

import numpy as np

from isodepth.comparing.forms import FORM_WORDS
from isodepth.planning.widths import EqualR, LawFreeWidths


def law_free_lines(found: LawFreeWidths) -> list[str]:
    """What runs would tell without a law."""
    out = ""
    if found.wanted_params is not None and found.wanted_tokens is not None:
        n, d = found.wanted_params, found.wanted_tokens
        out = (
            f"; {found.twins_outside} of {found.n_looped} looped runs' twins lie outside the "
            f"unlooped runs: some of {n[0]:.3g} to {n[1]:.3g} parameters at {d[0]:.3g} to "
            f"{d[1]:.3g} tokens would hold them"
        )
    if found.phi is None:
        return [f"without a law φ can't be told{out}"]
    looped = "" if found.phi_looped is None else f", among looped arms {_within(found.phi_looped)}"
    return [f"without a law: φ {_within(found.phi)}{looped}{out}"]


def equal_r_lines(found: EqualR) -> list[str]:
    """What two recipes' runs would tell at equal r, and what more of them would add."""
    by = {one.form: one for one in found.forms}
    beside = ", ".join(
        f"{FORM_WORDS[one.form]} {_within(one.delta_phi)}" for one in found.forms[1:]
    )
    said = [
        f"at equal r, without a law: Δφ {_within(by['none'].delta_phi)} if nothing else "
        f"changes; beside {beside}",
        f"tokens: κ {_within(by['tokens'].constant, factor=True)} "
        f"({_within(by['tokens'].constant_with_phi, factor=True)} beside Δφ); loss: δ "
        f"{_within(by['offset'].constant, digits=4)} nats "
        f"({_within(by['offset'].constant_with_phi, digits=4)} beside Δφ)",
    ]
    for one in found.additions:
        per = "" if one.per_flop is None else f": {one.per_flop:.2g} × these runs' per FLOP"
        said.append(
            f"with {one.name} ({one.n_runs} runs, {one.flops:.3g} FLOPs) Δφ beside "
            f"{FORM_WORDS['tokens']} {_within(one.delta_phi)}{per}"
        )
    return said


def _within(half: float | None, *, factor: bool = False, digits: int = 3) -> str:
    """Half a width for people; of a logarithm as a share of the factor."""
    if half is None:
        return "not told"
    return f"± {100 * np.expm1(half):.1f}%" if factor else f"± {half:.{digits}f}"

"""The shape that the page's calculator starts from: that of the runs, where they show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isodepth.comparing.models_in_use import family_of
from isodepth.report.drawn import Drawn
from isodepth.runs import Runs

_USUAL_WIDTH, _USUAL_R = 2048, 4  # arXiv 2604.21106's own example


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What stands in the calculator's fields at first."""

    width: int = _USUAL_WIDTH
    recurrences: int = _USUAL_R
    depth: int = 20  # effective
    outside: int = 4  # prelude and coda blocks
    injection: str = "linear"
    lanes: int = 2
    vocab: int = 32064
    sequence_length: int = 2048  # tokens
    told: str  # where it is from, in words


def shape_of(
    runs: Runs, drawn: Sequence[Drawn], *, vocab: int = 32064, sequence_length: int = 2048
) -> dict[str, Any]:
    """The shape of the first recipe's models; the published one where its runs don't show theirs.

    vocab, sequence_length: of the models, as in `isodepth.account`; a table that contradicts them
    shows no shape.
    """
    published = _Shape(told="The shape is the published one.")
    looped = [int(r) for d in drawn[:1] for r in d.problem.frame["recurrences"] if r > 1]
    if not looped:
        return asdict(published)
    r = _USUAL_R if _USUAL_R in looped else max(looped)
    family, why = family_of(drawn[0].problem, r, vocab, sequence_length)
    if family is None:
        told = f"The shape is the published one, as the runs don't show theirs: {why}."
        return asdict(_Shape(told=told))
    widths = runs.used["width"].dropna()
    seen = widths.min() <= _USUAL_WIDTH <= widths.max()
    return asdict(
        _Shape(
            width=_USUAL_WIDTH if seen else int(widths.max()),
            recurrences=r,
            depth=family.depth,
            outside=family.blocks_once,
            injection=family.injection,
            lanes=family.lanes if family.injection == "hyperconnections" else 2,
            vocab=vocab,
            sequence_length=sequence_length,
            told=f"The shape is that of {drawn[0].name}'s runs; change it as you like.",
        )
    )

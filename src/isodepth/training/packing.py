"""Best-fit packing: which part of which document goes into which row.

As the released code of arXiv 2604.21106 does it (and nanochat before it): a row holds
`sequence_length + 1` tokens, begins with the start token of a document, and is filled with the
largest document at hand that fits whole; where none fits, the shortest is cropped to fill the row
exactly. No padding; what is cropped is not read.

What we changed: a document longer than a row is by default cut into pieces that each begin with a
start token of their own (`long_documents="split"`), because cropping it, as published ("crop"),
throws away most of a small corpus of long documents.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isodepth.training.config import LongDocuments

BUFFER = 1024  # documents at hand when the best fit is chosen

_ORDER_BITS = 40  # a buffer key is length << 40 | order of arrival, so that ints sort by both


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Rows as lists of pieces: row i holds pieces `first[i]` to `first[i + 1]` (exclusive).

    Every piece stands for a start token followed by `length` document tokens.
    """

    first: NDArray[np.int64]  # [rows + 1]
    document: NDArray[np.int64]  # [pieces], index of the document
    offset: NDArray[np.int64]  # [pieces], tokens of the document before the piece
    length: NDArray[np.int64]  # [pieces], tokens, the start token not counted; may be 0

    @property
    def rows(self) -> int:
        return len(self.first) - 1


def pack(
    lengths: NDArray[np.integer], *, capacity: int, long_documents: LongDocuments = "split"
) -> Packing:
    """Pack documents of these lengths (tokens, without start tokens) into full rows.

    A pure function of its arguments. The rows that the last documents can't fill are dropped.
    `capacity` counts all tokens of a row, start tokens included, and is at least 2.
    """
    first = [0]
    placed = tuple(array("q") for _ in range(3))  # document, offset, length of every piece
    supply = _pieces(lengths, capacity - 1, long_documents)
    pieces: dict[int, tuple[int, int]] = {}  # order of arrival -> (document, offset)
    keys: list[int] = []  # sorted
    arrivals = 0
    room = capacity
    while True:
        while len(keys) < BUFFER and (piece := next(supply, None)) is not None:
            document, offset, length = piece
            pieces[arrivals] = (document, offset)
            insort(keys, length << _ORDER_BITS | arrivals)
            arrivals += 1
        if room == 1:
            # A start token alone: it closes the document before it and costs no document.
            document, offset, length = 0, 0, 0
        elif keys:
            fits = bisect_left(keys, room << _ORDER_BITS) - 1  # length + 1 <= room
            key = keys.pop(max(fits, 0))
            document, offset = pieces.pop(key & ((1 << _ORDER_BITS) - 1))
            length = min(key >> _ORDER_BITS, room - 1)
        else:
            break
        for column, value in zip(placed, (document, offset, length), strict=True):
            column.append(value)
        room -= 1 + length
        if room == 0:
            first.append(len(placed[0]))
            room = capacity
    full = first[-1]  # pieces beyond belong to a row that never filled
    documents, offsets, sizes = (np.array(column[:full], dtype=np.int64) for column in placed)
    return Packing(
        first=np.array(first, dtype=np.int64), document=documents, offset=offsets, length=sizes
    )


def _pieces(
    lengths: NDArray[np.integer], longest: int, long_documents: LongDocuments
) -> Iterator[tuple[int, int, int]]:
    for document, length in enumerate(lengths.tolist()):
        if long_documents == "crop":
            yield document, 0, length
        else:
            for offset in range(0, length, longest):
                yield document, offset, min(longest, length - offset)

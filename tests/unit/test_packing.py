"""Best-fit packing: against a naive reference, and what must hold for any documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isodepth.training import packing
from isodepth.training.packing import pack

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


def naive_rows(lengths, capacity, buffer):
    """The published rule, written down without any thought of speed (documents are cropped)."""
    waiting = list(enumerate(lengths))
    rows, row, room = [], [], capacity
    while True:
        at_hand = waiting[:buffer]
        if room == 1:
            row, room = [*row, (0, 0)], 0
        elif not at_hand:
            return rows
        else:
            fitting = [d for d in at_hand if d[1] + 1 <= room]
            # Ties: the one that arrived last among the largest, the one first among the shortest.
            chosen = (
                max(fitting, key=lambda d: (d[1], d[0]))
                if fitting
                else min(at_hand, key=lambda d: (d[1], d[0]))
            )
            waiting.remove(chosen)
            taken = min(chosen[1], room - 1)
            row, room = [*row, (chosen[0], taken)], room - 1 - taken
        if room == 0:
            rows.append(row)
            row, room = [], capacity


def as_rows(packed):
    pieces = list(zip(packed.document.tolist(), packed.length.tolist(), strict=True))
    return [pieces[a:b] for a, b in zip(packed.first[:-1], packed.first[1:], strict=True)]


@given(lengths=LENGTHS, capacity=st.integers(2, 30), buffer=st.sampled_from([1, 3, 1024]))
def test_cropping_agrees_with_the_naive_rule(lengths, capacity, buffer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BUFFER", buffer)
        packed = pack(np.array(lengths, dtype=np.int64), capacity=capacity, long_documents="crop")
    assert as_rows(packed) == naive_rows(lengths, capacity, buffer)
    assert (packed.offset == 0).all()


@given(lengths=LENGTHS, capacity=st.integers(2, 30))
def test_splitting_fills_every_row_and_reads_no_token_twice(lengths, capacity):
    packed = pack(np.array(lengths, dtype=np.int64), capacity=capacity)
    read = [[0] * length for length in lengths]
    for a, b in zip(packed.first[:-1], packed.first[1:], strict=True):
        assert packed.length[a:b].sum() + (b - a) == capacity
        for piece in range(a, b):
            begin = packed.offset[piece]
            for position in range(begin, begin + packed.length[piece]):
                read[packed.document[piece]][position] += 1
    assert all(count <= 1 for document in read for count in document)


def test_splitting_keeps_nearly_all_of_a_corpus_that_cropping_throws_away():
    lengths = np.random.default_rng(0).integers(500, 8000, size=400)
    kept = {
        mode: pack(lengths, capacity=257, long_documents=mode).length.sum() / lengths.sum()
        for mode in ("split", "crop")
    }
    assert kept["split"] > 0.99
    assert kept["crop"] < 0.1


def test_no_documents_give_no_rows():
    assert pack(np.array([], dtype=np.int64), capacity=8).rows == 0
    assert pack(np.array([3], dtype=np.int64), capacity=8).rows == 0

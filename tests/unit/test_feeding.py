"""Batches read ahead of time are the batches."""

import numpy as np
import pytest

from isodepth.training.feeding import Feed


def make(step):
    if step == 9:
        raise OSError("the disk is gone")
    return np.full((2, 3), step)


@pytest.mark.parametrize("ahead", [False, True])
def test_every_step_gets_its_own_batch(ahead):
    with Feed(make, ahead=ahead) as feed:
        for step in (0, 1, 2, 6, 7, 3, 4):
            assert np.array_equal(feed.batch(step), make(step))


@pytest.mark.parametrize("ahead", [False, True])
def test_an_error_reaches_the_step_that_wants_the_batch(ahead):
    with Feed(make, ahead=ahead) as feed:
        feed.batch(8)
        with pytest.raises(OSError, match="the disk is gone"):
            feed.batch(9)

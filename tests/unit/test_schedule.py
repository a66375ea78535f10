"""The learning-rate schedule."""

from itertools import pairwise

import pytest

from isodepth.errors import InputError
from isodepth.training.schedule import lr_scale


def test_it_falls_linearly_from_one_to_a_tenth() -> None:
    scales = [lr_scale(step, 100) for step in range(101)]
    assert scales[0] == 1
    assert scales[50] == pytest.approx(0.55)
    assert scales[100] == pytest.approx(0.1)
    drops = [a - b for a, b in pairwise(scales)]
    assert drops == pytest.approx([0.009] * 100)


def test_a_run_of_one_step_trains_at_the_full_rate() -> None:
    assert lr_scale(0, 1) == 1


@pytest.mark.parametrize(("step", "steps"), [(-1, 10), (11, 10), (0, 0)])
def test_steps_outside_the_run_are_refused(step: int, steps: int) -> None:
    with pytest.raises(InputError, match="outside a run"):
        lr_scale(step, steps)

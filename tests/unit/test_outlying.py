"""Runs off the law: named where they are, never in clean noise."""

import numpy as np
import pytest

from isodepth.fitting.outlying import outlying


@pytest.mark.parametrize("delta", [1e-3, np.inf])
@pytest.mark.parametrize("n", [18, 36, 116])
def test_clean_noise_has_none(delta, n):
    rng = np.random.default_rng(n)
    found = [bool(outlying(0.003 * rng.normal(size=n), delta, 6)) for _ in range(400)]
    assert np.mean(found) <= 0.01


@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_what_is_far_off_is_found_and_hides_nothing(delta):
    residual = 0.003 * np.random.default_rng(0).normal(size=40)
    residual[7], residual[11] = 0.1, -2.0
    assert outlying(residual, delta, 6) == [11, 7]


def test_runs_on_the_law_exactly_have_none():
    assert outlying(np.zeros(20), 1e-3, 6) == []
    assert outlying(np.array([1.0, 2.0]), 1e-3, 6) == []

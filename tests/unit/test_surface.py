"""The surface without a law: exact on polynomials, its hull, its choice of degree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isodepth.fitting.surface import SLACK, surface_of


def points(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(16, 20, n), rng.uniform(20, 25, n)


def polynomial(degree, x, t):
    """A polynomial with every term of its degree, small as log losses are."""
    x, t = x - 18, t - 22
    first = 1.1 - 0.09 * x - 0.07 * t
    second = 0.01 * x**2 + 0.006 * x * t + 0.004 * t**2
    third = 0.002 * x**3 - 0.001 * x**2 * t + 0.0015 * t**3
    return first + (degree > 1) * second + (degree > 2) * third


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_polynomial_is_found_exactly(degree):
    size, tokens = points()
    surface = surface_of(size, tokens, polynomial(degree, size, tokens))
    assert surface.degree >= degree
    assert surface.rmse < 1e-12
    at, when = points(15, seed=1)
    want = polynomial(degree, at, when)
    np.testing.assert_allclose(surface.log_loss(at, when), want, atol=1e-10)
    by_size, by_tokens = surface.slopes(at, when)
    h = 1e-5
    up = polynomial(degree, at + h, when) - polynomial(degree, at - h, when)
    np.testing.assert_allclose(by_size, up / (2 * h), atol=1e-7)
    up = polynomial(degree, at, when + h) - polynomial(degree, at, when - h)
    np.testing.assert_allclose(by_tokens, up / (2 * h), atol=1e-7)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_degree_is_the_one_that_predicts_a_left_out_run_best(degree):
    size, tokens = points()
    chosen = []
    for seed in range(12):
        noise = 3e-4 * np.random.default_rng(seed).normal(size=size.size)
        loss = polynomial(degree, size, tokens) + noise
        surface = surface_of(size, tokens, loss)
        chosen.append(surface.degree)
    # one run left out takes a degree too many now and then, and never one too few
    assert min(chosen) == degree
    assert chosen.count(degree) >= 8
    left = []
    for i in range(size.size):
        others = np.arange(size.size) != i
        design = surface.columns(size, tokens)
        c = np.linalg.lstsq(design[others], loss[others], rcond=None)[0]
        left.append(loss[i] - design[i] @ c)
    assert surface.left_out_rmse == pytest.approx(np.sqrt(np.mean(np.square(left))))
    np.testing.assert_allclose(surface.influence @ loss, surface.coefficients)


def test_it_is_read_inside_the_hull_alone():
    corners = np.array([[16.0, 20.0], [20.0, 20.0], [20.0, 24.0], [16.0, 24.0]])
    inner = np.random.default_rng(0).uniform([16, 20], [20, 24], (20, 2))
    size, tokens = np.vstack([corners, inner]).T
    surface = surface_of(size, tokens, polynomial(2, size, tokens))
    assert surface.holds(size, tokens).all()
    # distance is a share of the hull's extent
    assert surface.distance(np.array([22.0]), np.array([22.0])) == pytest.approx(0.5)
    assert surface.distance(np.array([18.0]), np.array([22.0])) < 0
    low, high = surface.reach(np.array([22.0, 24.0 + 4 * SLACK + 0.01]))
    assert (low[0], high[0]) == pytest.approx((16 - 4 * SLACK, 20 + 4 * SLACK))
    assert np.isnan(low[1])
    assert np.isnan(high[1])


@given(st.integers(0, 1000), st.floats(20.5, 24.5))
def test_reach_and_holds_agree(seed, when):
    size, tokens = points(25, seed)
    surface = surface_of(size, tokens, polynomial(1, size, tokens))
    reach = np.array(surface.reach(np.array([when])))[:, 0]
    at = np.linspace(14, 22, 161)
    inside = surface.holds(at, np.full(at.size, when))
    if np.isnan(reach).any():
        assert not inside.any()
    else:
        clear = np.abs(at[:, None] - reach).min(axis=1) > 1e-9
        wanted = (at >= reach[0]) & (at <= reach[1])
        assert (inside == wanted)[clear].all()


def test_too_few_runs_or_runs_on_a_line_have_none():
    size, tokens = points(4)
    assert surface_of(size, tokens, polynomial(1, size, tokens)) is None
    size, _ = points(20)
    assert surface_of(size, size + 4, polynomial(1, size, size + 4)) is None
    assert surface_of(np.full(20, 18.0), size + 4, size) is None

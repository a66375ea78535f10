"""The solver against scipy's, and against what any minimum must satisfy."""

import numpy as np
import pytest
from conftest import sweep
from scipy import optimize

from isodepth.fitting.estimate import estimate, refit
from isodepth.fitting.problem import Conventions, build
from isodepth.fitting.seeds import non_negative, seeds
from isodepth.fitting.solver import minimise, objective


def problem(law="additive", estimator="huber", noise=0.004, seed=0):
    runs = sweep(law=law, noise=noise, seed=seed)
    return build(runs.used, Conventions(law=law, estimator=estimator))


def plain_objective(p, theta):
    """Huber's loss written out, one run at a time."""
    residuals = p.law.log_loss(theta[None], p.design)[0] - p.log_loss
    total = 0.0
    for r in residuals:
        inside = abs(r) <= p.delta
        total += 0.5 * r**2 if inside else p.delta * (abs(r) - 0.5 * p.delta)
    return total


@pytest.mark.parametrize("law", ["additive", "coupled"])
@pytest.mark.parametrize("estimator", ["huber", "lsq"])
def test_no_worse_than_scipy_from_many_starts(law, estimator):
    p = problem(law, estimator)
    ours = estimate(p)
    assert ours.converged
    assert ours.objective == pytest.approx(plain_objective(p, ours.theta), rel=1e-9)
    found = [
        optimize.minimize(
            lambda t: objective(p.batch(), t[None])[0] * 1e4,
            start,
            method="Nelder-Mead",
            options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-10, "fatol": 1e-13},
        ).fun
        / 1e4
        for start in [ours.theta, *seeds(p)[:4]]
    ]
    assert ours.objective <= min(found) * (1 + 1e-6)
    # the second solver agrees from our optimum: it can't get lower
    assert found[0] == pytest.approx(ours.objective, rel=1e-6)


def test_least_squares_agrees_with_scipys_trust_region():
    p = problem(estimator="lsq")
    ours = estimate(p)
    found = optimize.least_squares(
        lambda t: p.law.log_loss(t[None], p.design)[0] - p.log_loss,
        seeds(p)[0],
        x_scale="jac",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    assert ours.objective == pytest.approx(found.cost, rel=1e-9)
    np.testing.assert_allclose(ours.theta, found.x, rtol=1e-4)


def test_most_starts_agree_on_clean_data():
    for law in ("additive", "coupled"):
        fitted = estimate(problem(law, noise=0.0))
        assert fitted.objective < 1e-12
        assert fitted.n_starts_agreeing >= 1


def test_weights_are_repeated_runs():
    p = problem()
    start = estimate(p).theta
    counts = np.random.default_rng(0).integers(0, 4, p.n)
    weighted = minimise(p.batch(), start[None], counts[None].astype(float))
    repeated = build(p.frame.loc[np.repeat(np.arange(p.n), counts)], p.conventions)
    shifted = start.copy()
    shifted[1] -= start[2] * (repeated.design.log_n0 - p.design.log_n0)
    shifted[3] -= start[4] * (repeated.design.log_d0 - p.design.log_d0)
    again = minimise(repeated.batch(), shifted[None])
    assert weighted.objective[0] == pytest.approx(again.objective[0], rel=1e-8)
    assert weighted.theta[0, 5] == pytest.approx(again.theta[0, 5], abs=1e-6)


def test_batches_equal_single_fits():
    p = problem()
    fitted = estimate(p)
    weights = np.random.default_rng(0).multinomial(p.n, np.ones(p.n) / p.n, 600).astype(float)
    together = refit(p, fitted, weights=weights, n_problems=600)
    for k in (0, 13, 599):
        alone = refit(p, fitted, weights=weights[k : k + 1], n_problems=1)
        np.testing.assert_allclose(together[k], alone[0], rtol=1e-7, atol=1e-9)


def test_fixed_parameters_stay():
    p = problem()
    start = estimate(p).theta.copy()
    start[5] = 0.6
    held = np.arange(start.size) == 5
    found = minimise(p.batch(), start[None], fixed=held)
    assert found.theta[0, 5] == 0.6
    assert found.objective[0] > estimate(p).objective


def test_order_and_units_do_not_matter():
    p = problem()
    fitted = estimate(p)
    shuffled = build(p.frame.sample(frac=1.0, random_state=1), p.conventions)
    assert estimate(shuffled).theta[5] == pytest.approx(fitted.theta[5], abs=1e-7)
    larger = p.frame.assign(
        n_once=p.frame["n_once"] * 1e3,
        n_rec=p.frame["n_rec"] * 1e3,
        n_inject=p.frame["n_inject"] * 1e3,
        tokens=p.frame["tokens"] * 1e2,
    )
    other = estimate(build(larger, p.conventions))
    np.testing.assert_allclose(other.theta, fitted.theta, atol=1e-6)


def test_non_negative_least_squares_against_scipy():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = rng.normal(size=(8, 3)), rng.normal(size=8)
        ours = non_negative((a.T @ a)[None], (a.T @ b)[None])[0]
        np.testing.assert_allclose(ours, optimize.nnls(a, b)[0], atol=1e-8)

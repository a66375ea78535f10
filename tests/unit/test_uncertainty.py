"""Intervals: their parts against closed forms, and a small check of coverage."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import TRUTH, sweep
from scipy import stats

from isodepth.fitting.estimate import estimate
from isodepth.fitting.identify import standard_errors
from isodepth.fitting.noise import moments, noise_freedom, noise_scale
from isodepth.fitting.problem import Conventions, build
from isodepth.fitting.solver import minimise
from isodepth.fitting.uncertainty import Resamples, profile, resample, resampling


def problem(seed=0, noise=0.004, estimator="lsq"):
    return build(sweep(noise=noise, seed=seed).used, Conventions(estimator=estimator))


def test_interval_is_t_times_the_spread():
    draws = np.random.default_rng(0).normal(size=200_000)
    sample = Resamples(theta=draws[:, None], unit="groups", n_units=13)
    low, high = sample.interval(10.0, draws)
    assert high - 10.0 == pytest.approx(stats.t.ppf(0.975, 12), rel=0.01)
    assert 10.0 - low == pytest.approx(high - 10.0)
    low, high = sample.interval(2.0, 2.0 * np.exp(draws), log=True)
    assert high / 2.0 == pytest.approx(2.0 / low)


def test_resampling_draws_whole_groups():
    p = problem()
    assert p.groups.max() + 1 == 12  # 3 budgets × 4 r
    best = estimate(p)
    groups = resample(p, best, 60, 0, "groups")
    runs = resample(p, best, 60, 0, "runs")
    assert (groups.n_units, runs.n_units) == (12, 48)
    assert groups.theta.shape == (60, 6)
    assert not np.allclose(groups.theta, runs.theta)


def test_bootstrap_profile_and_jacobian_agree_where_noise_is_independent():
    """Three independent routes to one standard error of φ."""
    ratios = []
    for seed in range(6):
        p = problem(seed)
        best = estimate(p)
        jacobian = standard_errors(p, best.theta)[5]
        drawn = resample(p, best, 300, seed, "runs").theta[:, 5]
        curve = profile(p, best, "phi", jacobian)
        half = (curve.interval[1] - curve.interval[0]) / 2
        ratios.append(
            (Resamples.standard_error(drawn) / jacobian, half / (jacobian * stats.t.ppf(0.975, 42)))
        )
    assert np.median([r[0] for r in ratios]) == pytest.approx(1.0, abs=0.25)
    assert np.median([r[1] for r in ratios]) == pytest.approx(1.0, abs=0.1)


def test_profile_is_lowest_at_the_estimate_and_rises():
    p = problem(estimator="huber")
    best = estimate(p)
    curve = profile(p, best, "phi", 0.03)
    middle = len(curve.values) // 2
    assert curve.values[middle] == pytest.approx(best.theta[5])
    assert curve.objective[middle] == pytest.approx(best.objective, rel=1e-9)
    assert (np.diff(curve.objective[middle:]) >= -1e-12).all()
    assert (np.diff(curve.objective[: middle + 1]) <= 1e-12).all()


def test_a_profile_that_never_rises_has_open_ends():
    p = problem(estimator="huber")
    best = estimate(p)
    assert profile(p, best, "phi", 1e-6).interval == (None, None)


def test_default_intervals_hold_the_truth():
    """60 sweeps: 95% intervals hold the truth in at least 50 (p < 1e-4 otherwise)."""
    hits = 0
    for seed in range(60):
        p = problem(seed, estimator="huber")
        best = estimate(p)
        sample = resample(p, best, 100, seed, "groups")
        low, high = sample.interval(best.theta[5], sample.theta[:, 5])
        hits += low <= TRUTH["phi"] <= high
    assert hits >= 50


@pytest.mark.parametrize("delta", [1e-4, 1e-3, 4e-3, np.inf])
def test_noise_is_found_from_the_objective_however_many_runs_it_interpolates(delta):
    """Sixteen runs, six parameters: δ from far below the noise to far above."""
    noise, rng = 0.003, np.random.default_rng(0)
    base = problem(noise=0.0, estimator="lsq" if np.isinf(delta) else "huber")
    few = build(base.frame.iloc[::3], replace(base.conventions, huber_delta=min(delta, 1.0)))
    best = estimate(few)
    exact = np.log(few.predict(best.theta)[0])
    drawn = exact + noise * rng.normal(size=(300, few.n))
    found = minimise(few.batch(drawn), np.repeat(best.theta[None], 300, axis=0))
    squares = [noise_scale(few, value, 6) ** 2 for value in found.objective]
    assert np.sqrt(np.mean(squares)) == pytest.approx(noise, rel=0.08)
    # as a χ² of so many degrees of freedom would vary; 300 draws tell a variance to 8% or so
    seen = 2 * np.mean(squares) ** 2 / np.var(squares)
    assert seen == pytest.approx(noise_freedom(few, noise, 6), rel=0.2)


@pytest.mark.parametrize("k", [1e-4, 0.1, 0.7, 1.345, 3.0, 39.0])
def test_moments_of_hubers_loss_are_their_integrals(k):
    z = np.linspace(-12, 12, 400_001)
    weight = stats.norm.pdf(z) * (z[1] - z[0])
    loss = np.where(np.abs(z) < k, z**2 / 2, k * np.abs(z) - k**2 / 2)
    of = moments(k)
    assert of.loss == pytest.approx(loss @ weight, rel=1e-6)
    assert of.loss_square == pytest.approx(loss**2 @ weight, rel=1e-6)
    assert of.square == pytest.approx(np.minimum(np.abs(z), k) ** 2 @ weight, rel=1e-6)


def test_a_run_gives_the_noise_a_degree_of_freedom_by_least_squares_and_less_by_huber():
    assert moments(np.inf).freedom == 1
    assert moments(1e-5).freedom == pytest.approx(1 / (np.pi - 2), rel=1e-3)
    assert 0.87 < moments(0.5).freedom < moments(2.0).freedom < 1


@pytest.mark.parametrize("objective", [0.0, 1e-300, 1e-250, 1e-30])
@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_losses_exactly_on_a_law_have_a_noise_too_and_it_is_least_squares(objective, delta):
    p = problem(noise=0.0, estimator="lsq" if np.isinf(delta) else "huber")
    sigma = noise_scale(p, objective, 6)
    assert 0 < sigma < 1e-14
    if objective > 1e-290:
        assert sigma == pytest.approx(np.sqrt(2 * objective / (p.n - 6)), rel=1e-6)


def few_groups():
    """r = 1 at one budget only, four widths; r = 8 at three budgets."""
    frame = sweep(noise=0.003, seed=3, recurrences=(1, 8)).used
    keep = (frame["recurrences"] > 1) | (frame["budget_flops"] == frame["budget_flops"].min())
    return build(frame[keep], Conventions())


def test_losses_are_simulated_where_phi_hangs_on_one_group():
    p = few_groups()
    best = estimate(p)
    assert resampling(p, best.theta) == "losses"
    whole = problem(estimator="huber")
    assert resampling(whole, estimate(whole).theta) == "groups"


def test_simulated_losses_agree_with_the_jacobian():
    p = few_groups()
    best = estimate(p)
    sample = resample(p, best, 800, 0, "losses")
    sigma = noise_scale(p, best.objective, 6)
    assert 0.87 * (p.n - 6) < sample.freedom < p.n - 6
    assert sample.freedom == pytest.approx(noise_freedom(p, sigma, 6))
    jac = p.law.evaluate(best.theta[None], p.design).jacobian[0]
    error = sigma * np.sqrt(np.linalg.inv(jac @ jac.T)[5, 5] * moments(p.delta / sigma).variance)
    assert sample.standard_error(sample.theta[:, 5]) == pytest.approx(error, rel=0.2)

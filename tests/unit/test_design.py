"""Designs whose optimum is known in closed form, and what must hold of any."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from isodepth import fit, load_runs
from isodepth.errors import InputError
from isodepth.fitting.estimate import estimate
from isodepth.fitting.noise import moments, noise_freedom
from isodepth.fitting.problem import Conventions, build
from isodepth.planning.choice import best_for, cheapest
from isodepth.planning.design import Limits, Worlds, continuous, exact
from isodepth.planning.worlds import PRIOR_LAWS, Candidates, worlds

X = np.linspace(-1, 1, 21)


def linear(*columns, target, noise=1.0):
    """One world: a linear model's rows, and the linear function of its coefficients wanted."""
    rows = np.stack([np.broadcast_to(c, X.shape) for c in columns], axis=1)[None] / noise
    return Worlds(
        rows=rows.astype(float),
        target=np.array([target], dtype=float),
        weights=np.ones(1),
        n_params=np.array([len(columns)]),
        freedom=np.ones(1),
        names=("linear",),
    )


LINE = (np.ones_like(X), X)
PARABOLA = (*LINE, X**2)


@pytest.mark.parametrize(
    ("worlds", "shares", "variance"),
    [
        # slope of a line: half at either end
        (linear(*LINE, target=(0, 1)), {-1: 1 / 2, 1: 1 / 2}, 1.0),
        # extrapolation to x = 2 (Elfving 1952): (x + 1) / 2x of the runs at +1
        (linear(*LINE, target=(1, 2)), {-1: 1 / 4, 1: 3 / 4}, 4.0),
        # the leading coefficient: Chebyshev's points
        (linear(*PARABOLA, target=(0, 0, 1)), {-1: 1 / 4, 0: 1 / 2, 1: 1 / 4}, 4.0),
    ],
)
def test_textbook_optima(worlds, shares, variance):
    best = continuous(worlds, np.ones_like(X))
    assert best.efficiency >= 0.995
    assert best.variance_times_flops == pytest.approx(variance, rel=0.005)
    for x, share in shares.items():
        assert best.shares[np.abs(X - x) < 0.11].sum() == pytest.approx(share, abs=0.02)


def test_dear_runs_get_a_share_in_proportion_to_the_root_of_their_cost():
    cost = np.where(X > 0.999, 9.0, np.where(X < -0.999, 1.0, 1e6))
    best = continuous(linear(*LINE, target=(0, 1)), cost)
    assert best.shares[-1] == pytest.approx(3 / 4, abs=0.01)
    assert best.shares[0] == pytest.approx(1 / 4, abs=0.01)
    # (√9 + √1)² / 4
    assert best.variance_times_flops == pytest.approx(4.0, rel=0.005)


def test_no_random_design_beats_the_proved_bound():
    worlds = linear(*PARABOLA, target=(1, 2, 4))
    cost = 1 + X**2
    best = continuous(worlds, cost)
    rng = np.random.default_rng(0)
    for _ in range(200):
        shares = rng.dirichlet(np.full(X.size, 0.2))
        assert worlds.variance(shares / cost) >= best.variance_times_flops * best.efficiency


@pytest.mark.parametrize("flops", [24, 41.5, 100])
def test_whole_runs_come_within_a_few_percent_of_split_ones(flops):
    worlds = linear(*PARABOLA, target=(1, 2, 4))
    cost = 1 + X**2
    best = continuous(worlds, cost)
    counts = exact(worlds, cost, flops)
    assert counts @ cost <= flops
    bound = best.variance_times_flops * best.efficiency / flops
    assert bound <= worlds.variance(counts) <= 1.06 * bound


def test_the_best_of_all_small_designs_is_found():
    worlds = linear(*LINE, target=(1, 2)).only(np.arange(0, 21, 4))
    cost = np.array([1.0, 1, 2, 1, 2, 3])
    counts = exact(worlds, cost, 9.0)
    every = np.stack(np.meshgrid(*[np.arange(10)] * 6), -1).reshape(-1, 6)
    every = every[(every @ cost <= 9) & (every.sum(1) >= 2)]
    assert worlds.variance(counts) == pytest.approx(min(map(worlds.variance, every)), rel=1e-3)


def test_limits_and_held_runs_are_kept():
    worlds = linear(*LINE, target=(0, 1))
    cost = np.ones_like(X)
    held = np.zeros(X.size, dtype=int)
    held[10] = 2
    limits = Limits(max_runs=7, max_replicates=2)
    counts = exact(worlds, cost, 50.0, limits=limits, fixed=held)
    assert counts.sum() == 7
    assert counts.max() == 2
    assert counts[10] == 2
    assert counts[[0, 20]].tolist() == [2, 2]


def test_a_budget_that_buys_nothing_is_refused():
    with pytest.raises(InputError, match="buy no run"):
        exact(linear(*LINE, target=(0, 1)), np.full(X.size, 2.0), 1.0)


@settings(max_examples=40, deadline=None)
@given(
    runs=st.lists(st.integers(0, 20), min_size=5, max_size=12),
    more=st.integers(0, 20),
    noise=st.floats(0.1, 10),
)
def test_one_more_run_never_widens_the_interval(runs, more, noise):
    worlds = linear(*PARABOLA, target=(1, 2, 4), noise=noise)
    counts = np.bincount(runs, minlength=X.size)
    added = counts + (np.arange(X.size) == more)
    assert worlds.half_width(added) <= worlds.half_width(counts) * (1 + 1e-9)
    assert worlds.half_width(counts) == pytest.approx(
        noise * linear(*PARABOLA, target=(1, 2, 4)).half_width(counts), rel=1e-4
    )


def test_hubers_variance_between_its_known_limits():
    assert moments(1.345).variance == pytest.approx(1 / 0.95, rel=1e-3)  # the usual 95% efficiency
    assert moments(8.0).variance == pytest.approx(1.0, abs=1e-6)
    assert moments(1e-3).variance == pytest.approx(np.pi / 2, rel=1e-2)


def candidates_of(frame):
    columns = ("recurrences", "n_once", "n_rec", "n_inject", "tokens", "budget_flops")
    values = {name: frame[name].to_numpy(dtype=float) for name in columns}
    return Candidates(**values, flops=values["budget_flops"])


@pytest.fixture(scope="module")
def supposed():
    """Candidates, and one world of each law, from a sweep whose truth is known."""
    table = sweep(noise=0.003)
    choice = {"estimator": "lsq", "bootstrap": 0, "sensitivity": False}
    fits = [fit(table, law=law, **choice) for law in PRIOR_LAWS]
    candidates = candidates_of(table.used)
    return candidates, worlds(candidates, fits, noises=(0.003,)), fits


def test_the_predicted_variance_is_that_of_simulated_fits(supposed):
    candidates, _, fits = supposed
    one = fits[0]
    alone = worlds(candidates, [one], noises=(0.003,))
    counts = best_for(alone, candidates, 2e20, limits=Limits(), check_share=0.0).counts
    frame = sweep().used.iloc[np.repeat(np.arange(counts.size), counts)].copy()
    frame["run_id"] = [f"run{i}" for i in range(len(frame))]
    exact_loss = one.predict(
        **{k: frame[k] for k in ("n_once", "n_rec", "n_inject", "recurrences", "tokens")}
    )
    frame["loss"] = exact_loss * (1 + 1e-9 * np.arange(len(frame)))  # replicates, no repeats
    problem = build(load_runs(frame).used, Conventions(estimator="lsq"))
    rng = np.random.default_rng(0)
    start = estimate(problem)
    found = [
        estimate(
            replace(problem, log_loss=np.log(exact_loss) + 0.003 * rng.normal(size=len(frame))),
            starts=start.theta[None],
        ).theta[5]
        for _ in range(150)
    ]
    # 150 simulations know a standard deviation to 6%
    assert np.std(found) == pytest.approx(np.sqrt(alone.variance(counts)), rel=0.18)


@pytest.mark.parametrize("estimator", ["huber", "lsq"])
def test_the_prediction_has_the_degrees_of_freedom_of_the_fits_own_noise(supposed, estimator):
    candidates, _, fits = supposed
    conventions = Conventions(estimator=estimator)
    one = replace(fits[0], conventions=conventions)
    problem = build(sweep().used, conventions)
    noises = (0.0005, 0.003)
    found = worlds(candidates, [one], noises=noises).degrees_of_freedom(np.ones(problem.n))
    assert found == pytest.approx([noise_freedom(problem, noise, 6) for noise in noises])


# few whole runs can't hold the fraction of a dear one that the continuous optimum asks for
@pytest.mark.parametrize(("target", "excess"), [(0.05, 1.25), (0.01, 1.02)])
def test_the_cheapest_design_meets_its_target_and_nothing_cheaper_does(supposed, target, excess):
    candidates, known, _ = supposed
    choice = cheapest(known, candidates, target, limits=Limits(), check_share=0.0)
    assert choice.half_width <= target
    assert choice.bound <= choice.flops <= excess * choice.bound
    less = best_for(known, candidates, 0.98 * choice.flops, limits=Limits(), check_share=0.0)
    assert less.half_width > target


def test_runs_held_for_checking_let_a_wrong_law_be_seen(supposed):
    candidates, known, _ = supposed
    bare = best_for(known, candidates, 2e20, limits=Limits(), check_share=0.0)
    checked = best_for(known, candidates, 2e20, limits=Limits(), check_share=0.2)
    assert checked.held @ candidates.flops <= 0.2 * 2e20
    used = checked.counts > 0
    assert np.unique(candidates.recurrences[used]).size >= 3
    assert np.unique(candidates.budget_flops[used]).size >= 3
    assert np.maximum(checked.counts - 1, 0).sum() >= 2
    assert bare.half_width <= checked.half_width <= 1.3 * bare.half_width
    assert len(checked.unmet) == 1


def test_where_the_power_law_is_doubted_every_r_keeps_a_run(supposed):
    candidates, known, _ = supposed
    bare = best_for(known, candidates, 2e20, limits=Limits(), check_share=0.0)
    kept = best_for(known, candidates, 2e20, limits=Limits(every_r=True), check_share=0.0)
    levels = np.unique(candidates.recurrences)
    assert np.unique(candidates.recurrences[bare.counts > 0]).size < levels.size
    assert np.unique(candidates.recurrences[kept.counts > 0]).size == levels.size
    assert kept.flops <= 2e20


def test_what_cannot_be_reached_says_how_near_one_gets(supposed):
    candidates, known, _ = supposed
    found = cheapest(known, candidates, 0.001, limits=Limits(max_runs=12), check_share=0.0)
    assert found.n_runs == 12
    assert 0.001 < found.half_width < 0.2
    with pytest.raises(InputError, match="5 runs can't tell φ"):
        cheapest(known, candidates, 0.001, limits=Limits(max_runs=5), check_share=0.0)

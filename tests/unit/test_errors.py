"""Intervals that average over error structures: closed forms, dense algebra and simulations."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from isodepth.fitting.errors import Cells, Errors

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DECAYS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)


def layout(levels=4, budgets=6, widths=5):
    """Cells of a grid of runs, and each run's (r, budget)."""
    rows = [(r, c) for r in range(levels) for c in range(budgets) for _ in range(widths)]
    frame = pd.DataFrame(rows, columns=["recurrences", "budget"]).assign(recipe="a")
    return Cells.of(frame, 10.0 ** frame["budget"].to_numpy()), frame


def design(frame, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([np.ones(len(frame)), frame["recurrences"], rng.normal(size=len(frame))])


def errors(cells, x, y, **options):
    influence = np.linalg.pinv(x)
    found = Errors(cells=cells, columns=x, residual=y - x @ (influence @ y), **options)
    return found, influence


def correlation(cells, decay):
    """Of the cells' effects: decay^|steps between budgets| along one line, else 0."""
    lag = np.abs(cells.step[:, None] - cells.step).astype(float)
    return np.where(cells.line[:, None] == cells.line, decay**lag, 0.0)


def draw(cells, share, decay, rng):
    """Noise of unit variance of one structure."""
    root = np.linalg.cholesky(correlation(cells, decay) + 1e-9 * np.eye(cells.n))
    own, common = rng.normal(size=cells.of_run.size), root @ rng.normal(size=cells.n)
    return np.sqrt(1 - share) * own + np.sqrt(share) * common[cells.of_run]


def test_cells_are_recipe_r_and_budget():
    frame = pd.DataFrame({"recipe": list("aaab"), "recurrences": [1, 1, 2, 2]})
    cells = Cells.of(frame, np.array([1.0, 3.0, 3.0, 3.0]))
    assert cells.of_run.tolist() == [0, 1, 2, 3]
    assert cells.step.tolist() == [0, 1, 1, 1]
    assert cells.line[0] == cells.line[1]
    assert len(set(cells.line)) == 3
    assert Cells.of(frame, None).n == 4


def test_so_many_cells_that_weighing_would_not_pay_are_no_cells():
    frame = pd.DataFrame({"recipe": "a", "recurrences": np.repeat([1, 2], 1000)})
    cells = Cells.of(frame, np.tile(np.repeat(np.arange(500.0), 2), 2))
    assert not cells.shared
    assert cells.n == 2000


@pytest.mark.parametrize("excess", [0.0, 0.2])
def test_independent_runs_have_the_t_interval_of_least_squares(excess):
    _, frame = layout()
    x = design(frame)
    y = np.random.default_rng(1).normal(size=len(frame))
    found, influence = errors(Cells.of(frame, None), x, y, excess=excess)
    freedom = len(frame) - 3
    s2 = (found.residual**2).sum() / freedom * (1 + excess)
    for i, at in enumerate(influence):
        wanted = stats.t.ppf(0.975, freedom) * np.sqrt(s2 * np.linalg.inv(x.T @ x)[i, i])
        assert found.half_width(at) == pytest.approx(wanted)
        low, high = found.interval(2.0, at)
        assert (low, high) == pytest.approx((2 - wanted, 2 + wanted))
    values = influence[1:] @ y
    f = values @ np.linalg.inv(s2 * np.linalg.inv(x.T @ x)[1:, 1:]) @ values / 2
    assert found.p_value(values, influence[1:]) == pytest.approx(stats.f.sf(f, 2, freedom))


@pytest.mark.parametrize("along", [False, True])
def test_the_mixture_is_that_of_dense_algebra(along):
    """Restricted likelihood, weights and variances, each with whole matrices."""
    cells, frame = layout(levels=3, budgets=4, widths=3)
    x = design(frame)
    y = draw(cells, 0.4, 0.5, np.random.default_rng(2))
    found, influence = errors(cells, x, y, go_along=along)
    n, p = x.shape
    member = np.eye(cells.n)[cells.of_run]
    likelihood, scale = [], []
    for share in SHARES:
        for decay in DECAYS if along and share else (0.0,):
            omega = (1 - share) * np.eye(n)
            omega += share * member @ correlation(cells, decay) @ member.T
            inverse = np.linalg.inv(omega)
            gram = x.T @ inverse @ x
            left = inverse - inverse @ x @ np.linalg.inv(gram) @ x.T @ inverse
            squares = y @ left @ y
            logs = np.linalg.slogdet(omega)[1] + np.linalg.slogdet(gram)[1]
            likelihood.append(-0.5 * (logs + (n - p) * np.log(squares)))
            scale.append(np.sqrt(squares / (n - p) * (influence[1] @ omega @ influence[1])))
    weight = np.exp(np.array(likelihood) - max(likelihood))
    weight /= weight.sum()
    scale = np.array(scale)

    def inside(half):
        return weight @ (2 * stats.t.cdf(half / scale, n - p) - 1) - 0.95

    wanted = optimize.brentq(inside, 0, 100)
    assert found.half_width(influence[1]) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_noise_shared_in_cells_widens_a_mean_as_it_should(share):
    """The variance of a mean is σ²(1 + (k − 1)ρ)/n."""
    cells, frame = layout(levels=8, budgets=30, widths=8)
    y = draw(cells, share, 0.0, np.random.default_rng(3))
    found, influence = errors(cells, np.ones((len(frame), 1)), y, go_along=False)
    wanted = 1.96 * np.sqrt((1 + 7 * share) / len(frame))
    assert found.half_width(influence[0]) == pytest.approx(wanted, rel=0.1)


def test_weights_prefer_the_true_structure():
    cells, frame = layout(levels=12, budgets=20, widths=5)
    grid = [(s, d) for s in SHARES for d in DECAYS if s or not d]
    for share, decay in ((0.5, 0.0), (0.4, 0.7)):
        y = draw(cells, share, decay, np.random.default_rng(4))
        found, _ = errors(cells, design(frame), y, go_along=True)
        best = grid[int(np.argmax(found.weights))]
        assert best[0] == pytest.approx(share, abs=0.11)
        assert best[1] == pytest.approx(decay, abs=0.26)
        near = sum(
            w
            for w, (s, d) in zip(found.weights, grid, strict=True)
            if abs(s - share) < 0.21 and abs(d - decay) < 0.31
        )
        assert near > 0.95


def test_residuals_that_go_on_along_r_are_found_and_widen():
    cells, frame = layout()
    rng = np.random.default_rng(5)
    x = design(frame)
    gone = [errors(cells, x, draw(cells, 0.6, 0.85, rng))[0] for _ in range(12)]
    single = [errors(cells, x, draw(cells, 0.6, 0.0, rng))[0] for _ in range(12)]
    assert sum(e.along.asked_for for e in gone) >= 9
    assert sum(e.along.p_value < 0.1 for e in single) <= 4
    assert np.mean([e.along.correlation for e in gone]) > 0.3
    assert abs(np.mean([e.along.correlation for e in single])) < 0.3
    # the coefficient of r is what noise along an r moves
    one = next(e for e in gone if e.along.asked_for)
    at = np.linalg.pinv(x)[1]
    without = Errors(cells=cells, columns=x, residual=one.residual, go_along=False)
    assert one.half_width(at) > 1.3 * without.half_width(at)


def test_nothing_goes_on_where_no_cell_is_followed():
    cells, frame = layout(budgets=1)
    found, _ = errors(cells, design(frame), np.random.default_rng(0).normal(size=len(frame)))
    assert found.along is None


def test_p_values_are_uniform_where_nothing_is():
    cells, frame = layout(levels=3, budgets=4, widths=4)
    x, rng = design(frame), np.random.default_rng(6)
    told = []
    for _ in range(400):
        y = draw(cells, 0.0, 0.0, rng)
        found, influence = errors(cells, x, y, go_along=False)
        told.append(found.p_value(influence[1:] @ y, influence[1:]))
    # structures that might be make it a little careful, never rash: 400 draws, ± 2.5 errors
    for level in (0.05, 0.2, 0.5):
        share = np.mean(np.array(told) < level)
        error = np.sqrt(level * (1 - level) / 400)
        assert level * 0.5 - 2.5 * error < share < level + 2.5 * error


def test_draws_spread_as_the_interval_says():
    cells, frame = layout()
    y = draw(cells, 0.5, 0.0, np.random.default_rng(7))
    found, influence = errors(cells, design(frame), y, go_along=False)
    drawn = found.draws(influence[1], 40_000, 0)[:, 0]
    assert np.mean(np.abs(drawn) < found.half_width(influence[1])) == pytest.approx(0.95, abs=0.004)


def test_one_wild_run_does_not_choose_the_structure():
    cells, frame = layout()
    x = design(frame)
    y = draw(cells, 0.0, 0.0, np.random.default_rng(8))
    calm, _ = errors(cells, x, y, go_along=False)
    y[7] += 60.0
    wild, _ = errors(cells, x, y, go_along=False)
    assert np.abs(wild.weights - calm.weights).max() < 0.15

"""Sweep grids: equal depth, equal compute, optima inside the widths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isodepth import account, fit
from isodepth.errors import InputError
from isodepth.planning.grid import (
    Budget,
    Recipe,
    Shape,
    cells,
    choose_widths,
    optimal_width,
)

BASELINE = Recipe(name="baseline", recurrences=(1, 2, 4, 8))
SHAPE = Shape()


@pytest.fixture(scope="module")
def law(published):
    return fit(published, bootstrap=0, sensitivity=False)


def test_every_run_of_a_budget_costs_the_same_to_one_percent():
    budgets = (Budget(flops=1e18, widths=(384, 640, 896)), Budget(flops=4e18, widths=(640, 1024)))
    found = cells((BASELINE,), budgets, SHAPE, seeds=2)
    assert len(found) == 4 * (3 + 2) * 2
    for budget in budgets:
        flops = [cell.flops for cell in found if cell.budget_flops == budget.flops]
        assert max(flops) / min(flops) < 1.01
    for cell in found:
        expected = account(width=cell.width, recurrences=cell.recurrences)
        assert cell.account == expected
        assert cell.tokens == cell.steps * SHAPE.batch_tokens
    assert len({cell.name for cell in found}) == len(found)


def test_half_of_the_passes_carry_gradient_rounded_up():
    recipe = Recipe(name="t", recurrences=(2, 3, 4, 8), backprop="half")
    assert [recipe.backprop_last(r) for r in (1, 2, 3, 4, 8)] == [None, 1, 2, 2, 4]
    cell = cells((recipe,), (Budget(flops=1e18, widths=(640,)),), Shape(depth=28))[0]
    assert cell.account == account(width=640, recurrences=2, depth=28, backprop_last=1)


@pytest.mark.parametrize(
    ("recipe", "budget", "shape", "message"),
    [
        (Recipe(name="a", recurrences=(3,)), Budget(flops=1e18, widths=(640,)), SHAPE, "divide"),
        (BASELINE, Budget(flops=1e18, widths=(600,)), SHAPE, "no multiple of the head size"),
        (BASELINE, Budget(flops=1e15, widths=(640,)), SHAPE, "no whole number of steps"),
        (BASELINE, Budget(flops=1e18, widths=(640, 640)), SHAPE, "planned twice"),
        (BASELINE, Budget(flops=1e18), SHAPE, "no widths"),
        (BASELINE, Budget(flops=1e18, widths=(640,), recipes=("b",)), SHAPE, "named 'b'"),
    ],
)
def test_a_grid_that_is_no_fair_comparison_is_refused(recipe, budget, shape, message):
    with pytest.raises(InputError, match=message):
        cells((recipe,), (budget,), shape)


def test_blocks_of_one_budget_add_up():
    budgets = (
        Budget(flops=1e18, widths=(512, 640)),
        Budget(flops=1e18, widths=(1024,), recurrences=(8,)),
    )
    found = cells((BASELINE,), budgets, SHAPE)
    assert {c.recurrences for c in found if c.width == 1024} == {8}
    assert len(found) == 9


def test_the_laws_optimum_is_that_of_a_dense_search(law):
    for r in (1, 4):
        best = optimal_width(law, BASELINE, r, 1e19, SHAPE)
        widths = np.arange(256, 3000, 4)
        arms = [account(width=int(w), recurrences=r) for w in widths]
        losses = law.drawn(
            n_once=[a.n_once for a in arms],
            n_rec=[a.n_rec for a in arms],
            n_inject=[a.n_inject for a in arms],
            recurrences=r,
            tokens=[1e19 / a.flops_per_token for a in arms],
        )
        assert best == pytest.approx(widths[np.argmin(losses)], rel=0.02)


@settings(max_examples=25, deadline=None)
@given(
    flops=st.floats(17.5, 21).map(lambda x: 10**x),
    count=st.integers(3, 8),
    unit=st.sampled_from([64, 128]),
)
def test_chosen_widths_bracket_every_arms_optimum(law, flops, count, unit):
    shape = Shape(head_size=unit)
    arms = [(BASELINE, r) for r in BASELINE.recurrences]
    widths = choose_widths(law, arms, flops, shape, count=count)
    best = [optimal_width(law, recipe, r, flops, shape) for recipe, r in arms]
    assert len(widths) >= count
    assert min(widths) < min(best)
    assert max(widths) > max(best)
    assert all(w % unit == 0 for w in widths)


def test_a_shift_moves_the_widths(law):
    arms = [(BASELINE, r) for r in BASELINE.recurrences]
    plain = choose_widths(law, arms, 1e20, SHAPE)
    shifted = choose_widths(law, arms, 1e20, SHAPE, shifts={("baseline", r): 0.5 for _, r in arms})
    assert np.mean(np.log(shifted)) == pytest.approx(np.mean(np.log(plain)) - np.log(2), abs=0.15)


def test_a_budget_too_small_for_the_head_size_is_refused(law):
    arms = [(BASELINE, 1)]
    with pytest.raises(InputError, match="smaller head size"):
        choose_widths(law, arms, 3e15, Shape(batch_tokens=2048))

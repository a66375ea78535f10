"""Which runs belong together: budgets with a tolerance, rows that stand there twice."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from isodepth import load_runs
from isodepth.runs.groups import budgets_of, grouped, repeated_rows


def test_dust_makes_no_budget():
    values = np.array([3e17, 3e17 * (1 + 2e-16), 3e17, 1e18, 1e18 * 1.01, 1e18])
    assert grouped(values).tolist() == [3e17] * 3 + [1e18] * 3


def test_flops_of_whole_steps_are_one_budget_and_a_continuum_is_not():
    steps = np.array([0.97, 1.0, 1.02, 3.0, 3.1]) * 1e18
    assert np.unique(grouped(steps)).size == 2
    spread = np.geomspace(1e17, 1e19, 2000)
    found = grouped(spread)
    assert np.unique(found).size > 80
    assert np.abs(np.log(found / spread)).max() < 0.051


@given(
    st.lists(st.sampled_from([1e17, 4e17, 2e18, 9e18]), min_size=1, max_size=40),
    st.integers(0, 9),
)
def test_groups_are_the_nominal_budgets_whatever_the_steps(nominal, seed):
    nominal = np.array(nominal)
    noisy = nominal * (1 + np.random.default_rng(seed).uniform(-0.02, 0.02, nominal.size))
    found = grouped(noisy)
    assert np.unique(found).size == np.unique(nominal).size
    assert all(np.unique(found[nominal == one]).size == 1 for one in nominal)


@given(st.lists(st.floats(1e15, 1e21), min_size=1, max_size=60))
def test_grouping_again_changes_nothing_much(values):
    once = grouped(np.array(values))
    assert np.abs(np.log(grouped(once) / once)).max() < 0.11
    assert set(once) <= set(values)


def table(**columns):
    rows = {"recurrences": [1, 1, 2, 2], "n_once": 2e6, "n_rec": [8e6, 8e6, 4e6, 4e6]}
    return pd.DataFrame(rows | {"tokens": 1e8, "loss": [3.512345678, 3.5, 3.6, 3.7]} | columns)


def test_budgets_have_one_name_in_the_whole_table():
    frame = table(flops=[1e16, 1.01e16, 1.02e16, 5e16])
    assert load_runs(frame).frame["budget_flops"].nunique() == 2
    assert budgets_of(table(flops=[1e16, np.nan, 1e16, 1e16])) is None
    assert "budget_flops" not in load_runs(table()).frame


def test_rows_equal_to_the_digit_are_repeats():
    same = load_runs(table(loss=[3.512345678, 3.512345678, 3.6, 3.7]))
    assert same.frame["status"].tolist() == ["done", "duplicate", "done", "done"]
    again = load_runs(same.frame)
    assert again.frame["status"].tolist() == same.frame["status"].tolist()


def test_few_digits_agree_by_chance_between_seeds():
    assert repeated_rows(table(loss=[3.51, 3.51, 3.6, 3.7], seed=[0, 1, 0, 1])) == {}
    assert repeated_rows(table(loss=[3.51, 3.51, 3.6, 3.7], seed=[0, 0, 0, 1])) == {1: 0}
    assert repeated_rows(table(loss=[3.51, 3.51, 3.6, 3.7])) == {1: 0}
    many = table(loss=[3.512345678, 3.512345678, 3.6, 3.7], seed=[0, 1, 0, 1])
    assert repeated_rows(many) == {1: 0}


def test_diverged_runs_repeat_nothing():
    assert repeated_rows(table(loss=np.nan)) == {}

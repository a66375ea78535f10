"""Parabola minima against exact parabolas, and what must be refused."""

import numpy as np
import pandas as pd
import pytest

from isodepth import InputError, isoflop, load_runs


def curve(loss_of, sizes=(1e7, 2e7, 4e7, 8e7, 1.6e8), noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    sizes = np.array(sizes)
    return load_runs(
        pd.DataFrame(
            {
                "recurrences": 1,
                "n_once": 0.2 * sizes,
                "n_rec": 0.8 * sizes,
                "tokens": 1e18 / (6 * sizes),
                "budget_flops": 1e18,
                "loss": loss_of(np.log(sizes)) + noise * rng.normal(size=sizes.size),
            }
        )
    )


def test_an_exact_parabola_gives_its_own_minimum():
    (group,) = isoflop(curve(lambda x: 2.5 + 0.05 * (x - np.log(5e7)) ** 2)).groups
    assert group.bracketed
    assert not group.concave
    assert group.n_min == pytest.approx(5e7, rel=1e-9)
    assert group.loss_min == pytest.approx(2.5, abs=1e-12)
    assert group.tokens_min == pytest.approx(1e18 / (6 * 5e7), rel=1e-9)
    assert group.warning is None


def test_a_concave_curve_has_no_minimum():
    (group,) = isoflop(curve(lambda x: 2.5 - 0.05 * (x - np.log(5e7)) ** 2)).groups
    assert group.concave
    assert (group.n_min, group.loss_min, group.bracketed) == (None, None, False)


@pytest.mark.parametrize(("centre", "side"), [(2e6, "smaller"), (9e8, "larger")])
def test_an_unbracketed_minimum_is_refused(centre, side):
    (group,) = isoflop(curve(lambda x: 2.5 + 0.05 * (x - np.log(centre)) ** 2)).groups
    assert (group.n_min, group.loss_min, group.bracketed, group.concave) == (
        None,
        None,
        False,
        False,
    )
    assert f"try {side} models" in group.warning.text


def test_a_minimum_near_the_edge_is_marked():
    (group,) = isoflop(curve(lambda x: 2.5 + 0.05 * (x - np.log(1.3e7)) ** 2)).groups
    assert group.bracketed
    assert "near the edge" in group.warning.text


def test_two_sizes_are_too_few():
    result = isoflop(curve(lambda x: 2.5 + 0 * x, sizes=(1e7, 2e7)))
    assert result.groups[0].n_min is None
    assert "needs 3 sizes" in result.groups[0].warning.text
    assert result.noise is None


def test_intervals_cover_the_minimum():
    truth = np.log(5e7)
    hits = []
    for seed in range(300):
        (group,) = isoflop(
            curve(
                lambda x: 2.5 + 0.05 * (x - truth) ** 2,
                sizes=np.geomspace(1e7, 2e8, 9),
                noise=0.002,
                seed=seed,
            )
        ).groups
        low, high = group.n_min_ci95
        below, above = group.loss_min_ci95
        hits.append((low <= 5e7 <= high, below <= 2.5 <= above))
    assert np.all(np.abs(np.mean(hits, axis=0) - 0.95) < 0.04)


def test_published_minima():
    result = isoflop(load_runs("published"))
    # 24 baseline groups and 12 of each probe
    assert len(result.groups) == 48
    assert sum(g.bracketed for g in result.groups) >= 40
    lowest = {
        g.recurrences: g for g in result.groups if g.recipe == "baseline" and g.budget_flops == 1e18
    }
    assert [lowest[r].loss_min for r in (1, 2, 4, 8)] == sorted(
        lowest[r].loss_min for r in (1, 2, 4, 8)
    )


def test_without_budgets_there_are_no_groups():
    runs = load_runs(
        pd.DataFrame(
            {"recurrences": [1.0], "n_once": [1e6], "n_rec": [0.0], "tokens": [1e8], "loss": [3.0]}
        )
    )
    with pytest.raises(InputError, match="budget_flops"):
        isoflop(runs)


def test_budgets_are_read_from_flops_where_none_is_named():
    frame = curve(lambda x: 2.5 + 0.05 * (x - np.log(5e7)) ** 2).frame.drop(
        columns=["budget_flops"]
    )
    frame["flops_per_token"] = 6 * (frame["n_once"] + frame["n_rec"]) * np.linspace(0.98, 1.0, 5)
    (group,) = isoflop(load_runs(frame)).groups
    assert group.n_runs == 5
    assert group.budget_flops == pytest.approx(1e18, rel=0.02)

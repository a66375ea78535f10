"""Compute multipliers: a closed form, a case of known crossings, and what can't be told."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import sweep, true_loss

from isodepth import compare, load_runs
from isodepth.report.compute_tables import exponent_rows, multiplier_rows

CASES = Path(__file__).parent.parent / "data" / "cases"


def holds(value, truth):
    return value.ci95[0] <= truth <= value.ci95[1]


@pytest.fixture(scope="module")
def cheaper():
    """A probe that is the baseline with tokens at 1 / 1.3 of its FLOPs."""
    budgets = (1e18, 4e18, 1.6e19, 6.4e19)
    base = sweep(noise=1e-4, budgets=budgets).used.assign(recipe="baseline")
    probe = base.assign(
        recipe="probe",
        run_id="p" + base["run_id"],
        tokens=1.3 * base["tokens"],
        flops_per_token=base["flops_per_token"] / 1.3,
    )
    probe["loss"] = true_loss(probe) * np.exp(
        1e-4 * np.random.default_rng(1).normal(size=len(probe))
    )
    return compare(load_runs(pd.concat([base, probe])), recipe="probe", bootstrap=50)


def test_a_token_at_less_cost_is_compute_saved_at_every_budget_and_r(cheaper):
    assert [one.recurrences for one in cheaper.compute_multiplier] == [1, 2, 4, 8]
    for one in cheaper.compute_multiplier:
        # not exact: both frontiers have optima between the sizes that were run
        assert [at.by_law.value for at in one.at] == pytest.approx([1.3] * 4, rel=0.01)
        assert one.per_decade.value == pytest.approx(1.0, abs=0.01)
        assert one.crossing_flops is None
        measured = [at.measured.value for at in one.at if at.measured]
        assert measured == pytest.approx([1.3] * len(measured), rel=0.03)
        assert measured
    assert "times its compute for the same loss" in cheaper.verdict
    by = {one.name: one.difference.value for one in cheaper.exponents}
    assert abs(by["alpha"]) < 0.02 > abs(by["E"])


def test_a_recipe_with_a_larger_exponent_loses_below_and_wins_above():
    found = compare(CASES / "cmp.csv", baseline="base", recipe="op", bootstrap=100)
    told = {one.recurrences: one for one in found.compute_multiplier}
    # the truth of the case: α .22 and .26, equal φ
    for r, crossing in ((1, 1.41e18), (2, 2.00e18), (4, 2.51e18)):
        assert holds(told[r].crossing_flops, crossing), r
        assert told[r].per_decade.ci95[0] > 1
    for r, ends in ((1, (0.896, 1.323)), (4, (0.847, 1.251))):
        for at, truth in zip((told[r].at[0], told[r].at[-1]), ends, strict=True):
            assert holds(at.by_law, truth), (r, truth)
            assert at.beyond  # the baseline's compute for that loss was not run
            assert at.measured is None
    assert found.verdict.startswith("by compute it loses below and wins above 1.")
    alpha = next(one for one in found.exponents if one.name == "alpha")
    assert holds(alpha.difference, 0.04)
    assert alpha.difference.ci95[0] > 0
    assert any(
        row[-1].endswith("extrapolated") for row in multiplier_rows(found.compute_multiplier)
    )
    assert [exponent_rows(found)[2][0], exponent_rows(found)[2][-1]] == ["alpha", "significant"]


def test_passes_worth_a_whole_block_each_cost_no_compute():
    worth = {1: 1, 2: 2, 4: 4, 8: 8}  # φ = 1
    base = sweep(multiplicity=worth, noise=1e-4, budgets=(1e18, 4e18, 1.6e19, 6.4e19)).used
    probe = base.assign(recipe="probe", run_id="p" + base["run_id"])
    both = load_runs(pd.concat([base.assign(recipe="baseline"), probe]))
    looping = compare(both, recipe="probe", bootstrap=50).looping
    for several in (looping.baseline, looping.recipe):
        assert [one.recurrences for one in several] == [2, 4, 8]
        for one in several:
            # injection costs a little, and adds a few parameters
            assert [at.by_law.value for at in one.at] == pytest.approx([1.0] * 4, abs=0.06)


def test_what_looping_costs_is_measured_as_the_law_says_it(cheaper):
    for one in cheaper.looping.baseline:
        for at in one.at:
            assert at.by_law.value < 1
            assert at.measured is None or at.measured.value == pytest.approx(
                at.by_law.value, rel=0.05
            )
    assert any(at.measured for one in cheaper.looping.baseline for at in one.at)


def test_laws_without_resamples_or_budgets_have_no_multiplier(cheaper):
    base = sweep(noise=1e-4).used.assign(recipe="baseline")
    probe = base.assign(recipe="probe", run_id="p" + base["run_id"])
    both = load_runs(pd.concat([base, probe]))
    assert compare(both, recipe="probe", bootstrap=0).compute_multiplier == ()
    joint = compare(both, recipe="probe", method="joint", bootstrap=50)
    assert joint.compute_multiplier == joint.exponents == ()
    assert joint.looping is None


def test_published_lanes_save_the_same_compute_at_every_r():
    found = compare("published", recipe="hyperconnections", bootstrap=50)
    measured = [
        at.measured.value for one in found.compute_multiplier for at in one.at if at.measured
    ]
    assert len(measured) >= 10
    assert 1.3 < min(measured) < max(measured) < 1.5
    assert (
        np.ptp(
            [
                np.mean([a.measured.value for a in one.at if a.measured])
                for one in found.compute_multiplier
            ]
        )
        < 0.08
    )
    assert "takes 1.35 to 1.43 times its compute" in found.verdict


def recipes(frame, n_untied=0):
    """A baseline and a probe alike, and the baseline's r = 4 runs once more, untied."""
    both = [
        frame.assign(recipe="baseline"),
        frame.assign(recipe="probe", run_id="p" + frame["run_id"]),
    ]
    if n_untied:
        own = frame[frame["recurrences"] == 4].head(n_untied)
        both.append(
            own.assign(
                recipe="baseline",
                run_id="u" + own["run_id"],
                recurrences=1,
                graph_recurrences=4.0,
                n_rec=4 * own["n_rec"],
                loss=0.97 * own["loss"],
            )
        )
    return load_runs(pd.concat(both))


def test_minima_without_a_noise_measure_nothing():
    frame = sweep(noise=1e-3, widths=(448, 640, 896)).used  # three runs tell no noise
    found = compare(recipes(frame), recipe="probe", bootstrap=50)
    assert [one.recurrences for one in found.compute_multiplier] == [1, 2, 4, 8]
    assert all(at.measured is None for one in found.compute_multiplier for at in one.at)
    assert "Infinity" not in found.to_json()


def test_minima_that_rise_with_compute_are_not_inverted():
    frame = sweep(noise=1e-4, widths=(320, 448, 640, 896, 1280)).used
    second = frame["budget_flops"] == 4e18
    frame.loc[second & (frame["recurrences"] == 2), "loss"] *= 1.2
    found = compare(recipes(frame), recipe="probe", bootstrap=50)
    told = {one.recurrences: one for one in found.compute_multiplier}
    assert all(at.measured is None for at in told[2].at)
    assert any(at.measured for at in told[4].at)


def test_untied_runs_are_not_the_unlooped_frontier():
    frame = sweep(noise=1e-3, widths=(320, 448, 640, 896, 1280)).used
    plain = compare(recipes(frame), recipe="probe", bootstrap=50)
    mixed = compare(recipes(frame, n_untied=15), recipe="probe", bootstrap=50)
    # nor what an r = 1 model holds and costs
    for one, other in zip(plain.channels, mixed.channels, strict=True):
        assert (one.recurrences, one.budget_flops) == (other.recurrences, other.budget_flops)
    assert len(mixed.inference) == len(plain.inference) > 0
    for one, other in zip(plain.looping.recipe, mixed.looping.recipe, strict=True):
        for a, b in zip(one.at, other.at, strict=True):
            assert (a.measured is None) == (b.measured is None)
            if a.measured:  # the noise is pooled over the untied groups too
                assert b.measured.value == pytest.approx(a.measured.value)
    for one, other in zip(plain.looping.baseline, mixed.looping.baseline, strict=True):
        measured = [(a.measured, b.measured) for a, b in zip(one.at, other.at, strict=True)]
        assert any(a for a, _ in measured)
        assert all(a is None or b.value == pytest.approx(a.value) for a, b in measured)

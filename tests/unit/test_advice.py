"""Equivalence against the published claim, closed forms and properties."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import sweep

from isodepth import InputError, account, fit, load_runs
from isodepth.planning.advice import Quantity, equivalent_to_counts, equivalent_to_width


@pytest.fixture(scope="module")
def published_fit(published):
    return fit(published, bootstrap=200, sensitivity=False)


def test_the_published_claim(published_fit):
    """A 410M model at r = 4 does as well as a 580M unlooped one and costs as much as a 1B one."""
    result = equivalent_to_width(published_fit, width=2048, recurrences=4)
    assert result.unique_params == pytest.approx(410e6, rel=0.01)
    assert result.equivalent_params.value == pytest.approx(580e6, rel=0.03)
    assert result.same_cost_params == pytest.approx(1.0e9, rel=0.05)
    low, high = result.equivalent_params.ci95
    assert 410e6 < low < result.equivalent_params.value < high < 1e9


def test_equal_loss_means_equal_loss(published_fit):
    a = account(width=2048, recurrences=4)
    result = equivalent_to_width(published_fit, width=2048, recurrences=4)
    looped = published_fit.predict(
        n_once=a.n_once, n_rec=a.n_rec, n_inject=a.n_inject, recurrences=4, tokens=1e10
    )
    unlooped = published_fit.predict(
        n_once=result.equivalent_params.value, n_rec=0.0, recurrences=1, tokens=1e10
    )
    np.testing.assert_allclose(looped, unlooped, rtol=1e-10)


def test_equal_cost_means_equal_cost(published_fit):
    """An unlooped model costs like itself, to the parameter."""
    result = equivalent_to_width(published_fit, width=1280, recurrences=1)
    whole = account(width=1280, recurrences=1)
    assert result.same_cost_params == pytest.approx(whole.n_total, rel=1e-9)
    assert result.equivalent_params.value == pytest.approx(whole.n_total, rel=1e-12)
    assert result.flops_per_token == whole.flops_per_token


def test_truncation_lowers_the_cost_and_not_the_worth(published_fit):
    whole = equivalent_to_width(published_fit, width=1280, recurrences=4)
    cut = equivalent_to_width(published_fit, width=1280, recurrences=4, backprop_last=2)
    assert cut.flops_per_token < whole.flops_per_token
    assert cut.same_cost_params < whole.same_cost_params
    assert cut.equivalent_params == whole.equivalent_params


def test_blocks_outside_the_loop_are_worth_as_much_as_unlooped_ones(published_fit):
    """Of depth 10, 1 + 8/r × r + 1: all but two blocks are looped."""
    result = equivalent_to_width(
        published_fit, width=512, recurrences=4, depth=10, prelude=1, coda=1
    )
    block = 12 * 512**2 + 2 * 512
    assert result.unique_params == 4 * block + 2 * 512**2 + 3 * 512
    more = equivalent_to_width(published_fit, width=512, recurrences=4, depth=10, prelude=2, coda=4)
    assert more.equivalent_params.value > result.equivalent_params.value


def test_counts_and_width_agree(published_fit):
    a = account(width=2048, recurrences=4)
    by_counts = equivalent_to_counts(
        published_fit, n_once=a.n_once, n_rec=a.n_rec, n_inject=a.n_inject, recurrences=4
    )
    by_width = equivalent_to_width(published_fit, width=2048, recurrences=4)
    assert by_counts.equivalent_params == by_width.equivalent_params
    assert by_counts.unique_params == by_width.unique_params
    assert by_counts.same_cost_params == a.n_once + 4 * (a.n_rec + a.n_inject)


def test_closed_form_of_n_eff(published_fit):
    result = equivalent_to_counts(published_fit, n_once=10**8, n_rec=10**7, recurrences=4)
    expected = 1e8 + 4**published_fit.phi * 1e7
    assert result.equivalent_params.value == pytest.approx(expected)


def test_regressed_counting_is_used_for_new_widths(published):
    regressed = fit(published, count_injection="regressed", bootstrap=0, sensitivity=False)
    result = equivalent_to_width(regressed, width=2048, recurrences=4)
    assert result.equivalent_params.value == pytest.approx(580e6, rel=0.03)
    with pytest.raises(InputError, match="without n_inject"):
        equivalent_to_counts(regressed, n_once=10, n_rec=10, n_inject=5, recurrences=4)


def test_without_phi_there_is_no_equivalent_size():
    found = fit(sweep(noise=0.002, budgets=(1e18,)), bootstrap=50, sensitivity=False)
    result = equivalent_to_width(found, width=1280, recurrences=4)
    assert result.equivalent_params.value is None
    assert result.equivalent_params.ci95 is None
    assert "needs φ" in result.warnings[0].text
    assert result.same_cost_params is not None


def test_an_r_beyond_the_fitted_is_warned_of(published_fit):
    result = equivalent_to_width(published_fit, width=1280, recurrences=16)
    assert any("r = 16 lies 2 times above the runs' 1 to 8" in w.text for w in result.warnings)


def test_a_free_multiplicity_knows_its_own_r_only(published):
    found = fit(published, multiplicity="free", bootstrap=50, sensitivity=False)
    result = equivalent_to_counts(found, n_once=10**8, n_rec=10**7, recurrences=4)
    assert result.equivalent_params.value == pytest.approx(1e8 + found.params["m4"] * 1e7)
    result = equivalent_to_counts(found, n_once=10**8, n_rec=10**7, recurrences=3)
    assert result.equivalent_params.value is None
    with pytest.raises(InputError, match="none for r = 3"):
        found.predict(n_once=1e7, n_rec=1e7, recurrences=3, tokens=1e9)


def test_the_size_without_a_law_is_that_of_the_measured_m(published_fit):
    result = equivalent_to_counts(published_fit, n_once=1000, n_rec=500, recurrences=4)
    four = next(m for m in published_fit.law_free["m"] if m["recurrences"] == 4)
    size = result.equivalent_params_law_free
    assert size.value == pytest.approx(1000 + four["value"] * 500)
    assert size.ci95 == pytest.approx(tuple(1000 + end * 500 for end in four["ci95"]))
    said = result.to_dict()["equivalent_params_law_free"]
    assert said == {"value": size.value, "ci95": list(size.ci95)}
    one = equivalent_to_counts(published_fit, n_once=1000, n_rec=500, recurrences=1)
    assert one.equivalent_params_law_free.value == 1500


def test_without_a_law_only_a_measured_r_has_a_size(published_fit, published):
    result = equivalent_to_counts(published_fit, n_once=50_000_000, n_rec=50_000_000, recurrences=3)
    assert result.equivalent_params.value is not None
    assert result.equivalent_params_law_free == Quantity(value=None, ci95=None)
    said = [w.text for w in result.warnings if w.code == "not_identified"]
    assert said == [
        "without a law m is known where it was measured (r = 2, 4, 8), not at r = 3",
    ]
    # a fit saved before m was measured says so, once
    older = replace(published_fit, law_free=None)
    result = equivalent_to_counts(older, n_once=1000, n_rec=500, recurrences=4)
    assert result.equivalent_params_law_free.value is None
    assert [w.code for w in result.warnings].count("law_free_missing") == 1
    looped = published.frame[published.frame["recurrences"] > 1]
    bare = fit(load_runs(looped), recipe="baseline", bootstrap=0, sensitivity=False)
    result = equivalent_to_counts(bare, n_once=1000, n_rec=500, recurrences=4)
    assert result.equivalent_params_law_free.value is None
    assert [w.code for w in result.warnings].count("law_free_missing") == 1


@pytest.mark.parametrize(
    "counts",
    [
        {"n_once": -1, "n_rec": 5, "recurrences": 2},
        {"n_once": 0, "n_rec": 0, "recurrences": 2},
        {"n_once": 5, "n_rec": 5, "recurrences": 0},
    ],
)
def test_unusable_counts(published_fit, counts):
    with pytest.raises(InputError):
        equivalent_to_counts(published_fit, **counts)

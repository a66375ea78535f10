"""What a fit says beyond its runs, and what it refuses to."""

import warnings

import numpy as np
import pytest
from conftest import sweep

from isodepth import Fit, InputError, fit
from isodepth.fitting.result import Extrapolated
from isodepth.planning.advice import equivalent_to_counts, equivalent_to_width


@pytest.fixture(scope="module")
def found():
    shape = {"widths": (320, 448, 640, 896, 1280), "budgets": (5e17, 2e18, 8e18, 3.2e19)}
    return fit(sweep(noise=0.002, **shape), bootstrap=100, sensitivity=False)


INSIDE = {"n_once": 3e7, "n_rec": 3e7, "recurrences": 4, "tokens": 3e9}


def width(interval):
    return float(np.log(interval[1] / interval[0]).max())


def test_nothing_is_said_inside(found):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.predict(**INSIDE)
    assert found.beyond(**INSIDE) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": 1e13}, "tokens = 1e+13 lies"),
        ({"n_rec": 3e10}, "size n_once + r·n_rec = 1.2"),
        ({"n_once": 10.0, "n_rec": 1e4}, "below the runs'"),
        ({"recurrences": 32}, "r = 32 lies 4 times above"),
    ],
)
def test_what_lies_beyond_is_said_with_how_far(found, change, words):
    point = INSIDE | change
    with pytest.warns(Extrapolated, match="the law's form is extrapolated"):
        found.predict(**point)
    (said,) = (w for w in found.beyond(**point) if words in w.text)
    assert said.code == "extrapolated"


def test_intervals_of_losses_widen_with_the_distance(found):
    widths = [width(found.predict_interval(**INSIDE | {"tokens": t})) for t in (3e9, 1e12, 1e13)]
    assert widths[0] < widths[1] < widths[2]
    assert widths[2] > 2 * 2 * found.seen.miss * 2  # two decades and more


def test_a_thousand_times_beyond_there_is_no_interval(found):
    with pytest.raises(InputError, match=r"10\^4\.\d times beyond"):
        found.predict_interval(**INSIDE | {"tokens": 1e15})
    for tokens in (1e200, 1e-200):
        with pytest.raises(InputError, match="tokens are no run's"):
            found.predict(**INSIDE | {"tokens": tokens})
    with pytest.raises(InputError, match="parameters are no model's"):
        found.predict(**INSIDE | {"n_once": 1e200})


def test_two_budgets_do_not_show_how_a_law_errs_beyond():
    two = fit(
        sweep(noise=0.002, budgets=(1e18, 8e18), widths=(320, 448, 640, 896, 1280)),
        bootstrap=50,
        sensitivity=False,
    )
    two.predict_interval(**INSIDE)
    with pytest.raises(InputError, match="fewer than three budgets"):
        two.predict_interval(**INSIDE | {"tokens": 1e12})


def test_sizes_of_equal_loss_widen_with_size_and_r(found):
    near, far = (equivalent_to_width(found, width=w, recurrences=4) for w in (896, 8192))
    assert width(far.equivalent_params.ci95) > 1.5 * width(near.equivalent_params.ci95)
    assert [w.code for w in far.warnings].count("extrapolated") == 1
    many = equivalent_to_width(found, width=896, recurrences=16)
    held = many.equivalent_params.ci95[0]  # nothing gained after r = 8
    once, rec = 7e7, 1e7
    assert held < many.equivalent_params.value
    assert (
        equivalent_to_counts(
            found, n_once=int(once), n_rec=int(rec), recurrences=8
        ).equivalent_params.value
        >= equivalent_to_counts(
            found, n_once=int(once), n_rec=int(rec), recurrences=64
        ).equivalent_params.ci95[0]
    )


def test_so_far_beyond_the_runs_there_is_no_size(found):
    result = equivalent_to_width(found, width=1_000_000, recurrences=4)
    assert result.equivalent_params.value is None
    assert any("no number of equal loss" in w.text for w in result.warnings)
    with pytest.raises(InputError, match="no model's"):
        equivalent_to_counts(found, n_once=10**200, n_rec=10**200, recurrences=4)


def test_a_saved_fit_knows_its_reach_and_an_older_one_does_not(found):
    assert Fit.from_json(found.to_json()).seen == found.seen
    data = found.to_dict()
    del data["seen"]
    assert Fit._from(data).seen is None

"""The laws of the page are those of the numbers that it shows, and of no other runs."""

from dataclasses import replace

import conftest
import numpy as np
import pandas as pd
import pytest

from isodepth import InputError, compare, fit, load_runs
from isodepth.report.drawn import drawn_of_comparisons, drawn_of_fit
from isodepth.report.page_laws import law_content


@pytest.fixture(scope="module")
def runs():
    return conftest.two_recipes(noise=0.002)


@pytest.mark.parametrize("method", ["separate", "joint"])
def test_compared_laws_have_the_phi_of_the_comparison(runs, method):
    result = compare(runs, recipe="probe", method=method, bootstrap=0)
    laws = [law_content(runs, d) for d in drawn_of_comparisons(runs, [result])]
    first, second = laws
    assert first["params"]["phi"] == pytest.approx(result.phi_baseline, abs=1e-9)
    assert second["params"]["phi"] == pytest.approx(result.phi_recipe, abs=1e-9)
    shared = [first["params"][n] == second["params"][n] for n in ("E", "A", "alpha", "B", "beta")]
    assert all(shared) == (method == "joint")
    assert first["recipe"] == ("baseline" if method == "separate" else "baseline, with probe")
    for law, rows in zip(
        laws, (runs.of_recipe("baseline")[0], runs.of_recipe("probe")[0]), strict=True
    ):
        p, f = law["params"], rows
        n = f["n_once"] + f["n_inject"] + f["recurrences"] ** p["phi"] * f["n_rec"]
        said = p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * f["tokens"] ** -p["beta"]
        np.testing.assert_allclose(law["runs"]["left"], f["loss"] - said, atol=1e-9)
        # the profile is lowest, and the refit is the fit, at φ itself
        profile = law["profile"]
        at = int(np.argmin(profile["objective"]))
        assert profile["values"][at] == pytest.approx(p["phi"])
        assert profile["objective"][at] == pytest.approx(profile["minimum"])
        near = int(np.argmin(np.abs(np.array(law["slider"]) - p["phi"])))
        assert law["refits"][near]["E"] == pytest.approx(p["E"], abs=0.02)
        assert law["refits"][near]["phi"] == law["slider"][near]


def test_one_baseline_of_several_comparisons_stands_once():
    frame = conftest.two_recipes(noise=0.002).frame
    third = frame[frame["recipe"] == "probe"].assign(recipe="third")
    third["run_id"] = "third-" + third["run_id"]
    runs = load_runs(pd.concat([frame, third]))
    results = [compare(runs, recipe=name, bootstrap=0) for name in ("probe", "third")]
    assert [d.name for d in drawn_of_comparisons(runs, results)] == ["baseline", "probe", "third"]


def test_other_runs_are_refused(runs):
    frame = runs.frame.copy()
    frame.loc[3, "loss"] *= 1.01
    other = replace(runs, frame=frame)
    with pytest.raises(InputError, match="does not hold the runs that were fitted"):
        drawn_of_fit(other, fit(runs, bootstrap=0, sensitivity=False))
    with pytest.raises(InputError, match="does not hold the runs that were compared"):
        drawn_of_comparisons(other, [compare(runs, recipe="probe", bootstrap=0)])


def test_a_phi_that_can_not_be_told_has_no_slider_and_no_profile():
    runs = conftest.sweep(noise=0.002, budgets=(1e18,))
    fitted = fit(runs, bootstrap=0, sensitivity=False)
    assert fitted.phi is None
    law = law_content(runs, drawn_of_fit(runs, fitted))
    assert (law["slider"], law["refits"], law["profile"]) == ([], [], None)

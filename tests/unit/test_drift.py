"""φ against the budget, where the truth is known."""

import json

import numpy as np
import pytest
from conftest import TRUTH, grid, sweep
from scipy import stats

from isodepth import Fit, fit, load_runs
from isodepth.cli import main
from isodepth.errors import InputError
from isodepth.planning.candidates import candidates_of_runs
from isodepth.planning.worlds import drift_half_width, worlds
from isodepth.sweep.plan import load_plan

CENTER = 4e18  # the geometric mean of the grid's budgets


def losses(frame, phi, per_decade, shape=None):
    """The additive law with m = r^(φ + φ′·log₁₀(C/C₀)), written straight from the formula."""
    t = TRUTH | (shape or {})
    r = frame["recurrences"].to_numpy(dtype=float)
    m = r ** (phi + per_decade * np.log10(frame["budget_flops"] / CENTER))
    n = frame["n_once"] + frame["n_inject"] + m * frame["n_rec"]
    return t["E"] + t["A"] * n ** -t["alpha"] + t["B"] * frame["tokens"] ** -t["beta"]


def drifting(per_decade, noise=0.0):
    frame = grid()
    error = np.exp(noise * np.random.default_rng(0).normal(size=len(frame)))
    frame["loss"] = losses(frame, TRUTH["phi"], per_decade) * error
    return load_runs(frame)


@pytest.mark.parametrize("per_decade", [0.0, 0.1, -0.2])
def test_a_drift_is_found_as_it_is(per_decade):
    found = fit(
        drifting(per_decade), bootstrap=0, sensitivity=False, at_budgets=(1e18, 1.6e19, 4e20)
    )
    assert found.drift["center_flops"] == pytest.approx(CENTER)
    assert found.drift["per_decade"] == pytest.approx(per_decade, abs=1e-3)
    for one in found.drift["at"]:
        expected = TRUTH["phi"] + per_decade * np.log10(one["budget_flops"] / CENTER)
        assert one["phi"] == pytest.approx(expected, abs=2e-3)
        assert one["constant_phi"] == found.phi
    assert [one["decades_beyond"] for one in found.drift["at"]] == pytest.approx(
        [0, 0, np.log10(4e20 / 1.6e19)]
    )


def test_a_drift_far_beyond_the_noise_is_said():
    found = fit(drifting(-0.3, 0.001), bootstrap=100, sensitivity=False, at_budgets=(4e18,))
    low, high = found.drift["per_decade_ci95"]
    assert low < -0.3 < high < 0
    assert any("φ drifts with the budget, by -0" in said.text for said in found.warnings)


def test_what_noise_hides_is_said_and_widens_with_the_distance():
    found = fit(
        drifting(0.0, 0.003), bootstrap=200, sensitivity=False, at_budgets=(4e18, 4e20, 4e22)
    )
    halves = [np.diff(one["ci95"])[0] / 2 for one in found.drift["at"]]
    constant = np.diff(found.drift["at"][0]["constant_ci95"])[0] / 2
    assert halves[0] < halves[1] < halves[2] and halves[2] > 4 * constant
    assert found.drift["at"][0]["constant_ci95"] == pytest.approx(found.interval("phi"))
    # far from the centre the interval is that of the slope times the distance
    slope = np.diff(found.drift["per_decade_ci95"])[0] / 2
    assert halves[2] - halves[1] == pytest.approx(2 * slope, rel=0.25)
    assert any("at 4e+22 FLOPs φ = " in said.text for said in found.warnings)


def test_a_fit_with_a_drift_is_saved_and_one_without_still_read(tmp_path):
    found = fit(drifting(0.1), bootstrap=0, sensitivity=False, at_budgets=(1e20,))
    text = found.to_json()
    assert Fit.from_json(text).drift == json.loads(text)["drift"]
    older = json.loads(text)
    del older["drift"]
    assert Fit.from_json(json.dumps(older)).drift is None


def test_runs_that_can_tell_no_drift_say_why():
    frame = grid()
    frame["loss"] = losses(frame, 0.45, 0.0)
    one = load_runs(frame[(frame["recurrences"] == 1) | (frame["budget_flops"] == 4e18)])
    found = fit(one, bootstrap=0, sensitivity=False, at_budgets=(1e20,))
    assert found.drift["per_decade"] is None and found.drift["at"] == ()
    assert any("all runs at r > 1 have one FLOP budget" in said.text for said in found.warnings)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"at_budgets": (-1.0,)}, "must be a positive number of training FLOPs"),
        ({}, {"multiplicity": "free"}, "needs runs at r = 1 and r > 1"),
        ({"drop": ["budget_flops", "flops_per_token"]}, {}, "need a column budget_flops"),
    ],
)
def test_no_drift_without_phi_or_budgets(change, options, message):
    frame = sweep().frame.drop(columns=["flops", "status"])
    frame = frame.drop(columns=change.get("drop", []))
    with pytest.raises(InputError, match=message):
        fit(load_runs(frame), bootstrap=0, **({"at_budgets": (1e20,)} | options))


def test_the_command_shows_both(tmp_path, capsys):
    file = tmp_path / "runs.csv"
    drifting(0.0, 0.003).frame.to_csv(file, index=False)
    assert main(["fit", str(file), "--bootstrap", "60", "--at-budgets", "1e18", "1e21"]) == 0
    shown = capsys.readouterr().out
    assert "for ten times the training FLOPs" in shown
    assert "62.5 times" in shown


def test_a_designs_view_of_drift_is_the_linear_algebra_of_the_law():
    runs = sweep(noise=0.0)
    one = fit(runs, estimator="lsq", bootstrap=0, sensitivity=False)
    frame = runs.used
    candidates = candidates_of_runs(frame)
    counts = np.ones(len(frame), dtype=int)

    def log_loss(theta):
        shape = dict(zip(("E", "A", "alpha", "B", "beta"), theta[:5], strict=True))
        return np.log(losses(frame, theta[5], theta[6], shape)).to_numpy()

    truth = np.array([*(TRUTH[k] for k in ("E", "A", "alpha", "B", "beta", "phi")), 0.0])
    steps = 1e-5 * np.maximum(np.abs(truth), 0.1)
    jacobian = np.array(
        [(log_loss(truth + h) - log_loss(truth - h)) / (2 * h.sum()) for h in np.diag(steps)]
    )
    scale = np.sqrt((jacobian**2).sum(axis=1))
    inverse = np.linalg.inv((jacobian / scale[:, None]) @ (jacobian / scale[:, None]).T)
    inverse /= np.outer(scale, scale)
    t = stats.t.ppf(0.975, len(frame) - 7)
    drift = drift_half_width(candidates, [one], counts, noises=(0.003,))
    assert drift == pytest.approx(t * 0.003 * np.sqrt(inverse[6, 6]), rel=1e-3)
    # φ at a budget far off, from the same matrix
    away = np.log10(4e20 / CENTER)
    along = np.array([0, 0, 0, 0, 0, 1, away])
    there = worlds(candidates, [one], noises=(0.003,), at_budget=4e20).half_width(counts)
    assert there == pytest.approx(t * 0.003 * np.sqrt(along @ inverse @ along), rel=1e-3)


def test_a_design_for_a_budget_spreads_over_budgets(tmp_path):
    law = tmp_path / "fit.json"
    fit("published", bootstrap=0, sensitivity=False).save(law)

    def plan(*arguments):
        out = tmp_path / "plan.json"
        budgets = ("--budgets", "4.64e17", "1e18", "2.15e18", "4.64e18", "--device", "h100")
        common = ("--target-ci", "0.15", "--fit", str(law), "--quiet", "--out", str(out))
        assert main(["plan", *budgets, *common, *arguments]) == 0
        return load_plan(out)

    near, far = plan(), plan("--at-budget", "1e19")
    assert near.prediction.at_budget is None and far.prediction.at_budget == 1e19
    assert max(run.budget_flops for run in far.runs) == 4.64e18
    assert max(run.budget_flops for run in near.runs) < 4.64e18
    assert far.flops > 3 * near.flops
    # what the far design is for, the near one can't do
    assert far.prediction.drift_half_width < 0.3
    assert (near.prediction.drift_half_width or 1.0) > 2 * far.prediction.drift_half_width

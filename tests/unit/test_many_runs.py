"""Tables of thousands of runs: the same numbers by one Newton step, and nothing of n² size."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import grid, true_loss

from isodepth import load_runs
from isodepth.fitting.estimate import MANY, estimate, refit
from isodepth.fitting.one_step import leaving_out, of_losses, of_units
from isodepth.fitting.problem import Conventions, build
from isodepth.fitting.uncertainty import draw, simulated, standard_noise


def many(n, noise=0.004):
    frame = grid(budgets=np.geomspace(1e17, 1e20, 12), widths=tuple(range(128, 1408, 64)))
    frame = frame.iloc[np.arange(n) % len(frame)].reset_index(drop=True)
    frame["run_id"] = [f"run-{i}" for i in range(n)]
    rng = np.random.default_rng(0)
    frame["loss"] = true_loss(frame) * np.exp(noise * rng.normal(size=n))
    return frame


@pytest.fixture(scope="module")
def posed():
    problem = build(load_runs(many(1500)).used, Conventions())
    return problem, estimate(problem)


def spread(theta):
    low, high = np.quantile(theta, (0.16, 0.84), axis=0)
    return high - low


def test_one_step_gives_the_standard_errors_of_refits(posed):
    problem, best = posed
    labels = np.arange(problem.n)
    exact = refit(problem, best, weights=draw(labels, 100, 1))
    near = of_units(problem, best, labels, 100, 1)
    np.testing.assert_allclose(spread(near), spread(exact), rtol=0.25)
    for i in range(best.theta.size):
        assert np.corrcoef(near[:, i], exact[:, i])[0, 1] > 0.97


def test_one_step_of_simulated_losses(posed):
    problem, best = posed
    noise = standard_noise(problem.n, 100, 1)
    exact = refit(problem, best, log_loss=simulated(problem, best, 0.004 * noise))
    near = of_losses(problem, best, 0.004, 100, 1)
    np.testing.assert_allclose(spread(near), spread(exact), rtol=0.25)


def test_one_step_moves_phi_as_leaving_a_run_out_does():
    frame = many(1500)
    frame.loc[960, "loss"] *= 1.2
    problem = build(load_runs(frame).used, Conventions(estimator="lsq"))
    best = estimate(problem)
    phi = problem.theta_names.index("phi")
    moved = leaving_out(problem, best)[:, phi] - best.theta[phi]
    assert int(np.argmax(np.abs(moved))) == 960
    rows = np.append(np.argsort(-np.abs(moved))[:5], [3, 500])
    weights = (rows[:, None] != np.arange(problem.n)).astype(float)
    exact = refit(problem, best, weights=weights)[:, phi] - best.theta[phi]
    np.testing.assert_allclose(moved[rows], exact, rtol=0.05, atol=1e-6)


PEAK = r"""
import re, sys
from isodepth import fit
found = fit(sys.argv[1], bootstrap=50)
assert abs(found.phi - 0.45) < 0.01
low, high = found.interval("phi")
assert low < 0.45 < high
assert any(row["arms_differ"] == "tokens" for row in found.sensitivity)
assert found.lack_of_fit["influence"]
assert found.lack_of_fit["laws"]["additive"]["leave_one_budget_out_rmse"] < 0.05
# not getrusage: its peak takes over that of the process which started this one
print(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


def test_a_table_of_thousands_gets_every_diagnostic_in_little_memory(tmp_path):
    file = tmp_path / "many.csv"
    many(MANY + 500).to_csv(file, index=False)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 400_000  # KiB: one square matrix of the runs has 162 MB


def test_some_of_the_runs_find_the_optimum_of_all():
    problem = build(load_runs(many(MANY + 500)).used, Conventions())
    found = estimate(problem)
    assert found.converged
    assert found.n_starts_agreeing > 3
    assert found.theta[problem.theta_names.index("phi")] == pytest.approx(0.45, abs=0.01)

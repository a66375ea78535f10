"""What runs can resolve: variances of Δφ against closed forms and simulation, and the command."""

import json

import numpy as np
import pytest
from conftest import sweep
from scipy import stats

from isodepth import fit
from isodepth.cli import main
from isodepth.planning.contrast import difference, one_law
from isodepth.planning.design import continuous
from isodepth.planning.power import (
    borrowed,
    d_optimal,
    layout_curve,
    priced_runs,
    repeated,
)
from isodepth.planning.resolution import noncentrality, resolution
from isodepth.planning.worlds import worlds

NOISE = 0.003


@pytest.fixture(scope="module")
def runs():
    """48 runs of a known law: 3 budgets × 4 widths × 4 r."""
    return sweep(noise=NOISE)


@pytest.fixture(scope="module")
def law(runs):
    return fit(runs, estimator="lsq", bootstrap=0, sensitivity=False)


def of(law, candidates):
    return worlds(candidates, [law], noises=(NOISE,))


def resolved(law, layout, way=difference):
    return resolution(way(of(law, layout.candidates), *layout.members), layout.once)


@pytest.mark.parametrize("freedom", [3, 10, 40])
def test_the_smallest_difference_is_told_in_four_sweeps_of_five(freedom):
    t = stats.t.ppf(0.975, freedom)
    found = noncentrality(freedom)
    assert stats.nct.sf(t, freedom, found) == pytest.approx(0.8, abs=2e-3)
    assert noncentrality(100_000) == pytest.approx(1.95996 + 0.84162, abs=1e-3)
    assert noncentrality(0) == np.inf


def test_recipes_that_share_nothing_add_their_variances(runs, law):
    frame = runs.used
    layout = borrowed(frame, frame.set_index(frame.index + len(frame)))
    assert layout.in_baseline.sum() == layout.in_recipe.sum() == layout.in_baseline.size / 2
    found = resolved(law, layout)
    own = of(law, priced_runs(frame)).variance(np.ones(len(frame)))
    t = stats.t.ppf(0.975, 2 * len(frame) - 12)
    assert found.half_width == pytest.approx(t * np.sqrt(2 * own))
    assert found.smallest / found.half_width == pytest.approx(noncentrality(84) / t)


def test_one_law_for_both_makes_of_each_pair_of_runs_a_paired_difference(runs, law):
    """With equal looped runs Δφ is independent of all else: its variance is 2 / Σ(∂log L/∂φ)²."""
    frame = runs.used
    layout = repeated(frame)
    there = of(law, layout.candidates)
    found = resolved(law, layout, one_law)
    slope = there.rows[0, :, -1][layout.in_baseline]
    t = stats.t.ppf(0.975, layout.in_baseline.size - 7)
    assert found.half_width == pytest.approx(t * np.sqrt(2 / (slope**2).sum()), rel=1e-6)
    assert found.half_width < resolved(law, layout).half_width


def test_shared_runs_cancel_as_in_simulated_fits(runs, law):
    layout = repeated(runs.used)
    there = of(law, layout.candidates)
    noise = np.random.default_rng(0).normal(size=(20_000, layout.in_baseline.size))
    phi = [
        np.linalg.lstsq(there.rows[0][used], noise[:, used].T, rcond=None)[0][-1]
        for used in (layout.in_baseline, layout.in_recipe)
    ]
    t = stats.t.ppf(0.975, layout.in_baseline.size - 12)
    found = resolved(law, layout)
    assert found.half_width == pytest.approx(t * np.std(phi[1] - phi[0]), rel=0.02)


def test_too_few_runs_resolve_nothing(runs, law):
    layout = repeated(runs.used.iloc[[0, 1, 2, 20, 21, 22]])
    assert resolved(law, layout).smallest == np.inf


def test_d_optimal_shares_meet_the_equivalence_theorem(runs, law):
    """No run tells more of all parameters per FLOP than p (Kiefer & Wolfowitz 1960)."""
    candidates = priced_runs(runs.used)
    there = of(law, candidates).per_flop(candidates.flops)
    shares = d_optimal(of(law, candidates), candidates.flops)
    rows = there.rows[0]
    told = np.einsum("np,pq,nq->n", rows, np.linalg.inv((rows.T * shares) @ rows), rows)
    assert told.max() <= 6 * 1.02
    best = continuous(of(law, candidates), candidates.flops)
    assert there.variance(shares) > best.variance_times_flops


def test_a_layout_is_drawn_from_two_budgets_to_all(runs, law):
    candidates = priced_runs(runs.used)
    curve = layout_curve(of(law, candidates), candidates, "all")
    assert len(curve.flops) == 2
    assert curve.flops[-1] == pytest.approx(candidates.flops.sum())
    assert curve.half_width[0] > curve.half_width[1]


@pytest.fixture(scope="module")
def saved(law, runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("power")
    law.save(folder / "fit.json")
    runs.frame.to_csv(folder / "runs.csv", index=False)
    return folder


def test_the_command_speaks_of_tables(saved, law, capsys):
    files = ["--out", str(saved / "figure"), "--json", str(saved / "power.json")]
    law_file = str(saved / "fit.json")
    runs_file = str(saved / "runs.csv")
    assert main(["power", runs_file, "--fit", law_file, "--noise", "0.003", *files]) == 0
    assert "smallest that is resolved" in capsys.readouterr().out
    found = json.loads((saved / "power.json").read_text())
    assert found["n_runs"] == 48 + 36
    frame = sweep().used
    half = of(law, priced_runs(frame)).half_width(np.ones(48))
    assert found["phi"]["half_width"] == pytest.approx(half)
    assert all(0 < one["ratio"] < 1 for one in found["ratios"])
    assert {one["name"].split(",")[0] for one in found["curves"]} >= {"cheapest for φ", "D-optimal"}
    assert {file.suffix for file in (saved / "figure").iterdir()} == {".png", ".svg", ".pdf"}


def test_the_command_speaks_of_plans(saved, capsys):
    plan = saved / "plan.json"
    made = ["--budgets", "1e18", "4e18", "--widths", "512", "768", "1024", "-r", "1", "2", "8"]
    assert main(["plan", *made, "--device", "h100", "--quiet", "--out", str(plan)]) == 0
    status = main(["power", str(plan), "--fit", str(saved / "fit.json"), "--json", "-"])
    assert status == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_runs"] == 18 + 12
    assert found["delta_phi"]["separate"]["smallest"] > found["delta_phi"]["joint"]["smallest"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[f["recurrences"].isin([2, 8])], "described equally well by two values of φ"),
        (lambda f: f.drop(columns=["flops", "flops_per_token"]), "must name its flops"),
        (lambda f: f[f["budget_flops"] < 2e18], "too few to tell φ"),
    ],
)
def test_what_has_no_power_is_refused(change, message, saved, runs, capsys, tmp_path):
    change(runs.frame).to_csv(tmp_path / "some.csv", index=False)
    status = main(["power", str(tmp_path / "some.csv"), "--fit", str(saved / "fit.json")])
    assert status == 2
    assert message in " ".join(capsys.readouterr().err.split())

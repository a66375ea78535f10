"""Designs for Δφ: what one more run does against doing it, and plans against `isodepth power`."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from isodepth import fit, load_runs
from isodepth.cli import main
from isodepth.planning.contrast import contrast, difference, one_law
from isodepth.planning.design import Worlds, continuous, exact, least_cost
from isodepth.planning.power import priced_runs
from isodepth.planning.worlds import worlds
from isodepth.report.tables import to_text
from isodepth.sweep.plan import load_plan
from isodepth.sweep.plan_report import plan_report

N, P = 14, 3
IN_BASELINE = np.arange(N) < 9
IN_RECIPE = np.arange(N) >= 5  # 5 to 8 in both


def supposed(seed=0):
    """Two linear worlds whose shared runs, like r = 1, say nothing alone of the number wanted."""
    rows = np.random.default_rng(seed).normal(size=(2, N, P))
    rows[:, IN_BASELINE & IN_RECIPE, 2] = 0
    return Worlds(
        rows=rows,
        target=np.array([[0.0, 0, 1]] * 2),
        weights=np.array([0.3, 0.7]),
        n_params=np.array([P, P]),
        freedom=np.array([1.0, 0.9]),
        names=("a", "b"),
    )


def apart(seed=0):
    return difference(supposed(seed), IN_BASELINE, IN_RECIPE)


counts = st.lists(st.integers(1, 4), min_size=N, max_size=N).map(np.array)


@settings(max_examples=30, deadline=None)
@given(counts=counts, seed=st.integers(0, 50))
def test_one_more_run_does_what_was_foretold(counts, seed):
    worlds = apart(seed)
    each = np.eye(N, dtype=int)
    assert worlds.after_adding(counts) == pytest.approx(
        [worlds.variance(counts + one) for one in each], rel=1e-6
    )
    step = 1e-4
    slope = [
        (worlds.variance(counts - step * one) - worlds.variance(counts + step * one)) / (2 * step)
        for one in each
    ]
    assert worlds.sensitivity(counts) == pytest.approx(slope, rel=1e-4, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(counts=counts, seed=st.integers(0, 50))
def test_one_law_for_both_is_never_the_wider(counts, seed):
    worlds = apart(seed)
    joint = one_law(supposed(seed), IN_BASELINE, IN_RECIPE)
    assert (joint.variances(counts) <= worlds.variances(counts) * (1 + 1e-7)).all()
    assert worlds.easier.variances(counts) == pytest.approx(joint.variances(counts))


@settings(max_examples=30, deadline=None)
@given(counts=counts, seed=st.integers(0, 50))
def test_the_noise_of_both_fits_has_the_degrees_of_freedom_of_its_mean_and_variance(counts, seed):
    worlds = apart(seed)
    run = np.repeat(np.arange(N), counts)
    expected = []
    for rows, share in zip(worlds.rows, worlds.freedom, strict=True):
        left = np.zeros((run.size, run.size))
        for used in (IN_BASELINE, IN_RECIPE):
            mine = np.flatnonzero(used[run])
            some = rows[run[mine]]
            left[np.ix_(mine, mine)] += np.eye(mine.size) - some @ np.linalg.pinv(some)
        expected.append(share * np.trace(left) ** 2 / np.trace(left @ left))
    assert worlds.degrees_of_freedom(counts) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("way", [difference, one_law])
def test_what_is_made_counts_as_if_it_were_bought(way):
    whole = way(supposed(), IN_BASELINE, IN_RECIPE)
    made = np.array([0, 1, 2, 5, 6, 7, 10, 11, 12])
    left = np.setdiff1d(np.arange(N), made)
    counts = np.array([1, 0, 2, 1, 3])
    together = np.ones(N, dtype=int)
    together[left] = counts
    rest = whole.knowing(made)
    assert rest.variances(counts) == pytest.approx(whole.variances(together))
    assert rest.half_widths(counts) == pytest.approx(whole.half_widths(together))
    freedom = whole.degrees_of_freedom(together)
    assert rest.degrees_of_freedom(counts) == pytest.approx(freedom)
    assert rest.after_adding(counts) == pytest.approx(whole.after_adding(together)[left])
    assert rest.easier.variance(counts) == pytest.approx(whole.easier.variance(together))


def test_no_runs_are_cheaper_than_the_bound_says():
    worlds, cost = apart(), 1 + np.arange(N) / N
    best = continuous(worlds, cost)
    chosen = exact(worlds, cost, 60.0)
    bound = best.flops(worlds.variance(chosen))
    assert 0.5 * 60 < bound <= 60
    assert least_cost(worlds, cost, chosen) <= chosen @ cost
    rng = np.random.default_rng(1)
    for _ in range(200):
        shares = rng.dirichlet(np.full(N, 0.3))
        split = 60 * shares / cost
        assert worlds.variance(split) >= best.variance_times_flops * best.efficiency / 60
        assert worlds.variance(split) >= 0.97 * worlds.variance(chosen)


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """A law that 48 runs told, saved, and their table."""
    folder = tmp_path_factory.mktemp("law")
    runs = sweep(noise=0.003)
    runs.frame["seed"] = 0
    runs.frame.to_csv(folder / "runs.csv", index=False)
    fit(runs, bootstrap=0, sensitivity=False).save(folder / "fit.json")
    return folder


def plan(law, out, *arguments, recipes=("baseline", "truncated_bptt")):
    status = main(
        ["plan", "--recipes", *recipes, "--budgets", "1e18", "2.15e18", "--device", "h100"]
        + ["--fit", str(law / "fit.json"), "--noise", "0.003", "--quiet", "--out", str(out)]
        + [str(a) for a in arguments]
    )
    return status or load_plan(out)


def test_a_plan_for_a_difference_resolves_what_power_says_of_it(law, tmp_path, capsys):
    out = tmp_path / "plan.json"
    made = plan(law, out, "--target-ci", 0.12)
    found = made.prediction
    assert found.of == "Δφ"
    assert found.half_width <= 0.12
    assert found.bound <= made.flops
    of = {name: {r.recurrences for r in made.runs if r.recipe == name} for name in
          ("baseline", "truncated_bptt")}  # fmt: skip
    assert 1 in of["baseline"] and 1 not in of["truncated_bptt"]
    assert max(of["truncated_bptt"]) > 1
    capsys.readouterr()
    arguments = ["--recipe", "truncated_bptt", "--fit", str(law / "fit.json"), "--noise", "0.003"]
    assert main(["power", str(out), *arguments, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)["delta_phi"]
    assert told["separate"]["half_width"] == pytest.approx(found.half_width, rel=1e-4)
    for method in ("separate", "joint"):
        mine = found.resolves[method]
        assert told[method]["smallest"] == pytest.approx(mine.smallest, rel=1e-4)
        assert told[method]["half_width"] == pytest.approx(mine.half_width, rel=1e-4)
    shown = " ".join(to_text(plan_report(made)).split())
    assert f"Δφ ± {found.half_width:.3f} expected (95%; wanted ± 0.12)" in shown
    assert f"told from 0 where it is {found.resolves['joint'].smallest:.3f} or more" in shown


def test_a_baseline_that_is_there_leaves_the_probe_to_buy(law, tmp_path):
    made = plan(law, tmp_path / "plan.json", "--target-ci", 0.1, "--runs", law / "runs.csv")
    fresh = plan(law, tmp_path / "fresh.json", "--target-ci", 0.1)
    assert made.flops < fresh.flops
    assert sum(r.flops for r in made.runs if r.recipe == "truncated_bptt") > 0.8 * made.flops
    there = load_runs(law / "runs.csv").frame[["recurrences", "width", "budget_flops", "seed"]]
    seeds = {tuple(row) for row in there.itertuples(index=False)}
    mine = [r for r in made.runs if r.recipe == "baseline"]
    assert not seeds & {(r.recurrences, r.width, r.budget_flops, r.seed) for r in mine}


def test_a_fit_of_the_recipe_has_the_unlooped_runs_of_its_own_budgets(law):
    """As `Runs.of_recipe` lends them, whatever the runs are that a design has so far."""
    candidates = priced_runs(load_runs(law / "runs.csv").frame)
    fits = [fit(law / "runs.csv", bootstrap=0, sensitivity=False)]
    r, budget = candidates.recurrences, candidates.budget_flops
    second = (r > 1) & (np.arange(r.size) % 2 == 1)
    found = contrast(replace(candidates, second=second), fits, noises=(0.003,))
    plain = worlds(candidates, fits, noises=(0.003,))
    for at in ([1e18], [4e18], [1e18, 4e18]):
        counts = np.where(second & ~np.isin(budget, at), 0, 1)
        lent = (r == 1) & np.isin(budget, at)
        fixed = difference(plain, ~second, second | lent)
        assert found.variances(counts) == pytest.approx(fixed.variances(counts))
        made = np.flatnonzero(counts)[::3]
        less = counts.copy()
        less[made] = 0
        rest = found.knowing(made)
        assert rest.variances(np.delete(less, made)) == pytest.approx(found.variances(counts))
    none_at_its_budget = np.where((r == 1) & (budget == 1e18) | second & (budget > 1e18), 0, 1)
    all_lent = difference(plain, ~second, second | (r == 1))
    assert found.variances(none_at_its_budget) != pytest.approx(
        all_lent.variances(np.ones(r.size, dtype=int))
    )
    assert found.variances(none_at_its_budget) == pytest.approx(
        all_lent.variances(none_at_its_budget)
    )


@pytest.mark.parametrize(
    ("arguments", "recipes", "message"),
    [
        (("--target-ci", 0.1, "--at-budget", 1e19), ("baseline", "truncated_bptt"),
         "--at-budget is for φ of one recipe"),
        (("--target-ci", 0.1), ("baseline", "truncated_bptt", "hyperconnections"),
         "φ of one recipe or Δφ of two, not baseline, truncated_bptt, hyperconnections"),
        (("--target-ci", 0.1, "--max-runs", 9), ("baseline", "truncated_bptt"), "can't tell φ"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(arguments, recipes, message, law, tmp_path, capsys):
    assert plan(law, tmp_path / "plan.json", *arguments, recipes=recipes) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_rounds_are_for_one_recipe(law, tmp_path, capsys):
    recipes = ["--recipes", "baseline", "truncated_bptt", "--budgets", "1e18"]
    files = ["--fit", str(law / "fit.json"), "--out", str(tmp_path / "out")]
    status = main(["measure", *recipes, "--target-ci", "0.1", *files, "--quiet"])
    assert status == 2
    assert "rounds are for φ of one recipe, not for baseline, truncated_bptt" in " ".join(
        capsys.readouterr().err.split()
    )

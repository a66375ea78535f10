"""What runs that are there already tell, and what the next ones add."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import sweep

from isodepth import fit, load_runs
from isodepth.cli import main
from isodepth.planning.choice import best_for
from isodepth.planning.design import Limits, Worlds, continuous, exact, least_cost
from isodepth.planning.next import in_order
from isodepth.planning.supposed import supposed
from isodepth.planning.worlds import NOISES, Candidates
from isodepth.report.tables import to_text
from isodepth.sweep.plan import load_plan
from isodepth.sweep.plan_report import plan_report

X = np.linspace(-1, 1, 21)
COST = np.ones_like(X)


def line(target=(0.0, 1.0)):
    """A line's coefficients, observed with noise 1 at any x of X."""
    return Worlds(
        rows=np.stack([np.ones_like(X), X], axis=1)[None],
        target=np.array([target]),
        weights=np.ones(1),
        n_params=np.array([2]),
        freedom=np.ones(1),
        names=("linear",),
    )


def counts_at(**at):
    counts = np.zeros(X.size, dtype=int)
    for place, n in at.items():
        counts[int(place[1:])] = n
    return counts


def test_what_is_made_counts_as_if_it_were_bought():
    whole, made = line((1.0, 2.0)), np.array([0, 7, 20])
    rest = whole.knowing(made)
    new = counts_at(i0=2, i10=1)
    bought = new[np.setdiff1d(np.arange(X.size), made)]
    together = new + counts_at(i0=1, i7=1, i20=1)
    # index 0 is made and gone: buying it again needs a candidate of its own, so only i10 is new
    assert rest.variance(bought) == pytest.approx(
        whole.variance(together - counts_at(i0=2)), rel=1e-6
    )
    assert rest.half_width(bought) == pytest.approx(
        whole.half_width(together - counts_at(i0=2)), rel=1e-6
    )


def test_the_next_runs_balance_what_is_there():
    # 8 runs at −1 are there: the slope wants the other end until both have as many
    both = replace(line(), rows=np.concatenate([np.ones((1, 8, 2)), line().rows], axis=1))
    both.rows[0, :8, 1] = -1.0
    known = both.knowing(np.arange(8))
    steps = in_order(known, COST, 9)
    assert [step.index for step in steps[:8]] == [20] * 8
    halves = [step.half_width for step in steps]
    assert halves == sorted(halves, reverse=True)
    limited = in_order(known, COST, 9, among=counts_at(i0=1, i20=2))
    assert sorted(step.index for step in limited) == [0, 20, 20]
    bought = exact(known, COST, 8.0)
    assert bought[20] == 8
    # the slope's variance is 1 / (n/2 · 2): 16 runs, half at either end
    assert known.variance(bought) == pytest.approx(1 / 16, rel=1e-6)


def test_no_cheaper_runs_are_possible_than_the_bound_says():
    worlds = line((1.0, 2.0))
    ideal = continuous(worlds, COST)
    counts = exact(worlds, COST, 40.0)
    bound = least_cost(worlds, COST, counts)
    assert bound <= ideal.flops(worlds.variance(counts)) / ideal.efficiency * (1 + 1e-9)
    assert bound >= 0.9 * 40


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Two budgets' runs with a little noise, as a table."""
    runs = sweep(noise=0.003, budgets=(1e18, 4e18))
    runs.frame["seed"] = 0
    file = tmp_path_factory.mktemp("few") / "runs.csv"
    runs.frame.to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def law(few, tmp_path_factory):
    """What those runs say of the law, saved."""
    file = tmp_path_factory.mktemp("law") / "fit.json"
    fit(few, bootstrap=0, sensitivity=False).save(file)
    return "--fit", file, "--noise", 0.003


def plan(*arguments, out):
    status = main(
        ["plan", "--budgets", "1e18", "4e18", "--device", "h100", "--quiet", "--out", str(out)]
        + [str(a) for a in arguments]
    )
    return status or load_plan(out)


def test_laws_and_noise_are_those_of_the_runs_that_are_there(few):
    told = supposed(load_runs(few), "baseline")
    assert {one.source for one in told.fits} == {str(few)}
    assert all(0.002 < noise < 0.004 for noise in told.noises)
    one_r = load_runs(few).frame.query("recurrences == 1")
    blind = supposed(load_runs(one_r), "baseline")
    assert {one.source for one in blind.fits} == {"published"}
    assert blind.noises == NOISES


def test_a_design_buys_only_what_is_missing(few, law, tmp_path):
    out = tmp_path / "plan.json"
    fresh = plan("--target-ci", 0.04, *law, out=out)
    made = plan("--target-ci", 0.04, *law, "--runs", few, out=out)
    found = made.prediction
    assert found.half_width <= 0.04 < found.before
    assert found.bound <= made.flops < 0.8 * fresh.flops
    # no run repeats a seed that is there
    there = set(
        load_runs(few)
        .frame[["recurrences", "width", "budget_flops", "seed"]]
        .itertuples(index=False)
    )
    names = [(run.recurrences, run.width, run.budget_flops, run.seed) for run in made.runs]
    assert len(set(names)) == len(names)
    assert not there & set(names)
    assert sorted(name for name, _ in found.steps) == sorted(run.run_id for run in made.runs)
    assert found.steps[-1][1] == pytest.approx(found.half_width)
    assert load_plan(out) == made
    shown = to_text(plan_report(made))
    assert f"after the runs that are there, φ ± {found.before:.3f} expected" in shown


def test_the_next_runs_are_the_greedy_ones(few, law, tmp_path):
    out = tmp_path / "plan.json"
    three = plan("--next", 3, *law, "--runs", few, out=out)
    five = plan("--next", 5, *law, "--runs", few, out=out)
    assert five.prediction.steps[:3] == three.prediction.steps
    halves = [three.prediction.before, *(half for _, half in five.prediction.steps)]
    assert halves == sorted(halves, reverse=True)
    assert json.loads(out.read_text())["prediction"]["steps"][0] == list(three.prediction.steps[0])
    apart = plan("--next", 5, *law, "--runs", few, "--max-replicates", 1, out=out)
    cells = {(run.recurrences, run.width, run.budget_flops) for run in apart.runs}
    assert len(cells) == 5


def test_levels_that_are_there_need_no_check():
    """A third r and a third budget among the runs made are not bought again."""

    def candidates(r, budgets):
        ones = np.ones(len(r))
        return Candidates(
            recurrences=np.array(r, float), n_once=ones, n_rec=ones, n_inject=ones,
            tokens=np.arange(len(r)) + 1.0, flops=ones, budget_flops=np.array(budgets, float),
        )  # fmt: skip

    def unmet(made):
        known = line().knowing(np.arange(3))
        new = replace(candidates([1] * 18, [1] * 18), made=made)
        return " ".join(best_for(known, new, 4.0, limits=Limits(), check_share=0.0).unmet)

    blind = unmet(candidates([1, 1, 2], [1, 1, 2]))
    assert "m(r)" in blind and "drifts" in blind
    seeing = unmet(candidates([1, 2, 4], [1, 2, 3]))
    assert "m(r)" not in seeing and "drifts" not in seeing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-ci", 0.3), "nothing to buy: the 32 runs that are there are expected to give"),
        (("--next", 2, "--target-ci", 0.05), "no --target-ci, --gpu-hours or --max-runs"),
        (("--next", 0), "next = 0 must be at least 1"),
        ((), "--runs is for designs"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, few, law, tmp_path, capsys):
    assert (
        plan(*arguments, *(law if arguments else ()), "--runs", few, out=tmp_path / "plan.json")
        == 2
    )
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_next_runs_need_some_before_them(law, tmp_path, capsys):
    assert plan("--next", 2, *law, out=tmp_path / "plan.json") == 2
    assert "give --runs" in capsys.readouterr().err

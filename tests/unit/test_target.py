"""Plans made for an interval of φ."""

import json

import numpy as np
import pytest

from isodepth import fit
from isodepth.cli import main
from isodepth.errors import InputError
from isodepth.planning.candidates import candidate_cells
from isodepth.planning.cost import DEVICES
from isodepth.planning.grid import Budget, Recipe, Shape
from isodepth.sweep.plan import load_plan

BUDGETS = ("--budgets", "4.64e17", "1e18", "2.15e18")


@pytest.fixture(scope="module")
def law(published, tmp_path_factory):
    """The published baseline's law, and the file it was saved in."""
    found = fit(published, bootstrap=0)
    file = tmp_path_factory.mktemp("law") / "fit.json"
    found.save(file)
    return found, str(file)


def plan(*arguments, law, out):
    status = main(
        ["plan", *BUDGETS, "--fit", law[1], "--device", "h100", "--quiet", "--out", str(out)]
        + [str(a) for a in arguments]
    )
    return status or load_plan(out)


def test_candidates_are_runs_that_can_be_trained_fairly(law):
    recipe = Recipe(name="baseline", recurrences=(1, 8))
    budgets = (Budget(flops=1e18), Budget(flops=1e19))
    found = candidate_cells(recipe, budgets, Shape(), law[0], DEVICES["h100"])
    assert {(c.budget_flops, c.recurrences) for c in found} == {
        (flops, r) for flops in (1e18, 1e19) for r in (1, 8)
    }
    assert all(abs(c.flops / c.budget_flops - 1) <= 0.005 and c.width % 128 == 0 for c in found)
    assert len({c.name for c in found}) == len(found)
    given = candidate_cells(
        recipe, (Budget(flops=1e18, widths=(512, 600)),), Shape(), law[0], DEVICES["h100"]
    )
    assert [(c.recurrences, c.width) for c in given] == [(1, 512), (8, 512)]


def test_a_model_larger_than_memory_is_no_candidate(law):
    recipe = Recipe(name="baseline", recurrences=(1, 8))

    def widest(device):
        found = candidate_cells(recipe, (Budget(flops=4e19),), Shape(), law[0], DEVICES[device])
        return max(cell.width for cell in found)

    # 65,536 tokens × 20 blocks × 18 d numbers of 2 bytes, and 16 bytes a parameter: 80 GB at 1,500
    assert widest("h100") < 1600 < widest("h200")
    with pytest.raises(InputError, match="does not fit the memory of h100"):
        candidate_cells(recipe, (Budget(flops=1e22),), Shape(), law[0], DEVICES["h100"])


def test_a_plan_for_an_interval_is_one_that_sweeps(law, tmp_path):
    made = plan("--target-ci", 0.08, law=law, out=tmp_path / "plan.json")
    assert made.prediction.half_width <= 0.08
    assert set(made.prediction.by_world) == {"additive, noise 0.0025", "additive, noise 0.004"}
    squares = np.array(list(made.prediction.by_world.values())) ** 2
    assert np.sqrt(squares.mean()) == pytest.approx(made.prediction.half_width)
    assert made.prediction.bound_flops <= made.flops <= 1.4 * made.prediction.bound_flops
    assert len({run.run_id for run in made.runs}) == len(made.runs)
    assert {run.recurrences for run in made.runs} >= {1, 8}
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert saved["prediction"]["cannot_tell"]


def test_less_noise_and_wider_targets_are_cheaper(law, tmp_path):
    def flops(*arguments):
        return plan(*arguments, law=law, out=tmp_path / "plan.json").flops

    usual = flops("--target-ci", 0.06)
    assert flops("--target-ci", 0.12) < usual
    assert flops("--target-ci", 0.06, "--noise", 0.002) < usual


def test_no_more_runs_than_allowed(law, tmp_path):
    free = plan("--target-ci", 0.06, law=law, out=tmp_path / "plan.json")
    few = plan(
        "--target-ci", 0.06, "--max-runs", len(free.runs) - 2, law=law, out=tmp_path / "few.json"
    )
    assert len(few.runs) <= len(free.runs) - 2
    assert few.prediction.half_width <= 0.06
    assert few.flops > free.flops


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-ci", 0.01, "--max-runs", 12), "12 runs give φ ± "),
        (("--target-ci", -1), "must be a positive number"),
        (("--target-ci", 0.1, "--noise", 0), "noise of the log loss must be positive"),
        (("--target-ci", 0.1, "--check-share", 1), "must lie from 0 to 1"),
        (("--target-ci", 0.1, "--seeds", 2), "no --adaptive or seeds"),
        (("--target-ci", 0.1, "--n-widths", 4), "no part in --target-ci"),
        (("--target-ci", 0.1, "--recipes", "baseline", "truncated_bptt"), "for one recipe"),
        (("--target-ci", 0.1, "-r", 2, 4), "r = 1 and at a larger r"),
        (("--max-runs", 12), "--max-runs is for plans with --target-ci"),
    ],
)
def test_what_no_design_can_follow_is_refused(arguments, message, law, tmp_path, capsys):
    assert plan(*arguments, law=law, out=tmp_path / "plan.json") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "plan.json").exists()

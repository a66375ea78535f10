"""Plans made for an interval of φ."""

import json

import numpy as np
import pytest

from isodepth import fit
from isodepth.cli import main
from isodepth.errors import InputError
from isodepth.planning.candidates import candidate_cells
from isodepth.planning.cost import DEVICES, memory_bytes, processor
from isodepth.planning.grid import Budget, Recipe, Shape, one_cell
from isodepth.report.tables import to_text
from isodepth.sweep.plan import load_plan
from isodepth.sweep.plan_report import plan_report
from isodepth.sweep.rates import rates_of

BUDGETS = ("--budgets", "4.64e17", "1e18", "2.15e18")


@pytest.fixture(scope="module")
def law(published, tmp_path_factory):
    """The published baseline's law, and the file it was saved in."""
    found = fit(published, bootstrap=0, sensitivity=False)
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
    found = candidate_cells((recipe,), budgets, Shape(), law[0], DEVICES["h100"])
    assert {(c.budget_flops, c.recurrences) for c in found} == {
        (flops, r) for flops in (1e18, 1e19) for r in (1, 8)
    }
    assert all(abs(c.flops / c.budget_flops - 1) <= 0.005 and c.width % 128 == 0 for c in found)
    assert len({c.name for c in found}) == len(found)
    given = candidate_cells(
        (recipe,), (Budget(flops=1e18, widths=(512, 600)),), Shape(), law[0], DEVICES["h100"]
    )
    assert [(c.recurrences, c.width) for c in given] == [(1, 512), (8, 512)]


def test_a_model_larger_than_memory_is_no_candidate(law):
    recipe = Recipe(name="baseline", recurrences=(1, 8))

    def widest(device):
        found = candidate_cells((recipe,), (Budget(flops=1e20),), Shape(), law[0], device)
        return max(cell.width for cell in found if cell.recurrences == 1)

    # 16 bytes a parameter, 20 blocks of 12 d²: 3.84e3 d² bytes, so that 24 GB end near width 2,200
    assert widest(processor("h100", memory_gb=24)) < 2300 < widest(DEVICES["h100"])
    with pytest.raises(InputError, match="does not fit the memory of h100"):
        candidate_cells((recipe,), (Budget(flops=1e23),), Shape(), law[0], DEVICES["h100"])


def test_memory_is_that_of_the_largest_micro_batch_that_fits():
    cell = one_cell(Recipe(name="baseline", recurrences=(1,)), 1, 1024, 1e19, Shape())
    parameters = 16 * (cell.account.n_total + cell.account.n_embedding) + 1.5e9
    of_token = 20 * 18 * 1024 * 2
    assert memory_bytes(cell, Shape(), DEVICES["h100"]) == parameters + 65536 * of_token
    assert memory_bytes(cell, Shape(), processor("h100", memory_gb=24)) == (
        parameters + 16384 * of_token
    )
    # one row of 2,048 tokens is the least, whether it fits or not
    assert memory_bytes(cell, Shape(), processor("h100", memory_gb=1)) == (
        parameters + 2048 * of_token
    )


def test_widths_are_multiples_of_what_is_asked_for(law):
    recipe = Recipe(name="baseline", recurrences=(1, 8))

    def widths(multiple):
        found = candidate_cells(
            (recipe,),
            (Budget(flops=1e19),),
            Shape(),
            law[0],
            DEVICES["h100"],
            width_multiple=multiple,
        )
        return {cell.width for cell in found}

    assert widths(256) == {width for width in widths(None) if width % 256 == 0}
    with pytest.raises(InputError, match="multiples of 192 don't fit heads of 128"):
        widths(192)


def test_rates_between_measured_widths_follow_a_power_and_end_flat():
    device = processor("h100", rates={"256": 1e14, "1024": 4e14})
    assert [device.flops_per_second(width) for width in (64, 256, 512, 1024, 4096)] == (
        pytest.approx([1e14, 1e14, 2e14, 4e14, 4e14])
    )


def test_a_rate_is_a_number_or_what_trained_runs_tell(tmp_path):
    for name, width, rate in (("a", 256, 1e14), ("b", 256, 3e14), ("c", 512, 5e14)):
        (tmp_path / name).mkdir()
        record = {"run": {"width": width}, "flops_per_second": rate}
        (tmp_path / name / "record.json").write_text(json.dumps(record))
    assert rates_of(str(tmp_path)) == {"256": 2e14, "512": 5e14}
    assert processor("cpu", rates=rates_of("3e13")).flops_per_second(512) == pytest.approx(3e13)
    (tmp_path / "empty").mkdir()
    for source in ("-1", "nan", str(tmp_path / "empty"), str(tmp_path / "none")):
        with pytest.raises(InputError):
            rates_of(source)


def test_a_plan_for_an_interval_is_one_that_sweeps(law, tmp_path):
    made = plan("--target-ci", 0.08, law=law, out=tmp_path / "plan.json")
    assert made.prediction.half_width <= 0.08
    assert set(made.prediction.by_world) == {"additive, noise 0.0038"}  # the fit's own
    carried = [w for w in made.warnings if w.code == "law_form"]
    assert "the supposed fit (published, baseline): the coupled law" in carried[0].text
    squares = np.array(list(made.prediction.by_world.values())) ** 2
    assert np.sqrt(squares.mean()) == pytest.approx(made.prediction.half_width)
    assert made.prediction.unit == "FLOPs"
    assert made.prediction.bound <= made.flops <= 1.4 * made.prediction.bound
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
    wanted = ("--target-ci", 0.06, "--noise", 0.0025, 0.004)
    free = plan(*wanted, law=law, out=tmp_path / "plan.json")
    few = plan(*wanted, "--max-runs", len(free.runs) - 1, law=law, out=tmp_path / "few.json")
    assert len(few.runs) <= len(free.runs) - 1
    assert few.prediction.half_width <= 0.06
    assert few.flops > free.flops


def test_limits_that_do_not_give_the_target_say_what_they_give(law, tmp_path, capsys):
    out = tmp_path / "plan.json"
    made = plan("--target-ci", 0.01, "--max-runs", 12, law=law, out=out)
    assert len(made.runs) == 12
    assert 0.01 < made.prediction.half_width < 0.5
    assert (made.prediction.target, made.prediction.limits) == (0.01, ("12 runs",))
    shown = " ".join(to_text(plan_report(made)).split())
    assert "wider than wanted: 12 runs don't give ± 0.01" in shown


def test_hours_buy_the_narrowest_interval_they_can(law, tmp_path):
    def hours(made):
        return made.seconds / 3600

    out = tmp_path / "plan.json"
    day = plan("--gpu-hours", 24, "--rate", 2e14, law=law, out=out)
    two = plan("--gpu-hours", 48, "--rate", 2e14, law=law, out=out)
    # in whole runs of 0.6 h and more the hours are used up, and √2 of the width is nearly gained
    assert 23 <= hours(day) <= 24 and 47 <= hours(two) <= 48
    assert two.prediction.half_width == pytest.approx(day.prediction.half_width / 2**0.5, rel=0.12)
    assert day.prediction.unit == "GPU-hours"
    assert day.prediction.bound <= hours(day)
    # a target within reach takes the fewest hours, one beyond it says what it would take
    easy = plan("--gpu-hours", 48, "--target-ci", 0.08, "--rate", 2e14, law=law, out=out)
    assert easy.prediction.half_width <= 0.08 and hours(easy) < 24
    assert easy.prediction.needed is None
    hard = plan("--gpu-hours", 24, "--target-ci", 0.04, "--rate", 2e14, law=law, out=out)
    assert [run.run_id for run in hard.runs] == [run.run_id for run in day.runs]
    assert hard.prediction.needed > 30
    assert f"which takes {hard.prediction.needed:.3g} GPU-hours" in " ".join(
        to_text(plan_report(hard)).split()
    )


def test_where_time_is_spent_fast_widths_are_worth_more(law, tmp_path):
    """A device that is slow below width 1,024 makes wide runs cheaper for their FLOPs."""
    slow = tmp_path / "slow"
    for width, rate in ((512, 1e13), (1024, 4e14)):
        (slow / str(width)).mkdir(parents=True)
        record = {"run": {"width": width}, "flops_per_second": rate}
        (slow / str(width) / "record.json").write_text(json.dumps(record))

    def mean_width(made):
        return np.average([run.width for run in made.runs], weights=[r.flops for r in made.runs])

    out = tmp_path / "plan.json"
    even = plan("--gpu-hours", 30, "--rate", 2e14, law=law, out=out)
    uneven = plan("--gpu-hours", 30, "--rate", slow, law=law, out=out)
    assert mean_width(uneven) > 1.2 * mean_width(even)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-ci", 0.05, "--max-runs", 5), "5 runs can't tell φ"),
        (("--gpu-hours", 0.5, "--rate", 2e14), "don't hold the shortest run, of 0.64"),
        (("--gpu-hours", 2, "--rate", 2e14), "2 hours buy 3 runs of these budgets"),
        (("--gpu-hours", -2), "gpu_hours = -2 must be a positive number"),
        (("--gpu-hours", 24, "--rate", "nowhere"), "neither a number of FLOP/s nor a folder"),
        (("--gpu-hours", 24, "--device-memory", -1), "memory_gb must be a positive number"),
        (("--target-ci", 0.1, "--device-memory", 2), "does not fit the memory of h100"),
        (("--target-ci", 0.1, "--width-multiple", 192), "multiples of 192 don't fit"),
        (("--target-ci", -1), "must be a positive number"),
        (("--target-ci", 0.1, "--noise", 0), "noise of the log loss must be positive"),
        (("--target-ci", 0.1, "--check-share", 1), "must lie from 0 to 1"),
        (("--target-ci", 0.1, "--seeds", 2), "no --adaptive or seeds"),
        (("--target-ci", 0.1, "--n-widths", 4), "no part in a design"),
        (("--target-ci", 0.1, "-r", 2, 4), "r = 1 and at a larger r"),
        (("--max-runs", 12), "--max-runs is for designs: give --target-ci"),
    ],
)
def test_what_no_design_can_follow_is_refused(arguments, message, law, tmp_path, capsys):
    assert plan(*arguments, law=law, out=tmp_path / "plan.json") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "plan.json").exists()

"""φ without r = 1 runs: two answers are named, one is given, before and after training."""

import numpy as np
import pytest
from conftest import TRUTH, grid, sweep, true_loss

from isodepth import InputError, fit, load_runs
from isodepth.fitting.unlooped import twin
from isodepth.planning.foreseen import foreseen
from isodepth.planning.worlds import NOISES
from isodepth.sweep.power import power_of

WIDE = {"widths": (320, 448, 640, 896, 1280), "budgets": (5e17, 2e18, 8e18, 3.2e19)}


def codes(found):
    return [w.code for w in found.warnings]


@pytest.mark.parametrize(("pair", "noise"), [((2, 8), 0.002), ((4, 8), 0.002), ((2, 4), 0.0)])
def test_two_looped_r_have_two_answers_and_both_are_named(pair, noise):
    runs = sweep(recurrences=pair, noise=noise, **WIDE)
    found = fit(runs, bootstrap=0, sensitivity=False)
    assert found.phi is None
    (said,) = (w.text for w in found.warnings if w.code == "two_solutions")
    named = [float(x) for x in said.split("equally well, ")[1].split(":")[0].split(" and ")]
    assert max(named) == pytest.approx(TRUTH["phi"], abs=0.001 if noise == 0 else 0.15)
    frame = runs.frame
    size = frame["n_once"] + frame["n_inject"] + frame["recurrences"] * frame["n_rec"]
    share = float(((frame["n_once"] + frame["n_inject"]) / size).median())
    assert min(named) == pytest.approx(twin(share, pair, max(named)), abs=0.2)


def test_the_twin_has_the_same_ratio():
    for pair in ((2, 8), (4, 8), (2, 4)):
        other = twin(0.2, pair, 0.46)

        def ratio(phi, pair=pair):
            sizes = [0.2 + 0.8 * r ** (phi - 1) for r in pair]
            return sizes[0] / sizes[1]

        assert other < 0
        assert ratio(other) == pytest.approx(ratio(0.46), rel=1e-9)
        assert twin(0.2, pair, other) == pytest.approx(0.46, abs=1e-6)
    assert twin(0.0, (2, 8), 0.46) is None
    assert twin(0.2, (2, 8), 1.2) is None


def test_nothing_used_once_leaves_one_answer():
    frame = grid(recurrences=(2, 8), **WIDE)
    frame = frame.assign(n_rec=frame["n_rec"] + frame["n_once"] / frame["recurrences"])
    frame = frame.assign(n_once=0, n_inject=0)
    frame["loss"] = true_loss(frame) * np.exp(
        0.002 * np.random.default_rng(0).normal(size=len(frame))
    )
    found = fit(load_runs(frame), bootstrap=0, sensitivity=False)
    assert found.phi == pytest.approx(TRUTH["phi"], abs=0.1)
    assert foreseen(frame) == ()


def test_three_looped_r_give_every_optimum_within_the_threshold():
    frame = sweep(recurrences=(2, 4, 8), noise=0.02, seed=3, **WIDE).frame
    found = fit(load_runs(frame), bootstrap=50, sensitivity=False)
    assert {"two_solutions", "no_unlooped", "not_identified"} & set(codes(found))
    if "two_solutions" in codes(found) and found.phi is not None:
        (said,) = (w.text for w in found.warnings if w.code == "two_solutions")
        named = [float(x) for x in said.split("well: ")[1].split(";")[0].split(", ")]
        low, high = found.interval("phi")
        assert low <= min(named)
        assert max(named) <= high
    sharp = fit(sweep(recurrences=(2, 4, 8), noise=0.0005, **WIDE), bootstrap=0, sensitivity=False)
    assert sharp.phi == pytest.approx(TRUTH["phi"], abs=0.1)
    assert codes(sharp).count("no_unlooped") == 1


def test_the_same_is_said_before_anything_is_trained():
    said = foreseen(grid(recurrences=(2, 8)), phi=0.46)
    assert [w.code for w in said] == ["two_solutions"]
    assert "where φ is 0.460, -1." in said[0].text
    assert [w.code for w in foreseen(grid(recurrences=(2, 4, 8)))] == ["no_unlooped"]
    assert [w.code for w in foreseen(grid(budgets=(1e18,)))] == ["one_budget"]
    assert foreseen(grid()) == ()


def test_power_refuses_two_looped_r_and_warns_of_three(tmp_path):
    fits = [fit(sweep(noise=0.002), bootstrap=0, sensitivity=False)]
    for r, words in (((2, 8), "two values of φ"), ((2, 4, 8), None)):
        runs = sweep(recurrences=r, noise=0.002)
        file = tmp_path / f"r{len(r)}.csv"
        runs.frame.to_csv(file, index=False)
        if words:
            with pytest.raises(InputError, match=words):
                power_of(str(file), fits, noises=NOISES)
        else:
            found = power_of(str(file), fits, noises=NOISES)
            assert found.to_dict()["warning_codes"] == ["no_unlooped"]

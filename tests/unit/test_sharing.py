"""What sharing costs and what a recipe gains without it: contrasts against untied runs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from isodepth import compare, load_runs
from isodepth.comparing.result import Comparison
from isodepth.comparing.sharing import CONTRASTS, sharing_of
from isodepth.report.sharing_tables import sharing_page_tables, sharing_rows, sharing_sentences

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import sharing_coverage as simulated

LANES = "hyperconnections"


@pytest.fixture(scope="module")
def frame():
    return simulated.layout("laptop-lanes")


def values(found):
    return {(c.name, c.recurrences): c.delta_log_loss.value for c in found.contrasts}


def test_differences_are_means_over_cells_by_hand(frame):
    rng = np.random.default_rng(0)
    frame = frame.assign(loss=np.exp(rng.normal(size=len(frame), scale=0.01)))
    log = np.log(frame["loss"])

    def mean(recipe, r, own):
        rows = (frame["recipe"] == recipe) & (frame["graph_recurrences"] == r)
        return log[rows & ((frame["recurrences"] == 1) == own)].mean()

    found = values(sharing_of(frame, "baseline", LANES))
    assert set(found) == {(name, r) for name in CONTRASTS for r in (2, 4, None)}
    for r in (2, 4):
        price = mean("baseline", r, False) - mean("baseline", r, True)
        lanes = mean(LANES, r, False) - mean(LANES, r, True)
        assert found["price_baseline", r] == pytest.approx(price, abs=1e-12)
        assert found["price_recipe", r] == pytest.approx(lanes, abs=1e-12)
        gain = mean(LANES, r, True) - mean("baseline", r, True)
        assert found["gain_untied", r] == pytest.approx(gain, abs=1e-12)
        assert found["for_loops", r] == pytest.approx(lanes - price, abs=1e-12)
        assert found["for_loops", r] == pytest.approx(found["gain_looped", r] - gain, abs=1e-12)
    for name in CONTRASTS:
        assert found[name, None] == pytest.approx((found[name, 2] + found[name, 4]) / 2, abs=1e-12)


@pytest.mark.parametrize("world", simulated.WORLDS)
def test_a_gain_at_any_r_is_told_from_one_for_loops(frame, world):
    kappa, phi = simulated.WORLDS[world]
    truth = simulated.losses(frame, kappa, phi)
    found = sharing_of(simulated.noisy(frame, truth, 2e-4, 0.0, 0), "baseline", LANES)
    exact = values(sharing_of(frame.assign(loss=truth), "baseline", LANES))
    for c in found.contrasts:
        assert c.delta_log_loss.value == pytest.approx(exact[c.name, c.recurrences], abs=1e-3)
    gain, loops = found.overall("gain_untied"), found.overall("for_loops")
    assert found.overall("price_baseline").delta_log_loss.ci95[0] > 0
    if phi:
        assert loops.told and loops.delta_log_loss.value < 0
    # lanes cost fewer FLOPs than a matrix, and see more tokens for it: a little gain at any r
    assert -0.006 < gain.delta_log_loss.value < 0 or kappa > 1
    assert gain.delta_log_loss.ci95[1] < -0.02 or kappa == 1


def test_intervals_hold_the_truth_and_no_more_often_than_they_should(frame):
    truth = simulated.losses(frame, 1.2, 0.1)
    exact = simulated.contrasts(frame.assign(loss=truth))
    held = []
    for seed in range(25):
        found = simulated.contrasts(simulated.noisy(frame, truth, 0.004, 0.0, seed))
        held += [v.ci95[0] <= exact[key].value <= v.ci95[1] for key, v in found.items()]
    assert 0.90 <= np.mean(held) < 1.0


def test_cells_without_a_partner_are_left_out(frame):
    frame = frame.assign(loss=simulated.losses(frame, 1.0, 0.0))
    looped = frame[frame["recurrences"] > 1]
    gone = looped.index[(looped["recipe"] == LANES) & (looped["width"] == 16)]
    found = sharing_of(frame.drop(gone), "baseline", LANES)
    cells = {(c.name, c.recurrences): c.n_cells for c in found.contrasts}
    assert cells["price_baseline", 2] == 6
    assert cells["price_recipe", 2] == cells["for_loops", 4] == 4
    only = frame[(frame["recipe"] == "baseline") | (frame["recurrences"] > 1)]
    found = sharing_of(only, "baseline", LANES)
    assert {c.name for c in found.contrasts} == {"price_baseline", "gain_looped"}


def test_replicates_are_averaged(frame):
    frame = simulated.noisy(frame, simulated.losses(frame, 1.0, 0.0), 0.01, 0.0, 0)
    again = frame.assign(loss=frame["loss"].to_numpy()[::-1].copy())
    both = sharing_of(load_frames(frame, again), "baseline", LANES)
    one, two = (values(sharing_of(f, "baseline", LANES)) for f in (frame, again))
    for key, value in values(both).items():
        assert value == pytest.approx((one[key] + two[key]) / 2, abs=1e-12)


def load_frames(*frames):
    import pandas as pd

    return pd.concat(frames, ignore_index=True)


def test_without_untied_runs_widths_or_budgets_there_is_none(frame):
    frame = frame.assign(loss=simulated.losses(frame, 1.0, 0.0))
    assert sharing_of(frame[frame["recurrences"] > 1], "baseline", LANES) is None
    assert sharing_of(frame.drop(columns="width"), "baseline", LANES) is None
    assert sharing_of(frame.drop(columns="budget_flops"), "baseline", LANES) is None
    few = frame[(frame["width"] == 8) & (frame["budget_flops"] == 4e10)]
    assert sharing_of(few, "baseline", LANES) is None


@pytest.fixture(scope="module")
def compared():
    wide = simulated.layout("wide")
    truth = simulated.losses(wide, 1.2, 0.1)
    runs = load_runs(simulated.noisy(wide, truth, 0.001, 0.0, 1))
    return compare(runs, recipe=LANES, bootstrap=0)


def test_compare_prints_and_keeps_it(compared, tmp_path):
    text = compared.report()
    assert "price, baseline" in text
    assert "sharing costs baseline: +0.0" in text
    rows = sharing_rows(compared)
    assert len(rows) == 15
    assert sharing_page_tables([compared])[0]["rows"] == rows
    assert any(
        sentence.startswith("hyperconnections gains without sharing too: -0.0")
        for sentence in sharing_sentences(compared)
    )
    file = tmp_path / "comparison.json"
    file.write_text(compared.to_json())
    assert Comparison.load_all(file)[0].sharing == compared.sharing
    del (content := compared.to_dict())["sharing"]  # as comparisons were before
    import json

    file.write_text(json.dumps(content))
    assert Comparison.load_all(file)[0].sharing is None


def test_untied_runs_are_no_unlooped_models_of_channels(compared):
    assert {c.recurrences for c in compared.channels} == {2, 4}
    assert {one.recurrences for one in compared.compute_multiplier} <= {2, 4}


def test_pairs_at_r_1_are_of_one_graph(compared):
    by_id = {}
    frame = load_runs(simulated.layout("wide").assign(loss=1.0)).frame
    for run_id, graph in zip(frame["run_id"], frame["graph_recurrences"], strict=True):
        by_id[run_id] = graph
    own = [run for run in compared.paired.runs if run.recurrences == 1]
    assert {by_id[run.run_id] for run in own} == {2, 4}
    assert all(run.matched for run in own)
    gain = compared.sharing.overall("gain_untied").delta_log_loss.value
    assert np.mean([run.delta_log_loss for run in own]) == pytest.approx(gain, abs=1e-9)

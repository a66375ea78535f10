"""What a recipe changes at equal r: known truths, and the published probes."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import TRUTH, true_loss, two_recipes

from isodepth import compare, load_runs
from isodepth.comparing.forms import FORMS
from isodepth.comparing.result import Comparison

PROBES = ("hyperconnections", "truncated_bptt")


@pytest.fixture(scope="module")
def published():
    return {name: compare("published", recipe=name, bootstrap=50) for name in PROBES}


def means(found, by):
    return [m for m in found.paired.means if m.by == by]


def changed(tokens=1.0, offset=0.0, over_r=0.0, phi=None, noise=2e-4, recurrences=(2, 4, 8)):
    """The baseline of a known law, and a probe of equal cost that differs as named."""
    frame = two_recipes(phi or TRUTH["phi"], recurrences=recurrences, cut=False).frame.copy()
    probe = frame["recipe"] == "probe"
    loss = frame["loss"]
    if phi is None:
        loss = true_loss(frame.assign(tokens=frame["tokens"] * np.where(probe, tokens, 1.0)))
    loss = loss + np.where(probe, offset + over_r / frame["recurrences"], 0.0)
    rng = np.random.default_rng(0)
    return load_runs(frame.assign(loss=loss * np.exp(noise * rng.normal(size=len(frame)))))


def test_pairs_of_the_published_probes(published):
    """Means of log loss by r, and r = 8 less r = 2, as two scratch analyses found them."""
    lanes, cut = (published[name] for name in PROBES)
    assert (lanes.paired.n_matched, cut.paired.n_matched) == (60, 59)
    matched = [r for r in lanes.paired.runs if r.matched]
    for r, mean in ((2, -174e-4), (4, -155e-4), (8, -154e-4)):
        seen = np.mean([x.delta_log_loss for x in matched if x.recurrences == r])
        assert seen == pytest.approx(mean, abs=1e-4)
    assert lanes.paired.growth.delta_log_loss.value == pytest.approx(20e-4, abs=1e-4)
    assert cut.paired.growth.delta_log_loss.value == pytest.approx(-98e-4, abs=1e-4)
    # a change of φ alone would have it the other way, told from what is seen
    assert lanes.paired.growth.by_phi < lanes.paired.growth.delta_log_loss.ci95[0]
    assert cut.paired.growth.by_phi > cut.paired.growth.delta_log_loss.ci95[1]
    thirds = [m.delta_log_loss.value for m in means(lanes, "tokens_per_parameter")]
    assert thirds == sorted(thirds)  # largest where tokens are scarce


def test_hyperconnections_change_what_a_token_counts(published):
    split = published["hyperconnections"].split
    assert split.form == "tokens"
    assert split.tokens_ratio.value == pytest.approx(1.36, abs=0.01)
    low, high = split.tokens_ratio.ci95
    assert 1.32 < low < high < 1.40
    assert split.phi_contradicted
    assert split.sign == 0
    assert split.delta_phi.value == pytest.approx(0.0, abs=0.02)
    verdict = published["hyperconnections"].verdict
    assert verdict.startswith("at equal r and budget the gain does not grow with r")
    assert "a token counts 1.36" in verdict
    assert "is not significant; the baseline takes" in verdict


def test_truncation_leaves_its_change_of_phi_open(published):
    found = published["truncated_bptt"]
    split = found.split
    assert split.form == "offset_over_r"
    assert split.chosen.params["loss_offset_times_r"].value == pytest.approx(0.083, abs=0.002)
    assert split.phi_contradicted
    assert split.sign is None
    assert split.delta_phi.value is None
    low, high = split.delta_phi.range_over_forms
    assert low == pytest.approx(-0.06, abs=0.01)
    assert high == pytest.approx(0.25, abs=0.02)
    assert "delta_phi_depends_on_form" in {w.code for w in found.warnings}
    assert found.verdict.startswith("a fall of φ alone is contradicted")
    assert all(c.optimal.capacity is None for c in found.channels)


@pytest.mark.parametrize(
    ("change", "form", "name", "value"),
    [
        ({"tokens": 1.25}, "tokens", "tokens_ratio", 1.25),
        ({"offset": -0.04}, "offset", "loss_offset", -0.04),
        ({"over_r": 0.2}, "offset_over_r", "loss_offset_times_r", 0.2),
    ],
)
def test_a_known_form_is_found_and_no_change_of_phi(change, form, name, value):
    found = compare(changed(**change), recipe="probe", bootstrap=0)
    assert found.split.form == form
    assert found.split.chosen.params[name].value == pytest.approx(value, rel=0.05)
    own = found.split.candidate(form, with_phi=True)
    assert own.delta_phi.ci95[0] < 0 < own.delta_phi.ci95[1]
    assert found.split.sign in (0, None)
    assert "raises φ" not in found.verdict
    assert "lowers φ" not in found.verdict


def test_a_change_of_phi_alone_is_found():
    found = compare(changed(phi=0.75), recipe="probe", bootstrap=0)
    assert found.split.form == "none"
    alone = found.split.candidate("none", with_phi=True)
    assert alone.admissible
    assert alone.delta_phi.ci95[0] < 0.75 - 0.45 < alone.delta_phi.ci95[1]
    assert found.split.sign == 1
    assert "raises φ" in found.verdict


def test_no_unlooped_run_is_needed():
    frame = changed(tokens=1.25).frame
    found = compare(load_runs(frame[frame["recurrences"] > 1]), recipe="probe", bootstrap=0)
    assert found.split.form == "tokens"
    assert found.split.tokens_ratio.value == pytest.approx(1.25, rel=0.03)


def test_own_unlooped_runs_lead():
    runs = changed(tokens=1.25, recurrences=(1, 2, 4, 8))
    found = compare(runs, recipe="probe", bootstrap=0)
    assert found.verdict.startswith("without a loop (r = 1) its log loss differs by -0.0")
    assert 1 in {m.recurrences for m in means(found, "recurrences")}


def test_sizes_that_do_not_match_go_through_the_surface():
    """Every other width of the probe is taken away from the baseline: the same answer."""
    frame = changed(tokens=1.25, noise=1e-4).frame
    base = frame["recipe"] == "baseline"
    widths = sorted(frame["width"].unique())
    gone = base & frame["width"].isin(widths[1::4]) & (frame["recurrences"] > 1)
    found = compare(load_runs(frame[~gone]), recipe="probe", bootstrap=0)
    assert 0 < found.paired.n_matched < len(found.paired.runs)
    assert found.split.tokens_ratio.value == pytest.approx(1.25, rel=0.05)
    for run in found.paired.runs:
        assert run.delta_log_loss == pytest.approx(run.by_form, abs=0.004)


def test_forms_are_read_back_as_they_were(published, tmp_path):
    file = tmp_path / "comparison.json"
    for found in published.values():
        file.write_text(found.to_json())
        assert Comparison.load_all(file) == [found]
    data = json.loads(file.read_text())
    assert {c["form"] for c in data["split"]["candidates"]} == set(FORMS)
    keys = {"recurrences", "tokens_per_parameter", "n_runs", "delta_log_loss", "by_phi", "by_form"}
    assert keys <= set(data["paired"][0])


def test_few_runs_say_what_was_left_out():
    frame = changed(noise=1e-3).frame
    few = frame[(frame["recurrences"] == 1) | (frame["recipe"] == "probe")]
    few = pd.concat([few, frame[(frame["recipe"] == "baseline") & (frame["recurrences"] == 2)][:3]])
    found = compare(load_runs(few), recipe="probe", bootstrap=50)
    assert found.split is None
    assert found.paired is None
    assert found.channels == ()
    assert {"not_paired", "borrowed_unlooped"} <= {w.code for w in found.warnings}

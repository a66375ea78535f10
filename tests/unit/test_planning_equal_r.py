"""What runs would tell without a law, and at equal r: against the spread of simulated sweeps."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from isodepth import load_runs
from isodepth.comparing.carry import carrier_of
from isodepth.comparing.forms import FORMS
from isodepth.fitting.law_free import law_free
from isodepth.fitting.problem import build
from isodepth.planning.candidates import candidates_of_runs
from isodepth.planning.equal_r import equal_r, law_free_widths, with_losses
from isodepth.planning.twins import holding_twins
from isodepth.planning.worlds import prior
from isodepth.report.widths import equal_r_lines, law_free_lines

NOISE = 0.003


@pytest.fixture(scope="module")
def laws():
    return prior("published")[:1]


@pytest.fixture(scope="module")
def frames():
    runs = load_runs("published").used
    return runs[runs["recipe"] == "baseline"], runs[runs["recipe"] == "hyperconnections"]


@pytest.fixture(scope="module")
def told(frames, laws):
    return equal_r(*frames, laws, (NOISE,))


def _built(frames, law, rng):
    return [build(with_losses(frame, law, NOISE, rng), law.conventions) for frame in frames]


def test_widths_at_equal_r_are_twice_the_spread_of_simulated_sweeps(frames, laws, told):
    phi = laws[0].phi
    found = {name: [] for name in ("none", "tokens", "offset")}
    rng = np.random.default_rng(5)
    for _ in range(60):
        base, own = (
            build(with_losses(f, laws[0], NOISE, rng), laws[0].conventions) for f in frames
        )
        carrier, _ = carrier_of(base, own, range(own.n), phi)
        for name in found:
            found[name].append(carrier.solve((*FORMS[name], "phi")))
    by = {one.form: one for one in told.forms}
    for name, theta in found.items():
        spread = np.std(theta, axis=0)
        # a cubic and not the law is taken where it predicts better, and noise may seem shared
        assert 1.6 * spread[-1] < by[name].delta_phi < 3.0 * spread[-1], name
        if name != "none":
            assert 1.6 * spread[0] < by[name].constant_with_phi < 3.0 * spread[0], name


def test_a_constant_beside_the_change_of_phi_costs_both_their_width(told):
    by = {one.form: one for one in told.forms}
    assert by["tokens"].constant < by["tokens"].constant_with_phi
    for name in ("tokens", "offset", "offset_over_r"):
        assert by[name].delta_phi > by["none"].delta_phi
    assert by["offset_log_r"].delta_phi > by["offset"].delta_phi


def test_own_unlooped_runs_tell_most_for_their_flops(told):
    before = next(one for one in told.forms if one.form == "tokens").delta_phi
    by = {one.name: one for one in told.additions}
    own = by["unlooped runs of the recipe's own"]
    assert own.n_runs == 29
    assert own.delta_phi < before
    assert all(own.per_flop >= one.per_flop > 0 for one in by.values())
    assert any("unlooped runs of the recipe's own (29 runs" in line for line in equal_r_lines(told))


def test_law_free_widths_are_twice_the_spread_of_simulated_sweeps(frames, laws):
    told = law_free_widths(frames[0], laws, (NOISE,) * 4)
    rng = np.random.default_rng(6)
    phis, looped = [], []
    for _ in range(25):
        one, _ = law_free(_built(frames[:1], laws[0], rng)[0])
        phis.append(one.phi.value)
        looped.append(one.phi_looped.value)
    assert 1.5 * np.std(phis) < told.phi < 3.2 * np.std(phis)
    assert 1.5 * np.std(looped) < told.phi_looped < 3.2 * np.std(looped)
    assert 10 < told.twins_outside < 40
    assert told.n_looped == 87


def test_runs_whose_twins_lie_outside_tell_nothing_and_say_so(frames, laws):
    base = frames[0]
    # unlooped runs at the highest budget alone lie on one line with the looped ones off it
    few = base[(base["recurrences"] > 1) | (base["budget_flops"] == base["budget_flops"].max())]
    told = law_free_widths(few, laws, (NOISE,))
    assert told.phi is None
    assert "can't be told" in law_free_lines(told)[0]


def test_recipes_without_a_common_r_have_nothing_at_equal_r(frames, laws):
    base, own = frames
    assert equal_r(base[base["recurrences"] == 1], own, laws, (NOISE,)) is None


def test_unlooped_runs_are_bought_that_hold_the_looped_ones_twins(frames):
    runs = frames[0]
    looped = runs[(runs["recurrences"] == 4) & runs["budget_flops"].between(2e18, 5e18)]
    looped = looped[looped["width"].between(looped["width"].quantile(0.3), 1600)]
    unlooped = runs[runs["recurrences"] == 1]
    both = pd.concat([looped, unlooped], ignore_index=True)
    candidates = replace(candidates_of_runs(both), phi=0.46)
    counts = (both["recurrences"] > 1).to_numpy(dtype=int)
    bought = holding_twins(candidates, counts, 1e30)
    assert 5 <= len(bought) < 12
    assert (both["recurrences"][bought] == 1).all()
    told = law_free_widths(pd.concat([looped, both.iloc[bought]]), prior("published")[:1], (NOISE,))
    assert told.twins_outside == 0
    assert told.wanted_params is None
    # nothing that holds none of them, nor without a supposed φ, nor where they are held already
    assert holding_twins(candidates, counts, candidates.cost[bought].sum() * 0.99) != bought
    assert holding_twins(candidates, counts, candidates.cost.min() * 4) == []
    assert holding_twins(replace(candidates, phi=None), counts, 1e30) == []
    assert holding_twins(candidates, np.ones_like(counts), 1e30) == []

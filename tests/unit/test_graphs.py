"""Unlooped runs of several graphs under the measurement without a law."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isodepth import fit
from isodepth.fitting.law_free import law_free, without_law
from isodepth.fitting.problem import Conventions, build
from isodepth.planning.grid import Budget, Recipe, cells
from isodepth.report.worth import worth_rows
from isodepth.runs import load_runs
from isodepth.sweep.spec import read_spec

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import sharing_coverage as simulated

WIDTHS = (8, 12, 16, 20)
BUDGETS = tuple(Budget(flops=flops, widths=WIDTHS) for flops in (4e10, 1e11, 2.5e11))


def runs_of(graphs, *, plain=True, noise=1e-4, offset=0.0, seed=0):
    """Looped runs at r = 2 and 4, untied ones of `graphs`, plain r = 1 ones off by `offset`."""
    spec = read_spec("laptop-lanes")
    recipes = [Recipe(name="baseline", recurrences=(*((1,) if plain else ()), 2, 4))]
    if graphs:
        own = Recipe(name="own", recurrences=graphs, untied=True, of="baseline")
        recipes.append(own)
    spec = dataclasses.replace(spec, recipes=tuple(recipes))
    frame = pd.DataFrame(
        [
            {
                "recipe": "baseline",
                "recurrences": 1 if cell.recipe.untied else cell.recurrences,
                "graph_recurrences": cell.recurrences,
                "width": cell.width,
                "budget_flops": cell.budget_flops,
                "n_once": cell.account.n_once,
                "n_rec": cell.account.n_rec,
                "n_inject": 0.0,
                "tokens": cell.tokens,
            }
            for cell in cells(spec.recipes, BUDGETS, spec.shape)
        ]
    )
    loss = simulated.losses(frame, 1.0, 0.0)
    loss = loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(frame)))
    return load_runs(frame.assign(loss=loss + offset * (frame["graph_recurrences"] == 1)))


def measured(runs):
    return law_free(build(runs.used, Conventions()))[0]


def test_looped_runs_have_their_twins_on_the_surface_of_their_own_graph():
    found = measured(runs_of((2, 4), offset=0.05))
    assert found.surface["graphs"] == [2.0, 4.0]
    assert found.surface["n_runs"] == 24
    for worth in found.m:
        assert worth.value == pytest.approx(worth.recurrences**simulated.PHI, rel=0.04)
    assert found.graphs.one_each
    assert found.graphs.reference == 1.0
    assert found.graphs.p_value < 0.01
    # what the plain r = 1 differs by, told: higher loss, so the graphs' offsets are negative
    for one in found.graphs.offsets.values():
        assert one["ci95"][1] < 0
    assert not any(w.code == "graphs_differ" for w in without_law(found, None, None, None))


def test_where_a_graph_has_no_untied_runs_all_unlooped_ones_give_one_surface():
    found = measured(runs_of((2,), offset=0.05))
    assert found.surface["graphs"] is None
    assert found.surface["n_runs"] == 24
    warned = without_law(found, None, None, None)
    assert [w.code for w in warned if w.code == "graphs_differ"]
    alike = measured(runs_of((2,), noise=3e-3))
    assert alike.graphs.p_value > 0.01
    assert not alike.graphs.one_each


def test_runs_of_one_graph_are_measured_as_before():
    found = measured(runs_of(()))
    assert found.graphs is None
    assert found.surface["graphs"] is None
    own = measured(runs_of((2, 4), plain=False))
    assert own.graphs.reference == 2.0
    assert list(own.graphs.offsets) == ["4"]


def test_the_test_of_graphs_keeps_its_level():
    told = [measured(runs_of((2, 4), noise=3e-3, seed=s)).graphs.p_value < 0.05 for s in range(20)]
    assert np.mean(told) <= 0.2


def test_fit_prints_both():
    found = fit(runs_of((2, 4), noise=1e-3), bootstrap=0)
    rows = dict(worth_rows(found)[-1].rows)
    assert "one of each graph's untied runs, r = 2, 4" in rows["surface of unlooped runs"]
    assert "none differs: p = " in rows["untied graphs less plain r = 1"]
    assert found.phi == pytest.approx(simulated.PHI, abs=0.15)

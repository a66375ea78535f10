"""Plans with untied recipes."""

import dataclasses
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from isodepth import InputError, fit
from isodepth.planning.grid import Recipe, optimal_width
from isodepth.sweep.plan import load_plan, make_plan
from isodepth.sweep.plan_report import plan_report
from isodepth.sweep.request import Request
from isodepth.sweep.spec import checked, read_spec

LANES = "laptop-lanes"


def with_recipe(**changes):
    spec = read_spec(LANES)
    own = dataclasses.replace(spec.recipes[3], **changes)
    return dataclasses.replace(spec, recipes=(*spec.recipes[:3], own))


def test_the_preset_pairs_every_looped_run_with_an_untied_one(tmp_path):
    plan = make_plan(read_spec(LANES), None)
    assert len(plan.runs) == 48
    keys = ("recipe", "width", "budget_flops")
    tied, own = (
        {
            (*(getattr(run, key) for key in keys), run.graph_recurrences or run.recurrences): run
            for run in plan.runs
            if (run.graph_recurrences is None) == looped
        }
        for looped in (True, False)
    )
    assert tied.keys() == own.keys()
    assert len(tied) == 24
    for key, run in own.items():
        other = tied[key]
        assert run.recurrences == 1
        assert (run.tokens, run.flops, run.n_once, run.n_inject) == (
            other.tokens, other.flops, other.n_once, other.n_inject,
        )  # fmt: skip
        assert run.n_rec == key[-1] * other.n_rec
        assert run.memory_bytes > other.memory_bytes
        config = run.config(data=Path("data"), out=Path("out"))
        assert config.untied and config.recurrences == key[-1] and config.recipe == run.recipe
    file = tmp_path / "plan.json"
    plan.save(file)
    assert load_plan(file) == plan
    console = Console(width=200, record=True, file=StringIO())
    console.print(plan_report(plan))
    assert "2 4 2 untied 4 untied" in console.export_text()


def test_a_plan_whose_run_contradicts_itself_is_refused(tmp_path):
    plan = make_plan(read_spec(LANES), None)
    run = next(run for run in plan.runs if run.graph_recurrences is not None)
    file = tmp_path / "plan.json"
    for changed in (
        dataclasses.replace(run, graph_recurrences=None),
        dataclasses.replace(run, recurrences=2),
        dataclasses.replace(run, graph_recurrences=8),
    ):
        dataclasses.replace(plan, runs=(changed,)).save(file)
        with pytest.raises(InputError, match="recurrences"):
            load_plan(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"of": None}, "needs of, the recipe whose graph"),
        ({"of": "hyperconnections-untied"}, "needs of, the recipe whose graph"),
        ({"of": "baseline-untied", "injection": "linear"}, "baseline-untied is untied itself"),
        ({"injection": "linear"}, "hyperconnections with lanes = 2, not linear with 2"),
        ({"lanes": 3}, "not hyperconnections with 3"),
        ({"recurrences": (1, 2)}, "recurrences of 2 or more"),
        ({"backprop": "half"}, "the control of a truncated recipe is the untied one"),
        ({"untied": False}, "goes with untied = true"),
    ],
)
def test_an_untied_recipe_that_makes_no_control_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        checked(with_recipe(**changes))


def test_adaptive_plans_and_other_trainers_that_cant_know_are_refused():
    spec = read_spec(LANES)
    with pytest.raises(InputError, match="an adaptive plan takes no untied"):
        checked(dataclasses.replace(spec, adaptive=True))
    command = "train {out} {width} {recurrences}"
    with pytest.raises(InputError, match="must name"):
        make_plan(dataclasses.replace(spec, command=command), None)
    command += " {graph_recurrences}"
    runs = make_plan(dataclasses.replace(spec, command=command), None).runs
    filled = {tuple(run.fill(command, out=Path("o"))[-2:]) for run in runs}
    assert filled == {("2", "2"), ("4", "4"), ("1", "2"), ("1", "4")}


def test_without_a_preset_two_published_recipes_come_untied():
    names = ("baseline", "baseline-untied", "hyperconnections-untied")
    spec = Request(recipes=names, budgets=(1e18,), recurrences=(1, 2, 4)).spec()
    assert [recipe.recurrences for recipe in spec.recipes] == [(1, 2, 4), (2, 4), (2, 4)]
    assert [recipe.in_table for recipe in spec.recipes] == [
        "baseline", "baseline", "hyperconnections",
    ]  # fmt: skip


def test_the_law_places_an_untied_arm_where_it_places_an_unlooped_one():
    law = fit("published", bootstrap=0)
    tied = Recipe(name="baseline", recurrences=(1, 4))
    own = Recipe(name="own", recurrences=(4,), untied=True, of="baseline")
    shape = Request(budgets=(1e18,)).spec().shape
    best = {
        name: optimal_width(law, recipe, r, 1e18, shape)
        for name, recipe, r in (("one", tied, 1), ("four", tied, 4), ("own", own, 4))
    }
    assert best["own"] == pytest.approx(best["one"], rel=0.03)
    assert best["four"] > 1.05 * best["own"]

"""Plans: the published one to the run, presets as data, every fault named."""

import json

import pandas as pd
import pytest

from isodepth import fit
from isodepth.errors import InputError
from isodepth.planning.grid import Budget
from isodepth.sweep.ledger import Ledger
from isodepth.sweep.plan import check_command, load_plan, make_plan
from isodepth.sweep.run import grow
from isodepth.sweep.spec import preset_names, read_spec, spec_of

SMALL = {
    "data": {"source": "stdlib", "tokenizer": "bytes"},
    "train": {
        "depth": 6, "prelude": 1, "coda": 1, "head_size": 8, "sequence_length": 64,
        "batch_tokens": 512,
    },
    "recipes": [{"name": "baseline", "recurrences": [1, 2, 4]}],
    "budgets": [{"flops": 1e11, "widths": [8, 16, 24]}],
}  # fmt: skip


def changed(**tables):
    return json.loads(json.dumps(SMALL)) | tables


def test_the_published_preset_is_the_published_grid():
    plan = make_plan(read_spec("published"), None)
    planned = pd.DataFrame([vars(run) for run in plan.runs])
    published = pd.read_csv("src/isodepth/datasets/published_runs.csv")
    keys = ["recipe", "recurrences", "width", "budget_flops"]
    both = planned.merge(published, on=keys, suffixes=("", "_published"))
    assert len(planned) == len(both) == len(published) == 241
    for column in ("flops_per_token", "n_once", "n_rec", "n_inject"):
        assert (both[column] == both[f"{column}_published"]).all()
    assert ((both["tokens"] / both["tokens_published"] - 1).abs() < 1e-3).all()


def test_the_laptops_cost_is_about_what_it_took():
    plan = make_plan(read_spec("laptop"), None)
    # docs/laptop-preset.md: 602 s on two cores, at most 0.5 GB a run
    assert plan.seconds == pytest.approx(2 * 602, rel=0.25)
    assert max(run.memory_bytes for run in plan.runs) == pytest.approx(0.49e9, rel=0.15)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_makes_a_plan(name, tmp_path):
    plan = make_plan(read_spec(name), None)
    for budget in {run.budget_flops for run in plan.runs}:
        flops = [run.flops for run in plan.runs if run.budget_flops == budget]
        assert max(flops) / min(flops) < 1.01
    plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan


def test_a_run_holds_its_whole_config(tmp_path):
    probe = {"name": "probe", "recurrences": [4], "backprop": "half"}
    plan = make_plan(spec_of(changed(recipes=[probe]), name="x", where="x"), None)
    config = plan.runs[0].config(data=tmp_path, out=tmp_path / "run")
    assert (config.depth, config.recurrences, config.backprop_last) == (6, 4, 2)
    assert config.steps(config.model(vocabulary=257).account()) == plan.runs[0].steps
    assert config.model(vocabulary=257).account().flops_per_token == plan.runs[0].flops_per_token


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(extra=1), "unknown key 'extra'"),
        (changed(train={"dept": 6}), "unknown key 'dept' in train"),
        (changed(train={"seed": 6}), "unknown key 'seed' in train"),
        (changed(recipes=[{"recurrences": [1]}]), "lacks 'name'"),
        (changed(recipes=[{"name": "a/b", "recurrences": [1]}]), "letters, digits"),
        (changed(recipes=[{"name": "a", "recurrences": [0]}]), "whole numbers from 1"),
        (
            changed(recipes=[{"name": "a", "recurrences": [1], "injection": "x"}]),
            "injection is 'x', not one of linear",
        ),
        (
            changed(recipes=[{"name": "a", "recurrences": [1], "backprop": "x"}]),
            "backprop is 'x', not one of all, half",
        ),
        (changed(recipes="baseline"), "recipes must be a list of tables, not text"),
        (changed(budgets=[{"flops": -1.0, "widths": [8]}]), "positive number of FLOPs"),
        (
            changed(budgets=[{"flops": 1e11, "widths": [8.5]}]),
            r"budgets\[0\].widths\[0\] must be a whole number",
        ),
        (changed(budgets=[]), "at least one budget"),
        (changed(recipes=[{"name": "a", "recurrences": 2}]), "recurrences must be a list, not 2"),
        (changed(budgets=[{"flops": 1e11, "widths": 32}]), "widths must be a list, not 32"),
        (changed(plan={"seeds": 10**30}), "plan.seeds holds a number that is too large"),
        (changed(plan={"seeds": 10**9}), "plan.seeds must be a whole number from 1 to 10000"),
        (changed(plan={"seeds": True}), "plan.seeds must be a whole number, not True"),
        (changed(plan={"rates": {"64": "fast"}}), "plan.rates.* must be a number, not text"),
        (changed(plan=3), "plan must be a table, not a number"),
        (changed(train={"depth": "deep"}), "train.depth must be a whole number, not 'deep'"),
        (changed(data=[1]), "data must be a table, not a list"),
        (changed(budgets=[{"flops": float("inf")}]), "inf, which is no finite number"),
        (changed(budgets=[{"flops": 10**400}]), "number out of range"),
        (changed(recipes=[{"name": "..", "recurrences": [1]}]), "letters, digits"),
        (changed(plan={"device": "abacus"}), "abacus"),
        (changed(data={"source": "stdlib", "tokenizer": "file.json"}), "vocabulary is missing"),
    ],
)
def test_a_preset_with_a_fault_is_refused_naming_it(content, message):
    with pytest.raises(InputError, match=message) as error:
        spec_of(content, name="mine", where="mine.toml")
    assert all(problem.startswith("mine.toml: ") for problem in error.value.problems)


def test_command_templates_are_split_before_they_are_filled():
    plan = make_plan(spec_of(SMALL, name="x", where="x"), None)
    run = plan.runs[0]
    filled = run.fill("train --name 'a {width}' --out {out}", out="/a b; rm -rf $HOME")
    assert filled == ["train", "--name", f"a {run.width}", "--out", "/a b; rm -rf $HOME"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train {out} {depth}", "unknown placeholder 'depth'"),
        ("train {out} {}", "unknown placeholder"),
        ("train {width}", "must name {out}"),
        ("train '{out}", "can't be read"),
        ("", "it is empty"),
    ],
)
def test_a_command_that_cant_be_filled_is_refused(command, message):
    with pytest.raises(InputError, match=message):
        check_command(command)


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    file = tmp_path / "plan.json"
    for text in ("", "{", "[]", '{"format": 1}', '{"format": 9}'):
        file.write_text(text)
        with pytest.raises(InputError):
            load_plan(file)


@pytest.fixture(scope="module")
def law():
    return fit("published", bootstrap=0, sensitivity=False)


def adaptive(law, widths=None):
    """An adaptive plan at the published scale."""
    content = {
        "plan": {"vocabulary": 32001, "adaptive": True},
        "recipes": [{"name": "baseline", "recurrences": [1, 4]}],
        "budgets": [{"flops": 1e19} | ({"widths": widths} if widths else {}), {"flops": 1e20}],
    }
    return make_plan(spec_of(content, name="a", where="a"), law)


def finish(ledger, law, *, shift):
    """Record losses of the law with every optimal width multiplied by `shift`."""
    for entry in ledger.entries():
        if entry.state != "planned":
            continue
        run = entry.run
        scale = shift**-2  # the law sees models that are smaller or larger than they are
        loss = law.predict(
            n_once=run.n_once * scale,
            n_rec=run.n_rec * scale,
            n_inject=run.n_inject * scale,
            recurrences=run.recurrences,
            tokens=run.tokens / scale,
        )[0]
        entry.folder.mkdir(parents=True)
        row = {
            name: getattr(run, name)
            for name in (
                "run_id", "recipe", "recurrences", "n_once", "n_rec", "n_inject", "tokens",
                "flops_per_token", "flops", "budget_flops", "width", "seed",
            )
        }  # fmt: skip
        record = {"run": row | {"loss": float(loss), "status": "done"}}
        (entry.folder / "record.json").write_text(json.dumps(record))
        ledger.change(entry, state="done")


def test_an_adaptive_plan_begins_with_its_lowest_budget(law):
    plan = adaptive(law)
    assert {run.budget_flops for run in plan.runs} == {1e19}
    assert plan.waiting == (Budget(flops=1e20),)


@pytest.mark.parametrize("shift", [1.0, 0.7])
def test_an_adaptive_plan_follows_what_the_first_budget_showed(law, tmp_path, shift):
    ledger = Ledger.open(tmp_path, adaptive(law))
    finish(ledger, law, shift=shift)
    grown = grow(ledger, law, may_widen=False)
    assert not grown.waiting
    assert [run for run in grown.runs if run.budget_flops == 1e19] == list(ledger.plan.runs)
    plain = make_plan(
        spec_of(
            {
                "plan": {"vocabulary": 32001},
                "recipes": [{"name": "baseline", "recurrences": [1, 4]}],
                "budgets": [{"flops": 1e20}],
            },
            name="a",
            where="a",
        ),
        law,
    )
    expected = pd.Series([run.width for run in plain.runs]).median() * shift
    found = pd.Series([run.width for run in grown.runs if run.budget_flops == 1e20]).median()
    assert found == pytest.approx(expected, rel=0.15)


def test_an_adaptive_plan_widens_a_first_budget_without_a_minimum(law, tmp_path):
    ledger = Ledger.open(tmp_path, adaptive(law, widths=[1792, 1920, 2048]))
    finish(ledger, law, shift=1.0)
    grown = grow(ledger, law, may_widen=True)
    assert grown.waiting
    assert min(run.width for run in grown.runs) < 1792
    finish_again = Ledger.open(tmp_path / "again", grown)
    assert len(finish_again.plan.runs) > len(ledger.plan.runs)

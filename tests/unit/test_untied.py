"""Untied runs: the graph of a looped model, every pass with weights of its own."""

import numpy as np
import pandas as pd
import pytest

from isodepth import InputError, account, load_runs
from isodepth.minima import isoflop
from isodepth.runs.contradictions import contradictions
from isodepth.runs.groups import graph_of, untied
from isodepth.runs.importing import import_runs
from isodepth.runs.writing import write_runs

SHAPE = {"depth": 10, "prelude": 1, "coda": 1, "vocab": 320, "sequence_length": 64}


def row(width, r, *, tied=True, injection="linear", recipe="baseline", loss=3.0, flops=1e12):
    counted = account(width=width, recurrences=r, injection=injection, untied=not tied, **SHAPE)
    return {
        "recipe": recipe,
        "recurrences": r if tied else 1,
        "graph_recurrences": None if tied else r,
        "width": width,
        "n_once": counted.n_once,
        "n_rec": counted.n_rec,
        "n_inject": counted.n_inject,
        "flops_per_token": counted.flops_per_token,
        "tokens": flops / counted.flops_per_token,
        "budget_flops": flops,
        "loss": loss,
    }


def table(*rows):
    losses = 3.0 + 0.01 * np.arange(len(rows)) + 1e-9 * np.arange(len(rows)) ** 2
    return pd.DataFrame([one | {"loss": loss} for one, loss in zip(rows, losses, strict=True)])


@pytest.mark.parametrize("injection", ["linear", "additive", "passthrough", "hyperconnections"])
@pytest.mark.parametrize("r", [2, 4, 8])
def test_untied_costs_what_the_looped_graph_costs_and_holds_its_block_r_times(injection, r):
    tied = account(width=64, recurrences=r, injection=injection, **SHAPE)
    own = account(width=64, recurrences=r, injection=injection, untied=True, **SHAPE)
    assert own.flops_per_token == tied.flops_per_token
    assert own.n_rec == r * tied.n_rec == 8 * (12 * 64**2 + 2 * 64)
    assert (own.n_once, own.n_inject) == (tied.n_once, tied.n_inject)
    assert own.n_total == own.n_once + own.n_rec + own.n_inject


def test_a_graph_that_cant_be_untied_is_refused_with_its_reason():
    with pytest.raises(InputError, match="recurrences = 1 has one pass"):
        account(width=64, recurrences=1, untied=True, **SHAPE)
    with pytest.raises(InputError, match="without gradient; the control of a truncated recipe"):
        account(width=64, recurrences=4, backprop_last=2, untied=True, **SHAPE)


def test_a_table_with_untied_runs_is_read_written_and_read_again(tmp_path):
    frame = table(row(32, 1), row(32, 4), row(32, 4, tied=False), row(32, 2, tied=False))
    runs = load_runs(frame)
    assert graph_of(runs.frame).tolist() == [1, 4, 4, 2]
    assert untied(runs.frame).tolist() == [False, False, True, True]
    assert not any("hold an injection" in note for note in runs.notes)
    assert not runs.doubts(runs.frame)
    for ending in ("csv", "parquet", "jsonl"):
        file = tmp_path / f"runs.{ending}"
        write_runs(runs, file)
        again = load_runs(file).frame
        assert graph_of(again).tolist() == [1, 4, 4, 2]


def test_a_table_without_the_column_has_no_untied_runs():
    runs = load_runs("published")
    assert "graph_recurrences" not in runs.frame
    assert not untied(runs.frame).any()


def test_a_looped_run_has_the_recurrences_of_its_graph():
    frame = table(row(32, 1), row(32, 2) | {"graph_recurrences": 4})
    with pytest.raises(InputError, match=r"row 2.*graph_recurrences: 4 at recurrences = 2"):
        load_runs(frame)


def test_rows_of_two_graphs_are_no_repeats_and_no_replicates():
    from isodepth.fitting.problem import replicate_sets

    same = [row(32, r, tied=False, injection="additive") for r in (2, 4, 4)]
    runs = load_runs(pd.DataFrame([one | {"loss": 3.0123456789} for one in same]))
    assert runs.frame["status"].tolist() == ["done", "done", "duplicate"]
    frame = load_runs(table(*same)).frame
    assert [rows.tolist() for rows in replicate_sets(frame)] == [[1, 2]]


def test_plain_and_untied_unlooped_runs_of_a_recipe_stand_together():
    load_runs(table(row(32, 1), row(32, 2), row(32, 2, tied=False)))


def test_an_untied_run_that_counts_one_pass_contradicts_its_depth():
    rows = [row(w, r, tied=t) for w in (32, 64) for r, t in ((1, True), (4, True), (4, False))]
    frame = table(*rows)
    assert not contradictions(load_runs(frame).frame)
    frame.loc[frame["graph_recurrences"].notna(), "n_rec"] /= 4
    codes = [c.warned.code for c in contradictions(load_runs(frame).frame)]
    assert codes == ["counts_contradict_flops"]
    frame = frame.drop(columns=["flops_per_token", "budget_flops"])
    codes = [c.warned.code for c in contradictions(load_runs(frame).frame)]
    assert codes == ["unequal_depth"]


def test_isoflop_curves_of_two_graphs_are_two():
    rows = [row(w, r, tied=False) for r in (2, 4) for w in (16, 32, 64)]
    groups = isoflop(load_runs(table(*rows))).groups
    assert [group.arm for group in groups] == ["r = 2 untied", "r = 4 untied"]
    assert [group.recurrences for group in groups] == [1, 1]


def test_imported_untied_runs_are_counted_as_such(tmp_path):
    file = tmp_path / "theirs.csv"
    file.write_text(
        "id,r,loops,width,tokens,loss\na,1,4,32,1e7,3.1\nb,4,4,32,1e7,3.2\nc,1,,32,1e7,3.0\n"
    )
    columns = {"run_id": "id", "recurrences": "r", "graph_recurrences": "loops"}
    shape = {name: str(value) for name, value in SHAPE.items()} | {"injection": "linear"}
    frame = import_runs(str(file), columns=columns, shape=shape).runs.frame
    expected = [row(32, 4, tied=False), row(32, 4), row(32, 1)]
    for name in ("n_once", "n_rec", "n_inject", "flops_per_token"):
        assert frame[name].tolist() == [one[name] for one in expected]


def test_a_table_whose_budgets_are_all_empty_is_grouped_by_its_flops():
    frame = table(row(32, 1), row(32, 2), row(64, 2)).assign(budget_flops=None)
    assert load_runs(frame).frame["budget_flops"].nunique() == 1
    frame = frame.drop(columns="flops_per_token")
    assert load_runs(frame).frame["budget_flops"].isna().all()

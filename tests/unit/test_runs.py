"""Loading: every format the same, every fault named with its place, nothing dropped."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from isodepth import InputError, load_runs

HEADER = "run_id,recipe,recurrences,n_once,n_rec,n_inject,tokens,loss,flops_per_token,flops"
GOOD = [
    "a,baseline,1,2e6,8e6,0,1e8,3.5,1e8,1e16",
    "b,baseline,2,2e6,4e6,1e5,1e8,3.6,1e8,1e16",
    "c,baseline,4,2e6,2e6,1e5,2e8,3.4,1e8,2e16",
]


def write(tmp_path, *rows, header=HEADER, name="runs.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def problems(source):
    with pytest.raises(InputError) as caught:
        load_runs(source)
    return caught.value.problems


def test_formats_agree(tmp_path):
    path = write(tmp_path, *GOOD)
    frame = pd.read_csv(path)
    frame.to_parquet(tmp_path / "runs.parquet")
    frame.to_json(tmp_path / "runs.jsonl", orient="records", lines=True)
    expected = load_runs(path).frame
    for source in (tmp_path / "runs.parquet", tmp_path / "runs.jsonl", frame):
        pd.testing.assert_frame_equal(load_runs(source).frame, expected, check_dtype=False)


def test_published_grid():
    runs = load_runs("published")
    assert len(runs) == 241
    counts = runs.frame.groupby(["recipe", "recurrences"]).size()
    assert counts["baseline"].tolist() == [29, 29, 29, 29]
    assert counts["truncated_bptt"].sum() == 62
    assert counts["hyperconnections"].sum() == 63


def test_defaults_and_own_columns_are_kept(tmp_path):
    path = write(
        tmp_path, "1,1e6,0,1e8,3.5,x", header="recurrences,n_once,n_rec,tokens,loss,cluster"
    )
    frame = load_runs(path).frame
    assert frame["recipe"].tolist() == ["baseline"]
    assert frame["n_inject"].tolist() == [0.0]
    assert frame["cluster"].tolist() == ["x"]
    assert frame["run_id"].is_unique


def test_every_fault_is_reported_at_once(tmp_path):
    path = write(
        tmp_path,
        "a,baseline,1,abc,8e6,0,1e8,3.5,1e8,1e16",
        "b,baseline,2,2e6,-4e6,1e5,0,3.6,1e8,1e16",
        "c,baseline,2.5,2e6,2e6,1e5,nan,,1e8,2e16",
    )
    found = problems(path)
    expected = [
        ("row 1 (line 2)", "n_once", "'abc' is not a number"),
        ("row 2 (line 3)", "n_rec", "'-4e6' must not be negative"),
        ("row 2 (line 3)", "tokens", "'0' must be greater than 0"),
        ("row 3 (line 4)", "recurrences", "must be a whole number"),
        ("row 3 (line 4)", "tokens", "is not a finite number"),
        ("row 3 (line 4)", "loss", "the cell is empty"),
    ]
    assert len(found) == len(expected)
    for place, column, words in expected:
        assert any(place in f and f"column {column}" in f and words in f for f in found), found
        assert all(str(path) in f for f in found)


@pytest.mark.parametrize(
    ("header", "suggestion"),
    [
        ("recurrence,n_once,n_rec,tokens,loss", "'recurrences' is missing; did you mean"),
        ("recurrences,n_once,n_rec,token,loss", "'tokens' is missing; did you mean column 'token'"),
        ("recurrences,n_once,n_rec,D,loss", "'tokens' is missing; did you mean column 'D'"),
        ("recurrences,n_once,n_rec,tokens,val/loss", "did you mean column 'val/loss'"),
        ("recurrences,N_once,n_rec,tokens,loss", "did you mean column 'N_once'"),
    ],
)
def test_misspelt_columns_get_a_suggestion(tmp_path, header, suggestion):
    (only,) = problems(write(tmp_path, "1,1e6,0,1e8,3.5", header=header))
    assert suggestion in only


def test_misspelt_optional_column_is_noted(tmp_path):
    path = write(
        tmp_path, "1,1e6,0,1e8,3.5,1e16", header="recurrences,n_once,n_rec,tokens,loss,budget_flop"
    )
    assert "did you mean 'budget_flops'" in load_runs(path).notes[0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("d,baseline,4,2e6,2e6,1e5,0.2,3.4,,", "looks like billions or millions"),
        ("d,baseline,4,2e9,2e9,1e5,20000,3.4,,", "looks like billions or millions"),
        ("a,baseline,4,2e6,2e6,1e5,2e8,3.4,,", "'a' stands in row 1 (line 2) already"),
        (",baseline,4,2e6,2e6,1e5,2e8,3.4,,", "column run_id: the cell is empty"),
        ("d,baseline,1,2e6,8e6,1e5,2e8,3.4,,", "at recurrences = 1, but row 1 (line 2)"),
        ("d,baseline,4,2e6,2e6,1e5,2e8,3.4,1e8,2.1e16", "contradicts flops_per_token × tokens"),
        ("d,baseline,4,2e6,0,1e5,2e8,3.4,,", "a looped run has parameters in its loop"),
        ("d,baseline,1,0,0,0,2e8,3.4,,", "no model"),
        ("d,baseline,4,2e6,2e6,1e5,1_000_000,3.4,,", "is not a number"),
        ("d,baseline,4,2e6,2e6,1e5,2e8,-3.4,,", "must be greater than 0"),
        ("d,baseline,4,2e6,2e6,1e5,2e8,3.4", "8 cells where the header has 10 columns"),
    ],
)
def test_contradictions(tmp_path, row, words):
    found = problems(write(tmp_path, *GOOD, row))
    assert any(words in f and "row 4 (line 5)" in f for f in found), found


def test_flops_within_two_percent_pass(tmp_path):
    row = "d,baseline,4,2e6,2e6,1e5,2e8,3.4,1e8,2.03e16"
    load_runs(write(tmp_path, *GOOD, row))


def test_diverged_runs_are_kept_and_counted(tmp_path):
    rows = [*GOOD, "d,baseline,4,2e6,2e6,1e5,2e8,nan,,", "e,baseline,4,2e6,2e6,1e5,2e8,inf,,"]
    runs = load_runs(write(tmp_path, *rows))
    assert len(runs) == 5
    assert runs.frame["status"].tolist() == ["done"] * 3 + ["diverged"] * 2
    assert len(runs.used) == 3
    assert any("2 of 5 runs are kept but not fitted: 2 diverged" in n for n in runs.notes)


def test_unfinished_runs_may_have_no_loss(tmp_path):
    header = HEADER + ",status"
    rows = [f"{row},done" for row in GOOD] + ["d,baseline,4,2e6,2e6,1e5,2e8,,,,failed"]
    runs = load_runs(write(tmp_path, *rows, header=header))
    assert runs.frame["status"].tolist()[-1] == "failed"
    (only,) = problems(write(tmp_path, GOOD[0] + ",finished", header=header))
    assert "column status: 'finished' is not one of" in only


def test_json_lines_name_the_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    good = {"recurrences": 1, "n_once": 1e6, "n_rec": 0, "tokens": 1e8, "loss": 3.5}
    path.write_text(json.dumps(good) + "\n\n{broken\n[1]\n", encoding="utf-8")
    found = problems(path)
    assert "row 2 (line 3): not valid JSON" in found[0]
    assert "row 3 (line 4): not a JSON object" in found[1]
    path.write_text(json.dumps(good | {"loss": True}) + "\n", encoding="utf-8")
    assert "True is not a number" in problems(path)[0]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("runs.csv", b"", "is empty"),
        ("runs.csv", b"recurrences,n_once,n_rec,tokens,loss\n", "has no rows"),
        ("runs.csv", b"a,b\n\xff\xfe,1\n", "line 2: the text is not UTF-8"),
        ("runs.csv", b'a,b\n"x,1\n', "not valid CSV"),
        ("runs.csv", b"loss,loss\n1,2\n", "'loss' stands in the header more than once"),
        ("runs.parquet", b"PAR1", "not a readable Parquet file"),
        ("runs.xlsx", b"", "not a readable Excel file"),
        ("runs.ods", b"", "unknown kind of file '.ods'"),
        ("runs.csv.gz", b"x", "is not a whole gzip file"),
        ("runs.json", b"{}", "holds no list of objects"),
    ],
)
def test_unreadable_files(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    (only,) = problems(path)
    assert words in only
    assert str(path) in only


def test_missing_file_and_folder(tmp_path):
    assert "no such file" in problems(tmp_path / "none.csv")[0]
    assert "is a folder without a record.json" in problems(tmp_path)[0]


def test_a_folder_of_run_records_is_a_table(tmp_path):
    for i, line in enumerate(GOOD):
        values = dict(zip(HEADER.split(","), line.split(","), strict=True))
        run = {k: v if k in ("run_id", "recipe") else float(v) for k, v in values.items()}
        if i == 2:
            run |= {"loss": None, "status": "diverged"}
        (tmp_path / f"run{i}").mkdir()
        (tmp_path / f"run{i}" / "record.json").write_text(json.dumps({"format": 1, "run": run}))
    runs = load_runs(tmp_path)
    assert runs.frame["run_id"].tolist() == ["a", "b", "c"]
    assert runs.frame["status"].tolist() == ["done", "done", "diverged"]
    assert len(load_runs(tmp_path / "run0")) == 1
    (tmp_path / "run1" / "record.json").write_text("{torn")
    assert "row 2 (run1/record.json)" in problems(tmp_path)[0]


def test_recipes_are_chosen_or_asked_for():
    published = load_runs("published")
    assert published.choose(None) == "baseline"
    with pytest.raises(InputError, match="it holds baseline, truncated_bptt, hyperconnections"):
        published.choose("magic")
    probes = published.frame[published.frame["recipe"] != "baseline"]
    with pytest.raises(InputError, match="name one with --recipe: truncated_bptt, hyperconn"):
        load_runs(probes).choose(None)


def test_a_probe_borrows_unlooped_runs_of_its_own_budgets():
    rows, source = load_runs("published").of_recipe("truncated_bptt")
    assert source == "baseline"
    unlooped = rows[rows["recurrences"] == 1]
    looped = rows[rows["recurrences"] > 1]
    assert set(unlooped["budget_flops"]) == set(looped["budget_flops"])
    assert len(looped) == 62
    assert len(unlooped) == 20


def test_frames_with_read_only_columns_load():
    frame = load_runs("published").frame.copy()
    array = frame["loss"].to_numpy(copy=True)
    array.setflags(write=False)
    frame["loss"] = array
    assert np.isfinite(load_runs(frame).frame["loss"]).all()
    assert not math.isnan(load_runs(frame).used["loss"].sum())

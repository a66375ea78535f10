"""Other trainers' runs: the map is followed to the digit, what didn't finish never counts."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isodepth import InputError, account, load_runs
from isodepth.runs.counted import COUNTS
from isodepth.runs.importing import import_runs
from isodepth.runs.writing import ENDINGS, write_runs

WANDB = """\
"Name","State","Created","_step","batch.tokens","model.width","r","val/loss","loss","lr"
"a","finished","2026-11-01","1000","100000","1280","1","2.9","2.8","0.1"
"b","finished","2026-11-01","1000","100000","1280","2","2.95","2.8","0.2"
"c","crashed","2026-11-01","200","100000","1280","4","4.1","2.8","0.1"
"d","running","2026-11-01","","100000","1280","8","","","0.1"
"e","finished","2026-11-01","1000","100000","1280","4","NaN","2.8","0.1"
"f","finished","2026-11-01","1000","100000","1280","8","Infinity","2.8","0.1"
"g","failed","2026-11-01","","100000","1280","4","","","0.1"
"h","killed","2026-11-01","10","100000","1280","4","8.1","","0.1"
"i","pending","2026-11-01","","100000","1280","4","","","0.1"
"""
MAP = {"loss": "val/loss", "recurrences": "r", "tokens": "_step*batch.tokens"}
SIZES = {"n_once": "1e6", "n_rec": "2e6"}
SHAPE = {
    "depth": "20",
    "prelude": "2",
    "coda": "2",
    "injection": "linear",
    "vocab": "32064",
    "sequence_length": "2048",
}


@pytest.fixture
def wandb(tmp_path):
    file = tmp_path / "wandb.csv"
    file.write_text(WANDB, encoding="utf-8")
    return file


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        import_runs(*arguments, **options)
    return caught.value.problems


def test_a_wandb_export_becomes_a_run_table(wandb):
    found = import_runs(wandb, columns=MAP, constants=SIZES | {"recipe": "mine"})
    frame = found.runs.frame
    assert frame["run_id"].tolist() == list("abcdefghi")
    assert frame["status"].tolist() == [
        "done", "done", "interrupted", "running", "diverged", "diverged", "failed", "interrupted",
        "planned",
    ]  # fmt: skip
    assert found.runs.used["run_id"].tolist() == ["a", "b"]
    assert found.runs.used["loss"].tolist() == [2.9, 2.95]
    assert found.runs.used["tokens"].tolist() == [1e8, 1e8]
    assert set(frame["recipe"]) == {"mine"}
    assert any("7 of 9 runs are kept but not fitted" in note for note in found.runs.notes)
    assert found.columns["status"] == "State" and found.columns["loss"] == "val/loss"
    # what was not asked for stays, also the column whose name went to another
    assert found.others == (
        "Created", "_step", "batch.tokens", "model.width", "source.loss", "lr",
    )  # fmt: skip
    assert frame["source.loss"].tolist()[:2] == ["2.8", "2.8"]


def test_nested_json_lines_are_mapped_by_dots(tmp_path):
    file = tmp_path / "runs.jsonl"
    rows = [
        {"name": n, "config": {"loop": {"r": r}}, "summary": {"val/loss": 4 - r / 10, "tok": 1e8}}
        for n, r in (("a", 1), ("b", 2))
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    columns = {
        "run_id": "name",
        "recurrences": "config.loop.r",
        "loss": "summary.val/loss",
        "tokens": "summary.tok",
    }
    frame = import_runs(file, columns=columns, constants=SIZES).runs.frame
    assert frame["loss"].tolist() == [3.9, 3.8] and frame["run_id"].tolist() == ["a", "b"]


def test_sizes_are_counted_only_where_asked_for(wandb):
    (only,) = refused(wandb, columns=MAP)
    assert "nothing gives n_once, n_rec" in only and "--account" in only
    columns = MAP | {"width": "model.width"}
    frame = import_runs(wandb, columns=columns, shape=SHAPE).runs.frame
    for row in frame.itertuples():
        expected = account(width=1280, recurrences=int(row.recurrences))
        for name in ("n_once", "n_rec", "n_inject", "flops_per_token"):
            assert getattr(row, name) == getattr(expected, name)


def test_a_shape_may_come_from_columns(tmp_path):
    file = tmp_path / "runs.csv"
    file.write_text(
        "recurrences,width,inject,lanes,k,tokens,loss\n"
        "1,128,linear,,,1e8,3.5\n2,128,hyperconnections,2,1,1e8,3.5\n4,128,additive,,,1e8,3.5\n"
    )
    shape = SHAPE | {"injection": "inject", "lanes": "lanes", "backprop_last": "k"}
    frame = import_runs(file, columns={}, shape=shape).runs.frame
    lanes = account(
        width=128, recurrences=2, injection="hyperconnections", lanes=2, backprop_last=1
    )
    plain = account(width=128, recurrences=4, injection="additive")
    assert frame["n_inject"].tolist() == [0, 16, 0]
    assert frame["flops_per_token"].tolist()[1:] == [lanes.flops_per_token, plain.flops_per_token]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab": None}, "--account needs vocab too"),
        ({"heads": "3"}, "--account has no 'heads'"),
        ({"depth": "21"}, "row 1 (line 2), --account: recurrences = 2 does not divide"),
        ({"injection": "magic"}, "injection 'magic' is not one of linear"),
        ({"injection": "hyperconnections"}, "needs lanes"),
        ({"depth": "x"}, "depth 'x' is not a whole number"),
    ],
)
def test_a_shape_that_cannot_be_counted(tmp_path, changes, words):
    file = tmp_path / "runs.csv"
    file.write_text("recurrences,width,tokens,loss\n2,128,1e8,3.5\n")
    shape = {k: v for k, v in (SHAPE | changes).items() if v is not None}
    assert words in refused(file, columns={}, shape=shape)[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": MAP | {"loss": "val_loss"}}, "has no column 'val_loss'; did you mean 'val/"),
        ({"columns": MAP | {"loss": "config.lr"}}, "has no column 'config.lr'; did you mean 'lr'?"),
        ({"columns": MAP | {"loss": "loss*xyzzy"}}, "no column 'xyzzy'; its columns: Name, State"),
        ({"columns": MAP | {"seed": "2*3"}}, "names no column; a constant is given by --set"),
        ({"columns": MAP | {"n_once": "r"}}, "column 'n_once' has both a map and a constant"),
        ({"columns": MAP, "at": ("step", "last")}, "--at is for logs and histories"),
        (
            {"columns": MAP | {"recurrences": "Created"}},
            "row 1 (line 2), column recurrences (Created): '2026-11-01' is not a number",
        ),
        (
            {"columns": MAP | {"tokens": "_step*Created"}},
            "row 1 (line 2), column Created: '2026-11-01' is not a number",
        ),
        ({"columns": MAP | {"run_id": "lr"}}, "column run_id (lr): '0.1' stands in row 1 (line 2)"),
        ({"columns": MAP | {"status": "Created"}}, "column status (Created): '2026-11-01' is not"),
        ({"columns": MAP, "finished": ("_step", "steps")}, "no column 'steps'"),
    ],
)
def test_a_bad_map_is_named(wandb, options, words):
    found = refused(wandb, **({"constants": SIZES} | options))
    assert words in found[0]


def test_a_finished_run_without_a_loss_is_an_error_and_not_a_gap(wandb):
    wandb.write_text(WANDB.replace('"2.95"', '""'), encoding="utf-8")
    (only,) = refused(wandb, columns=MAP, constants=SIZES)
    assert "row 2 (line 3), column loss (val/loss): the cell is empty" in only


def test_runs_short_of_their_target_are_interrupted(wandb):
    wandb.write_text(WANDB.replace('"b","finished","2026-11-01","1000"', '"b","finished","","999"'))
    runs = import_runs(wandb, columns=MAP, constants=SIZES, finished=("_step", "1000")).runs
    assert runs.frame["status"].tolist()[:2] == ["done", "interrupted"]
    assert runs.notes[1].endswith("so interrupted: 1 (row 2 (line 3): 999 of 1000)")
    wandb.write_text(WANDB.replace('"b","finished","2026-11-01","1000"', '"b","finished","",""'))
    (only,) = refused(
        wandb, columns=MAP | {"tokens": "batch.tokens"}, constants=SIZES, finished=("_step", "1000")
    )
    assert "row 2 (line 3): _step is empty or not a number" in only


def log(step, **cells):
    return json.dumps({"step": step, **cells})


def write_run(folder, r, steps, *, stop=None, every=5):
    """A trainer's log: a row a step, another for each validation, settings beside it."""
    folder.mkdir(parents=True)
    settings = {"r": r, "steps": steps, "model": {"once": 1e6, "rec": 2e6 / r}}
    (folder / "config.json").write_text(json.dumps(settings))
    lines = []
    for step in range(1, (stop or steps) + 1):
        lines.append(log(step, train={"loss": 5 - step / 10}, tokens=step * 1e6))
        if step % every == 0:
            lines.append(log(step, val=5 - step / 20))
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")


LOG_MAP = {
    "loss": "val",
    "recurrences": "config.r",
    "n_once": "config.model.once",
    "n_rec": "config.model.rec",
    "tokens": "step*1e6",
}


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    write_run(folder / "r1", 1, 20)
    write_run(folder / "deep" / "r2", 2, 40)
    return folder


def test_a_folder_of_logs_gives_the_last_row_with_a_loss(logs):
    found = import_runs(logs, columns=LOG_MAP)
    frame = found.runs.frame.set_index("run_id")
    assert frame.loc["r1", "loss"] == 4.0 and frame.loc["r1", "tokens"] == 20e6
    assert frame.loc["deep/r2", "loss"] == 3.0 and frame.loc["deep/r2", "tokens"] == 40e6
    assert frame["n_rec"].to_dict() == {"r1": 2e6, "deep/r2": 1e6}
    assert any("nothing says which of these runs finished" in n for n in found.runs.notes)


def test_rows_of_one_step_are_joined_where_asked_for(logs):
    columns = {**LOG_MAP, "tokens": "tokens", "train_loss": "train.loss"}
    problems = refused(logs, columns=columns)
    assert "run r1, log.jsonl row 24 (line 24), column tokens: the cell is empty" in problems[1]
    assert "--at STEP=last" in problems[-1]
    frame = import_runs(logs, columns=columns, at=("step", "last")).runs.frame
    assert frame["tokens"].tolist() == [40e6, 20e6]
    frame = import_runs(logs, columns=columns, at=("step", "10")).runs.frame
    assert frame["tokens"].tolist() == [10e6, 10e6] and frame["loss"].tolist() == [4.5, 4.5]
    assert frame["train_loss"].tolist() == [4.0, 4.0]
    assert "no log has the column 'epoch'" in refused(logs, columns=columns, at=("epoch", "1"))[0]
    assert "give a number, or 'last'" in refused(logs, columns=columns, at=("step", "end"))[0]


def test_runs_that_stopped_are_kept_and_not_fitted(logs):
    write_run(logs / "killed", 4, 20, stop=12)
    with (logs / "killed" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 13, "tr')
    write_run(logs / "never", 8, 20, stop=3)
    write_run(logs / "empty", 8, 20)
    (logs / "empty" / "log.jsonl").write_text("")
    (logs / "README").write_text("not a run")
    runs = import_runs(logs, columns=LOG_MAP, finished=("step", "config.steps")).runs
    status = runs.frame.set_index("run_id")["status"].to_dict()
    assert status == {
        "r1": "done",
        "deep/r2": "done",
        "killed": "interrupted",
        "never": "interrupted",
        "empty": "interrupted",
    }
    notes = "\n".join(runs.notes)
    assert "killed/log.jsonl: the last line is cut off" in notes
    assert "not read: README" in notes
    assert "1 of 5 logs go on after the row that was read" in notes
    assert "run killed, log.jsonl row 12 (line 12): 10 of 20" in notes
    assert "3 of 5 runs are kept but not fitted: 3 interrupted" in notes


def test_a_log_that_ends_in_nan_is_a_diverged_run(logs):
    with (logs / "r1" / "log.jsonl").open("a") as stream:
        stream.write(log(21, val=float("nan")) + "\n")
    frame = import_runs(logs, columns=LOG_MAP).runs.frame.set_index("run_id")
    assert frame.loc["r1", "status"] == "diverged"


def test_single_csv_logs_with_settings_of_the_same_name(tmp_path):
    for r in (1, 2):
        rows = "".join(f"{s},{s}e6,{4 - s / 10 if s % 2 == 0 else ''}\n" for s in range(1, 8))
        (tmp_path / f"r{r}.csv").write_text("step,tokens,val_loss\n" + rows)
        (tmp_path / f"r{r}.toml").write_text(f"r = {r}\n[size]\nonce = 1e6\nrec = 2e6\n")
    columns = {
        "loss": "val_loss",
        "recurrences": "config.r",
        "n_once": "config.size.once",
        "n_rec": "config.size.rec",
    }
    found = import_runs(tmp_path, columns=columns)
    frame = found.runs.frame
    assert frame["run_id"].tolist() == ["r1", "r2"]
    assert frame["loss"].tolist() == [3.4, 3.4] and frame["tokens"].tolist() == [6e6, 6e6]
    assert any("2 of 2 logs go on" in note for note in found.runs.notes)
    with (tmp_path / "r1.csv").open("a") as stream:
        stream.write("8,8e6")  # killed while writing
    notes = import_runs(tmp_path, columns=columns).runs.notes
    assert any("r1.csv: the last line is cut off" in note for note in notes)


def test_several_logs_of_one_run_are_told_apart(tmp_path):
    run = tmp_path / "logs" / "a"
    run.mkdir(parents=True)
    (run / "train.csv").write_text("step,loss,tokens\n1,5,1e6\n2,4,2e6\n3,3,3e6\n")
    (run / "val.jsonl").write_text(log(2, loss=4.25) + "\n")
    found = import_runs(
        tmp_path / "logs",
        columns={"loss": "val.loss", "tokens": "train.tokens"},
        constants={"recurrences": "1", **SIZES},
        at=("step", "last"),
    )
    row = found.runs.frame.iloc[0]
    assert (row["loss"], row["tokens"], row["train.loss"]) == (4.25, 2e6, "4")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r1/log.jsonl", "{broken\n{}\n", "logs, r1/log.jsonl, row 1 (line 1): not valid JSON"),
        ("r1/config.json", "{", "logs, r1/config.json: not valid JSON"),
        ("r1/config.json", "[1]", "r1/config.json: not an object of settings"),
        ("r1/more.toml", "a = ", "logs, r1/more.toml: not valid TOML"),
        ("r1/config.json", '{"r": "x"}', "run r1, log.jsonl row 24 (line 24), column recurrences"),
        ("stray.csv", "a\n1\n", "holds both logs (stray.csv) and folders of runs (deep/r2)"),
    ],
)
def test_files_that_cannot_be_used_are_named(logs, name, text, words):
    (logs / name).write_text(text)
    assert words in "\n".join(refused(logs, columns=LOG_MAP))


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["step", "val", ""]), st.integers(), max_size=2),
)
JUNK = st.dictionaries(st.sampled_from(["step", "val", "tokens", "status", "loss", "x"]), CELLS)
STEP = st.fixed_dictionaries(
    {"step": st.integers(1, 3), "val": st.floats(0.1, 9)}, optional={"x": CELLS, "status": CELLS}
)
LINES = st.lists(st.one_of(STEP, STEP, JUNK), max_size=4)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lines=LINES,
    tail=st.one_of(st.just(b""), st.just(b'{"step": 3'), st.binary(max_size=8)),
    config=st.one_of(st.just({"r": 1, "steps": 2}), st.just({"r": 2, "steps": 3}), CELLS),
    at=st.sampled_from([None, ("step", "last"), ("step", "2")]),
)
def test_whatever_a_log_holds_it_is_a_table_or_words(tmp_path, lines, tail, config, at):
    run = tmp_path / "logs" / "a"
    run.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "log.jsonl").write_bytes(text.encode() + tail)
    (run / "config.json").write_text(json.dumps(config))
    try:
        found = import_runs(
            tmp_path / "logs",
            columns={"loss": "val", "recurrences": "config.r", "tokens": "step*1e6"},
            constants=SIZES,
            at=at,
            finished=("step", "config.steps"),
        )
    except InputError as error:
        assert error.problems
        return
    for ending in ENDINGS:
        write_runs(found.runs, tmp_path / f"runs{ending}")
        again = load_runs(tmp_path / f"runs{ending}").frame
        pd.testing.assert_series_equal(again["loss"], found.runs.frame["loss"], check_exact=True)


def test_an_empty_folder_is_no_source(tmp_path):
    assert "holds no trainer logs" in refused(tmp_path, columns=LOG_MAP)[0]


def test_the_published_grid_renamed_and_imported_is_itself(tmp_path, published):
    """The known answer: the map loses no digit."""
    frame = published.frame[published.frame["recipe"] == "baseline"]
    steps = frame["tokens"] / 2**18
    theirs = pd.DataFrame(
        {
            "Name": frame["run_id"],
            "State": "finished",
            "model.loops": frame["recurrences"].astype(int),
            "model.width": frame["width"].astype(int),
            "sweep.flops": frame["budget_flops"],
            "_step": steps,
            "val/loss": frame["loss"],
        }
    )
    theirs.loc[len(theirs)] = ["x", "crashed", 1, 384, 4.64e17, 3.0, 9.9]
    file = tmp_path / "wandb.csv"
    theirs.to_csv(file, index=False)
    found = import_runs(
        file,
        columns={
            "loss": "val/loss",
            "recurrences": "model.loops",
            "width": "model.width",
            "budget_flops": "sweep.flops",
            "tokens": "_step*262144",
        },
        shape=SHAPE,
    ).runs
    again = found.used.reset_index(drop=True)
    for column in ("run_id", "recurrences", "width", "budget_flops", "tokens", "loss", *COUNTS):
        assert again[column].tolist() == frame[column].tolist(), column
    assert found.frame["status"].value_counts().to_dict() == {"done": 116, "interrupted": 1}


def test_exports_are_read_back_the_same(tmp_path, published):
    """In every kind, with a diverged run and columns of the user's own that mix kinds."""
    frame = published.frame.copy()
    frame["tags"] = [["a", "b"], {"c": 1}, "text", 7, None] + [0.5] * (len(frame) - 5)
    frame.loc[0, "loss"] = float("nan")
    frame.loc[0, "status"] = "diverged"
    runs = load_runs(frame)
    for ending in ENDINGS:
        write_runs(runs, tmp_path / "new" / f"runs{ending}")
        again = load_runs(tmp_path / "new" / f"runs{ending}").frame
        assert again.columns.tolist() == runs.frame.columns.tolist()
        ours = [c for c in again.columns if c not in ("tags", "size")]
        pd.testing.assert_frame_equal(again[ours], runs.frame[ours], check_exact=True)
        assert again["tags"].tolist()[:4] == ['["a", "b"]', '{"c": 1}', "text", "7"]
        assert pd.isna(again["tags"][4])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "runs.csv",
        "runs.jsonl",
        "runs.parquet",
    ]
    for name in ("runs.bib", "runs"):
        with pytest.raises(InputError, match=r"a run table is written to \.csv"):
            write_runs(runs, tmp_path / name)
    with pytest.raises(InputError, match="can't be written"):
        write_runs(runs, tmp_path / "new" / "runs.csv" / "below.csv")

"""Every kind of table and log that trainers leave: read as it is meant, or refused."""

import gzip
import json
import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isodepth import InputError, load_runs
from isodepth.runs.events import rows_of_events
from isodepth.runs.expressions import evaluated, parsed
from isodepth.runs.importing import import_runs
from isodepth.runs.raw import RawTable
from isodepth.runs.text_logs import READY, Pattern, rows_of_text

SIZES = {"n_once": "1e6", "n_rec": "2e6"}
ROWS = [(1, 1e6, 8e6, 1e8, 3.5), (2, 1e6, 4e6, 1e8, 3.6)]
COLUMNS = ["recurrences", "n_once", "n_rec", "tokens", "loss"]
FRAME = pd.DataFrame(ROWS, columns=COLUMNS)


def refused(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    return "\n".join(caught.value.problems)


def excel(frame, file):
    """A workbook with the least that Excel's format asks for, cells written in place."""
    import zipfile

    def cell(value):
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        return f"<c><v>{value!r}</v></c>"

    table = [list(frame.columns), *frame.itertuples(index=False)]
    rows = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in table)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
        'relationships+xml"/><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="a" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="runs" sheetId="1" r:id="a"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="a" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData>'
        "</worksheet>",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


def decimals(frame, file):
    from decimal import Decimal

    table = pa.table({c: [Decimal(str(v)) for v in frame[c]] for c in frame})
    pq.write_table(table, file)


def points_to_commas(frame):
    return frame.to_csv(index=False, sep=";", decimal=",")


KINDS = {
    "runs.tsv": lambda frame, file: frame.to_csv(file, index=False, sep="\t"),
    "tabs.csv": lambda frame, file: frame.to_csv(file, index=False, sep="\t"),
    "semicolon.csv": lambda frame, file: file.write_text(points_to_commas(frame)),
    "points.csv": lambda frame, file: frame.to_csv(file, index=False, sep=";"),
    "runs.json": lambda frame, file: frame.to_json(file, orient="records"),
    "columns.json": lambda frame, file: file.write_text(json.dumps(frame.to_dict("list"))),
    "runs.csv.gz": lambda frame, file: file.write_bytes(
        gzip.compress(frame.to_csv(index=False).encode())
    ),
    "runs.jsonl.gz": lambda frame, file: file.write_bytes(
        gzip.compress(frame.to_json(orient="records", lines=True).encode())
    ),
    "comments.csv": lambda frame, file: file.write_text(
        "# made by a script\n\n" + frame.to_csv(index=False) + "# that is all\n"
    ),
    "numpy.csv": lambda frame, file: np.savetxt(
        file, frame.to_numpy(), delimiter=",", header=",".join(frame.columns)
    ),
    "decimals.parquet": decimals,
    "runs.xlsx": excel,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_table_holds_the_same_numbers(tmp_path, name):
    if name.endswith(".xlsx"):
        pytest.importorskip("python_calamine")
    KINDS[name](FRAME, tmp_path / name)
    found = load_runs(tmp_path / name).frame[COLUMNS]
    pd.testing.assert_frame_equal(found, FRAME, check_dtype=False)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    from isodepth.runs import formats

    monkeypatch.setattr(formats, "_MOST_BYTES", 10_000)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"a" * 100_000))
    assert "too large" in refused(load_runs, tmp_path / "bomb.csv.gz")


def test_cells_of_json_text_are_columns(tmp_path):
    config = json.dumps({"r": {"desc": None, "value": 2}, "size": {"once": 1e6, "rec": 2e6}})
    frame = pd.DataFrame({"config": [config], "loss": [3.5], "tokens": [1e8], "note": ["{x}"]})
    frame.to_csv(tmp_path / "runs.csv", index=False)
    columns = {"recurrences": "config.r", "n_once": "config.size.once", "n_rec": "config.size.rec"}
    found = import_runs(tmp_path / "runs.csv", columns=columns).runs.frame
    assert found[["recurrences", "n_once", "n_rec"]].to_numpy().tolist() == [[2, 1e6, 2e6]]
    assert found["note"].tolist() == ["{x}"]


# histories in one table


def history(*, names="run", shuffled=False):
    rows = [
        {names: f"r{r}", "step": step, "r": r, "tokens": step * 1e6, "val_loss": 5 - step / 500 + r}
        for r in (1, 2)
        for step in (500, 1000, 1500)
    ]
    rows.append({names: "r2", "step": 1600, "r": 2, "tokens": 1.6e9, "val_loss": None})
    if shuffled:
        rows = rows[::-1]
    return pd.DataFrame(rows)


HISTORY_MAP = {"recurrences": "r", "loss": "val_loss"}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("names", ["run", "run_id", "Name"])
def test_a_history_gives_the_last_row_of_each_run(tmp_path, names, shuffled):
    file = tmp_path / "history.csv"
    history(names=names, shuffled=shuffled).to_csv(file, index=False)
    found = import_runs(file, columns=HISTORY_MAP, constants=SIZES)
    frame = found.runs.frame.set_index("run_id").sort_index()
    assert frame["loss"].tolist() == [3.0, 4.0] and frame["tokens"].tolist() == [1.5e9, 1.5e9]
    notes = "\n".join(found.runs.notes)
    assert f"is a history of 2 runs (7 rows, by {names} and step)" in notes
    assert "of each of 2 runs the last row with a loss was taken" in notes
    assert found.columns["run_id"] == names or names == "run_id"
    at = import_runs(file, columns=HISTORY_MAP, constants=SIZES, at=("step", "1000")).runs.frame
    assert sorted(at["loss"]) == [4.0, 5.0]
    short = import_runs(file, columns=HISTORY_MAP, constants=SIZES, finished=("step", "1600"))
    assert set(short.runs.frame["status"]) == {"interrupted"}


def test_a_history_that_names_no_runs_is_asked_about(tmp_path):
    file = tmp_path / "history.csv"
    frame = history().drop(columns="run").assign(n_once=1e6, n_rec=2e6).dropna()
    frame.to_csv(file, index=False)
    said = refused(import_runs, file, columns=HISTORY_MAP)
    assert "--map run_id=COLUMN" in said and "--rows runs" in said
    assert len(import_runs(file, columns=HISTORY_MAP, rows="runs").runs) == 6


def test_rows_of_one_name_that_differ_in_size_are_not_one_run(tmp_path):
    file = tmp_path / "history.csv"
    history().assign(run="same").to_csv(file, index=False)
    assert "several values of r (1, 2)" in refused(import_runs, file, columns=HISTORY_MAP)


def test_a_history_with_the_tables_own_names_is_not_read_as_runs(tmp_path):
    file = tmp_path / "history.csv"
    frame = history(names="run_id").rename(columns={"r": "recurrences", "val_loss": "loss"})
    frame.assign(n_once=1e6, n_rec=2e6).dropna().to_csv(file, index=False)
    assert "is a history" in refused(load_runs, file)
    frame.drop(columns="run_id").assign(n_once=1e6, n_rec=2e6).dropna().to_csv(file, index=False)
    assert any("`isodepth import` takes the last" in note for note in load_runs(file).notes)


def test_runs_that_end_at_other_steps_are_no_history(tmp_path):
    file = tmp_path / "runs.csv"
    text = "Name,ID,State,_step,loss,recurrences,tokens\nx,a,finished,9,3.1,1,1e8\n"
    file.write_text(text + "x,b,finished,8,3.2,1,1e8\n")
    assert "stands in row 1" in refused(import_runs, file, columns={}, constants=SIZES)
    found = import_runs(file, columns={"run_id": "ID"}, constants=SIZES).runs
    assert found.frame["run_id"].tolist() == ["a", "b"]


def test_a_charts_export_is_explained(tmp_path):
    file = tmp_path / "panel.csv"
    names = [f"run{i} - val/loss{end}" for i in range(3) for end in ("", "__MIN", "__MAX")]
    frame = pd.DataFrame([[s, *[3.0] * 9] for s in (0, 100)], columns=["Step", *names])
    frame.to_csv(file, index=False)
    for call in (load_runs, lambda f: import_runs(f, columns={"loss": "Step"})):
        said = refused(call, file)
        assert "a row a step and a column a run (3 runs' val/loss" in said and "table" in said


# folders of logs


def hf_state(steps, *, reached=None, loss=3.0):
    rows = [{"step": s, "loss": 9.0, "epoch": 0.1} for s in range(100, (reached or steps) + 1, 100)]
    rows.append({"step": reached or steps, "eval_loss": loss, "epoch": 0.1})
    return json.dumps(
        {"global_step": reached or steps, "max_steps": steps, "num_input_tokens_seen": 10**8,
         "log_history": rows, "best_metric": None}
    )  # fmt: skip


HF_MAP = {
    "recurrences": "config.loops",
    "loss": "eval_loss",
    "tokens": "trainer_state.num_input_tokens_seen",
}


def hf_run(folder, r, state):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"loops": r, "vocab": 9}))
    (folder / "trainer_state.json").write_text(state)


def test_hugging_faces_trainer_state_is_a_log(tmp_path):
    hf_run(tmp_path / "a", 1, hf_state(500, loss=3.1))
    hf_run(tmp_path / "b", 2, hf_state(500, reached=300, loss=3.4))
    found = import_runs(tmp_path, columns=HF_MAP, constants=SIZES)
    assert found.runs.frame["loss"].tolist() == [3.1, 3.4]
    assert found.runs.frame["status"].tolist() == ["done", "interrupted"]
    notes = "\n".join(found.runs.notes)
    assert "global_step has come to trainer_state.max_steps" in notes and "300 of 500" in notes
    without = {k: v for k, v in HF_MAP.items() if k != "loss"}
    notes = "\n".join(import_runs(tmp_path, columns=without, constants=SIZES).runs.notes)
    assert "--map loss=eval_loss" in notes


def test_checkpoints_of_one_run_are_one_run(tmp_path):
    for step in (500, 1000, 200):
        hf_run(tmp_path / "a" / f"checkpoint-{step}", 1, hf_state(1000, reached=step, loss=step))
    hf_run(tmp_path / "b", 2, hf_state(1000, loss=3.4))
    hf_run(tmp_path / "b" / "checkpoint-500", 2, hf_state(1000, reached=500, loss=9.0))
    found = import_runs(tmp_path, columns=HF_MAP, constants=SIZES).runs
    assert found.frame["run_id"].tolist() == ["a", "b"]
    assert found.frame["loss"].tolist() == [1000, 3.4]
    notes = "\n".join(found.notes)
    assert "a: its 3 folders are checkpoints of one run; checkpoint-1000" in notes
    assert "not read: a/checkpoint-200/config.json" in notes
    one = import_runs(tmp_path / "b", columns=HF_MAP, constants=SIZES).runs
    assert one.frame["run_id"].tolist() == ["b"] and one.frame["loss"].tolist() == [3.4]
    # the folder of one run whose checkpoints are all that it left
    one = import_runs(tmp_path / "a", columns=HF_MAP, constants=SIZES).runs
    assert one.frame["run_id"].tolist() == ["a"] and one.frame["loss"].tolist() == [1000]


TEXTS = {
    "nanogpt": (
        "number of parameters: 29.94M\nstep 0: train loss 10.8, val loss 10.7\n"
        "iter 0: loss 10.8, time 1234.5ms, mfu -100.00%\n"
        "step 2000: train loss 3.1234, val loss 3.25\niter 2000: loss 3.1, time 9ms, mfu 1%\n",
        {"loss": "val_loss"},
        3.25,
        2000,
    ),
    "nanochat": (
        "step 00010/00020 (50.00%) | loss: 4.123456 | lrm: 1.00 | dt: 1.5ms | tok/sec: 1,234\n"
        "Step 00020 | Validation bpb: 1.25\n",
        {"loss": "val_bpb*0.693147*4"},
        1.25 * 0.693147 * 4,
        20,
    ),
    "modded-nanogpt": (
        "step:100/500 train_loss:3.9000 train_time:1ms\n"
        "step:500/500 val_loss:3.3100 train_time:6ms step_avg:1.1ms\n",
        {"loss": "val_loss"},
        3.31,
        500,
    ),
}


@pytest.mark.parametrize("trainer", READY)
def test_text_logs_are_read_by_ready_patterns(tmp_path, trainer):
    text, columns, loss, step = TEXTS[trainer]
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / "config.yaml").write_text("r:\n  desc: null\n  value: 1\n")
    (tmp_path / "r1" / "train.log").write_text(text)
    columns = {"recurrences": "config.r", "tokens": "step*1e6", **columns}
    found = import_runs(tmp_path, columns=columns, constants=SIZES, lines=[trainer]).runs.frame
    assert found["loss"].tolist() == [pytest.approx(loss)] and found["tokens"][0] == step * 1e6
    said = refused(import_runs, tmp_path, columns=columns, constants=SIZES)
    assert f"r1/train.log is text: --line {trainer} reads" in said


def test_a_text_logs_own_pattern(tmp_path):
    text = "[12:01] it=1,000 | LOSS 3.5e0 (best 3.4)\nnoise\n[12:02] it=2,000 | loss nan (best 3)\n"
    rows = rows_of_text(text, [Pattern("it={step} | loss {loss} (best")])
    assert rows == [(1, {"step": "1000", "loss": "3.5e0"}), (3, {"step": "2000", "loss": "nan"})]
    assert rows_of_text("val_loss 3", [Pattern("loss {loss}")]) == []
    for bad, words in (("loss", "names no number"), ("{a} {a}", "twice"), ("{a b}", "no name")):
        assert words in refused(Pattern, bad)


def test_files_whose_names_carry_the_step_are_a_log(tmp_path):
    for step, loss in ((500, 3.5), (1000, 3.25), (60, 9.0)):
        content = {"val_bpb": loss, "model": {"loops": 2}}
        (tmp_path / f"meta_{step:06d}.json").write_text(json.dumps(content))
    columns = {"loss": "val_bpb", "recurrences": "model.loops", "tokens": "step*1e6"}
    found = import_runs(tmp_path, columns=columns, constants=SIZES).runs.frame
    assert found["loss"].tolist() == [3.25] and found["tokens"].tolist() == [1e9]


@pytest.mark.parametrize("layout", ["list", "columns"])
def test_json_logs(tmp_path, layout):
    rows = [{"step": s, "loss": 4 - s / 10} for s in (1, 3, 2)]
    content = rows if layout == "list" else {k: [row[k] for row in rows] for k in rows[0]}
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / "log.json").write_text(json.dumps(content))
    (tmp_path / "r1" / "hparams.yaml").write_text("r: 1\nmodel: !!python/object:a.B {x: 1}\n")
    columns = {"recurrences": "hparams.r", "tokens": "step*1e8"}
    found = import_runs(tmp_path, columns=columns, constants=SIZES).runs
    assert found.frame["loss"].tolist() == [3.7]
    assert any("put in the order of their steps" in note for note in found.notes)


def event(step, tag, value, *, tensor=False):
    def field(number, payload):
        return bytes([number << 3 | 2, len(payload)]) + payload

    if tensor:
        number = field(8, bytes([1 << 3, 1]) + field(4, struct.pack("<f", value)))
    else:
        number = bytes([2 << 3 | 5]) + struct.pack("<f", value)
    body = bytes([2 << 3, step]) + field(5, field(1, field(1, tag.encode()) + number))
    return struct.pack("<QI", len(body), 0) + body + struct.pack("<I", 0)


def test_tensorboards_event_files(tmp_path):
    data = event(1, "train/loss", 4.0) + event(100, "train/loss", 3.5)
    data += event(100, "val/loss", 3.25, tensor=True)
    assert rows_of_events(data) == (
        [{"step": 1, "train/loss": 4.0}, {"step": 100, "train/loss": 3.5, "val/loss": 3.25}],
        False,
    )
    run = tmp_path / "r1" / "tensorboard"
    run.mkdir(parents=True)
    (run.parent / "config.toml").write_text("r = 1\n")
    (run / "events.out.tfevents.1.host.1.0").write_bytes(data + data[:20])
    columns = {"recurrences": "config.r", "tokens": "step*1e6", "loss": "val/loss"}
    found = import_runs(tmp_path, columns=columns, constants=SIZES).runs
    assert found.frame["loss"].tolist() == [3.25] and found.frame["tokens"].tolist() == [1e8]
    assert any("its end is cut off" in note for note in found.notes)


@given(st.binary(max_size=60))
def test_whatever_an_event_file_holds_it_is_rows(data):
    rows_of_events(data)
    rows_of_events(struct.pack("<QI", len(data), 0) + data + bytes(4))


def test_yaml_that_repeats_itself_without_end_is_refused(tmp_path):
    (tmp_path / "r1").mkdir()
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "r1" / "config.yaml").write_text("\n".join(lines))
    (tmp_path / "r1" / "log.csv").write_text("step,loss\n1,2\n")
    assert "holds too much" in refused(import_runs, tmp_path, columns={}, constants=SIZES)


# expressions

TABLE = RawTable(
    name="t",
    columns=["a", "b", "val/loss", "n-total", "a*b", "2", "e"],
    rows=[["6", 4, "3", 100, 7, 11, None]],
    places=["row 1"],
    checksum="",
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", "6"),
        ("a-b", 2.0),
        ("a - b - 1", 1.0),
        ("a-(b-1)", 3.0),
        ("a/b/2.0", 0.75),
        ("a+b*2.5", 16.0),
        ("-a+b", -2.0),
        ("a*b", 7),
        ("a * b", 24.0),
        ("val/loss*1e1", 30.0),
        ("val/loss/b", 0.75),
        ("n-total-a", 94.0),
        ("2*a", 66.0),
        ("a*1e-3", 0.006),
        ("a+e", None),
        ("(a)", "6"),
    ],
)
def test_arithmetic_of_columns(text, value):
    expression = parsed(text, TABLE.columns, option="--map", name="t")
    found = evaluated(expression, TABLE)[0]
    assert found == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a-", "lacks a column or a number at its end"),
        ("(a", "lacks a closing ')'"),
        ("a)", "can't be read from ')' on"),
        ("a b", "can't be read from 'b' on"),
        ("*a", "lacks a column or a number before '*a'"),
        ("3*4", "names no column"),
        ("n_once", "no column 'n_once'; its columns: a, b"),
        ("val_loss", "did you mean 'val/loss'?"),
        ("train_loss", "no column 'train_loss'; its columns"),
        ("n_totals", "did you mean 'n-total'?"),
        ("n_emb", "no column 'n_emb'; its columns"),
        ("-" * 300 + "a", "more than 200 signs"),
    ],
)
def test_arithmetic_that_cant_be_read(text, words):
    said = refused(parsed, text, TABLE.columns, option="--map n_once", name="t")
    assert words in said and said.startswith("--map n_once")


NUMBERS = st.integers(1, 9)


@given(a=NUMBERS, b=NUMBERS, signs=st.lists(st.sampled_from("+-*/"), min_size=1, max_size=6))
def test_arithmetic_is_pythons(a, b, signs):
    names = ["a", "b"] * 4
    text = "a" + "".join(f" {sign} {names[i + 1]}" for i, sign in enumerate(signs))
    table = RawTable(name="t", columns=["a", "b"], rows=[[a, b]], places=["1"], checksum="")
    found = evaluated(parsed(text, table.columns, option="--map", name="t"), table)[0]
    assert found == pytest.approx(eval(text, {"a": a, "b": b}))


def test_losses_in_other_units_are_explained(tmp_path):
    file = tmp_path / "runs.csv"
    file.write_text("recurrences,tokens,val_bpb\n1,1e8,1.2\n")
    said = refused(import_runs, file, columns={}, constants=SIZES)
    assert "nats per token" in said and "bytes_per_token" in said

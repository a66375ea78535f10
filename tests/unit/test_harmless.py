"""Names that try to be commands, outputs that take nothing, files that are none: all harmless."""

import json
import os
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pandas as pd
import pytest
import sweeps
from test_sweep_folders import plan_of, swept

from isodepth import InputError, load_runs
from isodepth.errors import reason
from isodepth.files import create_synced, read_whole, write_whole
from isodepth.report.drawing import plain
from isodepth.report.latex import escaped
from isodepth.runs.writing import write_runs
from isodepth.sweep import trust
from isodepth.sweep.executors import packing
from isodepth.sweep.ledger import Ledger
from isodepth.sweep.plan import load_plan
from isodepth.terminal import printable

NASTY = "\x1b[31mred\x07\x9b\u202e\\evil{%}<b>"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """A table whose recipe is called something that terminals obey."""
    folder = tmp_path_factory.mktemp("nasty")
    swept(folder / "sweep")
    frame = load_runs(folder / "sweep").frame
    frame["recipe"] = NASTY
    frame["note"] = ["=1+1", "+x", "-x", "@sum", "'=kept", "-3", "plain"] + ["x"] * 20
    frame.to_parquet(folder / "runs.parquet")
    return folder / "runs.parquet"


def test_terminal_text_figures_and_latex_show_control_characters_as_numbers(nasty, tmp_path):
    out = tmp_path / "out"
    done = sweeps.isodepth(
        "fit", nasty, "--bootstrap", 0, "--out", out, "--latex", tmp_path / "law.tex"
    )
    shown = "\\x1b[31mred\\x9b\\u202e"  # the bell is left out by rich itself
    assert shown in done.stdout
    texts = [done.stdout, done.stderr, (out / "report.txt").read_text()]
    texts.append((tmp_path / "law.tex").read_text())
    for text in (*texts, *(file.read_text() for file in out.glob("*.svg"))):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    for file in out.glob("*.svg"):
        xml.dom.minidom.parse(str(file))
    assert not list(out.glob(".*"))  # nothing half-written is left
    said = sweeps.isodepth("fit", nasty, "--recipe", "\x1b[2J", status=2).stderr
    assert "\x1b" not in said and "\\x1b[2J" in said
    assert printable("a\tb\n\x00é φ") == "a\tb\n\\x00é φ"
    assert "\x1b" not in plain(NASTY) and "\x1b" not in escaped(NASTY)


def test_csv_cells_that_a_spreadsheet_would_run_are_guarded_and_read_back(nasty, tmp_path):
    runs = load_runs(nasty)
    write_runs(runs, tmp_path / "runs.csv")
    raw = pd.read_csv(tmp_path / "runs.csv", dtype=str, keep_default_na=False)
    assert raw["note"].tolist()[:7] == ["'=1+1", "'+x", "'-x", "'@sum", "''=kept", "-3", "plain"]
    assert load_runs(tmp_path / "runs.csv").frame["note"].tolist() == runs.frame["note"].tolist()


def command(*arguments, environment=None, **streams):
    return subprocess.run(
        [sys.executable, "-m", "isodepth", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
        **streams,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_outputs_that_take_nothing_end_in_one_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = command("account", "--width", 640, "-r", 4, stdout=full)
    assert done.returncode == 2
    assert done.stderr == "isodepth: the output can't be written: No space left on device\n"
    said = sweeps.isodepth("account", "--width", 640, "-r", 4, "--json", "/dev/full", status=2)
    assert said.stderr == "isodepth: /dev/full can't be written: No space left on device\n"


def test_a_closed_output_and_one_without_greek_are_no_fault():
    closed = subprocess.run(
        f"{sys.executable} -m isodepth cite >&-", shell=True, capture_output=True, check=False
    )
    assert closed.returncode == 0 and closed.stderr == b""
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = command("isoflop", "published", environment=ascii_only, stdout=subprocess.PIPE)
    assert done.returncode == 0 and done.stdout.isascii()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_and_devices_are_no_files(tmp_path):
    for name in ("runs.csv", "plan.json", "mine.toml", "fit.json", "runs.csv.gz"):
        os.mkfifo(tmp_path / name)
    zero = Path("/dev/zero")
    for words in (
        ("fit", tmp_path / "runs.csv"),
        ("fit", tmp_path / "runs.csv.gz"),
        ("import", tmp_path / "runs.csv", "--out", tmp_path / "x.csv"),
        ("sweep", tmp_path / "plan.json", "--out", tmp_path / "s"),
        ("plan", "--preset", tmp_path / "mine.toml"),
        ("equivalent", "--width", 640, "-r", 4, "--fit", tmp_path / "fit.json"),
        ("equivalent", "--width", 640, "-r", 4, "--fit", zero),
        ("sweep", zero, "--out", tmp_path / "s"),
    ):
        assert "is not a file" in sweeps.isodepth(*words, status=2).stderr
    assert not (tmp_path / "s").exists()


def test_writing_is_whole_or_not_at_all(tmp_path):
    file = tmp_path / "result.json"
    write_whole(file, "old")
    (tmp_path / "link.json").symlink_to(file)
    write_whole(tmp_path / "link.json", "new")
    assert file.read_text() == "new" and (tmp_path / "link.json").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "result.json"]
    with pytest.raises(OSError) as caught:
        read_whole(tmp_path)
    assert reason(caught.value) == "it is a folder"


def test_one_of_many_creates_a_file_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert create_synced(tmp_path / "a", "one") and not create_synced(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
    swept(tmp_path / "sweep")
    assert len(load_runs(tmp_path / "sweep").used) == 27


def test_the_command_of_a_plan_that_was_not_made_here_is_shown_first(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    plan = plan_of(f"touch {marker} {{out}}")
    file = tmp_path / "plan.json"
    plan.save(file)
    said = sweeps.isodepth("sweep", file, "--out", tmp_path / "s", status=2).stderr
    assert f"touch {marker} {{out}}" in said and "--trust" in said and not marker.exists()
    with pytest.raises(InputError, match="was not made here"):
        trust.check_trusted(load_plan(file), str(file), trust=False)
    trust.check_trusted(load_plan(file), str(file), trust=True)
    trust.check_trusted(load_plan(file), str(file), trust=False)  # it is known now
    content = json.loads(file.read_text())
    content["spec"]["command"] = content["spec"]["command"].replace("touch", "rm")
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"rm .* give --trust"):
        trust.check_trusted(load_plan(file), str(file), trust=False)
    trust.check_trusted(plan_of(), "ours", trust=False)


def test_threads_are_those_that_were_asked_for(tmp_path, monkeypatch):
    ledger = Ledger.open(tmp_path, plan_of("{python} {out}"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {s.threads for s in packing(ledger, 2, None, cores=8, memory_bytes=None)} == {1}
    assert {s.threads for s in packing(ledger, 2, 3, cores=8, memory_bytes=None)} == {3}
    for said in ("", "2,1", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert {s.threads for s in packing(ledger, 2, None, cores=8, memory_bytes=None)} == {4}

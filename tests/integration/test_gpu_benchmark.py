"""The GPU's benchmark in miniature: every part but the sweep runs, and leaves its rows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sweeps

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--device", "cpu", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


def test_every_part_runs_in_miniature(tmp_path):
    text = sweeps.write_text(tmp_path)
    run("--out", tmp_path / "out", "--no-compile", "--text", text, "--parts", "agree", "speed",
        "small")  # fmt: skip
    rows = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert not [row for row in rows if "error" in row or "skipped" in row]
    found = {row["what"]: row for row in rows}
    assert {row["part"] for row in rows} == {"", "agree", "speed", "small"}
    assert found["machine"]["peak_tflops"] > 0
    exact = [row for row in rows if row["what"].endswith(", fp32")]
    rounded = [row for row in rows if row["what"].endswith(", bf16")]
    assert len(exact) == len(rounded) == 7
    assert {row["gradient_error"] for row in exact} == {0}  # the CPU against itself
    assert all(0 < row["gradient_error"] < 0.03 for row in rounded)
    resumed = found["stopped and resumed"]
    assert resumed["identical"] is True
    assert resumed["status"] == "done"
    for name in ("r = 2, eager", "r = 4, eager, recomputed", "width 16, eager"):
        assert found[name]["tokens_per_second"] > 0
    assert found["width 16, 2 processes"]["slowest"] > 0
    markdown = (tmp_path / "out" / "gpu.md").read_text().splitlines()
    assert len(markdown) == 2 + len(rows)


def test_what_the_limit_leaves_no_time_for_is_said(tmp_path):
    run("--out", tmp_path, "--limit", 0, "--parts", "speed", "sweep")
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert [row.get("skipped") for row in rows[1:]] == ["out of time"] * (len(rows) - 1)
    assert len(rows) > 4

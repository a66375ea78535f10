"""`isodepth measure`: one command from nothing to φ, safe to give again."""

import json

import pandas as pd
import pytest
import sweeps

pytest.importorskip("torch")


def test_measure_goes_from_nothing_to_phi_and_skips_what_is_done(tmp_path):
    probe = '[[recipes]]\nname = "probe"\nrecurrences = [2]\nbackprop = "half"\n'
    second = '[[budgets]]\nflops = 3e9\nwidths = [8, 16, 24]\nrecipes = ["baseline"]\n'
    preset, out = tmp_path / "tiny.toml", tmp_path / "out"
    text = sweeps.TINY.format(text=sweeps.write_text(tmp_path), flops=2e9, widths=[8, 16, 24])
    preset.write_text(text + second + probe)
    command = ("measure", "--preset", preset, "--out", out, "--bootstrap", 60)
    told = json.loads(sweeps.isodepth(*command, "--json", "-").stdout)
    assert told["n_runs"] == 15
    assert set(told["recipes"]) == {"baseline", "probe"}
    assert told["recipes"]["baseline"]["n_runs"] == 12
    assert set(told["delta_phi"]) == {"probe"}
    assert told["delta_phi"]["probe"]["verdict"]
    assert any("below the smallest published one" in sentence for sentence in told["trust"])
    table = pd.read_parquet(out / "runs.parquet")
    assert told["flops"] == pytest.approx(table["flops"].sum())
    fits = {file: file.stat().st_mtime_ns for file in (out / "fits").rglob("*")}
    assert any(file.name == "fit.json" for file in fits)
    said = sweeps.isodepth(*command)
    assert "How far to trust this" in said.stdout
    assert {file: file.stat().st_mtime_ns for file in (out / "fits").rglob("*")} == fits
    status = json.loads(sweeps.isodepth("status", out, "--json", "-").stdout)
    assert {run["attempts"] for run in status["runs"]} == {1}

"""`isodepth measure`: one command from nothing to φ, safe to give again."""

import json
import re
import shutil

import pandas as pd
import pytest
import sweeps

pytest.importorskip("torch")


def test_measure_goes_from_nothing_to_phi_and_skips_what_is_done(tmp_path):
    probe = '[[recipes]]\nname = "probe"\nrecurrences = [2]\nbackprop = "half"\n'
    second = '[[budgets]]\nflops = 3.658e9\nwidths = [16, 24, 32]\nrecipes = ["baseline"]\n'
    preset, out = tmp_path / "tiny.toml", tmp_path / "out"
    text = sweeps.TINY.format(text=sweeps.write_text(tmp_path), flops=2.73e9, widths=[16, 24, 32])
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
    assert (out / "compared" / "probe" / "comparison.json").exists()
    made = [file for name in ("fits", "compared") for file in (out / name).rglob("*")]
    fits = {file: file.stat().st_mtime_ns for file in made}
    assert any(file.name == "fit.json" for file in fits)
    said = sweeps.isodepth(*command)
    assert "How far to trust this" in said.stdout
    assert {file: file.stat().st_mtime_ns for file in made} == fits
    status = json.loads(sweeps.isodepth("status", out, "--json", "-").stdout)
    assert {run["attempts"] for run in status["runs"]} == {1}

    # the page again, with the settings that it was made with
    (out / "report.html").unlink()
    (out / "fits" / "baseline" / "isoflop.png").unlink()
    told["trust"] = json.loads((out / "measure.json").read_text())["trust"]
    assert json.loads(sweeps.isodepth("report", out, "--json", "-").stdout) == told
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "15 of 15 runs are done" in content(page)
    assert "in progress" not in content(page)
    assert (out / "fits" / "baseline" / "isoflop.png").exists()

    # of a sweep in progress: what there is, and that there is more to come
    going = tmp_path / "going"
    shutil.copytree(out / "runs", going / "runs")
    shutil.copy(out / "plan.json", going)
    runs = json.loads((out / "plan.json").read_text())["runs"]
    for run in runs[3:]:
        shutil.rmtree(going / "runs" / run["run_id"])
    sweeps.isodepth("report", going)
    half = content((going / "report.html").read_text(encoding="utf-8"))
    assert "3 of 15 runs are done" in half
    assert "the sweep is in progress: every number here will change" in half
    shutil.rmtree(going / "runs")
    assert "no run has been tried yet" in sweeps.isodepth("report", going, status=2).stderr


def content(page):
    return re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]

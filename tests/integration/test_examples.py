"""The worked example: a trainer that isn't ours, planned, swept and fitted by three commands."""

from pathlib import Path

import numpy as np
import pandas as pd
import sweeps

from isodepth import load_runs

LOOPED_MLP = Path(__file__).parents[2] / "examples" / "looped_mlp"


FAILING = """
import runpy, sys
if "--width 16 --recurrences 4 --flops 600000000" in " ".join(sys.argv):
    sys.exit("no luck")
sys.argv[0] = {train!r}
runpy.run_path({train!r}, run_name="__main__")
"""


def test_a_model_that_is_not_ours_is_measured_though_a_run_fails(tmp_path):
    plan, folder = tmp_path / "plan.json", tmp_path / "sweep folder"
    trainer = tmp_path / "fails.py"
    trainer.write_text(FAILING.format(train=str(LOOPED_MLP / "train.py")))
    preset = tmp_path / "sweep.toml"
    preset.write_text((LOOPED_MLP / "sweep.toml").read_text().replace("train.py", str(trainer)))
    sweeps.isodepth(
        "plan", "--preset", preset, "--out", plan, "--quiet",
        "--budgets", 3e8, 6e8, "--widths", 8, 12, 16, "--recurrences", 1, 4,
    )  # fmt: skip
    sweeps.isodepth("sweep", plan, "--out", folder, "--retries", 0, status=1)
    sweeps.table(folder)
    table = pd.read_csv(folder / "runs.csv")
    assert table["status"].value_counts().to_dict() == {"done": 11, "failed": 1}
    failed, table = table[table["status"] == "failed"], table[table["status"] == "done"]
    assert failed["width"].tolist() == [16] and failed["flops_per_token"].isna().all()
    assert table["loss"].between(1.0, np.log(128)).all()
    # every run cost its budget, by the model's own count
    assert np.allclose(table["flops"], table["budget_flops"], rtol=0.02)
    assert np.allclose(table["flops"], table["tokens"] * table["flops_per_token"])
    looped = table["recurrences"] == 4
    assert (table["n_rec"][looped] == 2 * 4 * table["width"][looped] ** 2).all()
    assert (table["n_once"][looped] == 256 * table["width"][looped]).all()
    # a larger budget buys a lower loss
    best = table.groupby("budget_flops")["loss"].min()
    assert best.iloc[1] < best.iloc[0]
    assert "loss " in (folder / "runs" / table["run_id"].iloc[-1] / "command.log").read_text()
    fitted = sweeps.isodepth("fit", folder, "--bootstrap", 0)
    assert "11 runs of baseline" in fitted.stdout
    pd.testing.assert_frame_equal(load_runs(folder).frame, load_runs(folder / "runs.parquet").frame)
    sweeps.isodepth("export", folder, "--out", tmp_path / "out.csv")
    # what `report` repeats: as it was measured before, here without resamples
    (folder / "measure.json").write_text('{"n_resamples": 0, "seed": 0}')
    sweeps.isodepth("report", folder)
    assert "1 failed" in (folder / "report.html").read_text()

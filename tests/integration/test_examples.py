"""The worked example: a trainer that isn't ours, planned, swept and fitted by three commands."""

from pathlib import Path

import numpy as np
import pandas as pd
import sweeps

LOOPED_MLP = Path(__file__).parents[2] / "examples" / "looped_mlp"


def test_a_model_that_is_not_ours_is_measured(tmp_path):
    plan, folder = tmp_path / "plan.json", tmp_path / "sweep folder"
    sweeps.isodepth(
        "plan", "--preset", LOOPED_MLP / "sweep.toml", "--out", plan, "--quiet",
        "--budgets", 3e8, 1e9, "--widths", 8, 16, "--recurrences", 1, 4,
    )  # fmt: skip
    sweeps.isodepth("sweep", plan, "--out", folder, "--retries", 0, cwd=LOOPED_MLP)
    sweeps.table(folder)
    table = pd.read_csv(folder / "runs.csv")
    assert len(table) == 8 and (table["status"] == "done").all()
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
    fitted = sweeps.isodepth("fit", folder / "runs.csv", "--bootstrap", 0)
    assert "8 runs of baseline" in fitted.stdout

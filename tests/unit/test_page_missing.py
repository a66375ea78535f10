"""The page where plotly isn't installed."""

import subprocess
import sys

import conftest

WITHOUT = "import sys; sys.modules['plotly'] = None; from isodepth.cli import entry; entry()"


def test_without_plotly_the_folder_is_whole_and_one_sentence_says_what_to_install(tmp_path):
    table, out = tmp_path / "runs.csv", tmp_path / "out"
    conftest.sweep().frame.to_csv(table, index=False)
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT, "fit", table, "--bootstrap", "0", "--out", out],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "pip install isodepth[report]" in told.stderr
    assert (out / "fit.json").exists()
    assert (out / "isoflop.svg").exists()
    assert not (out / "report.html").exists()

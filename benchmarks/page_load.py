"""How long the page of 2,000 runs takes in headless Chromium: five loads, the medians.

Loaded: the browser's load event, counted from the start of the navigation. Drawn: the last plot.
Slider: one step of φ, to the end of the redrawing.

    python benchmarks/page_load.py

Needs the extras `report` and `dev`, and Debian's chromium.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from isodepth import fit, load_runs
from isodepth.report.drawn import drawn_of_table
from isodepth.report.page import fit_page, write_page

COPIES, RUNS, LOADS = 18, 2000, 5
STEP = """(() => {
  const before = performance.now();
  byId("phi").value = Number(byId("phi").value) + 1;
  slide();
  return performance.now() - before;
})()"""


def table() -> pd.DataFrame:
    """The shipped baseline, repeated with noise under names of their own."""
    shipped = load_runs("published").frame
    shipped = shipped[shipped["recipe"] == "baseline"]
    rng = np.random.default_rng(0)
    copies = [
        shipped.assign(
            run_id=shipped["run_id"] + f"-{i}",
            loss=shipped["loss"] * np.exp(0.002 * rng.normal(size=len(shipped))),
        )
        for i in range(COPIES)
    ]
    return pd.concat(copies, ignore_index=True).iloc[:RUNS]


def main() -> None:
    runs = load_runs(table())
    result = fit(runs, bootstrap=0)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        drawn = drawn_of_table(runs, result)
        (path,) = write_page(Path(folder), lambda: fit_page(runs, result, drawn, "runs.csv"))
        browser = started.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        found: dict[str, list[float]] = {"loaded": [], "drawn": [], "slider": []}
        for _ in range(LOADS):
            page = browser.new_page()
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-drawn]")
            loaded = "performance.timing.loadEventEnd - performance.timing.navigationStart"
            found["loaded"].append(page.evaluate(loaded) / 1e3)
            found["drawn"].append(page.evaluate("Number(root.dataset.drawn)") / 1e3)
            found["slider"].append(page.evaluate(STEP) / 1e3)
            page.close()
        browser.close()
        print(f"{len(runs)} runs, {path.stat().st_size / 1e6:.1f} MB")
        for name, seconds in found.items():
            shown = ", ".join(f"{s:.2f}" for s in seconds)
            print(f"{name}: median {statistics.median(seconds):.2f} s ({shown})")


if __name__ == "__main__":
    main()

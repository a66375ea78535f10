"""How long the page of 2,000 runs takes to load in headless Chromium: five loads, the median.

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
from isodepth.report.page import fit_page, write_page

COPIES, RUNS, LOADS = 18, 2000, 5


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
        (path,) = write_page(Path(folder), lambda: fit_page(runs, result))
        browser = started.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        seconds = []
        for _ in range(LOADS):
            page = browser.new_page()
            page.goto(path.as_uri())
            page.wait_for_selector("#residuals .point")
            took = "performance.timing.loadEventEnd - performance.timing.navigationStart"
            seconds.append(page.evaluate(took) / 1e3)
            page.close()
        browser.close()
        shown = ", ".join(f"{s:.2f}" for s in seconds)
        print(f"{len(runs)} runs, {path.stat().st_size / 1e6:.1f} MB: {shown} s")
        print(f"median {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()

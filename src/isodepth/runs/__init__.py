"""The run table: load it, check it, choose from it."""

from isodepth.runs.table import BASELINE, Runs, load_runs

__all__ = ["BASELINE", "Runs", "load_runs"]

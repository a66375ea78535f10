"""Comparing recipes: Δφ, and where a loss change comes from."""

from isodepth.comparing.compare import compare
from isodepth.comparing.result import Comparison

__all__ = ["Comparison", "compare"]

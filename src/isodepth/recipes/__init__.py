"""Comparing recipes: Δφ, and where a loss change comes from."""

from isodepth.recipes.compare import compare
from isodepth.recipes.result import Comparison

__all__ = ["Comparison", "compare"]

"""Fitting a law: one public function, one result."""

from isodepth.fitting.fit import fit
from isodepth.fitting.result import Fit

__all__ = ["Fit", "fit"]

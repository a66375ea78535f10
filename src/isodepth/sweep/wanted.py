"""The options that ask for a design: what is wanted of φ, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from isodepth.errors import InputError
from isodepth.output import Output

if TYPE_CHECKING:
    from isodepth.runs import Runs
    from isodepth.sweep.target import Wish

CHECK_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Wanted(Output):
    """A design for an interval of φ, and its limits."""

    target_ci: float | None = None
    """design: the cheapest runs that give φ of one recipe this closely, half of the 95% interval;
    `isodepth plan`: or Δφ of two"""
    at_budget: float | None = None
    """design: training FLOPs of a run at which φ is wanted, where it may drift with the budget; by
    default one φ is supposed for all budgets"""
    gpu_hours: float | None = None
    """design: hours of the device (of a core, for cpu) that all runs may take together; alone: the
    narrowest interval for them, with --target-ci: the fewest hours up to these"""
    max_runs: int | None = None
    """design: new runs, at most"""
    max_replicates: int | None = None
    """design: new runs of one size and budget, at most; more of them average noise out, but not
    what the law misses there"""
    width_multiple: int | None = None
    """design: widths are multiples of this (of the head size)"""
    noise: tuple[float, ...] | None = None
    """design: standard deviations of the log loss to suppose, averaged over (0.0025 0.004, about
    the published runs' residuals)"""
    check_share: float | None = None
    """design: share of the cost held for a third r, a third budget and replicates, which show
    whether the law holds (0.1)"""

    def wish(
        self, noises: tuple[float, ...], *, made: Runs | None = None, next_runs: int | None = None
    ) -> Wish:
        """These options, with the noises to suppose where none are named."""
        from isodepth.sweep.target import Wish

        return Wish(
            half_width=self.target_ci,
            at_budget=self.at_budget,
            gpu_hours=self.gpu_hours,
            next_runs=next_runs,
            max_runs=self.max_runs,
            max_replicates=self.max_replicates,
            width_multiple=self.width_multiple,
            noises=self.noise or noises,
            check_share=CHECK_SHARE if self.check_share is None else self.check_share,
            made=made,
        )

    def refuse_limits(self, without: str) -> None:
        """Raise InputError where limits of a design are given but no design is asked for."""
        for field in fields(Wanted):
            if field.name not in {f.name for f in fields(Output)} and (
                getattr(self, field.name) is not None
            ):
                raise InputError(f"--{field.name.replace('_', '-')} is for designs: give {without}")

"""The command `power`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from isodepth.output import Output
from isodepth.sweep.commands import carried

if TYPE_CHECKING:
    from isodepth.sweep.power import Power


@dataclass(frozen=True, kw_only=True)
class PowerCommand(Output):
    """The smallest Δφ that a plan or a run table can resolve, and widths against FLOPs."""

    source: Annotated[Positional[str], arg(metavar="PLAN.json|RUNS")]
    """a plan, a run table, or the word published; losses are not looked at"""
    baseline: str | None = None
    """the recipe that others are compared with (baseline)"""
    recipe: str | None = None
    """the second recipe; default: one that repeats the baseline's looped runs"""
    noise: tuple[float, ...] | None = None
    """standard deviations of the log loss to suppose, averaged over (of --fit its own; else 0.0025
    0.004)"""
    fit_file: Annotated[str | None, arg(name="fit", metavar="FIT.json")] = None
    """the supposed law, from `isodepth fit --json`; default: the published grid's two"""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """folder for the figure of interval widths against FLOPs"""

    def run(self) -> None:
        from isodepth.fitting import Fit
        from isodepth.planning.supposed import noise_of
        from isodepth.planning.worlds import NOISES, prior
        from isodepth.report.power import write_power_figure
        from isodepth.sweep.power import power_of

        own = None if self.fit_file is None else [Fit.load(self.fit_file)]
        told = [noise for noise in map(noise_of, own or []) if noise is not None]
        found = power_of(
            self.source,
            own or prior("published"),
            noises=self.noise or tuple(told) or NOISES,
            baseline=self.baseline,
            recipe=self.recipe,
        )
        found = replace(found, warnings=(*found.warnings, *carried(own or [])))
        self.write(found.to_dict())
        if not self.quiet and self.json != "-":
            print("\n".join(_report(found)))
        if self.out is not None:
            write_power_figure(found.curves, self.out)
            self.say(f"figure: {self.out / 'power.png'}, .svg and .pdf")


def _report(found: Power) -> list[str]:
    from isodepth.report.power import width_lines
    from isodepth.report.widths import equal_r_lines, law_free_lines

    second = found.recipe or "a second recipe"
    lines = [f"{found.baseline} and {second}: {found.n_runs} runs, {found.flops:.3g} FLOPs"]
    for name, one in (("separate", found.separate), ("joint", found.joint)):
        worlds = "; ".join(f"{kind}: {value:.3f}" for kind, value in one.by_world.items())
        lines.append(
            f"Δφ by {name} laws: ± {one.half_width:.3f}; smallest that is resolved "
            f"{one.smallest:.3f} ({worlds})"
            if isfinite(one.smallest)
            else f"Δφ by {name} laws: too few runs"
        )
    lines += law_free_lines(found.law_free)
    lines += [] if found.equal_r is None else equal_r_lines(found.equal_r)
    lines += [f"φ of {found.baseline} by FLOPs:", *width_lines(found.curves, found.ratios)]
    lines += [f"warning: {warned}" for warned in found.warnings]
    return [*lines, *(f"supposed: {assumption}" for assumption in found.assumptions)]

"""What `isodepth measure` says at its end."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isodepth.sweep.measure import Measurement


def measure_report(result: Measurement) -> RenderableType:
    """φ of every recipe with its interval, the iso-FLOP minima, and how far to trust them."""
    table = Table(title=f"{result.plan}: {result.n_runs} runs, {result.flops:.3g} training FLOPs")
    table.title_justify = "left"
    table.add_column("recipe")
    table.add_column("runs", justify="right")
    table.add_column("φ", justify="right")
    table.add_column("95% interval")
    for name, fit in result.fits.items():
        interval = fit.ci95.get("phi")
        table.add_row(
            name,
            str(fit.n_runs),
            "not identified" if fit.phi is None else f"{fit.phi:.3f}",
            "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]",
        )
    bracketed = sum(g.bracketed and not g.concave for g in result.groups.groups)
    lines = [Text(f"{bracketed} of {len(result.groups.groups)} iso-FLOP minima are bracketed")]
    for name, fit in result.fits.items():
        lines += [Text(f"{name}: {warning}", style="yellow") for warning in fit.warnings]
    lines.append(Text("How far to trust this:", style="bold"))
    lines += [Text(f"- {sentence}") for sentence in result.trust]
    return Group(table, *lines)

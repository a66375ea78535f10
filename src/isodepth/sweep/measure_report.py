"""What `isodepth measure` says at its end."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isodepth.comparing import Comparison
from isodepth.report.words import interval_text
from isodepth.sweep.measure import Measurement
from isodepth.sweep.rounds import Round


def measure_report(result: Measurement) -> RenderableType:
    """φ of every recipe with its interval, the iso-FLOP minima, and how far to trust them."""
    table = Table(title=f"{result.plan}: {result.n_runs} runs, {result.flops:.3g} training FLOPs")
    table.title_justify = "left"
    table.add_column("recipe")
    table.add_column("runs", justify="right")
    table.add_column("φ", justify="right")
    table.add_column("95% interval")
    table.add_column("Δφ at equal r")
    table.add_column("Δφ by the laws")
    for name, fit in result.fits.items():
        other = result.comparisons.get(name)
        table.add_row(
            name,
            str(fit.n_runs),
            *_number(fit.phi, fit.ci95.get("phi")),
            *(("", "") if other is None else _difference(other)),
        )
    if not result.comparisons:  # nothing to compare: two columns say it all
        for _ in range(2):
            table.columns.pop()
    bracketed = sum(g.bracketed and not g.concave for g in result.groups.groups)
    lines = [
        Text(f"{name} against {one.baseline}: {one.verdict}", style="bold")
        for name, one in result.comparisons.items()
    ]
    lines += [_round(one) for one in result.rounds]
    lines += [Text(f"{bracketed} of {len(result.groups.groups)} iso-FLOP minima are bracketed")]
    for name, fit in result.fits.items():
        lines += [Text(f"{name}: {warning}", style="yellow") for warning in fit.warnings]
    lines.append(Text("How far to trust this:", style="bold"))
    lines += [Text(f"- {sentence}") for sentence in result.trust]
    return Group(table, *lines)


def _round(one: Round) -> Text:
    half = "not identified" if one.half_width is None else f"± {one.half_width:.3f}"
    expected = "" if one.expected is None else f" (± {one.expected:.3f} expected)"
    return Text(
        f"after {one.n_runs} runs, {one.flops:.3g} FLOPs: φ {half}{expected}; {one.why}",
        style="" if one.added else "bold",
    )


def _number(value: float | None, interval: tuple[float, float] | None) -> tuple[str, str]:
    return (
        "not identified" if value is None else f"{value:.3f}",
        "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]",
    )


def _difference(other: Comparison) -> tuple[str, str]:
    """Δφ over the admissible forms at equal r, and the laws', each with its interval."""
    laws = _signed(other.delta_phi, other.ci95["delta_phi"])
    split = other.split
    if split is None:
        return "not compared", laws
    if split.sign is None or split.delta_phi is None:
        return "not identified", laws
    value = split.delta_phi.value
    return _signed(value, split.delta_phi.ci95, missing=""), laws


def _signed(
    value: float | None, ci95: tuple[float, float] | None, missing: str = "not identified"
) -> str:
    # the interval on a line of its own, so that it is broken nowhere inside
    ends = interval_text(ci95, "+.3f")
    return f"{missing if value is None else f'{value:+.3f}'}\n{ends}".strip()

"""A comparison as rich tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isodepth.comparing.channels import Channel, Split
from isodepth.comparing.result import Comparison
from isodepth.fitting.result import Interval
from isodepth.laws import LAWS
from isodepth.report.tables import new_table, sentences
from isodepth.report.words import interval_text, size_text


def compare_report(result: Comparison) -> RenderableType:
    """What `isodepth compare` prints for one recipe."""
    parts: list[RenderableType] = [
        Text(_headline(result), style="bold"),
        _conventions(result),
        _phis(result),
    ]
    if result.channels:
        names = f"{result.recipe} less {result.baseline}, nats per token (below 0: lower loss)"
        parts += [
            Text(f"Loss change at equal compute, each at its own optimal size: {names}"),
            _channels(result, equal_size=False),
            Text("The same with both at the baseline's optimal size"),
            _channels(result, equal_size=True),
        ]
    if result.inference:
        parts += [
            Text("Compute-optimal models in use (forward), at the highest shared budget"),
            _use(result),
        ]
    if result.sensitivity:
        parts += [Text("φ and Δφ under other choices"), _sensitivity(result)]
    parts += sentences("Warnings", result.warnings, "yellow")
    parts += sentences("Assumptions", result.assumptions, "")
    return Group(*parts)


def _headline(result: Comparison) -> str:
    verdict = f"{result.recipe} against {result.baseline}: {result.verdict}"
    if result.delta_phi is None:
        return verdict
    ends = interval_text(result.ci95["delta_phi"], "+.3f")
    return f"{verdict} (Δφ = {result.delta_phi:+.3f} {ends})".replace(" )", ")")


def _conventions(result: Comparison) -> Text:
    c = result.conventions
    estimator = f"huber (δ = {c.huber_delta:g})" if c.estimator == "huber" else c.estimator
    fits = "a law for each recipe" if result.method == "separate" else "one law for both recipes"
    return Text(
        f"{LAWS[c.law].formula}, m(r) = r^φ, {fits}\n"
        f"{estimator} on log loss, injection counted {c.count_injection}; {result.source}\n"
        f"95% intervals: {result.interval_method}; {result.n_resamples} resamples, "
        f"seed {result.seed}"
    )


def _phis(result: Comparison) -> Table:
    shipped = result.published
    table = new_table("", "runs", "φ", "95% interval", *(["published φ"] if shipped else []))
    told = {
        result.baseline: (result.n_runs_baseline, result.phi_baseline, "phi_baseline"),
        result.recipe: (result.n_runs_recipe, result.phi_recipe, "phi_recipe"),
    }
    for name, (runs, phi, key) in told.items():
        row = [name, str(runs), _phi(phi, ".3f"), interval_text(result.ci95[key], ".3f")]
        if shipped:
            own = f"{shipped.phi_recipe:.2f} ({shipped.phi_recipe_in_code:.2f} in its code's notes)"
            row.append(f"{shipped.phi_baseline:.2f}" if name == result.baseline else own)
        table.add_row(*row)
    delta = [
        "Δφ",
        "",
        _phi(result.delta_phi, "+.3f"),
        interval_text(result.ci95["delta_phi"], "+.3f"),
    ]
    if shipped:
        delta.append(f"{shipped.phi_recipe - shipped.phi_baseline:+.2f}")
    table.add_row(*delta)
    return table


def _channels(result: Comparison, *, equal_size: bool) -> Table:
    table = new_table("budget", "r", "change", "token budget", "capacity (φ)", "other")
    for c in result.channels:
        split = c.equal_size if equal_size else c.optimal
        shown = [_share(split, n) for n in ("delta_loss", "token_budget", "capacity", "other")]
        table.add_row(*_place(c), *shown)
    return table


def _place(channel: Channel) -> tuple[str, str]:
    return f"{channel.budget_flops:.3g}", str(channel.recurrences)


def _share(split: Split, name: str) -> str:
    value: float = getattr(split, name)
    ends: Interval | None = split.ci95[name]
    # these intervals lie evenly about their value
    return f"{value:+.4f}" + ("" if ends is None else f" ± {(ends[1] - ends[0]) / 2:.4f}")


def _use(result: Comparison) -> Table:
    highest = max(i.budget_flops for i in result.inference)
    table = new_table(
        "budget", "r", "recipe", "width", "parameters", "95%", "FLOPs/token", "cache/token"
    )
    rows = [i for i in result.inference if i.budget_flops == highest]
    for i in sorted(rows, key=lambda i: i.recurrences):
        sizes = i.ci95["params"]
        table.add_row(
            f"{highest:.3g}",
            str(i.recurrences),
            i.recipe,
            str(i.width),
            size_text(i.params),
            "" if sizes is None else f"[{size_text(sizes[0])}, {size_text(sizes[1])}]",
            f"{i.flops_per_token:.3g}",
            f"{i.kv_bytes_per_token / 1024:.0f} KiB",
        )
    return table


def _sensitivity(result: Comparison) -> Table:
    table = new_table(
        "fits, law, estimator, injection counted", "baseline", "recipe", "Δφ", "95% interval"
    )
    for a in result.sensitivity:
        table.add_row(
            f"{a.method}, {a.law}, {a.estimator}, {a.count_injection}"
            + (", every r = 1 run" if a.borrowed == "all budgets" else ""),
            _phi(a.phi_baseline, ".3f"),
            _phi(a.phi_recipe, ".3f"),
            _phi(a.delta_phi, "+.3f"),
            interval_text(a.ci95, "+.3f"),
        )
    if result.cost:
        c = result.cost
        conventions = result.conventions
        table.add_row(
            f"joint with κ = {c.kappa:.2f}, {conventions.law}, {conventions.estimator}, "
            f"{conventions.count_injection}",
            "",
            "",
            f"{c.delta_phi:+.3f}",
            interval_text(c.delta_phi_ci95, "+.3f"),
        )
    return table


def _phi(value: float | None, form: str) -> str:
    return "open" if value is None else f"{value:{form}}"

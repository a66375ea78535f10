"""Results as rich tables for the terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isodepth.accounting import Account
from isodepth.fitting.result import Fit, Interval
from isodepth.minima import Isoflop
from isodepth.planning.advice import Equivalence
from isodepth.report.words import interval_text, size_text
from isodepth.report.worth import worth_rows
from isodepth.terminal import console

_WIDTH = 100


def to_text(report: RenderableType) -> str:
    """A report as plain text."""
    text = io.StringIO()
    console(file=text, width=_WIDTH, color_system=None).print(report)
    return text.getvalue()


def fit_report(fit: Fit) -> RenderableType:
    """What `isodepth fit` prints."""
    parts: list[RenderableType] = [Text(_headline(fit), style="bold"), _conventions(fit)]
    parts.append(_parameters(fit))
    parts += _worth(fit)
    parts.append(_quality(fit))
    if fit.drift:
        parts += _drift(fit.drift)
    if fit.sensitivity:
        parts.append(_sensitivity(fit))
    parts += sentences("Warnings", fit.warnings, "yellow")
    parts += sentences("Notes", fit.notes, "")
    return Group(*parts)


def _headline(fit: Fit) -> str:
    looped = [f"{r:g}" for r in fit.fitted.levels]
    runs = f"{fit.n_runs} runs of {fit.recipe} ({fit.source}), r = {', '.join(looped)}"
    if fit.phi is None:
        return f"φ not identified: {runs}"
    return f"φ = {fit.phi:.3f} {interval_text(fit.interval('phi'), '.3f')}: {runs}"


def _conventions(fit: Fit) -> Text:
    c = fit.conventions
    estimator = f"huber (δ = {c.huber_delta:g})" if c.estimator == "huber" else c.estimator
    return Text(
        f"{fit.fitted.form.formula}, {'m(r) = r^φ' if c.multiplicity == 'power' else 'm(r) free'}\n"
        f"{estimator} on log loss, injection counted {c.count_injection}, weights {fit.weighting}\n"
        f"95% intervals: {fit.interval_method}; {fit.n_resamples} resamples, seed {fit.seed}"
    )


def _parameters(fit: Fit) -> Table:
    table = new_table("parameter", "value", "95% interval")
    for name, value in fit.params.items():
        shown = "not identified" if value is None else f"{value:.6g}"
        table.add_row(SYMBOLS.get(name, name), shown, interval_text(fit.ci95[name], ".4g"))
    if fit.profile_phi:
        ci95: Any = fit.profile_phi["ci95"]
        ends = [f"{x:.4g}" if x is not None else "open" for x in ci95]
        table.add_row("φ, by profile likelihood", "", f"[{ends[0]}, {ends[1]}]")
    for words, ci95 in both_intervals(fit):
        table.add_row(words, "", interval_text(ci95, ".4g"))
    return table


def both_intervals(fit: Fit) -> list[tuple[str, Interval]]:
    """φ's interval by groups and by error structures, where residuals go on along r."""
    found = fit.errors_along_r
    if not found or not found["ci95_structures"]:
        return []
    return [
        ("φ, by groups", tuple(found["ci95_groups"])),
        ("φ, averaged over error structures", tuple(found["ci95_structures"])),
    ]


def _worth(fit: Fit) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for one in worth_rows(fit):
        table = new_table(*one.columns)
        for row in one.rows:
            table.add_row(*row)
        parts.append(table)
    return parts


def _quality(fit: Fit) -> Table:
    table = new_table("check", "result")
    lack: dict[str, Any] = fit.lack_of_fit
    if fit.r2 is not None:
        table.add_row("R², rms residual", f"{fit.r2:.4f}, {fit.rmse:.4f} nats")
    table.add_row(
        "optimum",
        f"objective {fit.objective:.6g}, gradient {fit.gradient_norm:.1e}, "
        f"{fit.n_starts_agreeing} of {fit.n_starts} starts agree",
    )
    curvature = lack["curvature"]
    if curvature:
        table.add_row(
            "iso-FLOP curvature",
            f"{curvature['steepness']:.2f} × the law's (p = {curvature['p_value']:.2g}, "
            f"noise {curvature['noise']:.4f} nats)",
        )
    for title, forms in (("law", lack["laws"]), ("multiplicity", lack["multiplicities"])):
        for name, form in forms.items():
            phi = "" if form["phi"] is None else f", φ {form['phi']:.3f}"
            out = form["leave_one_budget_out_rmse"]
            left_out = "" if out is None else f", left-out budget {out:.4f}"
            table.add_row(
                f"{title}: {name}",
                f"BIC {form['bic']:.1f}, rms {form['rmse']:.4f}{left_out} nats{phi}",
            )
    found = fit.errors_along_r
    if found:
        table.add_row(
            "residuals along r",
            f"correlation {found['correlation']:.2f} with the next budget's "
            f"(p = {found['p_value']:.2g})",
        )
    # the table of worth has them by r
    for name, form in lack["multiplicities"].items() if fit.law_free is None else ():
        listed = ", ".join(f"m({r}) = {m:.3f}" for r, m in form["multiplicity"].items())
        if listed:
            table.add_row(f"m(r), {name}", listed)
    if fit.extrapolation:
        ahead: dict[str, Any] = fit.extrapolation
        phi = "" if ahead["phi"] is None else f", φ there {ahead['phi']:.3f}"
        table.add_row(
            f"{ahead['budget_flops']:.3g} FLOPs, held out",
            f"rms {ahead['rmse']:.4f}, mean {ahead['mean_error']:+.4f} nats{phi}",
        )
    for run in lack["influence"][:3]:
        table.add_row(f"without {run['run_id']}", f"φ {run['delta_phi']:+.4f}")
    return table


def _drift(found: dict[str, Any]) -> list[RenderableType]:
    if found["per_decade"] is None:
        return []  # the warnings say why
    slope = f"{found['per_decade']:+.3f} {interval_text(found['per_decade_ci95'], '+.3f')}"
    table = new_table("budget", "φ, if it may drift", "95%", "φ, if not", "95%", "beyond the runs")
    for one in found["at"]:
        beyond = one["decades_beyond"]
        table.add_row(
            f"{one['budget_flops']:.3g}",
            f"{one['phi']:.3f}",
            interval_text(one["ci95"], ".3f"),
            f"{one['constant_phi']:.3f}",
            interval_text(one["constant_ci95"], ".3f"),
            f"{10**beyond:.3g} times" if beyond else "",
        )
    return [Text(f"φ changes by {slope.strip()} for ten times the training FLOPs"), table]


def _sensitivity(fit: Fit) -> Table:
    heads = ("law", "estimator", "injection counted", "looped arms differ by", "p", "φ", "95%")
    table = new_table(*heads)
    for row in fit.sensitivity:
        phi: Any = row["phi"]
        ci95: Any = row["ci95"]
        shown = "not identified" if phi is None else f"{phi:.3f}"
        words = (row["law"], row["estimator"], row["count_injection"])
        p_value = "" if row["p_value"] is None else f"{row['p_value']:.2g}"
        by = _constant(row)
        table.add_row(*map(str, words), by, p_value, shown, interval_text(ci95, ".3f"))
    return table


def _constant(row: dict[str, Any]) -> str:
    """What looped arms differ by in a row of the sensitivity table; nothing where by nothing."""
    if row["arms_differ"] == "none":
        return ""
    if row["tokens_ratio"] is not None:
        return f"κ = {row['tokens_ratio']:.3f}"
    if row["loss_offset"] is not None:
        return f"δ = {row['loss_offset']:+.4f}"
    return f"{row['arms_differ']}, not identified"


def isoflop_report(result: Isoflop) -> RenderableType:
    """What `isodepth isoflop` prints."""
    parts: list[RenderableType] = []
    for recipe in dict.fromkeys(g.recipe for g in result.groups):
        table = new_table("r", "budget", "runs", "N at minimum", "95%", "loss", "95%", "")
        for g in result.groups:
            if g.recipe != recipe:
                continue
            sizes = "" if g.n_min_ci95 is None else ", ".join(size_text(n) for n in g.n_min_ci95)
            table.add_row(
                g.arm.removeprefix("r = "),
                f"{g.budget_flops:.3g}",
                str(g.n_runs),
                "none" if g.n_min is None else size_text(g.n_min),
                f"[{sizes}]" if sizes else "",
                "" if g.loss_min is None else f"{g.loss_min:.4f}",
                interval_text(g.loss_min_ci95, ".4f"),
                str(g.warning or ""),
            )
        parts += [Text(recipe, style="bold"), table]
    noise = (
        "no group has more than three sizes, so the noise is unknown and no interval is given"
        if result.noise is None
        else f"intervals from the noise about the parabolas, {result.noise:.2g} nats "
        f"({result.freedom} degrees of freedom)"
    )
    return Group(*parts, Text(f"N: unique non-embedding parameters; {noise}"))


def equivalence_report(result: Equivalence) -> RenderableType:
    """What `isodepth equivalent` prints."""
    table = new_table("size (non-embedding parameters)", "value", "95% interval")
    table.add_row("unique parameters", size_text(result.unique_params), "exact")
    for words, equal in (
        ("unlooped size of equal loss, by the law", result.equivalent_params),
        ("unlooped size of equal loss, without a law", result.equivalent_params_law_free),
    ):
        table.add_row(
            words,
            "not identified" if equal.value is None else size_text(equal.value),
            "" if equal.ci95 is None else f"[{', '.join(size_text(x) for x in equal.ci95)}]",
        )
    cost = size_text(result.same_cost_params)
    table.add_row("unlooped size of equal training cost", cost, "exact")
    table.add_row("training FLOPs per token", f"{result.flops_per_token:.4g}", "exact")
    return Group(
        Text(f"One looped model at r = {result.recurrences}", style="bold"),
        table,
        *sentences("Assumptions", result.assumptions, ""),
        *sentences("Warnings", result.warnings, "yellow"),
    )


def account_report(result: Account) -> RenderableType:
    """What `isodepth account` prints."""
    table = new_table("", "")
    for name, words in (
        ("n_once", "parameters used once per token"),
        ("n_rec", "parameters of the recurrent blocks"),
        ("n_inject", "parameters of the injection"),
        ("n_total", "unique non-embedding parameters"),
        ("n_embedding", "parameters of embedding and head, in none of the above"),
        ("flops_per_token", "training FLOPs per token"),
    ):
        table.add_row(f"{name}: {words}", f"{getattr(result, name):,}")
    table.show_header = False
    return table


def new_table(*headers: str) -> Table:
    """A table in the style of every report."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header)
    return table


def table_of(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of rows that are text already."""
    table = new_table(*headers)
    for row in rows:
        table.add_row(*row)
    return table


def sentences(title: str, said: Iterable[object], style: str) -> list[RenderableType]:
    """A titled list; nothing where nothing is said."""
    listed = [Padding(Text(f"• {s}"), (0, 0, 0, 2)) for s in said]
    return [Text(title, style=f"bold {style}".strip()), *listed] if listed else []


SYMBOLS = {
    "E": "E, nats",
    "A": "A",
    "alpha": "α",
    "B": "B",
    "beta": "β",
    "phi": "φ",
    "gamma": "γ",
    "tokens_ratio": "κ, tokens of r > 1",
    "loss_offset": "δ, nats, of r > 1",
}

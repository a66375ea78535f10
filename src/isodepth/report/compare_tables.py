"""A comparison as rich tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isodepth.comparing.channels import Channel, Shares
from isodepth.comparing.forms import FORM_WORDS, Candidate, Split
from isodepth.comparing.paired_runs import Paired
from isodepth.comparing.result import Comparison
from isodepth.fitting.law_free import Worth
from isodepth.fitting.result import Interval
from isodepth.fitting.twins import Value
from isodepth.laws import LAWS
from isodepth.report.compute_tables import (
    EXPONENT_HEADS,
    EXPONENT_TITLE,
    MULTIPLIER_HEADS,
    exponent_rows,
    multiplier_tables,
)
from isodepth.report.sharing_tables import sharing_report
from isodepth.report.tables import new_table, sentences, table_of
from isodepth.report.words import interval_text, size_text


def compare_report(result: Comparison) -> RenderableType:
    """What `isodepth compare` prints for one recipe."""
    names = f"{result.recipe} less {result.baseline}"
    parts: list[RenderableType] = [Text(_headline(result), style="bold")]
    if result.paired is not None:
        parts += [
            Text(
                f"Runs of equal r, width and budget: log loss, {names} (below 0: lower loss); D/N: "
                "tokens over n_once + r·n_rec"
            ),
            paired_table(result.paired),
        ]
    if result.split is not None:
        parts += [
            Text(
                "What the recipe changes at equal r: forms of the difference, and their error on "
                "left-out budgets, log loss"
            ),
            forms_table(result.split),
            *_worths(result.delta_log_m),
        ]
    parts += sharing_report(result)
    for title, rows in multiplier_tables(result):
        parts += [Text(title), table_of(MULTIPLIER_HEADS, rows)]
    parts += [Text("φ by the laws"), _conventions(result), _phis(result)]
    if result.exponents:
        parts += [Text(EXPONENT_TITLE), table_of(EXPONENT_HEADS, exponent_rows(result))]
    if result.channels:
        parts += [
            Text(
                "Loss change at equal compute, nats per token, by the form that holds, each at its "
                f"own optimal size: {names}"
            ),
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
    return f"{result.recipe} against {result.baseline}: {result.verdict}"


PAIRED_HEADS = ("", "runs", "difference", "95% interval", "laws' Δφ predicts", "form predicts")
FORMS_HEADS = ("form", "parameters", "Δφ [95%]", "left out", "p", "admissible")


def paired_table(paired: Paired) -> Table:
    """Mean differences by r, by budget and by tokens per parameter, and what is predicted."""
    return table_of(PAIRED_HEADS, paired_rows(paired))


def paired_rows(paired: Paired) -> list[list[str]]:
    """A mean of the pairs a row; at the end the highest less the lowest looped r."""
    rows = []
    for m in paired.means:
        if m.by == "recurrences":
            name = f"r = {m.recurrences}"
        elif m.by == "budget_flops":
            name = f"{m.budget_flops:.3g} FLOPs"
        else:
            assert m.tokens_per_parameter is not None
            low, high = m.tokens_per_parameter
            name = f"D/N {low:.3g} to {high:.3g}"
        rows.append([name, str(m.n_runs), *_seen(m.delta_log_loss, m.by_phi, m.by_form)])
    g = paired.growth
    if g is not None:
        seen = _seen(g.delta_log_loss, g.by_phi, g.by_form)
        rows.append([f"r = {g.high} less r = {g.low}", str(g.n_pairs), *seen])
    return rows


def _seen(seen: Value, by_phi: float | None, by_form: float) -> tuple[str, str, str, str]:
    return (
        f"{seen.value:+.4f}",
        interval_text(seen.ci95, "+.4f"),
        "open" if by_phi is None else f"{by_phi:+.4f}",
        f"{by_form:+.4f}",
    )


def forms_table(split: Split) -> Table:
    """Every form, the best on left-out budgets first."""
    table = new_table(*FORMS_HEADS)
    table.columns[2].no_wrap = True  # an interval is broken nowhere inside
    for row in forms_rows(split, intervals=False):
        table.add_row(*row)
    return table


def forms_rows(split: Split, *, intervals: bool) -> list[list[str]]:
    """A form a row, the best on left-out budgets first.

    intervals: whether a form's parameters are given with theirs.
    """
    rows = []
    for c in sorted(split.candidates, key=lambda c: c.held_out_rmse):
        phi = c.delta_phi
        params = []
        for name, value in c.params.items():
            ends = f" {interval_text(value.ci95, '.3g')}" if intervals else ""
            told = f"{_symbol(c.form, name)} {value.value:.3g}{ends}"
            # on the page a line breaks between two parameters alone
            params.append(told.replace(" ", "\u00a0") if intervals else told)
        rows.append(
            [
                form_name(c),
                ", ".join(params),
                "" if phi is None else f"{phi.value:+.3f} {interval_text(phi.ci95, '+.3f')}",
                f"{c.held_out_rmse:.4f}",
                "best" if c.p_value is None else f"{c.p_value:.2g}",
                form_mark(split, c),
            ]
        )
    return rows


def _symbol(form: str, param: str) -> str:
    return "δ₀" if (form, param) == ("offset_log_r", "loss_offset") else _SYMBOLS[param]


def form_name(c: Candidate) -> str:
    """A form in words."""
    if c.form == "none":
        return "Δφ alone" if c.with_phi else "no difference"
    return FORM_WORDS[c.form] + (", Δφ" if c.with_phi else "")


def form_mark(split: Split, c: Candidate) -> str:
    """How a form is judged, in a word."""
    if c == split.chosen:
        return "holds"
    return "yes" if c.admissible else "no"


_SYMBOLS = {
    "tokens_ratio": "κ",
    "log_tokens_ratio_per_log_params": "c",
    "params_ratio": "ν",
    "loss_offset": "δ",
    "loss_offset_times_r": "c",
    "loss_offset_per_log_r": "δ₁",
}


def _worths(found: tuple[Worth, ...]) -> list[RenderableType]:
    if not found:
        return []
    listed = ", ".join(
        f"r = {w.recurrences:g}: {w.value:+.3f} {interval_text(w.ci95, '+.3f')}" for w in found
    )
    return [Text(f"Δ log m(r), an own one at every r, beside the form that holds: {listed}")]


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
    apart = result.channels[0].optimal.capacity is not None
    shares = ("capacity", "other") if apart else ("capacity_and_other",)
    heads = ("capacity (φ)", "other") if apart else ("capacity and other",)
    table = new_table("budget", "r", "change", "token budget", *heads)
    for c in result.channels:
        split = c.equal_size if equal_size else c.optimal
        shown = [_share(split, n) for n in ("delta_loss", "token_budget", *shares)]
        table.add_row(*_place(c), *shown)
    return table


def _place(channel: Channel) -> tuple[str, str]:
    return f"{channel.budget_flops:.3g}", str(channel.recurrences)


def _share(split: Shares, name: str) -> str:
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

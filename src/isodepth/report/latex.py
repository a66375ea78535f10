r"""A fit or comparisons as a LaTeX table (booktabs) with its conventions in a note.

It needs \usepackage{booktabs} and \usepackage{amsmath}. Values carry the digits that the terminal's
report gives, so that the law can be computed with from the paper.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isodepth.comparing.result import Comparison
from isodepth.errors import InputError
from isodepth.files import write_whole
from isodepth.fitting.result import Fit, Interval
from isodepth.terminal import printable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "−": "$-$",
    "φ": r"$\varphi$",
    "Δ": r"$\Delta$",
    "κ": r"$\kappa$",
    "ν": r"$\nu$",
    "δ": r"$\delta$",
    "₀": "$_0$",
    "₁": "$_1$",
    "√": r"$\surd$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}
_SYMBOLS = {
    "E": r"$E$ (nats)",
    "A": r"$A$",
    "alpha": r"$\alpha$",
    "B": r"$B$",
    "beta": r"$\beta$",
    "gamma": r"$\gamma$",
    "phi": r"$\varphi$",
    "tokens_ratio": r"$\kappa$",
    "loss_offset": r"$\delta$ (nats)",
}
_LAWS = {
    "additive": r"$L = E + A\,N_{\text{eff}}^{-\alpha} + B\,D^{-\beta}$",
    "coupled": r"$L = E + (A\,N_{\text{eff}}^{-\alpha} + B\,D^{-\beta})^{\gamma}$",
}

_ARMS = {
    "none": "",
    "tokens": r" with $D \to \kappa D$ at $r > 1$",
    "loss": r" with $\delta$ more at $r > 1$",
}
_EQUAL_R = (
    r"$\Delta\varphi$ at equal $r$: beside the form that holds, its interval over all admissible "
    "forms of the difference. "
)


def escaped(text: str) -> str:
    """Text as LaTeX sets it: no character of it is a command."""
    return "".join(_SPECIAL.get(c, c) for c in printable(" ".join(text.split())))


def fit_latex(fit: Fit) -> str:
    """The parameters of a fit with their 95% intervals."""
    rows = [
        (
            _symbol(name),
            "not identified" if value is None else _number(value, 6),
            _interval(fit.ci95[name]),
        )
        for name, value in fit.params.items()
    ]
    quality = [("rms residual (nats)", _number(fit.rmse, 4), "")]
    if fit.r2 is not None:
        quality.append(("$R^2$", f"${fit.r2:.4f}$", ""))
    c = fit.conventions
    worth = r"r^{\varphi}" if c.multiplicity == "power" else "m(r)"
    law = _LAWS[c.law] + _ARMS[fit.fitted.arms_differ]
    note = (
        f"{law}, $N_{{\\text{{eff}}}} = N_{{\\text{{once}}}} + "
        f"{worth}\\,N_{{\\text{{rec}}}}$; {_estimator(fit)}; weights {escaped(fit.weighting)}. "
        f"{fit.n_runs} runs of {escaped(fit.recipe)} ({escaped(fit.source)}), "
        f"{fit.n_excluded} excluded. {_method(fit)}{_without_law(fit)}"
    )
    return _table("lrl", ("parameter", "value", r"95\% interval"), [rows, quality], note)


def _without_law(fit: Fit) -> str:
    """Both exponents without a law, named apart; nothing where there is none."""
    found = fit.law_free
    if found is None:
        return ""
    split = found["split"]
    constants = {"tokens": (r"tokens $\times", "tokens_ratio"), "loss": ("nats $+", "loss_offset")}

    def both(phis: dict[str, Any]) -> str:
        named = (
            ("anchored at $m(1) = 1$", phis["phi"]),
            ("among looped arms", phis["phi_looped"]),
        )
        return ", ".join(
            f"{words} ${one['value']:.3f}$ {_phis(tuple(one['ci95']), '.3f')}"
            for words, one in named
            if one
        )

    said = f"$\\varphi$ without a law: {both(found)}"
    if split["kind"] in constants:
        words, name = constants[split["kind"]]
        said += (
            f"; with a constant for looped arms ({words} {_plain(split[name]['value'], 3)}$): "
            f"{both(split)}"
        )
    return f" {said}."


def compare_latex(results: Sequence[Comparison]) -> str:
    """φ and Δφ of every recipe compared with one baseline, by the laws and at equal r."""
    first = results[0]
    phi = (_phi(first.phi_baseline, ".3f"), _phis(first.ci95["phi_baseline"], ".3f"))
    base = [(escaped(first.baseline), str(first.n_runs_baseline), *phi, "", "", "", "")]
    rows = [
        (
            escaped(r.recipe),
            str(r.n_runs_recipe),
            _phi(r.phi_recipe, ".3f"),
            _phis(r.ci95["phi_recipe"], ".3f"),
            _phi(r.delta_phi, "+.3f"),
            _phis(r.ci95["delta_phi"], "+.3f"),
            *_at_equal_r(r),
        )
        for r in results
    ]
    laws = "a law for each recipe" if first.method == "separate" else "one law for both recipes"
    verdicts = " ".join(
        f"{escaped(r.recipe)}: {escaped(_minus(r.verdict))}."
        for r in results
        if r.split or r.ci95["delta_phi"]
    )
    told = _EQUAL_R if any(r.split for r in results) else ""
    note = (
        f"{_LAWS[first.conventions.law]}, {laws}; {_estimator(first)}. Runs: "
        f"{escaped(first.source)}. {_method(first)} {told}{verdicts}"
    )
    heads = (
        *("recipe", "runs", r"$\varphi$", r"95\%", r"$\Delta\varphi$, laws", r"95\%"),
        *(r"$\Delta\varphi$, equal $r$", r"95\%"),
    )
    return _table("lrrlrlrl", heads, [base, rows], note)


def _at_equal_r(result: Comparison) -> tuple[str, str]:
    """Δφ over the admissible forms, and its interval."""
    split = result.split
    if split is None:
        return "not compared", ""
    delta = split.delta_phi
    if delta is None or split.sign is None:
        return "not identified", ""
    return "" if delta.value is None else _phi(delta.value, "+.3f"), _phis(delta.ci95, "+.3f")


def _minus(text: str) -> str:
    """Text with a minus sign before its negative numbers."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def write_latex(text: str, path: Path) -> None:
    """Write a table to a file. Raises InputError where it can't be written."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from error


def _table(
    columns: str,
    heads: tuple[str, ...],
    parts: Sequence[Sequence[tuple[str, ...]]],
    note: str,
) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(cells).rstrip() + r" \\"

    body = "\n\\midrule\n".join("\n".join(map(line, part)) for part in parts)
    return "\n".join(
        [
            r"% \usepackage{amsmath,booktabs}",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            line(heads),
            r"\midrule",
            body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            rf"\par\smallskip\noindent\begin{{minipage}}{{\linewidth}}\footnotesize {note.strip()}"
            r"\end{minipage}",
            "",
        ]
    )


def _symbol(name: str) -> str:
    return _SYMBOLS.get(name) or f"$m({name.removeprefix('m')})$"


def _estimator(result: Fit | Comparison) -> str:
    c = result.conventions
    name = (
        f"Huber ($\\delta = {_plain(c.huber_delta, 3)}$)"
        if c.estimator == "huber"
        else "least squares"
    )
    return f"{name} on log loss; injection counted \\emph{{{escaped(c.count_injection)}}}"


def _method(result: Fit | Comparison) -> str:
    if not result.n_resamples:
        return ""
    return f"Intervals: {escaped(result.interval_method)}; {result.n_resamples} resamples."


def _phi(value: float | None, form: str) -> str:
    return "not identified" if value is None else f"${value:{form}}$"


def _phis(ci95: Interval | None, form: str) -> str:
    return "" if ci95 is None else f"$[{ci95[0]:{form}}, {ci95[1]:{form}}]$"


def _interval(ci95: Interval | None) -> str:
    return "" if ci95 is None else f"$[{_plain(ci95[0], 4)}, {_plain(ci95[1], 4)}]$"


def _number(value: float, digits: int) -> str:
    return f"${_plain(value, digits)}$"


def _plain(value: float, digits: int) -> str:
    """A number in math mode, its exponent as a power of ten."""
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}"

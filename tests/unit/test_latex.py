"""LaTeX tables: whole to LaTeX's eye, whatever a run table calls its recipes."""

import re
from dataclasses import replace

import conftest
import pytest

from isodepth import InputError, compare, fit
from isodepth.report.latex import compare_latex, escaped, fit_latex, write_latex

EVIL = r"50% of #1 & $x_2^{n}$ ~ \input{secret} <b> |a| " + '"q"'


def whole(text):
    """Groups, environments and mathematics are closed, and every row has the cells it needs."""
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)
    depth = 0
    for c in bare:
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert re.findall(r"\\begin{(\w+)}", text) == ["tabular", "minipage"]
    assert re.findall(r"\\end{(\w+)}", text) == ["tabular", "minipage"]
    columns = len(re.search(r"\\begin{tabular}{@{}(\w+)@{}}", text)[1])
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == columns - 1
    outside = re.sub(r"\$.*?\$", "", bare.split("\n", 1)[1])
    assert not re.search(r"[%#_^~<>|\"]", outside)
    assert text.isascii()
    return rows


@pytest.fixture(scope="module")
def fitted():
    return fit(conftest.sweep(noise=0.002), bootstrap=50)


def test_a_fit_has_its_parameters_intervals_and_conventions(fitted):
    text = fit_latex(fitted)
    rows = whole(text)
    low, high = fitted.interval("phi")
    assert rf"$\varphi$ & ${fitted.phi:.6g}$ & $[{low:.4g}, {high:.4g}]$ \\" in rows
    assert len(rows) == 1 + 6 + 2
    for words in ("Huber ($\\delta = 0.001$)", r"counted \emph{once}", "48 runs of baseline"):
        assert words in text


def test_text_of_a_run_table_is_no_command(fitted):
    text = fit_latex(replace(fitted, recipe=EVIL, source=EVIL))
    whole(text)
    assert escaped(EVIL) in text
    assert r"\input" not in text


def test_numbers_that_can_not_be_told_and_very_large_ones(fitted):
    params = fitted.params | {"phi": None, "B": 1.234567e12}
    text = fit_latex(replace(fitted, params=params, ci95=dict.fromkeys(params), n_resamples=0))
    rows = whole(text)
    assert r"$\varphi$ & not identified & \\" in rows
    assert r"$B$ & $1.23457 \times 10^{12}$ & \\" in rows
    assert "Intervals" not in text


def test_a_free_multiplicity_is_named_by_its_r():
    text = fit_latex(fit(conftest.sweep(noise=0.002), multiplicity="free", bootstrap=0))
    whole(text)
    assert "$m(4)$ &" in text


def test_a_comparison(tmp_path):
    result = compare(conftest.two_recipes(noise=0.001), recipe="probe", bootstrap=50)
    text = compare_latex([replace(result, recipe=EVIL), result])
    rows = whole(text)
    low, high = result.ci95["delta_phi"]
    assert f"& ${result.delta_phi:+.3f}$ & $[{low:+.3f}, {high:+.3f}]$" in rows[-1]
    delta = result.split.delta_phi
    low, high = delta.ci95
    assert f"& ${delta.value:+.3f}$ & $[{low:+.3f}, {high:+.3f}]$ \\\\" in rows[-1]
    words = "δ₀ + δ₁·ln r from -0.06 to ν; a-3"
    bare = replace(result, verdict=words, split=None)
    text = compare_latex([bare])
    assert whole(text)[-1].endswith("& not compared & \\\\")
    assert r"$\delta$$_0$ + $\delta$$_1$$\cdot$ln r from $-$0.06 to $\nu$; a-3" in text
    with pytest.raises(InputError, match="can't be written"):
        write_latex(text, tmp_path / "none" / "table.tex")

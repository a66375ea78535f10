"""Static figures show names as they are, whatever a run table calls its recipes."""

from dataclasses import replace
from html import unescape

import conftest
import pytest

from isodepth import compare, fit, load_runs
from isodepth.report.compare_figures import (
    channels_figure,
    forms_figure,
    paired_figure,
    write_compare_figures,
)
from isodepth.report.drawn import drawn_of_comparisons, drawn_of_table
from isodepth.report.equal_r import form_range, form_rows
from isodepth.report.figures import (
    isoflop_figure,
    profile_figure,
    sensitivity_figure,
    write_figures,
)
from isodepth.report.worth_figures import worth_figures

NAME = r"a$\frac{$ <b>_&"


@pytest.fixture(scope="module")
def runs():
    frame = conftest.two_recipes(noise=0.002).frame.copy()
    frame["recipe"] = frame["recipe"].replace({"probe": NAME})
    return load_runs(frame)


@pytest.fixture(scope="module")
def result(runs):
    return compare(runs, recipe=NAME, bootstrap=50)


def named(paths, name):
    return NAME in unescape(next(p for p in paths if p.name == name).read_text(encoding="utf-8"))


def test_of_comparisons(runs, result, tmp_path):
    paths = write_compare_figures(runs, [result], drawn_of_comparisons(runs, [result]), tmp_path)
    assert {p.suffix for p in paths} == {".svg", ".pdf", ".png"}
    for figure in ("paired", "forms", "delta_phi", "channels", "isoflop", "residuals"):
        assert named(paths, f"{figure}.svg"), figure
    assert [p.stem for p in paths][::3][:4] == ["paired", "forms", "delta_phi", "channels"]


def test_what_is_told_at_equal_r_is_drawn(result):
    axes = paired_figure([result]).axes[0]
    dots = {
        (float(x), float(y))
        for line in axes.lines
        if line.get_linestyle() == "None"
        for x, y in line.get_xydata()
    }
    assert dots == {(r.tokens_per_parameter, r.delta_log_loss) for r in result.paired.runs}
    drawn = {
        (line.get_linestyle(), float(x), float(y))
        for line in axes.lines
        if line.get_linestyle() in ("-", ":") and line.get_marker() == "None"
        for x, y in line.get_xydata()
    }
    for run in result.paired.runs:
        assert ("-", run.tokens_per_parameter, run.by_form) in drawn
        assert (":", run.tokens_per_parameter, run.by_phi) in drawn
    axes = forms_figure([result]).axes[0]
    rows = form_rows(result)
    assert [t.get_text() for t in axes.get_yticklabels()] == [row.label for row in rows]
    marks = {(float(x), float(y)) for line in axes.lines for x, y in line.get_xydata()[:1]}
    assert {(row.value, float(i)) for i, row in enumerate(rows)} <= marks
    assert [row.kind for row in rows].count("holds") == 1
    low, high = form_range(result)
    strong = [row.ci95 for row in rows if row.kind != "no" and row.ci95]
    assert all(low < end < high for ends in strong for end in ends)


def untold(result):
    """The same where what is left over can't be told to be φ."""
    return replace(
        result,
        channels=tuple(
            replace(
                c,
                **{
                    sizes: replace(
                        getattr(c, sizes),
                        capacity=None,
                        other=None,
                        ci95=getattr(c, sizes).ci95 | {"capacity": None, "other": None},
                    )
                    for sizes in ("optimal", "equal_size")
                },
            )
            for c in result.channels
        ),
    )


def test_shares_that_are_not_told_apart_stand_together(result):
    figure = channels_figure([untold(result)])
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels[:2] == ["token budget", "capacity and other,\nnot told apart"]
    channel = min(result.channels, key=lambda c: (c.recurrences, c.budget_flops)).optimal
    heights = [bar.get_height() for bar in figure.axes[0].patches[:2]]
    assert heights == pytest.approx([channel.token_budget, channel.capacity_and_other])
    assert sum(heights) == pytest.approx(channel.delta_loss)


def test_without_pairs_there_is_no_figure_of_them(result):
    unpaired = replace(result, paired=None, split=None)
    assert paired_figure([unpaired]) is None
    assert forms_figure([unpaired]) is None


def test_of_a_fit(runs, tmp_path):
    found = fit(runs, recipe=NAME, bootstrap=50)
    paths = write_figures(runs, found, drawn_of_table(runs, found), tmp_path)
    for figure in ("isoflop", "profile", "sensitivity", "worth", "worth_map"):
        assert named(paths, f"{figure}.svg"), figure


def test_what_can_not_be_told_has_no_figure(runs):
    found = fit(runs, recipe=NAME, multiplicity="free", bootstrap=0)
    drawn = drawn_of_table(runs, found)
    assert profile_figure(drawn[:1]) is None
    assert sensitivity_figure(found) is None
    assert isoflop_figure(runs, drawn) is not None
    worth = {name for name, figure in worth_figures(found) if figure is not None}
    assert worth == {"worth", "worth_residuals", "worth_map"}
    # without budgets there is no iso-FLOP curve
    bare = runs.frame.drop(columns=["budget_flops", "flops", "flops_per_token"])
    table = load_runs(bare)
    found = fit(table, recipe=NAME, bootstrap=0, sensitivity=False)
    drawn = drawn_of_table(table, found)
    assert isoflop_figure(table, drawn) is None
    assert dict(worth_figures(found))["worth_map"] is None
    # without unlooped runs nothing is measured without a law
    table = load_runs(runs.frame[(runs.frame["recurrences"] > 1) & (runs.frame["recipe"] == NAME)])
    found = fit(table, recipe=NAME, bootstrap=0, sensitivity=False)
    assert not worth & {name for name, figure in worth_figures(found) if figure is not None}

"""Static figures show names as they are, whatever a run table calls its recipes."""

from html import unescape

import conftest
import pytest

from isodepth import compare, fit, load_runs
from isodepth.report.compare_figures import write_compare_figures
from isodepth.report.drawn import drawn_of_comparisons, drawn_of_table
from isodepth.report.figures import write_figures

NAME = r"a$\frac{$ <b>_&"


@pytest.fixture(scope="module")
def runs():
    frame = conftest.two_recipes(noise=0.002).frame.copy()
    frame["recipe"] = frame["recipe"].replace({"probe": NAME})
    return load_runs(frame)


def named(paths, name):
    return NAME in unescape(next(p for p in paths if p.name == name).read_text(encoding="utf-8"))


def test_of_comparisons(runs, tmp_path):
    result = compare(runs, recipe=NAME, bootstrap=50)
    paths = write_compare_figures(runs, [result], drawn_of_comparisons(runs, [result]), tmp_path)
    assert {p.suffix for p in paths} == {".svg", ".pdf", ".png"}
    for figure in ("delta_phi", "channels", "isoflop", "residuals"):
        assert named(paths, f"{figure}.svg"), figure


def test_of_a_fit(runs, tmp_path):
    found = fit(runs, recipe=NAME, bootstrap=50)
    paths = write_figures(runs, found, drawn_of_table(runs, found), tmp_path)
    for figure in ("isoflop", "profile", "sensitivity", "worth", "worth_map"):
        assert named(paths, f"{figure}.svg"), figure


def test_what_can_not_be_told_has_no_figure(runs, tmp_path):
    found = fit(runs, recipe=NAME, multiplicity="free", bootstrap=0)
    paths = write_figures(runs, found, drawn_of_table(runs, found), tmp_path)
    worth = {"worth", "worth_residuals", "worth_map"}
    assert {p.stem for p in paths} == {"isoflop", "predicted", "residuals"} | worth
    # without budgets there is no iso-FLOP curve
    bare = runs.frame.drop(columns=["budget_flops", "flops", "flops_per_token"])
    table = load_runs(bare)
    found = fit(table, recipe=NAME, bootstrap=0, sensitivity=False)
    paths = write_figures(table, found, drawn_of_table(table, found), tmp_path)
    assert not {"isoflop", "worth_map"} & {p.stem for p in paths}
    # without unlooped runs nothing is measured without a law
    table = load_runs(runs.frame[(runs.frame["recurrences"] > 1) & (runs.frame["recipe"] == NAME)])
    found = fit(table, recipe=NAME, bootstrap=0, sensitivity=False)
    paths = write_figures(table, found, drawn_of_table(table, found), tmp_path)
    assert not worth & {p.stem for p in paths}

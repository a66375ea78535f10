"""What is shown of a pass's worth without a law: the same numbers in the report and on the page."""

from dataclasses import replace

import conftest
import numpy as np
import pytest

from isodepth import fit
from isodepth.report.worth import map_cells, worth_content, worth_rows


@pytest.fixture(scope="module")
def fitted(published):
    return fit(published, bootstrap=50, sensitivity=False)


def by_title(found):
    return {one.title: one for one in worth_rows(found)}


def test_m_stands_beside_what_the_law_says(fitted):
    table = by_title(fitted)["What r passes are worth, m(r)"]
    free = fitted.lack_of_fit["multiplicities"]["free"]["multiplicity"]
    for row, one, split in zip(
        table.rows, fitted.law_free["m"], fitted.law_free["split"]["m"], strict=True
    ):
        r = one["recurrences"]
        low, high = one["ci95"]
        assert row[:3] == (
            f"{r:g}",
            f"{one['value']:.2f} [{low:.2f}, {high:.2f}]",
            str(one["n_runs"]),
        )
        assert row[3].startswith(f"{r**fitted.phi:.2f} [")
        assert row[4] == f"{free[f'{r:g}']:.2f}"
        assert row[5].startswith(f"{split['value']:.2f} [")
    assert table.columns[-1] == "with κ split off"
    assert [len(row) for row in table.rows] == [len(table.columns)] * 3


def test_the_two_exponents_are_named_apart(fitted):
    table = by_title(fitted)["φ without a law, two of them"]
    found, split = fitted.law_free, fitted.law_free["split"]
    said = {row[0]: row[1:] for row in table.rows}
    anchored = said["φ anchored at m(1) = 1"]
    among = said["φ among looped arms (slope of log m in log r, r > 1)"]
    assert [x.split()[0] for x in anchored] == [f"{f['phi']['value']:.3f}" for f in (found, split)]
    assert [x.split()[0] for x in among] == [
        f"{f['phi_looped']['value']:.3f}" for f in (found, split)
    ]


def test_checks_say_what_was_tested_and_left_out(fitted):
    said = dict(by_title(fitted)["Checks without a law"].rows)
    found = fitted.law_free
    assert said["r^φ against free m"] == f"p = {found['power_law']['p_value']:.2g}"
    assert f"p = {found['drift']['budget']['p_value']:.2g}" in said["drift: budget"]
    kappa = found["split"]["tokens_ratio"]["value"]
    assert said["looped arms: tokens × κ"].startswith(f"κ = {kappa:.3f} [")
    assert said["looped arms: loss + δ"].startswith("δ = +0.01")
    assert said["surface of unlooped runs"].startswith("polynomial of degree 3, 29 runs, rms 0.000")
    assert said["twins outside, left out"].startswith(
        "6 of 29 at r = 2, 8 of 29 at r = 4, 9 of 29 at r = 8; unlooped runs of 16.1M to 107M"
    )


def test_the_report_shows_it_after_the_parameters_and_no_wider_than_its_tables(fitted):
    text = fitted.report()
    order = [text.index(s) for s in ("φ, by profile", "m without a law", "rms residual")]
    assert order == sorted(order)
    for one in worth_rows(fitted):
        for row in one.rows[:-1] if one.title.startswith("Checks") else one.rows:
            assert row[0] in text  # whole: not broken into lines
            assert row[1] in text
    assert "φ, by groups" in text
    assert "φ, averaged over error structures" in text
    assert "residuals along r" in text


def test_without_a_measurement_nothing_is_shown(fitted):
    bare = replace(fitted, law_free=None)
    assert (worth_rows(bare), worth_content(bare)) == ((), [])
    assert "without a law" not in bare.report().split("Warnings")[0]
    assert "m(r), free" in bare.report()


def test_where_no_constant_is_told_there_is_no_column_of_it():
    found = fit(conftest.sweep(noise=0.0005), bootstrap=0, sensitivity=False)
    assert found.law_free["split"]["kind"] == "none"
    assert worth_content(found)[0]["split"] is None
    for one in worth_rows(found):
        assert not any("split off" in c for c in one.columns)
        assert {len(row) for row in one.rows} == {len(one.columns)}


def test_the_map_has_every_run_over_the_phi_of_the_law(fitted):
    cells = map_cells(fitted, fitted.law_free)
    assert cells.phi == fitted.phi
    for twin in fitted.law_free["twins"]:
        at = cells.grids[twin["recurrences"]][
            cells.widths.index(twin["width"]) if twin["width"] in cells.widths else slice(None),
            cells.budgets.index(twin["budget_flops"])
            if twin["budget_flops"] in cells.budgets
            else slice(None),
        ]
        if twin["kept"]:
            wanted = twin["m"] / twin["recurrences"] ** fitted.phi
            assert np.exp(at) == pytest.approx(wanted)
        else:
            assert np.isnan(at).any()
    # a fit without a φ of its own is set against the one without a law
    free = replace(fitted, params={k: v for k, v in fitted.params.items() if k != "phi"})
    assert map_cells(free, fitted.law_free).phi == fitted.law_free["phi"]["value"]


def test_the_warning_of_errors_along_r_names_the_interval_that_was_not_taken(published):
    for recipe in ("baseline", "hyperconnections"):
        found = fit(published, recipe=recipe, bootstrap=50, sensitivity=False)
        both = found.errors_along_r
        said = next(w.text for w in found.warnings if w.code == "errors_along_r")
        averaged = found.interval_method.startswith("averaged")
        assert ("averages over error structures" in said) == averaged
        low, high = both["ci95_groups" if averaged else "ci95_structures"]
        assert f"[{low:.3f}, {high:.3f}]" in said
        taken = both["ci95_structures" if averaged else "ci95_groups"]
        assert found.interval("phi") == pytest.approx(taken)

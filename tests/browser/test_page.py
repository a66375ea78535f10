"""The page in a real browser: it draws, answers, stays on its own and shows text as text."""

import re
from dataclasses import replace

import conftest
import numpy as np
import programs
import pytest

from isodepth import account, compare, fit, load_runs
from isodepth.comparing.channels import CHANNELS
from isodepth.planning.advice import equivalent_to_width
from isodepth.report.drawn import drawn_of_comparisons, drawn_of_table
from isodepth.report.equal_r import form_rows
from isodepth.report.forest import forest_rows
from isodepth.report.page import compare_page, fit_page, sweep_page, write_page

pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api")
programs.need("browser", "chromium")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EVIL = (
    "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
    "</script><b>bold</b><a href='javascript:window.hurt = 1'>go</a>$\\frac{$"
)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def sweep():
    return conftest.sweep(noise=0.002)


@pytest.fixture(scope="module")
def fitted(sweep):
    return fit(sweep, bootstrap=50)


@pytest.fixture
def opened(browser):
    """Opens a page's file; at the end nothing was complained of and nothing asked for."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    complaints, asked = [], []

    def go(path):
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("request", lambda r: asked.append(r.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]")
        return page

    yield go
    context.close()
    assert complaints == []
    assert [a for a in asked if not a.startswith(("file:", "data:", "blob:"))] == []
    assert len([a for a in asked if a.startswith("file:")]) == 1


def lines(page):
    return page.evaluate(
        "[...document.querySelectorAll('#law-0 .plot')].map(d => d.data"
        ".filter(t => t.mode === 'lines').map(t => [t.line.dash ?? 'solid', [...t.y]]))"
    )


@pytest.fixture(scope="module")
def written(sweep, fitted, tmp_path_factory):
    return write_page(
        tmp_path_factory.mktemp("page"),
        lambda: fit_page(sweep, fitted, drawn_of_table(sweep, fitted), "table.csv"),
    )[0]


def test_the_slider_moves_the_law_and_shows_the_refit(opened, written, sweep, fitted):
    page = opened(written)
    before = lines(page)
    page.focus("#phi")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    phi = float(page.inner_text("#phi-value"))
    assert phi == pytest.approx(fitted.phi + 0.1, abs=0.0051)
    unlooped, looped = lines(page)[0], lines(page)[-1]
    held = [y for dash, y in looped if dash == "solid"]
    refit = [y for dash, y in looped if dash == "dash"]
    assert len(held) == len(refit) == 3
    # a looped model is worth more at a higher φ, and r = 1 hears of φ in the refit alone
    assert all(np.max(np.subtract(h, y)) < 0 for h, (_, y) in zip(held, before[-1], strict=True))
    assert [y for d, y in unlooped if d == "solid"] == [y for _, y in before[0]]
    assert [y for d, y in unlooped if d == "dash"] != [y for _, y in before[0]]
    page.click("#reset")
    assert lines(page) == before


def test_the_curves_are_the_law(opened, written, sweep, fitted):
    page = opened(written)
    rows = sweep.frame[(sweep.frame["recurrences"] == 8)].sort_values(["budget_flops", "n_once"])
    said = fitted.predict(
        **{n: rows[n] for n in ("n_once", "n_rec", "n_inject", "recurrences", "tokens")}
    )
    ends = [x for _, y in lines(page)[-1] for x in (y[0], y[-1])]
    assert ends == pytest.approx([x for s in said.reshape(3, -1) for x in (s[0], s[-1])])


@pytest.mark.parametrize("arms", ["tokens", "loss"])
def test_the_curves_of_looped_arms_that_differ_are_the_law(opened, sweep, arms, tmp_path):
    found = fit(sweep, arms_differ=arms, bootstrap=0, sensitivity=False)
    page = opened(
        write_page(
            tmp_path, lambda: fit_page(sweep, found, drawn_of_table(sweep, found), "table.csv")
        )[0]
    )
    curves = lines(page)
    for r, panel in ((1, curves[0]), (8, curves[-1])):
        rows = sweep.frame[sweep.frame["recurrences"] == r].sort_values(["budget_flops", "n_once"])
        said = found.predict(
            **{n: rows[n] for n in ("n_once", "n_rec", "n_inject", "recurrences", "tokens")}
        )
        ends = [x for _, y in panel for x in (y[0], y[-1])]
        assert ends == pytest.approx([x for s in said.reshape(3, -1) for x in (s[0], s[-1])])
    assert "isodepth equivalent gives it" in page.inner_text("#worth").replace("\u00a0", " ")


def test_hover_names_the_run(opened, written, sweep):
    page = opened(written)
    # over the dot itself
    dot = page.locator("#law-0 .plot").nth(0).locator("path.point").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#law-0 .hoverlayer .hovertext")
    assert re.match(r"c1e\+18-w\d+-r1", page.text_content("#law-0 .hoverlayer .hovertext"))


def test_worth_without_a_law_is_drawn_as_measured(opened, written, fitted):
    found = fitted.law_free
    page = opened(written)
    drawn = page.evaluate(
        "[...document.querySelectorAll('#free-0 .plot')].map(d => d.data.map(t => ({name: t.name,"
        "x: [...t.x], y: [...t.y], above: t.error_y && [...t.error_y.array]})))"
    )
    by_name = {trace["name"]: trace for trace in drawn[0]}
    own = by_name["without a law"]
    assert own["x"] == [one["recurrences"] for one in found["m"]]
    assert own["y"] == pytest.approx([one["value"] for one in found["m"]])
    above = [one["ci95"][1] - one["value"] for one in found["m"]]
    assert own["above"] == pytest.approx(above)
    free = fitted.lack_of_fit["multiplicities"]["free"]["multiplicity"]
    assert by_name["the law's free m"]["y"] == pytest.approx(list(free.values()))
    line = next(t for name, t in by_name.items() if name and name.startswith("r<sup>"))
    assert line["y"] == pytest.approx([r**fitted.phi for r in line["x"]])
    kept = [one for one in found["twins"] if one["kept"]]
    left = sorted(y for trace in drawn[1] for y in trace["y"])
    assert left == pytest.approx(sorted(1e4 * one["residual"] for one in kept))
    cells = page.evaluate(
        "[...document.querySelectorAll('#map-0 .plot')].map(d => d.data[0].z.flat())"
    )
    assert len(cells) == 3
    shown = sorted(z for panel in cells for z in panel if z is not None)
    wanted = sorted(np.log(t["m"]) - fitted.phi * np.log(t["recurrences"]) for t in kept)
    assert shown == pytest.approx(wanted)
    said = page.inner_text("#tables").replace("\u00a0", " ")
    low, high = found["phi"]["ci95"]
    assert f"{found['phi']['value']:.3f} [{low:.3f}, {high:.3f}]" in said


def read_size(text):
    number, unit = re.match(r"([\d.]+)([kMB])", text).groups()
    return float(number) * {"k": 1e3, "M": 1e6, "B": 1e9}[unit]


@pytest.mark.parametrize(
    ("counting", "shapes"),
    [
        ("once", [("linear", 2, None), ("hyperconnections", 2, None)]),
        ("regressed", [("linear", 2, 3), ("hyperconnections", 5, 4)]),
        ("rec", [("additive", 2, 8), ("linear", 2, 1)]),
        ("none", [("passthrough", 2, 1)]),
    ],
)
def test_the_calculator_agrees_with_the_command(opened, sweep, tmp_path, counting, shapes):
    counted = fit(sweep, bootstrap=0, sensitivity=False, count_injection=counting)
    page = opened(
        write_page(
            tmp_path, lambda: fit_page(sweep, counted, drawn_of_table(sweep, counted), "table.csv")
        )[0]
    )
    page.fill("#c-width", "1024")
    page.fill("#c-r", "8")
    for injection, lanes, last in shapes:
        page.select_option("#c-injection", injection)
        page.fill("#c-last", "" if last is None else str(last))
        assert page.is_visible("#c-lanes") == (injection == "hyperconnections")
        if injection == "hyperconnections":
            page.fill("#c-lanes", str(lanes))
        told = equivalent_to_width(
            counted, width=1024, recurrences=8, injection=injection, lanes=lanes, backprop_last=last
        )
        shown = page.locator("#worth dd").all_inner_texts()
        wanted = (told.unique_params, told.equivalent_params.value, told.same_cost_params)
        assert [read_size(t) for t in shown[:3]] == pytest.approx(wanted, rel=5e-3)
        assert float(shown[3]) == pytest.approx(told.flops_per_token, rel=1e-3)


def test_the_calculator_starts_from_the_shape_of_the_runs(opened, tmp_path):
    shape = {"depth": 10, "prelude": 1, "coda": 1, "vocab": 320, "sequence_length": 64}
    frame = conftest.sweep(widths=(8, 12, 16, 24)).frame.copy()
    for row in frame.itertuples():
        a = account(width=int(row.width), recurrences=int(row.recurrences), **shape)
        for name in ("n_once", "n_rec", "n_inject", "flops_per_token"):
            frame.loc[row.Index, name] = getattr(a, name)
    frame[["budget_flops", "flops"]] *= 3e-7
    frame["tokens"] = frame["budget_flops"] / frame["flops_per_token"]
    n = frame["n_once"] + frame["n_inject"] + frame["recurrences"] ** 0.45 * frame["n_rec"]
    frame["loss"] = 1.6 + 9 * n**-0.25 + 900 * frame["tokens"] ** -0.5 + 0.002 * np.sin(frame.index)
    runs = load_runs(frame)
    result = fit(runs, bootstrap=0, sensitivity=False)

    def content():
        return sweep_page(
            runs, [result], [], "t.csv", title="small", said=[], trust=[], command=["isodepth"],
            vocab=320, sequence_length=64,
        )  # fmt: skip

    page = opened(write_page(tmp_path, content)[0])
    fields = {"width": 24, "r": 4, "depth": 10, "outside": 2, "vocab": 320, "tokens": 64}
    assert {n: int(page.input_value(f"#c-{n}")) for n in fields} == fields
    own = account(width=24, recurrences=4, **shape)
    worth = page.locator("#worth dd").all_inner_texts()
    assert read_size(worth[0]) == pytest.approx(own.n_total, rel=5e-3)
    assert "extrapolated" not in worth[0]
    assert float(worth[3]) == pytest.approx(own.flops_per_token, rel=1e-3)
    page.fill("#c-width", "2048")
    assert "the law is extrapolated" in page.inner_text("#worth")


def test_the_calculator_says_what_can_not_be(opened, written):
    page = opened(written)
    page.fill("#c-r", "3")
    assert "divides depth − 4" in page.inner_text("#worth")
    page.fill("#c-r", "4")
    page.fill("#c-last", "5")
    assert "no more passes with gradient" in page.inner_text("#worth")


def test_the_table_searches_and_sorts(opened, written, sweep):
    page = opened(written)
    page.fill("#search", "r8")
    rows = sweep.frame[sweep.frame["recurrences"] == 8]
    # as the table has them, until a column is asked for
    shown = page.locator("#runs tbody td:nth-child(1)").all_inner_texts()
    assert shown == list(rows["run_id"])
    page.get_by_role("button", name="loss").click()
    losses = [float(x) for x in page.locator("#runs tbody td:nth-child(5)").all_inner_texts()]
    assert losses == sorted(losses)


def test_text_of_a_run_table_is_only_text(opened, sweep, tmp_path):
    frame = sweep.frame.copy()
    frame["run_id"] = [f"{i}{EVIL}" for i in range(len(frame))]
    frame["recipe"] = EVIL
    frame["note"] = EVIL
    frame[EVIL] = EVIL
    path = tmp_path / "<img src=x onerror=hurt()>.csv"
    frame.to_csv(path, index=False)
    runs = load_runs(path)
    shown = fit(runs, bootstrap=0)
    page = opened(
        write_page(
            tmp_path, lambda: fit_page(runs, shown, drawn_of_table(runs, shown), "table.csv")
        )[0]
    )
    dot = page.locator("#law-0 .plot").nth(0).locator("path.point").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#law-0 .hoverlayer .hovertext")
    assert "<b>bold</b>" in page.text_content("#law-0 .hoverlayer .hovertext")
    assert "<script>" in page.inner_text("#runs tbody")
    assert EVIL in page.text_content("#residuals .gtitle")
    assert page.evaluate("window.hurt") is None
    assert page.locator("main img, main a, svg a, main script").count() == 0


@pytest.fixture(scope="module")
def two():
    runs = conftest.two_recipes(noise=0.002)
    return runs, compare(runs, recipe="probe", bootstrap=50)


def traces(page, holder):
    return page.evaluate(
        "holder => [...document.querySelectorAll(`${holder} .plot`)].map(d => d.data.map(t => ({"
        "type: t.type, x: [...t.x], y: [...t.y], above: t.error_y && [...t.error_y.array],"
        "below: t.error_y && [...t.error_y.arrayminus]})))",
        holder,
    )


def test_a_comparison_shows_every_share_with_its_interval(opened, two, tmp_path):
    runs, result = two
    page = opened(
        write_page(
            tmp_path,
            lambda: compare_page(runs, [result], drawn_of_comparisons(runs, [result]), "table.csv"),
        )[0]
    )
    for sizes in ("optimal", "equal_size"):
        page.select_option("#sizes", sizes)
        panels = traces(page, "#channels")
        assert len(panels) == 3
        for r, panel in zip((2, 4, 8), panels, strict=True):
            splits = [getattr(c, sizes) for c in result.channels if c.recurrences == r]
            bars, whiskers = panel[:3], panel[3:]
            for name, bar in zip(CHANNELS, bars, strict=True):
                assert bar["type"] == "bar"
                assert bar["y"] == pytest.approx([getattr(s, name) for s in splits])
            assert whiskers[3]["y"] == pytest.approx([s.delta_loss for s in splits])
            for name, whisker in zip((*CHANNELS, "delta_loss"), whiskers, strict=True):
                high = [s.ci95[name][1] - getattr(s, name) for s in splits]
                low = [getattr(s, name) - s.ci95[name][0] for s in splits]
                assert whisker["above"] == pytest.approx(high)
                assert whisker["below"] == pytest.approx(low)
            # shares of one sign stand on each other, and a whisker on its share's end
            ends = [whisker["y"] for whisker in whiskers[:3]]
            for i, split in enumerate(splits):
                falls = [getattr(split, n) for n in CHANNELS if getattr(split, n) < 0]
                assert min(end[i] for end in ends) == pytest.approx(sum(falls))
    drawn = page.evaluate(
        "[...document.querySelectorAll('#channels .plot')].map(d => "
        "d.querySelectorAll('.errorbar').length)"
    )
    assert drawn == [12, 12, 12]


def test_a_comparison_shows_verdict_profiles_and_sensitivity(opened, two, tmp_path):
    runs, result = two
    page = opened(
        write_page(
            tmp_path,
            lambda: compare_page(runs, [result], drawn_of_comparisons(runs, [result]), "table.csv"),
        )[0]
    )
    low, high = result.ci95["delta_phi"]
    said = page.inner_text("#headlines").replace("\u00a0", " ")
    delta = result.split.delta_phi
    assert (
        f"probe: Δφ = {delta.value:+.3f} [{delta.ci95[0]:+.3f}, {delta.ci95[1]:+.3f}] "
        f"(by the laws {result.delta_phi:+.3f} [{low:+.3f}, {high:+.3f}])" in said
    )
    assert all(part in said for part in result.verdict.split("; "))
    titles = page.locator("#profile .gtitle").all_text_contents()
    for title, name, phi in zip(
        titles, ("baseline", "probe"), (result.phi_baseline, result.phi_recipe), strict=True
    ):
        low, high = result.ci95[f"phi_{'baseline' if name == 'baseline' else 'recipe'}"]
        assert f"φ = {phi:.3f} [{low:.3f}, {high:.3f}]" in title
    rows = [value for value, _ in forest_rows(result).values() if value is not None]
    assert page.locator("#forest .point").count() == len(rows)
    assert page.locator("#forest .xerror").count() == len(rows)


def test_a_comparison_shows_pairs_and_forms_first(opened, two, tmp_path):
    runs, result = two
    page = opened(
        write_page(
            tmp_path,
            lambda: compare_page(runs, [result], drawn_of_comparisons(runs, [result]), "table.csv"),
        )[0]
    )
    assert page.locator(".plot").first.evaluate("d => d.parentElement.id") == "paired-0"
    (shown,) = page.evaluate(
        "[...document.querySelectorAll('#paired .plot')].map(d => d.data.map(t => "
        "[t.mode, t.line?.dash ?? '', [...t.x], [...t.y]]))"
    )
    for mode, dash, by in (
        ("markers", "", "delta_log_loss"),
        ("lines", "solid", "by_form"),
        ("lines", "dot", "by_phi"),
    ):
        dots = {
            xy
            for m, d, x, y in shown
            if (m, d) == (mode, dash)
            for xy in zip(x, y, strict=True)
            if None not in xy
        }
        assert dots == {(r.tokens_per_parameter, getattr(r, by)) for r in result.paired.runs}
    rows = [row for row in form_rows(result) if row.value is not None]
    assert page.locator("#forms .point").count() == len(rows)
    assert page.locator("#paired tbody tr").count() == len(result.paired.means) + 1
    assert page.locator("#forms tbody tr").count() == len(result.split.candidates)
    assert page.locator("#forms tbody td:nth-child(6)", has_text="holds").count() == 1


def test_shares_that_are_not_told_apart_stand_together(opened, two, tmp_path):
    runs, result = two
    channels = tuple(
        replace(
            c,
            optimal=replace(
                c.optimal,
                capacity=None,
                other=None,
                ci95=c.optimal.ci95 | {"capacity": None, "other": None},
            ),
        )
        for c in result.channels
    )
    page = opened(
        write_page(
            tmp_path,
            lambda: compare_page(runs, [replace(result, channels=channels)], [], "table.csv"),
        )[0]
    )
    panel = traces(page, "#channels")[0]
    own = [c.optimal for c in channels if c.recurrences == 2]
    assert panel[1]["y"] == pytest.approx([s.capacity_and_other for s in own])
    assert panel[4]["y"] == pytest.approx([s.delta_loss for s in own])
    assert page.is_visible("[data-share=capacity_and_other]")
    assert not page.is_visible("[data-share=other]")


def test_printing_shows_everything_light_and_no_wider_than_the_sheet(opened, two, tmp_path):
    runs, result = two
    page = opened(
        write_page(
            tmp_path,
            lambda: compare_page(runs, [result], drawn_of_comparisons(runs, [result]), "table.csv"),
        )[0]
    )
    page.emulate_media(color_scheme="dark")
    folded = page.locator("details:not([open])").count()
    assert folded > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(
        "[...document.querySelectorAll('.plot')].every(d => d.querySelector('.main-svg')"
        " && Math.abs(d._fullLayout.width - d.clientWidth) < 2 && d._fullLayout.width <= 700"
        " && d._fullLayout.font.color === '#1b1b1b')"
    )
    assert page.evaluate("document.querySelector('main').clientWidth") == 700
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelector('main').clientWidth") > 1000
    assert page.evaluate(
        "[...document.querySelectorAll('.plot')].every(d => d._fullLayout.font.color !== '#1b1b1b'"
        " && Math.abs(d._fullLayout.width - d.clientWidth) < 2)"
    )
    assert page.locator("details:not([open])").count() == folded
    hints = page.get_by_text("Hover", exact=False)
    assert hints.first.is_visible()
    page.emulate_media(media="print")
    assert not any(hint.is_visible() for hint in hints.all())


def test_a_long_table_says_where_the_rest_is(opened, tmp_path):
    frame = conftest.sweep(noise=0.002, widths=range(256, 256 + 64 * 10, 64)).frame
    runs = load_runs(frame)
    shown = fit(runs, bootstrap=0, sensitivity=False)
    drawn = drawn_of_table(runs, shown)
    page = opened(write_page(tmp_path, lambda: fit_page(runs, shown, drawn, "table.csv"))[0])
    assert page.locator("#runs tbody tr").count() == 100
    assert page.inner_text("#count") == (
        "120 of 120 runs, the first 100 shown; all of them: table.csv, in this page's folder"
    )
    page.click("#more")
    assert page.locator("#runs tbody tr").count() == 120
    assert page.inner_text("#count") == "120 of 120 runs"


def test_a_sweep_without_a_fit_shows_its_runs(opened, sweep, tmp_path):
    content = sweep_page(
        sweep,
        [],
        [],
        "runs.csv",
        title="Sweep tiny",
        said=["1 of 48 runs are done"],
        trust=["nothing is measured"],
        command=["isodepth", "report", "a folder"],
        vocab=256,
        sequence_length=64,
    )
    page = opened(write_page(tmp_path, lambda: content)[0])
    assert "1 of 48 runs are done" in page.inner_text("#headlines")
    assert page.locator("#runs tbody tr").count() == 48
    assert "isodepth report 'a folder'" in page.inner_text("#made")
    for section in ("curves", "free", "profile", "forest", "channels", "residuals", "calculator"):
        assert not page.is_visible(f"#s-{section}")

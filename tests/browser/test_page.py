"""The page in a real browser: it draws, answers, stays on its own and shows text as text."""

import re

import conftest
import numpy as np
import programs
import pytest

from isodepth import fit, load_runs
from isodepth.planning.advice import equivalent_to_width
from isodepth.report.page import compare_page, fit_page, write_page

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
    "</script><b>bold</b><a href='javascript:window.hurt = 1'>go</a>"
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
    return write_page(tmp_path_factory.mktemp("page"), lambda: fit_page(sweep, fitted))[0]


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


def test_hover_names_the_run(opened, written, sweep):
    page = opened(written)
    # over the dot itself
    dot = page.locator("#law-0 .plot").nth(0).locator("path.point").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#law-0 .hoverlayer .hovertext")
    assert re.match(r"c1e\+18-w\d+-r1", page.text_content("#law-0 .hoverlayer .hovertext"))


def test_the_calculator_agrees_with_the_command(opened, written, fitted):
    page = opened(written)
    page.fill("#c-width", "1024")
    page.fill("#c-r", "8")
    told = equivalent_to_width(fitted, width=1024, recurrences=8)
    shown = page.locator("#worth dd").all_inner_texts()

    def read(text):
        number, unit = re.match(r"([\d.]+)([MB])", text).groups()
        return float(number) * {"M": 1e6, "B": 1e9}[unit]

    wanted = (told.unique_params, told.equivalent_params.value, told.same_cost_params)
    assert [read(t) for t in shown[:3]] == pytest.approx(wanted, rel=5e-3)
    assert float(shown[3]) == pytest.approx(told.flops_per_token, rel=1e-3)


def test_the_table_searches_and_sorts(opened, written):
    page = opened(written)
    page.fill("#search", "r8")
    assert page.locator("#runs tbody tr").count() == 12
    page.get_by_role("button", name="loss").click()
    losses = [float(x) for x in page.locator("#runs tbody td:nth-child(7)").all_inner_texts()]
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
    page = opened(write_page(tmp_path, lambda: fit_page(runs, shown))[0])
    dot = page.locator("#law-0 .plot").nth(0).locator("path.point").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#law-0 .hoverlayer .hovertext")
    assert "<b>bold</b>" in page.text_content("#law-0 .hoverlayer .hovertext")
    assert "<script>" in page.inner_text("#runs tbody")
    assert page.evaluate("window.hurt") is None
    assert page.locator("main img, main a, svg a, main script").count() == 0


def test_a_comparison_has_its_channels(opened, published, tmp_path):
    from isodepth.recipes import compare

    runs = published
    result = compare(runs, baseline="baseline", recipe="hyperconnections", bootstrap=50)
    page = opened(write_page(tmp_path, lambda: compare_page(runs, [result]))[0])
    total = page.evaluate(
        "[...document.querySelectorAll('#channels .plot')].map(d => d.data.reduce("
        "(s, t) => s + t.y.reduce((a, b) => a + b, 0), 0)).reduce((a, b) => a + b, 0)"
    )
    assert total == pytest.approx(sum(c.optimal.delta_loss for c in result.channels))
    assert page.locator("#forest .point").count() == len(
        [a for a in result.sensitivity if a.delta_phi is not None]
    )

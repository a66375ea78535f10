"""Whole commands on real files, as a user runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run as isodepth

from isodepth import load_runs
from isodepth.comparing import Comparison

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `isodepth fit published --out` leaves."""
    out = tmp_path_factory.mktemp("published")
    done = isodepth("fit", "published", "--bootstrap", "60", "--out", out / "results")
    assert done.returncode == 0, done.stderr
    return done.stdout, out / "results"


def test_fit_prints_phi_with_its_interval_and_conventions(folder):
    printed, _ = folder
    assert printed.startswith("φ = 0.457 [")
    for words in ("huber (δ = 0.001)", "injection counted once", "116 runs", "Warnings", "coupled"):
        assert words in printed


def test_fit_leaves_figures_report_and_json(folder):
    printed, out = folder
    names = {p.name for p in out.iterdir()}
    drawn = ("isoflop", "predicted", "residuals", "profile", "sensitivity")
    worth = ("worth", "worth_residuals", "worth_map")
    figures = {f"{f}.{e}" for f in (*drawn, *worth) for e in ("svg", "pdf", "png")}
    assert names == figures | {"fit.json", "report-runs.csv", "report.txt", "report.html"}
    assert (out / "isoflop.png").read_bytes().startswith(PNG)
    assert (out / "isoflop.pdf").read_bytes().startswith(b"%PDF")
    svg = (out / "isoflop.svg").read_text(encoding="utf-8")
    for words in ("φ = 0.457", "truncated_bptt: φ = 0.380", "hyperconnections: φ = 0.650"):
        assert words in svg
    assert "coupled, lsq, regressed" in (out / "sensitivity.svg").read_text(encoding="utf-8")
    assert printed.splitlines()[0] in (out / "report.txt").read_text(encoding="utf-8")
    # the page and `isodepth cite` cite the same
    cited = isodepth("cite").stdout.rstrip()
    assert json.dumps(cited)[1:-1] in (out / "report.html").read_text(encoding="utf-8")


def test_equivalent_from_a_saved_fit(folder, tmp_path):
    _, out = folder
    path = tmp_path / "equivalent.json"
    done = isodepth(
        "equivalent", "--width", "2048", "-r", "4", "--fit", out / "fit.json", "--json", path
    )
    assert done.returncode == 0, done.stderr
    assert "unlooped size of equal loss" in done.stdout
    data = json.loads(path.read_text())
    assert data["unique_params"] == pytest.approx(410e6, rel=0.01)
    low, high = data["equivalent_params"]["ci95"]
    assert low < data["equivalent_params"]["value"] < high
    assert data["equivalent_params"]["value"] == pytest.approx(580e6, rel=0.03)
    low, high = data["equivalent_params_law_free"]["ci95"]
    assert low < data["equivalent_params_law_free"]["value"] < high
    assert data["equivalent_params_law_free"]["value"] == pytest.approx(609e6, rel=0.02)
    assert data["same_cost_params"] == pytest.approx(1.0e9, rel=0.05)


def test_json_on_standard_output_is_alone_there():
    done = isodepth(
        "fit", "published", "--recipe", "hyperconnections", "--bootstrap", "0", "--json", "-"
    )
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert data["phi"]["value"] == pytest.approx(0.65, abs=0.005)
    assert data["phi"]["ci95"] is None
    assert any("without an interval" in w for w in data["warnings"])


def test_account_and_isoflop():
    data = json.loads(isodepth("account", "--width", "1280", "-r", "4", "--json", "-").stdout)
    assert data["flops_per_token"] == 3_313_643_520
    assert data["n_total"] == data["n_once"] + data["n_rec"] + data["n_inject"]
    data = json.loads(isodepth("isoflop", "published", "--json", "-").stdout)
    assert {
        "recipe",
        "recurrences",
        "budget_flops",
        "n_min",
        "loss_min",
        "bracketed",
        "concave",
    } <= (set(data["groups"][0]))
    printed = isodepth("isoflop", "published").stdout
    assert "truncated_bptt" in printed


def test_quiet_prints_nothing():
    done = isodepth("account", "--width", "128", "-r", "2", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_reader_that_left_is_no_traceback_and_costs_no_json(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    path = tmp_path / "account.json"
    command = [sys.executable, "-m", "isodepth", "account", "--width", "128", "-r", "2"]
    done = subprocess.run(
        [*command, "--json", path], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(path.read_text())["n_total"] > 0


def test_own_table_in_every_format(tmp_path):
    frame = load_runs("published").frame.query("recipe == 'baseline'")
    frame.to_csv(tmp_path / "runs.csv", index=False)
    frame.to_parquet(tmp_path / "runs.parquet")
    frame.to_json(tmp_path / "runs.jsonl", orient="records", lines=True)
    phis = set()
    for name in ("runs.csv", "runs.parquet", "runs.jsonl"):
        done = isodepth("fit", name, "--bootstrap", "0", "--json", "-", cwd=tmp_path)
        phis.add(json.loads(done.stdout)["phi"]["value"])
    assert len({round(phi, 9) for phi in phis}) == 1


GOOD = "recurrences,n_once,n_rec,tokens,loss\n1,2e6,8e6,1e8,3.5\n"


@pytest.mark.parametrize(
    ("table", "arguments", "words"),
    [
        (
            "recurrences,n_once,n_rec,tokens,loss\n1,x,8e6,1e8,3.5\n",
            [],
            "runs.csv, row 1 (line 2), column n_once: 'x' is not a number",
        ),
        (
            "recurrences,n_once,n_rec,tokens,los\n1,1,8e6,1e8,3.5\n",
            [],
            "column 'loss' is missing; did you mean column 'los'",
        ),
        (GOOD, ["--recipe", "probe"], "no recipe 'probe'"),
        (GOOD, ["--bootstrap", "3"], "bootstrap = 3"),
        (GOOD, ["--count-injection", "regressed"], "it needs the column width"),
        (GOOD.replace("3.5", "nan"), [], "no finished run to fit"),
        (GOOD, ["--json", "/nowhere/fit.json"], "/nowhere/fit.json can't be written"),
        (GOOD, ["--out", "runs.csv/figures"], "can't be written"),
        (GOOD, ["--law", "magic"], "magic"),
    ],
)
def test_bad_input_exits_2_with_one_sentence(tmp_path, table, arguments, words):
    (tmp_path / "runs.csv").write_text(table, encoding="utf-8")
    done = isodepth("fit", "runs.csv", "--bootstrap", "0", *arguments, "--quiet", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--width", "2048"], "either --runs or --fit"),
        (["--runs", "published", "--fit", "x.json", "--width", "64"], "either --runs or --fit"),
        (["--runs", "published"], "either --width, or both"),
        (["--runs", "published", "--n-once", "5"], "either --width, or both"),
        (["--runs", "published", "--width", "64", "--n-inject", "5"], "goes with --n-once"),
        (["--fit", "none.json", "--width", "64"], "none.json can't be read as a fit"),
    ],
)
def test_equivalent_says_what_is_missing(arguments, words):
    done = isodepth("equivalent", "-r", "4", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What `isodepth compare` leaves of two recipes."""
    out = tmp_path_factory.mktemp("compared")
    done = isodepth(
        "compare",
        "published",
        *("--baseline", "baseline"),
        *("--recipe", "truncated_bptt", "--recipe", "hyperconnections"),
        *("--count-injection", "regressed", "--bootstrap", "60"),
        *("--out", out / "results", "--json", out / "all.json", "--latex", out / "all.tex"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, out


def test_compare_prints_verdict_split_and_published_numbers(compared):
    printed, _ = compared
    assert printed.startswith("truncated_bptt against baseline: ")
    assert "hyperconnections against baseline: " in printed
    for words in (
        "Loss change at equal compute",
        "0.38 (0.35 in its code's notes)",
        "0.65 (0.66 in its code's notes)",
        "separate, additive, huber, once, every r = 1 run",
        "cache/token",
    ):
        assert words in printed


def test_compare_leaves_figures_report_and_json(compared):
    _, out = compared
    names = {p.name for p in (out / "results").iterdir()}
    figures = {
        f"{f}.{e}"
        for f in (
            *("paired", "forms", "channels", "delta_phi"),
            *("isoflop", "profile", "residuals"),
        )
        for e in ("svg", "pdf", "png")
    }
    assert names == figures | {"comparison.json", "report-runs.csv", "report.txt", "report.html"}
    data = json.loads((out / "all.json").read_text())
    assert data == json.loads((out / "results" / "comparison.json").read_text())
    truncated, lanes = data["comparisons"]
    assert (truncated["recipe"], lanes["recipe"]) == ("truncated_bptt", "hyperconnections")
    assert truncated["delta_phi"]["value"] < 0 < lanes["delta_phi"]["value"]
    assert len(truncated["channels"]) == 12
    svg = (out / "results" / "delta_phi.svg").read_text(encoding="utf-8")
    for words in ("truncated_bptt less baseline", "coupled, lsq, regressed", "one law, κ·r^φ"):
        assert words in svg
    svg = (out / "results" / "forms.svg").read_text(encoding="utf-8")
    for words in ("hyperconnections less baseline", "tokens × κ", "loss + c/r", "by the laws"):
        assert words in svg
    tex = (out / "all.tex").read_text(encoding="utf-8")
    row = next(line for line in tex.splitlines() if line.startswith(r"truncated\_bptt"))
    assert row.endswith(r"& not identified & \\")
    phi, ci95 = truncated["phi_recipe"], truncated["ci95"]["phi_recipe"]
    said = f"φ = {phi:.3f} [{ci95[0]:.3f}, {ci95[1]:.3f}]"
    for figure in ("isoflop.svg", "profile.svg"):
        assert said in (out / "results" / figure).read_text(encoding="utf-8")


def test_runs_go_in_by_a_map_and_out_in_any_kind(tmp_path):
    (tmp_path / "wandb.csv").write_text(
        '"Name","State","r","val/loss"\n"a","finished","1","3"\n"b","crashed","2","9"\n'
    )
    done = isodepth(
        "import", "wandb.csv", "--map", "loss=val/loss", "recurrences=r", "--map", "seed=r*1",
        "--set", "n_once=1e6", "n_rec=2e6", "tokens=1e8", "--out", "runs.parquet", "--json", "-",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"] == {"done": 1, "interrupted": 1} and told["file"] == "runs.parquet"
    assert told["columns"]["loss"] == "val/loss" and told["columns"]["seed"] == "r*1"
    assert "1 of 2 runs are kept but not fitted: 1 interrupted" in done.stderr
    for source, file in (("runs.parquet", "runs.csv"), ("published", "published.jsonl")):
        assert isodepth("export", source, "--out", file, "--quiet", cwd=tmp_path).returncode == 0
    assert load_runs(tmp_path / "runs.csv").used["loss"].tolist() == [3.0]
    assert len(load_runs(tmp_path / "published.jsonl")) == 241


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "runs.csv", "--out", "a.csv"], "nothing gives loss"),
        (["import", "runs.csv", "--out", "a.txt"], "a.txt: a run table is written to .csv"),
        (["import", "runs.csv", "--out", "a.csv", "--map", "loss"], "--map loss: write it as"),
        (["import", "runs.csv", "--out", "a.csv", "--map", "x=a", "x=b"], "--map gives x twice"),
        (["export", "published", "--out", "a.bib"], "`isodepth cite` prints BibTeX"),
        (["export", "nothing.csv", "--out", "a.csv"], "nothing.csv: no such file"),
    ],
)
def test_import_and_export_say_what_is_wrong(tmp_path, arguments, words):
    (tmp_path / "runs.csv").write_text("recurrences,n_once,n_rec,tokens\n1,1e6,0,1e8\n")
    done = isodepth(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_published_signs_and_values(compared):
    truncated, lanes = Comparison.load_all(compared[1] / "all.json")
    assert truncated.phi_baseline == pytest.approx(0.46, abs=0.005)
    assert truncated.phi_recipe == pytest.approx(0.38, abs=0.005)
    assert truncated.delta_phi < 0
    assert truncated.verdict.startswith("a fall of φ alone is contradicted: at equal r and budget ")
    assert "Δφ is not identified" in truncated.verdict
    assert lanes.phi_recipe == pytest.approx(0.65, abs=0.005)
    assert lanes.verdict.startswith("at equal r and budget the gain does not grow with r")
    assert "a token counts 1.36 [" in lanes.verdict
    assert "is not significant; the baseline takes 1.35 to 1.43 times" in lanes.verdict
    assert lanes.published.phi_recipe == 0.65
    # the loss falls under truncation because tokens are cheaper; whether φ takes part of it back
    # can't be told
    assert all(
        c.optimal.token_budget < 0 < c.optimal.capacity_and_other for c in truncated.channels
    )
    assert all(c.optimal.capacity is None for c in truncated.channels)
    assert sum(c.optimal.delta_loss < 0 for c in truncated.channels) == 11
    assert any(
        "looping truncated_bptt at all costs a factor κ" in w.text for w in truncated.warnings
    )


def test_sensitivity_shows_every_choice(compared):
    rows = Comparison.load_all(compared[1] / "all.json")[0].sensitivity
    grid_rows = [a for a in rows if (a.method, a.borrowed) == ("separate", "own budgets")]
    assert len({(a.law, a.estimator, a.count_injection) for a in grid_rows}) == 16
    phis = [a.phi_recipe for a in grid_rows]
    assert min(phis) < 0.37
    assert max(phis) > 0.43
    every = next(a for a in rows if a.borrowed == "all budgets")
    assert every.phi_recipe == pytest.approx(0.355, abs=0.002)
    assert [a.method for a in rows].count("joint") == 1


def test_report_draws_a_folder_again_wherever_it_is(folder, compared, tmp_path):
    for name, source in (("fit", folder[1]), ("compared", compared[1] / "results")):
        moved = tmp_path / name
        shutil.copytree(source, moved)
        kept = {"fit.json", "comparison.json", "report-runs.csv"}
        for file in moved.iterdir():
            if file.name not in kept:
                file.unlink()
        done = isodepth("report", moved, "--json", tmp_path / "files.json")
        assert done.returncode == 0, done.stderr
        assert {f.name for f in moved.iterdir()} == {f.name for f in source.iterdir()}
        for file in ("report.html", "report.txt"):
            assert (moved / file).read_bytes() == (source / file).read_bytes()
        listed = json.loads((tmp_path / "files.json").read_text())["files"]
        assert {Path(f).name for f in listed} | kept >= {f.name for f in moved.iterdir()}


def test_report_says_why_it_can_not(folder, compared, tmp_path):
    def refused(out):
        done = isodepth("report", out)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "holds nothing to report" in refused(tmp_path)
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere")
    shutil.copy(folder[1] / "fit.json", tmp_path)
    assert "report-runs.csv is missing" in refused(tmp_path)
    table = (folder[1] / "report-runs.csv").read_text().splitlines(keepends=True)
    (tmp_path / "report-runs.csv").write_text("".join(table[:1] + table[2:]))
    assert "does not hold the runs that were fitted" in refused(tmp_path)
    shutil.copy(compared[1] / "results" / "comparison.json", tmp_path)
    assert "holds a fit and comparisons" in refused(tmp_path)


def test_compare_writes_a_latex_table(compared):
    text = (compared[1] / "all.tex").read_text(encoding="utf-8")
    assert r"truncated\_bptt & 82 & $0.381$" in text
    assert r"hyperconnections: at equal r and budget the gain does not grow with r" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--recipe"),
        (["--recipe", "magic"], "no recipe 'magic'"),
        (["--recipe", "baseline"], "is the baseline itself"),
        (["--recipe", "truncated_bptt", "--baseline", "magic"], "no recipe 'magic'"),
    ],
)
def test_compare_says_what_is_wrong(arguments, words):
    done = isodepth("compare", "published", *arguments, "--bootstrap", "0")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command():
    done = isodepth("--help")
    assert done.returncode == 0
    for command in ("fit", "compare", "report", "isoflop", "equivalent", "account", "power"):
        assert command in done.stdout


def test_nothing_of_the_measuring_half_imports_torch(tmp_path):
    """With torch made unimportable, the package and its commands work."""
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import isodepth, isodepth.cli\n"
        "for name in isodepth.__all__: getattr(isodepth, name)\n"
        "import isodepth.report.folder, isodepth.planning.advice\n"
        "sys.exit(isodepth.cli.main(['fit', 'published', '--bootstrap', '0', '--quiet']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_isodepth_is_light():
    """`--help` must not pay for pandas, scipy or matplotlib."""
    code = "import isodepth.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "scipy", "matplotlib", "numpy"} & set(done.stdout.split())


def test_the_readme_names_only_commands_that_exist():
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    used = {line.split()[1] for line in readme.splitlines() if line.startswith("isodepth ")}
    known = isodepth("--help").stdout
    assert used
    for command in used:
        assert f"• {command}" in known

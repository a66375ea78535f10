"""A sweep's folder is read by its ledger, the same by every function, or it is refused."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import sweeps

from isodepth import InputError, compare, fit, load_runs
from isodepth.planning.grid import Budget, Recipe
from isodepth.runs.records import read_record, sealed
from isodepth.sweep.ledger import Ledger, Watch, this_worker
from isodepth.sweep.outcome import outcome_of_command
from isodepth.sweep.plan import load_plan, make_plan
from isodepth.sweep.spec import Spec


def plan_of(command=None, seeds=1):
    return make_plan(
        Spec(
            name="door",
            description="",
            recipes=(Recipe(name="baseline", recurrences=(1, 2, 4)),),
            budgets=tuple(Budget(flops=f, widths=(512, 640, 768)) for f in (1e18, 3e18, 1e19)),
            train={"depth": 18, "prelude": 1, "coda": 1},
            vocabulary=32001,
            seeds=seeds,
            command=command,
        ),
        None,
    )


def loss_of(run):
    m = run.recurrences**0.45
    n = run.n_once + run.n_inject + m * run.n_rec
    return 1.6 + 60.0 * n**-0.25 + 900.0 * run.tokens**-0.35


def write_record(entry, *, own_model=True, **changes):
    run = entry.run
    names = ["recurrences", "n_once", "n_rec", "tokens", "width", "seed", "flops_per_token"]
    if own_model:
        names += ["run_id", "recipe", "n_inject", "flops", "budget_flops"]
    row = {name: getattr(run, name) for name in names}
    row |= {"loss": loss_of(run), **({"status": "done"} if own_model else {})}
    content = {"run": row | changes}
    entry.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(sealed({"format": 1, **content}) if own_model else content)
    (entry.folder / "record.json").write_text(text)


def swept(folder, *, plan=None, own_model=True, fail=(), skip=()):
    """A folder as a sweep leaves it: every run done but some that failed or weren't begun."""
    ledger = Ledger.open(folder, plan or plan_of())
    for index in range(len(ledger.plan.runs)):
        if index in skip:
            continue
        entry = ledger.entries()[index]
        entry = ledger.change(entry, state="running", attempts=(*entry.attempts, _begun()))
        if index in fail:
            ledger.finish(entry, "failed", "no luck")
        else:
            write_record(entry, own_model=own_model)
            ledger.finish(entry, "done")
    return ledger


def _begun():
    from isodepth.sweep.ledger import Attempt

    return Attempt(worker=this_worker(), begun="now")


def refused(folder):
    with pytest.raises(InputError) as caught:
        load_runs(folder)
    return "\n".join(caught.value.problems)


def test_command_line_and_python_read_a_sweep_the_same(tmp_path):
    folder = tmp_path / "sweep"
    swept(folder, fail=(3,), skip=(7,))
    runs = load_runs(folder)
    assert len(runs) == 26 and len(runs.used) == 25
    assert runs.frame["status"].value_counts().to_dict() == {"done": 25, "failed": 1}
    assert any("1 of 27 planned runs have not been tried" in note for note in runs.notes)
    assert any("kept but not fitted: 1 failed" in note for note in runs.notes)
    own = fit(folder, bootstrap=0, sensitivity=False)
    assert own.phi == pytest.approx(0.45, abs=2e-3)
    told = json.loads(sweeps.isodepth("fit", folder, "--bootstrap", 0, "--json", "-").stdout)
    assert told["params"]["phi"] == own.phi and told["n_excluded"] == 1
    sweeps.isodepth("export", folder, "--out", tmp_path / "all.parquet")
    pd.testing.assert_frame_equal(load_runs(tmp_path / "all.parquet").frame, runs.frame)
    at = ("--width", 640, "-r", 4, "--bootstrap", 0, "--json", "-")
    by_folder = sweeps.isodepth("equivalent", *at, "--runs", folder).stdout
    assert (
        by_folder == sweeps.isodepth("equivalent", *at, "--runs", tmp_path / "all.parquet").stdout
    )
    sweeps.isodepth("collect", folder)
    pd.testing.assert_frame_equal(load_runs(folder / "runs.parquet").frame, runs.frame)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda one, other: (one / "record.json").unlink(), "has lost its record.json"),
        (lambda one, other: shutil.copy(other / "record.json", one), "it was changed"),
        (lambda one, other: _edit(one, loss=2.0), "its checksum is another"),
        (lambda one, other: _edit(one, reseal=True, loss=2.0), "it was changed"),
        (lambda one, other: (one / "record.json").write_text("{torn"), "can't be read"),
        (lambda one, other: _edit(one, reseal=True, format=2), "reads records of format 1, not 2"),
        (lambda one, other: _newest(one, state="asleep"), "state is 'asleep', not one of planned"),
        (lambda one, other: _newest(one, format=2), "reads states of format 1, not 2"),
        (lambda one, other: _newest(one, run_id="x"), "is the state of another run, 'x'"),
    ],
)
def test_what_was_changed_is_named_and_not_believed(tmp_path, harm, words):
    folder = tmp_path / "sweep"
    ledger = swept(folder)
    one, other = (entry.folder for entry in ledger.entries()[:2])
    harm(one, other)
    said = refused(folder)
    assert words in said and str(one) in said
    assert sweeps.isodepth("fit", folder, "--bootstrap", 0, status=2).stderr.count(words) == 1


def _edit(home, *, reseal=False, format=1, **changes):
    content = read_record(home)
    content = content | {"format": format, "run": content["run"] | changes}
    (home / "record.json").write_text(json.dumps(sealed(content) if reseal else content))


def _newest(home, **changes):
    file = max(home.glob("state-*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_records_swapped_before_the_ledger_knew_checksums_are_still_told_apart(tmp_path):
    folder = tmp_path / "sweep"
    ledger = swept(folder)
    one, other = (entry.folder for entry in ledger.entries()[:2])
    for home in (one, other):
        _newest(home, record=None)
    shutil.copy(other / "record.json", one)
    said = refused(folder)
    assert "is not of this run" in said and "run_id is" in said


def test_a_run_taken_out_of_the_plan_is_missed(tmp_path):
    folder = tmp_path / "sweep"
    ledger = swept(folder)
    file = folder / "plan.json"
    content = json.loads(file.read_text())
    gone = content["runs"].pop(4)["run_id"]
    file.write_text(json.dumps(content))
    assert "lacks 1 runs" in refused(folder) and gone in refused(folder)
    with pytest.raises(InputError, match="lacks 1 runs"):
        Ledger(folder)
    assert ledger.plan.runs[4].run_id == gone


def test_parts_of_a_sweep_are_refused(tmp_path):
    folder = tmp_path / "all" / "sweep"
    swept(folder)
    assert f"give the sweep's folder, {folder}" in refused(folder / "runs")
    assert f"give that one: {folder}" in refused(tmp_path / "all")
    (folder / "plan.json").unlink()
    assert "without the sweep's plan.json" in refused(folder)


def test_single_runs_that_left_no_record_are_named(tmp_path):
    ledger = swept(tmp_path / "sweep")
    shutil.copytree(ledger.entries()[0].folder, tmp_path / "single" / "a")
    for file in (tmp_path / "single" / "a").glob("state-*"):
        file.unlink()
    (tmp_path / "single" / "b").mkdir()
    (tmp_path / "single" / "b" / "losses.jsonl").write_text("")
    runs = load_runs(tmp_path / "single")
    assert len(runs) == 1
    assert "1 runs have begun and left no record.json" in runs.notes[0] and "b" in runs.notes[0]


def test_another_trainers_sweep_with_a_failed_run_and_optional_numbers(tmp_path):
    folder = tmp_path / "sweep"
    swept(folder, plan=plan_of("{python} x.py {out}"), own_model=False, fail=(0,))
    runs = load_runs(folder)
    assert len(runs.used) == 26
    assert runs.frame["flops"].notna().sum() == 26
    assert fit(folder, bootstrap=0, sensitivity=False).n_excluded == 1
    sweeps.isodepth("export", folder, "--out", tmp_path / "all.csv")
    assert len(load_runs(tmp_path / "all.csv").used) == 26


def test_another_trainers_record_of_another_run_or_without_loss_is_a_failure(tmp_path):
    ledger = Ledger.open(tmp_path / "sweep", plan_of("{python} x.py {out}"))
    entry = ledger.claim(this_worker(), Watch(), retries=0)
    write_record(entry, own_model=False)
    assert outcome_of_command(entry).state == "done"
    for changes, words in (
        ({"width": 9}, "width is 9, the plan has"),
        ({"recurrences": 9}, "recurrences is 9"),
        ({"seed": 9}, "seed is 9"),
        ({"loss": None}, "is damaged: it tells no loss"),
    ):
        write_record(entry, own_model=False, **changes)
        outcome = outcome_of_command(entry)
        assert outcome.state == "failed" and words in outcome.reason
    write_record(entry, own_model=False, loss=float("nan"))
    assert outcome_of_command(entry).state == "diverged"
    write_record(entry, own_model=False, n_once=7, n_rec=8, tokens=10**6)  # its own counts
    assert outcome_of_command(entry).state == "done"


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", ".hidden", "", "a\x1b[2J", "x" * 200])
def test_a_run_id_is_a_name_and_never_a_path(tmp_path, name):
    plan_of().save(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    content["runs"][0]["run_id"] = content["runs"][0]["train"]["run_id"] = name
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is no name"):
        load_plan(tmp_path / "plan.json")
    said = sweeps.isodepth("sweep", tmp_path / "plan.json", "--out", tmp_path / "s", status=2)
    assert "is no name" in said.stderr and "\x1b" not in said.stderr
    assert not (tmp_path / "s").exists()


def _with_run(plan, **changes):
    first, *others = plan.runs
    train = first.train | {k: v for k, v in changes.items() if k in first.train}
    return replace(plan, runs=(replace(first, **changes, train=train), *others))


def test_a_plan_that_differs_in_one_run_is_another_plan(tmp_path):
    plan = plan_of()
    ledger = Ledger.open(tmp_path / "s", plan)
    for other, words in (
        (
            _with_run(plan, tokens=plan.runs[0].tokens + 2**18),
            f"tokens is {plan.runs[0].tokens}, n",
        ),
        (_with_run(plan, run_id="x"), "it has no run x"),
        (replace(plan, runs=plan.runs[1:]), f"it has the run {plan.runs[0].run_id} besides"),
        (plan_of(seeds=2), "seeds is 1, not 2"),
    ):
        with pytest.raises(InputError, match="another plan") as caught:
            Ledger.open(tmp_path / "s", other)
        assert words in str(caught.value)
    assert Ledger.open(tmp_path / "s", _with_run(plan, seconds=1.0)).plan == ledger.plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["runs"][0].update(width="wide"), r"runs\[0\].width must be a whole number"),
        (lambda c: c["runs"][0].pop("tokens"), r"runs\[0\] lacks 'tokens'"),
        (lambda c: c["runs"][0].update(width=0), "width must be greater than 0"),
        (lambda c: c["runs"][0].update(seed=9), "seed is 9, and 0 in its train"),
        (lambda c: c.update(runs=[]), "holds no run"),
        (lambda c: c.update(runs=3), "runs must be a list of tables"),
        (lambda c: c["runs"].append(c["runs"][0]), "two runs are called"),
        (lambda c: c.update(format=2), "reads plans of format 1, not 2"),
        (lambda c: c["spec"].update(seeds=10**30), "spec.seeds holds a number that is too large"),
        (lambda c: c["spec"].update(command="rm"), "must name {out}"),
        (lambda c: c["spec"].update(device="abacus"), "abacus"),
    ],
)
def test_a_plan_with_a_fault_is_refused_naming_it(tmp_path, change, words):
    file = tmp_path / "plan.json"
    plan_of().save(file)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        load_plan(file)


def test_an_unknown_recipe_is_an_error_everywhere():
    runs = load_runs("published")
    words = "has no recipe 'typo'; it holds baseline, truncated_bptt, hyperconnections"
    for asked in (
        lambda: runs.of_recipe("typo"),
        lambda: runs.choose("typo"),
        lambda: fit(runs, recipe="typo"),
        lambda: compare(runs, recipe="typo", bootstrap=0),
        lambda: compare(runs, recipe="hyperconnections", baseline="typo", bootstrap=0),
    ):
        with pytest.raises(InputError, match=words):
            asked()


UNIX_ONLY = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty")


def test_the_measuring_half_runs_without_what_only_unix_has(tmp_path):
    swept(tmp_path / "sweep")
    script = (
        "import sys\n"
        f"for name in {UNIX_ONLY}: sys.modules[name] = None\n"
        "import signal, os\n"
        "del signal.SIGUSR2\n"
        "from isodepth.cli import main\n"
        "for words in sys.stdin.read().splitlines():\n"
        "    status = main(words.split('|'))\n"
        "    assert status == 0, (words, status)\n"
    )
    commands = [
        ["fit", tmp_path / "sweep", "--bootstrap", 0, "--quiet"],
        ["compare", "published", "--recipe", "truncated_bptt", "--bootstrap", 0, "--quiet"],
        ["report", tmp_path / "sweep", "--quiet"],
        ["import", tmp_path / "sweep" / "runs.csv", "--out", tmp_path / "in.csv", "--quiet"],
        ["plan", "--preset", "laptop", "--out", tmp_path / "p.json", "--quiet"],
        ["status", tmp_path / "sweep", "--quiet"],
    ]
    sweeps.isodepth("collect", tmp_path / "sweep", "--quiet")
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join("|".join(map(str, words)) for words in commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

"""`measure --target-ci`: batches until the interval is as narrow, with a trainer of a known law."""

import inspect
import json
import math
import os
import random
import signal
import time

import pandas as pd
import pytest
import sweeps
from conftest import TRUTH

from isodepth import fit, load_runs
from isodepth.errors import InputError
from isodepth.fitting import Fit
from isodepth.planning.worlds import NOISES
from isodepth.sweep.measure_command import MeasureCommand
from isodepth.sweep.rounds import Goal, first_batch, load_rounds, next_batch

NOISE = 0.004
BUDGETS = (1e18, 4e18)
PATIENCE = 240.0  # seconds that anything may take before the test fails


def row(width, r, tokens, name, noise=NOISE):
    """A run of the additive law, with noise of its own; the counts are the trainer's."""
    block = 12 * width**2
    once, rec, inject = 4 * block, 16 // r * block, 0 if r == 1 else 2 * width**2
    t = TRUTH
    size = once + inject + r ** t["phi"] * rec
    exact = t["E"] + t["A"] * size ** -t["alpha"] + t["B"] * tokens ** -t["beta"]
    loss = exact * math.exp(noise * random.Random(name).gauss(0, 1))
    return {
        "recurrences": r, "n_once": once, "n_rec": rec, "n_inject": inject, "tokens": tokens,
        "loss": loss,
    }  # fmt: skip


def kill_when(process, condition):
    """End a command and all it started, at the first moment that the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


TRAINER = """
import json, math, pathlib, random, sys
{source}
out, width, r, tokens, name = sys.argv[1:]
made = row(int(width), int(r), float(tokens), name)
pathlib.Path(out, "record.json").write_text(json.dumps({{"run": made}}))
"""


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """The published law, which is not the truth here."""
    file = tmp_path_factory.mktemp("law") / "fit.json"
    fit("published", bootstrap=0, sensitivity=False).save(file)
    return file


def command(law, out, **options):
    given = {
        "target_ci": 0.07, "budgets": BUDGETS, "device": "h100", "rate": "2e14", "bootstrap": 60,
        "fit_file": str(law), "command": "train {out}",
    }  # fmt: skip
    return MeasureCommand(out=out, **(given | options))


def undisturbed(asked, tables, before=None):
    """The rounds of a command whose runs are made up here, and the plan at their end."""
    spec = asked.spec()
    plan = before or first_batch(spec, asked.wish(NOISES), [Fit.load(asked.fit_file)])
    goal = Goal(wish=asked.wish(()), bootstrap=asked.bootstrap, seed=asked.seed)
    rounds = ()
    while True:
        now, plan = next_batch(plan, tables(plan), goal, rounds)
        rounds += (now,)
        if not now.added:
            return rounds, plan


def table(plan, noise=NOISE, without=()):
    """What a sweep would collect of a plan, some of its runs having diverged."""
    names = ("run_id", "recipe", "recurrences", "budget_flops", "width", "seed")
    rows = [
        {n: getattr(run, n) for n in names}
        | row(run.width, run.recurrences, float(run.tokens), run.run_id, noise)
        for run in plan.runs
    ]
    frame = pd.DataFrame(rows)
    frame["status"] = "done"
    gone = frame["run_id"].isin(without)
    frame.loc[gone, ["loss", "status"]] = [float("nan"), "diverged"]
    return load_runs(frame)


def test_killed_and_given_again_it_makes_the_same_runs_and_ends_as_narrow_as_asked(law, tmp_path):
    trainer, out = tmp_path / "train.py", tmp_path / "out"
    source = f"TRUTH = {TRUTH!r}\nNOISE = {NOISE}\n{inspect.getsource(row)}"
    trainer.write_text(TRAINER.format(source=source))
    template = f"{{python}} -S {trainer} {{out}} {{width}} {{recurrences}} {{tokens}} {{run_id}}"
    asked = command(law, out, command=template)
    arguments = (
        "measure", "--target-ci", asked.target_ci, "--budgets", *BUDGETS, "--device", "h100",
        "--rate", asked.rate, "--bootstrap", asked.bootstrap, "--fit", law, "--command", template,
        "--out", out,
    )  # fmt: skip
    kill_when(sweeps.start(*arguments), lambda: load_rounds(out))
    # the last fit of all, with every diagnostic, takes long and is `measure`'s own
    kill_when(sweeps.start(*arguments), lambda: load_rounds(out) and not load_rounds(out)[-1].added)
    rounds, plan = undisturbed(asked, table)
    assert len(rounds) > 1 and rounds[-1].reached
    assert load_rounds(out) == rounds
    assert [run["run_id"] for run in json.loads((out / "plan.json").read_text())["runs"]] == [
        run.run_id for run in plan.runs
    ]
    assert rounds[-1].half_width <= 0.07 and rounds[-1].expected <= 0.07
    assert abs(rounds[-1].phi - TRUTH["phi"]) < 2 * 0.07
    status = json.loads(sweeps.isodepth("status", out, "--json", "-").stdout)
    assert {run["state"] for run in status["runs"]} == {"done"}


def test_limits_end_it_saying_what_they_give_and_more_go_on(law, tmp_path):
    asked = command(law, tmp_path, target_ci=0.05, max_runs=14)
    rounds, plan = undisturbed(asked, table)
    assert not rounds[-1].reached
    assert len(plan.runs) <= 14
    assert "is out of reach: all that 14 runs still allow" in rounds[-1].why or (
        "the 14 runs allowed are used up" in rounds[-1].why
    )
    more = command(law, tmp_path, target_ci=0.05, max_runs=60)
    further, longer = undisturbed(more, table, plan)
    assert longer.runs[: len(plan.runs)] == plan.runs
    assert further[-1].reached and further[-1].half_width <= 0.05


def test_noise_far_above_what_was_supposed_ends_it_without_limits_too(law, tmp_path):
    asked = command(law, tmp_path)
    rounds, plan = undisturbed(asked, lambda plan: table(plan, noise=0.012))
    assert not rounds[-1].reached
    assert "name --gpu-hours or --max-runs to go on" in rounds[-1].why
    # twelve times the first batch, at most
    assert plan.flops <= 12 * rounds[0].flops


def test_a_size_that_diverged_is_not_tried_again(law, tmp_path):
    asked = command(law, tmp_path, target_ci=0.06)
    spec = asked.spec()
    first = first_batch(spec, asked.wish(NOISES), [Fit.load(asked.fit_file)])
    bad = first.runs[-1]
    goal = Goal(wish=asked.wish(()), bootstrap=60, seed=0)
    now, plan = next_batch(first, table(first, without=[bad.run_id]), goal, ())
    assert now.n_runs == len(first.runs) - 1 and now.added
    cells = [(run.recurrences, run.width, run.budget_flops) for run in plan.runs[len(first.runs) :]]
    assert (bad.recurrences, bad.width, bad.budget_flops) not in cells


def test_a_design_in_rounds_is_for_one_recipe(law, tmp_path):
    asked = command(law, tmp_path, recipes=("baseline", "truncated_bptt"))
    with pytest.raises(InputError, match="for φ of one recipe, not for baseline, truncated_bptt"):
        asked.first_plan(asked.spec(), None)
    with pytest.raises(InputError, match="which --bootstrap 0 leaves out"):
        command(law, tmp_path, bootstrap=0).first_plan(asked.spec(), None)
    with pytest.raises(InputError, match="--max-runs is for designs"):
        command(law, tmp_path, target_ci=None, max_runs=3).first_plan(asked.spec(), None)

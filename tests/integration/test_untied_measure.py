"""`isodepth measure` of looped and untied recipes: from nothing to what sharing costs."""

import json

import pandas as pd
import sweeps

# a trainer of somebody else's, whose losses are a law's: lanes gain .02 nats at any r
TRAINER = """
import json, pathlib, random, sys
out, width, r, graph, tokens, run_id, recipe = sys.argv[1:]
width, r, graph, tokens = map(int, (width, r, graph, tokens))
block = 12 * width**2 + 2 * width
once, rec = 2 * block + 3 * width, 2 * block // r if r > 1 else graph * block
size = once + r**0.5 * rec
loss = 1.5 + 20 * size**-0.4 + 900 * tokens**-0.5 - 0.02 * (recipe == "hyperconnections")
loss += random.Random(run_id).gauss(0, 0.002)
row = {"recurrences": r, "n_once": once, "n_rec": rec, "tokens": tokens, "loss": loss}
if graph != r:
    row["graph_recurrences"] = graph
pathlib.Path(out, "record.json").write_text(json.dumps({"run": row}))
"""
PRESET = """
[train]
depth = 4
prelude = 1
coda = 1
head_size = 8
sequence_length = 32
batch_tokens = 64
[plan]
vocabulary = 257
command = "{python} TRAINER {out} {width} {recurrences} {graph_recurrences} {tokens} {run_id} \
{recipe}"
[[recipes]]
name = "baseline"
recurrences = [2]
[[recipes]]
name = "hyperconnections"
recurrences = [2]
injection = "hyperconnections"
[[recipes]]
name = "baseline-untied"
recurrences = [2]
untied = true
of = "baseline"
[[recipes]]
name = "hyperconnections-untied"
recurrences = [2]
injection = "hyperconnections"
untied = true
of = "hyperconnections"
[[budgets]]
flops = 2e10
widths = [16, 24, 32]
[[budgets]]
flops = 8e10
widths = [16, 24, 32]
"""


def test_measure_says_what_sharing_costs_and_what_lanes_gain_without_it(tmp_path):
    trainer, preset, out = (tmp_path / name for name in ("trainer.py", "lanes.toml", "out"))
    trainer.write_text(TRAINER)
    preset.write_text(PRESET.replace("\\\n", "").replace("TRAINER", str(trainer)))
    command = ("measure", "--preset", preset, "--out", out, "--bootstrap", 0)
    told = json.loads(sweeps.isodepth(*command, "--json", "-").stdout)
    assert told["n_runs"] == 24
    assert set(told["recipes"]) == {"baseline", "hyperconnections"}
    table = pd.read_csv(out / "runs.csv")
    assert (table["recurrences"] == 1).sum() == 12
    assert (table["graph_recurrences"] == 2).all()
    compared = json.loads((out / "compared/hyperconnections/comparison.json").read_text())
    found = {c["name"]: c for c in compared["sharing"]["contrasts"]}
    assert {c["n_cells"] for c in found.values()} == {6}
    assert -0.02 < found["gain_untied"]["delta_log_loss"]["value"] < 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "hyperconnections gains without sharing too: -0.0" in page
    status = sweeps.isodepth("status", out).stdout
    assert "2 untied" in status

"""Damage every kind of file that people hand over, and see that each ends in a sentence.

    python benchmarks/damaged_files.py --cases 10000 [--kinds table plan …] [--seed 0]

A case takes a whole file of its kind, changes it (bytes flipped, cut, doubled, put in; values of
JSON and TOML swapped for others), and reads it as the commands do. It may be read or refused
(InputError); anything else, a case over 10 s, or a file outside the folder counts as a fault.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path

from isodepth import fit, load_runs
from isodepth.errors import InputError
from isodepth.fitting import Fit
from isodepth.planning.grid import Budget, Recipe
from isodepth.runs.importing import import_runs
from isodepth.sweep.ledger import Attempt, Ledger, this_worker
from isodepth.sweep.plan import load_plan, make_plan
from isodepth.sweep.spec import PRESETS, Spec, read_spec

LONGEST = 10  # seconds that a case may take
# values that readers trip over, put where another stood
ODD = (
    None, True, False, 0, -1, 1, 2**63, 10**30, 1.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "x", "../../x", "/tmp/x", "\x1b[2J", "é" * 300, [], {}, [[]], [None], {"a": {"b": 1}}, "1e999",
)  # fmt: skip
BYTES = (b"\x00", b"\xff", b'"', b"{", b"]", b",", b";", b"\n", b"\r", b"nan", b"-", b"9" * 400)


def small_plan():
    """A plan of four runs."""
    return make_plan(
        Spec(
            name="small",
            description="",
            recipes=(Recipe(name="baseline", recurrences=(1, 2)),),
            budgets=(Budget(flops=1e18, widths=(640, 768)),),
            train={},
            vocabulary=32001,
        ),
        None,
    )


def small_sweep(folder):
    """A sweep of which every run is done."""
    ledger = Ledger.open(folder, small_plan())
    for entry in ledger.entries():
        begun = Attempt(worker=this_worker(), begun="now")
        entry = ledger.change(entry, state="running", attempts=(begun,))
        run = entry.run
        names = ("run_id", "recipe", "recurrences", "width", "seed", "n_once", "n_rec", "n_inject")
        row = {name: getattr(run, name) for name in (*names, "tokens", "flops_per_token", "flops")}
        row |= {"loss": 3.0 + run.recurrences / 100, "status": "done"}
        (entry.folder / "record.json").write_text(json.dumps({"run": row}))
        ledger.finish(entry, "done")


class Kinds:
    """A whole file of each kind, and how it is read; `folder` holds the case."""

    def __init__(self):
        self.fit = fit("published", bootstrap=0, sensitivity=False).to_json().encode()
        table = load_runs("published").frame.head(12)
        with tempfile.TemporaryDirectory() as scratch:
            at = Path(scratch)
            small_plan().save(at / "plan.json")
            self.plan = (at / "plan.json").read_bytes()
            table.to_parquet(at / "runs.parquet")
            self.parquet = (at / "runs.parquet").read_bytes()
            small_sweep(at / "sweep")
            self.sweep = {
                file.relative_to(at / "sweep"): file.read_bytes()
                for file in (at / "sweep").rglob("*.json")
            }
        self.csv = table.to_csv(index=False).encode()
        self.lines = table.to_json(orient="records", lines=True).encode()
        self.preset = (PRESETS / "laptop-1h.toml").read_bytes()
        self.log = b"".join(
            json.dumps({"step": s, "val": {"loss": 4 - s / 10}, "tokens": s * 1e6}).encode() + b"\n"
            for s in range(1, 9)
        )
        self.config = b'{"r": 2, "steps": 8, "size": {"once": 1e6, "rec": 2e6}}'

    def table(self, folder, rng):
        """A run table."""
        ending, data = rng.choice(
            [("csv", self.csv), ("jsonl", self.lines), ("parquet", self.parquet)]
        )
        (folder / f"runs.{ending}").write_bytes(damaged(data, rng))
        load_runs(folder / f"runs.{ending}")

    def plans(self, folder, rng):
        """A plan."""
        (folder / "plan.json").write_bytes(damaged(self.plan, rng))
        Ledger.open(folder / "sweep", load_plan(folder / "plan.json"))

    def presets(self, folder, rng):
        """A preset."""
        (folder / "mine.toml").write_bytes(damaged(self.preset, rng))
        make_plan(read_spec(str(folder / "mine.toml")), None)

    def fits(self, folder, rng):
        """A fit."""
        (folder / "fit.json").write_bytes(damaged(self.fit, rng))
        loaded = Fit.load(folder / "fit.json")
        loaded.report()

    def ledgers(self, folder, rng):
        """A sweep's folder, one file of it damaged."""
        harmed = rng.choice(sorted(self.sweep))
        for name, data in self.sweep.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(damaged(data, rng) if name == harmed else data)
        load_runs(folder)

    def maps(self, folder, rng):
        """An import's maps."""
        (folder / "runs.csv").write_bytes(self.csv)
        names = ["n_once", "n_rec", "loss", "tokens", "x"]
        signs = ["+", "-", "*", "/", "(", ")", " ", "2", "1e3", "=", "{", *names]
        text = "".join(rng.choice(signs) for _ in range(rng.randint(1, 12)))
        options = {"at": ("step", "last")} if rng.random() < 0.1 else {}
        import_runs(folder / "runs.csv", columns={rng.choice(names): text}, **options)

    def logs(self, folder, rng):
        """A folder of logs."""
        run = folder / "r1"
        run.mkdir()
        whole = rng.random() < 0.5
        (run / "log.jsonl").write_bytes(self.log if not whole else damaged(self.log, rng))
        (run / "config.json").write_bytes(self.config if whole else damaged(self.config, rng))
        columns = {"recurrences": "config.r", "loss": "val.loss", "n_once": "config.size.once",
                   "n_rec": "config.size.rec"}  # fmt: skip
        import_runs(folder, columns=columns, finished=("step", "config.steps"))


KINDS = ("table", "plans", "presets", "fits", "ledgers", "maps", "logs")


def damaged(data, rng):
    """The bytes, changed in one to three ways."""
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            data = swapped(data, rng)
            continue
        at = rng.randint(0, len(data))
        data = rng.choice(
            [
                data[:at],
                data[:at] + rng.choice(BYTES) + data[at:],
                data[:at] + rng.choice(BYTES) + data[at + 1 :],
                data[:at] + data[at + rng.randint(1, 40) :],
                data[:at] + data[at : at + 40] + data[at:],
            ]
        )
    return data


def swapped(data, rng):
    """JSON with one of its values another or left out; other bytes as they are."""
    try:
        content = json.loads(data)
    except ValueError:
        return data
    places = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    if not isinstance(content, dict | list):
        return data
    walk(content)
    if not places:
        return data
    holder, key = rng.choice(places)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(ODD)
    return json.dumps(content).encode()


def _too_long(number, frame):
    raise TimeoutError(f"over {LONGEST} s")


def faults(kind, cases, seed, kinds):
    """The cases of a kind that ended otherwise than they may, each with why."""
    found = []
    read = getattr(kinds, kind)
    signal.signal(signal.SIGALRM, _too_long)
    for case in range(cases):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "inner"
            folder.mkdir()
            signal.alarm(LONGEST)
            try:
                read(folder, random.Random(f"{kind} {seed} {case}"))
            except InputError as error:
                if not error.problems or not all(error.problems):
                    found.append((case, "it was refused without a word"))
            except Exception:
                found.append((case, traceback.format_exc()))
            finally:
                signal.alarm(0)
            if os.listdir(scratch) != ["inner"]:  # noqa: PTH208
                found.append((case, "it wrote outside of its folder"))
    return found


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    args = parser.parse_args()
    kinds = Kinds()
    for kind in args.kinds:
        begun = time.monotonic()
        found = faults(kind, args.cases, args.seed, kinds)
        seconds = time.monotonic() - begun
        print(f"{kind}: {args.cases} cases, {len(found)} faults, {seconds:.0f} s", flush=True)
        for case, why in found[:3]:
            print(f"  case {case}: {why}", flush=True)


if __name__ == "__main__":
    main()

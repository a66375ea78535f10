"""A sweep killed with -9 at random moments, again and again, until it is done.

    python benchmarks/sweep_kills.py --kills 100

Half of the kills hit a worker, half the sweep itself, at moments drawn at random; the sweep is
started again after each kill of its own. At the end its table must equal that of an undisturbed
sweep to the last digit, with every run there once.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import sweeps  # the tests' small sweeps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flops", type=float, default=2e10, help="of each run: how long they last")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        plan = sweeps.write_plan(root, flops=args.flops)
        subprocess.run(
            [sys.executable, "-m", "isodepth", "sweep", plan, "--out", root / "calm", "--quiet"],
            check=True,
        )
        folder = root / "killed"
        command = ("sweep", plan, "--out", folder, "--retries", 10 * args.kills, "--quiet")
        total = sum(run["steps"] for run in json.loads(plan.read_text())["runs"])
        begin = time.monotonic()
        process = sweeps.start(*command)
        kills = {"worker": 0, "sweep": 0}
        while sum(kills.values()) < args.kills and process.poll() is None:
            # at random moments, early enough that all kills find something to kill
            mark = total * 0.9 * (sum(kills.values()) + chance.random()) / args.kills
            while sweeps.steps_logged(folder) < mark and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.random())
            workers = sweeps.children(process.pid)
            if workers and chance.random() < 0.5:
                os.kill(chance.choice(workers), signal.SIGKILL)
                kills["worker"] += 1
            elif process.poll() is None:
                process.kill()
                process.wait()
                kills["sweep"] += 1
                process = sweeps.start(*command)
        status = process.wait()
        calm, killed = sweeps.table(root / "calm"), sweeps.table(folder)
        told = json.loads(sweeps.isodepth("status", folder, "--json", "-").stdout)
        print(
            json.dumps(
                {
                    "kills": kills,
                    "runs": len(told["runs"]),
                    "done": told["counts"]["done"],
                    "attempts": sum(run["attempts"] for run in told["runs"]),
                    "exit_status": status,
                    "same_table": calm == killed,
                    "seconds": round(time.monotonic() - begin),
                }
            )
        )
        if status or calm != killed:
            sys.exit(1)


if __name__ == "__main__":
    main()

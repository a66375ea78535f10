"""Sweeps whose truth is known."""

import os

# two threads wait for each other at every small operation; two processes do not
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile

# what `isodepth plan` remembers of its plans stays out of the user's own notes
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="isodepth-tests-")

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from isodepth import account, load_runs

# a search for new examples is for people; a build must not fail by chance
settings.register_profile("build", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("build")

TRUTH = {"E": 1.6, "A": 60.0, "alpha": 0.25, "B": 900.0, "beta": 0.35, "phi": 0.45}
GAMMA = 0.6  # of the coupled law, whose A, alpha, B and beta are then inside the bracket
COUPLED = {"E": 1.2, "A": 900.0, "alpha": 0.36, "B": 30000.0, "beta": 0.5, "phi": 0.45}


def true_loss(frame, law="additive", multiplicity=None):
    """Exact losses of a frame's runs, written straight from the formula."""
    t = TRUTH if law == "additive" else COUPLED
    r = frame["recurrences"].to_numpy(dtype=float)
    m = r ** t["phi"] if multiplicity is None else np.array([multiplicity[int(x)] for x in r])
    n = frame["n_once"] + frame["n_inject"] + m * frame["n_rec"]
    reducible = t["A"] * n ** -t["alpha"] + t["B"] * frame["tokens"] ** -t["beta"]
    return t["E"] + (reducible if law == "additive" else reducible**GAMMA)


def grid(budgets=(1e18, 4e18, 1.6e19), widths=(448, 640, 896, 1280), recurrences=(1, 2, 4, 8)):
    """Runs of equal compute at every budget, without losses."""
    rows = []
    for budget in budgets:
        for width in widths:
            for r in recurrences:
                a = account(width=width, recurrences=r)
                rows.append(
                    {
                        "run_id": f"c{budget:g}-w{width}-r{r}",
                        "recurrences": r,
                        "n_once": a.n_once,
                        "n_rec": a.n_rec,
                        "n_inject": a.n_inject,
                        "width": width,
                        "tokens": budget / a.flops_per_token,
                        "flops_per_token": a.flops_per_token,
                        "budget_flops": budget,
                    }
                )
    return pd.DataFrame(rows)


def sweep(law="additive", noise=0.0, seed=0, multiplicity=None, **shape):
    """A validated table of runs that follow a law exactly, or with relative noise."""
    frame = grid(**shape)
    rng = np.random.default_rng(seed)
    frame["loss"] = true_loss(frame, law, multiplicity) * np.exp(
        noise * rng.normal(size=len(frame))
    )
    return load_runs(frame)


def loss_at(frame, phi, cost=1.0):
    t = TRUTH
    m = np.where(frame["recurrences"] > 1, cost, 1.0) * frame["recurrences"] ** phi
    n = frame["n_once"] + frame["n_inject"] + m * frame["n_rec"]
    return t["E"] + t["A"] * n ** -t["alpha"] + t["B"] * frame["tokens"] ** -t["beta"]


def truncated(frame):
    """The same models with gradient through the last half of the passes: cheaper tokens."""
    frame = frame.copy()
    frame["flops_per_token"] = [
        account(width=int(w), recurrences=int(r), backprop_last=-(-int(r) // 2)).flops_per_token
        for w, r in zip(frame["width"], frame["recurrences"], strict=True)
    ]
    frame["tokens"] = frame["budget_flops"] / frame["flops_per_token"]
    return frame


def two_recipes(phi=0.65, noise=0.0, seed=0, cost=1.0, recurrences=(2, 4, 8), cut=True):
    """A baseline of φ = 0.45 and a probe of another φ, the same law."""
    base = grid().assign(recipe="baseline")
    base["loss"] = true_loss(base)
    probe = grid(recurrences=recurrences).assign(recipe="probe")
    probe = truncated(probe) if cut else probe
    probe["loss"] = loss_at(probe, phi, cost)
    probe["run_id"] = "probe-" + probe["run_id"]
    frame = pd.concat([base, probe], ignore_index=True)
    rng = np.random.default_rng(seed)
    frame["loss"] *= np.exp(noise * rng.normal(size=len(frame)))
    return load_runs(frame)


@pytest.fixture(scope="session")
def published():
    return load_runs("published")

"""What a pass is worth without a law, where the truth is known and on the published runs."""

import numpy as np
import pytest

from isodepth import fit, load_runs
from isodepth.fitting.law_free import law_free, without_law
from isodepth.fitting.problem import Conventions, build

KAPPA, DELTA = 1.2, 0.04
WORTH = {
    "additive": lambda r: r**0.458,
    "steep": lambda r: r**0.8,
    "coupled": lambda r: r**0.458,
    "logarithmic": lambda r: 1 + 0.8 * np.log(r),
}


def loss_of(n, tokens, law):
    """The published baseline's coefficients, about; nats."""
    if law == "coupled":
        return 1.3 + (900.0 * n**-0.36 + 30000.0 * tokens**-0.5) ** 0.6
    return 1.57 + 28.7 * n**-0.2 + 897.0 * tokens**-0.3675


def simulated(published, truth, noise=0.0, seed=0, kappa=1.0, delta=0.0):
    """The published baseline's layout with losses of a known truth; looped runs may differ."""
    frame = published.frame[published.frame["recipe"] == "baseline"].copy()
    r = frame["recurrences"].to_numpy(dtype=float)
    n = frame["n_once"] + frame["n_inject"] + WORTH[truth](r) * frame["n_rec"]
    tokens = frame["tokens"] * np.where(r > 1, kappa, 1.0)
    loss = loss_of(n, tokens, "coupled" if truth == "coupled" else "additive")
    frame["loss"] = loss + np.where(r > 1, delta, 0.0)
    frame["loss"] *= np.exp(noise * np.random.default_rng(seed).normal(size=len(frame)))
    return frame


def measured(frame):
    runs = load_runs(frame)
    return law_free(build(runs.used, Conventions()))


@pytest.mark.parametrize("truth", list(WORTH))
def test_m_is_that_of_the_truth(published, truth):
    found, why = measured(simulated(published, truth))
    assert why is None
    for one in found.m:
        assert one.value == pytest.approx(WORTH[truth](one.recurrences), rel=0.01)
        low, high = one.ci95
        assert low <= one.value <= high
    if truth != "logarithmic":
        phi = 0.8 if truth == "steep" else 0.458
        assert found.phi.value == pytest.approx(phi, abs=0.01)
        assert found.phi_looped.value == pytest.approx(phi, abs=0.02)
    for twin in found.twins:
        if twin.kept and twin.m is not None:
            assert twin.m == pytest.approx(WORTH[truth](twin.recurrences), rel=0.05)


def test_a_power_law_is_told_from_what_is_none(published):
    power, _ = measured(simulated(published, "additive", noise=0.001))
    other, _ = measured(simulated(published, "logarithmic", noise=0.001))
    assert power.power_law["p_value"] > 0.05
    assert other.power_law["p_value"] < 1e-4
    said = [w.code for w in without_law(other, None, None, None)]
    assert "multiplicity_form" in said


@pytest.mark.parametrize(
    ("kind", "change"), [("tokens", {"kappa": KAPPA}), ("loss", {"delta": DELTA})]
)
def test_a_constant_of_the_looped_arms_is_recovered(published, kind, change):
    found, _ = measured(simulated(published, "additive", noise=0.0005, **change))
    assert found.split["kind"] == kind
    by_kind = {one["kind"]: one for one in found.split["candidates"]}
    assert set(by_kind) == {"none", "tokens", "loss"}
    if kind == "tokens":
        assert found.split["tokens_ratio"]["value"] == pytest.approx(KAPPA, rel=0.01)
    else:
        assert found.split["loss_offset"]["value"] == pytest.approx(DELTA, rel=0.1)
    assert found.split["phi"]["value"] == pytest.approx(0.458, abs=0.02)
    assert found.split["phi_looped"]["value"] == pytest.approx(0.458, abs=0.02)
    # what a constant does to an exponent that must pass through m(1) = 1
    away = found.phi.value - 0.458
    assert away > 0.05 if kind == "tokens" else away < -0.05


@pytest.mark.parametrize(
    ("kind", "change"), [("tokens", {"kappa": KAPPA}), ("loss", {"delta": DELTA})]
)
def test_without_noise_the_constant_is_exact(published, kind, change):
    found, _ = measured(simulated(published, "additive", **change))
    one = next(c for c in found.split["candidates"] if c["kind"] == kind)
    got = one["tokens_ratio"] if kind == "tokens" else one["loss_offset"]
    assert got["value"] == pytest.approx(KAPPA if kind == "tokens" else DELTA, rel=0.03)


def test_noise_makes_no_constant_and_intervals_hold_the_truth(published):
    """A coarse look at ten sweeps: rates and coverage are simulated in docs."""
    sweeps = [measured(simulated(published, "additive", 0.0025, seed))[0] for seed in range(10)]
    assert [found.split["kind"] for found in sweeps].count("none") >= 8
    held = [m.ci95[0] < m.recurrences**0.458 < m.ci95[1] for found in sweeps for m in found.m]
    assert np.mean(held) > 0.85
    phis = np.array([found.phi.value for found in sweeps])
    assert phis.mean() == pytest.approx(0.458, abs=0.02)


def test_runs_outside_the_unlooped_ones_are_left_out_and_named(published):
    frame = simulated(published, "additive")
    few = (frame["recurrences"] == 1) & (frame["budget_flops"] < 4e18)
    found, _ = measured(frame[~few])
    by_r = {one.recurrences: one for one in found.left_out}
    assert set(by_r) == {2.0, 4.0, 8.0}
    left = frame[~few]
    r = left["recurrences"].to_numpy(dtype=float)
    size = left["n_once"] + left["n_inject"] + WORTH["additive"](r) * left["n_rec"]
    unlooped = left["recurrences"] == 1
    # far below every unlooped run in size or tokens, by any reading of a hull
    far = (size < 0.7 * size[unlooped].min()) | (
        left["tokens"] < 0.7 * left["tokens"][unlooped].min()
    )
    named = {i for one in found.left_out for i in one.run_ids}
    assert far.sum() > 10
    assert set(left["run_id"][far]) <= named
    assert named == {t.run_id for t in found.twins if not t.kept}
    for one in found.m:
        assert one.n_runs == (left["recurrences"] == one.recurrences).sum() - len(
            by_r[one.recurrences].run_ids
        )
        assert one.value == pytest.approx(one.recurrences**0.458, rel=0.02)
    lowest, highest = by_r[2.0].wanted_params
    assert lowest < size[unlooped].min()
    assert lowest == pytest.approx(size[left["run_id"].isin(by_r[2.0].run_ids)].min(), rel=0.05)
    assert highest >= lowest
    assert "twins_left_out" in [w.code for w in without_law(found, None, None, None)]


def test_where_too_few_are_left_it_says_which_unlooped_runs_are_missing(published):
    frame = simulated(published, "additive")
    unlooped = frame["recurrences"] == 1
    looped = ~unlooped & (frame["budget_flops"] < 4e18)
    found, why = measured(frame[looped | (unlooped & (frame["budget_flops"] > 9e18))])
    assert found is None
    assert "unlooped runs of" in why
    assert "would hold them" in why
    found, why = measured(frame[~unlooped | (frame["width"] == 768)])
    assert found is None
    assert "for a surface" in why
    found, why = measured(frame[~unlooped])
    assert (found, why) == (None, "it takes runs at r = 1 and at r > 1")
    assert [w.code for w in without_law(None, why, 0.4, (0.3, 0.5))] == ["law_free_missing"]


def test_one_looped_r_has_an_anchored_exponent_alone(published):
    frame = simulated(published, "additive")
    found, _ = measured(frame[frame["recurrences"].isin([1, 4])])
    assert found.phi.value == pytest.approx(0.458, abs=0.01)
    assert (found.phi_looped, found.power_law) == (None, None)


def test_a_drift_of_m_is_found(published):
    frame = simulated(published, "additive", noise=0.001)
    r = frame["recurrences"].to_numpy(dtype=float)
    bend = 0.3 * np.log10(frame["budget_flops"] / 4e18)
    m = np.where(r > 1, r**0.458 * 10 ** (bend / np.log(10)), 1.0)
    n = frame["n_once"] + frame["n_inject"] + m * frame["n_rec"]
    noise = frame["loss"] / loss_of(
        frame["n_once"] + frame["n_inject"] + r**0.458 * frame["n_rec"], frame["tokens"], "additive"
    )
    drifting, _ = measured(frame.assign(loss=loss_of(n, frame["tokens"], "additive") * noise))
    steady, _ = measured(frame)
    assert drifting.drift["budget"].value == pytest.approx(0.3, abs=0.06)
    assert drifting.drift["budget"].p_value < 0.01
    assert steady.drift["budget"].p_value > 0.05


def test_the_published_baseline(published):
    """Medians over runs, found before any of this was written: 1.36, 2.02, 2.54."""
    found, _ = law_free(build(published.of_recipe("baseline")[0], Conventions()))
    for one, median in zip(found.m, (1.36, 2.02, 2.54), strict=True):
        own = [t.m for t in found.twins if t.kept and t.recurrences == one.recurrences]
        assert one.value == pytest.approx(median, abs=0.06)
        # those medians have the runs whose twins lie outside the unlooped ones in them
        assert np.median(own) == pytest.approx(median, abs=0.1)
    assert (found.surface["degree"], found.surface["n_runs"]) == (3, 29)


def test_a_fit_holds_it_and_a_saved_fit_too(published, tmp_path):
    result = fit(published, bootstrap=50, sensitivity=False)
    found, _ = law_free(build(published.of_recipe("baseline")[0], Conventions()))
    assert result.law_free["phi"] == found.to_dict()["phi"]
    result.save(tmp_path / "fit.json")
    again = type(result).load(tmp_path / "fit.json")
    assert again.law_free["phi"]["value"] == found.phi.value
    assert again.report() == result.report()

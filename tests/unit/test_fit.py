"""`fit` on known answers: exact laws, the published grid, and designs that can't tell."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import COUPLED, GAMMA, TRUTH, grid, sweep, true_loss
from hypothesis import given, settings
from hypothesis import strategies as st

from isodepth import Fit, InputError, fit, load_runs


@pytest.fixture(scope="module")
def published_fit(published):
    return fit(published, bootstrap=400)


@pytest.mark.parametrize("estimator", ["huber", "lsq"])
def test_recovers_an_exact_additive_law(estimator):
    found = fit(sweep(), estimator=estimator, bootstrap=0, sensitivity=False)
    for name, value in TRUTH.items():
        assert found.params[name] == pytest.approx(value, rel=1e-4), name
    assert found.r2 == pytest.approx(1.0, abs=1e-9)


def test_recovers_an_exact_coupled_law():
    found = fit(sweep(law="coupled"), law="coupled", bootstrap=0, sensitivity=False)
    for name, value in {**COUPLED, "gamma": GAMMA}.items():
        assert found.params[name] == pytest.approx(value, rel=1e-3), name


def test_recovers_a_free_multiplicity():
    truth = {1: 1.0, 2: 1.2, 4: 2.0, 8: 2.1}
    found = fit(sweep(multiplicity=truth), multiplicity="free", bootstrap=0, sensitivity=False)
    for r in (2, 4, 8):
        assert found.params[f"m{r}"] == pytest.approx(truth[r], rel=1e-4)
    assert found.phi is None
    assert any("free multiplicity has no φ" in w.text for w in found.warnings)


@settings(max_examples=8, deadline=None)
@given(
    phi=st.floats(-0.2, 1.2), alpha=st.floats(0.15, 0.5), beta=st.floats(0.2, 0.5), seed=st.just(0)
)
def test_recovers_any_exponents(phi, alpha, beta, seed):
    frame = grid()
    n = frame["n_once"] + frame["n_inject"] + frame["recurrences"] ** phi * frame["n_rec"]
    size = 0.8 * (n / n.mean()) ** -alpha
    frame["loss"] = 1.5 + size + 0.5 * (frame["tokens"] / frame["tokens"].mean()) ** -beta
    found = fit(load_runs(frame), bootstrap=0, sensitivity=False)
    assert found.params["alpha"] == pytest.approx(alpha, abs=1e-3)
    assert found.phi == pytest.approx(phi, abs=1e-3)


def test_published_baseline_is_the_published_number(published):
    found = fit(published, count_injection="regressed", bootstrap=0, sensitivity=False)
    assert found.phi == pytest.approx(0.46, abs=0.003)
    assert found.r2 == pytest.approx(0.997, abs=0.0005)


@pytest.mark.parametrize(
    ("recipe", "claimed"), [("truncated_bptt", 0.38), ("hyperconnections", 0.65)]
)
def test_published_probes(published, recipe, claimed):
    found = fit(
        published, recipe=recipe, count_injection="regressed", bootstrap=0, sensitivity=False
    )
    assert found.phi == pytest.approx(claimed, abs=0.005)
    assert found.borrowed_unlooped_from == "baseline"
    assert any("it uses 20 of baseline's" in n for n in found.notes)


def test_published_diagnostics(published_fit):
    """What a second, scratch analysis of the same grid found (least squares)."""
    laws = published_fit.lack_of_fit["laws"]
    assert laws["additive"]["rmse"] == pytest.approx(0.010, abs=0.0005)
    assert laws["coupled"]["rmse"] == pytest.approx(0.0067, abs=0.0001)
    assert laws["coupled"]["bic"] - laws["additive"]["bic"] == pytest.approx(-90, abs=5)
    assert published_fit.lack_of_fit["curvature"]["p_value"] < 1e-6
    assert published_fit.n_starts_agreeing > 10
    low, high = published_fit.interval("phi")
    assert low < 0.46 < high
    # residuals go on along r, so φ's interval averages over error structures; beside it by groups
    along = published_fit.errors_along_r
    assert along["correlation"] == pytest.approx(0.67, abs=0.01)
    assert along["p_value"] < 0.01
    by_groups = along["ci95_groups"]
    assert 0.05 < by_groups[1] - by_groups[0] < 0.15
    assert high - low > 2 * (by_groups[1] - by_groups[0])
    assert "errors_along_r" in {w.code for w in published_fit.warnings}
    arms = [a["arms_differ"] for a in published_fit.sensitivity]
    assert arms == ["none"] * 16 + ["tokens"] * 2 + ["loss"] * 2
    assert published_fit.extrapolation["budget_flops"] == 2.15e19


def test_free_multiplicity_of_the_coupled_fit_matches_the_scratch_analysis(published):
    choice = {"law": "coupled", "multiplicity": "free", "estimator": "lsq"}
    found = fit(published, **choice, bootstrap=0, sensitivity=False)
    measured = [found.params[f"m{r}"] for r in (2, 4, 8)]
    np.testing.assert_allclose(measured, [1.28, 1.94, 2.49], atol=0.02)


def test_contract_of_the_json(published_fit):
    data = json.loads(published_fit.to_json())
    names = (
        "recipe n_runs n_excluded law multiplicity estimator count_injection params phi ci95 r2 "
        "rmse objective converged n_starts_agreeing lack_of_fit sensitivity extrapolation warnings"
    )
    assert set(names.split()) <= set(data)
    assert set(data["params"]) == {"E", "A", "alpha", "B", "beta", "phi"}
    assert set(data["phi"]) == {"value", "ci95", "method", "n_resamples"}
    assert data["phi"]["value"] == data["params"]["phi"]
    assert data["n_runs"] == 116


def test_a_saved_fit_is_the_same_fit(published_fit, tmp_path):
    path = tmp_path / "fit.json"
    published_fit.save(path)
    loaded = Fit.load(path)
    assert loaded.params == published_fit.params
    assert loaded.ci95 == published_fit.ci95
    assert loaded.report() == published_fit.report()
    point = {"n_once": 2e8, "n_rec": 2e8, "recurrences": 4, "tokens": 1e10}
    np.testing.assert_array_equal(loaded.predict(**point), published_fit.predict(**point))
    np.testing.assert_allclose(
        loaded.predict_interval(**point), published_fit.predict_interval(**point), rtol=1e-7
    )


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 7}'])
def test_what_is_not_a_fit_is_refused(tmp_path, text):
    path = tmp_path / "fit.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"fit\.json"):
        Fit.load(path)


def test_predict_is_the_law_with_the_published_coefficients(published_fit):
    p = published_fit.params
    n = 1e8 + 3e6 + 4 ** p["phi"] * 1e8
    loss = p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * 1e10 ** -p["beta"]
    found = published_fit.predict(n_once=1e8, n_rec=1e8, n_inject=3e6, recurrences=4, tokens=1e10)
    assert found[0] == pytest.approx(loss, rel=1e-10)
    low, high = published_fit.predict_interval(
        n_once=1e8, n_rec=1e8, n_inject=3e6, recurrences=4, tokens=1e10
    )
    assert low[0] < loss < high[0]


def test_same_seed_same_numbers(published):
    once, twice = (fit(published, bootstrap=50, seed=3) for _ in range(2))
    other = fit(published, bootstrap=50, seed=4, sensitivity=False)
    assert once.to_json() == twice.to_json()
    assert once.phi == other.phi
    assert once.ci95 != other.ci95


def test_r_1_only_is_a_chinchilla_fit_without_phi():
    found = fit(sweep(recurrences=(1,), widths=(384, 512, 640, 896, 1280)), bootstrap=50)
    assert found.params["alpha"] == pytest.approx(TRUTH["alpha"], rel=1e-3)
    assert found.phi is None
    assert found.to_dict()["phi"]["value"] is None
    assert any("phi is not identified: every run has r = 1" in w.text for w in found.warnings)
    with pytest.raises(InputError, match="runs of one r only"):
        found.predict(n_once=1e7, n_rec=1e7, recurrences=2, tokens=1e9)


@pytest.mark.parametrize(
    ("shape", "unknown", "why"),
    [
        ({"budgets": (1e18,)}, {"E", "A", "alpha", "B", "beta", "phi"}, "one FLOP budget"),
        ({"widths": (640,)}, {"E", "A", "alpha", "phi"}, "one width"),
        ({"recurrences": (4,)}, {"A", "phi"}, "every run has r = 4"),
    ],
)
def test_designs_that_cannot_tell_print_no_number(shape, unknown, why):
    found = fit(sweep(noise=0.002, **shape), bootstrap=50, sensitivity=False)
    assert {name for name, value in found.params.items() if value is None} >= unknown
    assert all(found.ci95[name] is None for name in unknown)
    assert any(why in w.text for w in found.warnings), found.warnings


def test_tokens_proportional_to_parameters():
    frame = grid(budgets=(1e18,), widths=tuple(range(256, 1664, 128)), recurrences=(1,))
    frame["tokens"] = 20.0 * (frame["n_once"] + frame["n_rec"])
    frame = frame.drop(columns=["budget_flops", "flops_per_token"])
    frame["loss"] = true_loss(frame)
    found = fit(load_runs(frame), bootstrap=50)
    assert {"E", "A", "alpha", "B", "beta"} <= {k for k, v in found.params.items() if v is None}
    assert any("tokens are proportional to parameters" in w.text for w in found.warnings)


def test_few_runs_print_no_number():
    runs = sweep(budgets=(1e18, 4e18), widths=(448,), recurrences=(1, 4))
    found = fit(runs, bootstrap=50)
    assert all(value is None for value in found.params.values())
    assert any("4 runs can't test 6 parameters" in w.text for w in found.warnings)
    assert found.r2 is None
    assert found.lack_of_fit["laws"] == {}
    assert found.lack_of_fit["influence"] == ()


def test_diverged_runs_are_left_out_and_counted():
    frame = sweep(noise=0.002).frame
    frame.loc[5, "loss"] = np.nan
    runs = load_runs(frame.drop(columns="status"))
    found = fit(runs, bootstrap=0, sensitivity=False)
    assert (found.n_runs, found.n_excluded) == (47, 1)
    assert any("1 diverged" in n for n in found.notes)


def test_one_outlier_hardly_moves_huber_and_is_named():
    frame = sweep(noise=0.002).frame
    before = fit(load_runs(frame), bootstrap=0, sensitivity=False).phi
    frame.loc[7, "loss"] *= 10
    found = fit(load_runs(frame), bootstrap=0, sensitivity=False)
    assert found.phi == pytest.approx(before, abs=0.02)
    assert any(
        f"1 of 48 runs lie more than 6 standard deviations off: {frame['run_id'][7]}" in w.text
        for w in found.warnings
    )


def test_loss_stderr_sets_the_weights():
    """Runs of no precision must not move the fit."""
    frame = sweep(noise=0.0).frame
    bad = np.arange(len(frame)) % 5 == 0
    frame.loc[bad, "loss"] *= 1.05
    frame["loss_stderr"] = np.where(bad, 10.0, 1e-4)
    choice = {"estimator": "lsq", "bootstrap": 0, "sensitivity": False}
    weighted = fit(load_runs(frame), **choice)
    assert weighted.phi == pytest.approx(TRUTH["phi"], abs=1e-3)
    assert weighted.weighting == "1 / loss_stderr"
    unweighted = fit(load_runs(frame.drop(columns="loss_stderr")), **choice)
    assert abs(unweighted.phi - TRUTH["phi"]) > 1e-3


def test_replicates_give_pure_error_and_weights():
    rng = np.random.default_rng(0)
    frame = pd.concat([grid().assign(seed=s) for s in range(3)], ignore_index=True)
    frame["run_id"] = [f"{i}" for i in range(len(frame))]
    noise = np.where(frame["budget_flops"] == 1e18, 0.01, 0.001)
    frame["loss"] = true_loss(frame) * np.exp(noise * rng.normal(size=len(frame)))
    found = fit(load_runs(frame), bootstrap=0, sensitivity=False)
    assert "replicates at each budget" in found.weighting
    replicates = found.lack_of_fit["replicates"]
    assert replicates["n_sets"] == 48
    assert replicates["degrees_of_freedom"] == 96
    assert replicates["noise"] == pytest.approx(0.0058, rel=0.25)
    assert replicates["p_value"] > 0.01


def test_lack_of_fit_is_seen_where_the_law_is_wrong():
    wide = {"widths": (320, 448, 640, 896, 1280, 1792), "noise": 0.0003}
    found = fit(sweep(law="coupled", **wide), bootstrap=50, sensitivity=False)
    assert any("coupled law describes these runs better" in w.text for w in found.warnings)
    steps = {1: 1.0, 2: 1.8, 4: 2.0, 8: 2.05}
    found = fit(sweep(multiplicity=steps, **wide), bootstrap=50, sensitivity=False)
    assert any("not the whole story" in w.text for w in found.warnings)


def test_nothing_to_warn_of_where_the_law_is_right():
    found = fit(
        sweep(noise=0.001, widths=(320, 448, 640, 896, 1280), budgets=(5e17, 2e18, 8e18, 3.2e19)),
        bootstrap=100,
    )
    said = " ".join(map(str, found.warnings))
    for word in ("converge", "identified", "steep", "whole story", "better", "starts"):
        assert word not in said, said


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"law": "magic"}, "law 'magic' is not one of"),
        ({"estimator": "ols"}, "estimator 'ols' is not one of"),
        ({"huber_delta": 0.0}, "huber_delta = 0.0"),
        ({"huber_delta": float("nan")}, "huber_delta = nan"),
        ({"bootstrap": -1}, "bootstrap = -1"),
        ({"bootstrap": 7}, "at least 50"),
        ({"recipe": "none"}, "no recipe 'none'"),
    ],
)
def test_unusable_choices(published, choice, words):
    with pytest.raises(InputError, match=words):
        fit(published, **choice)


def test_regressed_counting_needs_two_arms_a_width():
    with pytest.raises(InputError, match="at least two values of r at every width"):
        fit(sweep(recurrences=(4,)), count_injection="regressed")


@settings(max_examples=8, deadline=None)
@given(
    budgets=st.sets(st.sampled_from([1e17, 1e18, 4e18, 1.6e19]), min_size=1),
    widths=st.sets(st.sampled_from([128, 448, 640, 1280]), min_size=1),
    recurrences=st.sets(st.sampled_from([1, 2, 4, 8]), min_size=1),
    noise=st.sampled_from([0.0, 0.003, 0.3]),
    law=st.sampled_from(["additive", "coupled"]),
    keep=st.floats(0.05, 1.0),
    seed=st.integers(0, 5),
)
def test_any_valid_table_gets_an_answer(budgets, widths, recurrences, noise, law, keep, seed):
    """Numbers that can be written as JSON, or null and a warning: never an exception."""
    shape = {"budgets": budgets, "widths": widths, "recurrences": recurrences}
    frame = sweep(noise=noise, seed=seed, **{k: tuple(sorted(v)) for k, v in shape.items()}).frame
    frame = frame.sample(frac=keep, random_state=seed)
    if frame.empty:
        return
    found = fit(load_runs(frame), law=law, bootstrap=50)
    data = json.loads(found.to_json())
    missing = [name for name, value in data["params"].items() if value is None]
    for name in missing:
        assert data["ci95"][name] is None
        assert any(name in w for w in data["warnings"])
    assert "φ" in found.report()


def test_progress_is_told_and_ends():
    shares = []
    fit(sweep(), bootstrap=50, on_progress=lambda stage, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0

"""Looped arms that differ from unlooped ones by a constant: what a law finds, tells and refuses."""

import json

import conftest
import numpy as np
import pytest

from isodepth import Fit, InputError, fit, load_runs
from isodepth.cli import main
from isodepth.fitting.estimate import estimate
from isodepth.fitting.problem import Conventions, build
from isodepth.fitting.seeds import seeds
from isodepth.fitting.solver import minimise
from isodepth.planning.advice import equivalent_to_counts, equivalent_to_width
from isodepth.report.drawn import drawn_of_fit
from isodepth.report.latex import fit_latex
from isodepth.report.page_laws import law_content

KAPPA, DELTA = 1.3, 0.05


def differing(arms, law="additive", noise=0.0, seed=0, **shape):
    """Runs whose looped arms see κ times the tokens, or lose δ nats more."""
    frame = conftest.grid(**shape)
    looped = frame["recurrences"] > 1
    seen = frame["tokens"] * np.where(looped & (arms == "tokens"), KAPPA, 1.0)
    frame["loss"] = conftest.true_loss(frame.assign(tokens=seen), law)
    frame["loss"] += np.where(looped & (arms == "loss"), DELTA, 0.0)
    frame["loss"] *= np.exp(noise * np.random.default_rng(seed).normal(size=len(frame)))
    return load_runs(frame)


@pytest.fixture(scope="module")
def noisy():
    return {arms: differing(arms, noise=0.002) for arms in ("tokens", "loss")}


@pytest.fixture(scope="module")
def fitted(noisy):
    return {
        arms: fit(runs, arms_differ=arms, bootstrap=60, sensitivity=False)
        for arms, runs in noisy.items()
    }


@pytest.mark.parametrize("law", ["additive", "coupled"])
@pytest.mark.parametrize(
    ("arms", "name", "truth"), [("tokens", "tokens_ratio", KAPPA), ("loss", "loss_offset", DELTA)]
)
def test_recovers_the_constant_and_phi(law, arms, name, truth):
    runs = differing(arms, law)
    found = fit(runs, law=law, arms_differ=arms, bootstrap=0, sensitivity=False)
    assert found.params[name] == pytest.approx(truth, rel=1e-3)
    assert found.phi == pytest.approx(0.45, abs=1e-3)
    # a law without it writes the constant down as worth
    without = fit(runs, law=law, bootstrap=0, sensitivity=False)
    assert abs(without.phi - 0.45) > 0.05


@pytest.mark.parametrize("recipe", ["hyperconnections", "truncated_bptt"])
@pytest.mark.parametrize("law", ["additive", "coupled"])
@pytest.mark.parametrize("arms", ["tokens", "loss"])
def test_the_optimum_is_global(published, recipe, law, arms):
    """No start with another constant ends lower than those that start from none."""
    rows, _ = published.of_recipe(recipe)
    problem = build(rows, Conventions(law=law, arms_differ=arms))
    ours = estimate(problem)
    assert ours.converged
    start = np.repeat(seeds(problem)[:6], 4, axis=0)
    constants = [-1.0, -0.4, 0.4, 1.0] if arms == "tokens" else [-0.3, -0.1, 0.1, 0.3]
    start[:, len(problem.law.shape) - 1] = np.tile(constants, 6)
    start[:, 0] = np.maximum(start[:, 0], 0.4)
    other = minimise(problem.batch(), start)
    assert ours.objective <= np.nanmin(other.objective) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("recipe", "arms", "phi", "constant"),
    [("hyperconnections", "tokens", 0.457, 1.34), ("baseline", "tokens", 0.482, 0.96)],
)
def test_published_probes(published, recipe, arms, phi, constant):
    """As a second, scratch analysis of the same grid found them, within its own conventions."""
    found = fit(published, recipe=recipe, arms_differ=arms, bootstrap=0, sensitivity=False)
    assert found.phi == pytest.approx(phi, abs=0.005)
    assert found.params["tokens_ratio"] == pytest.approx(constant, abs=0.01)


def test_the_table_names_the_constant_that_wins(published):
    found = fit(published, recipe="hyperconnections", bootstrap=0)
    rows = {(a["law"], a["arms_differ"]): a for a in found.sensitivity if a["p_value"] is not None}
    assert set(rows) == {(w, a) for w in ("additive", "coupled") for a in ("tokens", "loss")}
    row = rows["additive", "tokens"]
    assert (row["phi"], row["tokens_ratio"]) == pytest.approx((0.457, 1.34), abs=0.005)
    assert row["p_value"] < 1e-3
    assert row["loss_offset"] is None
    said = [w.text for w in found.warnings if w.code == "arms_differ" and "additive law" in w.text]
    assert len(said) == 1
    assert "κ = 1.339" in said[0]
    assert "--arms-differ tokens" in said[0]
    # of other laws, estimators and countings the constant is no part
    assert not any("20 combinations" in w.text for w in found.warnings)
    text = found.report()
    assert "κ = 1.339" in text
    # its own rows carry the constant where the fit does
    own = fit(published, recipe="hyperconnections", arms_differ="tokens", bootstrap=0)
    kinds = [a["arms_differ"] for a in own.sensitivity]
    assert kinds[:16] == ["tokens"] * 16
    assert sorted(kinds[16:]) == ["loss", "loss", "none", "none"]
    assert not any(w.code == "arms_differ" and "additive law" in w.text for w in own.warnings)


def test_arms_that_differ_in_nothing_are_not_warned_of():
    found = fit(conftest.sweep(noise=0.003, seed=3), bootstrap=0)
    rows = [a for a in found.sensitivity if a["arms_differ"] != "none"]
    assert len(rows) == 4
    assert all(a["p_value"] > 0.05 for a in rows)
    assert not any("additive law" in w.text for w in found.warnings if w.code == "arms_differ")


@pytest.mark.parametrize(
    ("recurrences", "why"),
    [
        ((2, 4, 8), "no run has r = 1"),
        ((1,), "every run has r = 1"),
        ((1, 4), "r = 4 alone is looped"),
    ],
)
@pytest.mark.parametrize(("arms", "name"), [("tokens", "tokens_ratio"), ("loss", "loss_offset")])
def test_what_the_runs_can_not_tell_is_none(recurrences, why, arms, name):
    runs = conftest.sweep(noise=0.002, recurrences=recurrences)
    found = fit(runs, arms_differ=arms, bootstrap=60, sensitivity=False)
    assert found.params[name] is None
    assert found.ci95[name] is None
    assert any(name in w.text and why in w.text for w in found.warnings)
    again = Fit.from_json(found.to_json())
    assert again.params[name] is None
    shown = again.predict(n_once=1e8, n_rec=1e8, recurrences=recurrences[0], tokens=1e10)
    assert shown == found.predict(n_once=1e8, n_rec=1e8, recurrences=recurrences[0], tokens=1e10)


def test_intervals_hold_the_truth(fitted):
    for arms, name, truth in (("tokens", "tokens_ratio", KAPPA), ("loss", "loss_offset", DELTA)):
        low, high = fitted[arms].interval(name)
        assert low < truth < high
        assert high - low < 0.5 * truth * (1 if arms == "tokens" else 2)
        low, high = fitted[arms].interval("phi")
        assert low < 0.45 < high


def test_prediction_is_the_law_written_out(fitted):
    once, rec, tokens = 3e8, 4e8, 2e10
    for arms, found in fitted.items():
        p = found.params
        for r in (1, 4):
            seen = tokens * (p["tokens_ratio"] if arms == "tokens" and r > 1 else 1.0)
            more = p["loss_offset"] if arms == "loss" and r > 1 else 0.0
            n = once + r ** p["phi"] * rec
            loss = p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * seen ** -p["beta"] + more
            said = found.predict(n_once=once, n_rec=rec, recurrences=r, tokens=tokens)
            assert said == pytest.approx(loss, rel=1e-9)
        again = Fit.from_json(found.to_json())
        assert again.params == p
        assert again.fitted.arms_differ == arms
        assert again.predict(n_once=once, n_rec=rec, recurrences=4, tokens=tokens) == said


def test_fits_saved_before_arms_could_differ_are_read(noisy):
    saved = json.loads(fit(noisy["loss"], bootstrap=0).to_json())
    del saved["arms_differ"], saved["fitted"]["arms_differ"]
    for row in saved["sensitivity"]:
        for name in ("arms_differ", "tokens_ratio", "loss_offset", "p_value"):
            del row[name]
    again = Fit.from_json(json.dumps(saved))
    assert again.conventions.arms_differ == "none"
    assert "additive" in again.report()


def test_equal_loss_depends_on_the_tokens(noisy, fitted):
    coupled = fit(noisy["loss"], law="coupled", arms_differ="loss", bootstrap=60, sensitivity=False)
    for found in (fitted["tokens"], coupled):
        sizes = []
        for tokens in (5e9, 5e10):
            result = equivalent_to_counts(
                found, n_once=1e8, n_rec=2e8, recurrences=4, tokens=tokens
            )
            size = result.equivalent_params.value
            looped = found.predict(n_once=1e8, n_rec=2e8, recurrences=4, tokens=tokens)
            unlooped = found.predict(n_once=size, n_rec=0.0, recurrences=1, tokens=tokens)
            np.testing.assert_allclose(looped, unlooped, rtol=1e-10)
            low, high = result.equivalent_params.ci95
            assert low < size < high
            sizes.append(size)
        assert abs(np.log(sizes[0] / sizes[1])) > 1e-3
        with pytest.raises(InputError, match="--tokens"):
            equivalent_to_width(found, width=1280, recurrences=4)
        with pytest.raises(InputError, match="positive"):
            equivalent_to_width(found, width=1280, recurrences=4, tokens=-1.0)


def test_tokens_that_change_nothing_are_refused(noisy, fitted):
    """In the additive law a constant loss is made up for by as many parameters at any tokens."""
    plain = fit(noisy["loss"], bootstrap=0, sensitivity=False)
    for found in (plain, fitted["loss"]):
        with pytest.raises(InputError, match="same at any number of tokens"):
            equivalent_to_width(found, width=1280, recurrences=4, tokens=1e10)
    found = fitted["loss"]
    size = equivalent_to_counts(found, n_once=1e8, n_rec=2e8, recurrences=4).equivalent_params.value
    looped = found.predict(n_once=1e8, n_rec=2e8, recurrences=4, tokens=[5e9, 5e10])
    unlooped = found.predict(n_once=size, n_rec=0.0, recurrences=1, tokens=[5e9, 5e10])
    np.testing.assert_allclose(looped, unlooped, rtol=1e-10)


def test_a_loss_that_no_unlooped_size_has(fitted):
    """A token that counts 1.3 times saves more than any size can where tokens are few."""
    result = equivalent_to_width(fitted["tokens"], width=8192, recurrences=8, tokens=1e6)
    assert result.equivalent_params.value is None
    assert result.equivalent_params.ci95 is None
    assert "no unlooped size" in result.warnings[0].text


def test_page_and_table_have_the_constant(noisy, fitted):
    for arms, name, symbol in (
        ("tokens", "tokens_ratio", r"$\kappa$"),
        ("loss", "loss_offset", r"$\delta$ (nats)"),
    ):
        found = fitted[arms]
        law = law_content(noisy[arms], drawn_of_fit(noisy[arms], found))
        assert law["params"][name] == pytest.approx(found.params[name])
        assert "r > 1" in law["formula"]
        assert all(name in refit for refit in law["refits"])
        assert f"{symbol} &" in fit_latex(found)


def test_the_commands(noisy, tmp_path, capsys):
    table, saved, found = tmp_path / "runs.csv", tmp_path / "fit.json", tmp_path / "e.json"
    noisy["tokens"].frame.to_csv(table, index=False)
    asked = ["--arms-differ", "tokens", "--bootstrap", "0", "--json", str(saved)]
    assert main(["fit", str(table), *asked]) == 0
    written = json.loads(saved.read_text())
    assert written["arms_differ"] == "tokens"
    assert written["params"]["tokens_ratio"] == pytest.approx(KAPPA, abs=0.15)
    assert written["ci95"]["tokens_ratio"] is None
    assert "κ·D at r > 1" in written["formula"]
    assert "κ, tokens of r > 1" in capsys.readouterr().out
    asked = ["equivalent", "--fit", str(saved), "--width", "1280", "-r", "4", "--json", str(found)]
    assert main(asked) == 2
    assert "--tokens" in capsys.readouterr().err
    assert main([*asked, "--tokens", "1e10"]) == 0
    assert json.loads(found.read_text())["equivalent_params"]["value"] > 0

"""Tables as people have them: fitted, warned of, or without a number, each with the right word."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isodepth import InputError, fit, load_runs

CASES = Path(__file__).parents[1] / "data" / "cases"


def fitted(case, **choices):
    runs = case if isinstance(case, pd.DataFrame) else CASES / f"{case}.csv"
    return fit(load_runs(runs), **{"bootstrap": 0, "sensitivity": False} | choices)


def said(found, code):
    return " ".join(w.text for w in found.warnings if w.code == code)


def codes(found):
    return {w.code for w in found.warnings}


CONTRADICTIONS = {
    "no_unlooped", "two_solutions", "unequal_depth", "counts_contradict_flops", "not_nats",
    "embedding_counted", "flops_contradict_budget", "duplicate_rows", "one_budget",
    "repeated_data", "phi_above_one", "outliers",
}  # fmt: skip


def test_the_good_table_is_fitted_without_a_word_against_it():
    found = fitted("base")
    assert found.phi == pytest.approx(0.566, abs=0.002)
    assert not codes(found) & CONTRADICTIONS


@pytest.mark.parametrize("recipe", ["baseline", "truncated_bptt", "hyperconnections"])
def test_nothing_is_said_against_the_published_grid(published, recipe):
    rows, _ = published.of_recipe(recipe)
    assert published.doubts(rows) == ()


@pytest.mark.parametrize(
    ("case", "code", "words"),
    [
        ("no_r1_two_r", "two_solutions", "-2.276 and 0.582"),
        ("incl_emb", "counts_contradict_flops", "more than all of it"),
        ("nrec_times_r", "counts_contradict_flops", "multiplied by r already"),
        ("one_budget_named", "one_budget", "every run has one FLOP budget"),
        ("one_budget_unnamed", "one_budget", "every run has one FLOP budget"),
        ("ppl_as_loss", "not_nats", "perplexities"),
    ],
)
def test_what_the_data_cannot_say_prints_no_number(case, code, words):
    found = fitted(case)
    assert found.phi is None
    assert found.ci95["phi"] is None
    assert words in said(found, code)


@pytest.mark.parametrize(
    ("case", "phi", "code", "words"),
    [
        ("not_isodepth", 0.383, "unequal_depth", "3.50 times as much at r = 6 as at r = 1"),
        ("mixdup", 0.563, "duplicate_rows", "30 rows repeat"),
        ("growth", 2.300, "phi_above_one", "more than sharing"),
    ],
)
def test_what_changes_the_meaning_is_said_beside_the_number(case, phi, code, words):
    found = fitted(case)
    assert found.phi == pytest.approx(phi, abs=0.002)
    assert words in said(found, code)


def test_repeated_rows_are_one_run_and_no_replicates():
    runs = load_runs(CASES / "mixdup.csv")
    assert (len(runs), len(runs.used)) == (180, 150)
    found = fit(runs, bootstrap=200, sensitivity=False)
    assert found.n_runs == 150
    assert found.interval("phi") == pytest.approx((0.532, 0.594), abs=0.004)
    assert any("30 duplicate" in note for note in found.notes)


def test_budgets_of_a_float_product_are_three():
    dusty, clean = load_runs(CASES / "budget_dust.csv"), load_runs(CASES / "base.csv")
    assert sorted(dusty.frame["budget_flops"].unique()) == [3e17, 1e18, 3e18]
    assert fitted("budget_dust", bootstrap=50).ci95 == fitted("base", bootstrap=50).ci95
    assert dusty.frame["budget_flops"].tolist() == clean.frame["budget_flops"].tolist()


def test_a_law_with_as_many_parameters_as_runs_is_not_ranked():
    found = fitted("seven")
    assert set(found.lack_of_fit["laws"]) == {"additive"}
    assert "law_form" not in codes(found)


def test_perplexities_are_seen_without_a_name_that_tells(tmp_path):
    frame = pd.read_csv(CASES / "ppl_as_loss.csv")
    found = fitted(frame)
    assert found.phi is None
    assert "45 of 45 losses" in said(found, "not_nats")
    small = frame.assign(loss=np.exp(2.0 + 0.1 * frame["loss"].rank() / 45))  # below 12 all of them
    file = tmp_path / "val_ppl.csv"
    small.to_csv(file, index=False)
    assert fit(load_runs(file), bootstrap=0, sensitivity=False).phi is None
    assert "not_nats" not in codes(fitted(small))


def test_one_diverged_run_takes_no_number_away():
    frame = pd.read_csv(CASES / "base.csv")
    frame.loc[3, "loss"] = 20.0
    found = fitted(frame)
    assert found.phi == pytest.approx(0.566, abs=0.02)
    assert frame["run_id"][3] in said(found, "not_nats")
    assert frame["run_id"][3] in said(found, "outliers")


def test_a_known_vocabulary_sets_the_limit():
    frame = pd.read_csv(CASES / "base.csv").assign(vocab=64)  # ln 64 = 4.16
    frame["loss"] += 1.0
    assert "ln(vocabulary) = 4.16" in said(fitted(frame), "not_nats")


def test_bits_are_said_where_a_column_tells():
    frame = pd.read_csv(CASES / "base.csv")
    frame["val_bpb"] = frame["loss"]
    found = fitted(frame)
    assert found.phi == pytest.approx(0.566, abs=0.002)
    assert "'val_bpb', which equals the loss, says that the losses are bits" in said(
        found, "not_nats"
    )
    with pytest.raises(InputError, match="'val_bpb' holds bits"):
        load_runs(frame.drop(columns="loss"))


def test_an_embedding_is_seen_by_its_growth_with_the_width():
    frame = pd.read_csv(CASES / "incl_emb.csv").drop(columns="flops_per_token")
    assert "64,139 parameters for every unit of width" in said(fitted(frame), "embedding_counted")


def test_depth_that_may_be_a_slip_names_the_slip():
    frame = pd.read_csv(CASES / "nrec_times_r.csv").drop(columns="flops_per_token")
    assert "if n_rec was multiplied by r already" in said(fitted(frame), "unequal_depth")


def test_flops_of_the_forward_pass_alone_cost_no_number():
    frame = pd.read_csv(CASES / "base.csv")
    r = frame["recurrences"]
    frame["flops_per_token"] = 2.1 * (frame["n_once"] + r * (frame["n_rec"] + frame["n_inject"]))
    found = fitted(frame.drop(columns="budget_flops"))
    assert found.phi == pytest.approx(0.566, abs=0.002)
    assert "as the forward pass alone would cost" in said(found, "counts_contradict_flops")


def test_budgets_that_flops_miss_are_named():
    frame = pd.read_csv(CASES / "base.csv")
    frame["budget_flops"] *= 1.5
    assert "the budget is counted in another way" in said(fitted(frame), "flops_contradict_budget")
    frame.loc[0, "budget_flops"] /= 1.2
    assert "not trained with equal FLOPs" in said(fitted(frame), "flops_contradict_budget")


def test_repeated_data_is_said_where_a_column_tells():
    frame = pd.read_csv(CASES / "multi.csv").assign(unique_tokens=2e8)
    assert "saw tokens more than once" in said(fitted(frame), "repeated_data")
    assert "repeated_data" not in codes(fitted(frame.assign(unique_tokens=1e13)))
    epochs = pd.read_csv(CASES / "multi.csv").assign(epochs=["4"] * 80)
    assert "up to 4 times" in said(fitted(epochs), "repeated_data")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("n_once", 1e30, "above 1e+15"),
        ("n_rec", 1e-200, "below 1"),
        ("tokens", 1e200, "above 1e+18"),
        ("recurrences", 10**9, "above 10000"),
        ("loss", 1e200, "above 1e+06"),
        ("flops_per_token", 1e-200, "below 1"),
        ("budget_flops", 1e200, "above 1e+33"),
        ("tokens", 2.09e12, "1e+03 times budget_flops"),
        ("tokens", 2.09e6, "0.001 times budget_flops"),
    ],
)
def test_absurd_values_name_the_cell(column, value, words):
    frame = pd.read_csv(CASES / "base.csv").astype({column: float})
    frame.loc[0, column] = value
    with pytest.raises(InputError, match=f"row 1, column {column}: ") as caught:
        load_runs(frame)
    assert words in str(caught.value)


@pytest.mark.parametrize("factor", [1e-200, 1e200])
@pytest.mark.parametrize("column", ["n_once", "n_rec", "tokens", "loss", "flops_per_token"])
def test_scaled_columns_end_in_a_sentence(column, factor):
    frame = pd.read_csv(CASES / "base.csv")
    frame[column] *= factor
    with pytest.raises(InputError, match=f"column {column}"):
        load_runs(frame)

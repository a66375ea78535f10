"""`compare` on known answers: recipes whose φ is known, splits that must add up, real signs."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import TRUTH, true_loss, two_recipes
from hypothesis import given, settings
from hypothesis import strategies as st

from isodepth import InputError, account, compare, load_runs
from isodepth.comparing.channels import CHANNELS, shapley
from isodepth.comparing.pair import Fitted, fit_pair, noise_of, pair_of
from isodepth.comparing.result import Comparison
from isodepth.comparing.verdict import verdict_of_laws
from isodepth.fitting.estimate import estimate
from isodepth.fitting.problem import Conventions


@pytest.fixture(scope="module")
def probed():
    return compare(two_recipes(noise=0.001), recipe="probe", bootstrap=50)


@pytest.fixture(scope="module")
def exact():
    return compare(two_recipes(), recipe="probe", bootstrap=0)


@pytest.mark.parametrize("method", ["separate", "joint"])
@pytest.mark.parametrize("phi", [0.2, 0.65])
def test_recovers_a_known_difference(method, phi):
    pair = pair_of(two_recipes(phi), "baseline", "probe", Conventions())
    sides, _ = fit_pair(pair, method, None)
    assert sides.phis == pytest.approx((TRUTH["phi"], phi), abs=1e-4)
    assert not sides.missing


def test_recovers_the_cost_of_looping_and_asks_for_it():
    found = compare(two_recipes(0.5, noise=0.0005, cost=0.7), recipe="probe", bootstrap=0)
    assert found.cost.kappa == pytest.approx(0.7, abs=0.03)
    assert found.cost.delta_phi == pytest.approx(0.05, abs=0.03)
    assert found.cost.bic_gain > 10
    assert any("looping probe at all costs a factor κ = 0.7" in w.text for w in found.warnings)


def test_no_cost_is_asked_for_where_there_is_none(probed):
    assert probed.cost.kappa == pytest.approx(1.0, abs=0.1)
    assert not any("κ" in w.text for w in probed.warnings)


def test_one_looped_r_can_not_tell_a_cost():
    pair = pair_of(two_recipes(recurrences=(4,)), "baseline", "probe", Conventions())
    assert pair.with_cost() is None


def test_losses_are_simulated_where_a_phi_hangs_on_one_group():
    frame = two_recipes(noise=0.002, recurrences=(8,)).frame
    lowest = frame["budget_flops"] == frame["budget_flops"].min()
    frame = frame[frame["recurrences"].isin([1, 8]) & ((frame["recurrences"] > 1) | lowest)]
    pair = pair_of(load_runs(frame), "baseline", "probe", Conventions())
    draws = pair.draw(400, 0)
    assert draws.unit == "losses"
    sides = {method: fit_pair(pair, method, draws)[0] for method in ("separate", "joint")}
    freedom = sides["separate"].recipe.resamples.freedom
    # no less than of either fit alone, or than runs − parameters of both, but for Huber's share
    own = pair.baseline.n - 6, pair.recipe.n - 6
    assert 0.87 * max(*own, pair.both.n - 12) < freedom < sum(own)
    assert sides["separate"].baseline.resamples.freedom == freedom
    assert sides["joint"].recipe.resamples.freedom == pytest.approx(pair.both.n - 7, rel=0.13)
    for found in sides.values():
        # the runs both share cancel: Δφ spreads less than two independent φ would
        one = [side.resamples.theta[:, -1].std() for side in (found.baseline, found.recipe)]
        assert found.delta_draws.std() < 0.95 * np.hypot(*one)


def test_one_noise_is_pooled_over_two_fits_that_share_runs():
    frame = two_recipes(noise=0.002).frame
    pair = pair_of(load_runs(frame), "baseline", "probe", Conventions(estimator="lsq"))
    one, two = (
        Fitted(problem=problem, best=estimate(problem), rows=rows)
        for problem, rows in ((pair.baseline, pair.in_baseline), (pair.recipe, pair.in_recipe))
    )
    squares = 2 * (one.best.objective + two.best.objective)  # each run's residuals, scaled
    free = pair.baseline.n + pair.recipe.n - 12
    both = noise_of(pair.both, [one, two])
    assert both.scale == pytest.approx(np.sqrt(squares / free))
    # a fit alone is n − p, the same fit twice no more than once, two that share nothing their sum
    assert noise_of(pair.both, [one]).freedom == pytest.approx(pair.baseline.n - 6)
    assert noise_of(pair.both, [one, one]).freedom == pytest.approx(pair.baseline.n - 6)
    apart = replace(two, rows=np.arange(pair.baseline.n, pair.baseline.n + pair.recipe.n))
    again = frame.assign(run_id=frame["run_id"] + "-again", loss=frame["loss"] * (1 + 1e-9))
    more = pd.concat([frame, again])
    twice = pair_of(load_runs(more), "baseline", "probe", Conventions(estimator="lsq"))
    assert noise_of(twice.both, [one, apart]).freedom == pytest.approx(free)
    assert max(pair.baseline.n, pair.recipe.n) - 6 < both.freedom < free


def test_paired_resamples_draw_shared_groups_alike():
    pair = pair_of(two_recipes(), "baseline", "probe", Conventions())
    assert pair.borrowed == 12
    assert pair.n_units == 12 + 9
    weights = pair.draw(50, 0).values
    base = dict(zip(pair.baseline.frame["run_id"], weights[:, pair.in_baseline].T, strict=True))
    probe = dict(zip(pair.recipe.frame["run_id"], weights[:, pair.in_recipe].T, strict=True))
    shared = set(base) & set(probe)
    assert len(shared) == 12
    for run_id in shared:
        np.testing.assert_array_equal(base[run_id], probe[run_id])
    assert set(pair.both.frame["run_id"]) == set(base) | set(probe)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-10, 10), min_size=8, max_size=8))
def test_shapley_shares_add_up(values):
    table = np.array(values)

    def value(s):
        return np.array([table[s[0] * 4 + s[1] * 2 + s[2]]])

    shares = shapley(value)
    assert shares.sum() == pytest.approx(table[7] - table[0], abs=1e-12)


def test_shapley_of_switches_that_do_not_meet_is_their_own_effect():
    shares = shapley(lambda s: np.array([2.0 * s[0] - 3.0 * s[1] + 5.0 * s[2]]))
    np.testing.assert_allclose(shares[:, 0], [2.0, -3.0, 5.0])
    # a product of two switches is shared equally, whatever the order
    shares = shapley(lambda s: np.array([4.0 * s[0] * s[1]]))
    np.testing.assert_allclose(shares[:, 0], [2.0, 2.0, 0.0])


def test_channels_of_an_exact_law(probed, exact):
    """Cheaper tokens lower the loss, a higher φ lowers it, the rest of the law is the same."""
    assert len(exact.channels) == 9
    for c in exact.channels:
        for split in (c.optimal, c.equal_size):
            total = sum(getattr(split, name) for name in CHANNELS)
            assert total == pytest.approx(split.delta_loss, abs=1e-14)
            assert split.token_budget < 0
            assert split.capacity < 0
            assert split.other == pytest.approx(0.0, abs=1e-6)
        assert c.optimal.delta_loss == pytest.approx(c.recipe.loss - c.baseline.loss, abs=1e-12)
    for c in probed.channels:
        low, high = c.optimal.ci95["token_budget"]
        assert low < c.optimal.token_budget < high < 0


def test_the_optimum_is_where_the_law_is_lowest(exact):
    """Against a fine search over whole widths by the accounting itself."""
    c = next(c for c in exact.channels if (c.budget_flops, c.recurrences) == (4e18, 4))
    widths = np.arange(400, 2000)
    rows = [account(width=int(w), recurrences=4) for w in widths]
    frame = pd.DataFrame([vars(a) for a in rows]).assign(recurrences=4)
    frame["tokens"] = 4e18 / frame["flops_per_token"]
    losses = true_loss(frame)
    best = int(np.argmin(losses))
    assert c.baseline.loss == pytest.approx(losses[best], abs=1e-6)
    assert c.baseline.params == pytest.approx(frame["n_total"][best], rel=0.01)
    used = next(
        i
        for i in exact.inference
        if (i.recipe, i.budget_flops, i.recurrences) == ("baseline", 4e18, 4)
    )
    assert used.width == pytest.approx(widths[best], rel=0.01)
    held = account(width=used.width, recurrences=4)
    assert used.params == held.n_total
    assert used.flops_per_token == held.flops_per_token / 3
    assert used.kv_bytes_per_token == 2 * 2 * 20 * used.width


def test_truncation_costs_nothing_in_use(probed):
    """Forward FLOPs do not depend on how many passes carry gradient."""
    for i in probed.inference:
        assert (
            i.flops_per_token
            == account(width=i.width, recurrences=i.recurrences).flops_per_token / 3
        )


def test_identical_recipes_differ_in_nothing():
    found = compare(
        two_recipes(TRUTH["phi"], recurrences=(1, 2, 4, 8), cut=False), recipe="probe", bootstrap=0
    )
    assert found.delta_phi == pytest.approx(0.0, abs=1e-9)
    assert found.n_borrowed == 0
    assert {c.recurrences for c in found.channels} == {1, 2, 4, 8}
    for c in found.channels:
        for split in (c.optimal, c.equal_size):
            for name in (*CHANNELS, "delta_loss"):
                assert getattr(split, name) == pytest.approx(0.0, abs=1e-9)


def test_contract_of_the_json(probed):
    data = json.loads(probed.to_json())
    names = "baseline recipe phi_baseline phi_recipe delta_phi channels verdict inference"
    assert set(names.split()) <= set(data)
    assert set(data["delta_phi"]) == {"value", "ci95"}
    keys = "budget_flops recurrences delta_loss token_budget capacity other ci95"
    for channel in data["channels"]:
        assert set(keys.split()) <= set(channel)
        assert set(channel["ci95"]) == {"delta_loss", "capacity_and_other", *CHANNELS}
    assert data["published"] is None
    assert probed.verdict.split(";")[0][:40] in probed.report()


def test_a_comparison_is_read_back_as_it_was(probed, tmp_path):
    one, several, other = (tmp_path / name for name in ("one.json", "all.json", "other.json"))
    one.write_text(probed.to_json())
    assert Comparison.load_all(one) == [probed]
    several.write_text(json.dumps({"comparisons": [probed.to_dict(), probed.to_dict()]}))
    assert Comparison.load_all(several) == [probed, probed]
    for text in ("{", "[]", "{}", json.dumps(probed.to_dict() | {"format": 99})):
        other.write_text(text)
        with pytest.raises(InputError, match="is not a comparison written by"):
            Comparison.load_all(other)


def test_same_seed_same_numbers(probed):
    runs = two_recipes(noise=0.001)
    assert compare(runs, recipe="probe", bootstrap=50).to_json() == probed.to_json()
    pair = pair_of(runs, "baseline", "probe", Conventions())
    assert (pair.draw(50, 3).values != pair.draw(50, 4).values).any()


@pytest.mark.parametrize(
    ("delta", "ci95", "words", "more"),
    [
        (0.2, (0.1, 0.3), "raises φ", None),
        (-0.2, (-0.3, -0.1), "lowers φ", None),
        # half of the interval is twice Δφ: four times the runs, so three times as many more
        (0.1, (-0.1, 0.3), "not resolved by these runs: 300 more runs like these would", 300),
        (1e-6, (-0.2, 0.2), "not resolved by these runs: the difference is so small", None),
        (0.0, (-0.2, 0.2), "not resolved by these runs: the difference is so small", None),
        (0.1, None, "no interval, so no verdict", None),
        (None, None, "not identified by these runs: one width", None),
    ],
)
def test_verdicts_by_the_laws_alone_are_bound_to_the_interval(delta, ci95, words, more):
    said, count = verdict_of_laws(delta, ci95, 100, {"recipe": "one width"}, borrowed=0)
    assert said.startswith(words)
    assert count == more


@pytest.mark.parametrize("ci95", [(0.1, 0.3), (-0.3, -0.1)])
def test_with_borrowed_unlooped_runs_the_laws_alone_raise_and_lower_nothing(ci95):
    said, more = verdict_of_laws(sum(ci95) / 2, ci95, 100, {}, borrowed=12)
    assert said.startswith("not identified: ")
    assert more is None


def test_a_recipe_that_can_not_be_told_gets_no_number():
    frame = two_recipes(noise=0.001).frame
    frame = frame[(frame["recipe"] == "baseline") | (frame["budget_flops"] == 1e18)]
    found = compare(load_runs(frame), recipe="probe", bootstrap=50)
    assert found.phi_baseline is not None
    assert (found.phi_recipe, found.delta_phi) == (None, None)
    assert any("one FLOP budget" in w.text for w in found.warnings)
    # at equal r the baseline's surfaces still carry it, and tell little from one budget
    assert found.split.sign == 0
    json.loads(found.to_json())
    assert "not identified" in found.report()


def test_without_width_or_cost_columns_the_rest_remains():
    frame = two_recipes(noise=0.001).frame.drop(columns=["width", "flops_per_token", "flops"])
    found = compare(load_runs(frame), recipe="probe", bootstrap=0)
    assert len(found.channels) == 9
    assert found.inference == ()
    assert any("needs the column width" in w.text for w in found.warnings)


@pytest.mark.parametrize("asked", [{"vocab": 0}, {"sequence_length": -1}, {"vocab": True}])
def test_a_vocabulary_or_length_that_no_model_has_is_refused(asked):
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        compare(two_recipes(), recipe="probe", bootstrap=0, **asked)


def test_a_vocabulary_that_the_table_contradicts_is_refused():
    found = compare(two_recipes(noise=0.001), recipe="probe", bootstrap=0, vocab=500_000)
    assert found.inference == ()
    assert any("give --vocab and --sequence-length" in w.text for w in found.warnings)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"recipe": "none"}, "no recipe 'none'"),
        ({"recipe": "probe", "baseline": "none"}, "no recipe 'none'"),
        ({"recipe": "baseline"}, "is the baseline itself"),
        ({"recipe": "probe", "method": "magic"}, "method 'magic' is not one of"),
        ({"recipe": "probe", "bootstrap": 7}, "at least 50"),
        ({"recipe": "probe", "law": "magic"}, "law 'magic'"),
    ],
)
def test_unusable_choices(choice, words):
    with pytest.raises(InputError, match=words):
        compare(two_recipes(), **choice)


def test_recipes_that_never_met():
    frame = two_recipes().frame
    frame.loc[frame["recipe"] == "probe", "budget_flops"] *= 3.0
    with pytest.raises(InputError, match="share no budget_flops"):
        compare(load_runs(frame), recipe="probe")
    frame = two_recipes(recurrences=(1,)).frame
    with pytest.raises(InputError, match="no run with r > 1"):
        compare(load_runs(frame), recipe="probe")

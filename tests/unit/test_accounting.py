"""Counts and FLOPs against the published table, closed forms and properties."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isodepth import InputError, account
from isodepth.runs.table import PUBLISHED

PROBES = {
    "baseline": lambda r: {},
    "truncated_bptt": lambda r: {"backprop_last": -(-r // 2)},
    "hyperconnections": lambda r: {"injection": "hyperconnections"},
}


def test_every_published_row_to_the_unit():
    with PUBLISHED.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 241
    for row in rows:
        r = int(row["recurrences"])
        result = account(width=int(row["width"]), recurrences=r, **PROBES[row["recipe"]](r))
        for name in ("n_once", "n_rec", "n_inject", "flops_per_token"):
            assert getattr(result, name) == int(row[name]), (row["run_id"], name)


@pytest.mark.parametrize(
    ("recurrences", "injection", "flops"),
    [
        (1, "linear", 3_235_000_320),
        (4, "linear", 3_313_643_520),
        (4, "hyperconnections", 3_235_246_080),
    ],
)
def test_flops_stated_for_size_20(recurrences, injection, flops):
    result = account(width=1280, recurrences=recurrences, injection=injection)
    assert result.flops_per_token == flops


def test_a_looped_model_of_width_2048_holds_about_410_million():
    assert account(width=2048, recurrences=4).n_total == pytest.approx(410e6, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 0, "recurrences": 4}, "width = 0"),
        ({"width": 64.0, "recurrences": 4}, "width = 64.0"),
        ({"width": 64, "recurrences": 3}, "does not divide the 16 shared blocks"),
        ({"width": 64, "recurrences": 0}, "recurrences = 0"),
        ({"width": 64, "recurrences": 4, "depth": 4}, "leaves no block for the loop"),
        ({"width": 64, "recurrences": 4, "backprop_last": 5}, "backprop_last = 5"),
        ({"width": 64, "recurrences": 4, "backprop_last": 0}, "backprop_last = 0"),
        ({"width": 64, "recurrences": 4, "injection": "magic"}, "'magic' is not one of"),
        ({"width": 64, "recurrences": 4, "lanes": 0}, "lanes = 0"),
        ({"width": 64, "recurrences": 4, "prelude": -1}, "prelude = -1"),
    ],
)
def test_unusable_shapes_are_named(arguments, words):
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        account(**arguments)


shapes = st.fixed_dictionaries(
    {
        "width": st.integers(1, 4096),
        "recurrences": st.sampled_from([1, 2, 4, 8]),
        "injection": st.sampled_from(["linear", "additive", "passthrough", "hyperconnections"]),
        "lanes": st.integers(1, 4),
        "sequence_length": st.integers(1, 8192),
        "vocab": st.integers(1, 100_000),
    }
)


@given(shapes)
def test_truncation_lowers_cost_and_nothing_else(shape):
    whole = account(**shape)
    for k in range(1, shape["recurrences"]):
        cut = account(**shape, backprop_last=k)
        assert cut.flops_per_token < whole.flops_per_token
        assert (cut.n_once, cut.n_rec, cut.n_inject) == (
            whole.n_once,
            whole.n_rec,
            whole.n_inject,
        )
    assert account(**shape, backprop_last=shape["recurrences"]) == whole


@given(shapes)
def test_equal_depth_costs_the_same_but_for_the_injection(shape):
    free = {**shape, "injection": "passthrough"}
    unlooped = account(**{**free, "recurrences": 1})
    looped = account(**free)
    assert looped.flops_per_token == unlooped.flops_per_token
    assert looped.n_rec * shape["recurrences"] == unlooped.n_rec
    assert looped.n_once == unlooped.n_once
    assert account(**shape).flops_per_token >= looped.flops_per_token


def test_flops_count_each_matrix_product_once():
    """6 FLOPs per weight and token, and 12·d·T of attention a block, summed by hand."""
    d, v, t, r = 256, 1000, 128, 4
    weights = 4 * (12 * d**2 + 2 * d) + r * (4 * (12 * d**2 + 2 * d) + 2 * d**2) + v * d
    attention = 12 * d * t * (4 + 4 * r)
    result = account(width=d, recurrences=r, vocab=v, sequence_length=t)
    assert result.flops_per_token == 6 * weights + attention

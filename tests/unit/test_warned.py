"""Codes of warnings: known, documented, and kept when a result is saved and read."""

import ast
from pathlib import Path

import pytest
from conftest import sweep

import isodepth
from isodepth import Fit, fit
from isodepth.warned import CODES, Warned, from_json, to_json

SOURCE = Path(isodepth.__file__).parent
TABLE = Path(__file__).parents[2] / "docs" / "warnings.md"


def codes_in_source():
    """Every code that the package warns with: the first argument of Warned(…) and warn(…)."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("Warned", "warn")
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(node.args[0].value)
    return found


def test_every_code_used_is_known():
    assert codes_in_source() <= set(CODES)


def test_every_code_is_in_the_docs_with_its_meaning():
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    table = {row.split("|")[1].strip(" `"): row.split("|")[2].strip() for row in rows}
    assert table == CODES


def test_a_code_that_nobody_knows_is_our_fault():
    with pytest.raises(ValueError, match="no known code"):
        Warned("nonsense", "a sentence")


def test_sentences_and_codes_are_parallel_and_read_back():
    said = (Warned("one_budget", "one"), Warned("not_nats", "two"))
    data = to_json(said)
    assert data == {"warnings": ["one", "two"], "warning_codes": ["one_budget", "not_nats"]}
    assert from_json(data) == said


def test_results_of_other_versions_keep_their_sentences():
    old, newer = {"warnings": ["one"]}, {"warnings": ["two"], "warning_codes": ["of_tomorrow"]}
    assert from_json(old) == (Warned("unknown", "one"),)
    assert from_json(newer) == (Warned("unknown", "two"),)


def test_a_fit_has_them_saved_and_loaded():
    found = fit(sweep(recurrences=(1, 4), noise=0.002), bootstrap=0)
    codes = [w.code for w in found.warnings]
    assert {"no_interval", "two_recurrences"} & set(codes)
    assert found.to_dict()["warning_codes"] == codes
    assert Fit.from_json(found.to_json()).warnings == found.warnings

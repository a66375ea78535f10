"""Whatever a table holds, the loader returns a valid one or says in words what is wrong."""

import string

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isodepth import InputError, load_runs

COLUMNS = ["recurrences", "n_once", "n_rec", "tokens", "loss", "n_inject", "run_id", "status"]
GOOD = {
    "recurrences": "2",
    "n_once": "2e6",
    "n_rec": "4e6",
    "tokens": "1e8",
    "loss": "3.5",
    "n_inject": "0",
    "status": "done",
}
JUNK = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "nan", "-1", "0", "1e999", "1,5", "1_0", "0x10", "None", "inf", '"', "\x00", "٣"]
    ),
    st.floats().map(repr),
    st.integers().map(str),
)


def broken_tables():
    """Good tables with between one and five cells replaced by junk."""
    hits = st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(COLUMNS), JUNK), min_size=1, max_size=5
    )

    def build(hits):
        rows = [{**GOOD, "run_id": f"r{i}"} for i in range(6)]
        for row, column, junk in hits:
            rows[row][column] = junk.replace(",", ";").replace('"', "").replace("\n", " ")
        lines = [",".join(COLUMNS)]
        lines += [",".join(row[c].replace("\r", " ") for c in COLUMNS) for row in rows]
        return "\n".join(lines)

    return hits.map(build)


def check(path):
    try:
        runs = load_runs(path)
    except InputError as error:
        assert error.problems
        for problem in error.problems:
            assert str(path) in problem
            assert "Traceback" not in problem
            if "column" in problem and "missing" not in problem and "header" not in problem:
                assert "row " in problem, problem
        return
    frame = runs.used
    for column in ("recurrences", "tokens", "loss"):
        assert np.isfinite(frame[column]).all()
        assert (frame[column] > 0).all()
    assert (frame["n_once"] + frame["n_rec"] > 0).all()
    assert frame["run_id"].is_unique
    assert len(runs) == len(runs.frame)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "runs.csv"


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=broken_tables())
def test_tables_with_broken_cells(path, table):
    path.write_text(table, encoding="utf-8", errors="replace")
    check(path)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes(path, data):
    for suffix in (".csv", ".jsonl", ".parquet"):
        file = path.with_suffix(suffix)
        file.write_bytes(data)
        check(file)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lines=st.lists(
        st.dictionaries(
            st.sampled_from([*COLUMNS, "other"]),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.text(string.printable, max_size=8),
                st.lists(st.integers(), max_size=2),
            ),
        ),
        max_size=4,
    )
)
def test_arbitrary_json_lines(path, lines):
    import json

    file = path.with_suffix(".jsonl")
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    check(file)

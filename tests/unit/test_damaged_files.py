"""Damaged files of every kind end in a sentence: the benchmark of the same name, small."""

import importlib.util
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "damaged_files.py"
CASES = 40


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("damaged_files", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kinds(benchmark):
    return benchmark.Kinds()


KINDS = ("table", "plans", "presets", "fits", "ledgers", "maps", "logs")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(benchmark, kinds, kind):
    assert set(KINDS) == set(benchmark.KINDS)
    assert benchmark.faults(kind, CASES, 1, kinds) == []

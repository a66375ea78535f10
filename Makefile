# Two commands on a fresh machine: `make measure` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# one more than there are cores: tests of sweeps wait as much as they compute
WORKERS = $(shell $(BIN)/python -c "import os; print((os.cpu_count() or 1) + 1)")
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: measure test test-slurm check bench clean

measure: $(VENV)/measuring
	$(BIN)/isodepth measure --preset laptop --out results/laptop

test: $(VENV)/everything
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs

# `make test` holds these too; here a missing Slurm is a failure and not a skipped test
test-slurm: $(VENV)/everything
	ISODEPTH_REQUIRE=slurm $(BIN)/python -m pytest tests/slurm

check: $(VENV)/everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/everything
	$(BIN)/python benchmarks/fit_speed.py
	$(BIN)/python benchmarks/model_speed.py
	$(BIN)/python benchmarks/page_load.py

$(VENV)/measuring: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[train,report]'
	touch $@

$(VENV)/everything: $(VENV)/measuring
	$(INSTALL) -e '.[train,report,slurm,dev]'
	touch $@

clean:
	rm -rf $(VENV) results

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: install install-dev demo test test-slow check bench docs instructions clean

install: $(VENV)/installed

install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,saelens]'
	@touch $@

demo: install
	$(BIN)/lorascope demo --out runs/demo

test: install-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

test-slow: install-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install-dev
	$(BIN)/python bench/sae_training.py
	$(BIN)/python bench/geometry.py
	$(BIN)/python bench/adapt.py
	$(BIN)/python bench/effects.py
	$(BIN)/python bench/report.py
	$(BIN)/python bench/check.py

docs: install-dev
	$(BIN)/python scripts/write_measures_doc.py

instructions: install-dev
	PYTHONPATH=scripts $(BIN)/python -m instructions.generate --out src/lorascope/embedded/instructions.jsonl.gz

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache

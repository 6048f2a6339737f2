PYTHON ?= python3
VENV ?= .venv
FOLDER ?= runs/real
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: install install-dev demo test test-slow check bench docs site notebooks gallery real evaluation instructions package clean

install: $(VENV)/installed

install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,eval,notebooks,saelens,trackers]'
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
	$(BIN)/python bench/capture.py
	$(BIN)/python bench/effects.py
	$(BIN)/python bench/reading.py
	$(BIN)/python bench/report.py
	$(BIN)/python bench/check.py

docs: install-dev
	$(BIN)/python scripts/write_measures_doc.py
	$(BIN)/python scripts/write_settings_doc.py

site: docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: install-dev
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/run_notebooks.py

gallery: install-dev
	$(BIN)/python scripts/make_gallery.py

real: install-dev
	$(BIN)/python scripts/real_models.py $(FOLDER)

evaluation: install-dev
	$(BIN)/python scripts/real_evaluation.py $(FOLDER)

instructions: install-dev
	PYTHONPATH=scripts $(BIN)/python -m instructions.generate --out src/lorascope/embedded/instructions.jsonl.gz

package: install-dev
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist runs .mypy_cache .ruff_cache .pytest_cache

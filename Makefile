# The two commands to know: `make demo` and `make test`. Both make .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint format types bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing skylink (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

install: $(STAMP)  ## make .venv with skylink and the development tools

demo: $(STAMP)  ## place drone photos of a generated town on its map (under two minutes)
	$(BIN)/skylink demo

test: $(STAMP)  ## all tests; the real-data ones run where ../shared/data is there
	$(BIN)/python -m pytest -n auto --dist loadfile

test-fast: $(STAMP)  ## without the slow ones
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'not slow'

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff format and mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## every benchmark, into bench-results/
	@mkdir -p bench-results
	@set -e; for b in benchmarks/[a-z]*.py; do echo "== $$b"; \
	  $(BIN)/python $$b --json bench-results/$$(basename $$b .py).json; done

clean:  ## remove what the other targets made
	rm -rf $(VENV) skylink-demo bench-results .pytest_cache .mypy_cache .ruff_cache

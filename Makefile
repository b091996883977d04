# The two commands to know: `make demo` and `make test`. Both make .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.installed
FULL := $(VENV)/.installed-full

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-server lint format types bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

$(BASE): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing skylink (about a minute) ..."
	@$(PIP) -e .
	@touch $@

# with everything that tests need: vision-language models bring PyTorch, which is large
$(FULL): $(BASE)
	@echo "installing PyTorch and the development tools (some minutes, 6 GB) ..."
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps geoembed==1.1.2  # only its weights are read; it asks for OpenCL
	@touch $@

install: $(FULL)  ## make .venv with skylink and the development tools

demo: $(BASE)  ## place drone photos of a generated town on its map (under two minutes)
	$(BIN)/skylink demo

test: $(FULL)  ## all tests; the real-data ones run where ../shared/data is there
	$(BIN)/python -m pytest -n auto --dist loadfile

test-fast: $(FULL)  ## without the slow ones
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'not slow'

test-server: $(FULL)  ## remote scores against a real vLLM (makes .venv-vllm, 3.5 GB)
	$(BIN)/python scripts/server_test.py

lint: $(FULL)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(FULL)  ## let ruff format and mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(FULL)  ## every benchmark, into bench-results/
	@mkdir -p bench-results
	@set -e; for b in benchmarks/[a-z]*.py; do echo "== $$b"; \
	  $(BIN)/python $$b --json bench-results/$$(basename $$b .py).json; done

clean:  ## remove what the other targets made
	rm -rf $(VENV) .venv-vllm skylink-demo bench-results .pytest_cache .mypy_cache .ruff_cache

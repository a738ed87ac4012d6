# Everything a contributor or a curious reader runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Changes of the dependencies, and only those, make the environment anew.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | tr -d ' ')
PYTEST := $(BIN)/python -m pytest

.PHONY: help env test test-services-all test-matrix fuzz services demo ui lint format bench constraints clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

env: $(STAMP) ## Make .venv with everything that development, tests and demo need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 200 packages at the first time) ..."
	@if test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv; then \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev --editable .; \
	else \
		echo "uv cannot be had, so pip installs: this takes a minute or two"; \
		$(BIN)/python -m pip install --quiet 'pip>=25.1'; \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .; \
	fi
	@rm -f $(VENV)/.installed-*
	@touch $@

# Airflow reads AIRFLOW_HOME at its first import, hence a process of its own for each kind of test.
test: env ## Check style and types, then run every test (needs Java 17 and 25, and mvn, for the real servers)
	@AIRFLOW_HOME=$$(mktemp -d) && export AIRFLOW_HOME && trap 'rm -rf "$$AIRFLOW_HOME"' EXIT && failed=0; \
	$(MAKE) --no-print-directory lint || failed=1; \
	for suite in "tests/unit tests/integration -n 2" "tests/airflow" "tests/standalone" "tests/services -n 2"; do \
		echo "=== $$suite"; \
		$(PYTEST) -q $$suite || failed=1; \
	done; \
	exit $$failed

test-services-all: env ## Run the tests on real servers, each case on every version of Spark and Trino
	@AIRFLOW_HOME=$$(mktemp -d) && export AIRFLOW_HOME && trap 'rm -rf "$$AIRFLOW_HOME"' EXIT && \
		$(PYTEST) -q tests/services -n 2 --all-versions

SHARD ?= 1/1

test-matrix: env ## Run the local engine on tables of every combination, on disk, and in S3 for Spark and Trino (SHARD=1/8)
	@AIRFLOW_HOME=$$(mktemp -d) && export AIRFLOW_HOME && trap 'rm -rf "$$AIRFLOW_HOME"' EXIT && failed=0; \
	for suite in tests/integration/local_matrix tests/services/matrix; do \
		echo "=== $$suite, share $(SHARD)"; \
		$(PYTEST) -q $$suite -n 2 --full-matrix --matrix-shard $(SHARD) || failed=1; \
	done; \
	exit $$failed

fuzz: env ## Look for new counterexamples of the properties (test uses the same examples at every run)
	@AIRFLOW_HOME=$$(mktemp -d) && export AIRFLOW_HOME && trap 'rm -rf "$$AIRFLOW_HOME"' EXIT && \
		HYPOTHESIS_PROFILE=fuzz $(PYTEST) -q tests/unit -n 2 -k "$(K)"

services: env ## Start some of the real servers that tests use, and leave them running
	@cd tests && ../$(BIN)/python -m harness.services start

demo: env ## Build a small lakehouse, let a real Airflow maintain it, show before and after
	@PYTHONPATH=tests $(BIN)/python demo/run.py

ui: env ## Start Airflow on the lakehouse that the demo left behind
	@PYTHONPATH=tests $(BIN)/python demo/run.py --ui

lint: env ## Ruff and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary

format: env ## Let ruff put the code into shape
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

# bench_sort.py takes TPC-H's number.
SCALE ?= full
bench: env ## Run the benchmarks at full size (an hour and 8 GB of disk; SCALE=small: minutes)
	@failed=0; for script in benchmarks/bench_*.py; do \
		scale=$(SCALE); \
		if [[ $$script == */bench_sort.py ]]; then scale=$(if $(filter full,$(SCALE)),5,0.01); fi; \
		echo "=== $$script --scale $$scale"; \
		$(BIN)/python $$script --scale $$scale || failed=1; \
	done; exit $$failed

constraints: ## Resolve the pinned versions anew
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group dev \
		--no-emit-index-url --no-annotate --no-header --output-file constraints.txt pyproject.toml

clean: ## Remove the environment, caches and the demo's files
	rm -rf $(VENV) .cache .demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

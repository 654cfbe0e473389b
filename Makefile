# Two commands are the whole set-up: `make run` and `make test`. Both need Python 3.11+ and nothing of ours.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: help run demo test lint test-all clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): constraints.txt pyproject.toml packages/homeloop/pyproject.toml packages/workflow_service/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable 'packages/homeloop[all]' --editable 'packages/workflow_service[redis]' --group dev
	@touch $@

run: $(STAMP)  ## Start the service on embedded defaults, analyse the sample contract, serve the page
	$(BIN)/workflow-service up --analyse-sample

demo: $(STAMP)  ## Start, analyse the sample contract, print what was found, stop
	$(BIN)/workflow-service demo

test: $(STAMP)  ## Everything CI runs
	$(MAKE) --no-print-directory lint
	$(BIN)/coverage erase
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/python -m pytest --cov --cov-report=

lint: $(STAMP)  ## ruff, mypy, pyright, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

clean:  ## Remove the virtual environment and what tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage*

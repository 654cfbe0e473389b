# Two commands are the whole set-up: `make run` and `make test`. Both need Python 3.11+ and nothing of ours.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
PYTHONS = test-3.11 test-3.12 test-3.13

.PHONY: help run demo test pytest test-all $(PYTHONS) lint bench-calls clean

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

test: $(STAMP)  ## Everything CI runs: lint, then the tests with coverage
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory pytest

pytest: $(STAMP)  ## The tests with coverage, of every process they start
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-all: $(PYTHONS)  ## The tests on every supported Python that is here, on the PATH or under pyenv

# A pyenv shim stands on the PATH for versions that are not chosen too: only one that runs counts.
$(PYTHONS): test-%:
	@for python in $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$*.*/bin/python$* python$*; do \
		if "$$python" -c '' 2>/dev/null; then found="$$python"; fi; \
	done; \
	if [ -z "$$found" ]; then echo "Python $*: not here, skipped"; exit 0; fi; \
	echo "Python $*: $$found"; \
	$(MAKE) --no-print-directory pytest PYTHON="$$found" VENV=.venv-$*

lint: $(STAMP)  ## ruff, mypy, pyright, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

bench-calls: $(STAMP)  ## What a call costs, beside the peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/calls.py

clean:  ## Remove the virtual environment and what tools left
	rm -rf $(VENV) .venv-3.* .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage*

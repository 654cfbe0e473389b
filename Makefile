# Two commands are the whole set-up: `make run` and `make test`. Both need Python 3.11+ and nothing of ours.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
PYTHONS = test-3.11 test-3.12 test-3.13

CHECKS = check-mypy check-pyright check-lint-imports

CELERIES = celery-5.5 celery-5.6 celery-5.7
CELERY_TESTS = test_celery_calls.py test_celery_reconnect.py test_celery_pool.py test_celery_pool_batches.py test_celery_pool_parts.py redis_transport \
	test_celery_soft_limit.py test_celery_tasks.py pools

.PHONY: help run demo demo-health test pytest test-all $(PYTHONS) lint $(CHECKS) failures fault-matrix docs-errors docs-rules docs-workflows check-precision \
	eval celery-pools celery-suite celery-versions $(CELERIES) \
	bench-celery bench-celery-memory bench-calls bench-health bench-memory bench-database bench-http bench-isolation bench-serving bench-tracing bench-service soak soak-celery soak-runtime fuzz-api clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): constraints.txt pyproject.toml packages/homeloop/pyproject.toml packages/workflow_service/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable 'packages/homeloop[all]' --editable 'packages/workflow_service[openai,redis]' --group dev
	@touch $@

run: $(STAMP)  ## Start the service on embedded defaults, analyse the sample contract, serve the page
	$(BIN)/workflow-service up --analyse-sample

demo: $(STAMP)  ## Start, analyse the sample contract, print what was found, stop
	$(BIN)/workflow-service demo

demo-health: $(STAMP)  ## Four faults made on purpose, and how report, Prometheus, ps, top and the page name each
	$(BIN)/python examples/health/demo.py $(if $(STAY),--stay)

test: $(STAMP)  ## Everything CI runs: lint, then the tests with coverage
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory pytest

pytest: $(STAMP)  ## The tests with coverage, of every process they start; in parts, side by side
	$(BIN)/coverage erase
	$(BIN)/python tests/in_parts.py
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
	$(MAKE) --no-print-directory --jobs=3 $(CHECKS)

# Each takes one processor: side by side they end when the slowest does.
$(CHECKS): check-%: $(STAMP)
	$(BIN)/$*

celery-pools: $(STAMP)  ## Every feature on every Celery pool and broker; writes docs/reference/celery-pools.md
	@rm -f .celery-pools.xml .celery-pools-again.xml
	run="$(BIN)/python -m pytest packages/homeloop/tests/adapters/pools -o junit_family=xunit1"; export CELERY_POOLS=all; \
	$$run --junitxml=.celery-pools.xml || $$run --junitxml=.celery-pools-again.xml --last-failed; ended=$$?; \
	$(BIN)/python packages/homeloop/tests/adapters/pools/table.py docs/reference/celery-pools.md $$(ls .celery-pools.xml .celery-pools-again.xml 2>/dev/null); \
	exit $$ended

celery-versions: $(CELERIES)  ## The Celery adapter's tests on every Celery it supports, each in an environment of its own

# The newest patch of a version, with the kombu and redis that it asks for.
$(CELERIES): celery-%:
	$(PYTHON) -m venv .venv-celery-$*
	@grep -vE '^(amqp|billiard|celery|kombu|redis|vine)==' constraints.txt > .venv-celery-$*/constraints.txt
	.venv-celery-$*/bin/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	.venv-celery-$*/bin/python -m pip install --quiet --upgrade --constraint .venv-celery-$*/constraints.txt \
		--editable 'packages/homeloop[all]' --group celery-tests 'celery[redis]==$*.*'
	@.venv-celery-$*/bin/python -m pip freeze | grep -E '^(amqp|billiard|celery|kombu|redis|vine)==' | xargs echo
	PYTHONPATH=$(CURDIR)/packages/workflow_service/src .venv-celery-$*/bin/python -m pytest -p no:cacheprovider \
		-W ignore::ResourceWarning -W 'ignore:Call to deprecated setex' -W ignore::pytest.PytestUnraisableExceptionWarning \
		--durations=3 $(addprefix packages/homeloop/tests/adapters/,$(CELERY_TESTS))

bench-celery: $(STAMP)  ## How many tasks a second a worker does, on Celery's pools, on ours, with other queues
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/celery_throughput.py

bench-celery-memory: $(STAMP)  ## What a sleeping task weighs, on the asyncio pool, gevent and threads
	$(BIN)/python bench/celery_memory.py

fault-matrix: $(STAMP)  ## kill -9 of each part of the service in the middle of 200 runs; writes docs/reference/fault-matrix.md (FAULTS="--brokers redis": those lines)
	$(BIN)/python packages/workflow_service/tests/faults/fault_matrix.py --write docs/reference/fault-matrix.md $(FAULTS)

failures: $(STAMP)  ## Failing scripts under homeloop doctor: ours into docs/reference/diagnosis-corpus.md, or FAILURES=folder
	$(BIN)/python packages/homeloop/tests/diagnosis/failures.py $(if $(FAILURES),$(FAILURES),--write docs/reference/diagnosis-corpus.md)

docs-errors: $(STAMP)  ## The pages of docs/errors, with what the code prints
	$(BIN)/python packages/homeloop/tests/diagnosis/pages.py

docs-rules: $(STAMP)  ## The pages of docs/rules, with what the code prints
	$(BIN)/python packages/homeloop/tests/check/pages.py

docs-workflows: $(STAMP)  ## docs/reference/workflow-definition.md, with the keys of the schema
	$(BIN)/python packages/workflow_service/tests/engine/test_definition_docs.py

check-precision: $(STAMP)  ## homeloop check on large installed packages; writes docs/reference/check-precision.md
	$(BIN)/python packages/homeloop/tests/check/precision.py --write docs/reference/check-precision.md

eval: $(STAMP)  ## How good the contract analysis is; DATA=CUADv1.json adds that data set; writes docs/reference/eval.md
	$(BIN)/python packages/workflow_service/evaluation --write docs/reference/eval.md $(if $(DATA),--data $(DATA)) $(EVAL)

bench-tracing: $(STAMP)  ## What each level of tracing costs
	$(BIN)/python bench/tracing.py

bench-calls: $(STAMP)  ## What a call costs, beside the peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/calls.py

celery-suite: $(STAMP)  ## Celery's own integration tests on the asyncio pool and on threads, compared
	$(BIN)/python bench/celery_suite.py

bench-memory: $(STAMP)  ## What runtimes and calls weigh and leave behind, beside the peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/memory.py

bench-database: $(STAMP)  ## What a task of three queries costs, beside the peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/database.py

bench-isolation: $(STAMP)  ## What an isolation tier costs, on a LangGraph graph of four nodes
	$(BIN)/python bench/isolation.py

bench-health: $(STAMP)  ## What it costs to watch 20 loops with 10,000 tasks, beside the peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/health.py

bench-http: $(STAMP)  ## What an HTTP request costs, beside the peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/http_requests.py

bench-serving: $(STAMP)  ## What a sync endpoint and a model's predict cost that ask a service, beside the peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/serving.py

fuzz-api: $(STAMP)  ## schemathesis against the running service, FUZZ_EXAMPLES (300) requests for each operation and phase
	FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),300) $(BIN)/python -m pytest packages/workflow_service/tests/security/test_openapi.py -q -rP

soak-celery: $(STAMP)  ## Workers at load for SOAK_SECONDS (600) for each of SOAK_POOLS (all), their logs searched for loop errors
	$(BIN)/python packages/homeloop/tests/adapters/soak --seconds $(or $(SOAK_SECONDS),600) \
		$(if $(SOAK_POOLS),--pools $(SOAK_POOLS))

soak-runtime: $(STAMP)  ## Random steps on the runtime for SOAK_SECONDS (600), from SEED (random)
	$(BIN)/python -W error packages/homeloop/tests/runtime/any_order --seconds $(or $(SOAK_SECONDS),600) $(if $(SEED),--seed $(SEED))

soak: $(STAMP)  ## The service used for SOAK_SECONDS (600), its parts restarted meanwhile; writes docs/reference/soak.md
	$(BIN)/python packages/workflow_service/tests/soak --seconds $(or $(SOAK_SECONDS),600) --write docs/reference

bench-service: $(STAMP)  ## Runs a second and how long one takes, beside Aegra and a bare FastAPI with Celery
	@for python in $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[2-9]*/bin/python python3.1[2-9]; do \
		if [ ! -e .venv-aegra ] && "$$python" -c '' 2>/dev/null; then \
			"$$python" -m venv .venv-aegra && .venv-aegra/bin/python -m pip install --quiet aegra-api; \
		fi; \
	done
	$(BIN)/python bench/service.py

clean:  ## Remove the virtual environment and what tools left
	rm -rf $(VENV) .venv-3.* .venv-aegra .venv-celery-* .celery-pools*.xml .mypy_cache .ruff_cache packages/workflow_service/evaluation/.cache .pytest_cache .hypothesis htmlcov .coverage*

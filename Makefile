.DEFAULT_GOAL := help
.PHONY: help run init test lint bench faults format docs-config clean

VENV ?= .venv
BIN := $(VENV)/bin

# What an extra brings, which needs no second look.
WITHIN_server := server
WITHIN_test := server test
WITHIN_lint := server test lint

# Each of the many processes that the tests start would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A Python that really runs: shims may be on the path of a version that isn't installed.
$(BIN)/python:
	@for python in "$(PYTHON)" python3.12 python3.11 python3; do \
	  if [ -n "$$python" ] && "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    "$$python" -c 'import shutil, sys; sys.exit(sys.version_info >= (3, 13) and not shutil.which("redis-server"))' \
	      || { echo "$$python is newer than 3.12, for which no package carries a redis-server yet: put a redis-server (6.2 or later) on the path, or use Python 3.11 or 3.12" >&2; exit 1; }; \
	    echo "making $(VENV) with $$($$python --version)"; \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; echo "no Python 3.11 or later found; set PYTHON=/path/to/python3.12" >&2; exit 1

$(VENV)/.installed-%: $(BIN)/python setup.cfg pyproject.toml
	@echo "installing tokenserver[$*]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $(patsubst %,$(VENV)/.installed-%,$(WITHIN_$*))

run: $(VENV)/.installed-server ## serve on http://127.0.0.1:8000, making whatever is missing
	@exec $(BIN)/tokenserver serve

test: $(VENV)/.installed-test ## every test, on SQLite, PostgreSQL and Redis
	@$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal $(ARGS)

lint: $(VENV)/.installed-lint ## format, linter, types, import rules, spelling
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell
	@$(BIN)/tokenserver openapi --check

bench: $(VENV)/.installed-test ## each path as a ratio to the raw signature of the same run
	@$(BIN)/python benchmarks/bench.py $(ARGS)

faults: $(VENV)/.installed-test ## stores and processes that fail, under load; ARGS="E09 E13" runs some
	@$(BIN)/python -m tests.faults $(ARGS)

format: $(VENV)/.installed-lint ## rewrite the sources as `make lint` wants them
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs-config: $(VENV)/.installed-server ## regenerate docs/configuration.md and .env.example
	@$(BIN)/python docs/generate_configuration.py

clean: ## remove what was installed; keys and data stay
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

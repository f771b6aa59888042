.DEFAULT_GOAL := help
.PHONY: help run init test test-browser screenshots catalogue lint bench bench-peers faults format docs docs-generated lock sbom audit clean

VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/tools
PEERS := $(VENV)/peers
SBOM := build/tokenserver.cdx.json

# What the lock files name, as they name it, and nothing else: setup.cfg isn't asked what it needs.
LOCKED := install --quiet --disable-pip-version-check --no-deps --require-hashes

# What an extra brings, which needs no second look.
WITHIN_server := server
WITHIN_docs := docs
WITHIN_test := server docs test
WITHIN_lint := server docs test lint

# Each of the many processes that the tests start would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

$(VENV)/.installed-%: $(BIN)/python setup.cfg pyproject.toml requirements/build.txt requirements/%.txt
	@echo "installing tokenserver[$*]"
	@$(BIN)/python -m pip $(LOCKED) -r requirements/build.txt -r requirements/$*.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(patsubst %,$(VENV)/.installed-%,$(WITHIN_$*))

$(TOOLS)/.installed: $(BIN)/python requirements/build.txt requirements/tools.txt
	@echo "installing tools"
	@$(BIN)/python -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip $(LOCKED) -r requirements/build.txt -r requirements/tools.txt
	@touch $@

run: $(VENV)/.installed-server ## serve on http://127.0.0.1:8000, making whatever is missing
	@exec $(BIN)/tokenserver serve

test: $(VENV)/.installed-test ## every test, on SQLite, PostgreSQL and Redis
	@$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal $(ARGS)

test-browser: $(VENV)/.installed-test ## the pages in Chromium, as people walk through them; a part of `make test`
	@$(BIN)/python -m pytest tests/browser $(ARGS)

screenshots: $(VENV)/.installed-test ## every page, phone and desktop, light and dark, to build/screenshots; those of docs/images anew
	@rm -rf build/screenshots
	@TOKENSERVER_TEST_SCREENSHOTS=$(CURDIR)/build/screenshots $(BIN)/python -m pytest tests/browser --quiet $(ARGS)
	@for picture in docs/images/*.png; do cp build/screenshots/$${picture##*/} $$picture; done

lint: $(VENV)/.installed-lint ## format, linter, types, import rules, spelling
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell
	@$(BIN)/tokenserver openapi --check

bench: $(VENV)/.installed-test ## each path as a ratio to the raw signature of the same run
	@$(BIN)/python -m benchmarks $(ARGS)

# In an environment of their own: what they need doesn't decide about the versions of the server.
$(PEERS)/.installed: $(BIN)/python requirements/build.txt benchmarks/peers/requirements.txt benchmarks/peers/package-lock.json
	@echo "installing the servers of others"
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip $(LOCKED) -r benchmarks/peers/requirements.txt
	@cp benchmarks/peers/package.json benchmarks/peers/package-lock.json $(PEERS)
	@npm ci --prefix $(PEERS) --silent --no-audit --no-fund
	@touch $@

bench-peers: $(VENV)/.installed-test $(PEERS)/.installed ## the same load on servers of others; installs them, needs npm
	@$(BIN)/python -m benchmarks --peers $(PEERS) $(ARGS)

faults: $(VENV)/.installed-test ## stores and processes that fail, under load; ARGS="E09 E13" runs some
	@$(BIN)/python -m tests.faults $(ARGS)

format: $(VENV)/.installed-lint ## rewrite the sources as `make lint` wants them
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

catalogue: $(VENV)/.installed-test ## gather what people read for translation, and compile the translations
	@$(BIN)/python -m tests.catalogue

docs: $(VENV)/.installed-docs ## the documentation as a site, in build/site; a warning is an error
	@$(BIN)/python docs/site/build.py

docs-generated: $(VENV)/.installed-server ## write again what is generated of docs/, and .env.example
	@$(BIN)/python docs/generate.py

lock: $(TOOLS)/.installed ## rebuild requirements/ from setup.cfg; ARGS=--upgrade takes the newest versions
	@$(TOOLS)/bin/python requirements/lock.py $(ARGS)

sbom: $(TOOLS)/.installed ## the server's bill of materials, CycloneDX 1.6, to build/tokenserver.cdx.json
	@rm -rf build $(VENV)/sbom
	@$(BIN)/python -m venv --without-pip $(VENV)/sbom
	@$(TOOLS)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build . 2>$(VENV)/sbom/log || { cat $(VENV)/sbom/log >&2; exit 1; }
	@$(TOOLS)/bin/python -m pip --python $(VENV)/sbom/bin/python $(LOCKED) --report build/report.json -r requirements/server.txt
	@$(TOOLS)/bin/python -m pip --python $(VENV)/sbom/bin/python install --quiet --no-deps build/tokenserver-*.whl
	@$(TOOLS)/bin/python requirements/sbom.py $(VENV)/sbom build/report.json >$(SBOM).part
	@mv $(SBOM).part $(SBOM)
	@echo "$(SBOM)"

# --strict: a package that the service knows nothing about is no package without advisories.
audit: $(TOOLS)/.installed ## published advisories about locked packages; asks PyPI's service, ARGS="-s osv" another
	@failed=; for file in build server docs test lint tools; do \
	  echo "requirements/$$file.txt"; \
	  $(TOOLS)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r requirements/$$file.txt $(ARGS) \
	    || failed="$$failed requirements/$$file.txt"; \
	done; [ -z "$$failed" ] || { echo "with advisories, or not to be checked, see above:$$failed" >&2; exit 1; }

clean: ## remove what was installed; keys and data stay
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

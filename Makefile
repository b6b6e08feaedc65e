# make setup   .venv with the locked versions (once)
# make test    all checks and all tests
# make demo    the whole path on synthetic scans, offline, into ./demo
# make bench   the benchmark suite, into docs/benchmarks.md (two hours; parts: BENCH="--parts real")
#
# Other interpreter or place: make setup PYTHON=python3.12 VENV=/tmp/venv

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock
INSTALLED := $(VENV)/.installed
# The first that runs and is new enough; the lock was resolved for 3.11.
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.11 python3 python3.12 python3.13)
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras \
	--no-annotate --unsafe-package pip \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
EXTRAS := --extra dev --extra jpeg --extra privacy --extra federated --extra search --extra postgresql \
	--extra storage --extra ray
# Two test processes and the libraries' own threads would get in each other's way.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup test lint demo bench lock wheel clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(INSTALLED)

$(INSTALLED): $(LOCK) pyproject.toml
	@found=; for p in $(PYTHONS); do \
		if "$$p" -c '$(USABLE)' 2>/dev/null; then found=$$p; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "make: no Python 3.11 or newer with venv among: $(PYTHONS). Install one, or give PYTHON=..." >&2; \
		exit 1; \
	fi; \
	if ! "$(BIN)/python" -c '$(USABLE)' 2>/dev/null; then "$$found" -m venv --clear "$(VENV)"; fi
	@echo "installing the locked versions into $(VENV): about 6 GB with PyTorch, some minutes"
	@# Python compiles modules as they are imported: most of these never are.
	$(BIN)/python -m pip install -qq --no-compile --requirement $(LOCK)
	$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@# Its only library for a Python that TenSEAL has too is for 3.12; where the system is too old, it says so.
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))'; then \
		$(BIN)/python -m pip install -qq --no-compile --constraint $(LOCK) --no-build-isolation --editable '.[openfhe]'; \
	fi
	@# Compiled once, and kept in the user's cache: neither tests nor the demo wait for it.
	$(BIN)/python -m blindtune.server.warm
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# pytest comes last: its summary closes the output.
test: lint
	$(ONE_THREAD) $(BIN)/pytest -n 2 --dist loadfile

demo: setup
	rm -rf demo
	HF_HUB_OFFLINE=1 $(BIN)/blindtune demo --out demo

bench: setup
	$(BIN)/python -m benchmarks.suite $(BENCH)

# Keeps the versions in the lock unless pyproject.toml calls for others. For newer ones: make lock UPGRADE=1
lock: setup
	$(COMPILE) $(EXTRAS) $(if $(UPGRADE),--upgrade) --output-file $(LOCK) pyproject.toml
	$(COMPILE) --constraint $(LOCK) --output-file requirements/server.lock requirements/server.in

wheel: setup
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

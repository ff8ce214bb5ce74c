# make demo   the whole stack on this machine, upstream simulated; LIVE=1 with GROQ_API_KEY uses Groq, capped at 0.05 USD
# make test   the test suite          make check   format, lint, types, import contracts, size caps, dependencies
# make test-system   boots, image builds, failovers, long campaigns; what they need: docs/install.md
# make bench  the benchmarks          make docs    the generated pages of docs/
PYTHON ?= python3
LIVE ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt
# Stamps: an install runs again only when what it depends on has changed.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
# Images for containers often set it; every process would then compile Vessel anew, a fifth of the time of the tests.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-system check bench docs clean

help:
	@sed -n 's/^# //p' Makefile | sed -n '1,/^Stamps/{/^Stamps/!p;}'

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Vessel needs Python 3.11 or newer. Name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing. Install it, then run make again:"; echo "  sudo apt-get install -y python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing Vessel into $(VENV) (once; about a minute) ..."
	@$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing Vessel and its development tools into $(VENV) (once; a minute or two) ..."
	@$(PIP) -e '.[dev]'
	@touch $@ $(RUN)

demo: $(RUN)
	@$(BIN)/vessel demo $(if $(filter 1,$(LIVE)),--live)

test: $(DEV)
	@$(BIN)/python -m pytest

test-system: $(DEV)
	@$(BIN)/python -m pytest -m system --timeout 1800

check: $(DEV)
	@$(BIN)/ruff format --check --quiet . || { echo "Run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/loq check
	@$(BIN)/deptry .
	@$(BIN)/python docs/generate.py --check

bench: $(RUN)
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(RUN)
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/show_demo.py

clean:
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

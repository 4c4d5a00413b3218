# make help lists the targets. Everything is installed into .venv on first use.
PYTHON  ?= python3
PROFILE ?= phantom
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# One thread a core and no more: these nets are small and oversubscription halves their speed.
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test test-fast bench lab figures lint clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

setup: $(STAMP)  ## create .venv with everything in it

reproduce: $(STAMP)  ## run every notebook: PROFILE=smoke|phantom|real (default phantom)
	$(BIN)/python -m retention_lib reproduce --profile $(PROFILE)

test: $(STAMP)  ## all tests: unit, property, oracle, notebooks; real data if RETENTION_DATA is set
	$(BIN)/python -m pytest

test-fast: $(STAMP)  ## the tests that take under four minutes
	$(BIN)/python -m pytest -m 'not notebook and not real and not slow'

bench: $(STAMP)  ## side-by-side measurements
	@for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

figures: $(STAMP)  ## render the results table of README.md from figures/*/*.json
	$(BIN)/python -m retention_lib report

lint: $(STAMP)  ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## delete caches and built notebooks; runs stay
	rm -rf build cache .pytest_cache .ruff_cache .hypothesis

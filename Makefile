# Two commands do everything on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
# `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(VENV)/.torch
READY := $(VENV)/.ready
RUNS := $(VENV)/.runs
# More than cores: some tests wait for processes they start.
JOBS ?= 3

.PHONY: help setup demo test lint types layers pytest docs wheel test-slow bench gpu torture format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(READY) ## create .venv and install the package with everything it is tested with

$(TORCH): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo 'making $(VENV) and installing torch, the largest part: a minute or more'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@touch $(TORCH)

$(READY): $(TORCH) pyproject.toml
	@echo 'installing the package with all extras and what tests it'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[nowcast]' \
	  || echo 'pysteps could not be built (it needs a C compiler): what needs it is skipped'
	@$(BIN)/python -m framecast.compute.native
	@touch $(READY) $(RUNS)

$(RUNS): $(TORCH) pyproject.toml
	@echo 'installing the package and what it needs to run: a minute'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[nowcast]' \
	  || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@$(BIN)/python -m framecast.compute.native
	@touch $(RUNS)

demo: $(RUNS) ## install what it takes to run, then forecast digits and rain, and train a small model
	@$(BIN)/framecast demo

test: lint types layers pytest docs wheel ## all checks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

pytest: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow'

test-slow: $(READY) ## the longer forms of the tests
	$(BIN)/python -m pytest -m slow --timeout 3600

bench: $(READY) ## time training, forecasts, reading and evaluation beside their baselines (hours, on an idle machine)
	$(BIN)/python benchmarks/bench.py

gpu: $(READY) ## test on a GPU and measure what it gains, in six minutes
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/gpu.py

torture: $(READY) ## break things on purpose, many times, and write the table of what held
	PYTHONPATH=tests $(BIN)/python -m torture --out benchmarks/results/torture.md

docs: $(READY)
	$(BIN)/mkdocs build --strict --quiet

wheel: $(READY) ## build the wheel and import it from outside the tree
	$(BIN)/python tools/check_wheel.py

format: $(READY) ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built, not what was trained
	rm -rf dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

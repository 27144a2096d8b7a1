# One word a chore. Every target does its own set-up.
PRESET ?= cpu
FOLDER := $(if $(filter cpu cuda,$(PRESET)),build,build-$(PRESET))
PYTHON := .venv/bin/python
export PYTHONPATH := $(CURDIR)/python

.PHONY: help setup build everything demo test test-fast asan bench docs format lint clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup:  ## install what is missing: Debian packages, .venv with torch
	@scripts/setup.sh

build: setup  ## configure and compile; leaves build/headloom and build/libheadloom.so
	@scripts/build.sh $(PRESET) product

everything: setup  ## the same, with tests and benchmarks
	@scripts/build.sh $(PRESET)

demo: build  ## train three mechanisms on ListOps, print the table, write runs/demo/report.html
	@build/headloom compare recipes/demo.toml --folder runs/demo

test: everything  ## all tests, the slow tier included
	@scripts/setup.sh requirements-docs.txt
	ctest --test-dir $(FOLDER) --output-on-failure
	$(PYTHON) -m pytest -q tests/repo tests/python

test-fast: everything  ## the fast tier: under three minutes
	ctest --test-dir $(FOLDER) --output-on-failure -LE slow
	$(PYTHON) -m pytest -q -m "not slow" tests/repo tests/python

asan:  ## the fast tier under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory test-fast PRESET=asan

bench: everything  ## measure every mechanism against what a user would pick instead
	build/bench_kernels
	$(PYTHON) benchmarks/compare.py --mechanism all --tier tuned --json $(FOLDER)/benchmarks.json

docs: build  ## the documentation as pages: docs/_build/index.html
	@scripts/setup.sh requirements-docs.txt
	$(PYTHON) -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

format: setup  ## rewrite C++ and Python in the house's format
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs .venv/bin/clang-format -i
	$(PYTHON) -m ruff format python tests benchmarks scripts examples docs/*.py
	$(PYTHON) -m ruff check --fix python tests benchmarks scripts examples docs/*.py

lint: setup  ## check formats, includes and Python
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs .venv/bin/clang-format --dry-run -Werror
	$(PYTHON) -m ruff format --check python tests benchmarks scripts examples docs/*.py
	$(PYTHON) -m ruff check python tests benchmarks scripts examples docs/*.py
	$(PYTHON) scripts/check_includes.py

clean:  ## remove what was built
	rm -rf build build-debug build-asan docs/_build

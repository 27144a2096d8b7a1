# One word a chore. Every target does its own set-up.
PRESET ?= cpu
BUILD := $(if $(filter debug asan,$(PRESET)),build-$(PRESET),build)
PYTHON := .venv/bin/python
export PYTHONPATH := $(CURDIR)/python

.PHONY: help setup build demo test test-fast bench format lint docs asan clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

setup:  ## install what is missing: Debian packages, .venv with torch
	@scripts/setup.sh

build: setup  ## configure and compile; leaves build/headloom
	@scripts/build.sh $(PRESET)

# `make book` and `make test` do everything from a fresh clone on. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup model book picture test bench assignments grade lab serve clean

# The interpreter that makes .venv.
PYTHON ?= python3
# The interpreter that runs everything. Name another, for example PY=python in an active conda environment, and neither
# .venv nor pip is touched: that environment is yours, and environment.yml says how to make it.
PY := .venv/bin/python
# Seconds after which a cell of a notebook under test is given up.
NOTEBOOK_TIMEOUT ?= 900
# The port of `make serve`; 0 takes any that is free.
PORT ?= 8000
# The folder of `make grade`, and what else its command is to be told (python -m assignments.tools.grade --help).
SUBMISSIONS ?=
GRADE_FLAGS ?=

# Where the table of `make bench` goes, and what else its command is to be told (python -m benchmarks.run --help).
BENCH_OUT ?= _build/bench/bench.csv
BENCH_FLAGS ?=

# Kernels come from the environment that runs the book, whatever else the user has installed.
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads that wait give their core away. Left to spin they take it from the others on a busy machine, and all get several
# times slower.
export OMP_WAIT_POLICY ?= passive

help: ## Say what can be made (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=$(PYTHON)  PY=$(PY)  BOOK_MODEL  BOOK_DEVICE  BOOK_PROFILE=smoke|default|paper  BOOK_SEED  BOOK_CACHE  BOOK_PROGRESS  BOOK_SCHEDULER  SUBMISSIONS  GRADE_FLAGS  BENCH_OUT  BENCH_FLAGS"

ifeq ($(PY),.venv/bin/python)
setup: .venv/installed
else
# -P: not the helpers/ of this folder, which any Python would find, but an installed book with all that it needs.
setup:
	@$(PY) -P -c 'import importlib.metadata as m; m.version("steering-book")' 2>/dev/null || { echo "The book is not installed" \
	  "for $(PY) (Python 3.11 or newer): $(PY) -m pip install -c constraints.txt -e '.[test]'" >&2; exit 1; }
endif

# The stamp holds what was installed, so that a checkout that only touches the files' times installs nothing and needs no network.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "The book needs Python 3.11 or newer, and" \
	  "$(PYTHON) is $$($(PYTHON) --version 2>&1 || true). Name another: make book PYTHON=python3.11" >&2; exit 1; }
	@if ! cat pyproject.toml constraints.txt | cmp -s - $@; then \
	  { $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv; } && \
	  echo "Installing the pinned packages into .venv (some minutes the first time) ..." && \
	  $(PY) -m pip install --quiet -c constraints.txt -e '.[test]' && \
	  $(PY) -m pip check && \
	  cat pyproject.toml constraints.txt > $@; \
	fi
	@touch $@

model: setup
	@$(PY) -m helpers.models.smollm2

book: model ## Execute every chapter whose results are out of date, and build the site into _build/html
	@$(PY) -m book._ext.build
	@$(PY) -m assignments.tools.publish

picture: book ## Renew the README's picture of a result out of the executed chapter
	@$(PY) -m book._ext.readme_picture

test: model ## Run all the tests: unit, integration, every notebook, and the site in a browser
	@BOOK_PROFILE=smoke $(PY) -m pytest --nbmake-timeout=$(NOTEBOOK_TIMEOUT) --junitxml=_build/tests.xml $(PYTEST_FLAGS)

bench: model ## Time the helpers beside plain ways of doing the same, and record the table
	@$(PY) -m benchmarks.run --out "$(BENCH_OUT)" $(BENCH_FLAGS)

assignments: setup ## Build the student versions of the problem sets into _build/assignments
	@$(PY) -m assignments.tools.release

grade: model ## Grade a folder of submissions: make grade SUBMISSIONS=folder
	@[ -n "$(SUBMISSIONS)" ] || { echo "Say which folder: make grade SUBMISSIONS=folder" >&2; exit 1; }
	@$(PY) -m assignments.tools.grade "$(SUBMISSIONS)" $(GRADE_FLAGS)

lab: model ## Open the notebooks in JupyterLab
	@$(PY) -m jupyter lab book

serve: ## Serve the built site on this machine only
	@[ -f _build/html/index.html ] || { echo "There is no site yet: run make book first." >&2; exit 1; }
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## Remove the built site and all cached results; .venv and the model stay
	rm -rf _build

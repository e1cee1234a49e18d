# `make book` and `make test` work from a fresh clone; `make help` lists every target.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup model book chapter picture test test-quick lint format bench ruler gpu gpu-kit \
  assignments solutions grade lab serve live seeds fits clean

# Variables given on the command line are taken as typed: make expands nothing in them, and recipes
# read them from the environment ("$$PORT"), so that neither does the shell.
define as-typed
override $(1) := $$(value $(1))
export $(1)
endef
$(foreach name,$(.VARIABLES),\
  $(if $(filter command,$(origin $(name))),$(eval $(call as-typed,$(name)))))

# The Python that creates .venv.
PYTHON ?= python3
# The Python that runs everything. With another one (PY=python in an active conda environment, see
# environment.yml) make neither creates .venv nor calls pip: you manage that environment yourself.
PY := .venv/bin/python
# Seconds until a notebook cell under test times out.
export NOTEBOOK_TIMEOUT ?= 900
# Processes that run tests at the same time, one thread each.
export TEST_JOBS ?= logical
# The chapter that `make chapter` executes and builds.
export CHAPTER ?=
# Seeds of `make seeds`; chapters of it (all with claims if none is named) and of `make fits`.
export SEEDS ?= 100 200 300 400 500
export CHAPTERS ?=
# Port of `make serve`; 0 picks a free one.
export PORT ?= 8000
# Folder with the submissions that `make grade` grades.
export SUBMISSIONS ?=
# File that `make bench` writes its table to.
export BENCH_OUT ?= _build/bench/bench.csv
# File that `make ruler` writes its table to.
export RULER_OUT ?= _build/ruler/ruler.csv
# Further options of the programs behind the targets.
export BENCH_FLAGS ?=
export RULER_FLAGS ?=
export GPU_FLAGS ?=
export GRADE_FLAGS ?=
export LAB_FLAGS ?=
export PYTEST_FLAGS ?=

# For `make gpu-kit`: the packages of the target machine (pip list --format=freeze), and the maximum
# size of a part.
export HAVE ?=
export PART_MB ?= 48

# Notebook kernels come from the environment that runs the book, not from the user's kernelspecs.
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Idle OpenMP threads must not spin: on a busy machine that starves other processes, and everything
# becomes several times slower.
export OMP_WAIT_POLICY ?= passive
# What a process compiles to bytecode is kept: the libraries take ten seconds, in each process anew.
unexport PYTHONDONTWRITEBYTECODE

# Python with the options in the variable named first: split into words as the shell would, with
# quotes, but without expanding anything.
WITH = $(PY) -c 'import os, shlex, sys; more = shlex.split(os.environ[sys.argv[1]]); \
	os.execv(sys.executable, [sys.executable, *sys.argv[2:], *more])'

help: ## List the targets and variables (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables, on the command line or in the environment:"
	@echo "  BOOK_MODEL BOOK_DEVICE BOOK_PROFILE BOOK_SEED BOOK_CACHE BOOK_PROGRESS BOOK_SCHEDULER"
	@echo "  BOOK_FITS BOOK_JOBS: what runs, and where; see book/models.md"
	@echo "  PYTHON=python3   the Python that creates .venv;  PY=python: use this environment instead"
	@echo "  CHAPTER          the chapter of make chapter, for example pareto"
	@echo "  SEEDS            of make seeds, for example SEEDS='100 200'"
	@echo "  CHAPTERS         of make seeds (all with claims if none is named) and make fits"
	@echo "  PYTEST_FLAGS     options of pytest, for example '-m \"not site\"'"
	@echo "  TEST_JOBS=logical parallel test processes; NOTEBOOK_TIMEOUT=900: seconds for a cell"
	@echo "  SUBMISSIONS      the folder to grade; GRADE_FLAGS"
	@echo "  BENCH_OUT        where make bench writes its table; BENCH_FLAGS"
	@echo "  RULER_OUT        where make ruler writes its table; RULER_FLAGS"
	@echo "  GPU_FLAGS        options of make gpu; HAVE, PART_MB: of make gpu-kit"
	@echo "  PORT=8000        of make serve; LAB_FLAGS: options of JupyterLab"

ifeq ($(PY),.venv/bin/python)
setup: .venv/installed
else
# -P keeps the checkout's helpers/ off the import path: the package has to be installed, with what
# it depends on.
setup:
	@$(PY) -P -c 'import importlib.metadata as m; m.version("steering-book")' 2>/dev/null || { \
	  echo "The book is not installed for $(PY) (Python 3.11 or newer). Install it with" >&2; \
	  echo "  $(PY) -m pip install -c constraints.txt -e '.[test]'" >&2; exit 1; }
endif

# The stamp is a copy of the pins, compared by content: a checkout that only changes modification
# times installs nothing and needs no network.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  version=$$($(PYTHON) --version 2>&1 || true); \
	  echo "The book needs Python 3.11 or newer; $(PYTHON) is $$version." >&2; \
	  echo "Name a newer one, for example: make book PYTHON=python3.12" >&2; exit 1; }
	@if ! cat pyproject.toml constraints.txt | cmp -s - $@; then \
	  { $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv; } && \
	  echo "Installing the pinned packages into .venv (the first time: a minute or more) ..." && \
	  $(PY) book/_ext/install.py '.[test]' && \
	  cat pyproject.toml constraints.txt > $@; \
	fi
	@touch $@

model: setup
	@$(PY) -m helpers.models.packed

book: model ## Execute the chapters that are out of date and build the site into _build/html
	@$(PY) -m book._ext.build
	@$(PY) -m assignments.tools.publish
	@$(PY) -m live.publish

chapter: model ## Execute and build one chapter: make chapter CHAPTER=pareto
	@[ -n "$$CHAPTER" ] || { echo "Name it: make chapter CHAPTER=pareto" >&2; exit 1; }
	@$(PY) -m book._ext.build --chapter "$$CHAPTER"

seeds: model ## Record the chapters' claims with other seeds, for the scorecard
	@for seed in $$SEEDS; do BOOK_SEED=$$seed $(WITH) CHAPTERS -m book._ext.recorded; done

fits: model ## Record fits and rows of chapters again: make fits CHAPTERS="one-prompt attribution"
	@[ -n "$$CHAPTERS" ] || { echo 'Name them: make fits CHAPTERS="one-prompt refits"' >&2; exit 1; }
	@for chapter in $$CHAPTERS; do rm -f "book/results/fits-$$chapter.safetensors"; \
	  BOOK_FITS=record $(PY) -m nbconvert --to notebook --execute --stdout --log-level WARN \
	    book/*/"$$chapter.ipynb" >/dev/null; done

picture: book ## Update the README's picture from the executed chapter
	@$(PY) -m book._ext.readme_picture

test: model ## Run all tests: unit, integration, every notebook, and the site in a browser
	@BOOK_PROFILE=smoke OMP_NUM_THREADS=1 $(WITH) PYTEST_FLAGS -m pytest -n "$$TEST_JOBS" \
	  --dist loadgroup --no-loadscope-reorder --nbmake-timeout="$$NOTEBOOK_TIMEOUT" \
	  --junitxml=_build/tests.xml

test-quick: setup ## Run only the quick unit tests, style and the import contract included
	@BOOK_PROFILE=smoke OMP_NUM_THREADS=1 $(WITH) PYTEST_FLAGS -m pytest -n "$$TEST_JOBS" -q \
	  -m "unit and not slow" tests

lint: setup ## Check only style and the import contract
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-cache --no-logo

format: setup ## Fix style where ruff can
	@$(PY) -m ruff check --fix --quiet || true
	@$(PY) -m ruff format

bench: model ## Time the helpers beside plain ways of doing the same, and record the table
	@$(WITH) BENCH_FLAGS -m benchmarks.bench --out "$$BENCH_OUT"

ruler: model ## Measure all methods of the chapter One ruler; resumes
	@$(WITH) RULER_FLAGS -m helpers.ruler.table --out "$$RULER_OUT" \
	  --recorded book/results/ruler-smollm2.csv

gpu: model ## On one GPU: tests, the Pareto grid, a large model, a chapter
	@$(WITH) GPU_FLAGS -m benchmarks.gpu

gpu-kit: setup ## Pack a kit for a GPU machine without network: make gpu-kit HAVE=packages.txt
	@$(PY) benchmarks/gpu_kit.py pack --part-mb "$$PART_MB" $${HAVE:+--have "$$HAVE"}

assignments: setup ## Build the student versions of the problem sets into _build/assignments
	@$(PY) -m assignments.tools.release

solutions: setup ## After the deadline: reference answers and rubrics into _build/solutions
	@$(PY) -m assignments.tools.solutions

grade: model ## Grade a folder of submissions: make grade SUBMISSIONS=folder
	@[ -n "$$SUBMISSIONS" ] || { echo "Name the folder: make grade SUBMISSIONS=folder" >&2; exit 1; }
	@$(WITH) GRADE_FLAGS -m assignments.tools.grade "$$SUBMISSIONS"

live: model ## Build the page that runs the model in a browser; needs npm
ifeq ($(PY),.venv/bin/python)
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[live]'
endif
	@$(PY) -m live.build

lab: model ## Open the notebooks in JupyterLab
	@$(WITH) LAB_FLAGS -m jupyterlab book \
	  --ServerApp.contents_manager_class=book._ext.lab.BookContents

serve: ## Serve the built site on this machine only
	@[ -f _build/html/index.html ] || [ -f _build/html/live/index.html ] || \
	  { echo "There is no site yet: run make book." >&2; exit 1; }
	@command -v $(PY) >/dev/null || { echo "There is no $(PY). Create it with make setup, or" \
	  "name the Python of your environment, as in make serve PY=python." >&2; exit 1; }
	@$(PY) -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1])))' "$$PORT" \
	  2>/dev/null || { echo "Port $$PORT cannot be used (taken, or no port number):" \
	  "name another, or PORT=0 for a free one." >&2; exit 1; }
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html "$$PORT"

clean: ## Remove _build (site, executed chapters); .venv, the model and finished sweeps stay
	rm -rf _build

# make lab and make test do everything on a machine with Python >= 3.11, pip and make.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --constraint constraints.txt
# Two files of tests at a time: many of them wait. One thread each: several that spin for one core take ten times as long.
# Bytecode is kept, whatever the shell says: hundreds of processes import the package.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
NBVAL := $(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=120
# The last lessons take longest: they start first. Some of them are the newest, and every sixth before it.
ALL = $(shell ls -r notebooks/*.ipynb)
LESSONS = $(shell ls -r notebooks/*.ipynb | awk 'NR % 6 == 1')

.PHONY: help install lab course grade exam lint test test-browser test-full demo bench faults clean

help:
	@echo "make lab        environment, then JupyterLab on the course, in work/ (ARGS= is passed on to it)"
	@echo "make grade      your points so far, and what to read next; also on work/index.ipynb"
	@echo "make exam       a mock examination in work/, with numbers of its own; ARGS='--seed 17' for a certain one"
	@echo "make test       environment, then the quick tests and some lessons: ten minutes on two cores"
	@echo "make test-browser  the course in a real JupyterLab: needs a Chromium; screenshots in out/screenshots"
	@echo "make demo       the worked example through all schedules: about a minute, and a bar says how much is left"
	@echo "make test-full  all tests, and all lessons and solutions"
	@echo "make faults     everything that can go wrong in a step, done and told: about ten minutes"
	@echo "make course     build notebooks/, exercises/, solutions/ from course/"
	@echo "make bench      benchmarks, side by side, into benchmarks/RESULTS.md; ARGS=--quick for fewer"
	@echo "make clean      remove the environment and what was built"

install: $(READY)

# Installed again only when what is to be installed has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; a few minutes on a slow line)"
	@$(PIP) --editable '.[lab,test]'
	@touch $@

# The first time lesson 0, later the index with lessons and points: it is looked up before work/ is filled.
PAGE = $(if $(wildcard work/notebooks),index.ipynb,notebooks/00_start_here.ipynb)

lab: $(READY)
	@$(BIN)/pipelab course work
	$(BIN)/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir=work $(ARGS) --LabApp.default_url=/lab/tree/$(PAGE)

# Points that are missing are no error of make's.
grade: $(READY)
	@test -d work/exercises || $(BIN)/pipelab course work
	@$(BIN)/pipelab grade work --index work $(ARGS) || test $$? -eq 1

exam: $(READY)
	@$(BIN)/pipelab exam $(ARGS)

course: $(READY)
	$(BIN)/pipelab course build $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Solutions are run by nbval too when they are graded (tests/teaching/course/test_notebooks.py); whole pages of them in test-full.
test: lint
	$(PYTEST) -m "not slow" $(ARGS)
	$(NBVAL) $(LESSONS)

# make test runs the quick ones of these, where it finds a Chromium and playwright; -m slow here runs the others.
test-browser: $(READY)
	@$(BIN)/python -c "import playwright" 2>/dev/null || $(PIP) playwright
	@$(BIN)/python -m tests.browser.lab
	$(PYTEST) --dist worksteal tests/browser $(ARGS)

test-full: lint
	$(PYTEST) $(ARGS)
	$(NBVAL) $(ALL) solutions

demo: $(READY)
	$(BIN)/pipelab demo $(ARGS)

bench: $(READY)
	$(BIN)/python benchmarks/all.py $(ARGS)

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.runtime.faults.matrix

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis out

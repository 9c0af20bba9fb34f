# `make demo` and `make test` need nothing but Python 3.11+ and make: they set up .venv themselves.
# `make VENV=path ...` uses an environment that is there already.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Written when the environment is ready; a changed pyproject.toml makes it anew.
READY := $(VENV)/.fsasd-test

.PHONY: demo test pytest pages test-fast lint docs bench clean

demo: $(VENV)/.fsasd
	$(BIN)/fsasd experiment=demo

# All at once: each has times in which it uses one core. A line of lint may come between dots.
test: $(READY)
	+$(MAKE) -j3 pytest pages lint docs

# Three processes of one thread each: some wait for what they start, and two cores are never idle.
# Files in their order: else those of few and slow tests come last, and all wait for one process.
pytest: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --cpu-times

# The commands of README and docs/, as they are there.
pages: $(READY)
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/run_pages.py

# The inner loop: all but what trains networks, makes whole runs or starts Python anew.
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" --cpu-times

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, build/site/index.html; warnings are errors (mkdocs.yml).
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q

bench: $(READY)
	$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.fsasd: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(READY): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e '.[test]'
	@touch $(VENV)/.fsasd $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# `make demo` and `make test` need nothing but Python 3.11+ and make: they set up .venv themselves.
# `make VENV=path ...` uses an environment that is there already.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Written when the environment is ready; a changed pyproject.toml makes it anew.
READY := $(VENV)/.fsasd-test
# Tools of a release, in an environment of their own.
TOOLS := build/tools
# The tests of `make test`: each feature once, without further cases and rare faults.
TESTS := -m "not nightly"
# Those that are there of what fsasd runs on; the first is tested with the oldest versions.
PYTHONS := $(foreach version,3.11 3.12 3.13 3.14,$(if $(shell command -v python$(version)),$(version)))

.PHONY: demo test test-all test-nightly pytest pages test-fast test-matrix lint docs bench mutation lock
.PHONY: dist sbom audit clean

demo: $(VENV)/.fsasd
	$(BIN)/fsasd experiment=demo

# All at once: each has times in which it uses one core. A line of lint may come between dots.
test: $(READY)
	+$(MAKE) -j3 pytest pages lint docs

# With every case: before a release.
test-all: $(READY)
	+$(MAKE) -j3 TESTS= pytest pages lint docs

# What `make test` leaves out: each night, and in CI.
test-nightly: $(READY)
	$(MAKE) TESTS="-m nightly" pytest

# Three processes of one thread each: some wait for what they start, and two cores are never idle.
# Files in their order: else those of few and slow tests come last, and all wait for one process.
pytest: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --cpu-times $(TESTS)

# The commands of README and docs/, as they are there.
pages: $(READY)
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/run_pages.py

# The inner loop: all but what trains networks, makes whole runs or starts Python anew.
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not nightly" --cpu-times

# The inner loop with the oldest and the newest versions that pyproject.toml allows, each in an
# environment of its own. Old libraries warn of what is deprecated in newer ones that they use.
test-matrix: matrix-oldest $(PYTHONS:%=matrix-%)

matrix-oldest:
	python$(firstword $(PYTHONS)) -m venv --clear build/matrix/oldest
	build/matrix/oldest/bin/python -m pip install -q -c constraints/oldest.txt -e '.[test]'
	OMP_NUM_THREADS=1 build/matrix/oldest/bin/python -m pytest -q -n 2 --dist loadfile -m "not slow and not nightly" -W default

matrix-%:
	python$* -m venv --clear build/matrix/$*
	build/matrix/$*/bin/python -m pip install -q -e '.[test]'
	OMP_NUM_THREADS=1 build/matrix/$*/bin/python -m pytest -q -n 2 --dist loadfile -m "not slow and not nightly"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, build/site/index.html; warnings are errors (mkdocs.yml).
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q

bench: $(READY)
	$(BIN)/python -m benchmarks

# Single changes of the code that no test notices. All areas take half an hour of a core;
# `make mutation OPTIONS="keys --tries 60"` is a part of it.
mutation: $(READY) build/mutmut/.ready
	PYTHONPATH=build/mutmut $(BIN)/python -m benchmarks.mutants $(OPTIONS)

build/mutmut/.ready: | $(READY)
	$(BIN)/python -m pip install -q --no-deps --target build/mutmut mutmut libcst
	@touch $@

# What constraints/lock.txt holds, for all systems and Pythons: the newest versions that are allowed.
lock: $(TOOLS)/.ready
	$(TOOLS)/bin/uv pip compile -q pyproject.toml --extra test --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --custom-compile-command "make lock" -U -o constraints/lock.txt

# Wheel and sdist, checked, in dist/.
dist: $(READY) $(TOOLS)/.ready
	rm -rf dist
	$(BIN)/python -m build -q
	$(TOOLS)/bin/twine check --strict dist/*

# A bill of materials of what the environment holds (CycloneDX).
sbom: $(READY) $(TOOLS)/.ready
	$(TOOLS)/bin/cyclonedx-py environment -o build/sbom.json --pyproject pyproject.toml $(BIN)/python

# Known vulnerabilities of what constraints/lock.txt holds, from the database of PyPI. A mirror without
# it knows of no package: that fails.
audit: $(TOOLS)/.ready
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r constraints/lock.txt

$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install -q cyclonedx-bom pip-audit twine uv
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.fsasd: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e .
	@touch $@

# With LOCKED=1, as in CI, the versions in constraints/lock.txt; else the newest that are allowed.
$(READY): pyproject.toml | $(VENV)/bin/python
ifdef LOCKED
	$(BIN)/python -m pip install -q --require-hashes -r constraints/lock.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install -q -e '.[test]'
endif
	@touch $(VENV)/.fsasd $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

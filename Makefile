# Two commands do everything on a machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUIETLY := --quiet --disable-pip-version-check
INSTALL := $(BIN)/python -m pip install $(QUIETLY) --constraint constraints.txt
OLDEST := .venv-oldest
NEWEST := .venv-newest
RAY := .venv-ray
WHEEL := build/wheel
ON_ALL_CORES := --numprocesses logical --dist worksteal

.PHONY: demo test test-all test-ray test-lm-eval test-oldest test-newest test-wheel lint docs bench clean

demo: $(VENV)/installed-base
	$(BIN)/python examples/dialects/demo.py

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(ON_ALL_CORES) -m "not long"

test-all: $(VENV)/installed-test
	$(BIN)/python -m pytest $(ON_ALL_CORES)

# On a Ray cluster of three nodes on this machine. The other tests do without Ray, which takes 250 MB of disk.
test-ray: $(RAY)/installed
	$(RAY)/bin/python -m pytest tests/plugins/ray

# With lm-eval, which takes 430 MB.
test-lm-eval: $(VENV)/installed-test
	$(INSTALL) --editable ".[test,lm-eval]"
	$(BIN)/python -m pytest tests/validators/test_lm_eval.py

# With the lowest versions that pyproject.toml allows, on Python 3.11.
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest $(ON_ALL_CORES) -m "not long"

# With what a user gets who installs today.
test-newest:
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install $(QUIETLY) --upgrade --upgrade-strategy eager --editable ".[test]"
	$(NEWEST)/bin/python -m pytest $(ON_ALL_CORES) -m "not long"

# The wheel's files, put before the editable ones on the import path; tests of what a wheel may lack: modules, data, entry points.
IN_WHEEL := tests/test_merge_smoke.py tests/cli tests/docs tests/examples tests/plugins tests/strategies tests/validators
test-wheel: $(VENV)/installed-lint
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	$(BIN)/python -m pip install $(QUIETLY) --no-deps --no-compile --target $(WHEEL) dist/*.whl
	PYTHONPATH=$(WHEEL) MODELMERGER_TESTED_FROM=$(WHEEL) $(BIN)/python -m pytest $(ON_ALL_CORES) -m "not long" $(IN_WHEEL)

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	$(BIN)/check-wheel-contents dist/*.whl

# The site, in site/: every link and every docstring is looked at, and a warning is an error.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# BENCH: options of benchmarks/run.py, such as "--shapes 1.5B --variants one-core".
bench: $(VENV)/installed-base
	$(BIN)/python benchmarks/run.py $(BENCH)
	$(BIN)/python benchmarks/planned.py
	$(BIN)/python benchmarks/executors.py

clean:
	rm -rf $(VENV) $(RAY) $(OLDEST) $(NEWEST) build dist site

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-base: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed-base
	$(INSTALL) --editable ".[test]"
	touch $@

$(VENV)/installed-lint: $(VENV)/installed-test
	$(INSTALL) --editable ".[test,lint]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed-base
	$(INSTALL) --editable ".[docs]"
	touch $@

$(RAY)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install $(QUIETLY) --constraint constraints.txt --editable ".[test,ray]"
	touch $@

$(OLDEST)/installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install $(QUIETLY) --constraint constraints-oldest.txt --editable ".[test]"
	touch $@

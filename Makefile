# Each target works on a fresh machine: it first makes a virtual environment and installs the package there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check docs dist crf clean

demo: $(INSTALLED)
	$(BIN)/wsss demo -o demo

# A process a core, each with one thread: more threads than cores only wait for each other.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal --durations 25

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/python -m pip install -q --no-deps --target build/check .
	cd build/check && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p wsss
	cd benchmarks && MYPYPATH=../build/check $(abspath $(BIN))/mypy --config-file ../pyproject.toml *.py ../examples/*.py

docs: $(INSTALLED)
	$(BIN)/python -m pip install -q -e '.[docs]'
	$(BIN)/python -m mkdocs build -q

# The packages, installed in an environment of their own and used from an empty folder.
dist: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m pip install -q build twine
	$(BIN)/python -m build --outdir dist > /dev/null
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/installed.py dist

crf: $(INSTALLED)
	$(BIN)/python -m pip install -q -e '.[crf]'

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info

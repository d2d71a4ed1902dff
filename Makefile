# Each target works on a fresh machine: it first makes a virtual environment and installs the package there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check crf clean

demo: $(INSTALLED)
	$(BIN)/wsss demo -o demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/python -m pip install -q --no-deps --target build/check .
	cd build/check && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p wsss
	cd benchmarks && MYPYPATH=../build/check $(abspath $(BIN))/mypy --config-file ../pyproject.toml *.py ../examples/*.py

crf: $(INSTALLED)
	$(BIN)/python -m pip install -q -e '.[crf]'

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info

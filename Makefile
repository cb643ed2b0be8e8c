# `make quickstart` and `make test` need python3.11 or newer, pip and make.
# The first of these that runs and is new enough; name another by PYTHON=...
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	echo $$p && break; done)
endif
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: quickstart test test-parity test-slow test-multihost lint format wheel colabs aot clean

quickstart: $(VENV)/.plots
	$(BIN)/python -m experiments.quickstart --workdir=runs/quickstart

# Two processes, a file of tests at a time, so that fixtures are made once. If
# one dies, the run ends: pytest-xdist may wait for ever after a restart.
PYTEST = JAX_PLATFORMS=cpu $(BIN)/python -m pytest -q tests -n 2 \
  --dist loadfile --max-worker-restart=0

test: $(VENV)/.dev
	$(PYTEST)

# Two processes that train together, on one another's checkpoints.
test-multihost: $(VENV)/.dev
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -q tests -m multihost

# What takes longer: several processes, kill and resume, exhaustive sets; with
# the compiler's optimizations, as users run it.
test-slow: $(VENV)/.dev
	JAXTOK_TEST_OPTIMIZED=1 $(PYTEST) \
	  -m '(slow or multihost) and not torch and not gpu and not tpu'

# Compares with torch and transformers, on one device like most users.
test-parity: $(VENV)/.parity
	JAXTOK_TEST_DEVICES=1 JAXTOK_TEST_OPTIMIZED=1 $(PYTEST) -m torch

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Builds the wheel and imports it from outside the checkout.
wheel: $(VENV)/.dev
	BIN=$(abspath $(BIN)) bash .ci/check_wheel.sh

# Compiles one case of each kernel for a TPU that is not there; see
# docs/kernels.md. All: make aot AOT='--chips=v4,v5e,v5p,v6e,tpu7x --jobs=2'
# (half an hour: some v5e programs take a minute, as at t=8192, n=16, h=128, most
# of it at the copy that transposes a kernel's output, which XLA keeps in VMEM).
LIBTPU = $(VENV)/libtpu
AOT ?= --chips=v6e --quick
aot: $(LIBTPU)
	PYTHONPATH=$(abspath $(LIBTPU)) $(BIN)/python -m jaxtok_kernels.aot $(AOT)

$(LIBTPU): $(VENV)/.dev
	@echo "Installing libtpu into $@"
	@$(PIP) --no-deps --target $@ libtpu==0.0.52
	@touch $@

# Executes the notebooks.
colabs: $(VENV)/.dev
	JAX_PLATFORMS=cpu JAXTOK_TINY=1 $(BIN)/python -m pytest -q --nbmake \
	  --nbmake-timeout=600 -o addopts= -o python_files= colabs

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: found no Python 3.11 or newer. \
	Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not a Python 3.11 or newer. Name one: \
	make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.plots: $(VENV)/bin/python pyproject.toml
	@echo "Installing jaxtok into $(VENV) (about a minute)"
	@$(PIP) -e '.[plots]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@echo "Installing jaxtok and what its tests need into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.plots

$(VENV)/.parity: $(VENV)/.dev pyproject.toml
	@echo "Installing torch and transformers into $(VENV)"
	@$(PIP) -e '.[parity]'
	@touch $@

# Two commands do everything on a fresh machine: `make run` and `make test`.
# TORCH chooses the build of torch first, for example `make test TORCH='torch==2.13.0'`.

PYTHON ?= python3
TORCH ?= torch>=2.13
TORCH_IS = '$(firstword $(TORCH))' $(wordlist 2,9,$(TORCH))
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/strawberry-*)
DEFAULT := $(addprefix plugins/strawberry-,fast-weights original)

DIST := build/empty

.PHONY: run test install install-dev check dist try-dist docs clean

run: install
	$(BIN)/strawberry train recipes/air.yaml

test: install-dev check
	$(BIN)/python -m pytest

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_IS)
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml $(DEFAULT:%=%/pyproject.toml)
	$(BIN)/python -m pip install --quiet -e . $(DEFAULT:%=-e ./%)
	touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev -e '.[ablate]' $(PLUGINS:%=-e ./%)
	touch $@ $(VENV)/installed

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Wheels and sdists of Strawberry and of every plugin.
dist: $(VENV)/torch
	$(BIN)/python -m pip install --quiet 'build>=1.2'
	for folder in . $(PLUGINS); do $(BIN)/python -m build --outdir dist $$folder || exit 1; done

# Those, in an environment with nothing else: a packaged recipe by name, and a plugin's.
try-dist:
	rm -rf $(DIST) && $(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python -m pip install --quiet $(TORCH_IS)
	$(DIST)/bin/python -m pip install --quiet --find-links dist strawberry-lab strawberry-retention
	cd $(DIST) && bin/strawberry train air --set train.max_iters=20
	cd $(DIST) && bin/strawberry build retained_2360c08

docs: $(VENV)/torch
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group docs -e . $(PLUGINS:%=-e ./%)
	$(BIN)/python tools/docs/build.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

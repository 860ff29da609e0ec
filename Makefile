# The verbs of this checkout. Each makes .venv by itself the first time.
PYTHON ?= python3
BIN := .venv/bin
DEMO := .venv/.demo
STAMP := .venv/.installed
PROTOS := $(wildcard protos/rdev/v1/*.proto)

# Tests start some thousand processes, each of which would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all chaos lint format check audit coverage bench docs lock clean

PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

# Commands that pip writes from 25 on start 5 ms sooner: they do not import re.
# torch goes in first and pinned: a bare `torch` may bring several gigabytes of CUDA along.
$(DEMO): pyproject.toml constraints.txt hatch_build.py $(PROTOS)
	@echo "making .venv, which takes a minute or two"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -U 'pip>=25'
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e '.[agent,examples]'
	touch $@

$(STAMP): $(DEMO)
	@echo "adding what the tests need, which takes another minute"
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@

demo: $(DEMO)
	@$(BIN)/python examples/demo.py

# Most tests wait for processes, so more of them at a time than there are cores.
test: $(STAMP)
	$(BIN)/python -m pytest -q -m 'not slow' -n 4 --dist worksteal

test-all: $(STAMP)
	$(BIN)/python -m pytest -q -n 4 --dist worksteal

# 1,000 kills over 20 jobs; some five minutes.
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/codespell agent client protos tests bench docs examples *.md

check: lint
	$(BIN)/pyright
	$(BIN)/deptry .
	$(BIN)/python docs/generate.py --check

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Asks a vulnerability service over the network, so it is no part of check.
audit: $(STAMP)
	$(BIN)/pip-audit --skip-editable --progress-spinner off

coverage: $(STAMP)
	$(BIN)/python -m coverage run -m pytest -q -m 'not slow'
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --skip-covered --sort cover | tail -40

bench: $(STAMP)
	$(BIN)/python -m bench

docs: $(STAMP)
	$(BIN)/python docs/generate.py

# Downloads what an agent needs for every Python and machine that is served, 170 MB.
lock: $(STAMP)
	$(BIN)/python lock_host.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find protos -name '*_pb2*' -delete

# make quickstart   install, train the default model on the corpus that ships, evaluate it, translate
# make test         install with the test extras; lint, types, tests
# make test-fast    the same without the slow tests

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PARALLEL = -n auto --maxprocesses 4 --dist worksteal
OFFLINE = echo "make: installing failed (see above). It needs a Python package index: check the network, or PIP_INDEX_URL" \
	"and PIP_FIND_LINKS if yours is a mirror, then run make again." >&2; exit 1

.PHONY: quickstart test test-fast clean

quickstart: .venv/installed
	.venv/bin/nmt quickstart

test: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest $(PARALLEL)

test-fast: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest $(PARALLEL) -m "not slow"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "make: no virtual environment: install python3-venv, or name another Python with PYTHON=" >&2; exit 1; }

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing (torch is large, this can take minutes) ..."
	@$(PIP) -e . || { $(OFFLINE); }
	@.venv/bin/python -c "from nmt import native; native.library()"
	@touch $@

.venv/installed-test: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing, with what the tests need ..."
	@$(PIP) -e '.[test]' || { $(OFFLINE); }
	@.venv/bin/python -c "from nmt import native; native.library()"
	@touch $@ .venv/installed

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

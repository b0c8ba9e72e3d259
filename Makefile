# `make demo` and `make test` need Python >= 3.11 with venv, and nothing else installed.
PYTHON ?= python3
BIN := .venv/bin
# One thread per product and two processes: a two-thread product waits long for a busy core.
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2
PACKAGE := $(shell find xpmlp -name '*.py') pyproject.toml README.md LICENSE

.PHONY: demo test check clean
.DELETE_ON_ERROR:

demo: .venv/table
	$(BIN)/xpmlp demo

test: .venv/test
	$(PYTEST)

check: .venv/check
	$(PYTEST) -m slow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each of these installs the package as a wheel with one extra, again whenever the package changes.
.venv/table .venv/test .venv/check: .venv/%: $(PACKAGE) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist

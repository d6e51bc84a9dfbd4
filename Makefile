# `make demo`, `make test`, `make test-all` and `make lint` need Python 3.11 or newer and nothing
# else: the first call makes .venv, with uv where it is installed, else with venv and pip.
PYTHON ?= python3

VENV := .venv
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
# uv finds or fetches a Python where $(PYTHON) is too old.
MAKE_VENV = uv venv --quiet --seed --python "$$($(PYTHON_OK) >&2 && echo "$(PYTHON)" || echo '>=3.11')" $(VENV)
INSTALL = uv pip install --quiet --python $(VENV)/bin/python
else
MAKE_VENV = $(PYTHON_OK) && $(PYTHON) -m venv $(VENV)
INSTALL = $(VENV)/bin/python -m pip install --quiet
endif
PYTHON_OK = $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "$(PYTHON) is Python %d.%d; 3.11 or newer is needed (make PYTHON=...)" % sys.version_info[:2])'

.PHONY: demo test test-rest test-all lint clean
.DELETE_ON_ERROR:

# Every example as out/NAME.wav, with a picture beside it.
demo: $(VENV)/base.stamp
	@mkdir -p out
	@set -e; for midi in examples/*.mid; do \
	  name=out/$$(basename "$$midi" .mid); \
	  $(VENV)/bin/music-diffusion synthesize "$$midi" -o "$$name.wav" --plot "$$name.png"; \
	done

# The quick tests.
test: $(VENV)/test.stamp
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow"

# What the quick lane leaves out: slow tests, and those of libraries that come from the system.
test-rest: $(VENV)/test.stamp
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q -m slow
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow" \
	  $$(grep -rl 'needs.module("fluidsynth")' tests)

# Every test.
test-all: test test-rest

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@echo "making $(VENV)"
	@$(MAKE_VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/base.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "installing the package (minutes, once)"
	@$(INSTALL) -e .
	@touch $@

$(VENV)/test.stamp: $(VENV)/base.stamp
	@echo "installing what tests need (minutes, once)"
	@$(INSTALL) -e '.[test]'
	@touch $@

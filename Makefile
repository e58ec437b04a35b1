# Two commands: `make tour` fits every family and draws it, `make test` proves the library.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: tour picture test lint clean

tour: $(VENV)/.installed
	$(BIN)/python -m jaxgen tour --out tour

# the picture in the README is the tour's
picture: tour
	cp tour/tour.png notebooks/tour.png

test: $(VENV)/.installed-test lint
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest

lint: $(VENV)/.installed-test
	$(BIN)/ruff check jaxgen tests benchmarks
	$(BIN)/mypy

# the environment is made anew when PYTHON is another than it was made with
$(VENV)/.python-%:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $@

PYTHON_ID := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(PYTHON_ID),)
$(error no Python found as '$(PYTHON)': give one with PYTHON=, 3.11 or later)
endif

$(VENV)/.installed: $(VENV)/.python-$(PYTHON_ID) pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.python-$(PYTHON_ID) pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) tour build *.egg-info .pytest_cache

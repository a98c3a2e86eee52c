# Two commands on a fresh machine with Python and make: `make run` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

export OMP_NUM_THREADS ?= 1

.PHONY: run test lint types imports recipes clean

run: $(VENV)/.installed  ## train the quickstart's arms and compare them
	$(BIN)/mimetic run recipes/quickstart.yaml

test: $(VENV)/.tested  ## the test suite: no network, at most five minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu" $(ARGS)

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(VENV)/.linted: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

lint: $(VENV)/.linted  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.linted  ## strict types
	$(BIN)/mypy

imports: $(VENV)/.linted  ## imports run one way
	$(BIN)/lint-imports

recipes: $(VENV)/.installed  ## every shipped recipe is valid and resolves
	$(BIN)/mimetic validate recipes
	$(BIN)/mimetic schema --check docs/recipe.schema.json

clean:  ## remove the environment, keep the runs
	rm -rf $(VENV)

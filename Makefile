# Two commands on a fresh machine with Python and make: `make run` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt

export OMP_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE  # workers and the next run read what was compiled

.PHONY: run test lint types imports recipes audit benchmarks clean

run: $(VENV)/.installed  ## train the quickstart's arms and compare them
	$(BIN)/mimetic run recipes/quickstart.yaml

test: $(VENV)/.tested  ## the test suite: no network, at most three minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu" $(ARGS)

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) 'pip>=25.1'  # the first that knows dependency groups
	$(PIP) --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) --group test
	touch $@

$(VENV)/.linted: $(VENV)/.tested
	$(PIP) --group dev
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

audit: $(VENV)/.linted  ## known vulnerabilities of the dependencies; those it cannot look up are listed
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps --requirement constraints.txt \
	  > $(VENV)/audit.log 2>&1; code=$$?; \
	if grep -q ConnectionError $(VENV)/audit.log; then echo "audit skipped: the advisories cannot be reached"; \
	else cat $(VENV)/audit.log; exit $$code; fi

benchmarks: $(VENV)/.tested  ## the GPU set of measurements, in small, on a CPU
	$(BIN)/python -m benchmarks --gpu --dry

clean:  ## remove the environment, keep the runs
	rm -rf $(VENV)

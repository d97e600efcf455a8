# `make demo` and `make test` are the usual entry points. Everything runs in .venv, which is made on first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two workers on two cores: a second thread per worker would only compete for them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

.PHONY: demo test check slow bench clean

# Train, probe beside an untrained encoder and raw pixels, and write the report. Its path is the last line printed.
demo: $(READY)
	$(BIN)/jepa train demo --out runs/demo --overwrite

test: $(READY)
	$(PYTEST)

slow: $(READY)
	$(PYTEST) -m slow

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

bench: $(READY)
	set -e; for name in loader masks startup step panel cjepa; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Installed again only when pyproject.toml or constraints.txt changes. pip, not uv: it finds local wheels of torch.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

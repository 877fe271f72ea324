# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

# LPIPS weights, where a shared copy lies beside the checkout
ifneq ($(wildcard ../shared/torch),)
export TORCH_HOME ?= $(abspath ../shared/torch)
endif

.PHONY: install demo test lint bench bench-lego clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) scripts/check_python.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/python scripts/demo.py

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# suites of less than half an hour each on two cores; they resume
BENCH := variance_cpu siren_cpu layer_fit_cpu ablation_scene_cpu
bench: install
	$(BIN)/eugen-bench $(BENCH:%=configs/%.yml)

bench-lego: install
	$(BIN)/eugen-bench configs/lego_cpu.yml

clean:
	rm -rf $(VENV) outputs/demo

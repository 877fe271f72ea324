# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

# LPIPS weights, where a shared copy lies beside the checkout
ifneq ($(wildcard ../shared/torch),)
export TORCH_HOME ?= $(abspath ../shared/torch)
endif

.PHONY: install demo test test-long test-processors lint docs bench bench-long gpu-pack clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) scripts/check_python.py
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes; torch for NVIDIA GPUs alone is most of what is downloaded (README, Two commands)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel
	@[ -t 1 ] || { seconds=0; while sleep 20 >/dev/null 2>&1; do seconds=$$((seconds + 20)); \
		echo "installing, for $$seconds s: $$(du -sm $(VENV) | cut -f1) of about 8600 MB in $(VENV)"; done & beat=$$!; }; \
	$(BIN)/python -m pip install --progress-bar on --constraint constraints.txt --no-build-isolation --editable ".[dev]"; \
	status=$$?; [ -z "$$beat" ] || kill $$beat; exit $$status
	cp scripts/jit_warning.pth "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	touch $@

demo: install
	$(BIN)/eugen-bench configs/demo.yml

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# the few tests that take minutes each: README's commands, a whole suite, two processes, a day on a GPU by rehearsal
test-long: install
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile --no-loadscope-reorder

# the tests that depend on a processor's instructions or on a compiler, with fewer of either. torch's cache of compiled
# code does not know of the limits, and would give one what it compiled under another.
PROCESSORS := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 CXX=/nonexistent
test-processors: install
	@status=0; for limit in $(PROCESSORS); do echo "$$limit"; \
		env $$limit TORCHINDUCTOR_FORCE_DISABLE_CACHES=1 $(BIN)/python -m pytest -m processor tests/core || status=1; done; exit $$status

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the pages as a site, in outputs/site: a link that leads nowhere, or any other warning, is an error
docs: install
	@[ -x $(BIN)/mkdocs ] || { echo "the site needs Python 3.11.5 or later: make VENV=.venv-docs PYTHON=python3.11 docs" >&2; exit 1; }
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# suites of less than half an hour each on two cores; they resume. Those of the second line read data beside the checkout.
BENCH := variance_cpu siren_cpu layer_fit_cpu ablation_scene_cpu ablation_scene_start_cpu scene_start_cpu distill_scene_cpu isdf_room_cpu \
	scene_nerf_cpu elastic_scene_cpu scene_bfloat16_cpu scene_muon_cpu scene_rates_full_cpu scene_starts_full_cpu distill_scene_muon_cpu
BENCH_DATA := fox_mipnerf360_cpu fox_zipnerf_cpu fox_zipnerf_distill_cpu fox_nerfacto_cpu full_mipnerf360_cost_cpu full_zipnerf_cost_cpu \
	fox_mipnerf360_start_cpu lego_mipnerf_cpu lego_degree_cpu lego_start_cpu dnerf_lego_tiny_cpu isdf_kitchen_cpu
ifneq ($(wildcard ../shared/data),)
BENCH += $(BENCH_DATA)
endif
bench: install
	$(BIN)/eugen-bench $(BENCH:%=configs/%.yml)

# hours, and data beside the checkout
BENCH_LONG := lego_cpu distill_lego_cpu lego_narrow_cpu lego_vanilla_cpu dnerf_lego_tiny_stock_cpu dynamic_scene_cpu garden_mipnerf360_cpu \
	garden_zipnerf_cpu lego_dense_rate_cpu ablation_scene_rates_cpu distill_scene_rates_cpu dynamic_scene_schedule_cpu dnerf_lego_tiny_schedule_cpu \
	layer_fit_steps_cpu lego_planned_cpu scene_degree_cpu scene_rates_cpu scene_factors_rates_cpu \
	garden_mipnerf360_rates_cpu garden_zipnerf_rates_cpu dnerf_lego_tiny_rates_cpu isdf_room_rates_cpu \
	isdf_room_muon_cpu fox_mipnerf360_muon_cpu fox_zipnerf_muon_cpu fox_zipnerf_seed_cpu garden_mipnerf360_muon_cpu garden_zipnerf_muon_cpu \
	dnerf_lego_tiny_muon_cpu dnerf_lego_tiny_rates_full_cpu lego_small_cpu lego_small_seeds_cpu lego_small_adam_cpu lego_rates_cpu lego_trained_cpu \
	scene_front_rates_cpu scene_front_rates_adam_cpu scene_front_cpu fox_mipnerf360_front_rates_cpu isdf_room_front_rates_cpu \
	lego_front_rates_cpu scene_shares_cpu scene_small_front_cpu scene_rates_dense_full_cpu \
	fox_mipnerf360_seed_cpu fox_mipnerf360_seed_2_cpu fox_zipnerf_seed_2_cpu dnerf_lego_tiny_seed_cpu lego_trained_seed_cpu
bench-long: install
	$(BIN)/eugen-bench $(BENCH_LONG:%=configs/%.yml)

# what a machine with a GPU and no network is given (docs/guides/gpu.md), from data and weights beside the checkout
gpu-pack: install
	$(BIN)/python scripts/gpu_pack.py --data ../shared/data --weights ../shared/torch

clean:
	rm -rf $(VENV) outputs/demo

# Needs only Python 3.10 to 3.13: every target makes .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := .venv-torch
SEEDS ?= 1
PRECISION ?= auto
KILLS ?= 200
STEPS ?= 20000
SECONDS ?= 60
DATA ?=
WORKERS ?= $(shell $(BIN)/python -c 'import os; print(min(8, os.cpu_count() + 1))')
CHECK_GPU := import sys; from ptb.runtime import devices; sys.exit(None if devices.visible_gpus() else 'TensorFlow sees no GPU: docs/gpu.md')

.PHONY: demo test test-slow lint pages tour soak fuzz gpu test-gpu bench bench-gpu clean

demo: $(VENV)/installed
	$(BIN)/python train.py --model=demo --data_path=demo --save_path=runs/demo

# Tests of one file share trained runs, so each worker gets whole files (loadfile). Files come in the order of their names:
# pytest-xdist would put files with few but long tests last, when the other workers have nothing left to do.
# One worker more than there are cores, up to eight: tests wait for files, processes and clocks.
test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist=loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

# Writes the tables and pictures of README.md and docs/ again, from results/, configurations and flags.
pages: $(VENV)/installed-dev
	$(BIN)/python -m pages

# Runs docs/tour.ipynb and writes it with its outputs.
tour: $(VENV)/installed-dev
	PYTHONPATH=.:tests $(BIN)/python -m helpers.notebook docs/tour.ipynb

# Kills training processes KILLS times and holds their ends against an unbroken run; then trains for STEPS without growing.
soak: $(VENV)/installed-dev
	PYTHONPATH=.:tests $(BIN)/python -m helpers.soak $(KILLS)
	PYTHONPATH=.:tests $(BIN)/python -m helpers.long_run $(STEPS)

# Fuzzes each reader of files for SECONDS. atheris is not in requirements-dev.txt: it has wheels for Linux and Python 3.11 to 3.13
# only.
fuzz: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check atheris==3.0.0
	for target in text characters symbols utf16 multibyte vocabulary archive zip gz bz2 xz config former_config checkpoint; do \
		PYTHONPATH=.:tests $(BIN)/python -m fuzz.run $$target -max_total_time=$(SECONDS) -rss_limit_mb=4096 || exit 1; \
	done

# Everything to run on a machine with a GPU, one after the other, with -j too. A stopped `make gpu` can resume the last part.
gpu:
	$(MAKE) test-gpu
	$(MAKE) bench-gpu
	$(MAKE) reproduce-large

# Fails if TensorFlow sees no GPU. (`make test` skips the tests of cuDNN in that case.)
test-gpu: $(VENV)/installed-dev
	$(BIN)/python -c "$(CHECK_GPU)"
	$(BIN)/python -m pytest tests/model tests/training tests/evaluation tests/commands/test_evaluate.py

# All contestants stay in memory: `large` with all of them would need more than 24 GiB.
bench: $(VENV)/installed $(TORCH)/installed
	$(BIN)/python -m benchmarks.train_step --torch_python=$(TORCH)/bin/python --json=train_step.json
	$(BIN)/python -m benchmarks.train_step --torch_python=$(TORCH)/bin/python --json=train_step_large.json \
		--models=large --peers=pytorch,keras,tutorial

bench-gpu: $(VENV)/installed $(TORCH)/installed
	$(BIN)/python -c "$(CHECK_GPU)"
	$(BIN)/python -m benchmarks.train_step --torch_python=$(TORCH)/bin/python --json=train_step_gpu.json \
		--models=small,medium,large
	for model in small medium large; do \
		$(BIN)/python -m benchmarks.phases --model=$$model --json=phases_$$model.json || exit 1; \
	done

# make reproduce-small SEEDS=10 PRECISION=bfloat16 DATA=simple-examples/data
reproduce-%: $(VENV)/installed
	$(BIN)/python reproduce.py --model=$* --seeds=$(SEEDS) --precision=$(PRECISION) $(if $(DATA),'--data_path=$(DATA)')

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# A separate environment: PyTorch's CUDA libraries would replace those of TensorFlow.
$(TORCH)/installed: requirements-bench.txt
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

clean:
	rm -rf $(VENV) $(TORCH) .pytest_cache .ruff_cache .import_linter_cache

# Needs Python 3.10 to 3.13 and nothing else: every target makes .venv first.
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
CHECK_GPU := import sys; from ptb import devices; sys.exit(None if devices.visible_gpus() else 'TensorFlow sees no GPU: docs/gpu.md')

.PHONY: demo test test-slow lint soak fuzz gpu test-gpu bench bench-gpu clean

demo: $(VENV)/installed
	$(BIN)/python train.py --model=demo --data_path=demo --save_path=runs/demo

# Tests of a file share what they have trained, so a worker gets whole files. They come in the order of their names:
# pytest-xdist would put files of few but long tests last, where other workers have nothing left to do beside them.
test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Kills training processes KILLS times and holds their ends against an unbroken run; then trains for STEPS without growing.
soak: $(VENV)/installed-dev
	PYTHONPATH=. $(BIN)/python tests/soak.py $(KILLS)
	PYTHONPATH=. $(BIN)/python tests/long_run.py $(STEPS)

# Fuzzes what reads files, each reader for SECONDS; atheris is no requirement: it has wheels for Linux and Python 3.11 to 3.13 only.
fuzz: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check atheris==3.0.0
	for target in text characters vocabulary archive config checkpoint; do \
		$(BIN)/python -m fuzz.run $$target -max_total_time=$(SECONDS) -rss_limit_mb=4096 || exit 1; \
	done

# All that there is to do on a machine with a GPU, one thing after the other also with -j; the last goes on where it was stopped.
gpu:
	$(MAKE) test-gpu
	$(MAKE) bench-gpu
	$(MAKE) reproduce-large

# Fails where TensorFlow sees no GPU: elsewhere the tests of cuDNN are skipped.
test-gpu: $(VENV)/installed-dev
	$(BIN)/python -c "$(CHECK_GPU)"
	$(BIN)/python -m pytest tests/test_kernels.py tests/test_cells.py tests/test_exchange.py tests/test_softmax.py \
		tests/test_model.py tests/test_training.py tests/test_evaluate.py

# All contestants stay in memory: large with all of them would take more than 24 GiB.
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

# In an environment of its own: PyTorch's CUDA libraries would take the place of TensorFlow's.
$(TORCH)/installed: requirements-bench.txt
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

clean:
	rm -rf $(VENV) $(TORCH) .pytest_cache .ruff_cache

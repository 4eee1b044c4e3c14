# Affectory. `make help` lists what there is. Everything runs in .venv, which is made once and again when pyproject.toml changes.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# Further arguments for pip, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" for a laptop without a GPU.
PIP_ARGS ?=

DATASET ?= emoji
DATA    ?=
STORE   ?= features/$(DATASET)
PROFILE ?=
DEVICE  ?=
TASK    ?= polarity
HEAD    ?= auto

DEMO_TASKS := polarity evokes valence
DEMO_HEADS := mlp moe svm gbm auto

.DEFAULT_GOAL := help
.PHONY: help install extract classify report demo test test-fast test-all coverage check format bench bench-gpu fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo
	@echo '  variables: DATASET=emoji DATA= STORE=features/$$DATASET PROFILE= DEVICE= TASK=polarity HEAD=auto PIP_ARGS='

install: $(STAMP) ## make the environment .venv and install everything into it

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV) (torch is large: minutes, once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable '.[dev]'
	@touch $@

extract: $(STAMP) ## stage 1: images -> vectors       (DATASET=b-t4sa DATA=/data/b-t4sa PROFILE=fusion)
	$(BIN)/extract run $(DATASET) --store $(STORE) $(if $(DATA),--data $(DATA)) $(if $(PROFILE),--profile $(PROFILE)) $(if $(DEVICE),--device $(DEVICE))

classify: $(STAMP) ## stage 2: vectors -> one head      (DATASET=emoji TASK=polarity HEAD=auto)
	$(BIN)/classify run $(STORE) --task $(TASK) --head $(HEAD)

report: $(STAMP) ## one page over all runs of DATASET
	$(BIN)/classify report runs/$(DATASET) -o report.html --force

demo: $(STAMP) ## emoji pictures -> vectors -> 15 heads -> explanations -> report.html, with real weights and no model hub
	$(MAKE) --no-print-directory extract DATASET=emoji PROFILE=offline
	@set -e; for task in $(DEMO_TASKS); do for head in $(DEMO_HEADS); do \
	    test -f runs/emoji/$$task/$$head/report.json \
	    || $(BIN)/classify run features/emoji --task $$task --head $$head; \
	done; test -f runs/emoji/$$task/audit.json || $(BIN)/classify audit features/emoji --task $$task; done
	@test -d runs/emoji/polarity/mlp/explanations \
	|| $(BIN)/classify explain runs/emoji/polarity/mlp --check --limit 40
	$(MAKE) --no-print-directory report DATASET=emoji
	$(BIN)/classify compare runs/emoji

# One process a core, and one thread a process.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile
FAST := $(addprefix tests/features_store/test_,schema reader writer merge subset diff splits meaning atomic import verify) \
	$(addprefix tests/classify/test_,metrics bootstrap comparison postprocessing label_errors kinds tasks matrix config) \
	$(addprefix tests/extract/,test_images.py test_pixels.py test_transforms.py corpora)

test: $(STAMP) ## the tests (minutes)
	$(PARALLEL)

test-fast: $(STAMP) ## store, metrics, images and corpora (under a minute)
	$(PARALLEL) $(foreach name,$(FAST),$(wildcard $(name) $(name).py))

coverage: $(STAMP) ## the tests, and the lines that none of them runs
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --show-missing

test-all: $(STAMP) ## the tests and the long proofs
	$(BIN)/python -m pytest -q -m ''

check: $(STAMP) ## style, types, import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(STAMP) ## put the code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## speed against competitors, as ratios measured in one run
	$(BIN)/python -m tests.bench

bench-gpu: $(STAMP) ## what only a GPU can tell, in ten minutes (DEVICE=cpu: a dry run)
	DEVICE=$(or $(DEVICE),cuda) $(BIN)/python -m tests.bench gpu

fuzz: $(STAMP) ## damaged and hostile dumps, runs and bundles, a minute each
	$(BIN)/python tests/features_store/fuzz.py --seconds 60
	PYTHONPATH=. $(BIN)/python tests/classify/fuzz_runs.py --seconds 60

clean: ## remove caches; .venv, features, runs and data stay
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

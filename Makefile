# Two commands from a bare machine with Python 3.11: `make figures` and `make test`. `make help` lists the rest.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help environment figures benchmark test numerical deployment lint docs browser clean

# What is run; e.g. make figures PROFILE=standard METHOD=fed-lora SEED=1
PROFILE ?= smoke
DATA ?= phantom
DATA_ROOT ?=
# How that folder is read, as JSON, e.g. '{"threshold": 127}'
OPTIONS ?= {}
PARTITION ?= site
# How many; 0: as many as the partition makes
CLIENTS ?= 0
# Sites held out, joined by commas or as a list, '["A/B", "C, D"]'; empty: those of the data set
UNSEEN ?=
METHOD ?= fedmrg
SEED ?= 0
# Of pip, e.g. --extra-index-url URL for the smaller CPU build of torch
PIP_OPTIONS ?=
# Names in experiments.yaml, joined by commas; RERUN=True makes reference runs again
EXPERIMENT ?= main
# CPU threads of each hospital; 0: one, and in a single run as many hospitals at a time as there are cores
THREADS ?= 0
RERUN ?= False
# stored: the base models in profiles/base_models/, where the profile has some; fresh: built here
BASE_MODELS ?= stored
# exact: one thread and instruction sets that x86 processors since 2013 have, so that numbers are equal to the digit
REPRODUCIBLE ?= chance
CORES ?= $(shell getconf _NPROCESSORS_ONLN)

# Names are data: a dollar in them is no variable, and $(call quote,...) makes one word of them for the shell.
override DATA_ROOT := $(value DATA_ROOT)
override OPTIONS := $(value OPTIONS)
override UNSEEN := $(value UNSEEN)
quote = '$(subst ','\'',$(1))'

ifeq ($(REPRODUCIBLE),exact)
include profiles/exact.env
export $(shell sed -n 's/^\([A-Z_]*\)=.*/\1/p' profiles/exact.env)
ifeq ($(THREADS),0)
THREADS := 1
endif
else ifneq ($(REPRODUCIBLE),chance)
$(error REPRODUCIBLE is '$(REPRODUCIBLE)'; expected exact or chance)
endif

export HF_HUB_OFFLINE ?= 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export MPLBACKEND := Agg

ENVIRONMENT := .venv
BIN := $(CURDIR)/$(ENVIRONMENT)/bin
STAMP := $(ENVIRONMENT)/installed

PROFILES = $(basename $(notdir $(wildcard profiles/*.yaml)))
DATASETS = phantom iu_xray folder

help:  ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22
	@printf '%s\n' 'Variables, with their defaults:'
	@printf '  %-18s  %s\n' \
		PROFILE=$(call quote,$(PROFILE)) 'sizes and steps: $(PROFILES), or the path of a .yaml file' \
		DATA=$(call quote,$(DATA)) 'of make figures: $(DATASETS)' \
		DATA_ROOT=$(call quote,$(DATA_ROOT)) 'the folder of a real data set' \
		OPTIONS=$(call quote,$(OPTIONS)) 'how that folder is read, as JSON' \
		PARTITION=$(call quote,$(PARTITION)) 'of make figures: how studies are dealt to clients' \
		CLIENTS=$(call quote,$(CLIENTS)) 'of make figures; 0: as many as the partition makes' \
		UNSEEN=$(call quote,$(UNSEEN)) 'of make figures: sites held out, joined by commas or as a JSON list' \
		METHOD=$(call quote,$(METHOD)) 'of make figures: a row of methods.yaml' \
		SEED=$(call quote,$(SEED)) 'of make figures' \
		EXPERIMENT=$(call quote,$(EXPERIMENT)) 'of make benchmark: names in experiments.yaml, joined by commas' \
		BASE_MODELS=$(call quote,$(BASE_MODELS)) 'stored: those of the repository, where the profile has some; fresh: built here' \
		REPRODUCIBLE=$(call quote,$(REPRODUCIBLE)) 'exact: equal numbers on x86 processors since 2013, slower; chance: equal within chance' \
		RERUN=$(call quote,$(RERUN)) 'of make benchmark; True: also the runs that figures/reference/ holds' \
		PIP_OPTIONS=$(call quote,$(PIP_OPTIONS)) 'of make environment, e.g. --extra-index-url URL for the smaller CPU build of torch' \
		THREADS=$(call quote,$(THREADS)) 'CPU threads of each hospital; 0: one, and in make figures as many hospitals at a time as cores' \
		CORES=$(call quote,$(CORES)) 'CPU cores of everything together'

environment: $(STAMP)  ## Create .venv from requirements.lock, every file held against its digest

# torch alone has none: which build fits depends on the machine. It brings the libraries of that build.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet

$(STAMP): requirements.lock requirements.hashes pyproject.toml
	@python=$$(for candidate in python3.11 python3 python; do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
			&& echo "$$candidate" && break; done); \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 was not found: install it (or use conda with environment.yml) and run make again." >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv $(ENVIRONMENT)
	@sed -n '/^pip==/,/[^\\]$$/p' requirements.hashes > $(ENVIRONMENT)/pip.hashes
	$(PIP) $(PIP_OPTIONS) --require-hashes --no-deps -r $(ENVIRONMENT)/pip.hashes
	$(PIP) $(PIP_OPTIONS) --require-hashes --no-deps -r requirements.hashes
	$(PIP) $(PIP_OPTIONS) $$(grep '^torch==' requirements.lock)
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

hashes: environment  ## Write requirements.hashes anew after a change of requirements.lock
	@{ echo "# SHA-256 of every file of the versions in requirements.lock: \`make hashes\` writes it."; \
		grep -v '^torch==' requirements.lock | $(BIN)/uv pip compile - --no-deps --no-annotate --no-header \
			--generate-hashes --prerelease allow --python-version 3.11 --quiet; } > requirements.hashes.partial
	@mv requirements.hashes.partial requirements.hashes

SNAKEMAKE := snakemake --cores $(CORES) --rerun-triggers mtime params input --rerun-incomplete --nolock

# The console has the notebooks' own steps and bars; their commands stand in their logs and in .snakemake/log.
STEPS_ALONE := --quiet rules progress host reason

figures: environment  ## From nothing to figures and report/index.html
	@PATH="$(BIN):$$PATH" $(SNAKEMAKE) $(STEPS_ALONE) --config profile=$(call quote,$(PROFILE)) data=$(call quote,$(DATA)) \
		data_root=$(call quote,$(DATA_ROOT)) options=$(call quote,$(OPTIONS)) partition=$(call quote,$(PARTITION)) clients=$(CLIENTS) \
		unseen=$(call quote,$(UNSEEN)) method=$(call quote,$(METHOD)) seed=$(SEED) threads=$(THREADS) \
		base_models=$(BASE_MODELS)
	@cat report/result.txt

# Tables and figures are made of the runs there are, also when one has failed.
benchmark: environment  ## Every missing run of EXPERIMENT, then tables and figures of all experiments
	@export PATH="$(BIN):$$PATH"; \
	runs() { $(SNAKEMAKE) runs --printshellcmds "$$@" --config profile=$(call quote,$(PROFILE)) \
		data_root=$(call quote,$(DATA_ROOT)) options=$(call quote,$(OPTIONS)) experiment=$(call quote,$(EXPERIMENT)) rerun=$(RERUN) threads=$(THREADS) \
		base_models=$(BASE_MODELS); }; \
	runs --dry-run --quiet all || exit; \
	set -x; runs --keep-going; status=$$?; \
	fedmrg run notebooks/10_benchmark.py -p profile=$(call quote,$(PROFILE)) --output report/benchmark-$(call quote,$(PROFILE)).ipynb && exit $$status
	@echo "Tables and figures: report/benchmark-$(PROFILE)/"

test: environment  ## Run the tests, but for those of a real federation
	PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 python -m pytest -n 2 --dist worksteal -m "not deployment" tests

deployment: environment  ## Run the tests of a real federation on loopback
	PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 python -m pytest -n 2 --dist worksteal -q -m deployment tests

# Instruction sets of older processors; each library reads its own variable when Python starts.
older := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 NPY_DISABLE_CPU_FEATURES=X86_V4 OPENBLAS_CORETYPE=Haswell
oldest := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE \
	NPY_DISABLE_CPU_FEATURES='X86_V3 X86_V4' OPENBLAS_CORETYPE=Sandybridge
PROCESSORS ?= older oldest
ifneq ($(filter-out older oldest,$(PROCESSORS)),)
$(error PROCESSORS is '$(PROCESSORS)'; expected older, oldest or both)
endif

numerical: $(addprefix numerical-,$(PROCESSORS))  ## Run the tests that compute with floats as on two older processors

numerical-%: environment
	PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 $($*) python -m pytest -n 2 --dist worksteal -q -m numerical tests

lint: environment  ## Check style and the notebooks' .ipynb copies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/fedmrg notebook check

# From nothing each time: a second build would not warn again of pages that have not changed.
docs: environment  ## From pages and executed notebooks to site/index.html
	@rm -rf site
	@$(BIN)/python -m sphinx -W --keep-going -q -c docs/site . site
	@echo "The site: site/index.html"

browser: environment  ## Add a browser to .venv (700 MB), with which make test opens the site
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet $(PIP_OPTIONS) -r tests/browser.lock

clean:  ## Delete what `make figures` and `make docs` made; the environment stays
	rm -rf results prepared clients base_models report site .snakemake

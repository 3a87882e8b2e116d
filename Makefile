# The two commands: `make demo` shows the node at work, `make test` proves it. Everything else serves them.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help setup setup-totalsegmentator trained-engines system-tools demo quick test matrix real coverage cohort phantoms chaos fuzz sbom lint defaults lock clean

help:
	@echo "make demo    set up, start a node and a stand-in PACS, send a study, show what comes back"
	@echo "make test    set up, install or name the system tools, lint, run all tests"
	@echo "make quick   lint, types and the tests that need nothing else (a minute): the loop while you write"
	@echo "make setup   prepare .venv"
	@echo "make setup-totalsegmentator   add TotalSegmentator and nnU-Net to .venv; TORCH=cuda for a GPU"
	@echo "make matrix  the model-free engine on 360 digital reference studies, each printed (half an hour)"
	@echo "make real    the model-free engine on 208 variants of real CTs in OSTEONODE_TEST_DATA, each judged (twenty minutes)"
	@echo "make coverage   how often stated 95 % intervals hold the truth, on 1,200 regions (five minutes)"
	@echo "make phantoms   density of 300 studies by phantom, technique and noise, against the truth (seven minutes)"
	@echo "make cohort  120 invented patients, from DICOM to a model card that scores new ones (ten minutes)"
	@echo "make chaos   a node killed, starved and cut off at random, and every report counted (ten minutes)"
	@echo "make fuzz    damaged PDUs and data sets sent to a listener, each outcome counted (ten minutes)"
	@echo "make sbom    the bill of materials of what the node runs on (CycloneDX), out of the hashed lock"
	@echo "make lint    ruff, codespell, mypy, import-linter"
	@echo "make defaults   write config/default.toml, and the defaults in docs/configuration.md, from the settings"
	@echo "make lock    compile the hashed requirements again"

setup: .venv/.ready

.venv/.ready: pyproject.toml requirements/uv.txt requirements/dev.txt tools/setup-venv.sh
	@tools/setup-venv.sh $(PYTHON)
	@touch $@

# `make setup` leaves .venv with what is locked for the node alone, so this depends on it.
setup-totalsegmentator: .venv/.totalsegmentator

.venv/.totalsegmentator: .venv/.ready requirements/totalsegmentator.txt tools/setup-totalsegmentator.sh
	@tools/setup-totalsegmentator.sh
	@touch $@

# Their tests skip, and say so, where no CPU build of torch is at hand; never in CI.
trained-engines: setup
	@$(MAKE) --no-print-directory setup-totalsegmentator || { [ "$$CI" != true ] && \
	  echo "tests of the trained engines will be skipped, and say so" >&2; }

system-tools:
	@tools/system-tools.sh

demo: setup
	@$(BIN)/osteonode demo --out var/demo

defaults: setup
	@$(BIN)/python tools/write_default_toml.py

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/mypy && $(BIN)/lint-imports

# Two workers: threads of theirs would only wait for each other. Compiled code is kept, whatever the environment says:
# test files alone take ten seconds to compile, and every process that a test starts would compile the node anew.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist loadscope

quick: lint
	@$(PYTEST) -q -m quick tests/unit tests/dicom tests/worker

test: quick system-tools trained-engines
	@$(PYTEST) -m "not quick" --durations=25

matrix: setup
	@$(BIN)/python tools/run_matrix.py
	@$(BIN)/python tools/run_matrix.py --mixed-otherwise
	@$(BIN)/python tools/run_matrix.py --mixed-anew
	@$(BIN)/python tools/run_matrix.py --at-other-voltages
	@$(BIN)/python tools/run_matrix.py --worn
	@$(BIN)/python tools/run_matrix.py --crisp

real: setup
	@$(BIN)/python tools/run_real.py "$${OSTEONODE_TEST_DATA:?must name the folder of real CTs}"

coverage: setup
	@$(BIN)/python tools/run_coverage.py

phantoms: setup
	@$(BIN)/python tools/run_phantoms.py

cohort: setup
	@$(BIN)/python tools/run_cohort.py

chaos: setup system-tools
	@$(BIN)/python tools/run_chaos.py

fuzz: setup
	@$(BIN)/python tools/run_fuzz.py

sbom: setup
	@$(BIN)/python tools/write_sbom.py

lock:
	@tools/lock.sh

clean:
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

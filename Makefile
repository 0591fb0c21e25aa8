# Thin on purpose: every line is a command that you could type.
#   make book    the HTML book             make demo   train for a minute, then draw what was learnt
#   make test    everything CI checks      make bench  time a training step on this machine
#   make reproduce-cheap   measure again what took a minute or less, and print differences
#   make faults  200 kills, 50 full disks and 20,000 damaged files
#   make clean   remove whatever make made (image sets and runs stay)
# Settings, each given as NAME=value: PYTHON (3.11 to 3.13), VENV (where packages go), JOBS (test processes),
# TORCH_INDEX (where torch comes from), CONSTRAINTS (empty: the newest versions that pyproject.toml allows).

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
TORCH_INDEX ?=
CONSTRAINTS ?= -c constraints.txt

BIN := $(VENV)/bin
READY := $(VENV)/.ready
SCRIPTS := $(VENV)/node_modules/.package-lock.json

.PHONY: book test demo bench reproduce-cheap faults clean venv
.DELETE_ON_ERROR:

book: $(READY) $(SCRIPTS)
	$(BIN)/jupyter-book build book --config _config.yml --path-output . --all -W -n --keep-going

test: book
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n $(JOBS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval book/ -n $(JOBS) --dist loadfile

demo: $(READY)
	$(BIN)/dcgan train --recipe rooms --minutes 1 --run-dir _build/demo
	$(BIN)/dcgan sample _build/demo --num-images 64 --out _build/demo.png

bench: $(READY)
	$(BIN)/dcgan bench

reproduce-cheap: $(READY)
	$(BIN)/dcgan reproduce --within 60

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_fuzz.py --hypothesis-profile faults -n $(JOBS)

clean:
	rm -rf $(VENV) _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find book dcgan_lib tests -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(READY) $(SCRIPTS)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install torch torchvision --index-url $(TORCH_INDEX) $(CONSTRAINTS)
endif
	$(BIN)/python -m pip install -e ".[book,test]" $(CONSTRAINTS)
	touch $(READY)

# Scripts and fonts that the book serves itself. Without npm, or without a connection, the book is built all the same.
$(SCRIPTS): book/assets/package.json book/assets/package-lock.json | $(READY)
	cp $^ $(VENV)
	command -v npm && npm ci --ignore-scripts --no-audit --no-fund --prefix $(VENV) && touch $@ || rm -rf $(VENV)/node_modules

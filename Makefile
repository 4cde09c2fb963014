# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
DEVICE ?= auto
SCALE ?= quick
NB ?=
BENCH ?=
PAGE ?=
export PYTHONHASHSEED = 0

.PHONY: help book test notebooks run mutants bench look repo lint clean

help:           ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.venv/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	touch $@

book: .venv/.ready      ## build the book: _build/html/index.html
	$(BIN)/jupyter-book build . -W -n --keep-going

test: .venv/.ready      ## all tests: the library, the files, their style, every notebook against its outputs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope

notebooks: .venv/.ready ## execute notebooks in place, in canonical form (all, or NB=gates/the_cell)
	$(BIN)/python tools/notebooks.py $(NB)

run: .venv/.ready       ## run chapters with papermill and record results (DEVICE=cuda SCALE=full NB=…)
	$(BIN)/python tools/run.py --device $(DEVICE) --scale $(SCALE) $(NB)

mutants: .venv/.ready   ## break the subject of each claim on purpose, record which bounds notice (NB=…)
	$(BIN)/python tools/mutants.py $(NB)

bench: .venv/.ready     ## how fast every LSTM is, against PyTorch's kernel (BENCH="--threads 1 --seconds 60")
	$(BIN)/python tools/bench.py $(BENCH)

look: .venv/.ready      ## look at every built page in a browser: errors, accessibility (or PAGE=book/intro)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-look.txt
	$(BIN)/python tools/look.py $(PAGE)

repo: .venv/.ready      ## publish or move the book: make repo URL=https://github.com/you/lstm-book
	$(BIN)/python tools/repo.py $(URL)

lint: .venv/.ready      ## the style of code and notebooks alone; the tests check it too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:                  ## remove what was built (not .venv)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
DEVICE ?= auto
SCALE ?= quick
NB ?=
SEED ?=
FILES = $(patsubst %,notebooks/%.ipynb,$(patsubst notebooks/%,%,$(patsubst %.ipynb,%,$(NB))))
BENCH ?=
PAGE ?=
PAPER ?= a4
export PYTHONHASHSEED = 0

.PHONY: help book test test-browser doctor chapter notebooks run mutants lab lock bench look pdf epub repo lint clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# PyPI's torch for Linux brings gigabytes of CUDA libraries. Without an NVIDIA driver the same version comes from
# PyTorch's own index, as 2.13.0+cpu, which pip prefers. Whoever has told pip where to look is left alone.
CPU_ONLY = $(shell [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null \
	&& ! $(PYTHON) -m pip config list 2>/dev/null | grep -qE 'index-url|find-links|no-index' \
	&& echo --extra-index-url https://download.pytorch.org/whl/cpu)

.venv/.ready: requirements.txt constraints.txt pyproject.toml
	@echo "Setting up .venv, once: some minutes, and 2 GB of disk (6 GB with CUDA)."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(CPU_ONLY) -r requirements.txt -c constraints.txt -e .
	touch $@

book: .venv/.ready      ## build the book: _build/html/index.html
	$(BIN)/jupyter-book build . -W -n --keep-going
	@touch _build/.made      # the tests look at this book as long as no source is newer

# A training asks at each step for the memory that it gave back at the step before. With these two settings the C
# library of Linux keeps it meanwhile, which saves a twentieth of the time; and in the bench no time depends on what
# ran before.
test bench: export MALLOC_MMAP_THRESHOLD_ = 1000000000
test bench: export MALLOC_TRIM_THRESHOLD_ = 1000000000
test: .venv/.ready      ## all tests: library, files, style, every notebook against its outputs (or one, NB=…)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(or $(FILES),-n 2 --dist loadscope)

test-browser: .venv/.ready      ## what `make look` does, a test for each page of the built book, and for each check
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-look.txt
	LOOK=all $(BIN)/python -m pytest -n 2 tests/browser

doctor: .venv/.ready    ## does the book run here? packages, device, data, and which chapters stop at what
	$(BIN)/python tools/doctor.py

chapter: .venv/.ready   ## begin a chapter: write its text from the template (NB=gates/a_new_one)
	$(BIN)/python tools/template.py $(NB)

notebooks: .venv/.ready ## execute notebooks in place, in canonical form (all, or NB=gates/the_cell)
	$(BIN)/python tools/notebooks.py $(NB)

run: .venv/.ready       ## run chapters with papermill and record results (DEVICE=cuda SCALE=full SEED=3 NB=…)
	$(BIN)/python tools/run.py --device $(DEVICE) --scale $(SCALE) $(SEED:%=-p seed %) $(NB)

mutants: .venv/.ready   ## break the subject of each claim on purpose, record which bounds notice (NB=…)
	$(BIN)/python tools/mutants.py $(NB)

lab: .venv/.ready       ## open JupyterLab on the chapters, with what shows their equations and references
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-lab.txt
	$(BIN)/jupyter-trust notebooks/*/*.ipynb       # or else JupyterLab hides figures until they are drawn again
	$(BIN)/jupyter-lab notebooks

lock:                   ## after a change of requirements.txt: pin what they bring along (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock" \
		requirements.txt --output-file constraints.txt --upgrade

bench: .venv/.ready     ## how fast every LSTM is, against PyTorch's kernel (BENCH="--threads 1 --seconds 60")
	$(BIN)/python tools/bench.py $(BENCH)

look: .venv/.ready      ## look at every built page in a browser: errors, accessibility (or PAGE=book/intro)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-look.txt
	$(BIN)/python tools/look.py $(PAGE)

pdf: .venv/.ready       ## the built book on paper: _build/book-a4.pdf (or PAPER=letter)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-print.txt
	$(BIN)/python tools/pdf.py --paper $(PAPER)

epub: .venv/.ready      ## the built book for e-readers: _build/book.epub
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-print.txt
	$(BIN)/python tools/epub.py

repo: .venv/.ready      ## publish or move the book: make repo URL=https://github.com/you/lstm-book
	$(BIN)/python tools/repo.py $(URL)

lint: .venv/.ready      ## the style of code and notebooks alone; the tests check it too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:                  ## remove what was built (not .venv)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

# Needs Python 3.11 or newer, and make. Everything is installed into .venv; nothing else on the machine is touched.

PROMPT :=
MODEL :=
SEED := 0
REPO :=
RUN :=
KAGGLE_PYTHON := 3.12
VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python3.14 python,\
	$(shell $(name) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $(name))) python3)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint $(CONSTRAINTS)

# What users write reaches a program as it is: make doesn't expand it, and the shell sees only a quoted variable.
override PROMPT := $(value PROMPT)
override MODEL := $(value MODEL)
override SEED := $(value SEED)
override REPO := $(value REPO)
override RUN := $(value RUN)
override KAGGLE_PYTHON := $(value KAGGLE_PYTHON)
export PROMPT MODEL SEED REPO RUN KAGGLE_PYTHON
RECORDED := $(filter-out __init__,$(notdir $(basename $(wildcard sdlearn/lessons/recorded/*.py))))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test quick lessons test-full test-processors test-versions parity bench defaults real lint lab notebooks \
	solved host wheels browser recorded evaluate tiny clean

help:  ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/runtime  ## draw pictures into out/demo.png; PROMPT="a small owl on a pink background" SEED=3 draws yours
	@$(BIN)/sdlearn demo --seed="$$SEED" -- $${PROMPT:+"$$PROMPT"}

test: lint quick lessons solved  ## ruff, all tests, all notebooks: as they are, and with the exercises solved

quick: $(VENV)/dev  ## all tests except those that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not browser" $(TESTS)

lessons: $(VENV)/dev  ## all notebooks, their outputs compared with the stored ones
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env \
		--nbval-sanitize-with notebooks/sanitize.cfg notebooks

test-full: test  ## the same, and the tests that take minutes or much memory
	$(BIN)/python -m pytest -m slow

# PyTorch and its libraries choose their kernels by the processor. The settings disable AVX-512, then AVX, too.
test-processors: TESTS := --ignore tests/test_hosting.py --ignore tests/test_packaging.py  # they compute nothing
test-processors:  ## quick and lessons, with the arithmetic of two older kinds of processor
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(MAKE) quick lessons TESTS="$(TESTS)"
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE $(MAKE) quick lessons TESTS="$(TESTS)"

# Each in an environment of its own below build. Torch comes with CUDA, 4 GB on Linux, unless
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu is set.
test-versions: build/lowest.txt  ## quick with the lowest versions that pyproject.toml allows, then with the newest
	$(MAKE) quick VENV=build/lowest CONSTRAINTS=build/lowest.txt PYTHON=python3.11
	rm -rf build/newest
	$(MAKE) quick VENV=build/newest CONSTRAINTS=/dev/null

build/lowest.txt: pyproject.toml
	mkdir -p build
	grep -o '"[a-z][a-z-]*>=[0-9.]*"' pyproject.toml | tr -d '"' | sed 's/>=/==/' | sort -u >$@

lint: $(VENV)/dev  ## ruff alone
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

notebooks: $(VENV)/dev  ## run the lessons and store their outputs, after a change to them or to the model
	HF_HUB_OFFLINE=1 $(BIN)/python notebooks/execute.py
	$(BIN)/python notebooks/contents.py

lab: $(VENV)/lab  ## open the lessons in JupyterLab
	$(BIN)/python -m jupyterlab notebooks

solved: $(VENV)/dev  ## the lessons with all exercises filled in, run, into out/solved: for teachers
	printf '%s\n' notebooks/[0-9][0-9]_*.ipynb | OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 \
		xargs -n 1 -P 2 $(BIN)/python notebooks/execute.py --solved out/solved

host: $(VENV)/dev  ## set where the course is hosted, in setup cells and badges: REPO=owner/name
	@$(BIN)/python notebooks/host.py -- "$$REPO"
	@$(BIN)/python notebooks/contents.py

wheels: $(VENV)/runtime  ## what Kaggle needs without a network, into out/wheels; KAGGLE_PYTHON=3.11 for an older Python
	$(BIN)/python -m pip wheel --no-deps --wheel-dir out/wheels .
	sed '/JupyterLab and playwright/,$$d; /^torch==/d; /^numpy==/d' constraints.txt >out/wheels/requirements.txt
	$(BIN)/python -m pip download --no-deps --only-binary :all: --python-version "$$KAGGLE_PYTHON" \
		$(foreach name,2_28 2_27 2_17 2014 2_5 1,--platform manylinux$(if $(findstring _,$(name)),_)$(name)_x86_64) \
		--requirement out/wheels/requirements.txt --dest out/wheels

browser: $(VENV)/browser  ## run the lessons in JupyterLab in a real browser, Debian's chromium, and move their sliders
	$(BIN)/python -m pytest -m browser tests/browser

parity: $(VENV)/dev  ## how far every part is from the reference, from the tests into docs/parity.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not browser" --parity=docs/parity.md tests

bench: $(VENV)/dev  ## compare time and memory with Diffusers, into docs/performance.md; a quiet machine, 20 minutes
	$(BIN)/python benchmarks/speed.py

defaults: $(VENV)/dev  ## compare samplers, steps and guidance of the bundled model, into docs/defaults.md; 10 minutes
	$(BIN)/python benchmarks/defaults.py

real: $(VENV)/dev  ## the same for a real checkpoint, with pictures: MODEL=a folder or a name on the hub, into out/real
	$(BIN)/python benchmarks/real.py "$$MODEL"

recorded: $(VENV)/dev  ## repeat a lesson's recorded run (half an hour): RUN=epsilon_or_v
	@case "$$RUN" in "" | _* | *[!a-z0-9_]*) false ;; *) test -f "sdlearn/lessons/recorded/$$RUN.py" ;; esac || { \
		echo RUN must be one of: $(RECORDED) >&2; exit 2; }
	$(BIN)/python -m "sdlearn.lessons.recorded.$$RUN"

evaluate: $(VENV)/dev  ## the bundled model's scores
	$(BIN)/sdlearn evaluate

tiny: $(VENV)/dev  ## train a model like the bundled one from scratch into runs/tiny/model (hours; resumes where it was stopped)
	$(BIN)/sdlearn train clip --recipe sdlearn/training/recipes/clip.toml --output runs/tiny/clip
	$(BIN)/sdlearn train autoencoder --recipe sdlearn/training/recipes/autoencoder.toml --output runs/tiny/autoencoder
	$(BIN)/sdlearn train diffusion --recipe sdlearn/training/recipes/diffusion.toml --output runs/tiny/diffusion
	$(BIN)/sdlearn assemble runs/tiny --output runs/tiny/model

clean:  ## remove what was installed and drawn, but not runs/, which holds hours of training
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two stamps: what drawing needs, and what training and the tests need as well. They are rebuilt when a pin changes.
$(VENV)/runtime: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { \
		echo "$(PYTHON) is not Python 3.11 or newer with venv; choose one: make $(MAKECMDGOALS) PYTHON=python3.12" \
			"(Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/lab $(VENV)/browser: $(VENV)/dev
	$(PIP) --editable '.[dev,$(@F)]'
	@touch $@

$(VENV)/dev: $(VENV)/runtime
	$(PIP) --editable '.[dev]'
	@touch $@

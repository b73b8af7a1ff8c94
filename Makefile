# kilograd: see README.md. Every target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-slow test-packages check bench format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("kilograd needs Python 3.11 or later") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.demo  ## train a network on the emulated microcontroller, on real data
	$(BIN)/kilograd demo

test: $(VENV)/.dev  ## run the tests
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.dev  ## run the tests that are left out of `test`: networks at full resolution
	$(BIN)/python -m pytest -n auto -m slow

# Validators of the package formats; their requirements do not go with those of the compiler.
.venv-packages/bin/pio:
	$(PYTHON) -m venv .venv-packages
	.venv-packages/bin/pip install --quiet --disable-pip-version-check \
	  'platformio>=6.1' 'idf-component-manager>=2' 'kconfiglib>=14' 'cmsis-pack-manager>=0.5'

test-packages: $(VENV)/.dev .venv-packages/bin/pio  ## packages by their own validators, and Arm's and RISC-V's GCC where installed
	$(BIN)/python -m pytest -m packages tests/codegen

check: $(VENV)/.dev  ## lint, types, C format, layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror src/kilograd/runtime/include/kilograd/*.h src/kilograd/execution/*.c
	$(BIN)/python -m pytest -q tests/test_layering.py

bench: $(VENV)/.dev  ## side-by-side measurements; they assert nothing
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/allocation.py
	$(BIN)/python benchmarks/planned.py
	$(BIN)/python benchmarks/planning.py linear_m4 vgg16_cifar_m4 resnet18_cifar_m4 --shares 75 50

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs  ## build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'open build/site/index.html, or: python3 -m http.server -d build/site'

format: $(VENV)/.dev  ## format Python and C
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i src/kilograd/runtime/include/kilograd/*.h src/kilograd/execution/*.c

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build

# Everything starts with `make setup`, which does nothing when nothing changed.

# cpu or gpu: which vLLM is installed.
GRADUS_EXTRA ?= cpu
# Used only where the configured package index does not offer PyTorch's CPU build itself.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=
# Branch coverage of pipeline/, of whole runs only: it means nothing for a part, and costs time.
COVERAGE ?= $(if $(ARGS),,--cov --cov-report=term)
export GRADUS_EXTRA TORCH_CPU_INDEX

.PHONY: help setup demo test lint bench clean

help:  ## list these commands
	@grep -hE '^[a-z]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup:  ## make or update .venv (PYTHON=python3.12, GRADUS_EXTRA=gpu)
	@bash scripts/setup.sh

demo: setup  ## run the demo job on a private local Ray cluster (ARGS='a.b=value ...')
	.venv/bin/python jobs/submit_local.py jobs/demo.py --config configs/demo.yaml \
		output.root="$(CURDIR)/output/experiments" $(ARGS)

test: setup  ## run the tests (ARGS='-m "not slow"' for the quick ones)
	.venv/bin/python -m pytest $(COVERAGE) $(ARGS)

lint: setup  ## ruff and mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: setup  ## run the benchmarks (ARGS=grpo for one)
	.venv/bin/python -m tests.benchmarks $(ARGS)

clean:  ## remove caches and build leftovers; keeps .venv and output/
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

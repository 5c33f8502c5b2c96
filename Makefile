# The project's commands. `make demo` and `make test` need python3 (3.10 or newer, the tests 3.11, with venv and headers),
# a C++17 compiler and make; each sets up its own virtual environment. `make help` lists the rest.
#   make PYTHON=python3.12 demo             another Python
#   make PYTEST_ARGS='-k bundle -x' test    a part of the tests
#   make FSSEG_CUDA=auto demo               with the CUDA kernels, where nvcc is (they take minutes to build, so the
#                                           default here is 0; `pip install .` builds them by itself)

PYTHON ?= python3
PYTEST_ARGS ?=
FSSEG_CUDA ?= 0
export FSSEG_CUDA

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
DEMO_VENV := .venv
TEST_VENV := .venv-test
DEMO_PYTHON := $(DEMO_VENV)/bin/python
TEST_PYTHON := $(TEST_VENV)/bin/python

# A stamp says what an environment holds; it names the Python, so that another PYTHON= makes a new one.
DEMO_READY := $(DEMO_VENV)/installed-$(PYTHON_VERSION)
TEST_READY := $(TEST_VENV)/installed-$(PYTHON_VERSION)
TEST_BUILT := $(TEST_VENV)/built-$(PYTHON_VERSION)

NATIVE := $(shell find csrc -type f 2>/dev/null) setup.py pyproject.toml
PACKAGE := $(shell find fsseg_sdk -type f ! -name '*.py[co]' ! -name '*.so' 2>/dev/null) $(NATIVE) MANIFEST.in
CPP := $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench sanitize test-aarch64 test-cuda tensorrt soak clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo          install the package into $(DEMO_VENV) and segment the example pictures into demo-out/'
	@echo 'make test          ruff, mypy, clang-format and every test, in $(TEST_VENV)'
	@echo 'make lint          ruff, mypy and clang-format alone'
	@echo 'make bench         the benchmarks; JSON and plots into bench-out/'
	@echo 'make sanitize      the kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer; AMX emulated'
	@echo 'make test-aarch64  the NEON kernels, cross-compiled and run under qemu-user'
	@echo 'make test-cuda     the CUDA kernels and device arrays on an emulated device; no GPU or nvcc needed'
	@echo 'make tensorrt      every graph built by TensorRT-RTX, and every TensorRT name checked against 10.3, 10.16 and 11.4'
	@echo 'make soak          a 20-minute stream that watches memory, threads and file handles'
	@echo 'make clean         remove environments, builds and outputs'

# Says what is missing in one line, before pip fails in a hundred.
define preflight
@command -v $(PYTHON) >/dev/null || { echo 'make: $(PYTHON) is missing. Install Python 3.10 or newer, or name one: make PYTHON=python3.12' >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo 'make: $(PYTHON) is Python $(PYTHON_VERSION); 3.10 or newer is needed. Name one: make PYTHON=python3.12' >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'make: $(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo 'make: the headers of $(PYTHON) (Python.h) are missing. On Debian and Ubuntu: apt-get install python3-dev' >&2; exit 1; }
@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { echo 'make: no C++ compiler found. On Debian and Ubuntu: apt-get install g++' >&2; exit 1; }
endef

# ---- make demo: what a user installs ----
$(DEMO_VENV)/python-$(PYTHON_VERSION):
	$(preflight)
	$(PYTHON) -m venv --clear $(DEMO_VENV)
	@touch $@

$(DEMO_READY): $(DEMO_VENV)/python-$(PYTHON_VERSION) $(PACKAGE)
	rm -rf build/lib* build/bdist*
	$(DEMO_PYTHON) -m pip install --quiet --disable-pip-version-check '.[cpu]'
	@touch $@

demo: $(DEMO_READY)
	$(DEMO_PYTHON) examples/demo.py --out demo-out

# ---- make test: everything, from the checkout ----
$(TEST_VENV)/python-$(PYTHON_VERSION):
	$(preflight)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'make: the versions that the tests are pinned to need Python 3.11 or newer (the package itself 3.10). Name one: make PYTHON=python3.12 test' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(TEST_VENV)
	@touch $@

$(TEST_READY): $(TEST_VENV)/python-$(PYTHON_VERSION) requirements/test.txt
	$(TEST_PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements/test.txt
	@touch $@

$(TEST_BUILT): $(TEST_READY) $(NATIVE)
	$(TEST_PYTHON) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

lint: $(TEST_BUILT)
	$(TEST_PYTHON) -m ruff check .
	$(TEST_PYTHON) -m mypy
	$(TEST_VENV)/bin/clang-format --dry-run --Werror $(CPP)

# One thread for every runtime: timings and memory are then those of the code, not of the other cores' owners.
test: lint
	OMP_NUM_THREADS=1 $(TEST_PYTHON) -m pytest -m 'not slow' $(PYTEST_ARGS)

bench: $(TEST_BUILT)
	@mkdir -p bench-out
	$(TEST_PYTHON) -m benchmarks kernels --json bench-out/kernels.json --plot bench-out/kernels.png
	$(TEST_PYTHON) -m benchmarks pipeline --json bench-out/pipeline.json --plot bench-out/pipeline.png
	$(TEST_PYTHON) -m benchmarks memory --json bench-out/memory.json --plot bench-out/memory.png

sanitize: $(TEST_BUILT)
	PYTHON=$(abspath $(TEST_PYTHON)) tests/ops/sanitize.sh
	PYTHON=$(abspath $(TEST_PYTHON)) tests/ops/races.sh
	PYTHON=$(abspath $(TEST_PYTHON)) tests/ops/emulated_tiles.sh

test-aarch64: $(TEST_BUILT)
	PYTHON=$(abspath $(TEST_PYTHON)) tests/aarch64/run.sh

test-cuda: $(TEST_BUILT)
	PYTHON=$(abspath $(TEST_PYTHON)) tests/cuda/run.sh
	tests/cuda/ladder.sh
	PYTHON=$(abspath $(TEST_PYTHON)) tests/cuda/device.sh
	FSSEG_EMULATED=$(abspath build/cuda-emulated-package) $(TEST_PYTHON) -m pytest -q tests/benchmarks/test_gpu.py

# Proprietary and large (96 MB), so only here: an environment of its own beside the one of the tests. No GPU needed.
# BUNDLES: a folder with more bundles to build, such as those of other precisions.
RTX := $(TEST_VENV)/tensorrt
BUNDLES ?=
$(RTX)/installed: $(TEST_BUILT)
	$(TEST_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --target $(RTX)/packages \
		tensorrt-rtx-cu13-bindings==1.7.1.116 tensorrt-rtx-cu13-libs==1.7.1.116
	@touch $@

tensorrt: $(RTX)/installed
	$(TEST_PYTHON) -m tests.tensorrt.bindings $(RTX)/bindings
	PYTHONPATH=$(abspath $(RTX)/packages) FSSEG_BUNDLES=$(abspath $(BUNDLES)) OMP_NUM_THREADS=1 \
		$(TEST_PYTHON) -m pytest tests/tensorrt tests/engines tests/cli/test_engine.py -m '' $(PYTEST_ARGS)

soak: $(TEST_BUILT)
	$(TEST_PYTHON) -m tests.soak --minutes 20

clean:
	rm -rf $(DEMO_VENV) $(TEST_VENV) build dist demo-out bench-out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf *.egg-info fsseg_sdk/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

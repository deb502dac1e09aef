# Everything a developer or a CI job does with this checkout. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

# The newest Python there is that is new enough; PYTHON=... overrides.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
CARGO := cargo
RUST_WORKSPACE := allocator_rs/Cargo.toml
STAMPS := build/stamps
# Options for the program behind a target: make test ARGS='tests/unit -k router'
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What goes into the wheel. The list itself is a prerequisite, so that a deleted file counts as a change.
WHEEL_SOURCES := $(sort pyproject.toml README.md LICENSE $(shell find csi_core backends allocator_rs \
	\( -name target -o -name __pycache__ \) -prune -o -type f ! -name '*.so' ! -name '*.pyc' -print))

.PHONY: help
help: ## list the targets
	@echo "csi-core: targets of this Makefile"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##: use

.PHONY: run
run: install ## set up, build and install the wheel, then walk real volumes through their life
	@$(BIN)/csi-core demo $(ARGS)

.PHONY: install
install: $(STAMPS)/installed ## build the wheel and install it into .venv

.PHONY: wheel
wheel: $(STAMPS)/wheel ## build the wheel into dist/

##: check

.PHONY: test
test: system-for-tests install $(STAMPS)/dev ## every test tier against the installed wheel, one line a tier at the end
	@$(BIN)/pytest $(ARGS)

.PHONY: test-kubernetes
test-kubernetes: system-for-kubernetes install $(STAMPS)/dev ## the chart and its examples on a real Kubernetes, built with Go the first time (20 minutes)
	@$(BIN)/python tests/kubernetes/kubernetes_programs.py
	@$(BIN)/pytest tests/kubernetes $(ARGS)

.PHONY: lint
lint: lint-python lint-types lint-imports lint-rust lint-chart ## every check below; with -k all that is wrong, not only the first

.PHONY: lint-python
lint-python: $(STAMPS)/dev ## ruff: rules and format
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: lint-types
lint-types: install $(STAMPS)/dev ## mypy --strict, and the extension's stub against the extension
	@echo "==> mypy"
	@$(BIN)/mypy csi_core backends
	@echo "==> stubtest"
	@$(BIN)/stubtest csi_core._allocator

.PHONY: lint-imports
lint-imports: install $(STAMPS)/dev ## who may import whom: backends, protobuf and gRPC, Python in Rust
	@echo "==> import rules"
	@$(BIN)/lint-imports --no-logo
	@.ci/rust-core-has-no-python

.PHONY: lint-rust
lint-rust: ## rustfmt, and clippy with warnings as errors
	@.ci/rust-toolchain
	@echo "==> rustfmt"
	@$(CARGO) fmt --manifest-path $(RUST_WORKSPACE) --all --check
	@echo "==> clippy"
	@$(CARGO) clippy --manifest-path $(RUST_WORKSPACE) --workspace --all-targets --locked --quiet -- -D warnings

.PHONY: format
format: $(STAMPS)/dev ## put Python and Rust sources into their one form
	@$(BIN)/ruff check --fix-only . ; $(BIN)/ruff format .; $(CARGO) fmt --manifest-path $(RUST_WORKSPACE) --all

.PHONY: bench
bench: system-for-tests install $(STAMPS)/dev ## every benchmark in full; writes benches/results
	@$(BIN)/pytest benches $(ARGS)

.PHONY: bench-short
bench-short: system-for-tests install $(STAMPS)/dev ## the benchmarks in little, printed beside the committed results
	@CSICORE_BENCH=short $(BIN)/pytest benches $(ARGS)

##: generate

.PHONY: docs
docs: install $(STAMPS)/dev ## write the generated parts of docs/
	@$(BIN)/python docs/generate.py

.PHONY: docs-check
docs-check: install $(STAMPS)/dev ## fail where the generated parts of docs/ are not up to date
	@$(BIN)/python docs/generate.py --check

.PHONY: manifests
manifests: install $(STAMPS)/dev ## write the chart's schema and deploy/manifests (Helm is built the first time)
	@$(BIN)/python deploy/generate.py

.PHONY: manifests-check
manifests-check: install $(STAMPS)/dev ## fail where the chart's schema or deploy/manifests are not up to date
	@$(BIN)/python deploy/generate.py --check

.PHONY: lint-chart
lint-chart: ## helm lint --strict, with each driver that comes with the chart
	@echo "==> helm lint"
	@for values in deploy/chart/drivers/*.yaml; do \
		.ci/helm lint --strict --quiet --kube-version 1.37.0 --values "$$values" deploy/chart; done

.PHONY: protos
protos: $(STAMPS)/protos-venv ## write csi_core/_proto from protos/csi.proto with the pinned generator
	@PATH="$(CURDIR)/build/protos-venv/bin:$$PATH" python -m grpc_tools.protoc -Icsi_core/_proto=protos \
		--python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. protos/csi.proto

.PHONY: protos-check
protos-check: protos ## fail where csi_core/_proto is not what protos/csi.proto gives
	@git diff --exit-code --stat -- csi_core/_proto

##: care

.PHONY: clean
clean: ## remove everything that was built, the virtual environment too
	rm -rf $(VENV) .tools build dist allocator_rs/target .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find csi_core backends tests benches -name __pycache__ -prune -exec rm -rf {} +

##: files

.PHONY: FORCE
FORCE:

$(STAMPS)/sources: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(WHEEL_SOURCES) | cmp -s - $@ || printf '%s\n' $(WHEEL_SOURCES) >$@

.PHONY: system
system:
	@[[ -n "$(PYTHON)" ]] || { echo "csi-core needs Python 3.11 or newer: apt-get install python3 python3-venv" >&2; exit 1; }
	@.ci/system-packages $(PYTHON)

.PHONY: system-for-tests
system-for-tests:
	@.ci/system-packages $(PYTHON) test

.PHONY: system-for-kubernetes
system-for-kubernetes:
	@.ci/system-packages $(PYTHON) kubernetes

$(BIN)/pip: | system
	@echo "==> virtual environment $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --upgrade 'pip>=25.1'

$(STAMPS)/build-tools: pyproject.toml | system $(BIN)/pip
	@mkdir -p $(@D)
	@$(BIN)/pip install --quiet --group build
	@touch $@

# The extension is built by maturin; cargo's own incremental state makes an unchanged crate free.
$(STAMPS)/wheel: $(WHEEL_SOURCES) $(STAMPS)/sources | $(STAMPS)/build-tools
	@.ci/rust-toolchain
	@echo "==> building the wheel"
	@rm -rf dist
	@$(BIN)/maturin build --release --locked --quiet --out dist
	@touch $@

$(STAMPS)/installed: $(STAMPS)/wheel
	@echo "==> installing $$(echo dist/*.whl)"
	@$(BIN)/pip install --quiet --force-reinstall --no-deps dist/*.whl
	@$(BIN)/pip install --quiet dist/*.whl
	@touch $@

$(STAMPS)/dev: pyproject.toml | $(BIN)/pip
	@mkdir -p $(@D)
	@echo "==> installing the development tools"
	@$(BIN)/pip install --quiet --group dev
	@touch $@

# The generator is the oldest one supported and wants an old runtime: it gets an environment of its own.
$(STAMPS)/protos-venv: pyproject.toml
	@mkdir -p $(@D)
	@$(PYTHON) -m venv --clear build/protos-venv
	@build/protos-venv/bin/pip install --quiet --upgrade 'pip>=25.1'
	@build/protos-venv/bin/pip install --quiet --group protos
	@touch $@

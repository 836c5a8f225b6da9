# SPDX-License-Identifier: Apache-2.0
# make bench   measure: sets up what is missing, then runs the default sweep in a lab of its own
# make test    set up, then every test and every linter
# make help    the rest

SHELL := /bin/sh
BIN := .venv/bin
# Tools find each other (ansible-lint runs ansible-playbook) without an activated environment.
export PATH := $(BIN):$(PATH)

PYTHON_DIRS := bench tests ansible containers tools
SHELL_FILES := $(wildcard ansible/roles/*/files/*.sh containers/*.sh containers/*/*.sh tools/*.sh .ci/run)
BPF_FILES := $(wildcard bpf/*.c bpf/*.h)

# $(call step,NAME,COMMAND): run a command; when it fails, say which step that was.
define step
@echo "== $(1)" >&2; $(2) || { echo "make $(subst run-,,$@): failed at: $(1)" >&2; exit 1; }
endef

# $(call tests,NAME,CACHE,ARGUMENTS): run tests. On a shared machine a failure may be a neighbour's: what
# failed is named, and run once more by itself. What was left behind (status 3) is not forgiven.
define tests
@echo "== $(1)" >&2; run="$(BIN)/pytest -o cache_dir=.pytest_cache/$(2) $(3)"; $$run || \
	{ [ $$? -eq 1 ] && echo "== $(1), once more: what failed" >&2 && \
	$$run --last-failed --last-failed-no-failures none; } || \
	{ echo "make $(subst run-,,$@): failed at: $(1)" >&2; exit 1; }
endef

.PHONY: bench test test-unit test-vm test-containers box vm-host fuzz lint format setup setup-tests setup-vm \
	setup-containers lock audit sbom clean help

bench: setup
	$(call step,bench run,$(BIN)/bench run)

# What measures nothing, and mostly waits, goes beside what needs no lab; the output of each comes
# when it has ended. The other tests of the lab then have the machine to themselves.
test: setup-tests
	$(call step,lint and first tests,$(MAKE) --no-print-directory --jobs=2 --output-sync=target run-first run-waiting)
	$(call tests,lab tests,lab,--durations=20 tests/lab $(addprefix --ignore=,$(WAITING_TESTS)))

test-unit: setup
	$(call step,unit tests,$(BIN)/pytest tests/unit)

# The whole path over real kernels and virtio NICs: a chain of virtual machines, made and destroyed.
test-vm: setup-tests setup-vm
	$(call step,box,sh tools/box.sh >/dev/null)
	$(call step,VM tests,$(BIN)/pytest --durations=12 tests/vm)

# The same through containers, each with a veth of its own. Images are built here, none is pulled.
test-containers: setup-tests setup-containers
	$(call step,container tests,$(BIN)/pytest tests/containers)

box: setup setup-vm
	@sh tools/box.sh $(DEBIAN)

# A libvirtd in a network namespace of its own, which no `vagrant destroy` ends: docs/vagrant.md
vm-host: setup-vm
	@sh tools/vm-host.sh up && sh tools/vm-host.sh status

lint: setup
	@$(MAKE) --no-print-directory run-lint

# Connecting to 64 hosts at once is held to limits of seconds: it runs with the rest of the lab, alone.
WAITING_TESTS := tests/lab/test_roles_distributions.py \
	$(sort $(filter-out tests/lab/test_ssh_many.py,$(wildcard tests/lab/test_ssh*.py)))

.PHONY: run-first run-waiting
# The datapath comes first: its programs are gone before the other side, minutes later, looks for
# programs that it may have left.
run-first:
	$(call tests,datapath tests,datapath,tests/datapath)
	$(call step,lint,$(MAKE) --no-print-directory run-lint)
	$(call tests,unit tests,unit,--durations=20 tests/unit $(wildcard tests/browser))

# Packages that are downloaded and installed, and SSH servers that are silent.
run-waiting:
	$(call tests,roles and SSH,waiting,$(WAITING_TESTS))

.PHONY: run-lint
run-lint:
	$(call step,ruff format,$(BIN)/ruff format --check --quiet $(PYTHON_DIRS))
	$(call step,ruff check,$(BIN)/ruff check --quiet $(PYTHON_DIRS))
	$(call step,mypy,$(BIN)/mypy --no-error-summary)
	$(call step,ansible-lint,$(BIN)/ansible-lint --offline -q ansible)
	$(call step,yamllint,$(BIN)/yamllint --strict .)
	$(call step,shellcheck,$(BIN)/shellcheck $(SHELL_FILES))
	$(call step,clang-format,$(BIN)/clang-format --dry-run -Werror $(BPF_FILES))

format: setup
	$(call step,ruff format,$(BIN)/ruff format $(PYTHON_DIRS))
	$(call step,ruff check,$(BIN)/ruff check --fix $(PYTHON_DIRS))
	$(call step,clang-format,$(BIN)/clang-format -i $(BPF_FILES))

setup:
	@sh tools/setup.sh

setup-tests:
	@sh tools/setup.sh --tests

setup-vm:
	@sh tools/setup.sh --vms

setup-containers:
	@sh tools/setup.sh --containers

# Look for differences between the forwarder and its model for as long as asked; then for hostile
# files, answers and lines that do harm, each kind for a thirtieth of that.
FUZZ_SECONDS ?= 600
fuzz: setup-tests
	HOPBENCH_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest tests/datapath/test_fuzz.py
	HOPBENCH_FUZZ_SECONDS=$$(($(FUZZ_SECONDS) / 30)) $(BIN)/pytest tests/unit/hostile -k any

# Resolve pyproject.toml anew into requirements.lock: for every Python from 3.11 on, with hashes,
# and with the build backend, which then needs no network. requirements-bench.lock: what of it
# `bench` needs, without linters and tests.
COMPILE = "$$tmp/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links
lock:
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	python3 -m venv "$$tmp/venv" && "$$tmp/venv/bin/pip" install -q uv && \
	printf 'hatchling\neditables\n' >"$$tmp/build.in" && \
	$(COMPILE) --upgrade --extra dev -o requirements.lock pyproject.toml "$$tmp/build.in" && \
	$(COMPILE) --upgrade -c requirements.lock -o requirements-bench.lock \
		pyproject.toml "$$tmp/build.in"

# Needs the network, and is part of nothing that has to work without one.
audit: setup
	$(call step,audit of requirements.lock,$(BIN)/python tools/audit.py requirements.lock)

SBOM ?= dist/sbom.cdx.json
sbom: setup
	$(call step,bill of materials,$(BIN)/python tools/sbom.py $(SBOM))

clean:
	rm -rf .venv .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find bench tests ansible -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo "make bench      set up, bring up a lab, run the default sweep, print the verdict"
	@echo "make test       set up, lint, run every test"
	@echo "make test-unit  set up, run the tests that need no lab"
	@echo "make test-vm    test the whole path on virtual machines (Vagrant, libvirt, QEMU)"
	@echo "make test-containers  test the whole path on containers (podman)"
	@echo "make box        build a Debian box for Vagrant from packages (DEBIAN=12|13)"
	@echo "make vm-host    start a libvirtd in a network namespace of its own"
	@echo "make fuzz       feed random packets and hostile files to hopbench (FUZZ_SECONDS=600)"
	@echo "make lint       every linter, changing nothing"
	@echo "make format     let the formatters have their way"
	@echo "make setup-vm   install Vagrant, libvirt and QEMU, and start none of their services"
	@echo "make setup      install what is missing and make .venv"
	@echo "make lock       resolve requirements.lock anew (network)"
	@echo "make audit      look for known vulnerabilities of what requirements.lock names (network)"
	@echo "make sbom       write a bill of materials, CycloneDX JSON (SBOM=dist/sbom.cdx.json)"
	@echo "make clean      remove .venv and caches; results stay"

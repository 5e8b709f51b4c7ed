# `make quickstart` and `make test` are complete on a fresh Debian or Ubuntu machine with Python 3.11+ and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:

PYTHON ?= python3
# The CPU builds of torch are published here; a pip that already finds them elsewhere is not sent there.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
LOCK = images/requirements-cpu.txt
DEV_LOCK = .ci/requirements-dev.txt
SKY_LOCK = .ci/requirements-sky.txt

.PHONY: quickstart test chaos e2e-sky check lock clean test-modal-live test-sky-live

quickstart: .venv/runtime examples/quickstart/model/config.json
	.venv/bin/ftl train examples/quickstart/pretrain.yml
	.venv/bin/ftl train examples/quickstart/cfg.yml

examples/quickstart/model/config.json: examples/quickstart/make_data.py | .venv/runtime
	.venv/bin/python examples/quickstart/make_data.py

test: .venv/dev .venv/sky/complete
	.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slurm"  # a third, for tests wait, too

# 200 SIGKILLs in steps, saves and uploads, 50 SIGTERM and 50 SIGINT; `make test` does a tenth of it. What is hit is
# counted in build/chaos.jsonl: stopped and started again it goes on there. The table comes last, its numbers in chaos.json.
chaos: .venv/dev
	.venv/bin/python tests/e2e/chaos/campaign.py --ledger build/chaos.jsonl

# One tiny training on Modal itself, with your account: a T4, minutes, cents. Needs `modal token new`; never part of CI.
test-modal-live: .venv/dev
	.venv/bin/python tests/live.py tests/modal/live.yml

# The same on a machine that SkyPilot rents in your account; AWS unless CLOUD names another cloud file.
CLOUD ?= tests/skypilot/live.yml
test-sky-live: .venv/dev .venv/sky/complete
	.venv/bin/python tests/live.py $(CLOUD)

# ftl on two nodes of a real Slurm, which .ci/slurm-lab.sh makes of this Debian machine, as root, and takes away again.
e2e-sky: .venv/dev .venv/sky/complete
	.ci/engine.sh
	trap '.ci/slurm-lab.sh stop' EXIT
	.ci/slurm-lab.sh
	.venv/bin/python -m pytest -m slurm tests/skypilot

check: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"ftl needs Python 3.11 to 3.13, $(PYTHON) is {v[0]}.{v[1]}; give another with PYTHON=python3.12")'
	if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then
	  package=python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
	  if [ "$$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null; then sudo=sudo; else
	    echo "this Python has no venv: ask an administrator to run: apt-get install $$package" >&2; exit 1; fi
	  echo "installing $$package, which Debian and Ubuntu keep apart from Python"
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$package >/dev/null
	fi
	$(PYTHON) -m venv .venv

.venv/runtime: .venv/bin/python $(LOCK) pyproject.toml
	@echo "installing ftl and its CPU runtime from $(LOCK)"
	sed -n '/^torch==/,/[^\\]$$/p' $(LOCK) > .venv/torch.txt
	$(PIP) install --no-deps --require-hashes -r .venv/torch.txt 2>/dev/null \
	  || $(PIP) install --no-deps --require-hashes --extra-index-url $(TORCH_INDEX) -r .venv/torch.txt
	$(PIP) install --require-hashes -r $(LOCK)
	$(PIP) install --no-deps -e .
	touch $@

.venv/dev: .venv/runtime $(DEV_LOCK)
	@echo "installing the test tools from $(DEV_LOCK)"
	$(PIP) install --require-hashes -r $(DEV_LOCK)
	touch $@

# SkyPilot for the tests, in an environment of its own: .ci/requirements-sky.in says why. Its uv takes 15 s where pip takes 80.
.venv/sky/complete: .venv/bin/python $(SKY_LOCK)
	@echo "installing SkyPilot for the tests from $(SKY_LOCK)"
	.venv/bin/python -m venv --clear --without-pip .venv/sky
	sed -n '/^uv==/,/[^\\]$$/p' $(SKY_LOCK) > .venv/sky/uv.txt
	$(PIP) --python .venv/sky/bin/python install --no-deps --require-hashes -r .venv/sky/uv.txt
	.venv/sky/bin/uv pip install --quiet --python .venv/sky/bin/python --no-deps --require-hashes -r $(SKY_LOCK)
	touch $@

lock:
	images/lock.sh
	.ci/lock.sh

clean:
	rm -rf .venv examples/tiny examples/quickstart/{data,model,base,adapter}

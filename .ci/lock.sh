#!/usr/bin/env bash
# Writes the locks of the tests, every file with its sha256: .ci/requirements-dev.txt, what they need beyond
# images/requirements-cpu.txt, and .ci/requirements-sky.txt, the environment of SkyPilot.
#
#   .ci/lock.sh            resolve again; existing pins are kept where they still fit
#   .ci/lock.sh --upgrade  take the newest versions pyproject.toml and .ci/requirements-sky.in allow
#
# Needs uv on PATH (or UV=/path/to/uv).
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
sed -e 's/ \\$//' -e '/^ *--hash/d' -e '/^ *#/d' -e 's/^\(torch==[0-9.]*\)+cpu/\1/' images/requirements-cpu.txt > "$scratch/pins.txt"
grep -v '^#' .ci/requirements-dev.txt > "$scratch/lock.txt"
# The CPU build of torch, which images/requirements-cpu.txt locks, does not need what the index's CUDA build declares.
cat >"$scratch/uv.toml" <<'TOML'
[[dependency-metadata]]
name = "torch"
version = "2.13.0"
requires-dist = ["filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2", "fsspec>=0.8.5"]
TOML
"${UV:-uv}" pip compile pyproject.toml --extra dev --extra docker --extra modal --quiet --universal --python-version 3.11 \
  --config-file "$scratch/uv.toml" --constraint "$scratch/pins.txt" --no-emit-package torch \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
  --output-file "$scratch/lock.txt" "$@"
{ echo "# Written by .ci/lock.sh from pyproject.toml's dev, docker and modal extras: change those and run it."; cat "$scratch/lock.txt"; } > .ci/requirements-dev.txt

grep -v '^#' .ci/requirements-sky.txt > "$scratch/sky.txt" || true
"${UV:-uv}" pip compile .ci/requirements-sky.in --quiet --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
  --output-file "$scratch/sky.txt" "$@"
{ echo "# Written by .ci/lock.sh from requirements-sky.in: change that and run it."; cat "$scratch/sky.txt"; } > .ci/requirements-sky.txt

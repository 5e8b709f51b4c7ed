#!/usr/bin/env bash
# Writes .ci/requirements-dev.txt: what the tests need beyond images/requirements-cpu.txt, every file with its sha256.
# Needs uv on PATH (or UV=/path/to/uv).
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
sed -e 's/ \\$//' -e '/^ *--hash/d' -e '/^ *#/d' images/requirements-cpu.txt | grep -v '^torch==' > "$scratch/pins.txt"
"${UV:-uv}" pip compile pyproject.toml --extra dev --extra docker --quiet --universal --python-version 3.11 \
  --constraint "$scratch/pins.txt" --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
  "$@" > "$scratch/lock.txt"
{ echo "# Written by .ci/lock.sh from pyproject.toml's dev and docker extras: change those and run it."; cat "$scratch/lock.txt"; } > .ci/requirements-dev.txt

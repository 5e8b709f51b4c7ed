#!/usr/bin/env bash
# Writes the two lock files from the two .in files: every version exact, every file with its sha256.
#
#   images/lock.sh            resolve again; existing pins are kept where they still fit
#   images/lock.sh --upgrade  take the newest versions the .in files allow
#
# Needs uv on PATH (or UV=/path/to/uv) and a package index; takes seconds, needs no GPU.
set -euo pipefail
cd "$(dirname "$0")"
uv=${UV:-uv}
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

compile() { # compile IN OUT HEADER [uv options]: lock IN, put HEADER above it
  local input=$1 output=$2 header=$3
  shift 3
  if [ -f "$output" ]; then cp "$output" "$scratch/locked.txt"; else : >"$scratch/locked.txt"; fi
  "$uv" pip compile "$input" --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
    --annotation-style line --output-file "$scratch/locked.txt" "$@"
  { printf '# %s\n# Written by images/lock.sh from %s: change that and run it.\n' "$header" "$input"
    cat "$scratch/locked.txt"; } >"$scratch/output.txt"
}

compile requirements.in requirements-cu130.txt "Python 3.12, Linux x86_64, CUDA 13.0: what the CUDA image holds." \
  --python-version 3.12 --python-platform x86_64-manylinux_2_28 "$@"
mv "$scratch/output.txt" requirements-cu130.txt

# The CPU build of torch does not need what the index's CUDA build declares: these are the +cpu wheel's requirements.
cat >"$scratch/uv.toml" <<'TOML'
[[dependency-metadata]]
name = "torch"
version = "2.13.0"
requires-dist = ["filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2", "fsspec>=0.8.5"]
TOML
# The CPU wheels are published on torch's own index (https://download.pytorch.org/whl/cpu), which a lock made from the
# general index does not see; a new torch version needs these nine replaced.
cat >"$scratch/torch.txt" <<'HASHES'
6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b linux x86_64 cp311
4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2 linux x86_64 cp312
3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6 linux x86_64 cp313
84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7 linux aarch64 cp311
6f307c2c32d764ffc6ff6893b801fad6d4752f3e67966cb8abf1843427c02604 linux aarch64 cp312
0b8f7d0423027ae8b90c7977c627f3379f325363a08224dffad9b4b2d684a83d linux aarch64 cp313
e76f9bcecc52b8ff711239a2f7547d5353df95878ab232f0773c1d95928b92f8 darwin arm64 cp311
2fe228aba290d14b9f31b049be550dbd469c3fd3013d7a19705b30454da97027 darwin arm64 cp312
33449899ce5496c1b84b4853179d94fd102028ae1407314d9fb956bb79e70d09 darwin arm64 cp313
HASHES
compile requirements-cpu.in requirements-cpu.txt "Python 3.11 to 3.13, Linux and macOS, CPU: the CPU image and a machine's own runtime." \
  --universal --python-version 3.11 --config-file "$scratch/uv.toml" "$@"
awk -v hashes="$scratch/torch.txt" '
  function torch(version, platform,   entry, word, line) {
    line = "torch==" version " ; sys_platform == \047" platform "\047"
    while ((getline entry < hashes) > 0) {
      split(entry, word, " ")
      if (word[2] == platform) line = line " \\\n    --hash=sha256:" word[1]
    }
    close(hashes)
    print line
  }
  /^torch==/ {
    sub(/^torch==/, ""); sub(/ *\\$/, "")
    torch($0 "+cpu", "linux"); torch($0, "darwin")
    in_torch = 1; next
  }
  in_torch && /^    --hash=/ { next }
  { in_torch = 0; print }
' "$scratch/output.txt" >requirements-cpu.txt

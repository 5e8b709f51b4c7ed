#!/usr/bin/env bash
# Inside the build: makes /opt/ftl from the lock file in $1, every file checked against its hash.
#
# /wheels is looked into first. /run/secrets/ca.crt (more certificates) and /run/secrets/pip.conf (index settings) are
# optional and leave nothing in the image.
set -euo pipefail
lock=$1
if [ -s /run/secrets/ca.crt ]; then
  export PIP_CERT=/run/secrets/ca.crt SSL_CERT_FILE=/run/secrets/ca.crt
fi
if [ -s /run/secrets/pip.conf ]; then
  export PIP_CONFIG_FILE=/run/secrets/pip.conf
  # uv does not read pip.conf: hand it the three settings that say where packages are.
  eval "$(python3 - <<'PY'
import configparser
import shlex

pip = configparser.RawConfigParser()
pip.read("/run/secrets/pip.conf")
for option, variable in (("index-url", "UV_DEFAULT_INDEX"), ("extra-index-url", "UV_INDEX"), ("find-links", "UV_FIND_LINKS")):
    value = " ".join(pip.get("global", option, fallback="").split())
    if value:
        print(f"export {variable}={shlex.quote(value.replace(' ', ',') if option == 'find-links' else value)}")
PY
)"
fi

python3 -m venv /opt/ftl
# uv comes from the lock as well: its own lines are cut out of it for pip.
awk '/^uv==/ {wanted = 1} wanted {print} wanted && !/\\$/ {exit}' "$lock" >/tmp/uv.txt
pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r /tmp/uv.txt
rm /tmp/uv.txt
# The hashes say which file is right, so which index it comes from does not matter.
uv pip install --index-strategy unsafe-best-match --python /opt/ftl/bin/python --require-hashes --find-links /wheels --link-mode copy \
  ${TORCH_INDEX:+--index "$TORCH_INDEX"} -r "$lock"
cp "$lock" /opt/ftl/lock.txt

#!/bin/bash
# Runs its arguments in place of itself. With PUBLIC_KEY set (RunPod sets it) an ssh server is started first.
set -euo pipefail
if [ -n "${PUBLIC_KEY:-}" ]; then
  if [ "$(id -u)" = 0 ]; then
    install -d -m 0700 ~/.ssh
    printf '%s\n' "$PUBLIC_KEY" >>~/.ssh/authorized_keys
    chmod 0600 ~/.ssh/authorized_keys
    ssh-keygen -A >/dev/null # host keys belong to the container, never to the image
    install -d -m 0755 /run/sshd
    /usr/sbin/sshd
  else
    echo "ftl: PUBLIC_KEY is set, but only root can start the ssh server: there is none" >&2
  fi
fi
exec "$@"

#!/usr/bin/env bash
# Gives a Debian machine with root what the tests need besides Python: for tests/docker an engine, a base image and a
# registry on 127.0.0.1, and Chromium for the page of `ftl preview --html`.
#
#   .ci/engine.sh          all of it; what is already there is left as it is (3 minutes on a bare machine, 1 s after)
#
# Environment:
#   FTL_ENGINE_DIR       where logs and the registry's data lie        (default /var/tmp/ftl-engine)
#   FTL_REGISTRY_PORT    port of the registry on 127.0.0.1             (default 5055)
#   DEBIAN_MIRROR        mirror for debootstrap                        (default: the machine's own first apt source)
#
# No systemd is needed. Nothing is stopped by it: the engine and the registry stay up for the next run.
set -euo pipefail
W=${FTL_ENGINE_DIR:-/var/tmp/ftl-engine}
PORT=${FTL_REGISTRY_PORT:-5055}
BASE=ftl-test/base:bookworm
docker=/usr/bin/docker # Debian's own client: the one that can use the BuildKit inside its daemon
mkdir -p "$W"
started=$SECONDS
say() { printf '[engine %3ds] %s\n' "$((SECONDS - started))" "$*"; }

install_packages() {
  local package missing=()
  for package in docker.io iptables debootstrap docker-registry ca-certificates chromium; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || { say "cannot install ${missing[*]}: not root"; exit 1; }
  say "installing ${missing[*]}"
  apt-get update -qq
  # Where there is no init, the packages' own services must not be started by dpkg; we start what we need.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$W/apt.log" 2>&1 \
    || { tail -n 20 "$W/apt.log"; exit 1; }
}

start_engine() {
  "$docker" info >/dev/null 2>&1 && return 0
  [ "$(id -u)" = 0 ] || { say "no Docker engine answers, and only root can start one"; exit 1; }
  if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ] && ! mountpoint -q /sys/fs/cgroup/memory; then
    mount_cgroups
  fi
  clear_leftovers
  say "starting dockerd"
  setsid dockerd >"$W/dockerd.log" 2>&1 </dev/null &
  local dockerd=$! try
  for try in $(seq 120); do
    "$docker" info >/dev/null 2>&1 && return 0
    kill -0 "$dockerd" 2>/dev/null || break
    sleep 0.5
  done
  say "dockerd did not come up (after ${try} tries); its last lines:"
  tail -n 20 "$W/dockerd.log"
  exit 1
}

clear_leftovers() { # of an engine that was killed: process id files that now name nobody, or an engine's own containerd
  local file pid name
  for file in /var/run/docker.pid /run/docker/containerd/containerd.pid; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    name=$(cat "/proc/$pid/comm" 2>/dev/null || true)
    case $name in
      dockerd) continue ;; # it is only slow to answer
      containerd) say "ending the containerd that a killed engine left"; kill "$pid"; sleep 2 ;;
    esac
    rm -f "$file"
  done
}

mount_cgroups() { # cgroup v1, for a machine whose own init did not mount it
  local controller
  mountpoint -q /sys/fs/cgroup || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while read -r controller; do
    mkdir -p "/sys/fs/cgroup/$controller"
    mountpoint -q "/sys/fs/cgroup/$controller" || mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || true
  done < <(awk '!/^#/ && $4 == 1 {print $1}' /proc/cgroups)
}

debian_mirror() {
  if [ -n "${DEBIAN_MIRROR:-}" ]; then printf '%s\n' "$DEBIAN_MIRROR"; return; fi
  apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "bookworm" {print $2; exit}'
}

make_base() {
  "$docker" image inspect "$BASE" >/dev/null 2>&1 && return 0
  [ "$(id -u)" = 0 ] || { say "cannot make $BASE: debootstrap needs root"; exit 1; }
  local mirror root="$W/root"
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || { say "no apt source for Debian bookworm: set DEBIAN_MIRROR"; exit 1; }
  say "making $BASE"
  mkdir -p "$root"
  mountpoint -q "$root" || mount -t tmpfs -o size=1g,dev,exec,suid,mode=755 tmpfs "$root" # 2x faster than a disk
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root/r" "$mirror" \
    >"$W/debootstrap.log" 2>&1 || { tail -n 20 "$W/debootstrap.log"; umount "$root"; exit 1; }
  tar -C "$root/r" --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*_*' \
    --exclude='./usr/share/man/*' --exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*' -c . |
    "$docker" import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'CMD ["bash"]' - "$BASE" >/dev/null
  umount "$root"
}

registry_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

start_registry() {
  registry_answers && return 0
  say "starting the registry on 127.0.0.1:$PORT"
  mkdir -p "$W/registry"
  cat >"$W/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $W/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$PORT"}
YAML
  setsid docker-registry serve "$W/registry.yml" >"$W/registry.log" 2>&1 </dev/null &
  for _ in $(seq 60); do registry_answers && return 0; sleep 0.25; done
  say "the registry did not come up; its last lines:"
  tail -n 20 "$W/registry.log"
  exit 1
}

install_packages
start_engine
make_base
start_registry
say "ready: engine $("$docker" version -f '{{.Server.Version}}'), $BASE, registry 127.0.0.1:$PORT"

#!/usr/bin/env bash
# A Slurm cluster of two nodes with 8 stand-in GPUs each, all on the loopback of one Debian machine, for tests/skypilot.
#
#   .ci/slurm-lab.sh         installs and starts what is missing (root; 1 minute on a bare machine, 3 s after)
#   .ci/slurm-lab.sh stop    ends its processes, by their pids, and removes all but the Debian packages
#
# Environment:
#   FTL_SLURM_DIR    where configuration, logs and shims lie   (default /var/tmp/ftl-slurm)
#   FTL_VENV         the Python environment that trains        (default .venv of this checkout)
#
# The partition `main` has both nodes; what is sent to `closed` waits for ever. No systemd is needed. The nodes n1 and n2
# are this machine as the user skyslurm, whom an sshd on 127.0.0.1 lets in with a key in FTL_SLURM_DIR. Two things of such
# a node are stand-ins: /dev/null for each GPU, and for that user alone `curl` and `uv`, because SkyPilot fetches uv from
# astral.sh and Python 3.10 from GitHub. What trains with FTL_SLURM_DIR/python lets SkyPilot go first on the same cores.
set -euo pipefail
cd "$(dirname "$0")/.."
W=${FTL_SLURM_DIR:-/var/tmp/ftl-slurm}
VENV=${FTL_VENV:-$PWD/.venv}
LOGIN=skyslurm
PROFILE=/etc/profile.d/ftl-slurm-lab.sh
MARK="# Written by .ci/slurm-lab.sh"
started=$SECONDS
say() { printf '[slurm %3ds] %s\n' "$((SECONDS - started))" "$*"; }
lives() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

install_packages() {
  local package missing=()
  for package in slurm-wlm munge openssh-server rsync netcat-openbsd socat; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  apt-get update -qq
  # Where there is no init, the packages' own services must not be started by dpkg; we start what we need.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$W/apt.log" 2>&1 \
    || { tail -n 20 "$W/apt.log"; exit 1; }
}

make_user() {
  id "$LOGIN" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$LOGIN"
  usermod -p '*' "$LOGIN" # a locked user is refused by an sshd without PAM, whatever his key
  [ -s "$W/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$W/key"
  install -d -m 755 "$W/shared" # the file system that both nodes mount
  chown "$LOGIN:" "$W/shared"
  install -d -m 700 -o "$LOGIN" -g "$LOGIN" "/home/$LOGIN/.ssh"
  install -m 600 -o "$LOGIN" -g "$LOGIN" "$W/key.pub" "/home/$LOGIN/.ssh/authorized_keys"
}

make_shims() {
  mkdir -p "$W/shims"
  install -m 755 "$VENV/sky/bin/uv" "$W/uv" # a checkout below /root could not be read
  cat >"$W/shims/curl" <<SH
#!/bin/sh
case "\$*" in
*astral.sh/uv/install.sh*) printf 'mkdir -p "\$UV_INSTALL_DIR" && cp $W/shims/uv "\$UV_INSTALL_DIR/uv"\n' ;;
*) exec /usr/bin/curl "\$@" ;;
esac
SH
  cat >"$W/shims/uv" <<SH
#!/bin/bash
[ "\$1" != venv ] || set -- "\${@/#3.10/$PYTHON}"
export SSL_CERT_FILE=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
exec $W/uv "\$@"
SH
  chmod 755 "$W/shims/"*
  printf '#!/bin/sh\nexec nice -n 19 %s/env/bin/python "$@"\n' "$W" >"$W/python"
  chmod 755 "$W/python"
  printf '%s\n[ "$(id -un)" != %s ] || export PATH=%s/shims:$PATH\n' "$MARK" "$LOGIN" "$W" >"$PROFILE"
}

make_python() { # with what training needs, where the user can read it
  local packages
  packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  if runuser -u "$LOGIN" -- "$VENV/bin/python" -c 'import sys' 2>/dev/null; then
    ln -sfn "$VENV" "$W/env"
    return
  fi
  if [ "$("$PYTHON" -c 'import sys; print(sys.version_info[:2])')" != \
    "$("$VENV/bin/python" -c 'import sys; print(sys.version_info[:2])')" ]; then
    say "$LOGIN cannot read $VENV, and $PYTHON has another version"
    exit 1
  fi
  [ "$(cat "$W/env/made-from" 2>/dev/null)" != "$(stat -c %Y "$VENV/dev" "$packages")" ] || return 0
  rm -rf "$W/env"
  "$PYTHON" -m venv --without-pip "$W/env"
  rm -r "$W/env/lib/"python3*/site-packages
  cp -al "$packages" "$(echo "$W/env/lib/"python3*)" 2>/dev/null || cp -a "$packages" "$(echo "$W/env/lib/"python3*)"
  stat -c %Y "$VENV/dev" "$packages" >"$W/env/made-from"
}

configure() {
  local file host
  host=$(hostname -s)
  for file in /etc/slurm/slurm.conf /etc/slurm/gres.conf; do
    [ ! -s "$file" ] || grep -q "^$MARK" "$file" || { say "$file is of another cluster: this machine is not for the lab"; exit 1; }
  done
  [ -s "$W/ports" ] || python3 - >"$W/ports" <<'PY'
import socket
held = [socket.socket() for _ in range(4)]
for one in held:
    one.bind(("127.0.0.1", 0))
print("SSH_PORT=%d CONTROL_PORT=%d N1_PORT=%d N2_PORT=%d" % tuple(one.getsockname()[1] for one in held))
PY
  . "$W/ports"
  for file in 1 2; do # SkyPilot asks for the address of each node
    grep -qE "^127\.0\.1\.$file[[:space:]]+n$file$" /etc/hosts || echo "127.0.1.$file n$file" >>/etc/hosts
  done
  mkdir -p /etc/slurm "$W/state" "$W/gpu"
  for file in n1 n2; do
    for gpu in $(seq 0 7); do [ -e "$W/gpu/$file-$gpu" ] || mknod -m 666 "$W/gpu/$file-$gpu" c 1 3; done
  done
  cat >/etc/slurm/slurm.conf <<CONF
$MARK
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$CONTROL_PORT
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$W/state
SlurmdSpoolDir=$W/spool-%n
SlurmctldPidFile=$W/slurmctld.pid
SlurmdPidFile=$W/slurmd-%n.pid
SlurmctldLogFile=$W/slurmctld.log
SlurmdLogFile=$W/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=5
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname=$host Port=$N1_PORT CPUs=16 RealMemory=64000 Gres=gpu:H100:8
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname=$host Port=$N2_PORT CPUs=16 RealMemory=64000 Gres=gpu:H100:8
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=n1,n2 State=DOWN
CONF
  cat >/etc/slurm/gres.conf <<CONF
$MARK
NodeName=n1 Name=gpu Type=H100 File=$W/gpu/n1-[0-7]
NodeName=n2 Name=gpu Type=H100 File=$W/gpu/n2-[0-7]
CONF
  [ -s "$W/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$W/host_key"
  cat >"$W/sshd_config" <<CONF
Port $SSH_PORT
ListenAddress 127.0.0.1
HostKey $W/host_key
PidFile $W/sshd.pid
AllowUsers $LOGIN
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
CONF
  cat >"$W/slurm_ssh_config" <<CONF
Host lab
  HostName 127.0.0.1
  Port $SSH_PORT
  User $LOGIN
  IdentityFile $W/key
  IdentitiesOnly yes
CONF
}

start() {
  if ! lives /run/munge/munged.pid; then
    [ -s /etc/munge/munge.key ] || { /usr/sbin/mungekey --create; chown munge: /etc/munge/munge.key; }
    install -d -o munge -g munge -m 755 /run/munge
    runuser -u munge -- /usr/sbin/munged
  fi
  mkdir -p /run/sshd
  lives "$W/sshd.pid" || /usr/sbin/sshd -f "$W/sshd_config" -E "$W/sshd.log"
  lives "$W/slurmctld.pid" || slurmctld
  local node
  for node in n1 n2; do lives "$W/slurmd-$node.pid" || slurmd -N "$node"; done
  for _ in $(seq 60); do
    [ "$(sinfo -h -N -p main -o '%T' 2>/dev/null | grep -cE '^(idle|mixed|allocated)$')" = 2 ] && return 0
    sleep 0.5
    scontrol update nodename=n1,n2 state=resume 2>/dev/null || true
  done
  say "the nodes did not come up"
  sinfo -N -o '%N %T %E' || true
  tail -n 5 "$W"/slurm*.log
  exit 1
}

stop() {
  local name pid
  if lives "$W/slurmctld.pid"; then
    scancel --user="$LOGIN" || true
    for _ in $(seq 40); do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 0.25; done
  fi
  for name in slurmd-n1 slurmd-n2 slurmctld sshd; do
    ! lives "$W/$name.pid" || kill "$(cat "$W/$name.pid")"
  done
  ! lives /run/munge/munged.pid || kill "$(cat /run/munge/munged.pid)"
  for _ in $(seq 40); do lives "$W/slurmctld.pid" || break; sleep 0.25; done
  for name in /etc/slurm/slurm.conf /etc/slurm/gres.conf "$PROFILE"; do
    ! grep -qs "^$MARK" "$name" || rm -f "$name"
  done
  sed -i -E '/^127\.0\.1\.[12] n[12]$/d' /etc/hosts 2>/dev/null || true
  if id "$LOGIN" >/dev/null 2>&1; then
    for pid in $(ps -u "$LOGIN" -o pid=); do kill -9 "$pid" 2>/dev/null || true; done
    find /tmp /var/tmp /dev/shm -mindepth 1 -maxdepth 1 -user "$LOGIN" -exec rm -rf {} + 2>/dev/null || true
    userdel --remove --force "$LOGIN" 2>/dev/null || true
  fi
  rm -rf "$W"
}

[ "$(id -u)" = 0 ] || { echo "the Slurm lab needs root" >&2; exit 1; }
if [ "${1:-}" = stop ]; then stop; exit; fi
mkdir -p "$W"
chmod 755 "$W"
PYTHON=$(PATH=/usr/local/bin:/usr/bin:/bin command -v python3)
[ -x "$VENV/sky/bin/uv" ] || { echo "no $VENV/sky: run make .venv/sky/complete" >&2; exit 1; }
install_packages
make_user
make_shims
make_python
configure
start
say "ready: $(sinfo -h -o '%D nodes %G')"

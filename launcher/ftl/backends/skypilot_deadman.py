"""What ends a machine that was rented for a job and never got it: its API server was killed while it started.

SkyPilot sets the autostop only just before the job starts. On AWS a machine can be given commands for its first boot
(`aws.post_provision_runcmd` of SkyPilot's config, in its user data), so it can watch over itself until then: SkyPilot
comes by ssh, and then there is the job. When for some time there is neither, the machine has itself ended.
"""

import base64

LEAST_MINUTES = 30
"""Without ssh and without a job. Setting up, with somebody there, may take as long as it likes."""
_FILE = "/usr/local/sbin/ftl-deadman"
_SCRIPT = r"""#!/bin/bash
# From ftl: ends this machine when neither a job nor whoever set it up has been here for a while.
quiet_s=0
while [ "$quiet_s" -lt @LIMIT_S@ ]; do
  sleep 10
  # The job, here or in a container; or SkyPilot's controller. From its start SkyPilot's autostop is set.
  if pgrep -f 'ftl_runtime[.]sky_entry|sky[.]jobs[.](controller|scheduler)' > /dev/null; then exit 0; fi
  # A session of sshd that has logged in runs as its user.
  if ps -eo uid=,comm= | awk '$1 >= 1000 && $2 ~ /^sshd/ {found = 1} END {exit !found}'; then
    quiet_s=0
  else
    quiet_s=$((quiet_s + 10))
  fi
done
# Terminated by the role that SkyPilot gives its machines. Where that is refused a shutdown still ends the price of the
# machine; AWS then keeps it as stopped, with its disk.
metadata=http://169.254.169.254/latest
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token")
read_metadata() { curl -sf -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/$1"; }
id=$(read_metadata instance-id)
region=$(read_metadata placement/region)
domain=$(read_metadata services/domain)
role=$(read_metadata iam/security-credentials/)
keys=$(read_metadata "iam/security-credentials/$role")
field() { printf '%s' "$keys" | sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'; }
curl -sf -K - > /dev/null << CURL
url = "https://ec2.$region.$domain/?Action=TerminateInstances&InstanceId.1=$id&Version=2016-11-15"
aws-sigv4 = "aws:amz:$region:ec2"
user = "$(field AccessKeyId):$(field SecretAccessKey)"
header = "X-Amz-Security-Token: $(field Token)"
CURL
sleep 60
shutdown -h now
"""


def first_boot(autostop_minutes: int) -> str:
    """The command for cloud-init, one line without anything that YAML would read."""
    packed = base64.b64encode(script(max(LEAST_MINUTES, autostop_minutes)).encode()).decode()
    return f"echo {packed} | base64 -d > {_FILE} && chmod 700 {_FILE} && systemd-run {_FILE}"


def script(minutes: int) -> str:
    """What watches, and for how long it goes on without ssh and without a job."""
    return _SCRIPT.replace("@LIMIT_S@", str(minutes * 60))

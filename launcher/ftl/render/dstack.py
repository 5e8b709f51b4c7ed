"""dstack: a task file for `dstack apply -f`."""

import re
from typing import Any

from ftl.contract import CONTAINER_BUNDLE, CONTAINER_MOUNTS
from ftl.render.asked import Asked
from ftl.yamlout import dump

_HEAD = """\
# A dstack task: `dstack apply -f FILE`. dstack uploads the folders under `files`, and takes variables without a value
# from the shell. Nothing comes back by itself: the model goes where hub_model_id or `checkpoints` say.
"""


def dstack_task(asked: Asked) -> str:
    """The file, comments included."""
    spec = asked.spec
    files = [{"local_path": asked.bundle.path, "path": CONTAINER_BUNDLE}]
    files += [{"local_path": mount.source, "path": f"{CONTAINER_MOUNTS}/{mount.name}"} for mount in spec.mounts]
    task: dict[str, Any] = {  # Any: YAML
        "type": "task",
        "name": asked.name[:41].rstrip("-"),  # dstack takes 41 characters
        "image": asked.image,
        "files": files,
        "env": [*(f"{name}={value}" for name, value in spec.env.items()), *spec.secrets],
        "commands": [asked.script()],
        "resources": _resources(asked),
        "spot_policy": asked.spot,
        "stop_duration": f"{spec.grace_s}s",
    }
    if spec.timeout_s is not None:
        task["max_duration"] = f"{spec.timeout_s + spec.grace_s}s"
    if asked.max_usd_per_hour is not None:
        task["max_price"] = asked.max_usd_per_hour
    if asked.spot != "on-demand":
        task["retry"] = {"on_events": ["interruption"]}
    return (
        _HEAD
        + asked.without("spot", "max_usd_per_hour")
        + dump({key: value for key, value in task.items() if value != []})
    )


def _resources(asked: Asked) -> dict[str, Any]:  # Any: YAML
    found: dict[str, Any] = {"shm_size": f"{asked.spec.resources.shm_gib:g}GB"}
    if asked.num_gpus is None or asked.num_gpus:
        count: str | int = "1.." if asked.num_gpus is None else asked.num_gpus
        found["gpu"] = _gpu(asked.gpu_kinds) | {"count": count}
    if asked.cpus is not None:
        found["cpu"] = f"{asked.cpus:.0f}.."
    if asked.memory_gib is not None:
        found["memory"] = f"{asked.memory_gib:g}GB.."
    if asked.disk_gib is not None:
        found["disk"] = f"{asked.disk_gib}GB.."
    return found


def _gpu(kinds: tuple[str, ...]) -> dict[str, Any]:  # Any: YAML
    """Names and memory apart, as dstack has them: A100-80GB is an A100 of 80 GB."""
    names = list(dict.fromkeys(re.sub(r"-?\d+GB$", "", kind) for kind in kinds))
    memory = [match[1] for kind in kinds if (match := re.search(r"(\d+)GB$", kind))]
    found: dict[str, Any] = {"name": names} if names else {}
    if len(memory) == len(kinds) and len(set(memory)) == 1:
        found["memory"] = f"{memory[0]}GB"
    return found

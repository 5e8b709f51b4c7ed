"""Kubernetes: a Job and the volume it needs, for `kubectl apply -f`."""

from typing import Any

from ftl.contract import CONTAINER_BUNDLE, CONTAINER_CACHE, CONTAINER_MOUNTS, CONTAINER_RUN
from ftl.errors import ExitCode
from ftl.render.asked import Asked
from ftl.yamlout import dump

_VOLUME = "ftl"
_SECRET = "ftl-secrets"
_DISK_GIB = 100


def kubernetes_job(asked: Asked) -> str:
    """The manifests, comments included."""
    return _head(asked) + dump(_claim(asked), _job(asked))


def _head(asked: Asked) -> str:
    lines = [
        "# A Kubernetes Job: `kubectl apply -f FILE`. The volume keeps bundle, run and model; before the Job starts,",
        "# copy what it trains on into it, through any pod that mounts the volume at /ftl:",
        f"#   kubectl cp {asked.bundle.path} POD:{_place('bundle', asked)}",
        *(f"#   kubectl cp {mount.source} POD:/ftl/mounts/{mount.name}" for mount in asked.spec.mounts),
    ]
    if asked.spec.secrets:
        literals = " ".join(f'--from-literal={name}="${name}"' for name in asked.spec.secrets)
        lines.append(f"#   kubectl create secret generic {_SECRET} {literals}")
    if asked.gpu_kinds:
        lines.append(f"# GPUs asked for: {', '.join(asked.gpu_kinds)}; name your cluster's label under nodeSelector.")
    return "\n".join(lines) + "\n" + asked.without()


def _place(kind: str, asked: Asked) -> str:
    """Where something of this run lies in the volume, as a pod that mounts it at /ftl sees it."""
    return f"/ftl/{kind}s/{asked.bundle.sha256[:16] if kind == 'bundle' else asked.name}"


def _claim(asked: Asked) -> dict[str, Any]:  # Any: YAML
    size = f"{asked.disk_gib or _DISK_GIB}Gi"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _VOLUME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def _job(asked: Asked) -> dict[str, Any]:  # Any: YAML
    """One pod; started again only after the exit code that says it can go on."""
    goes_on = {"containerName": "ftl", "operator": "NotIn", "values": [int(ExitCode.PREEMPTED)]}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": asked.spec.grace_s,
        "containers": [_container(asked)],
        "volumes": [
            {"name": _VOLUME, "persistentVolumeClaim": {"claimName": _VOLUME}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{asked.spec.resources.shm_gib:g}Gi"}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": asked.name, "labels": {"app": "ftl"}},
        "spec": {
            "backoffLimit": asked.max_attempts,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": goes_on}]},
            "template": {"metadata": {"labels": {"app": "ftl"}}, "spec": pod},
        },
    }


def _container(asked: Asked) -> dict[str, Any]:  # Any: YAML
    spec = asked.spec
    secrets = [{"name": name, "valueFrom": {"secretKeyRef": {"name": _SECRET, "key": name}}} for name in spec.secrets]
    requests: dict[str, Any] = {}
    if asked.cpus is not None:
        requests["cpu"] = f"{asked.cpus:g}"
    if asked.memory_gib is not None:
        requests["memory"] = f"{asked.memory_gib:g}Gi"
    num_gpus = 1 if asked.num_gpus is None else asked.num_gpus
    resources = {"requests": requests} if requests else {}
    resources |= {"limits": {"nvidia.com/gpu": num_gpus}} if num_gpus else {}
    mounted = [
        {"name": _VOLUME, "mountPath": CONTAINER_BUNDLE, "subPath": _place("bundle", asked).removeprefix("/ftl/")},
        {"name": _VOLUME, "mountPath": CONTAINER_RUN, "subPath": _place("run", asked).removeprefix("/ftl/")},
        {"name": _VOLUME, "mountPath": CONTAINER_CACHE, "subPath": "cache"},
        *([{"name": _VOLUME, "mountPath": CONTAINER_MOUNTS, "subPath": "mounts"}] if spec.mounts else []),
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    return {
        "name": "ftl",
        "image": asked.image,
        "command": ["bash", "-c", asked.script()],
        "env": [*({"name": name, "value": value} for name, value in spec.env.items()), *secrets],
        "resources": resources,
        "volumeMounts": mounted,
    }

"""What SkyPilot is asked for: one attempt as the mapping that sky.Task.from_yaml_config takes. Pure, and no secrets."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from ftl.backends.secret_files import memory_folder, secrets_dir
from ftl.backends.skypilot_cloud import SkypilotCloud
from ftl.contract import BUNDLE_CODE, Bundle, JobSpec, Paths
from ftl.image import Recipe, lock_path, recipe

HOME = "~/.ftl"
"""Where a machine keeps what ftl sends it."""
PREFIX = "ftl-"
"""How the names of clusters and managed jobs begin."""
PREEMPTED = 75
"""The exit code after which SkyPilot starts a managed job on another machine."""
_ENTRY = "ftl_runtime.sky_entry"
_ORDER = "FTL_ORDER"
"""Between two of it stands the order in a task's script."""


def job_name(spec: JobSpec) -> str:
    """The name of an attempt's cluster or managed job: what finds it again."""
    return name_of(spec.run_id, spec.attempt)


def name_of(run_id: str, attempt: int) -> str:
    return f"{PREFIX}{run_id[:48].rstrip('-')}-{attempt}"


def mark_of(spec: JobSpec) -> str:
    """What begins each line of the job's output that is for ftl: nobody else's lines look like it by chance."""
    return f"@ftl:{hashlib.sha256(f'{spec.run_id}/{spec.attempt}'.encode()).hexdigest()[:12]}"


def stop_file(mark: str) -> str:
    """The name of the file in the job's working directory that tells it to stop, and not to be started again."""
    return mark.replace("@ftl:", "ftl-stop-")


def run_directory(spec: JobSpec, cloud: SkypilotCloud) -> str:
    """The run directory on the machine."""
    return f"{cloud.shared or HOME}/runs/{spec.run_id}"


def job_there(spec: JobSpec, cloud: SkypilotCloud, bundle: Bundle) -> JobSpec:
    """The job with its paths as the machine sees them."""
    paths = Paths(
        bundle=_bundle_there(bundle),
        run=run_directory(spec, cloud),
        cache=f"{cloud.shared or HOME}/cache",
        mounts={mount.name: f"{HOME}/mounts/{mount.name}" for mount in spec.mounts},
        secrets=_secrets_there(spec) if spec.secrets else None,
    )
    return spec.model_copy(update={"paths": paths})


def task(  # Any: YAML
    spec: JobSpec,
    cloud: SkypilotCloud,
    bundle: Bundle,
    *,
    image: str | None,
    record: dict[str, Any] | None = None,
    run_dir: Path = Path("/"),
) -> dict[str, Any]:
    """The task. `image` is repository@digest, or None where the machine brings what training needs; `record` is for
    launchers on other machines, which read it in the task; `run_dir` has what the run brings along."""
    mounts = {_bundle_there(bundle): bundle.path}
    mounts |= {f"{_carried_there(spec)}/{name}": str(run_dir / name) for name in spec.carried}
    mounts |= {f"{HOME}/mounts/{mount.name}": mount.source for mount in spec.mounts}
    folder = memory_folder()
    if spec.secrets:
        source = secrets_dir(folder or Path("/dev/shm"), spec.run_id, spec.attempt)
        mounts[_secrets_there(spec)] = str(source)
    made: dict[str, Any] = {"name": job_name(spec), "num_nodes": cloud.nodes, "resources": _resources(cloud, image)}
    if image is None and cloud.python is None:
        lock = _lock(cloud)
        mounts[f"{HOME}/locks/{lock.lock}"] = str(lock_path(lock))
        made["setup"] = _setup(lock)
    made["file_mounts"] = mounts
    made["run"] = _run(spec, cloud, bundle, image, record)
    own_setup = cloud.sky.get("setup")
    asked = {key: value for key, value in cloud.sky.items() if key != "setup"}
    if own_setup:
        made["setup"] = "\n".join(part for part in (str(own_setup).rstrip(), made.get("setup")) if part)
    return merged(made, asked)


def order_in(script: str) -> dict[str, Any]:  # Any: JSON
    """What the script of a task says to the entry; empty for one that is not of ftl."""
    parts = script.split(_ORDER)
    try:
        order: dict[str, Any] = json.loads(parts[1].lstrip("'"))
    except (IndexError, ValueError):
        return {}
    return order


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:  # Any: YAML
    """Both mappings; where they differ that of `above`, mapping by mapping."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _bundle_there(bundle: Bundle) -> str:
    return f"{HOME}/bundles/{bundle.sha256[:16]}"


def _carried_there(spec: JobSpec) -> str:
    return f"{HOME}/carried/{spec.run_id}-{spec.attempt}"


def _secrets_there(spec: JobSpec) -> str:
    return f"{HOME}/secrets/{spec.run_id}-{spec.attempt}"


def _resources(cloud: SkypilotCloud, image: str | None) -> dict[str, Any]:  # Any: YAML
    """What each machine must have; several choices as `ordered` where their order counts, else as `any_of`."""
    common: dict[str, Any] = {}
    if cloud.cpus is not None:
        common["cpus"] = f"{cloud.cpus:g}+"
    if cloud.memory is not None:
        common["memory"] = f"{cloud.memory:g}+"
    if cloud.disk is not None:
        common["disk_size"] = cloud.disk
    if cloud.max_usd_per_hour is not None:
        common["max_hourly_cost"] = cloud.max_usd_per_hour
    if image is not None:
        common["image_id"] = f"docker:{image}"
    if cloud.is_managed:
        recovery: dict[str, Any] = {"max_restarts_on_errors": 0, "recover_on_exit_codes": [PREEMPTED]}
        common["job_recovery"] = {"strategy": cloud.strategy or "EAGER_NEXT_REGION", **recovery}
    else:
        common["autostop"] = {"idle_minutes": cloud.autostop, "down": True}
    spots = (True, False) if cloud.spot == "prefer" else (bool(cloud.spot),)
    choices = [
        {
            **({"infra": place} if place else {}),
            **({"accelerators": gpu} if gpu else {}),
            **({"use_spot": True} if spot else {}),
        }
        for spot in spots
        for place in cloud.places or (None,)
        for gpu in cloud.gpus or (None,)
    ]
    if len(choices) == 1:
        return {**choices[0], **common}
    # Of a set the controller of managed jobs makes a list in any order: a machine on demand might come first.
    is_ordered = bool(cloud.ordered) or len(cloud.gpus) > 1 or cloud.spot == "prefer"
    return {**common, "ordered" if is_ordered else "any_of": choices}


def _lock(cloud: SkypilotCloud) -> Recipe:
    """Whose locked packages are installed where there is no image."""
    return recipe("cuda" if cloud.num_gpus else "cpu")


def _environment(lock: Recipe) -> str:
    """Where they are installed, in the words of the machine's shell."""
    return f"$HOME/.ftl/env-{lock.sha256[:12]}"


def _setup(lock: Recipe) -> str:
    """Installs the locked packages once for each lock; a machine that has them is left as it is."""
    index = " --extra-index-url " + shlex.quote(lock.torch_index) + " --index-strategy unsafe-best-match"
    return "\n".join(
        (
            "set -e",
            f'env="{_environment(lock)}"',
            'if [ ! -e "$env/ready" ]; then',
            '  uv=$(command -v uv || echo "$HOME/.local/bin/uv")',
            '  "$uv" venv --clear --python 3.12 "$env"',
            '  "$uv" pip install --python "$env/bin/python" --require-hashes'
            f' -r "$HOME/.ftl/locks/{lock.lock}"{index if lock.torch_index else ""}',
            '  touch "$env/ready"',
            "fi",
        )
    )


def _run(spec: JobSpec, cloud: SkypilotCloud, bundle: Bundle, image: str | None, record: dict[str, Any] | None) -> str:
    """Starts the entry, which reads its order from standard input."""
    if cloud.python is not None:
        python = cloud.python
    elif image is not None:
        python = "python"
    else:
        python = f"{_environment(_lock(cloud))}/bin/python"
    order: dict[str, Any] = {
        "mark": mark_of(spec),
        "job": json.loads(job_there(spec, cloud, bundle).model_dump_json()),
        **({} if record is None else {"record": record}),
        **({"carried": _carried_there(spec)} if spec.carried else {}),
    }
    code = _bundle_there(bundle).replace("~", "$HOME", 1)
    return "\n".join(
        (
            *(("if [ -r /etc/profile.d/ftl.sh ]; then . /etc/profile.d/ftl.sh; fi",) if image is not None else ()),
            f'export PYTHONPATH="{code}/{BUNDLE_CODE}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1',
            f"exec \"{python}\" -m {_ENTRY} <<'{_ORDER}'",
            json.dumps(order, indent=1, sort_keys=True),
            _ORDER,
            "",
        )
    )

"""dstack: a task file that trains an axolotl config, as a cloud file. The config itself is ftl's dialect already."""

import re
from pathlib import Path
from typing import Any

from ftl import gpus
from ftl.errors import ConfigError, Problem
from ftl.importers.commandline import statements
from ftl.importers.machines import TRACKER_KEYS, place_secret, place_variable
from ftl.importers.secret import is_secret, masked, without_secrets
from ftl.importers.sheet import Imported, Line, shown
from ftl.yamlfile import read

_PROCESS_FLAGS = ("--num_processes", "--num-processes", "--nproc_per_node", "--nproc-per-node")
_NO_CLOUD = "docker trains on the machine you have; cloud_templates/any-cloud.yml rents one"
_DROPPED = {
    "name": "a run is named after its config",
    "image": "ftl trains in a pinned image of its own",
    "python": "ftl trains in a pinned image of its own",
    "ports": "the job serves nothing; `ftl attach` shows its losses",
    **dict.fromkeys(
        (
            *("spot_policy", "max_price", "idle_duration", "backends", "regions", "availability_zones"),
            *("instance_types", "reservation", "creation_policy", "fleets", "utilization_policy", "schedule"),
        ),
        _NO_CLOUD,
    ),
    "retry": "a run that lost its machine is started again, up to `max_attempts` times",
    "volumes": "the model, the data and the checkpoints are mounted by ftl itself",
    "nodes": "write `nodes` in a cloud file of skypilot or modal",
    "priority": "there is no queue",
    "tags": "there is no cloud account to tag",
    **dict.fromkeys(("repos", "files", "working_dir", "home_dir"), "ftl brings the code and the files that are named"),
    **dict.fromkeys(("registry_auth", "privileged", "user", "entrypoint"), "ftl's image is public and has no rights"),
}
_TRAINS = re.compile(r"(^|.*/)(axolotl\.cli\.train|finetune\.py|train)$")
_PREPARES = {
    "pip": "the image has what training needs",
    "uv": "the image has what training needs",
    "apt": "the image has what training needs",
    "apt-get": "the image has what training needs",
    "git": "ftl brings the code that it needs",
    "cd": "paths in a config are relative to the config",
    "wandb": "the API key is a secret of the cloud file",
    "huggingface-cli": "HF_TOKEN is a secret of the cloud file",
}


def import_dstack(source: str) -> Imported:
    """A task file, or the `dstack run` or `dstack apply` that starts it, as a cloud file and the config it trains.

    Raises ConfigError when it is no task, or no command of it trains an axolotl config.
    """
    imported = Imported(cloud={"provider": "docker"})
    path = _task_file(source, imported)
    task = {key: value for key, value in read(path).data.items() if value is not None}
    kind = task.pop("type", None)
    if kind != "task":
        raise ConfigError(Problem(str(path), f"type = {kind}", "must be a task: only those train and end"))
    _place_commands(path, task.pop("commands", []), imported)
    _place_env(task.pop("env", []), imported)
    _place_resources(task.pop("resources", {}), imported)
    for key, name in (("max_duration", "timeout"), ("stop_duration", "grace")):
        value = task.pop(key, None)
        if value not in (None, "off", False):
            imported.place_cloud(f"{key}: {value}", {name: value})
    for key, value in task.items():
        imported.drop(shown({key: value}), _DROPPED.get(key, "unknown to this import"))
    return imported


_LONG = {
    "-f": "--file",
    "-d": "--detach",
    "-n": "--name",
    "-e": "--env",
    "-y": "--yes",
    "-p": "--port",
    "-b": "--backend",
}
_VALUED = (
    *("--file", "--name", "--env", "--port", "--backend", "--gpu", "--max-price", "--max-duration", "--region"),
    *("--instance-type", "--profile", "--retry-duration", "--pool", "--idle-duration", "--disk", "--fleet"),
)
_FLAGS_DROPPED = {
    "--name": _DROPPED["name"],
    "--port": _DROPPED["ports"],
    "--yes": "`ftl train` asks nothing before it starts",
    "--force": "each run has an id of its own",
}


def _task_file(source: str, imported: Imported) -> Path:
    """The file that `source` is, or that a command line of dstack names with -f; its other flags are reported.

    Raises ConfigError when the command line starts no task.
    """
    words = statements(source) if source.split()[:1] == ["dstack"] else []
    if not words:
        return Path(source)
    if words[0][1:2] not in (["run"], ["apply"]):
        given = " ".join(words[0][:2])
        raise ConfigError(Problem("command", given, "must be dstack run or dstack apply", "or name the task file"))
    file: str | None = None
    rest = iter(words[0][2:])
    for word in rest:
        name, equals, value = word.partition("=")
        name = _LONG.get(name, name)
        if name in _VALUED and not equals:
            value = next(rest, "")
        if name == "--file":
            file = value
        elif name.startswith("-"):
            _place_flag(name, f"{word} {value}" if name in _VALUED and not equals else word, value, imported)
    if not file:
        raise ConfigError(Problem("command", source[:60], "names no task file", "add -f FILE"))
    return Path(file)


def _place_flag(name: str, given: str, value: str, imported: Imported) -> None:
    if name == "--detach":
        imported.arguments += ("--detach",)
        imported.lines.append(Line(given, "ftl train --detach"))
    elif name == "--gpu":
        _place_gpu(given, _gpu(value), imported)
    elif name == "--env":
        _place_env([value], imported)
    elif name == "--max-duration":
        imported.place_cloud(given, {"timeout": value})
    else:
        imported.drop(given, _FLAGS_DROPPED.get(name, _NO_CLOUD))


def _place_commands(path: Path, commands: Any, imported: Imported) -> None:  # Any: what YAML holds
    texts = [commands] if isinstance(commands, str) else commands
    if not isinstance(texts, list):
        raise ConfigError(Problem(str(path), f"commands = {shown({'': texts})[2:]}", "must be a list of commands"))
    words = [statement for text in texts for statement in statements(str(text))]
    training = [statement for statement in words if _config_of(statement)]
    if not training:
        remedy = "for other programs see `ftl import --help`"
        raise ConfigError(Problem(str(path), "commands", "no command trains an axolotl config", remedy))
    for statement in words:
        text = " ".join(masked(statement))
        if statement == training[0]:
            at = _config_of(statement)
            arguments = without_secrets(_without_processes(statement[at:]))
            imported.arguments = (*arguments, *imported.arguments)
            imported.lines.append(Line(text, f"ftl train {' '.join(arguments)} --cloud FILE"))
            if masked(statement[at:]) != statement[at:]:
                imported.drop("***", "a secret on a command line; export it, and name it under `secrets`")
            _place_processes(statement, imported)
        elif statement in training:
            imported.drop(text, "a second training; launch it as a run of its own")
        elif "preprocess" in text:
            imported.drop(text, "`ftl train` prepares the data itself; `ftl preprocess` does it without a GPU")
        elif statement[0] == "export":
            _place_env(statement[1:], imported)
        else:
            imported.drop(text, _PREPARES.get(statement[0], "ftl starts the training and nothing else"))


def _config_of(statement: list[str]) -> int:
    """Where in a command the config stands that it trains; 0 when it trains none."""
    start = next((at for at, word in enumerate(statement) if _TRAINS.match(word)), None)
    if start is None:
        return 0
    rest = range(start + 1, len(statement))
    return next((at for at in rest if statement[at].endswith((".yml", ".yaml"))), 0)


def _place_processes(words: list[str], imported: Imported) -> None:
    found = re.search(rf"(?:{'|'.join(_PROCESS_FLAGS)})[= ](\d+)", " ".join(words))
    if found:
        imported.place_cloud(found[0], {"gpu": int(found[1])})


def _without_processes(words: list[str]) -> list[str]:
    """The arguments without the number of processes, which is the number of GPUs of the cloud file."""
    kept: list[str] = []
    words_left = iter(words)
    for word in words_left:
        if word in _PROCESS_FLAGS:
            next(words_left, None)
        elif word.partition("=")[0] not in _PROCESS_FLAGS:
            kept.append(word)
    return kept


def _place_env(env: Any, imported: Imported) -> None:  # Any: what YAML holds
    entries = [f"{key}={value}" for key, value in env.items()] if isinstance(env, dict) else env
    for entry in entries if isinstance(entries, list) else [entries]:
        name, equals, value = str(entry).partition("=")
        if is_secret(name, value):
            place_secret(name, imported)
        elif equals and name in TRACKER_KEYS:
            imported.drop(str(entry), f"write `{TRACKER_KEYS[name]}: {value}` into the config")
        elif equals:
            place_variable(name, value, imported)
        else:
            imported.drop(name, "its value is only in your shell; write it under `env` of the cloud file")


def _place_resources(resources: Any, imported: Imported) -> None:  # Any: what YAML holds
    for key, value in (resources if isinstance(resources, dict) else {}).items():
        given = f"resources.{shown({key: value})}"
        if key == "gpu":
            _place_gpu(given, _gpu(value), imported)
        elif key == "shm_size":
            imported.place_cloud(given, {"shm": _gigabytes(str(value))[0]})
        elif key in ("cpu", "memory"):
            imported.drop(given, f"the least a machine must have; `{'cpus' if key == 'cpu' else key}` here is a limit")
        else:
            imported.drop(given, _NO_CLOUD)


def _place_gpu(given: str, gpu: dict[str, Any], imported: Imported) -> None:  # Any: what YAML holds
    count = str(gpu.get("count", 1)).partition("..")[0]
    if "gpu" not in imported.cloud:
        imported.place_cloud(given, {"gpu": int(count) if count.isdecimal() else 1}, _kinds(gpu))
    else:
        imported.drop(given, f"the launcher names how many. {_kinds(gpu)}".strip())


def _kinds(gpu: dict[str, Any]) -> str:  # Any: what YAML holds
    """What kind of GPU was asked for, in a sentence for the report."""
    if "name" in gpu:
        return f"use a machine with {gpu['name']}: {_NO_CLOUD}"
    if "memory" not in gpu:
        return ""
    least, most = _gigabytes(str(gpu["memory"]))
    names = ", ".join(kind.name for kind in gpus.with_memory(least or 0, most)[:4])
    return f"use a machine with {gpu['memory']} a GPU, such as {names or 'none that ftl knows'}: {_NO_CLOUD}"


def _gpu(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    """`A100:40GB:2`, `24GB..`, `2` or a mapping, as a mapping of name, memory and count."""
    if isinstance(value, dict):
        return value
    found: dict[str, Any] = {}  # Any: what YAML holds
    for part in str(value).split(":"):
        is_count = part.replace("..", "").isdecimal()
        found["count" if is_count else "memory" if re.match(r"[\d.]", part) else "name"] = part
    return found


def _gigabytes(text: str) -> tuple[float | None, float | None]:
    """`24GB..` is (24, None), `40GB..80GB` (40, 80), `24GB` (24, 24)."""
    bounds = [re.match(r"([\d.]+)\s*(T|G|M)?", part.strip(), re.I) for part in text.split("..")]
    factor = {"T": 1024.0, "G": 1.0, "M": 1 / 1024}
    numbers = [None if b is None else float(b[1]) * factor[(b[2] or "G").upper()] for b in bounds]
    return numbers[0], numbers[-1]

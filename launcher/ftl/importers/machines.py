"""What a command line says of machines, variables and secrets, as a cloud file."""

import re

from ftl.importers.commandline import Command
from ftl.importers.secret import is_secret, masked
from ftl.importers.sheet import Imported

HUB_TOKENS = {"HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HF_API_TOKEN"}
TRACKER_KEYS = {
    "WANDB_PROJECT": "wandb_project",
    "WANDB_ENTITY": "wandb_entity",
    "WANDB_NAME": "wandb_name",
    "WANDB_MODE": "wandb_mode",
    "WANDB_WATCH": "wandb_watch",
    "WANDB_LOG_MODEL": "wandb_log_model",
}
_PROCESSES = ("nproc_per_node", "num_processes", "num_gpus")
_NODES = ("nnodes", "num_machines", "num_nodes")
_OWN = "ftl starts the processes itself"


def num_processes(command: Command) -> int:
    """How many processes the launcher starts on this machine, as far as it says so; else 1."""
    counts = [command.launcher_flags[name] for name in _PROCESSES if isinstance(command.launcher_flags.get(name), int)]
    return counts[0] if counts else 1


def place_machines(command: Command, imported: Imported) -> None:
    """What a command says besides the flags of its program: GPUs, variables, secrets, the settings of trackers."""
    for argument in masked(command.stray):
        imported.drop(argument, "an argument without a flag; the program takes none")
    launcher = " ".join(command.launcher)
    for name, value in command.launcher_flags.items():
        given = f"{launcher} --{name}" if value is True else f"{launcher} --{name} {value}"
        if name in _PROCESSES:
            _place_gpus(given, value, command, imported)
        elif name in _NODES and value not in (1, "1:1"):
            imported.drop(given, "write `nodes` in a cloud file of skypilot or modal")
        elif name == "config_file":
            imported.drop(given, "is not read: say in the cloud file how many GPUs to use")
        else:
            imported.drop(given, _OWN)
    for name, value in command.env.items():
        place_variable(name, value, imported)
    if imported.cloud:
        imported.cloud = {"provider": "docker", **imported.cloud}


def place_variable(name: str, value: str, imported: Imported) -> None:
    """One variable of the environment: a secret by its name alone, others with their value."""
    if is_secret(name, value):
        place_secret(name, imported)
    elif name in TRACKER_KEYS:
        imported.place(f"{name}={value}", {TRACKER_KEYS[name]: value})
    elif name == "CUDA_VISIBLE_DEVICES":
        ids = [item.strip() for item in value.split(",") if item.strip()]
        imported.place_cloud(f"{name}={value}", {"gpu": ids} if ids else {"gpu": 0})
    elif re.match(r"(NCCL|GLOO|OMP|TORCH|PYTORCH|HF|TOKENIZERS|TRANSFORMERS|CUDA)_", name):
        imported.place_cloud(f"{name}={value}", {"env": {**imported.cloud.get("env", {}), name: value}})
    else:
        imported.drop(f"{name}={value}", "a variable of the shell; what used it has its value")


def place_secret(name: str, imported: Imported) -> None:
    """A secret by its name; the value stays in the shell that starts the run."""
    wanted = "HF_TOKEN" if name in HUB_TOKENS else name
    why = "its value is taken from your shell when a run starts" + (f"; {name} is its older name" * (wanted != name))
    names = dict.fromkeys([*imported.cloud.get("secrets", []), wanted])
    imported.place_cloud(name, {"secrets": list(names)}, why)


def _place_gpus(given: str, value: object, command: Command, imported: Imported) -> None:
    if "CUDA_VISIBLE_DEVICES" in command.env:
        imported.drop(given, "as many as CUDA_VISIBLE_DEVICES names")
    elif isinstance(value, int):
        imported.place_cloud(given, {"gpu": value})
    else:
        imported.place_cloud(given, {"gpu": "all"})

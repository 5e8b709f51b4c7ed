"""What may not stand under `env` of a cloud file: secrets, and servers that would get the user's."""

import os

from ftl.cloud import CloudSection
from ftl.errors import Problem
from ftl.redact import has_secret_form, is_secret_name
from ftl.yamlfile import YamlFile

_RECEIVERS = {"HF_ENDPOINT": "HF_TOKEN", "WANDB_BASE_URL": "WANDB_API_KEY", "COMET_URL_OVERRIDE": "COMET_API_KEY"}
"""Variable with the address of a server -> the secret that every request to it carries."""
_HOME = {"HF_ENDPOINT": "https://huggingface.co", "WANDB_BASE_URL": "https://api.wandb.ai"}


def env_problems(cloud: CloudSection, file: YamlFile) -> list[Problem]:
    """Each variable of the file that is a secret, or that names a server this shell does not name too."""
    found = []
    for name, value in cloud.env.items():
        where, own = file.where(("env", name)), os.environ.get(name)
        if is_secret_name(name) or has_secret_form(value):
            remedy = f"write `secrets: [{name}]`, and `export {name}=...` in the shell that starts the run"
            found.append(Problem(where, f"env.{name}", "looks like a secret, and everybody can read `env`", remedy))
        elif name in _RECEIVERS and value.rstrip("/") not in (_HOME.get(name), (own or "").rstrip("/")):
            allowed = f"your {_RECEIVERS[name]} would be sent there, and this shell does not name that server"
            remedy = f"if you trust it, `export {name}=...` the same address; else remove it"
            found.append(Problem(where, f"env.{name}", allowed, remedy))
    return found

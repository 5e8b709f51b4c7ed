"""The app of a run as Modal's client deploys it, made from its plan and nothing else but the values of secrets."""

import importlib.util
import os
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ftl.backends.modal_image import ImagePlan
from ftl.backends.modal_plan import CACHE_MOUNT, ENTRY_MODULE, STATE_MOUNT, FunctionPlan, ModalPlan
from ftl.packaged import packaged

if TYPE_CHECKING:
    import modal


def app_of(asked: ModalPlan) -> "modal.App":
    """The app as Modal's client deploys it."""
    import modal

    os.environ["MODAL_IMAGE_BUILDER_VERSION"] = asked.builder_version
    app = modal.App(asked.app, include_source=False, tags=asked.tags)
    image = _image(asked.image, asked.environment).add_local_file(entry_file(), f"/root/{ENTRY_MODULE}.py")
    secrets = [
        modal.Secret.from_dict({key: os.environ[key] for key in one.keys})
        if one.name is None
        else modal.Secret.from_name(one.name, environment_name=asked.environment, required_keys=list(one.keys))
        for one in asked.secrets
    ]
    own = {asked.volumes[STATE_MOUNT], asked.volumes[CACHE_MOUNT]}
    mounted: dict[str | PurePosixPath, Any] = {  # Any: volumes, in the client's own type
        mount: modal.Volume.from_name(
            name, environment_name=asked.environment, create_if_missing=True, version=2 if name in own else None
        )
        for mount, name in asked.volumes.items()
    }
    for function in asked.functions:
        app.function(
            name=function.name,
            image=image,
            secrets=secrets,
            volumes=mounted,
            gpu=_gpu(function),
            cpu=function.cpu,
            memory=function.memory_mib,
            ephemeral_disk=function.disk_mib,
            timeout=function.timeout_s,
            startup_timeout=function.startup_timeout_s,
            retries=modal.Retries(max_retries=function.retries, initial_delay=0.0, backoff_coefficient=1.0),
            single_use_containers=True,
            max_containers=function.max_containers,
            region=list(function.regions) or None,
            cloud=function.cloud,
            include_source=False,
        )(_entry(function))
    return app


def _gpu(function: FunctionPlan) -> str | list[str] | None:
    return list(function.gpu) if len(function.gpu) > 1 else next(iter(function.gpu), None)


def _entry(function: FunctionPlan) -> Any:  # Any: a function, or what the client makes of one for a cluster
    import modal

    module = entry_module(entry_file())
    target = {"prepare": module.prepare, "train": module.train}[function.name]
    return modal.clustered(size=function.nodes, rdma=function.rdma)(target) if function.nodes > 1 else target


def entry_file() -> Path:
    """The module that Modal calls. Its package is looked up, not imported."""
    package = find_spec("ftl_runtime")
    assert package is not None and package.origin is not None, "it is part of this distribution"
    return Path(package.origin).parent / f"{ENTRY_MODULE}.py"


@lru_cache(maxsize=1)
def entry_module(path: Path) -> ModuleType:
    """The client takes functions of a module that it can name: a file by itself, as the container sees it."""
    spec = importlib.util.spec_from_file_location(ENTRY_MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[ENTRY_MODULE] = module
    spec.loader.exec_module(module)
    return module


def _image(asked: ImagePlan, environment: str | None) -> "modal.Image":
    import modal

    secret = asked.registry_secret
    image = modal.Image.from_registry(
        asked.base,
        secret=modal.Secret.from_name(secret, environment_name=environment) if secret else None,
        setup_dockerfile_commands=list(asked.setup),
    ).entrypoint([])
    for layer in asked.layers:
        if layer.kind == "file":
            image = image.add_local_file(packaged("images") / layer.source, layer.target, copy=True)
        elif layer.kind == "run":
            image = image.run_commands(*layer.lines)
        elif layer.kind == "env":
            image = image.env(layer.env)
        else:
            image = image.dockerfile_commands(list(layer.lines))
    return image

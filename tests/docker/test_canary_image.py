"""Secrets as canaries in what an engine keeps: images, their layers and histories, containers.

`docker save` of an image takes minutes, for gigabytes that cannot hold what is looked for: a layer is named after its
content, and those of the image `built` were made before the secrets here were drawn. So what is read of an image is
its config (all of which inspect and history show) and the layers that `built` has not, where the engine keeps them.
The one step of a build that is given secrets, the installation, is among the older ones; it gets them as mounts, which
are in no layer, and "nothing of the build's secrets is left" of test_image_build.py looks at what it leaves.
"""

import base64
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from canaries import below, forms, leaks
from docker_places import BASE, DEBIAN_CLIENT, Make, Workplace, build_options, ended, started, unavailable

from ftl import image, packaged
from ftl.image import BuiltImage

if TYPE_CHECKING:
    from docker import DockerClient

Cli = Callable[..., str]


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Values that nothing has seen before, all but that of the registry in this shell."""
    names = ("HF_TOKEN", "WANDB_API_KEY", "PIP_PASSWORD", "REGISTRY_PASSWORD")
    drawn = {name: f"canary/{secrets.token_hex(12)}" for name in names}
    for name in names[:2]:
        monkeypatch.setenv(name, drawn[name])
    return drawn


@pytest.fixture
def login(canaries: dict[str, str], registry: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `docker login` writes down: clients send it to the engine with every pull and push."""
    folder = tmp_path / "docker-login"
    folder.mkdir()
    auth = base64.b64encode(f"ann:{canaries['REGISTRY_PASSWORD']}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


@pytest.fixture
def rebuilt(
    canaries: dict[str, str],
    login: None,
    built: BuiltImage,
    registry: str,
    docker_cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[BuiltImage]:
    """The image, with other last steps, built and pushed by somebody who has secrets everywhere."""
    recipes = tmp_path / "images"
    shutil.copytree(packaged.packaged("images"), recipes)
    (recipes / "selftest.py").write_text(f"print({secrets.token_hex(4)!r})\n")  # else it imports all for half a minute
    monkeypatch.setattr(image, "packaged", lambda name: recipes)
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nextra-index-url = https://ann:{canaries['PIP_PASSWORD']}@127.0.0.1:1/simple\n")
    reference = f"{registry}/ftl-test/cpu:{secrets.token_hex(6)}"
    made = image.build("cpu", base=BASE, client=DEBIAN_CLIENT, pip_conf=settings, push=reference, **build_options())
    monkeypatch.setattr(image, "packaged", packaged.packaged)
    yield made
    docker_cli("image", "rm", "--force", made.id)


def layers(engine: "DockerClient", image_id: str) -> dict[str, Path]:
    """The layers of an image by their digests, lowest first, and where the engine keeps what is in each."""
    found = engine.api.inspect_image(image_id)
    if found["GraphDriver"]["Name"] != "overlay2":
        unavailable("the engine keeps its images otherwise than as overlay2")
    data = found["GraphDriver"]["Data"]
    places = [Path(place) for place in (data["UpperDir"], *data.get("LowerDir", "").split(":")) if place]
    if not places[0].is_dir():
        unavailable("the engine's layers cannot be read from here")
    return dict(zip(found["RootFS"]["Layers"], reversed(places), strict=True))


def told_of_image(engine: "DockerClient", image_id: str, known: dict[str, Path]) -> dict[str, bytes]:
    """Its config and history, and what is in the layers that are not known."""
    told = {
        "inspect of the image": json.dumps(engine.api.inspect_image(image_id)).encode(),
        "history": json.dumps(engine.api.history(image_id)).encode(),
    }
    new = [place for digest, place in layers(engine, image_id).items() if digest not in known]
    return told | _files(*new)


def told_of_container(engine: "DockerClient", container: str) -> dict[str, bytes]:
    """Its config, its processes, what it has said, and its own layer."""
    found = engine.api.inspect_container(container)
    told: dict[str, Any] = {"inspect": found, "top": engine.api.top(container), "diff": engine.api.diff(container)}
    shown = {f"{what} of the container": json.dumps(content).encode() for what, content in told.items()}
    return shown | {"logs": engine.api.logs(container)} | _files(Path(found["GraphDriver"]["Data"]["UpperDir"]))


def _files(*folders: Path) -> dict[str, bytes]:
    return {name: content for name, content in below(*folders).items() if not Path(name).is_symlink()}


def test_search_finds_what_a_layer_a_label_and_a_step_hold(
    engine: "DockerClient", docker_cli: Cli, canaries: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "hidden").write_bytes(base64.b64encode(f"x{canaries['HF_TOKEN']}".encode()))
    (tmp_path / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY hidden /etc/\nLABEL told={canaries['WANDB_API_KEY']}\nENV WITH={canaries['PIP_PASSWORD']}\n"
    )
    made = docker_cli("build", "--quiet", str(tmp_path)).strip()
    try:
        told = told_of_image(engine, made, layers(engine, engine.images.get(BASE).id))
        found = {name: leaks(told, list(forms(secret))) for name, secret in canaries.items()}
    finally:
        docker_cli("image", "rm", "--force", made)
    assert any("/etc/hidden" in leak for leak in found["HF_TOKEN"])
    assert any("inspect of the image" in leak for leak in found["WANDB_API_KEY"])
    assert any("history" in leak for leak in found["PIP_PASSWORD"])
    assert found["REGISTRY_PASSWORD"] == []


def test_image_and_containers_hold_no_secret_of_whoever_built_and_ran_them(
    engine: "DockerClient",
    built: BuiltImage,
    rebuilt: BuiltImage,
    canaries: dict[str, str],
    place: Workplace,
    make_backend: Make,
) -> None:
    """Built, pushed, pulled again, and run twice: once with nothing asked for, once with secrets and variables."""
    told = told_of_image(engine, rebuilt.id, layers(engine, built.id))
    assert any(name.endswith("selftest.py") for name in told), "the build has made layers, and they were read"
    assert rebuilt.pushed is not None
    backend = make_backend(image=rebuilt.pushed)
    engine.images.remove(rebuilt.id, force=True)
    for attempt, asked in enumerate(({}, {"secrets": ("HF_TOKEN", "WANDB_API_KEY"), "env": {"COLOUR": "blue"}}), 1):
        env = {"FTL_STUB": "wait", **asked.get("env", {})}
        spec = place.spec(backend, attempt=attempt, **{**asked, "env": env})
        handle = backend.submit(spec, place.bundle, place.run_dir)
        started(backend, handle)
        seen = json.loads(backend.read(handle, "facts.json", 0))
        assert set(seen["secret_lengths"]) == set(asked.get("secrets", ()))
        container = str(handle.ref["container"])
        told |= {
            f"attempt {attempt}: {name}": content for name, content in told_of_container(engine, container).items()
        }
        backend.cancel(handle)
        ended(backend, handle)
        told[f"attempt {attempt}, ended"] = json.dumps(engine.api.inspect_container(container)).encode()
        (place.run_dir / "facts.json").unlink()
        backend.remove(handle)
    told |= {
        f"after: {name}": text for name, text in told_of_image(engine, rebuilt.id, layers(engine, built.id)).items()
    }
    told |= below(place.run_dir)
    assert leaks(told, [form for secret in canaries.values() for form in forms(secret)]) == []

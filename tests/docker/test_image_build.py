"""Building, pushing and pulling the image, and what it must hold for each backend."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker_places import BASE, DEBIAN_CLIENT, Make, Workplace, build_options, ended

from ftl import image
from ftl.errors import BackendError, ConfigError
from ftl.image import BuiltImage

if TYPE_CHECKING:
    from docker import DockerClient

Cli = Callable[..., str]


def in_image(docker_cli: Cli, built: BuiltImage, script: str, *options: str) -> str:
    return docker_cli("run", "--rm", *options, built.id, "bash", "-c", script)


def test_rebuild_with_nothing_changed_is_quick_and_gives_the_same_image(
    built: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY"):  # of the shell, which no step of the build sees: its layers are the same
        monkeypatch.setenv(name, "canary-of-a-build")
    before = time.monotonic()
    again = image.build("cpu", base=BASE, client=DEBIAN_CLIENT, **build_options())
    assert again.id == built.id
    assert time.monotonic() - before < 10


def test_labels_tell_recipe_lock_and_stack(built: BuiltImage, engine: "DockerClient") -> None:
    labels = engine.images.get(built.id).labels
    assert labels["ftl.recipe"] == image.recipe("cpu").sha256 == built.recipe
    assert (labels["ftl.image"], labels["ftl.cuda"], labels["ftl.torch"]) == ("cpu", "cpu", "2.13.0")
    assert len(labels["ftl.lock"]) == 64
    assert labels["org.opencontainers.image.revision"]


def test_list_and_inspect_show_the_build_as_current(built: BuiltImage) -> None:
    recipe, builds = image.inspect("cpu")
    assert recipe.sha256 == built.recipe
    assert any(one.id == built.id and one.is_current for one in builds)
    assert built.id in {one.id for one in image.list_images()}


def test_failed_build_is_one_sentence_and_the_last_lines(engine: "DockerClient") -> None:
    with pytest.raises(BackendError) as raised:
        image.build("cpu", base="127.0.0.1:1/none:1@sha256:" + "0" * 64, client=DEBIAN_CLIENT)
    sentence, lines = str(raised.value).split("\n", 1)
    assert sentence == (
        "building image 'cpu' failed: exit code 1: the base image cannot be pulled; "
        "check the network, or give another with --base"
    )
    assert "127.0.0.1:1" in lines


def test_push_and_pull_by_digest(
    place: Workplace, make_backend: Make, built: BuiltImage, registry: str, docker_cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {built.id}\nLABEL ftl.recipe=other test={place.run_id}\n")
    reference = f"{registry}/ftl-test/cpu:{place.run_id}"
    docker_cli("build", "--quiet", "--tag", reference, str(tmp_path))
    client = image.build_client(DEBIAN_CLIENT)
    pushed = image._push(client, reference, reference, lambda line: None)
    assert pushed.startswith(f"{reference}@sha256:")
    docker_cli("image", "rm", "--force", docker_cli("image", "inspect", "--format={{.Id}}", reference).strip())
    backend = make_backend(image=pushed)
    assert backend.preflight(place.spec(backend)) == []
    handle = backend.submit(place.spec(backend), place.bundle, place.run_dir)
    assert ended(backend, handle).cause == "done"
    backend.remove(handle)
    docker_cli("image", "rm", "--force", pushed.replace(f":{place.run_id}@", "@"))


def test_unknown_digest_is_one_sentence(place: Workplace, make_backend: Make, registry: str) -> None:
    backend = make_backend(image=f"{registry}/ftl-test/cpu@sha256:{'0' * 64}")
    with pytest.raises(ConfigError, match="the registry has no such tag or digest"):
        backend.submit(place.spec(backend), place.bundle, place.run_dir)


def test_unreachable_registry_is_one_sentence(place: Workplace, make_backend: Make) -> None:
    backend = make_backend(image=f"127.0.0.1:1/ftl-test/cpu@sha256:{'0' * 64}")
    with pytest.raises(BackendError, match="the registry cannot be reached"):
        backend.submit(place.spec(backend), place.bundle, place.run_dir)


FOR_BACKENDS = {
    "python, pip and uv of the venv come first": (
        'for tool in python python3 pip uv; do [ "$(command -v "$tool")" = "/opt/ftl/bin/$tool" ] || exit 1; done'
    ),
    "a login shell has the same PATH": '[ "$(env -i bash -lc "command -v python")" = /opt/ftl/bin/python ]',
    "what SkyPilot would install is there": (
        "command -v bash sudo sshd rsync curl wget patch fusermount git gcc ninja tini flock apt-get pip3 >/dev/null"
    ),
    "no host key is in the image": "! ls /etc/ssh/ssh_host_* 2>/dev/null",
    "sshd accepts its configuration": "ssh-keygen -A >/dev/null && sshd -t",
    "sudo works for root without a password": "sudo -n true",
    "sshd's files can be written": "test -w /etc/ssh/sshd_config && mkdir -p ~/.ssh && touch ~/.ssh/authorized_keys",
    "workspace and cache are everyone's": '[ "$(stat -c %a /workspace /ftl /ftl/cache | sort -u)" = 1777 ]',
    "certificates are known": "test -s /etc/ssl/certs/ca-certificates.crt",
    "a C extension can be compiled": (
        'echo "#include <Python.h>" | gcc -x c -fsyntax-only $(python3-config --includes) -'
    ),
    "nothing of the build's secrets is left": "test ! -s /run/secrets/ca.crt -a ! -e /wheels/torch*",
    "root is the default user": '[ "$(id -u)" = 0 ]',
}


@pytest.mark.parametrize("script", FOR_BACKENDS.values(), ids=FOR_BACKENDS.keys())
def test_image_meets_every_backends_needs(built: BuiltImage, docker_cli: Cli, script: str) -> None:
    in_image(docker_cli, built, script)


def test_apt_works_inside(built: BuiltImage, docker_cli: Cli) -> None:
    in_image(docker_cli, built, "apt-get update -qq && apt-get install -y -qq rsync fuse openssh-server python3-pip")


def test_entrypoint_passes_arguments_and_exit_code(built: BuiltImage, docker_cli: Cli) -> None:
    told = docker_cli("run", "--rm", built.id, "python", "-c", "import sys; print(sys.argv[1:])", "a b", "$c")
    assert told.strip() == "['a b', '$c']"


def test_entrypoint_starts_sshd_when_a_key_is_given(built: BuiltImage, docker_cli: Cli) -> None:
    script = "grep -qx 'ssh-ed25519 AAAA test' ~/.ssh/authorized_keys && head -c 4 </dev/tcp/127.0.0.1/22"
    assert in_image(docker_cli, built, script, "--env=PUBLIC_KEY=ssh-ed25519 AAAA test") == "SSH-"


def test_any_uid_imports_the_stack_with_a_read_only_root(built: BuiltImage, docker_cli: Cli) -> None:
    told = docker_cli("run", "--rm", "--read-only", "--tmpfs=/tmp", "--user=4321:4321", "--cap-drop=ALL", built.id)
    assert "packages as locked, torch 2.13.0+cpu for cpu, 0 GPUs seen" in told

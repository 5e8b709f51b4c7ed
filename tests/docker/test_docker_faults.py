"""The error catalogue: each thing an engine or a registry says becomes its one sentence."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from docker_places import Make, Workplace, ended

import ftl.backends.docker as backend_module
from ftl.backends import docker_engine
from ftl.backends.docker_faults import FAULTS, explain
from ftl.errors import BackendError, ConfigError, FtlError, StorageError

if TYPE_CHECKING:
    from docker import DockerClient

# Text as the SDK gave it (docker.md), its status, and the sentence a user must read.
RECORDED: dict[str, tuple[int | None, str, str, type[FtlError]]] = {
    "no permission": (
        None,
        "Error while fetching server API version: ('Connection aborted.', PermissionError(13, 'Permission denied'))",
        "this user may not talk to the Docker engine",
        BackendError,
    ),
    "no permission, client": (
        None,
        "permission denied while trying to connect to the Docker daemon socket",
        "this user may not talk to the Docker engine",
        BackendError,
    ),
    "no daemon": (
        None,
        "Error while fetching server API version: ('Connection aborted.', FileNotFoundError(2, 'No such file'))",
        "no Docker engine is running",
        BackendError,
    ),
    "no daemon, tcp": (
        None,
        "HTTPConnectionPool(host='127.0.0.1', port=1): [Errno 111] Connection refused",
        "no Docker engine is running",
        BackendError,
    ),
    "no daemon later": (
        None,
        "('Connection aborted.', ConnectionRefusedError(111, 'Connection refused'))",
        "no Docker engine is running",
        BackendError,
    ),
    "refused, no text": (None, "ConnectionRefusedError(111)", "no Docker engine is running", BackendError),
    "daemon died": (
        None,
        "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
        "the Docker engine went away",
        BackendError,
    ),
    "slow daemon": (
        None,
        "UnixHTTPConnectionPool(host='localhost', port=None): Read timed out. (read timeout=60)",
        "the Docker engine does not answer in time",
        BackendError,
    ),
    "old engine": (
        400,
        "client version 1.45 is too new. Maximum supported API version is 1.24",
        "the Docker engine is too old for this SDK",
        BackendError,
    ),
    "disk full": (
        500,
        "Error processing tar file(exit status 1): write /x/layer.tar: no space left on device",
        "the engine's disk is full",
        StorageError,
    ),
    "no image": (404, "No such image: ftl-test/none:1", "the image is not on this engine", BackendError),
    "no tag": (
        404,
        "manifest for x/y:1 not found: manifest unknown: manifest unknown",
        "the registry has no such tag or digest",
        ConfigError,
    ),
    "no tag, newer": (404, "not found: manifest for x", "the registry has no such tag or digest", ConfigError),
    "no login": (
        500,
        'Head "http://127.0.0.1:5055/v2/x/manifests/1": no basic auth credentials',
        "the registry wants you to log in",
        BackendError,
    ),
    "wrong login": (
        500,
        'Head "http://127.0.0.1:5055/v2/x/manifests/1": unauthorized: authentication required',
        "the registry does not accept the login",
        BackendError,
    ),
    "pull limit": (
        None,
        "toomanyrequests: You have reached your unauthenticated pull rate limit.",
        "the registry's pull limit is reached",
        BackendError,
    ),
    "private image": (
        404,
        "pull access denied for x/y, repository does not exist or may require 'docker login'",
        "the registry has no such image, or it wants you to log in",
        BackendError,
    ),
    "registry unknown": (
        500,
        'Get "https://nowhere.example/v2/": dial tcp: lookup nowhere.example: no such host',
        "the registry cannot be reached",
        BackendError,
    ),
    "registry down": (
        500,
        'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        "the registry cannot be reached",
        BackendError,
    ),
    "no GPU support": (
        500,
        'could not select device driver "" with capabilities: [[gpu]]',
        "the engine has no NVIDIA support",
        BackendError,
    ),
    "no GPU support, CDI": (
        500,
        "failed to discover GPU vendor from CDI: no known GPU vendor found",
        "the engine has no NVIDIA support",
        BackendError,
    ),
    "no such GPU, CDI": (
        500,
        "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7",
        "the engine does not know such a GPU",
        ConfigError,
    ),
    "no runtime": (
        400,
        "Unknown runtime specified nvidia",
        "the engine has no such container runtime",
        BackendError,
    ),
    "name taken": (
        409,
        'Conflict. The container name "/x" is already in use by container "1a2b"',
        "a container that is not ftl's has the name",
        BackendError,
    ),
    "name taken, podman": (
        500,
        'creating container storage: the container name "x" is already in use by 1a2b. that name is already in use',
        "a container that is not ftl's has the name",
        BackendError,
    ),
    "port of a process": (
        500,
        "Error starting userland proxy: listen tcp4 0.0.0.0:18999: bind: address already in use",
        "a process of this machine uses the port",
        BackendError,
    ),
    "port of a container": (
        500,
        "Bind for 0.0.0.0:18998 failed: port is already allocated",
        "another container uses the port",
        BackendError,
    ),
    "mount missing": (
        400,
        'invalid mount config for type "bind": bind source path does not exist: /no/such/dir',
        "a path to be mounted is not on the engine's machine",
        ConfigError,
    ),
    "mount relative": (
        400,
        '"rel/dir" includes invalid characters for a local volume name, only "[a-zA-Z0-9]" are allowed',
        "a path to be mounted is not absolute",
        ConfigError,
    ),
    "no python": (
        400,
        'OCI runtime create failed: exec: "python": executable file not found in $PATH: unknown',
        "the image has no `python`",
        ConfigError,
    ),
    "no user": (
        500,
        "unable to find user nosuchuser: no matching entries in passwd file",
        "the image does not know the user",
        ConfigError,
    ),
    "rlimit": (
        500,
        "OCI runtime create failed: error setting rlimit type 8: operation not permitted: unknown",
        "the engine may not raise resource limits",
        BackendError,
    ),
    "too many cpus": (
        400,
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        "`cpus` is more than this machine has",
        ConfigError,
    ),
    "tiny memory": (400, "Minimum memory limit allowed is 6MB", "`memory` is too small", ConfigError),
    "bad reference": (
        400,
        "invalid reference format: repository name must be lowercase",
        "`image` is not a valid reference",
        ConfigError,
    ),
    "kill of a stopped one": (
        409,
        "Cannot kill container: 1a: Container 1a is not running",
        "the container is not running",
        BackendError,
    ),
    "container gone": (404, "No such container: 1a2b", "the container is gone", BackendError),
}


@pytest.mark.parametrize("status, text, sentence, kind", RECORDED.values(), ids=RECORDED.keys())
def test_recorded_text_gets_its_sentence(status: int | None, text: str, sentence: str, kind: type[FtlError]) -> None:
    error = explain(status, text)
    assert type(error) is kind
    assert str(error).startswith(f"docker: {sentence}: the engine said: {text}; ")
    assert "\n" not in str(error)


def test_every_row_of_the_catalogue_is_reached_by_a_recorded_text() -> None:
    reached = {str(explain(status, text)).split(": the engine said")[0] for status, text, _, _ in RECORDED.values()}
    assert {f"docker: {fault.sentence}" for fault in FAULTS} == reached


def test_unknown_text_is_passed_on_whole() -> None:
    assert str(explain(500, "odd\nthing")) == "docker: the engine refused: it said: odd thing"


@pytest.mark.parametrize(
    "host, is_refused",
    [
        ("", False),
        ("unix:///var/run/docker.sock", False),
        ("tcp://127.0.0.1:2375", False),
        ("tcp://localhost:2375", False),
        ("tcp://10.0.0.7:2376", True),
        ("ssh://me@gpu-box", True),
        ("ssh://127.0.0.1", True),
    ],
)
def test_engine_on_another_machine_is_refused(host: str, is_refused: bool) -> None:
    try:
        docker_engine._refuse_remote(host)
    except BackendError as error:
        assert is_refused and "is an engine on another machine" in str(error)
    else:
        assert not is_refused


def test_no_engine_is_one_problem(
    workplace: Workplace, make_backend: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    backend = make_backend()
    [problem] = backend.preflight(workplace.spec(backend))
    assert str(problem).startswith("docker: no Docker engine is running: ")


def test_missing_sdk_is_one_problem(workplace: Workplace, make_backend: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "find_spec", lambda name: None)
    backend = make_backend()
    [problem] = backend.preflight(workplace.spec(backend))
    assert str(problem) == "provider 'docker' needs the 'docker' package: pip install 'ftl-launcher[docker]'"


def test_strangers_container_of_the_same_name_is_left_alone(
    place: Workplace, make_backend: Make, engine: "DockerClient"
) -> None:
    stranger = engine.containers.create("ftl-test/base:bookworm", ["true"], name=f"ftl-{place.run_id}-1")
    backend = make_backend()
    try:
        with pytest.raises(BackendError, match="a container that is not ftl's has the name"):
            backend.submit(place.spec(backend), place.bundle, place.run_dir)
        stranger.reload()
    finally:
        stranger.remove(force=True)


PROVOKED: dict[str, tuple[dict[str, Any], type[FtlError], str]] = {  # Any: keys of the cloud section
    "gpu": ({"gpu": "all"}, BackendError, "the engine has no NVIDIA support"),
    "cpus": ({"cpus": 4096}, ConfigError, "`cpus` is more than this machine has"),
    "memory": ({"memory": 0.001}, ConfigError, "`memory` is too small"),
    "reference": ({"image": "Not/A:Ref", "allow_unpinned": True}, ConfigError, "`image` is not a valid reference"),
}


@pytest.mark.parametrize("keys, kind, sentence", PROVOKED.values(), ids=PROVOKED.keys())
def test_engine_refusal_is_one_sentence(
    place: Workplace,
    make_backend: Make,
    engine: "DockerClient",
    keys: dict[str, Any],
    kind: type[FtlError],
    sentence: str,
) -> None:
    backend = make_backend()
    backend.cloud = backend.cloud.model_copy(update=keys)
    with pytest.raises(kind, match=sentence):
        backend.submit(place.spec(backend), place.bundle, place.run_dir)
    assert engine.containers.list(all=True, filters={"label": f"io.ftl.run={place.run_id}"}) == []


def test_image_without_python_is_one_sentence(
    place: Workplace, make_backend: Make, docker_cli: Callable[..., str]
) -> None:
    """With an init in the container the engine starts it all the same; the exit code tells."""
    with subprocess.Popen(["tar", "-c", "-T", "/dev/null"], stdout=subprocess.PIPE) as empty:
        imported = subprocess.run(
            ["docker", "import", "-"], stdin=empty.stdout, capture_output=True, text=True, check=True
        )
    backend = make_backend(image=imported.stdout.strip())
    try:
        state = ended(backend, backend.submit(place.spec(backend), place.bundle, place.run_dir))
        assert (state.cause, state.exit_code, state.message) == ("environment", 3, "the image has no `python`")
    finally:
        docker_cli("image", "rm", "--force", imported.stdout.strip())


def test_mount_that_vanished_is_one_sentence(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    mount = {"name": "model-1", "source": "/no/such/folder", "fingerprint": "0"}
    spec = place.spec(backend, mounts=[mount])
    assert [str(p) for p in backend.preflight(spec)] == ["mount model-1: /no/such/folder: is not there"]
    with pytest.raises(ConfigError, match="a path to be mounted is not on the engine's machine"):
        backend.submit(spec, place.bundle, place.run_dir)

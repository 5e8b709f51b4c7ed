"""Image names: what they stand for, how they are built, which builds this machine has.

A name of images.lock.toml is a recipe: the Dockerfile, one lock file and a few arguments. A build carries the hash of
its recipe as a label, so the engine itself tells which of its images are current; there is no list to fall out of step.
Builds go through the docker command line, because BuildKit cannot be reached through the engine's API from Python.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ftl.errors import BackendError, ConfigError, Problem, StorageError
from ftl.packaged import packaged

LOCK_FILE = "images.lock.toml"
RECIPE_LABEL = "ftl.recipe"
_CONTEXT_FILES = ("Dockerfile", "install-python.sh", "entrypoint.sh", "selftest.py", "flash-attn.txt")
_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_NUM_LAST_LINES = 15


@dataclass(frozen=True)
class Recipe:
    """One entry of images.lock.toml."""

    name: str
    lock: str
    """File name of the lock, beside the Dockerfile."""
    base: str
    """repository:tag@sha256 of the base image."""
    cuda: str
    min_driver: str
    torch_index: str
    args: tuple[tuple[str, str], ...]
    published: str | None
    """repository:tag@sha256 of a pushed build."""
    sha256: str
    """Hash over all that decides the content but the base: files, lock, arguments."""


@dataclass(frozen=True)
class Resolved:
    """What an `image:` value stands for, before an engine was asked."""

    given: str
    recipe: Recipe | None
    """The recipe when the value is a name."""
    reference: str | None
    """What to create containers from when no local build of the recipe is there: a digest, an id or an allowed tag."""

    @property
    def missing(self) -> str:
        """The sentence for an image that is neither here nor published."""
        return f"image {self.given!r} is not built on this engine yet; build it with: ftl images build {self.given}"


@dataclass(frozen=True)
class BuiltImage:
    """A local build of a recipe."""

    id: str
    """sha256:..., what containers are created from."""
    name: str
    tag: str
    recipe: str
    """Recipe.sha256 it was built from."""
    base: str
    pushed: str | None = None
    """repository:tag@sha256 when it was pushed."""


@dataclass(frozen=True)
class LocalImage:
    """A build an engine has, as its labels tell it."""

    id: str
    name: str
    created: str
    size_bytes: int
    is_current: bool
    """Built from the recipe as it stands now."""
    labels: dict[str, str]


@dataclass(frozen=True)
class BuildClient:
    """A docker command line that can use BuildKit."""

    path: str
    env: tuple[tuple[str, str], ...]
    """Variables it needs for that."""
    has_buildx: bool


def recipes() -> dict[str, Recipe]:
    """All entries of images.lock.toml by name, in its order."""
    folder = packaged("images")
    table = tomllib.loads((folder / LOCK_FILE).read_text())["images"]
    return {name: _recipe(folder, name, entry) for name, entry in table.items()}


def recipe(name: str) -> Recipe:
    """The entry `name`. Raises ConfigError for an unknown one."""
    known = recipes()
    if name not in known:
        raise ConfigError(Problem("image", repr(name), f"must be one of {', '.join(known)}"))
    return known[name]


def lock_path(made_from: Recipe) -> Path:
    """The recipe's lock file on this machine."""
    return packaged("images") / made_from.lock


def resolve(image: str, *, allow_unpinned: bool = False) -> Resolved:
    """What `image` stands for: a name of images.lock.toml, repository[:tag]@sha256:digest, or a local image id.

    Pure. Raises ConfigError for an unknown name, and for a tag without a digest unless `allow_unpinned`.
    """
    known = recipes()
    if image in known:
        return Resolved(image, known[image], known[image].published)
    if _DIGEST.fullmatch(image) or _IMAGE_ID.fullmatch(image) or (allow_unpinned and not image.startswith("-")):
        return Resolved(image, None, image)
    if re.search(r"[:/]", image):
        raise ConfigError(
            Problem(
                "image",
                repr(image),
                "is a tag, and a tag may be another image tomorrow",
                "add its digest (repository:tag@sha256:...) or say `allow_unpinned: true`",
            )
        )
    names = ", ".join(known)
    raise ConfigError(Problem("image", repr(image), f"must be one of {names}, or repository:tag@sha256:digest"))


def build(
    name: str,
    *,
    base: str | None = None,
    ca: Path | None = None,
    pip_conf: Path | None = None,
    wheels: Path | None = None,
    push: str | None = None,
    client: str | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> BuiltImage:
    """Build the recipe `name` with BuildKit, and push it to the reference `push` when given.

    `base` replaces the recipe's own base; `wheels` is a folder looked into before any index, and then torch's own index
    is not asked; `ca` and `pip_conf` are certificates and index settings for the build alone. Takes minutes, or seconds
    when the engine has the layers. `on_line` gets each line of progress.
    Raises BackendError with the last lines when it fails.
    """
    made_from = recipe(name)
    docker = build_client(client)
    base = base or made_from.base
    tag = f"ftl/{name}:{_sha256(made_from.sha256, base)[:12]}"
    arguments = {
        "BASE_IMAGE": base,
        "LOCK": made_from.lock,
        "CUDA": made_from.cuda,
        "TORCH": _torch_version(made_from.lock),
        "MIN_DRIVER": made_from.min_driver,
        "LOCK_SHA256": _sha256((packaged("images") / made_from.lock).read_text()),
        "RECIPE": made_from.sha256,
        "IMAGE_NAME": name,
        "REVISION": _revision(),
        "TORCH_INDEX": "" if wheels else made_from.torch_index,
        **dict(made_from.args),
    }
    secrets = {"ca": ca, "pip_conf": pip_conf}
    with _context(made_from.lock, wheels) as context:
        id_file = context.parent / "id"
        command = [docker.path, "build", "--progress=plain", f"--iidfile={id_file}", f"--tag={tag}"]
        command += ["--load"] if docker.has_buildx else []
        command += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        command += [f"--secret=id={key},src={path.absolute()}" for key, path in secrets.items() if path is not None]
        _stream([*command, str(context)], docker, on_line, f"building image {name!r} failed")
        image_id = id_file.read_text().strip()
    pushed = _push(docker, image_id, push, on_line) if push else None
    return BuiltImage(image_id, name, tag, made_from.sha256, base, pushed)


def list_images(client: str | None = None) -> list[LocalImage]:
    """The builds of any recipe that the engine has, newest first. Raises BackendError when no engine answers."""
    docker = client or shutil.which("docker")
    if docker is None:
        raise BackendError(_no_client("no docker command is on PATH"))
    ids = _output([docker, "image", "ls", "--no-trunc", "--quiet", "--filter", f"label={RECIPE_LABEL}"]).split()
    if not ids:
        return []
    current = {entry.sha256 for entry in recipes().values()}
    found = json.loads(_output([docker, "image", "inspect", *dict.fromkeys(ids)]))
    images = [_local_image(one, current) for one in found]
    return sorted(images, key=lambda image: image.created, reverse=True)


def inspect(name: str, client: str | None = None) -> tuple[Recipe, list[LocalImage]]:
    """The recipe `name` and the builds of it that the engine has, newest first."""
    return recipe(name), [image for image in list_images(client) if image.name == name]


def build_client(given: str | None = None) -> BuildClient:
    """The first docker command that can use BuildKit: `given`, else those on PATH in order.

    A client with buildx can; one older than 23 can when told by DOCKER_BUILDKIT=1; a newer one without buildx cannot.
    Raises BackendError naming the package to install.
    """
    candidates = [given] if given else _clients_on_path()
    refused = []
    for path in candidates:
        if shutil.which(path) is None:
            refused.append(f"{path} is not there")
            continue
        if subprocess.run([path, "buildx", "version"], capture_output=True, check=False).returncode == 0:
            return BuildClient(path, (), has_buildx=True)
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        major = re.search(r"version (\d+)\.", told)
        if major and int(major[1]) < 23:
            return BuildClient(path, (("DOCKER_BUILDKIT", "1"),), has_buildx=False)
        refused.append(f"{path} has no buildx")
    raise BackendError(_no_client("; ".join(refused) or "no docker command is on PATH"))


def _no_client(reason: str) -> Problem:
    return Problem(
        "docker client", reason, None, "install docker-ce-cli with docker-buildx-plugin, or Debian's docker.io package"
    )


def _clients_on_path() -> list[str]:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = (shutil.which("docker", path=folder) for folder in folders if folder)
    return list(dict.fromkeys(path for path in found if path))


def _recipe(folder: Path, name: str, entry: dict[str, object]) -> Recipe:
    args = entry.get("args", {})
    assert isinstance(args, dict)
    text = {key: str(value) for key, value in entry.items() if key != "args"}
    contents = [(folder / file).read_text() for file in (*_CONTEXT_FILES, text["lock"])]
    decided = (text["cuda"], text.get("min_driver", ""), json.dumps(args, sort_keys=True))
    return Recipe(
        name=name,
        lock=text["lock"],
        base=text["base"],
        cuda=text["cuda"],
        min_driver=text.get("min_driver", ""),
        torch_index=text.get("torch_index", ""),
        args=tuple(sorted((key, str(value)) for key, value in args.items())),
        published=text.get("published"),
        sha256=_sha256(*contents, *decided),
    )


def _sha256(*parts: str) -> str:
    """Hash of the one part, or over the hashes of several."""
    if len(parts) == 1:
        return hashlib.sha256(parts[0].encode()).hexdigest()
    return _sha256("\n".join(_sha256(part) for part in parts))


def _torch_version(lock: str) -> str:
    pin = re.search(r"^torch==([0-9.]+)", (packaged("images") / lock).read_text(), re.MULTILINE)
    assert pin is not None, f"{lock} has no torch"
    return pin[1]


def _revision() -> str:
    """The commit that last changed the recipes, or the version of an installed ftl; no other commit changes it."""
    folder = packaged("images")
    command = ["git", "-C", str(folder), "log", "-1", "--format=%H", "--", "."]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        told = ""
    if told:
        return told
    return f"ftl-launcher {version('ftl-launcher')}"


@contextmanager
def _context(lock: str, wheels: Path | None) -> Iterator[Path]:
    """A build context of the recipe's files and nothing else; wheels are linked where the file system allows."""
    folder = packaged("images")
    if wheels is not None and not wheels.is_dir():
        raise ConfigError(Problem("wheels", str(wheels), "must be a directory of wheels"))
    with tempfile.TemporaryDirectory(prefix="ftl-build-") as scratch:
        context = Path(scratch) / "context"
        (context / "wheels").mkdir(parents=True)
        for name in (*_CONTEXT_FILES, lock):
            shutil.copyfile(folder / name, context / name)
        for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
            try:
                (context / "wheels" / wheel.name).hardlink_to(wheel)
            except OSError:
                shutil.copyfile(wheel, context / "wheels" / wheel.name)
        yield context


_BUILD_FAULTS: tuple[tuple[str, str], ...] = (
    ("no space left on device", "the engine's disk is full; free some with: docker builder prune -af"),
    ("buildx component is missing", "this docker client has no buildx; install docker-buildx-plugin"),
    ("cannot connect to the docker daemon", "no Docker engine answers; start it, or set DOCKER_HOST"),
    ("certificate verify failed", "a package index's certificate is not known in the build; give yours with --ca FILE"),
    ("invalid peer certificate", "a package index's certificate is not known in the build; give yours with --ca FILE"),
    ("hash mismatch", "a downloaded file is not the one the lock names"),
    ("do not match the hashes", "a downloaded file is not the one the lock names"),
    (
        "failed to solve with frontend",
        "the base image cannot be pulled; check the network, or give another with --base",
    ),
    (
        "failed to resolve source metadata",
        "the base image cannot be pulled; check the network, or give another with --base",
    ),
    ("self-test:", "the image's own self-test failed"),
)


def _stream(command: list[str], docker: BuildClient, on_line: Callable[[str], None], failed: str) -> list[str]:
    """Run `command`, handing on its lines; the last of them. Raises BackendError with a cause and those lines."""
    last: deque[str] = deque(maxlen=_NUM_LAST_LINES)
    environment = {**os.environ, **dict(docker.env)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                line = raw.rstrip()
                if line:
                    last.append(line)
                    on_line(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode == 0:
        return list(last)
    text = "\n".join(last)
    cause = next((sentence for fragment, sentence in _BUILD_FAULTS if fragment in text.lower()), None)
    error = StorageError if cause and "disk is full" in cause else BackendError
    sentence = Problem(failed, f"exit code {process.returncode}", cause)
    raise error(f"{sentence}\n{text}")


def _push(docker: BuildClient, image_id: str, reference: str, on_line: Callable[[str], None]) -> str:
    """The pushed repository:tag@sha256."""
    failed = f"pushing to {reference} failed"
    _stream([docker.path, "tag", image_id, reference], docker, on_line, failed)
    lines = _stream([docker.path, "push", reference], docker, on_line, failed)
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", "\n".join(lines))
    if digest is None:
        raise BackendError(Problem(failed, "the registry named no digest"))
    return f"{reference}@{digest[1]}"


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BackendError(Problem("docker", done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed"))
    return done.stdout


def _local_image(inspected: dict[str, object], current: set[str]) -> LocalImage:
    config = inspected.get("Config")
    labels = (config.get("Labels") if isinstance(config, dict) else None) or {}
    return LocalImage(
        id=str(inspected["Id"]),
        name=labels.get("ftl.image", "?"),
        created=str(inspected["Created"]),
        size_bytes=int(str(inspected["Size"])),
        is_current=labels.get(RECIPE_LABEL) in current,
        labels=labels,
    )

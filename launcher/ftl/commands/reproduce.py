"""ftl reproduce: the files to train a published model again, and what of it cannot be pinned any more."""

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ftl import __version__
from ftl.atomic import write_atomic
from ftl.commands import show
from ftl.config.flat import keys
from ftl.contract import PROVENANCE_FILE, Provenance
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.image import recipes
from ftl.plan import OF_ONE_ACCOUNT
from ftl.sources.hubrepo import Repo, check_revision, is_commit, is_repo_id, read_file
from ftl.sources.retry import UnreachableError

_DELIVERY = ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_revision", "push_to_hub", "push_dataset_to_hub")
"""Keys that would write over what was published."""


def run(source: str, dest: Path | None) -> int:
    """Write cfg.yml and cloud.yml of the run that `source`, a repository or an ftl-run.json, tells of."""
    record, is_of_hub = _record(source)
    _check_paths(record.config, source)
    target = dest or Path(record.run_id)
    config, asked = _config(record)
    cloud, left_out = _cloud(record)
    head = f"# From {source}, the run {record.run_id}, written by ftl reproduce.\n"
    _write(target / "cfg.yml", head + _yaml(config))
    _write(target / "cloud.yml", head + _yaml(cloud))
    told = [*_unpinned(record, target), *(_gone(config) if is_of_hub else ())]
    for note in (*told, *asked, *left_out):
        show.note(note)
    what = "it is not pinned in full, see above" if told else "every part of it is pinned"
    show.note(f"{target}/cfg.yml and cloud.yml are written; {what}")
    show.note(f"`ftl train {target}/cfg.yml --cloud {target}/cloud.yml` trains it again")
    return ExitCode.DONE


def _config(record: Provenance) -> tuple[dict[str, Any], list[str]]:  # Any: YAML
    """The config at the commits that were used, which publishes nothing, and what of it is for its reader to decide."""
    trackers = {key.key for key in keys().values() if key.loc[0] == "tracking"}
    config = {key: value for key, value in record.config.items() if key not in (*_DELIVERY, *trackers)}
    if record.result.base_revision:
        config["model_revision"] = record.result.base_revision
    for use in record.result.datasets:
        key, _, number = use.key.partition(".")
        listed = config.get(key)
        if is_commit(use.revision) and isinstance(listed, list) and number.isdigit():
            config[key] = [
                {**entry, "revision": use.revision}
                if place == int(number) and entry.get("path") == use.label
                else entry
                for place, entry in enumerate(listed)
            ]
    config["output_dir"] = "./out"
    asked = []
    if config.pop("trust_remote_code", False):
        asked.append(
            f"it ran code of {config['base_model']}: read it at commit {config.get('model_revision')}, then add "
            "`trust_remote_code: true`; a record of somebody else does not decide that"
        )
    if dropped := sorted(trackers & record.config.keys()):
        asked.append(f"{', '.join(dropped)} left out: where its numbers went is of somebody else's account")
    return config, asked


def _cloud(record: Provenance) -> tuple[dict[str, Any], list[str]]:  # Any: YAML
    """The cloud file, and what it leaves out: names of somebody else's account, and commands of somebody else."""
    cloud = {key: value for key, value in record.cloud.items() if key not in (*OF_ONE_ACCOUNT, "dockerfile_commands")}
    if record.image and cloud.get("provider") == "docker":
        cloud["image"] = record.image
    notes = []
    if commands := record.cloud.get("dockerfile_commands"):
        notes.append(
            f"dockerfile_commands of its cloud file left out: {json.dumps(commands)}; a record of somebody else does "
            "not decide what is run for you"
        )
    if dropped := sorted(OF_ONE_ACCOUNT & record.cloud.keys()):
        notes.append(f"{', '.join(dropped)} of its cloud file left out: they are of somebody else's account")
    return cloud, notes


def _check_paths(value: Any, source: str, key: str = "") -> None:  # Any: JSON
    """Raises ConfigError for a config that names a file outside its own folder."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_paths(item, source, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_paths(item, source, f"{key}.{number}")
    elif isinstance(value, str) and _leads_away(value):
        told = "names a place on your machine, which no record that ftl writes does"
        raise ConfigError(Problem(source, f"{key}: {value}", told, "do not train it unread"))


def _leads_away(text: str) -> bool:
    """Whether it is a path out of the folder of the config, as it would be read on this machine."""
    if "\n" in text:
        return False
    is_of_root = text.startswith("/") and "/" in text[1:]
    is_of_home = text.startswith("~") and "/" in text
    return is_of_root or is_of_home or text.startswith("file:") or ".." in Path(text).parts


def _record(source: str) -> tuple[Provenance, bool]:
    """The record, and whether it came from the Hub. Raises ConfigError when there is none, or it cannot be read."""
    path = Path(source)
    if path.is_dir():
        path = path / PROVENANCE_FILE
    if path.is_file():
        content = path.read_bytes()
    elif is_repo_id(source) and "/" in source and not source.endswith(".json"):
        found = read_file(Repo(source, None, "model", "ftl reproduce"), PROVENANCE_FILE)
        if found is None:
            given = f"{source}: has no {PROVENANCE_FILE}, so it is no model that ftl has delivered"
            raise ConfigError(Problem("ftl reproduce", given))
        content = found
    else:
        allowed = f"must be a repository of the Hub (user/name), or a {PROVENANCE_FILE}"
        raise ConfigError(Problem("ftl reproduce", source, allowed))
    try:
        return Provenance.read_json(content), not path.is_file()
    except ValidationError as error:
        detail = error.errors()[0]
        given = f"{'.'.join(map(str, detail['loc']))}: {detail['msg'].lower()}"
        raise ConfigError(Problem(source, given, f"is not a {PROVENANCE_FILE} that this ftl can read")) from error


def _unpinned(record: Provenance, target: Path) -> Iterator[str]:
    """What may be another thing than it was, a sentence each."""
    for name, sha256 in record.inputs.items():
        path = target / name
        if not path.is_file():
            yield f"{name} was a file of whoever trained it: put it at {path} (sha256 {sha256})"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            yield f"{path} is another file than was trained with (sha256 {sha256})"
    base = str(record.config.get("base_model", ""))
    if base.startswith("./"):
        if not any(name.startswith(f"{base.removeprefix('./')}/") for name in record.inputs):
            yield f"base_model {base} was a directory of whoever trained it, too large to be hashed: put it there"
    elif not record.result.base_revision:
        yield f"base_model {base} was not pinned to a commit: what it holds today is taken"
    for use in record.result.datasets:
        if not use.revision and use.label.removeprefix("./") not in record.inputs:
            yield f"{use.key} {use.label} was not pinned: what it holds today is taken"
    image = record.image or ""
    if image.startswith("sha256:"):
        yield f"its image {image[:19]} was on the machine of whoever trained it: write `image: cuda` or `image: cpu`"
    elif image and "@sha256:" not in image and image not in recipes():
        yield f"its image {image} was not pinned to a digest: what it is today is taken"
    if record.result.ranks > 1 and record.cloud.get("provider") == "local":
        yield f"{record.result.ranks} processes trained it together: another number gives other last digits"
    if record.ftl != __version__:
        yield f"it was trained by ftl {record.ftl}, and this is {__version__}"
    if record.image is None:
        for package, was in record.result.versions.items():
            now = _version(package)
            if now is not None and now != was:
                yield f"there was no image: it was trained with {package} {was}, and here is {now}"


def _gone(config: dict[str, Any]) -> Iterator[str]:  # Any: YAML
    """What is not on the Hub any more at the commit that was used, a sentence each."""
    named = [("base_model", config.get("base_model"), config.get("model_revision"), False)]
    for key in ("datasets", "test_datasets", "pretraining_dataset"):
        found = config.get(key)
        entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
        named += [(key, entry.get("path"), entry.get("revision"), True) for entry in entries]
    for key, name, revision, is_dataset in named:
        if isinstance(name, str) and is_repo_id(name) and is_commit(revision):
            try:
                check_revision(Repo(name, revision, "dataset" if is_dataset else "model", key))
            except ConfigError as error:
                yield f"{key} {name} cannot be had any more as it was: {error}"
            except UnreachableError:
                continue


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _yaml(content: dict[str, Any]) -> str:  # Any: JSON
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))


def _write(path: Path, text: str) -> None:
    """Raises ConfigError where another file is in the way."""
    if path.exists() and path.read_text() != text:
        raise ConfigError(Problem(str(path), "is there already, and is another file", None, "give another DEST"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise ConfigError(Problem(str(path), error.strerror or str(error), "cannot be written")) from error

"""ftl reproduce: the files to train a published model again, and what of it cannot be pinned any more."""

import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ftl import __version__
from ftl.atomic import write_atomic
from ftl.commands import show
from ftl.contract import PROVENANCE_FILE, Provenance
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.sources.hubrepo import Repo, is_repo_id, read_file

_DELIVERY = ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_revision", "push_to_hub", "push_dataset_to_hub")
"""Keys that would write over what was published."""


def run(source: str, dest: Path | None) -> int:
    """Write cfg.yml and cloud.yml of the run that `source`, a repository or an ftl-run.json, tells of."""
    record = _record(source)
    target = dest or Path(record.run_id)
    config = {key: value for key, value in record.config.items() if key not in _DELIVERY}
    if record.result.base_revision:
        config["model_revision"] = record.result.base_revision
    config["output_dir"] = "./out"
    runs_code = config.pop("trust_remote_code", False)
    cloud = record.cloud | (
        {"image": record.image} if record.image and record.cloud.get("provider") == "docker" else {}
    )
    head = f"# From {source}, the run {record.run_id}, written by ftl reproduce.\n"
    _write(target / "cfg.yml", head + _yaml(config))
    _write(target / "cloud.yml", head + _yaml(cloud))
    told = list(_unpinned(record, target))
    for note in told:
        show.note(note)
    if runs_code:
        show.note(
            f"it ran code of {config['base_model']}: read it at commit {config.get('model_revision')}, then add "
            "`trust_remote_code: true`; a record of somebody else does not decide that"
        )
    what = "it is not pinned in full, see above" if told else "every part of it is pinned"
    show.note(f"{target}/cfg.yml and cloud.yml are written; {what}")
    show.note(f"`ftl train {target}/cfg.yml --cloud {target}/cloud.yml` trains it again")
    return ExitCode.DONE


def _record(source: str) -> Provenance:
    """Raises ConfigError when there is none, or it cannot be read."""
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
        return Provenance.read_json(content)
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
    if record.ftl != __version__:
        yield f"it was trained by ftl {record.ftl}, and this is {__version__}"
    if record.image is None:
        for package, was in record.result.versions.items():
            now = _version(package)
            if now is not None and now != was:
                yield f"there was no image: it was trained with {package} {was}, and here is {now}"


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

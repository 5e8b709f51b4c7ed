"""What a run has sent to its stores, read from this machine when its own is gone."""

import hashlib
import json
import tempfile
from pathlib import Path

from pydantic import ValidationError

from ftl.backends.local import copy
from ftl.contract import (
    BUNDLE_TAR,
    CHECKPOINTS_DIR,
    MANIFEST_FILE,
    OUTPUT_DIR,
    PROVENANCE_FILE,
    HubRef,
    JobSpec,
    Provenance,
    UrlRef,
)
from ftl.errors import DeliveryError, FtlError, Problem
from ftl.sources.hubrepo import Repo, download, read_file
from ftl.sources.remote import fetch

_NO_PART_OF_THE_MODEL = ("checkpoints/*", ".gitattributes")


class Stores:
    """The stores of one run, in the order of its spec: a bucket or directory, a repository of the Hub."""

    def __init__(self, run_id: str, urls: tuple[str, ...], hubs: tuple[tuple[str, str | None], ...]) -> None:
        self._run_id, self._urls = run_id, urls
        self._hubs = tuple(Repo(repo, branch, "model", "hub_model_id", "hub_revision") for repo, branch in hubs)

    def __bool__(self) -> bool:
        return bool(self._urls or self._hubs)

    def fetch(self, name: str, dest: Path) -> bool:
        """Copy a directory of the run from the first store that has it; False where none has.

        Raises DeliveryError with what they said where none could be read.
        """
        failures: list[FtlError] = []
        if self._from_urls(name, dest, failures):
            return True
        for repo in self._hubs:
            try:
                self._from_hub(repo, name, dest)
                return True
            except FtlError as error:
                failures.append(error)
        if failures:
            raise DeliveryError(*(problem for error in failures for problem in error.problems)) from failures[0]
        return False

    def bundle(self, dest: Path) -> bool:
        """Fetch the bundle.tar of the run; False where no store has it. A repository of the Hub never has.

        Raises FtlError where none could be asked.
        """
        failures: list[FtlError] = []
        is_there = self._from_urls(BUNDLE_TAR, dest, failures)
        if failures and not is_there:
            raise failures[0]
        return is_there

    def result(self) -> bytes | None:
        """The result.json of a run whose finished model has arrived in a store; None while it has not."""
        for url in self._urls:
            with tempfile.TemporaryDirectory(prefix="ftl-") as folder:
                dest = Path(folder) / PROVENANCE_FILE
                try:
                    if self._from_url(url, f"{OUTPUT_DIR}/{PROVENANCE_FILE}", dest):
                        return self._result_in(dest.read_bytes())
                except (FtlError, OSError):
                    continue
        for repo in self._hubs:
            try:
                content = read_file(repo, PROVENANCE_FILE)
            except FtlError:
                continue
            if content is not None:
                return self._result_in(content)
        return None

    def _result_in(self, provenance: bytes) -> bytes | None:
        """That of this run; a repository may hold the model of an earlier one."""
        try:
            made = Provenance.read_json(provenance)
        except ValidationError:
            return None
        return made.result.model_dump_json().encode() if made.run_id == self._run_id else None

    def _from_urls(self, name: str, dest: Path, failures: list[FtlError]) -> bool:
        """Whether one of the buckets and directories had it; what the others said goes to `failures`."""
        for url in self._urls:
            try:
                if self._from_url(url, name, dest):
                    return True
            except FtlError as error:
                failures.append(error)
        return False

    def _from_url(self, url: str, name: str, dest: Path) -> bool:
        address = f"{url.rstrip('/')}/{self._run_id}/{name.removeprefix(f'{CHECKPOINTS_DIR}/')}"
        if address.startswith("file:"):
            source = Path(address.removeprefix("file://"))
            if source.exists():
                copy(source, dest)
            return source.exists()
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".fetch-") as folder:
            fetch(address, Path(folder), "checkpoints").rename(dest)
        return True

    def _from_hub(self, repo: Repo, name: str, dest: Path) -> None:
        if name != OUTPUT_DIR:
            download(repo, dest, below=f"checkpoints/{self._run_id}/{Path(name).name}")
            return
        if self._result_in(read_file(repo, PROVENANCE_FILE) or b"{}") is None:
            raise DeliveryError(Problem("hub_model_id", repo.id, "does not hold the finished model of this run"))
        download(repo, dest, without=_NO_PART_OF_THE_MODEL)
        _seal(dest)


def stores_of(spec: JobSpec) -> dict[str, str]:
    """What finds the stores of a job again, as text for a handle."""
    urls = [ref.url for ref in spec.stores if isinstance(ref, UrlRef)]
    hubs = [(ref.repo, ref.branch) for ref in spec.stores if isinstance(ref, HubRef)]
    return {"stores": json.dumps({"urls": urls, "hubs": hubs})} if spec.stores else {}


def stores_in(run_id: str, text: str | None) -> Stores:
    """The same, from the handle."""
    record = json.loads(text or "{}")
    hubs = tuple((str(repo), branch) for repo, branch in record.get("hubs", ()))
    return Stores(run_id, tuple(record.get("urls", ())), hubs)


def _seal(directory: Path) -> None:
    """The manifest that a delivered model has, which the Hub does not keep: it compares what it sends itself."""
    files = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(directory).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    (directory / MANIFEST_FILE).write_text(json.dumps({"files": files}, indent=1))

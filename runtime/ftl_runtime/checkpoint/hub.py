"""Checkpoints and the model in a repository of the Hub. What belongs together comes with one commit.

    checkpoints/RUN/checkpoint-<step>/   a checkpoint with its manifest
    checkpoints/RUN/checkpoint-<step>/broken.json   somebody has read it, and it is not what its manifest says
    checkpoints/RUN/owner.json           the attempt that writes
    model.safetensors, config.json, ...  the newest weights, later the finished model

Commits name the commit they follow, so that a second writer is noticed, and an answer that was lost is no second
commit. The token is that of the environment.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ftl.contract import MANIFEST_FILE, HubRef
from ftl.sources.hubrepo import Repo, ask_hub
from ftl.sources.retry import PassingError
from ftl_runtime.checkpoint import manifest
from ftl_runtime.checkpoint.hubclient import open_repository
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.remote import OWNER_FILE, SupersededError, Told, check_room, owner_of
from ftl_runtime.checkpoint.store import Checkpoint

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

_BROKEN_FILE = "broken.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)/" + re.escape(MANIFEST_FILE))
_BROKEN = re.compile(r"checkpoint-(\d+)/" + re.escape(_BROKEN_FILE))
_MODEL = re.compile(
    r"(adapter_)?model[\w.-]*\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json|.*\.jinja|"
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|preprocessor|processor)[\w.-]*"
)
"""Files at the top of a checkpoint that are the model."""
_TRIES = 5
_PATHS_ASKED = 500
_LARGE_BYTES = 8 << 20
_Result = TypeVar("_Result")


class HubStore:
    """The RemoteStore of a model repository."""

    def __init__(self, ref: HubRef, run_id: str) -> None:
        self.label = f"hf://{ref.repo}"
        self._ref = ref
        self._run_id = run_id
        self._root = f"checkpoints/{run_id}"
        self._repo = Repo(ref.repo, ref.branch, "model", "hub_model_id", "hub_revision")
        self._owner: str | None = None
        self._opened: HfApi | None = None
        self._id = ref.repo
        """With the user, once the repository is open."""

    def claim(self, owner: str) -> None:
        def attempt(head: str) -> None:
            if self._owner_at(head) != owner:
                add = _add(f"{self._root}/{OWNER_FILE}", json.dumps({"owner": owner}).encode())
                self._commit([add], f"ftl: {self._run_id} begins", head)

        self._at_head(attempt, None)
        self._owner = owner

    def steps(self) -> list[int]:
        from huggingface_hub.errors import RemoteEntryNotFoundError

        def ask() -> list[int]:
            try:
                tree = self._api().list_repo_tree(
                    self._id, self._root, recursive=True, revision=self._ref.branch or "main"
                )
                names = [item.path.removeprefix(f"{self._root}/") for item in tree]
            except RemoteEntryNotFoundError:
                return []
            broken = {match[1] for name in names if (match := _BROKEN.fullmatch(name))}
            found = [match[1] for name in names if (match := _CHECKPOINT.fullmatch(name))]
            return sorted(int(step) for step in found if step not in broken)

        return self._ask(ask)

    def put(self, checkpoint: Checkpoint, drop: Collection[int], told: Told) -> None:
        files = manifest.parse((checkpoint.path / MANIFEST_FILE).read_bytes())["files"]
        place = f"{self._root}/checkpoint-{checkpoint.step}"
        wanted: dict[str, str] = {}
        if self._ref.strategy in ("checkpoint", "all_checkpoints"):
            wanted |= {f"{place}/{name}": name for name in (*files, MANIFEST_FILE)}
        wanted |= {name: name for name in files if _MODEL.fullmatch(name)}
        dropped = [f"{self._root}/checkpoint-{step}/" for step in drop if step != checkpoint.step]
        self._send(checkpoint.path, wanted, [*dropped, f"{place}/{_BROKEN_FILE}"], f"step {checkpoint.step}", told)

    def fetch(self, step: int, dest: Path, told: Told) -> None:
        commit = self._head()
        place = f"{self._root}/checkpoint-{step}"
        size = self._sizes([f"{place}/{MANIFEST_FILE}"], commit).get(f"{place}/{MANIFEST_FILE}")
        if size is None:
            raise BrokenCheckpoint(f"{MANIFEST_FILE} is missing")
        manifest.check_length(size)
        content = self._read(f"{place}/{MANIFEST_FILE}", commit)
        if content is None:
            raise BrokenCheckpoint(f"{MANIFEST_FILE} is missing")
        files = manifest.parse(content)["files"]
        sizes = self._sizes([f"{place}/{relative}" for relative in files], commit)
        for relative, entry in files.items():
            if sizes.get(f"{place}/{relative}") != entry["size"]:
                raise BrokenCheckpoint(f"{relative} is missing, or has another size than was written")
        total, done = sum(entry["size"] for entry in files.values()), 0
        check_room(dest, total)
        for relative, entry in files.items():
            if not self._download(f"{place}/{relative}", commit, dest / relative):
                raise BrokenCheckpoint(f"{relative} is missing")
            done += entry["size"]
            told(done, total)
        (dest / MANIFEST_FILE).write_bytes(content)

    def quarantine(self, step: int) -> None:
        """A file beside it says so from then on, to every machine; the next `put` of the step removes it."""
        mark = f"{self._root}/checkpoint-{step}/{_BROKEN_FILE}"

        def attempt(head: str) -> None:
            if not self._there([mark], head):
                self._commit([_add(mark, json.dumps({"step": step}).encode())], f"ftl: step {step} is broken", head)

        self._at_head(attempt, f"checkpoint-{step}")

    def deliver(self, directory: Path, told: Told) -> str | None:
        files = manifest.parse((directory / MANIFEST_FILE).read_bytes())["files"]
        return self._send(directory, {name: name for name in files}, [], "the finished model", told)

    def keep_bundle(self, directory: Path, scratch: Path) -> None:
        """Nothing: a repository that is private today may be published tomorrow, and its history with it."""

    # -- sending

    def _send(self, directory: Path, wanted: dict[str, str], dropped: list[str], what: str, told: Told) -> str:
        """Have `wanted` (place -> file of the directory) in the repository as the manifest says, and what is `dropped`
        (files, and folders of checkpoints with a slash at their end) not; the commit."""
        files = manifest.parse((directory / MANIFEST_FILE).read_bytes())["files"]

        def attempt(head: str) -> str:
            if self._owner is not None and self._owner_at(head) != self._owner:
                raise SupersededError(
                    f"{self.label}: another attempt of the run {self._run_id} writes there; this one has stopped"
                )
            deletions = self._deletions(dropped, head)
            if not self._wrong(head, directory, files, wanted) and all(deletion.is_folder for deletion in deletions):
                return head  # an earlier try got through, and its answer was lost
            adds = [_add(place, directory / name) for place, name in wanted.items()]
            for add in adds:
                name = wanted[add.path_in_repo]
                if name in files and add.upload_info.sha256.hex() != files[name]["sha256"]:
                    raise BrokenCheckpoint(f"{name} has changed since it was written")
            self._upload(adds, told)
            commit = self._commit([*deletions, *adds], f"ftl: {what}", head)
            if wrong := self._wrong(commit, directory, files, wanted):
                raise PassingError(f"{wrong} did not arrive whole")
            return commit

        return self._at_head(attempt, what)

    def _upload(self, adds: "list[CommitOperationAdd]", told: Told) -> None:
        """Send the contents, large files one by one, so that the progress can be told."""
        total, done = sum(add.upload_info.size for add in adds), 0
        large = [[add] for add in adds if add.upload_info.size > _LARGE_BYTES]
        small = [add for add in adds if add.upload_info.size <= _LARGE_BYTES]
        for together in (*large, small) if small else large:
            self._preupload(together)
            done += sum(add.upload_info.size for add in together)
            told(done, total)

    def _preupload(self, adds: "list[CommitOperationAdd]") -> None:
        names = adds[0].path_in_repo if len(adds) == 1 else f"{adds[0].path_in_repo} and {len(adds) - 1} more"
        branch = self._ref.branch or "main"
        self._ask(
            lambda: self._api().preupload_lfs_files(self._id, adds, revision=branch, free_memory=False), about=names
        )

    def _deletions(self, dropped: list[str], head: str) -> "list[CommitOperationDelete]":
        from huggingface_hub import CommitOperationDelete

        proofs = {path: f"{path}{MANIFEST_FILE}" if path.endswith("/") else path for path in dropped}
        there = self._there(list(proofs.values()), head)
        return [CommitOperationDelete(path, is_folder=path.endswith("/")) for path in dropped if proofs[path] in there]

    def _commit(self, operations: "list[CommitOperationAdd | CommitOperationDelete]", message: str, parent: str) -> str:
        """The new commit. Raises PassingError when another one came in between."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            made = self._api().create_commit(
                self._id,
                operations,
                commit_message=message,
                revision=self._ref.branch or "main",
                parent_commit=parent,
            )
        except HfHubHTTPError as error:
            if error.response.status_code in (409, 412):
                raise _MovedError from error
            raise
        return str(made.oid)

    def _wrong(self, commit: str, directory: Path, files: dict[str, Any], wanted: dict[str, str]) -> str | None:
        """The first place whose content at a commit is not the one wanted, as far as the Hub tells by ids and sizes."""
        found = self._there(list(wanted), commit)
        for place, name in wanted.items():
            info, path = found.get(place), directory / name
            if info is None or info.size != path.stat().st_size:
                return name
            lfs = getattr(info, "lfs", None)
            if lfs is not None:
                expected = files[name]["sha256"] if name in files else manifest.digest(path)[1]
                if lfs.sha256 != expected:
                    return name
            elif info.blob_id != _blob_id(path):
                return name
        return None

    # -- asking

    def _sizes(self, places: list[str], commit: str) -> dict[str, int]:
        """Those of the files that are there."""
        return {place: info.size for place, info in self._there(places, commit).items() if hasattr(info, "size")}

    def _at_head(self, attempt: Callable[[str], _Result], about: str | None) -> _Result:
        """What `attempt` gives for the newest commit, again where others commit meanwhile."""

        def ask() -> _Result:
            for _ in range(_TRIES):
                try:
                    return attempt(self._head())
                except _MovedError:
                    continue
            raise PassingError("others commit to it")

        return self._ask(ask, about=about)

    def _ask(self, call: Callable[[], _Result], *, about: str | None = None) -> _Result:
        """What the call gives; failures are told of the file `about`."""
        return ask_hub(replace(self._repo, file=about), call, delays_s=())

    def _api(self) -> "HfApi":
        if self._opened is None:
            self._opened, self._id = open_repository(self._ref, self._repo)
        return self._opened

    def _head(self) -> str:
        return self._ask(lambda: str(self._api().model_info(self._id, revision=self._ref.branch or "main").sha))

    def _there(self, paths: list[str], commit: str) -> dict[str, Any]:  # Any: RepoFile, of a package that is heavy
        """Those of the paths that are in a commit, with what the Hub tells of each."""
        found: dict[str, Any] = {}
        for start in range(0, len(paths), _PATHS_ASKED):
            asked = paths[start : start + _PATHS_ASKED]
            infos = self._ask(lambda asked=asked: self._api().get_paths_info(self._id, asked, revision=commit))  # type: ignore[misc]
            found |= {info.path: info for info in infos}
        return found

    def _owner_at(self, commit: str) -> str | None:
        return owner_of(self._read(f"{self._root}/{OWNER_FILE}", commit))

    def _read(self, path: str, commit: str) -> bytes | None:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "content"
            return file.read_bytes() if self._download(path, commit, file) else None

    def _download(self, path: str, commit: str, dest: Path) -> bool:
        """Whether the file is there; then it is at `dest` too."""
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        def get(scratch: str) -> bool:
            try:
                got = self._api().hf_hub_download(self._id, path, revision=commit, local_dir=scratch)
            except RemoteEntryNotFoundError:
                return False
            except LocalEntryNotFoundError:
                raise  # it is not known whether it is there: the question was refused, or not answered
            except OSError as error:
                if error.errno is None:  # the client's own, for a size that is not the one told
                    raise PassingError(f"{path} did not come whole") from error
                raise
            Path(got).replace(dest)
            return True

        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".get-") as scratch:
            return self._ask(lambda: get(scratch), about=path)


class _MovedError(Exception):
    """The branch has another newest commit than was thought."""


def _add(place: str, content: Path | bytes) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(place, content)


def _blob_id(path: Path) -> str:
    """The id that git gives the file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

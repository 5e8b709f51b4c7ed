"""What a run was launched with comes back from its store to a computer that has not got it, and nothing else does."""

import hashlib
import json
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from ftl import bundle, bundletar
from ftl.config.train import TrainConfig
from ftl.contract import BUNDLE_TAR, MANIFEST_FILE, Bundle, HubRef, JobSpec, Mount, UrlRef
from ftl.errors import RunError
from ftl.jobs import RunRecord
from ftl.refetch import bring_bundle
from ftl_runtime.checkpoint.bucket import BucketStore
from ftl_runtime.checkpoint.remote import SupersededError

RUN = "abc234-quick"
CONFIG = {"model": {"base": "ann/tiny"}, "data": {"datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]}}


@pytest.fixture
def made(own_state: Path, tmp_path: Path) -> Bundle:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n')
    config = TrainConfig.model_validate({**CONFIG, "optim": {"learning_rate": 1e-3}})
    return bundle.write(bundle.pack(config, [], {"files/rows.jsonl": rows}))


@pytest.fixture
def ref(tmp_path: Path) -> UrlRef:
    return UrlRef(url=f"file://{tmp_path}/store")


@pytest.fixture
def store(ref: UrlRef, made: Bundle, tmp_path: Path) -> BucketStore:
    """The run's store, which has the bundle."""
    scratch = tmp_path / "run"
    scratch.mkdir()
    store = BucketStore(ref, RUN)
    store.claim("1-a")
    store.keep_bundle(Path(made.path), scratch)
    assert list(scratch.iterdir()) == []
    return store


def record(made: Bundle, *stores: UrlRef | HubRef, mounts: tuple[Mount, ...] = ()) -> RunRecord:
    return RunRecord(
        id=RUN, name="quick", created_at=time.time(), ftl_version="0", config_path="cfg.yml", output_dir="/out",
        provider="skypilot", cloud={}, spec=JobSpec(run_id=RUN, stores=stores, mounts=mounts), bundle=made,
    )  # fmt: skip


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_bundle_comes_back_byte_for_byte(store: BucketStore, made: Bundle, ref: UrlRef) -> None:
    before = contents(Path(made.path))
    shutil.rmtree(made.path)
    bring_bundle(record(made, ref))
    assert contents(Path(made.path)) == before
    assert b'"output": "b"' in before["files/rows.jsonl"]
    assert Path(made.path).stat().st_mode & 0o077 == 0
    assert {path.name for path in Path(made.path).parent.iterdir()} == {made.sha256}


def test_one_that_is_here_is_not_asked_for(made: Bundle) -> None:
    before = contents(Path(made.path))
    bring_bundle(record(made, UrlRef(url="s3://nowhere/at-all")))
    assert contents(Path(made.path)) == before


def test_what_somebody_has_changed_in_the_store_is_not_taken(
    store: BucketStore, made: Bundle, ref: UrlRef, tmp_path: Path
) -> None:
    """Even where its own manifest agrees; nor a file beside those that were sent, which would be imported."""
    before = tmp_path / "before"
    shutil.move(made.path, before)
    kept = tmp_path / "store" / RUN / BUNDLE_TAR
    other = tmp_path / "other"
    with tarfile.open(kept) as tar:
        tar.extractall(other, filter="data")
    (other / "files/rows.jsonl").write_text('{"instruction": "a", "output": "c"}\n')
    for agrees in (False, True):
        if agrees:
            sealed = json.loads((other / MANIFEST_FILE).read_bytes())
            sealed["files"]["files/rows.jsonl"] = hashlib.sha256((other / "files/rows.jsonl").read_bytes()).hexdigest()
            (other / MANIFEST_FILE).write_text(json.dumps(sealed))
        with tarfile.open(kept, "w") as tar:
            tar.add(other, ".")
        told = "it is another bundle" if agrees else "files/rows.jsonl is not what its manifest says"
        with pytest.raises(RunError, match=rf"bundle\.tar in its store: {told}"):
            bring_bundle(record(made, ref))
    shutil.rmtree(other)
    shutil.copytree(before, other)
    for name in ("code/torch.py", "code/ftl_runtime/__pycache__/run.cpython-311.pyc"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_text("print('mine')")
        with tarfile.open(kept, "w") as tar:
            tar.add(other, ".")
        with pytest.raises(RunError, match=rf"in its store: {name} is not in its manifest"):
            bring_bundle(record(made, ref))
        (other / name).unlink()
    (other / "code/torch.py").symlink_to("ftl/__init__.py")
    with tarfile.open(kept, "w") as tar:
        tar.add(other, ".")
    with pytest.raises(RunError, match=r"in its store: it holds a link"):
        bring_bundle(record(made, ref))
    kept.write_bytes(b"no tar")
    with pytest.raises(RunError, match=r"bundle\.tar in its store"):
        bring_bundle(record(made, ref))
    assert list(Path(made.path).parent.iterdir()) == []


def test_run_without_a_bucket_says_what_would_have_kept_it(made: Bundle, ref: UrlRef) -> None:
    shutil.rmtree(made.path)
    for stores in ((), (HubRef(repo="ann/tiny"),), (ref,)):
        with pytest.raises(RunError, match=r"launched on another computer.*a bucket, as `checkpoints`"):
            bring_bundle(record(made, *stores))


def test_directory_that_was_sent_by_itself_is_named(store: BucketStore, made: Bundle, ref: UrlRef) -> None:
    shutil.rmtree(made.path)
    mount = Mount(name="llama-70b-0123", source="", fingerprint="f")
    with pytest.raises(RunError, match="llama-70b-0123 was sent by itself"):
        bring_bundle(record(made, ref, mounts=(mount,)))


def test_bundle_is_sent_once_and_only_by_who_writes_there(store: BucketStore, made: Bundle, tmp_path: Path) -> None:
    kept = tmp_path / "store" / RUN / BUNDLE_TAR
    written_at = kept.stat().st_mtime_ns
    store.keep_bundle(Path(made.path), tmp_path / "run")
    assert kept.stat().st_mtime_ns == written_at
    BucketStore(UrlRef(url=f"file://{tmp_path}/store"), RUN).claim("2-b")
    with pytest.raises(SupersededError):
        store.keep_bundle(Path(made.path), tmp_path / "run")


def test_files_of_a_kept_bundle_are_of_a_time_that_zip_knows(tmp_path: Path) -> None:
    """SkyPilot zips what it sends to a server elsewhere, and ZIP begins with 1980."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_text('{"files": {}}')
    bundletar.pack(tmp_path / "bundle", tmp_path / "bundle.tar")
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        assert all(time.gmtime(member.mtime).tm_year >= 1980 for member in tar.getmembers())

"""Bundles that no run needs go, whole; all others stay."""

import json
import shutil
from pathlib import Path

import pytest

from ftl import garbage


@pytest.fixture
def bundles(own_state: Path) -> Path:
    """Two bundles, named a and b, each with one file of its own and one that both hold."""
    for name in ("shared", "of-a", "of-b"):
        blob = own_state / "blobs/ab" / name
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text(name)
    for bundle in ("a", "b"):
        for name in ("shared", f"of-{bundle}"):
            place = own_state / "bundles" / bundle / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(own_state / "blobs/ab" / name)
    return own_state / "bundles"


def note_run(state: Path, name: str, content: str) -> None:
    (state / "runs" / name).mkdir(parents=True)
    (state / "runs" / name / "record.json").write_text(content)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_bundle_that_no_record_names_goes_with_what_only_it_holds(bundles: Path, own_state: Path) -> None:
    note_run(own_state, "run", json.dumps({"bundle": {"sha256": "a"}}))
    note_run(own_state, ".removed-run-1", json.dumps({"bundle": {"sha256": "b"}}))
    note_run(own_state, "torn", "{")
    garbage.collect_garbage()
    assert names_in(bundles) == {"a"}
    assert names_in(bundles / "a") == {"shared", "of-a"}
    assert names_in(own_state / "blobs/ab") == {"shared", "of-a"}


def test_bundle_of_a_record_that_only_a_newer_ftl_can_read_stays(bundles: Path, own_state: Path) -> None:
    note_run(own_state, "run", json.dumps({"version": 9, "bundle": {"sha256": "a", "kind": "other"}}))
    garbage.collect_garbage()
    assert names_in(bundles) == {"a"}


def test_removal_that_is_broken_off_leaves_no_half_bundle_under_its_name(
    bundles: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher takes one that it finds there to be whole."""

    def broken_off(directory: Path, *, ignore_errors: bool) -> None:
        next(directory.iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", broken_off)
        with pytest.raises(KeyboardInterrupt):
            garbage.collect_garbage()
    whole = [path for path in bundles.iterdir() if not path.name.startswith(".")]
    assert [len(names_in(path)) for path in whole] == [2]
    garbage.collect_garbage()
    assert names_in(bundles) == set()
    assert names_in(own_state / "blobs/ab") == set()

"""ftl gc on this machine: what no run needs goes, and is told."""

import shutil
from pathlib import Path

import pytest

from ftl import jobs
from ftl.commands import gc


def test_bundles_without_a_run_and_half_removed_runs_go(own_state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob = own_state / "blobs/ab/abcd"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x" * 2**20)
    bundle = own_state / "bundles" / ("a" * 64)
    bundle.mkdir(parents=True)
    (bundle / "rows.jsonl").hardlink_to(blob)
    (own_state / "runs/.removed-cats-1").mkdir(parents=True)
    assert gc.run(cloud=None, as_json=True) == 0
    told = capsys.readouterr().out
    assert "cats-1 removed: it was left half removed" in told
    assert "1.0 MiB of bundles removed: no run needs them" in told
    assert not bundle.exists() and not blob.exists()
    assert list((own_state / "runs").iterdir()) == []
    assert gc.run(cloud=None, as_json=True) == 0
    assert capsys.readouterr().out == ""


def test_run_that_another_shell_is_removing_may_be_gone_before_it(
    own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = own_state / "runs/cats"
    run.mkdir(parents=True)
    (run / "log.txt").write_text("")
    rmtree = shutil.rmtree

    def rmtree_late(grave: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        assert gc.run(cloud=None, as_json=True) == 0
        rmtree(grave)

    monkeypatch.setattr(shutil, "rmtree", rmtree_late)
    jobs.delete("cats")
    assert list((own_state / "runs").iterdir()) == []

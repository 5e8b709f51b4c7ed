"""Bundles: the same input is the same bundle, and only what the config names goes in."""

import os
import shutil
from pathlib import Path

import pytest

from ftl import bundle
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError, StorageError
from ftl.references import references


def config(**changes: object) -> TrainConfig:
    nested = {
        "model": {"base": "./model"},
        "data": {"datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]},
        "optim": {"learning_rate": 1e-3},
    }
    return TrainConfig.model_validate(nested | changes)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "cfg.yml").write_text("base_model: ./model\n")
    return tmp_path


def packed(project: Path, **changes: object) -> bundle.Packed:
    chosen = config(**changes)
    refs, problems = references(chosen, project / "cfg.yml")
    assert problems == []
    return bundle.pack(chosen, refs)


def test_same_input_twice_is_one_bundle_and_copies_nothing_again(project: Path) -> None:
    first = bundle.write(packed(project))
    before = {p: p.stat().st_mtime_ns for p in Path(first.path).rglob("*")}
    again = bundle.write(packed(project))
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in Path(first.path).rglob("*")} == before


def test_copy_that_another_launcher_has_made_meanwhile_is_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a file that is just being replaced fails."""
    made = packed(project)
    copyfile, inodes = shutil.copyfile, {}

    def copy(source: Path, stage: Path) -> None:
        copyfile(source, stage)
        blob = stage.with_name(made.digests[next(name for name, path in made.files.items() if path == source)])
        if not blob.exists():
            copyfile(source, blob)
            inodes[blob] = blob.stat().st_ino

    monkeypatch.setattr(shutil, "copyfile", copy)
    bundle.write(made)
    assert len(inodes) > 10
    assert {blob: blob.stat().st_ino for blob in inodes} == inodes
    assert not [path for path in inodes for path in path.parent.glob(".*")]


def test_copy_that_another_launcher_tidied_away_meanwhile_is_made_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, link, removed = packed(project), os.link, []

    def tidied(source: Path, place: Path) -> None:
        if "bundles" in Path(place).parts and not removed:
            removed.append(Path(source))
            Path(source).unlink()
        link(source, place)

    monkeypatch.setattr(os, "link", tidied)
    written = Path(bundle.write(made).path)
    assert removed[0].exists()
    assert all((written / name).is_file() for name in made.files)


def test_config_and_tokenizer_of_other_places_go_along(project: Path) -> None:
    for name in ("other", "words"):
        (project / name).mkdir()
        (project / name / "config.json").write_text(f'{{"name": "{name}"}}')
    made = packed(project, model={"base": "./model", "config_source": "./other", "tokenizer": "./words"})
    assert made.config.model.config_source is not None
    place = made.config.model.config_source.removeprefix("bundle:")
    assert made.files[f"{place}/config.json"] == project / "other" / "config.json"
    assert made.config.model.tokenizer is not None
    assert made.config.model.tokenizer.endswith("-words")


def test_changed_row_is_another_bundle_that_shares_every_other_file(project: Path) -> None:
    first = bundle.write(packed(project))
    (project / "rows.jsonl").write_text('{"instruction": "a", "output": "c"}\n')
    second = bundle.write(packed(project))
    assert second.sha256 != first.sha256
    code = "code/ftl/errors.py"
    assert (Path(first.path) / code).samefile(Path(second.path) / code)


def test_bundle_is_unchanged_when_the_user_edits_the_file_afterwards(project: Path) -> None:
    made = bundle.write(packed(project))
    (project / "rows.jsonl").write_text("changed\n")
    (rows,) = Path(made.path).glob("files/*-rows.jsonl")
    assert rows.read_text() == '{"instruction": "a", "output": "b"}\n'


def test_resolved_config_names_places_in_the_bundle(project: Path) -> None:
    made = packed(project)
    path = made.config.data.datasets[0].path
    assert path.startswith("bundle:files/")
    assert path.endswith("-rows.jsonl")
    assert path.removeprefix("bundle:") in made.files


def test_resolved_config_has_files_of_the_bundle_in_the_place_of_each_path(project: Path) -> None:
    for name, content in (
        ("a.jsonl", "1"),
        ("b.jsonl", "2"),
        ("c.jsonl", "3"),
        ("own.py", "4"),
        ("own.jinja", "{{ x }}"),
    ):
        (project / name).write_text(content)
    listed = {"path": "json", "data_files": ["c.jsonl", "https://host/x.jsonl", "[ab].jsonl"], "type": "own.py:render"}
    data = {"datasets": [listed | {"chat_template_jinja": "own.jinja"}], "chat_template_jinja": "./own.jinja"}
    (dataset,) = (made := packed(project, data=data)).config.data.datasets
    assert [file.rpartition("-")[2] for file in dataset.data_files] == [
        "c.jsonl",
        "https://host/x.jsonl",
        "a.jsonl",
        "b.jsonl",
    ]
    assert all(f.removeprefix("bundle:") in made.files for f in dataset.data_files if not f.startswith("https:"))
    assert dataset.path == "json"
    file, function = str(dataset.type).removeprefix("bundle:").rsplit(":", 1)
    assert (made.files[file], function) == (project / "own.py", "render")
    assert (dataset.chat_template_jinja, made.config.data.chat_template_jinja) == ("{{ x }}", "{{ x }}")


def test_only_the_named_files_of_a_data_directory_go_into_the_bundle(project: Path) -> None:
    (project / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (project / "data" / name).write_text(name)
    made = packed(project, data={"pretraining_dataset": [{"path": "data", "data_files": ["b.jsonl"]}]})
    (dataset,) = made.config.data.pretraining_dataset
    assert dataset.path is None
    assert [file.rpartition("-")[2] for file in dataset.data_files] == ["b.jsonl"]
    assert not any(name.endswith("a.jsonl") for name in made.files)


def test_changed_template_is_another_bundle(project: Path) -> None:
    (project / "own.jinja").write_text("one")
    data = {"datasets": [{"path": "./rows.jsonl", "type": "alpaca"}], "chat_template_jinja": "own.jinja"}
    first = packed(project, data=data).bundle.sha256
    (project / "own.jinja").write_text("two")
    assert packed(project, data=data).bundle.sha256 != first


def test_bundle_holds_the_code_of_both_packages_and_no_data_of_the_wheel(project: Path) -> None:
    names = set(packed(project).files)
    assert "code/ftl/contract.py" in names
    assert "code/ftl_runtime/__main__.py" in names
    assert all(name.endswith(".py") for name in names if name.startswith("code/"))


def test_large_directory_is_mounted_in_place(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MOUNT_ABOVE_BYTES", 10)
    (project / "model/model.safetensors").write_bytes(b"x" * 100)
    made = packed(project)
    (mount,) = made.mounts
    assert mount.source == str(project / "model")
    assert made.config.model.base == f"mount:{mount.name}"
    assert not any("model.safetensors" in name for name in made.files)


def test_secrets_in_a_model_directory_stay_here_and_are_named(project: Path) -> None:
    (project / "model/.env").write_text("HF_TOKEN=hf_x")
    (project / "model/.git").mkdir()
    (project / "model/.git/config").write_text("token")
    made = packed(project)
    assert not any(".env" in name or ".git" in name for name in made.files)
    assert sorted(Path(p).name for p in made.excluded) == [".env", ".git"]


def test_link_out_of_a_model_directory_is_refused(project: Path) -> None:
    (project / "model/tokenizer.json").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="links must stay inside the directory"):
        packed(project)


def test_hub_cache_snapshot_is_taken_through_its_links(project: Path) -> None:
    blobs, snapshot = project / "models--o--m/blobs", project / "models--o--m/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "123").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/123")
    made = packed(project, model={"base": str(snapshot)})
    assert any(name.endswith("-abc/config.json") for name in made.files)


def test_missing_file_says_where_it_was_looked_for(project: Path) -> None:
    chosen = config(data={"datasets": [{"path": "./row.jsonl", "type": "alpaca"}]})
    _, (problem,) = references(chosen, project / "cfg.yml")
    assert str(problem).startswith("datasets.0.path: ./row.jsonl: no such file or directory: looked in ")


def test_missing_base_names_the_config_that_makes_it(project: Path) -> None:
    (project / "pretrain.yml").write_text("output_dir: ./base\n")
    _, (problem,) = references(config(model={"base": "./base"}), project / "cfg.yml")
    assert problem.remedy is not None
    assert "pretrain.yml makes it: run `ftl train " in problem.remedy


def test_hub_model_is_not_a_file(project: Path) -> None:
    refs, problems = references(config(model={"base": "org/model"}), project / "cfg.yml")
    assert problems == []
    assert [ref.key for ref in refs] == ["datasets.0.path"]


def test_failed_write_leaves_no_bundle(project: Path, monkeypatch: pytest.MonkeyPatch, own_state: Path) -> None:
    made = packed(project)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match="No space left on device"):
        bundle.write(made)
    assert list((own_state / "bundles").iterdir()) == []

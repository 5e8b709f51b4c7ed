"""What a config names: files here, repositories on the Hub and their commits."""

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from ftl.config.train import TrainConfig
from ftl.errors import ConfigError, Problem
from ftl.references import Reference, locate, pin_revisions, references
from ftl.sources import UnreachableError
from ftl.sources.hubrepo import Repo


def config(model: dict[str, Any] | None = None, **data: Any) -> TrainConfig:  # Any: fields of sections
    model = model or {"base": "org/model", "revision": "v3"}
    nested = {"model": model, "data": data or {"datasets": [{"path": "a.jsonl"}]}, "optim": {"learning_rate": 1e-3}}
    return TrainConfig.model_validate(nested)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(given: TrainConfig, project: Path, *files: str) -> tuple[list[Reference], list[Problem]]:
    for name in files:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    return references(given, project / "cfg.yml")


def test_every_kind_of_file_is_found_under_its_key(project: Path) -> None:
    given = config(
        datasets=[{"path": "a.jsonl", "type": "./own.py:render", "chat_template_jinja": "own.jinja"}],
        test_datasets=[{"path": "json", "data_files": ["t.jsonl"]}],
        pretraining_dataset=[{"data_files": ["texts/*.txt"]}],
        chat_template_jinja="./all.jinja",
    )
    files = ("a.jsonl", "own.py", "own.jinja", "t.jsonl", "texts/1.txt", "texts/2.txt", "all.jinja")
    found, problems = named(given, project, *files)
    assert problems == []
    assert {(one.key, str(one.path.relative_to(project))) for one in found} == {
        ("datasets.0.path", "a.jsonl"),
        ("datasets.0.type", "own.py"),
        ("datasets.0.chat_template_jinja", "own.jinja"),
        ("test_datasets.0.data_files.0", "t.jsonl"),
        ("pretraining_dataset.0.data_files.0", "texts/1.txt"),
        ("pretraining_dataset.0.data_files.0", "texts/2.txt"),
        ("chat_template_jinja", "all.jinja"),
    }


def test_what_is_in_the_network_or_no_path_is_no_file(project: Path) -> None:
    given = config(
        datasets=[
            {"path": "org/rows", "data_files": ["a.jsonl"]},
            {"path": "s3://bucket/rows.jsonl"},
            {"path": "json", "data_files": ["https://host/rows.jsonl"]},
            {"path": "imdb", "chat_template_jinja": "{% for m in messages %}{{ m }}\n{% endfor %}"},
        ]
    )
    assert named(given, project) == ([], [])


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"datasets": [{"path": "./gone"}]}, "datasets.0.path"),
        ({"datasets": [{"path": "my rows"}]}, "datasets.0.path"),
        ({"datasets": [{"path": "json", "data_files": ["a.jsonl", "gone*.jsonl"]}]}, "datasets.0.data_files.1"),
        ({"datasets": [{"path": "a.jsonl", "type": "gone.py:render"}]}, "datasets.0.type"),
        ({"chat_template_jinja": "gone.jinja"}, "chat_template_jinja"),
    ],
)
def test_missing_file_is_named_by_its_key(data: dict[str, Any], key: str, project: Path) -> None:
    _, (problem,) = named(config(**data), project, "a.jsonl")
    assert problem.where == key
    assert problem.allowed == "looked in . or the working directory"


def test_file_of_a_dataset_directory_is_carried_without_the_rest(project: Path) -> None:
    found, problems = named(
        config(datasets=[{"path": "data", "data_files": ["b.jsonl"]}]), project, "data/a.jsonl", "data/b.jsonl"
    )
    assert problems == []
    assert [(one.key, one.path) for one in found] == [("datasets.0.data_files.0", project / "data/b.jsonl")]


def test_hub_datasets_are_pinned_and_others_are_not_asked_for(project: Path) -> None:
    given = config(
        datasets=[
            {"path": "org/rows", "revision": "v1"},
            {"path": "a.jsonl"},
            {"path": "json", "data_files": ["b.csv"]},
        ],
        test_datasets=[{"path": "imdb"}, {"path": "s3://bucket/a.jsonl"}],
    )
    (project / "a.jsonl").touch()
    asked: list[str] = []

    def commit_of(repo: Repo) -> str:
        asked.append(repo.id)
        return f"commit of {repo.id} at {repo.revision}"

    pinned, notes, problems = pin_revisions(given, project / "cfg.yml", commit_of=commit_of)
    assert (sorted(asked), notes, problems) == (["imdb", "org/model", "org/rows"], [], [])
    assert pinned.model.revision == "commit of org/model at v3"
    assert [d.revision for d in pinned.data.datasets] == ["commit of org/rows at v1", None, None]
    assert [d.revision for d in pinned.data.test_datasets] == ["commit of imdb at None", None]


def test_unreachable_hub_leaves_the_revision_and_a_note(project: Path) -> None:
    given = config(datasets=[{"path": "org/rows"}, {"path": "org/slow", "revision": "v1"}])
    never = Event()

    def commit_of(repo: Repo) -> str:
        if repo.id == "org/slow":
            never.wait(60)
        raise UnreachableError(Problem("datasets.0.path", "org/rows: no answer"))

    pinned, notes, problems = pin_revisions(given, project / "cfg.yml", budget_s=0.05, commit_of=commit_of)
    never.set()
    assert (pinned, problems) == (given, [])
    assert notes == [
        "org/model is not pinned to a commit: datasets.0.path: org/rows: no answer",
        "org/rows is not pinned to a commit: datasets.0.path: org/rows: no answer",
        "org/slow is not pinned to a commit: the Hub does not answer",
    ]


COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:7]])
def test_code_that_is_trusted_is_run_at_the_commit_of_the_launch(revision: str | None, project: Path) -> None:
    given = config(model={"base": "org/model", "revision": revision, "trust_remote_code": True})
    pinned, notes, problems = pin_revisions(given, project / "cfg.yml", commit_of=lambda repo: COMMIT)
    assert (pinned.model.revision, problems) == (COMMIT, [])
    assert notes == [
        f"trust_remote_code runs the code of org/model at commit {COMMIT}, which it is today; once you have read it, "
        f"write `model_revision: {COMMIT}`"
    ]


def test_code_is_run_at_no_commit_that_is_not_known(project: Path) -> None:
    def commit_of(repo: Repo) -> str:
        raise UnreachableError(Problem("base_model", f"{repo.id}: no answer"))

    def problems(**model: object) -> list[str]:
        given = config(model={"base": "org/model", "trust_remote_code": True, **model})
        return [str(found) for found in pin_revisions(given, project / "cfg.yml", commit_of=commit_of)[2]]

    assert problems() == [
        "trust_remote_code: runs code of org/model, of which no commit is known: base_model: org/model: no answer; "
        "write `model_revision: COMMIT` with the commit that you have read, or a directory as base_model"
    ]
    assert problems(revision=COMMIT) == []
    assert problems(trust_remote_code=False) == []


def test_code_of_a_local_directory_needs_no_commit(project: Path) -> None:
    (project / "model").mkdir()
    given = config(model={"base": "./model", "trust_remote_code": True})
    _, notes, problems = pin_revisions(given, project / "cfg.yml", commit_of=lambda repo: COMMIT)
    assert (notes, problems) == ([], [])


def test_refused_repository_is_a_problem_of_its_key(project: Path) -> None:
    def commit_of(repo: Repo) -> str:
        raise ConfigError(Problem(repo.key, f"{repo.id}: is gated"))

    given = config(datasets=[{"path": "org/rows"}], test_datasets=[{"path": "org/t"}])
    _, notes, problems = pin_revisions(given, project / "cfg.yml", commit_of=commit_of)
    assert notes == []
    assert [str(problem) for problem in problems] == [
        "base_model: org/model: is gated",
        "datasets.0.path: org/rows: is gated",
        "test_datasets.0.path: org/t: is gated",
    ]


@pytest.mark.parametrize("given", ["x" * 5000, "a\0b", "~no-such-user/x"], ids=["long", "null", "user"])
def test_impossible_path_is_nowhere(given: str, project: Path) -> None:
    assert locate(given, project / "cfg.yml") is None

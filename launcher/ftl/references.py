"""The local files that a config names, and the commits of the Hub datasets it names."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from ftl.config.address import is_address
from ftl.config.data import DatasetSection
from ftl.config.harness import is_folder
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError, FtlError, Problem
from ftl.formats.python import strategy_file
from ftl.formats.templates import is_template_path
from ftl.sources.hubrepo import Repo, is_commit, is_repo_id, readable_commit
from ftl.sources.local import LOADERS, find_listed, looks_local

_BASE = "base_model"
REWARDS = "trl.reward_funcs"
"""The key whose entries name files with reward functions."""


@dataclass(frozen=True)
class Reference:
    """A local path that a config names: which key, as written, and where it is."""

    key: str
    """Such as base_model or datasets.0.data_files.1; all files that one pattern names have its key."""
    given: str
    path: Path


@dataclass(frozen=True)
class _Wanted:
    key: str
    given: str
    may_be_remote: bool
    """It is a repository or an address if there is no such path and it does not look like one."""


def references(config: TrainConfig, config_path: Path) -> tuple[list[Reference], list[Problem]]:
    """Every local path of the config, and a Problem for each that is not there.

    A relative path is looked for beside the config file, then in the working directory.
    """
    found: list[Reference] = []
    problems: list[Problem] = []
    for wanted in _wanted(config):
        path = locate(wanted.given, config_path)
        if path is not None:
            found.append(Reference(wanted.key, wanted.given, path))
        elif not wanted.may_be_remote or not may_be_repository(wanted.given):
            problems.append(_missing(wanted.key, wanted.given, config_path))
    for key, dataset in datasets_of(config):
        if dataset.data_files and dataset.path is not None and _is_missing(dataset.path, config_path):
            problems.append(_missing(f"{key}.path", dataset.path, config_path))
        for number, (given, paths) in enumerate(_data_files(dataset, config_path)):
            own = f"{key}.data_files.{number}"
            found += [Reference(own, given, path) for path in paths]
            problems += [] if paths or is_address(given) else [_missing(own, given, config_path)]
    return found, problems


def locate(given: str, config_path: Path) -> Path | None:
    """Where a path of the config is: beside the config, else in the working directory, else None."""
    for base in (config_path.parent, Path.cwd()):
        try:
            candidate = (base / Path(given).expanduser()).absolute()
            if candidate.exists():
                return Path(os.path.normpath(candidate))
        except (OSError, ValueError, RuntimeError):  # too long for a name, a null in it, no such ~user
            return None
    return None


def may_be_repository(given: str) -> bool:
    """Whether a path that is not on this machine may be a repository of the Hub rather than a file that is missing."""
    return is_repo_id(given) and not looks_local(given)


def datasets_of(config: TrainConfig) -> Iterator[tuple[str, DatasetSection]]:
    """Every dataset with its key, such as test_datasets.0."""
    for key, datasets in config.data.lists().items():
        yield from ((f"{key}.{number}", dataset) for number, dataset in enumerate(datasets))


def pin_revisions(
    config: TrainConfig,
    config_path: Path,
    *,
    budget_s: float = 5.0,
    commit_of: Callable[[Repo], str] = readable_commit,
) -> tuple[TrainConfig, list[str], list[Problem | str]]:
    """The config with its base model and every dataset of the Hub at the commit that their revision is now.

    With notes on those left as they are and on code that will be run, and problems.

    All are asked at once, for `budget_s` seconds at most; one that does not answer is left as it is. It is a problem
    when the Hub says that there is no such repository or revision, or no access; and when code would be run that is
    at no commit.
    """
    repos: dict[str, Repo] = {}
    if _is_on_the_hub(config.model.base, config_path):
        repos[_BASE] = Repo(config.model.base, config.model.revision, "model", "base_model", "model_revision")
    repos |= {
        key: Repo(dataset.path or "", dataset.revision, key=f"{key}.path", revision_key=f"{key}.revision")
        for key, dataset in datasets_of(config)
        if _is_on_the_hub(dataset.path, config_path)
    }
    answers = _asked_at_once(repos, commit_of, budget_s)
    nested = config.model_dump(mode="json")
    notes: list[str] = []
    problems: list[Problem | str] = []
    for key, repo in repos.items():
        answer = answers.get(key)
        if isinstance(answer, str) and key == _BASE:
            nested["model"]["revision"] = answer
        elif isinstance(answer, str):
            name, number = key.split(".")
            nested["data"][name][int(number)]["revision"] = answer
        elif isinstance(answer, ConfigError):
            problems += answer.problems
        else:
            reason = "the Hub does not answer" if answer is None else str(answer)
            notes.append(f"{repo.id} is not pinned to a commit: {reason}")
    pinned = TrainConfig.model_validate(nested)
    if config.model.trust_remote_code and _BASE in repos and not isinstance(answers.get(_BASE), ConfigError):
        if not is_commit(pinned.model.revision):
            problems.append(_unpinned_code(repos[_BASE], answers.get(_BASE)))
        elif not is_commit(config.model.revision):
            notes.append(_told_code(pinned))
    return pinned, notes, problems


def _unpinned_code(repo: Repo, answer: str | FtlError | None) -> Problem:
    reason = "the Hub does not answer" if answer is None else str(answer)
    given = f"runs code of {repo.id}, of which no commit is known: {reason}"
    remedy = "write `model_revision: COMMIT` with the commit that you have read, or a directory as base_model"
    return Problem("trust_remote_code", given, None, remedy)


def _told_code(pinned: TrainConfig) -> str:
    base, commit = pinned.model.base, pinned.model.revision
    return (
        f"trust_remote_code runs the code of {base} at commit {commit}, which it is today; once you have read it, "
        f"write `model_revision: {commit}`"
    )


def _asked_at_once(
    repos: dict[str, Repo], commit_of: Callable[[Repo], str], budget_s: float
) -> dict[str, str | FtlError]:
    """Commit or failure of each that answers in time."""
    answers: dict[str, str | FtlError] = {}

    def ask(key: str) -> None:
        try:
            answers[key] = commit_of(repos[key])
        except FtlError as e:
            answers[key] = e

    threads = [Thread(target=ask, args=(key,), daemon=True) for key in repos]
    deadline = time.monotonic() + budget_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)


def _wanted(config: TrainConfig) -> Iterator[_Wanted]:
    yield _Wanted("base_model", config.model.base, True)
    if config.model.config_source is not None:
        yield _Wanted("base_model_config", config.model.config_source, True)
    if config.model.tokenizer is not None:
        yield _Wanted("tokenizer_config", config.model.tokenizer, True)
    if config.adapter is not None and config.adapter.initial is not None:
        yield _Wanted("lora_model_dir", config.adapter.initial, True)
    if config.output.resume_from_checkpoint is not None:
        yield _Wanted("resume_from_checkpoint", config.output.resume_from_checkpoint, False)
    for number, task in enumerate(config.harness.tasks):
        if is_folder(task):
            yield _Wanted(f"lm_eval_tasks.{number}", task, False)
    yield from _templates("", config.data.chat_template_jinja)
    for number, function in enumerate(config.objective.grpo.reward_funcs if config.objective.grpo else ()):
        file = strategy_file(function)
        if file is not None:
            yield _Wanted(f"{REWARDS}.{number}", file, False)
    for key, dataset in datasets_of(config):
        if dataset.path is not None and not dataset.data_files and not is_address(dataset.path):
            yield _Wanted(f"{key}.path", dataset.path, True)
        yield from _templates(f"{key}.", dataset.chat_template_jinja)
        file = strategy_file(dataset.type) if isinstance(dataset.type, str) else None
        if file is not None:
            yield _Wanted(f"{key}.type", file, False)


def _templates(prefix: str, given: str | None) -> Iterator[_Wanted]:
    if given is not None and is_template_path(given):
        yield _Wanted(f"{prefix}chat_template_jinja", given.strip(), False)


def _data_files(dataset: DatasetSection, config_path: Path) -> list[tuple[str, list[Path]]]:
    """Each entry of data_files with the local files it names; none where they are a repository's."""
    return find_listed(dataset, lambda given: locate(given, config_path)) or []


def _is_on_the_hub(path: str | None, config_path: Path) -> bool:
    if path is None or path in LOADERS or not may_be_repository(path):
        return False
    return locate(path, config_path) is None


def _is_missing(path: str, config_path: Path) -> bool:
    """Whether a dataset's path must be here and is not."""
    is_elsewhere = path in LOADERS or is_address(path) or may_be_repository(path)
    return not is_elsewhere and locate(path, config_path) is None


def _missing(key: str, given: str, config_path: Path) -> Problem:
    maker = _made_by(given, config_path)
    remedy = f"{maker.name} makes it: run `ftl train {_shown(maker)}` first" if maker else None
    looked = " or ".join(dict.fromkeys([str(_shown(config_path.parent)), "the working directory"]))
    return Problem(key, f"{given}: no such file or directory", f"looked in {looked}", remedy)


def _made_by(given: str, config_path: Path) -> Path | None:
    """The config beside this one whose `output_dir` is that path."""
    import yaml

    wanted = os.path.normpath(config_path.parent / given)
    for sibling in sorted(config_path.parent.glob("*.y*ml")):
        try:
            data = yaml.safe_load(sibling.read_text())
        except (OSError, ValueError, yaml.YAMLError):
            continue
        made = data.get("output_dir") if isinstance(data, dict) else None
        if isinstance(made, str) and os.path.normpath(sibling.parent / made) == wanted and sibling != config_path:
            return sibling
    return None


def _shown(path: Path) -> Path:
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path

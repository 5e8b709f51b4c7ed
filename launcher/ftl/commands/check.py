"""ftl check: the keys, every row of the data, and the repositories and secrets a training needs; starts nothing."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ftl import precheck
from ftl.backends import Backend
from ftl.cloudfile import load_cloud
from ftl.commands.overrides import read_overrides
from ftl.config.load import Loaded
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.inspect.bearing import load_bearing
from ftl.inspect.checkview import CheckView, make_check_view
from ftl.inspect.datacheck import DatasetReport, check_dataset
from ftl.inspect.datasets import Listed, is_local, listed, loc_of, located
from ftl.inspect.hub import Wanted, hub_problems
from ftl.inspect.summary import Summary, remarks, split_remarks, summarise
from ftl.inspect.tokenizer import NoTokenizerError, load_view
from ftl.references import locate, may_be_repository, references
from ftl.sources.hubrepo import Repo
from ftl.sources.local import LOADERS
from ftl.sources.remote import is_address
from ftl.tokens import TokenizerView

_OPTIONS = ("--cloud", "--set", "--no-data", "--no-network", "--max-problems", "--json")
_LAST = 10**9  # after every line of the config


@dataclass
class _Findings:
    """Problems with the line of the config that each is about."""

    lines: list[tuple[int, Problem]] = field(default_factory=list)

    def add(self, problem: Problem | str, line: int | None = None) -> None:
        """`line` is that of the key when the problem does not say `cfg.yml:14` itself."""
        shown = problem if isinstance(problem, Problem) else Problem(problem)
        told = shown.where.partition(": ")[0].rpartition(":")[2]
        self.lines.append((line or (int(told) if told.isdigit() else _LAST), shown))

    @property
    def in_order(self) -> list[Problem]:
        """By line, and for one line in the order they were found. None twice."""
        return list(dict.fromkeys(problem for _, problem in sorted(self.lines, key=lambda entry: entry[0])))


def run(
    config: Path,
    *,
    flags: list[str],
    assignments: list[str],
    cloud: Path | None,
    data: bool,
    network: bool,
    max_problems: int,
    as_json: bool,
) -> int:
    """Check all there is to check; 0, or 2 when there is any problem."""
    read = load_bearing(config, read_overrides(flags, assignments, _OPTIONS))
    loaded, summary = read.loaded, None
    findings = _Findings()
    for problem in read.problems:
        findings.add(problem)
    with make_check_view(as_json) as view:
        backend = _load_cloud(cloud, findings)
        if loaded is None:
            view.note("neither data nor repositories are checked before the config is mended")
        else:
            for note in loaded.notes:
                view.note(note)
            _check_files(loaded, backend, findings)
            if data and not read.is_data_clear:
                view.note("the data is not checked before the keys that say what it is are mended")
            elif data:
                summary = _check_data(loaded, view, findings, network=network, limit=max_problems)
            _check_hub(loaded, view, findings, network=network)
        _check_secrets(backend, findings)
        found = findings.in_order
        view.end(summary, found)
    return ExitCode.CONFIG if found else ExitCode.DONE


def _load_cloud(path: Path | None, findings: _Findings) -> Backend | None:
    try:
        return load_cloud(path)
    except ConfigError as e:
        for problem in e.problems:
            findings.add(problem, _LAST)
        return None


def _check_files(loaded: Loaded, backend: Backend | None, findings: _Findings) -> None:
    """The local files that the config names, and what the machine asked for cannot do with them."""
    refs, missing = references(loaded.config, loaded.path)
    unfit = [] if backend is None else precheck.problems(loaded.config, refs, backend.spec_fields()["resources"])
    for problem in (*missing, *unfit):
        findings.add(located(problem, loaded))


def _check_data(loaded: Loaded, view: CheckView, findings: _Findings, *, network: bool, limit: int) -> Summary | None:
    """Read every dataset of this machine; what will be trained, if all of them could be counted."""
    data = loaded.config.data
    datasets = listed(data)
    tokenizer = _load_tokenizer(loaded, view, findings, network=network)
    reports = [report for d in datasets if (report := _check_dataset(d, loaded, tokenizer, view, findings, limit))]
    if len(reports) < len(datasets) or not all(report.is_tokenised for report in reports):
        return None
    summary, problems = summarise(data, reports)
    for remark in (*remarks(data, reports), *split_remarks(summary)):
        view.note(remark)
    for problem in problems:
        findings.add(located(problem, loaded))
    return summary


def _load_tokenizer(loaded: Loaded, view: CheckView, findings: _Findings, *, network: bool) -> TokenizerView | None:
    """None where there is none that can be read here; it is a problem where it is here and broken."""
    try:
        return load_view(loaded, network=network)
    except ConfigError as e:
        if isinstance(e, NoTokenizerError):
            view.note(f"rows are read and rendered, not tokenised: {e}")
        else:
            view.note("rows are read and rendered, not tokenised, before the tokenizer is mended")
            key = "tokenizer_config" if loaded.config.model.tokenizer else "base_model"
            for problem in e.problems:
                findings.add(problem, loaded.file.line_of((key,)))
        return None


def _check_dataset(
    dataset: Listed, loaded: Loaded, tokenizer: TokenizerView | None, view: CheckView, findings: _Findings, limit: int
) -> DatasetReport | None:
    """Read one dataset; None if that is not possible."""
    line = loaded.file.line_of(loc_of(dataset.key))
    report = DatasetReport(dataset)
    try:
        if not is_local(dataset, loaded):
            if _is_elsewhere(dataset.section.path):
                view.note(f"{dataset.key}: {dataset.name} is not on this machine, so its rows are not checked")
            return None
        view.begin(report)
        check_dataset(report, loaded, tokenizer, limit=limit, on_rows=view.on_rows, on_share=view.on_share)
    except ConfigError as e:
        for problem in e.problems:
            findings.add(problem, line)
        return None
    for problem in report.problems:
        findings.add(problem, line)
    view.dataset(report, loaded.config.data.sequence_len)
    return report


def _is_elsewhere(path: str | None) -> bool:
    """Whether rows that are not on this machine may be anywhere else: otherwise their path is a problem already."""
    return path is None or is_address(path) or may_be_repository(path)


def _check_hub(loaded: Loaded, view: CheckView, findings: _Findings, *, network: bool) -> None:
    wanted = _wanted(loaded)
    if not wanted:
        return
    repos = ", ".join(dict.fromkeys(one.repo.id for one in wanted))
    if not network or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        view.note(f"not looked up on the Hub, without the network: {repos}")
        return
    problems, unanswered = hub_problems(wanted)
    for problem in problems:
        findings.add(located(problem, loaded))
    if unanswered:
        view.note(f"not looked up on the Hub, which does not answer: {', '.join(dict.fromkeys(unanswered))}")


def _wanted(loaded: Loaded) -> list[Wanted]:
    """The repositories of the Hub that the config reads or writes."""
    config = loaded.config
    model = config.model
    read = [Repo(model.base, model.revision, "model", "base_model", "model_revision")]
    if model.tokenizer:
        read.append(Repo(model.tokenizer, None, "model", "tokenizer_config"))
    for dataset in listed(config.data):
        path, revision = dataset.section.path, dataset.section.revision
        if path and path not in LOADERS:
            read.append(Repo(path, revision, "dataset", f"{dataset.key}.path", f"{dataset.key}.revision"))
    wanted = [Wanted(repo) for repo in read if may_be_repository(repo.id) and locate(repo.id, loaded.path) is None]
    model_id = loaded.file.data.get("hub_model_id")  # the file's own: it is checked before ftl can push
    if isinstance(model_id, str) and model_id:
        wanted.append(Wanted(Repo(model_id, None, "model", "hub_model_id"), is_written=True))
    if config.data.push_to_hub:
        repo = Repo(config.data.push_to_hub, None, "dataset", "push_dataset_to_hub")
        wanted.append(Wanted(repo, is_written=True))
    return wanted


def _check_secrets(backend: Backend | None, findings: _Findings) -> None:
    for name in backend.cloud.secrets if backend is not None else ():
        if not os.environ.get(name):
            findings.add(Problem(f"secret {name}", "not set in this shell", remedy=f"`export {name}=...`"), _LAST)

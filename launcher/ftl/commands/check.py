"""ftl check: the keys, every row of the data, and the repositories and secrets a training needs; starts nothing."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ftl import precheck
from ftl.backends import Backend
from ftl.cloudfile import load_cloud
from ftl.commands.overrides import read_overrides
from ftl.config.address import is_address
from ftl.config.load import Loaded
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.inspect.bearing import load_bearing
from ftl.inspect.checkview import CheckView, make_check_view
from ftl.inspect.datacheck import DatasetReport, check_dataset
from ftl.inspect.datasets import Listed, is_local, listed, loc_of, located, open_rows, recipe_of
from ftl.inspect.hub import Wanted, hub_problems
from ftl.inspect.merged import Merged
from ftl.inspect.remote import Lookup, Remote, UnreadError, addresses_of
from ftl.inspect.summary import Summary, remarks, split_remarks, summarise
from ftl.inspect.tokenizer import NoTokenizerError, load_view
from ftl.references import locate, may_be_repository, references
from ftl.sources import Source, UnreachableError
from ftl.sources.hubrepo import Repo
from ftl.sources.local import LOADERS
from ftl.sources.remote import shown_address
from ftl.tokens import TokenizerView

_OPTIONS = ("--cloud", "--set", "--no-data", "--no-network", "--all-rows", "--max-problems", "--json")
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
    all_rows: bool,
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
            _check_files(loaded, findings)
            _check_machine(loaded, backend, view, findings, is_asked_for=cloud is not None)
            _check_surroundings(loaded, backend, view, findings, is_asked_for=cloud is not None)
            is_online = network and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0")
            lookup = _look_up(loaded, view, findings, is_online=is_online, is_told=not (data and read.is_data_clear))
            if not read.is_data_clear:
                view.note("the data is not checked before the keys that say what it is are mended")
            else:
                remote = Remote(loaded, lookup, all_rows=all_rows) if is_online else None
                check = _DataCheck(loaded, view, findings, remote, limit=max_problems if data else None)
                summary = check.run(network=network)
            _check_hub(loaded, view, findings, is_online=is_online)
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


def _check_files(loaded: Loaded, findings: _Findings) -> None:
    """The local files that the config names."""
    refs, missing = references(loaded.config, loaded.path)
    objective = loaded.origin.get("objective", "objective")
    is_told = any((problem.given or "").partition(" = ")[0] == objective for problem in loaded.unbuilt)
    for problem in (*missing, *precheck.file_problems(loaded.config, refs)):
        if problem.where != "objective" or not is_told:
            findings.add(located(problem, loaded))


def _check_machine(
    loaded: Loaded, backend: Backend | None, view: CheckView, findings: _Findings, *, is_asked_for: bool
) -> None:
    """What the machine cannot do that the config asks for. Nobody asked for this one where no cloud file is given."""
    if backend is None:
        return
    resources = backend.spec_fields()["resources"]
    for problem in precheck.machine_problems(loaded.config, resources):
        if is_asked_for or resources.gpus:
            findings.add(located(problem, loaded))
            continue
        told = Problem(
            problem.where,
            problem.given,
            f"{problem.allowed}, and this machine has none",
            "with --cloud FILE it is checked against the machine asked for",
        )
        view.note(str(located(told, loaded)))


def _check_surroundings(
    loaded: Loaded, backend: Backend | None, view: CheckView, findings: _Findings, *, is_asked_for: bool
) -> None:
    """Passwords of trackers, and Ray. Without a cloud file it is not known which machine is to have them."""
    if backend is None:
        return
    config, cloud = loaded.config, backend.cloud
    for problem in (*precheck.tracker_problems(config, cloud), *precheck.ray_problems(config, cloud)):
        if is_asked_for:
            findings.add(located(problem, loaded))
        else:
            view.note(str(located(problem, loaded)))


def _look_up(loaded: Loaded, view: CheckView, findings: _Findings, *, is_online: bool, is_told: bool) -> Lookup:
    """What the addresses of the datasets say. `is_told`: those that say nothing are told of here."""
    elsewhere = [dataset for dataset in listed(loaded.config.data) if addresses_of(dataset)]
    shown = [shown_address(address) for dataset in elsewhere for address, _ in addresses_of(dataset)]
    if not is_online:
        if shown:
            view.note(f"not looked up, without the network: {', '.join(shown)}")
        return Lookup({})
    lookup = Lookup.of(elsewhere)
    for dataset in elsewhere:
        for problem in lookup.problems(dataset):
            findings.add(located(problem, loaded))
        for sentence in lookup.unanswered(dataset) if is_told else ():
            view.note(f"not looked up: {sentence}")
    return lookup


@dataclass(frozen=True)
class _DataCheck:
    """Reads the rows of a config, or only finds out how they would be read."""

    loaded: Loaded
    view: CheckView
    findings: _Findings
    remote: Remote | None
    """Opens what is not on this machine; None without the network."""
    limit: int | None
    """Broken rows to name for each dataset; None where no row is to be read."""

    def run(self, *, network: bool) -> Summary | None:
        """What will be trained, if the rows of all datasets could be counted."""
        data = self.loaded.config.data
        tokenizer = self._tokenizer(network=network)
        datasets = listed(data)
        merged = Merged(data)
        evaluated_first = sorted(datasets, key=lambda dataset: not dataset.key.startswith("test_"))  # they win
        order = evaluated_first if data.exact_deduplication else datasets
        reports = [report for dataset in order if (report := self._report(dataset, tokenizer, merged))]
        is_counted = all(report.is_tokenised and not report.is_partial for report in reports)
        if len(reports) < len(datasets) or not is_counted:
            return None
        summary, problems = summarise(merged)
        for remark in (*remarks(data, reports), *split_remarks(summary)):
            self.view.note(remark)
        for problem in problems:
            self.findings.add(located(problem, self.loaded))
        return summary

    def _tokenizer(self, *, network: bool) -> TokenizerView | None:
        """None where there is none that can be read here; it is a problem where it is here and broken."""
        try:
            return load_view(self.loaded, network=network)
        except NoTokenizerError as e:
            if self.limit is not None:
                self.view.note(f"rows are read and rendered, not tokenised: {e}")
        except ConfigError as e:
            if self.limit is not None:
                self.view.note("rows are read and rendered, not tokenised, before the tokenizer is mended")
            key = "tokenizer_config" if self.loaded.config.model.tokenizer else "base_model"
            for problem in e.problems:
                self.findings.add(problem, self.loaded.file.line_of((key,)))
        return None

    def _report(self, dataset: Listed, tokenizer: TokenizerView | None, merged: Merged) -> DatasetReport | None:
        """Read one dataset; None if that is not possible, or not asked for."""
        report = DatasetReport(dataset)
        line = self.loaded.file.line_of(loc_of(dataset.key))
        try:
            recipe_of(dataset, self.loaded, tokenizer)  # a wrong type or template is found without any row
            opened = self._open(dataset)
            if opened is None:
                return None
            assert self.limit is not None, "nothing is opened otherwise"
            self.view.begin(report)
            check_dataset(
                report,
                self.loaded,
                tokenizer,
                limit=self.limit,
                rows=opened[0],
                num_rows=opened[1],
                merged=merged,
                on_rows=self.view.on_rows,
                on_share=self.view.on_share,
            )
        except UnreadError as e:
            self.view.note(str(e))
            return None
        except UnreachableError as e:
            report.is_partial = True
            self.view.note(f"{dataset.key}: the rows end early: {e}")
        except ConfigError as e:
            for problem in e.problems:
                self.findings.add(problem, line)
            return None
        for problem in report.problems:
            self.findings.add(problem, line)
        self.view.dataset(report, self.loaded.config.data.sequence_len)
        if report.is_partial:
            self.view.note(f"{dataset.key}: the first {report.tally.rows:,} rows are checked; --all-rows checks all")
        return report

    def _open(self, dataset: Listed) -> tuple[Source, int | None] | None:
        """The rows and how many of them to read, all if None; nothing where they are not to be had."""
        if self.limit is None:
            return None
        if is_local(dataset, self.loaded):
            return open_rows(dataset, self.loaded), None
        if not _is_elsewhere(dataset.section.path):
            return None
        if self.remote is None:
            raise UnreadError(f"{dataset.key}: {dataset.name} is not on this machine, so its rows are not checked")
        return self.remote.open(dataset)


def _is_elsewhere(path: str | None) -> bool:
    """Whether rows that are not on this machine may be anywhere else: otherwise their path is a problem already."""
    return path is None or path in LOADERS or is_address(path) or may_be_repository(path)


def _check_hub(loaded: Loaded, view: CheckView, findings: _Findings, *, is_online: bool) -> None:
    wanted = _wanted(loaded)
    if not wanted:
        return
    repos = ", ".join(dict.fromkeys(one.repo.id for one in wanted))
    if not is_online:
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
    if config.hub.repo and config.hub.pushes is not False:
        wanted.append(Wanted(Repo(config.hub.repo, None, "model", "hub_model_id"), is_written=True))
    if config.data.push_to_hub:
        repo = Repo(config.data.push_to_hub, None, "dataset", "push_dataset_to_hub")
        wanted.append(Wanted(repo, is_written=True))
    return wanted


def _check_secrets(backend: Backend | None, findings: _Findings) -> None:
    for name in backend.cloud.secrets if backend is not None else ():
        if not os.environ.get(name):
            findings.add(Problem(f"secret {name}", "not set in this shell", remedy=f"`export {name}=...`"), _LAST)

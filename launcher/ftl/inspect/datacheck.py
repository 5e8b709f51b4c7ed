"""Tier 2 of `ftl check`: every row of the data read, rendered and tokenised; counts, and what is wrong."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from ftl.config.data import DataSection
from ftl.config.load import Loaded
from ftl.errors import Problem
from ftl.formats.example import Conversation, Example, Rendered, TaughtConversation
from ftl.inspect.datasets import Listed, open_rows, recipe_of
from ftl.inspect.fit import fit, too_long_sentence
from ftl.inspect.merged import Merged
from ftl.inspect.pictures import Finder, pictures_of
from ftl.inspect.tally import Tally
from ftl.inspect.walk import Broken, Numbered, Read, Sampled, numbered, walk, walk_untokenised
from ftl.sources import Row, Source
from ftl.tokens import Recipe, TokenizerView

OnRows = Callable[[int, int], None]
"""Told the rows and tokens so far."""

_PROGRESS_ROWS = 500
_EMPTY: tuple[object, ...] = (None, [], "", "[]")


@dataclass
class DatasetReport:
    """What one dataset of the config gives."""

    dataset: Listed
    is_partial: bool = False
    """There are more rows than were read."""
    tally: Tally = field(default_factory=Tally)
    problems: list[Problem] = field(default_factory=list)
    """At most `limit` broken rows, how many more there are, and what is wrong with the dataset as a whole."""
    has_template: bool = False
    """A chat template makes the text of its rows."""
    num_unprinted_tools: int = 0
    """Rows with tools that are not in their text, because of `no_tools`."""
    no_tools: str | None = None
    """Why tools are left out of the texts; None where they are not, and where no chat template makes the texts."""
    has_trained_text: bool = False
    """A row that was rendered and not tokenised has a text to train on."""
    is_tokenised: bool = False
    """All rows were, so that the counts of tokens are right."""

    @property
    def key(self) -> str:
        return self.dataset.key

    @property
    def name(self) -> str:
        return self.dataset.name


def check_dataset(
    report: DatasetReport,
    loaded: Loaded,
    view: TokenizerView | None,
    *,
    limit: int,
    rows: Source | None = None,
    num_rows: int | None = None,
    num_tokenised: int | None = None,
    merged: Merged | None = None,
    on_rows: OnRows = lambda rows, tokens: None,
    on_share: Callable[[float], None] = lambda share: None,
) -> None:
    """Fill the report from the rows of its dataset; at most `limit` broken rows are named, the others counted.

    `rows` are those of the dataset where it is open already. Only the first `num_rows` are read, and only the first
    `num_tokenised` of them tokenised; all if None. Without a view none is tokenised.
    `merged` gathers what all datasets give together. Raises ConfigError when the dataset cannot be opened, or its type
    or chat template is wrong.
    """
    recipe = recipe_of(report.dataset, loaded, view)
    report.has_template = recipe.template is not None
    report.has_trained_text = recipe.options.family == "grpo"  # the model writes it
    report.no_tools = _no_tools(recipe)
    field_tools = report.dataset.section.field_tools
    scanned = _first(rows or open_rows(report.dataset, loaded), num_rows, report, on_share)
    counted = numbered(_counting_tools(scanned, report, field_tools))
    merged = merged or Merged(loaded.config.data)
    walked = _walk(counted, recipe, view, num_tokenised)
    if loaded.config.data.processor is not None:
        walked = _with_faults(walked, Finder.of(report.dataset, loaded))
    _count(report, walked, merged, limit, _ends(view, loaded), on_rows)
    report.is_tokenised = view is not None and (num_tokenised is None or report.tally.rows <= num_tokenised)
    if report.tally.broken > limit:
        report.problems.append(Problem(report.name, f"{report.tally.broken - limit:,} more broken rows"))
    if not report.tally.broken:
        has_labels = recipe.options.family != "reward"  # whole texts get a score there
        report.problems += _whole_problems(report, loaded.config.data, has_labels=has_labels)


def _first(
    source: Source, num_rows: int | None, report: DatasetReport, on_share: Callable[[float], None]
) -> Iterator[Row | Problem]:
    """The first rows; whether there are more goes to the report."""
    if num_rows is None:
        yield from source.scan(on_progress=on_share)
        return
    for number, row in enumerate(source.scan()):
        if number == num_rows:
            report.is_partial = True
            return
        yield row
        if number % _PROGRESS_ROWS == 0:
            on_share(number / num_rows)


def _no_tools(recipe: Recipe) -> str | None:
    if recipe.template is None:
        return None
    if recipe.options.family not in ("sft", "kd"):
        return f"{recipe.options.family} rows are printed without tools"
    return None if recipe.template.prints_tools else "the chat template prints no tools"


def _counting_tools(rows: Iterable[Row | Problem], report: DatasetReport, field_tools: str) -> Iterator[Row | Problem]:
    """The rows as they are."""
    for row in rows:
        if report.no_tools and isinstance(row, Row) and row.data.get(field_tools) not in _EMPTY:
            report.num_unprinted_tools += 1
        yield row


def _count(
    report: DatasetReport,
    walked: Iterator[Sampled | Read | Broken],
    merged: Merged,
    limit: int,
    ends: frozenset[int],
    on_rows: OnRows,
) -> None:
    tally, data = report.tally, merged.data
    for row in walked:
        tally.rows += 1
        if isinstance(row, Broken):
            _note_broken(report, row.problem, limit)
        elif isinstance(row, Read):
            report.has_trained_text = report.has_trained_text or _has_trained_text(row.rendered)
        else:
            fitted = fit(row.sample, row.parts, data)
            if fitted.dropped == "too long" and data.excess_length == "raise":
                _note_broken(report, Problem(row.where, too_long_sentence(row.parts, data)), limit)
            elif fitted.samples and merged.is_duplicate(report.key, row.parts):
                tally.add_repeated(row.parts)
            else:
                tally.add(row.sample, row.parts, fitted, ends)
                if fitted.samples:
                    merged.add(report.key, fitted)
        if tally.rows % _PROGRESS_ROWS == 0:
            on_rows(tally.rows, tally.tokens)
    on_rows(tally.rows, tally.tokens)


def _walk(
    rows: Iterator[Numbered], recipe: Recipe, view: TokenizerView | None, num_tokenised: int | None
) -> Iterator[Sampled | Read | Broken]:
    if view is None:
        return walk_untokenised(rows, recipe)
    if num_tokenised is None:
        return walk(rows, recipe, view)
    return chain(walk(islice(rows, num_tokenised), recipe, view), walk_untokenised(rows, recipe))


def _with_faults(walked: Iterable[Sampled | Read | Broken], finder: Finder) -> Iterator[Sampled | Read | Broken]:
    """The rows, those broken whose pictures are not there or are none."""
    for row in walked:
        if not isinstance(row, Broken):
            fault = finder.fault(pictures_of(row.sample if isinstance(row, Sampled) else row.rendered))
            if fault is not None:
                yield Broken(row.number, Problem(row.where, fault))
                continue
        yield row


def _note_broken(report: DatasetReport, problem: Problem, limit: int) -> None:
    report.tally.broken += 1
    if report.tally.broken <= limit:
        report.problems.append(problem)


def _whole_problems(report: DatasetReport, data: DataSection, *, has_labels: bool) -> Iterator[Problem]:
    """What is wrong with a dataset whose rows are all right one by one."""
    tally = report.tally
    if report.is_tokenised and not tally.samples:
        parts = [f"{tally.too_long:,} have more than sequence_len = {data.sequence_len} tokens"] * bool(tally.too_long)
        parts += [f"{tally.too_short:,} fewer than {data.min_sample_len}"] * bool(tally.too_short)
        parts += [f"{tally.repeated:,} are duplicates"] * bool(tally.repeated)
        remedy = "raise sequence_len, or set excess_length_strategy: truncate" if tally.too_long else None
        yield Problem(report.name, f"none of {tally.rows:,} rows is usable: {', '.join(parts)}", remedy=remedy)
    elif has_labels and not tally.trained and not report.has_trained_text:
        remedy = "check the columns with the answers, `roles` and `roles_to_train`, `train_on_inputs`"
        yield Problem(report.name, f"nothing is trained in any of {tally.rows:,} rows", remedy=remedy)


def _has_trained_text(rendered: Rendered) -> bool:
    if isinstance(rendered, TaughtConversation):
        rendered = rendered.conversation
    if isinstance(rendered, Conversation):
        return any(turn.train and turn.content for turn in rendered.turns)
    return not isinstance(rendered, Example) or any(segment.train and segment.text for segment in rendered.segments)


def _ends(view: TokenizerView | None, loaded: Loaded) -> frozenset[int]:
    """The tokens that end a text or a turn."""
    if view is None:
        return frozenset()
    ids = (view.tokenizer.token_to_id(token) for token in (view.eos_token, *loaded.config.data.eot_tokens) if token)
    return frozenset(id for id in ids if id is not None)

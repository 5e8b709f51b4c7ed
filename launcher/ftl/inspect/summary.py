"""What a training will see, from the counts of its datasets; and what to tell about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ftl.config.data import DataSection
from ftl.errors import Problem
from ftl.inspect.datacheck import DatasetReport
from ftl.inspect.merged import Merged, Used


@dataclass(frozen=True)
class Share:
    """The samples of one side of the split. Counts are expectations where the split is drawn at random."""

    samples: int
    tokens: int
    trained: int
    packed_rows: int | None
    """How many rows of sequence_len packing gives at least; None without packing."""


@dataclass(frozen=True)
class Summary:
    train: Share
    eval: Share | None


def summarise(merged: Merged) -> tuple[Summary, list[Problem]]:
    """What is trained and what is evaluated on, and a problem with a key as `where` if the split leaves nothing."""
    data, train = merged.data, merged.train
    packed_to = data.sequence_len if data.sample_packing else None
    is_eval_packed = data.sample_packing if data.eval_sample_packing is None else data.eval_sample_packing
    eval_packed_to = data.sequence_len if is_eval_packed else None
    if data.test_datasets:
        return Summary(_share(train, 1.0, packed_to), _share(merged.test, 1.0, eval_packed_to)), []
    num_eval = math.ceil(data.val_set_size * train.rows) if data.val_set_size < 1 else int(data.val_set_size)
    problems = []
    if num_eval and num_eval >= train.rows > 0:
        given = f"{data.val_set_size:g}: takes {num_eval:,} of {train.rows:,} samples"
        problems.append(Problem("val_set_size", given, "must leave at least 1 to train on"))
    part = min(num_eval / max(train.rows, 1), 1.0)
    held_out = _share(train, part, eval_packed_to) if num_eval else None
    return Summary(_share(train, 1 - part, packed_to), held_out), problems


def split_remarks(summary: Summary) -> list[str]:
    """What the user should know of the evaluation."""
    if summary.eval is None or summary.eval.packed_rows != 1:
        return []
    remedy = "eval_sample_packing: false scores them one by one"
    return [f"the {summary.eval.samples:,} samples to evaluate on are packed into one row; {remedy}"]


def remarks(data: DataSection, reports: Sequence[DatasetReport]) -> list[str]:
    """What the user should know of data that has no problem."""
    found = [remark for report in reports for remark in _remarks_of(report, data)]
    train = [report for report in reports if not report.key.startswith("test_datasets")]
    for test in (report for report in reports if report.key.startswith("test_datasets")):
        shared = sum(test.tally.digests.num_shared(report.tally.digests) for report in train)
        if shared and not data.exact_deduplication:
            remedy = "dataset_exact_deduplication: true keeps them out of training"
            found.append(f"{test.key}: {shared:,} of its samples are also trained on; {remedy}")
    return found


def _remarks_of(report: DatasetReport, data: DataSection) -> list[str]:
    tally = report.tally
    found = []
    if tally.too_long and tally.samples:
        remedy = f"sequence_len: {tally.lengths.longest} keeps all, and so does excess_length_strategy: truncate"
        found.append(f"{report.key}: too long, so dropped: {tally.too_long:,} of {tally.rows:,} rows; {remedy}")
    if tally.untrained and tally.trained:
        remedy = "check the columns with the answers, `roles_to_train` and `train_on_inputs`"
        found.append(f"{report.key}: nothing is trained in {tally.untrained:,} of {tally.samples:,} samples; {remedy}")
    if tally.untrained_turns:
        remedy = "raise sequence_len, or leave them out with excess_length_strategy: drop"
        found.append(f"{report.key}: truncation cuts off {tally.untrained_turns:,} trained turns whole; {remedy}")
    if report.has_template and tally.trained and not tally.trains_eos and report.dataset.section.train_on_eos != "none":
        remedy = "set special_tokens.eos_token, or eot_tokens, to the token that ends a turn in the chat template"
        found.append(f"{report.key}: no end of a turn is trained, so the model will not learn to stop; {remedy}")
    if report.num_unprinted_tools:
        found.append(f"{report.key}: {report.no_tools}; {report.num_unprinted_tools:,} rows have them")
    num_duplicates = tally.digests.num_duplicates
    if num_duplicates and not data.exact_deduplication:
        remedy = "dataset_exact_deduplication: true leaves them out"
        found.append(f"{report.key}: {num_duplicates:,} samples are the same as an earlier one; {remedy}")
    return found


def _share(used: Used, part: float, packed_to: int | None) -> Share:
    samples, tokens, trained = (round(count * part) for count in (used.samples, used.tokens, used.trained))
    return Share(samples, tokens, trained, None if packed_to is None else math.ceil(tokens / packed_to))

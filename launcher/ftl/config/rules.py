"""What keys of several sections must keep to together.

A rule gives a Problem whose `where` is the flat key (dotted in a dataset). Its sentence names, in backticks, every
other key it looks at: load.py then knows which rules a broken value makes pointless.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ftl.config.data import DatasetSection
from ftl.config.flat import keys
from ftl.config.train import TrainConfig
from ftl.errors import Problem
from ftl.yamlfile import value_at

Rule = Callable[[TrainConfig], Problem | None]
DatasetRule = Callable[[DatasetSection, TrainConfig], Problem | None]


def warmup_is_given_once(config: TrainConfig) -> Problem | None:
    if config.optim.warmup_steps is None or config.optim.warmup_ratio is None:
        return None
    return Problem("warmup_ratio", allowed="cannot be given together with `warmup_steps`", remedy="keep one of them")


def save_interval_is_given_once(config: TrainConfig) -> Problem | None:
    if config.output.save_steps is None or config.output.saves_per_epoch is None:
        return None
    return Problem("saves_per_epoch", allowed="cannot be given together with `save_steps`", remedy="keep one of them")


def eval_interval_is_given_once(config: TrainConfig) -> Problem | None:
    if config.output.eval_steps is None or config.output.evals_per_epoch is None:
        return None
    return Problem("evals_per_epoch", allowed="cannot be given together with `eval_steps`", remedy="keep one of them")


def save_strategy_fits_interval(config: TrainConfig) -> Problem | None:
    out = config.output
    intervals = {"save_steps": out.save_steps, "saves_per_epoch": out.saves_per_epoch}
    return _strategy_problem("save_strategy", out.save_strategy, intervals)


def eval_strategy_fits_interval(config: TrainConfig) -> Problem | None:
    out = config.output
    intervals = {"eval_steps": out.eval_steps, "evals_per_epoch": out.evals_per_epoch}
    return _strategy_problem("eval_strategy", out.eval_strategy, intervals)


def save_steps_are_whole(config: TrainConfig) -> Problem | None:
    return _whole_problem("save_steps", config.output.save_steps)


def eval_steps_are_whole(config: TrainConfig) -> Problem | None:
    return _whole_problem("eval_steps", config.output.eval_steps)


def evaluation_has_rows(config: TrainConfig) -> Problem | None:
    out = config.output
    if _has_eval_rows(config) or (out.eval_steps is None and out.eval_strategy in (None, "no")):
        return None
    where = "eval_steps" if out.eval_steps is not None else "eval_strategy"
    return Problem(where, allowed="there is nothing to evaluate on", remedy="give `val_set_size` or `test_datasets`")


def eval_rows_have_one_source(config: TrainConfig) -> Problem | None:
    if not config.data.test_datasets or not config.data.val_set_size:
        return None
    remedy = "keep one of them: a share of the training rows, or datasets of their own"
    return Problem("val_set_size", allowed="cannot be given together with `test_datasets`", remedy=remedy)


def val_set_size_counts_rows(config: TrainConfig) -> Problem | None:
    size = config.data.val_set_size
    if size < 1 or size == int(size):
        return None
    return Problem("val_set_size", allowed="must be a share below 1, or a whole number of rows")


def chat_template_is_given(config: TrainConfig) -> Problem | None:
    if config.data.chat_template != "jinja" or config.data.chat_template_jinja is not None:
        return None
    return Problem("chat_template", allowed="needs the template itself", remedy="give it as `chat_template_jinja`")


def chat_template_is_one(config: TrainConfig) -> Problem | None:
    if config.data.chat_template_jinja is None or config.data.chat_template in (None, "jinja"):
        return None
    allowed = "cannot be given together with another `chat_template`"
    return Problem("chat_template_jinja", allowed=allowed, remedy="write `chat_template: jinja`, or remove one")


def target_modules_are_said_one_way(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or not adapter.target_linear or not isinstance(adapter.target_modules, str):
        return None
    allowed = "is one regular expression, which nothing can be added to"
    return Problem("lora_target_modules", allowed=allowed, remedy="make it a list, or remove `lora_target_linear`")


RULES: tuple[Rule, ...] = (
    warmup_is_given_once,
    save_interval_is_given_once,
    eval_interval_is_given_once,
    save_strategy_fits_interval,
    eval_strategy_fits_interval,
    save_steps_are_whole,
    eval_steps_are_whole,
    evaluation_has_rows,
    eval_rows_have_one_source,
    val_set_size_counts_rows,
    chat_template_is_given,
    chat_template_is_one,
    target_modules_are_said_one_way,
)


def dataset_template_is_given(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    if dataset.chat_template != "jinja" or dataset.chat_template_jinja or config.data.chat_template_jinja:
        return None
    return Problem("chat_template", allowed="needs the template itself", remedy="give it as `chat_template_jinja`")


DATASET_RULES: tuple[DatasetRule, ...] = (dataset_template_is_given,)
"""For each dataset; `where` is its own key."""


@dataclass(frozen=True)
class WithoutEffect:
    """Keys that change nothing where `holds`; `why` completes "has no effect"."""

    keys: tuple[str, ...]
    holds: Callable[[TrainConfig], bool]
    why: str


WITHOUT_EFFECT: tuple[WithoutEffect, ...] = (
    WithoutEffect(("num_epochs",), lambda config: config.optim.max_steps is not None, "beside max_steps, which wins"),
    WithoutEffect(
        ("evals_per_epoch", "eval_batch_size", "eval_sample_packing"),
        lambda config: not _has_eval_rows(config),
        "without val_set_size or test_datasets",
    ),
    WithoutEffect(
        ("adam_beta1", "adam_beta2", "adam_epsilon"),
        lambda config: not config.optim.optimizer.startswith("adamw"),
        "on an optimizer that is not AdamW",
    ),
    WithoutEffect(
        ("warmup_steps", "warmup_ratio"),
        lambda config: config.optim.scheduler == "constant",
        "with lr_scheduler constant; constant_with_warmup has a warmup",
    ),
    WithoutEffect(
        ("train_on_inputs", "excess_length_strategy"),
        lambda config: all(data.type == "completion" for data in (*config.data.datasets, *config.data.test_datasets)),
        "on completion datasets, which are trained whole and split at sequence_len",
    ),
)


def without_effect(config: TrainConfig) -> list[Problem]:
    """The keys that were given and change nothing. The training goes ahead."""
    given = config.model_dump(exclude_unset=True)
    return [
        Problem(key, allowed=f"has no effect {row.why}")
        for row in WITHOUT_EFFECT
        if row.holds(config)
        for key in row.keys
        if value_at(given, keys()[key].loc) is not None
    ]


def _strategy_problem(key: str, strategy: str | None, intervals: dict[str, float | None]) -> Problem | None:
    given = [name for name, value in intervals.items() if value is not None]
    if strategy == "steps" and not given:
        return Problem(key, allowed="needs to know how many", remedy=f"give {' or '.join(f'`{n}`' for n in intervals)}")
    if strategy in (None, "steps") or not given:
        return None
    return Problem(key, allowed=f"contradicts `{given[0]}`", remedy=f"remove one of them, or write `{key}: steps`")


def _whole_problem(key: str, steps: float | None) -> Problem | None:
    if steps is None or steps < 1 or steps == int(steps):
        return None
    return Problem(key, allowed="must be a share of all steps below 1, or a whole number of steps")


def _has_eval_rows(config: TrainConfig) -> bool:
    return bool(config.data.val_set_size or config.data.test_datasets)


def _join(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)

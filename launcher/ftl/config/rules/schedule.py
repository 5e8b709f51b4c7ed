"""When is saved, evaluated and warmed up: what those keys must keep to together."""

from ftl.config.rules.rule import Rule
from ftl.config.train import TrainConfig
from ftl.errors import Problem


def has_eval_rows(config: TrainConfig) -> bool:
    return bool(config.data.val_set_size or config.data.test_datasets)


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
    if has_eval_rows(config) or (out.eval_steps is None and out.eval_strategy in (None, "no")):
        return None
    where = "eval_steps" if out.eval_steps is not None else "eval_strategy"
    return Problem(where, allowed="there is nothing to evaluate on", remedy="give `val_set_size` or `test_datasets`")


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


SCHEDULE_RULES: tuple[Rule, ...] = (
    warmup_is_given_once,
    save_interval_is_given_once,
    eval_interval_is_given_once,
    save_strategy_fits_interval,
    eval_strategy_fits_interval,
    save_steps_are_whole,
    eval_steps_are_whole,
    evaluation_has_rows,
)

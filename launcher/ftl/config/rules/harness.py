"""What the tasks of lm-eval must keep to."""

from ftl.config.harness import is_folder, name_and_examples
from ftl.config.rules.rule import Rule, sharding_key
from ftl.config.train import TrainConfig
from ftl.errors import Problem


def tasks_have_names(config: TrainConfig) -> Problem | None:
    for number, task in enumerate(config.harness.tasks):
        try:
            _ = is_folder(task) or name_and_examples(task)
        except ValueError as error:
            return Problem(f"lm_eval_tasks.{number}", allowed=str(error))
    return None


def measured_models_write_text(config: TrainConfig) -> Problem | None:
    kind = config.objective.kind
    if not config.harness.tasks or kind not in ("reward", "prm"):
        return None
    allowed = f"measures models that write text, and `objective` {kind} trains one that gives scores"
    return Problem("lm_eval_tasks", allowed=allowed, remedy="remove it")


def measured_model_is_whole(config: TrainConfig) -> Problem | None:
    shards = sharding_key(config)
    if not (config.harness.tasks and config.harness.after_training) or shards is None:
        return None
    allowed = f"measures the model on one GPU when it is trained, and `{shards}` spreads it over all of them"
    remedy = "write `lm_eval_post_train: false`, and run `ftl lm-eval CFG` afterwards"
    return Problem("lm_eval_tasks", allowed=allowed, remedy=remedy)


HARNESS_RULES: tuple[Rule, ...] = (tasks_have_names, measured_models_write_text, measured_model_is_whole)

"""What the objective must keep to, and what it cannot be trained with."""

from ftl.config.rules.rule import Rule
from ftl.config.train import TrainConfig
from ftl.errors import Problem


def answers_stay_whole(config: TrainConfig) -> Problem | None:
    if config.objective.kind == "sft" or config.data.excess_length != "split":
        return None
    allowed = f"cannot be split with `objective` {config.objective.kind}, whose samples are judged as a whole"
    return Problem("excess_length_strategy", allowed=allowed, remedy="write drop, truncate or raise")


def pushed_rows_are_single_texts(config: TrainConfig) -> Problem | None:
    if config.objective.kind == "sft" or config.data.push_to_hub is None:
        return None
    allowed = f"holds single texts, and `objective` {config.objective.kind} has pairs or labels"
    return Problem("push_dataset_to_hub", allowed=allowed, remedy="remove it")


def exo_is_smoothed(config: TrainConfig) -> Problem | None:
    section = config.objective
    if section.kind != "dpo" or "exo_pair" not in section.dpo_loss_type or section.dpo_label_smoothing != 0:
        return None
    allowed = "must be above 0 with `dpo_loss_type` exo_pair, which takes its logarithm"
    return Problem("dpo_label_smoothing", allowed=allowed, remedy="remove it, for 0.001")


OBJECTIVE_RULES: tuple[Rule, ...] = (answers_stay_whole, pushed_rows_are_single_texts, exo_is_smoothed)

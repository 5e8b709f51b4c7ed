"""What the objective must keep to, and what it cannot be trained with."""

from ftl.config.rules.rule import Rule
from ftl.config.train import TrainConfig
from ftl.errors import Problem


def answers_stay_whole(config: TrainConfig) -> Problem | None:
    if config.objective.trains_texts or config.data.excess_length != "split":
        return None
    allowed = f"cannot be split with `objective` {config.objective.kind}, whose samples are judged as a whole"
    return Problem("excess_length_strategy", allowed=allowed, remedy="write drop, truncate or raise")


def pushed_rows_are_single_texts(config: TrainConfig) -> Problem | None:
    if config.objective.kind == "sft" or config.data.push_to_hub is None:
        return None
    allowed = f"holds single texts, and `objective` {config.objective.kind} has more than that"
    return Problem("push_dataset_to_hub", allowed=allowed, remedy="remove it")


def exo_is_smoothed(config: TrainConfig) -> Problem | None:
    section = config.objective
    if section.kind != "dpo" or "exo_pair" not in section.dpo_loss_type or section.dpo_label_smoothing != 0:
        return None
    allowed = "must be above 0 with `dpo_loss_type` exo_pair, which takes its logarithm"
    return Problem("dpo_label_smoothing", allowed=allowed, remedy="remove it, for 0.001")


def classes_fit_the_objective(config: TrainConfig) -> Problem | None:
    kind, number = config.objective.kind, config.objective.num_labels
    if number is None or (kind == "reward" and number == 1) or (kind == "prm" and number > 1):
        return None
    if kind not in ("reward", "prm"):
        allowed = f"belongs to models with a head for classes, and `objective` is {kind}"
        return Problem("num_labels", allowed=allowed, remedy="remove it, or set reward_model or process_reward_model")
    needed = "1 with `objective` reward, whose score is one number" if kind == "reward" else "at least 2 with prm"
    return Problem("num_labels", allowed=f"must be {needed}", remedy="remove it")


def odds_have_one_weight(config: TrainConfig) -> Problem | None:
    section = config.objective
    if section.kind != "orpo" or section.beta is None or section.orpo_alpha is None:
        return None
    return Problem("rl_beta", allowed="is the weight that `orpo_alpha` gives", remedy="keep one of them")


def distillation_has_a_weight(config: TrainConfig) -> Problem | None:
    section = config.objective
    if section.kind != "kd" or section.kd_alpha or section.kd_ce_alpha:
        return None
    return Problem("kd_alpha", allowed="must be above 0 where `kd_ce_alpha` is 0: there is nothing else to learn from")


OBJECTIVE_RULES: tuple[Rule, ...] = (
    answers_stay_whole,
    pushed_rows_are_single_texts,
    exo_is_smoothed,
    classes_fit_the_objective,
    odds_have_one_weight,
    distillation_has_a_weight,
)

"""What the objective must keep to, and what it cannot be trained with."""

from collections.abc import Callable

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


def rewards_are_given(config: TrainConfig) -> Problem | None:
    section = config.objective
    if section.kind != "grpo" or section.grpo is not None:
        return None
    return Problem("objective", allowed="grpo needs rewards", remedy="name them: `trl: {reward_funcs: [rewards.NAME]}`")


def rewards_have_a_weight_each(config: TrainConfig) -> Problem | None:
    grpo = config.objective.grpo
    if grpo is None or len(grpo.reward_weights) in (0, len(grpo.reward_funcs)):
        return None
    allowed = f"has {len(grpo.reward_weights)} reward_weights for {len(grpo.reward_funcs)} reward_funcs"
    return Problem("trl", allowed=allowed, remedy="give one for each, or none")


def groups_fill_a_step(config: TrainConfig) -> Problem | None:
    grpo, optim = config.objective.grpo, config.optim
    per_step = optim.micro_batch_size * optim.gradient_accumulation_steps
    if config.objective.kind != "grpo" or grpo is None or per_step % grpo.num_generations == 0:
        return None
    allowed = f"has num_generations {grpo.num_generations}, and a step of one GPU takes {per_step} completions"
    remedy = "make `micro_batch_size` x `gradient_accumulation_steps` a multiple of it"
    return Problem("trl", allowed=allowed, remedy=remedy)


_NOT_OF_PROMPTS: tuple[tuple[str, Callable[[TrainConfig], object]], ...] = (
    ("val_set_size", lambda config: config.data.val_set_size),
    ("test_datasets", lambda config: config.data.test_datasets),
    ("fsdp_config", lambda config: config.parallel.fsdp),
    ("deepspeed", lambda config: config.parallel.deepspeed),
    ("precompute_ref_log_probs", lambda config: config.objective.precompute_reference),
    ("group_by_length", lambda config: config.data.group_by_length),
    ("dataset_exact_deduplication", lambda config: config.data.exact_deduplication),
    ("dataset_shard_num", lambda config: config.data.shard_num),
    ("relora", lambda config: config.adapter is not None and config.adapter.restarts),
)
"""Keys that go with rows of tokens, or with weights that never leave their place."""


def _not_of_prompts(key: str, is_on: Callable[[TrainConfig], object]) -> Rule:
    def rule(config: TrainConfig) -> Problem | None:
        if config.objective.kind != "grpo" or not is_on(config):
            return None
        return Problem(key, allowed="is not built yet for `objective` grpo", remedy="remove it")

    return rule


OBJECTIVE_RULES: tuple[Rule, ...] = (
    answers_stay_whole,
    pushed_rows_are_single_texts,
    exo_is_smoothed,
    classes_fit_the_objective,
    odds_have_one_weight,
    distillation_has_a_weight,
    rewards_are_given,
    rewards_have_a_weight_each,
    groups_fill_a_step,
    *(_not_of_prompts(key, is_on) for key, is_on in _NOT_OF_PROMPTS),
)

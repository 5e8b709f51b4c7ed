"""What rows with pictures cannot be trained with."""

from ftl.config.data import DatasetSection
from ftl.config.rules.rule import DatasetRule, Holds, KeyRule, Rule, is_on, together
from ftl.config.train import TrainConfig
from ftl.errors import Problem

_TYPE = "chat_template"


def pictures_are_in_conversations(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    if config.data.processor is None or dataset.type == _TYPE:
        return None
    allowed = f"must be {_TYPE} with `processor_type`: pictures are parts of messages"
    return Problem("type", allowed=allowed, remedy=f"write `type: {_TYPE}`, or remove `processor_type`")


def pictures_keep_their_rows(config: TrainConfig) -> Problem | None:
    """Keys that cut, fill or compare rows by their texts."""
    data = config.data
    if data.processor is None:
        return None
    whole = "keeps every row to itself with its pictures"
    given = {
        "sample_packing": (data.sample_packing, "remove it, or write `sample_packing: false`"),
        "eval_sample_packing": (data.eval_sample_packing, "remove it"),
        "batch_flattening": (data.batch_flattening is True, "remove it"),
        "pretraining_dataset": (data.pretraining_dataset, "give the rows as `datasets`"),
        "dataset_exact_deduplication": (data.exact_deduplication, "remove it"),
        "push_dataset_to_hub": (data.push_to_hub, "remove it"),
        "excess_length_strategy": (data.excess_length in ("truncate", "split"), "use drop or raise"),
    }
    key = next((key for key, (is_used, _) in given.items() if is_used), None)
    if key is None:
        return None
    return Problem(key, allowed=f"cannot be used with `processor_type`, which {whole}", remedy=given[key][1])


def pictures_are_for_next_tokens(config: TrainConfig) -> Problem | None:
    if config.data.processor is None or config.objective.kind == "sft":
        return None
    allowed = f"cannot be used with `objective` {config.objective.kind}: rows with pictures are trained by sft alone"
    return Problem("processor_type", allowed=allowed, remedy="remove one of them")


def pictures_are_not_written_about_in_evaluation(config: TrainConfig) -> Problem | None:
    evaluation = config.evaluation
    if config.data.processor is None or not (evaluation.num_samples or evaluation.scores_text):
        return None
    key = "eval_table_size" if evaluation.num_samples else "do_causal_lm_eval"
    allowed = "has the model answer prompts, which with `processor_type` would lack their pictures"
    return Problem(key, allowed=allowed, remedy="remove it")


def pictured_models_are_measured_elsewhere(config: TrainConfig) -> Problem | None:
    if config.data.processor is None or not config.harness.tasks:
        return None
    allowed = "has not been tried with `processor_type`: the tasks are texts alone"
    return Problem("lm_eval_tasks", allowed=allowed, remedy="remove it")


PICTURE_RULES: tuple[Rule, ...] = (
    pictures_keep_their_rows,
    pictures_are_for_next_tokens,
    pictures_are_not_written_about_in_evaluation,
    pictured_models_are_measured_elsewhere,
)

PICTURE_DATASET_RULES: tuple[DatasetRule, ...] = (pictures_are_in_conversations,)


def _spreads(key: str) -> Holds:
    return lambda given: is_on(given, "processor_type", key) and given[key] != 1


PICTURE_KEY_RULES: tuple[KeyRule, ...] = (
    *(
        together("processor_type", key, f"has not been tried with `{key}`", f"remove `{key}`")
        for key in ("fsdp", "fsdp_config", "deepspeed", "torch_compile", "qat", "fp8")
    ),
    *(
        KeyRule("processor_type", _spreads(key), f"has not been tried with `{key}`", f"remove `{key}`")
        for key in ("context_parallel_size", "tensor_parallel_size", "expert_parallel_size", "dp_shard_size")
    ),
)

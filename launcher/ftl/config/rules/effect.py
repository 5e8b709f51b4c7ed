"""Keys that were given and change nothing beside the others."""

from collections.abc import Callable
from dataclasses import dataclass

from ftl.config.flat import keys
from ftl.config.objective import ObjectiveKind
from ftl.config.rules.optim import projects_gradients
from ftl.config.rules.schedule import has_eval_rows
from ftl.config.train import TrainConfig
from ftl.errors import Problem
from ftl.formats.example import FAMILIES
from ftl.formats.render import FORMATS
from ftl.yamlfile import value_at

_WITHOUT_BETAS = (
    *("sgd", "adagrad", "rmsprop", "adafactor", "rmsprop_bnb_32bit", "rmsprop_bnb_8bit", "galore_adafactor"),
    "schedule_free_sgd",
)
_LION = ("lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit")
_OWN_WARMUP = ("schedule_free_adamw", "schedule_free_sgd")
_OF_DDP = ("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters")
_COSINES = ("cosine", "cosine_with_min_lr", "cosine_warmup_with_min_lr")


@dataclass(frozen=True)
class WithoutEffect:
    """Keys that change nothing where `holds`; `why` completes "has no effect"."""

    keys: tuple[str, ...]
    holds: Callable[[TrainConfig], bool]
    why: str


def _writes_conversations(config: TrainConfig) -> bool:
    """Whether a chat template may write down rows of one of the datasets."""
    data, family = config.data, FAMILIES[config.objective.kind]
    names = [item.type for item in (*data.datasets, *data.test_datasets) if isinstance(item.type, str)]
    formats = FORMATS[family]
    return any(name not in formats or formats[name].needs_template is not False for name in names)


def _types(config: TrainConfig) -> list[str]:
    data = config.data
    return [item.type if isinstance(item.type, str) else "" for item in (*data.datasets, *data.test_datasets)]


_SMOOTHED = {"sigmoid", "sigmoid_norm", "robust", "exo_pair", "aot", "aot_unpaired"}


def _is_not(*kinds: ObjectiveKind) -> Callable[[TrainConfig], bool]:
    return lambda config: config.objective.kind not in kinds


WITHOUT_EFFECT: tuple[WithoutEffect, ...] = (
    WithoutEffect(("num_epochs",), lambda config: config.optim.max_steps is not None, "beside max_steps, which wins"),
    WithoutEffect(
        ("evals_per_epoch", "eval_batch_size", "eval_sample_packing"),
        lambda config: not has_eval_rows(config),
        "without val_set_size or test_datasets",
    ),
    WithoutEffect(
        ("metric_for_best_model", "greater_is_better"),
        lambda config: (
            not (
                config.evaluation.loads_best
                or config.evaluation.early_stopping_patience
                or config.output.save_strategy == "best"
            )
        ),
        "without early_stopping_patience, load_best_model_at_end or save_strategy: best",
    ),
    WithoutEffect(
        ("eval_max_new_tokens",),
        lambda config: not (config.evaluation.num_samples or config.evaluation.scores_text),
        "without eval_table_size or do_causal_lm_eval",
    ),
    WithoutEffect(
        ("eval_causal_lm_metrics",), lambda config: not config.evaluation.scores_text, "without do_causal_lm_eval: true"
    ),
    WithoutEffect(
        ("eval_table_size", "do_causal_lm_eval"),
        lambda config: not has_eval_rows(config) or not config.objective.trains_texts,
        "without val_set_size or test_datasets, or with another objective than sft and kd",
    ),
    WithoutEffect(
        ("lm_eval_batch_size", "lm_eval_model"), lambda config: not config.harness.tasks, "without lm_eval_tasks"
    ),
    WithoutEffect(_OF_DDP, lambda config: config.parallel.zero is not None, "beside deepspeed, whose file says it"),
    WithoutEffect(
        ("loss_watchdog_patience",),
        lambda config: config.watch.loss_threshold is None,
        "without loss_watchdog_threshold",
    ),
    WithoutEffect(
        ("adam_beta1", "adam_beta2"),
        lambda config: config.optim.optimizer in _WITHOUT_BETAS,
        "on an optimizer that is not AdamW or made like it",
    ),
    WithoutEffect(
        ("adam_epsilon",),
        lambda config: config.optim.optimizer in (*_WITHOUT_BETAS, *_LION),
        "on an optimizer that is not AdamW or made like it",
    ),
    WithoutEffect(
        ("adam_beta3",),
        lambda config: "ademamix" not in config.optim.optimizer and config.optim.optimizer != "came_pytorch",
        "on optimizers other than ademamix and came_pytorch",
    ),
    WithoutEffect(
        ("adam_epsilon2",),
        lambda config: config.optim.optimizer != "came_pytorch",
        "on optimizers other than came_pytorch",
    ),
    WithoutEffect(
        ("optim_target_modules",),
        lambda config: not projects_gradients(config.optim.optimizer),
        "on optimizers other than galore and apollo",
    ),
    WithoutEffect(
        ("warmup_steps", "warmup_ratio"),
        lambda config: config.optim.scheduler == "constant" and config.optim.optimizer not in _OWN_WARMUP,
        "with lr_scheduler constant; constant_with_warmup has a warmup",
    ),
    WithoutEffect(
        ("warmup_steps", "warmup_ratio"),
        lambda config: config.optim.scheduler == "reduce_lr_on_plateau",
        "with lr_scheduler reduce_lr_on_plateau, which starts at learning_rate",
    ),
    WithoutEffect(
        ("warmup_steps", "warmup_ratio"),
        lambda config: config.optim.optimizer == "schedule_free_radam",
        "on schedule_free_radam, which needs none",
    ),
    WithoutEffect(
        ("cosine_min_lr_ratio",),
        lambda config: config.optim.scheduler not in (None, *_COSINES, "rex"),
        "with an lr_scheduler other than cosine and rex",
    ),
    WithoutEffect(
        ("cosine_constant_lr_ratio", "lr_quadratic_warmup"),
        lambda config: config.optim.scheduler not in (None, "cosine", "cosine_with_min_lr"),
        "with an lr_scheduler other than cosine",
    ),
    WithoutEffect(
        ("log_sweep_min_lr", "log_sweep_max_lr"),
        lambda config: config.optim.scheduler != "log_sweep",
        "with an lr_scheduler other than log_sweep",
    ),
    WithoutEffect(
        ("loraplus_lr_embedding",),
        lambda config: config.rates.loraplus_ratio is None,
        "without loraplus_lr_ratio",
    ),
    WithoutEffect(
        ("train_on_inputs", "excess_length_strategy"),
        lambda config: all(kind == "completion" for kind in _types(config)),
        "on completion datasets, which are trained whole and split at sequence_len",
    ),
    WithoutEffect(
        ("group_by_length",),
        lambda config: config.data.sample_packing,
        "with sample_packing, which makes all rows equally long",
    ),
    WithoutEffect(
        ("group_by_length", "shuffle_merged_datasets"),
        lambda config: config.data.keep_order,
        "with curriculum_sampling, which keeps the order of the data",
    ),
    WithoutEffect(
        ("sample_packing_sequentially",), lambda config: not config.data.sample_packing, "without sample_packing"
    ),
    WithoutEffect(
        ("curriculum_sampling", "sample_packing_sequentially", "dataloader_drop_last"),
        lambda config: bool(config.data.pretraining_dataset),
        "on a pretraining_dataset, which is read from its start to max_steps",
    ),
    WithoutEffect(
        ("group_by_length", "dataset_exact_deduplication"),
        lambda config: bool(config.data.pretraining_dataset),
        "on a pretraining_dataset, whose rows are seen one at a time",
    ),
    WithoutEffect(
        ("push_dataset_to_hub", "dataset_shard_num", "dataset_shard_idx"),
        lambda config: not config.data.datasets,
        "on a pretraining_dataset, which is streamed",
    ),
    WithoutEffect(
        ("pretraining_sample_concatenation", "pretrain_multipack_attn", "pretrain_multipack_buffer_size"),
        lambda config: not config.data.pretraining_dataset,
        "without pretraining_dataset",
    ),
    WithoutEffect(
        ("jagged_restart_warmup_steps", "jagged_restart_anneal_steps"),
        lambda config: config.rates.restart_steps is None,
        "without jagged_restart_steps",
    ),
    WithoutEffect(
        ("ray_num_workers", "ray_run_name", "resources_per_worker"),
        lambda config: not config.ray.is_used,
        "without use_ray: true",
    ),
    WithoutEffect(
        ("relora_prune_ratio", "relora_cpu_offload"),
        lambda config: config.adapter is None or not config.adapter.restarts,
        "without relora",
    ),
    WithoutEffect(
        ("lisa_step_interval", "lisa_layers_attribute"),
        lambda config: config.trained.lisa_num_layers is None,
        "without lisa_n_layers",
    ),
    WithoutEffect(
        ("bnb_config_kwargs",),
        lambda config: config.quant.num_bits is None,
        "without load_in_4bit or load_in_8bit",
    ),
    WithoutEffect(
        ("image_size", "image_resize_algorithm"),
        lambda config: config.data.processor is None,
        "without processor_type, which has rows hold pictures",
    ),
    WithoutEffect(("image_resize_algorithm",), lambda config: config.data.image_size is None, "without image_size"),
    WithoutEffect(
        ("chat_template_kwargs", "eot_tokens"),
        lambda config: not _writes_conversations(config),
        "without a dataset of conversations, such as type chat_template",
    ),
    WithoutEffect(
        ("eot_tokens",),
        lambda config: not config.objective.trains_texts,
        "where answers are compared: they are trained to their end",
    ),
    WithoutEffect(("liger_use_token_scaling",), _is_not("sft"), "unless the objective is sft"),
    WithoutEffect(("tiled_mlp_num_shards",), lambda config: not config.kernels.tiled_mlp, "without tiled_mlp: true"),
    WithoutEffect(("rl_beta",), _is_not("dpo", "ipo", "orpo", "kto", "simpo", "cpo"), "without preferences"),
    WithoutEffect(("max_prompt_len",), _is_not("dpo", "ipo", "orpo", "kto", "simpo", "cpo"), "without preferences"),
    WithoutEffect(
        ("dpo_loss_type", "dpo_label_smoothing", "dpo_norm_loss"), _is_not("dpo"), "unless the objective is dpo"
    ),
    WithoutEffect(
        ("dpo_use_weighting", "dpo_reference_free", "rpo_alpha"),
        _is_not("dpo", "ipo"),
        "unless the objective is dpo or ipo",
    ),
    WithoutEffect(
        ("precompute_ref_log_probs", "rl_adapter_ref_model"),
        lambda config: not config.objective.is_compared,
        "without a reference, which dpo, ipo and kto have",
    ),
    WithoutEffect(
        ("rl_adapter_ref_model",),
        lambda config: config.adapter is None or config.adapter.initial is None,
        "without lora_model_dir: the model before training is the base",
    ),
    WithoutEffect(
        ("hub_strategy", "hub_private_repo", "hub_revision"),
        lambda config: config.hub.repo is None,
        "without hub_model_id",
    ),
    WithoutEffect(
        ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_revision"),
        lambda config: config.hub.pushes is False,
        "beside push_to_hub: false",
    ),
    WithoutEffect(("orpo_alpha",), _is_not("orpo"), "unless the objective is orpo"),
    WithoutEffect(("cpo_alpha",), _is_not("cpo", "simpo"), "unless the objective is cpo or simpo"),
    WithoutEffect(("simpo_gamma",), _is_not("simpo"), "unless the objective is simpo"),
    WithoutEffect(("kto_desirable_weight", "kto_undesirable_weight"), _is_not("kto"), "unless the objective is kto"),
    WithoutEffect(("center_rewards_coefficient",), _is_not("reward"), "unless the objective is reward"),
    WithoutEffect(
        ("kd_alpha", "kd_ce_alpha", "kd_temperature", "kd_zscore_base_temp", "kd_top_k_before_softmax"),
        _is_not("kd"),
        "without kd_trainer: true",
    ),
    WithoutEffect(("trl",), _is_not("grpo"), "without rl: grpo"),
    WithoutEffect(
        ("kd_top_k_before_softmax",),
        lambda config: config.objective.kd_zscore_base_temp is not None,
        "with kd_zscore_base_temp, which compares the teacher's tokens alone",
    ),
    WithoutEffect(
        ("dpo_label_smoothing",),
        lambda config: not _SMOOTHED & set(config.objective.dpo_loss_type),
        "with a dpo_loss_type that takes none",
    ),
)


def without_effect(config: TrainConfig) -> list[Problem]:
    """The keys that were given and change nothing; what is switched off asks for nothing. The training goes ahead."""
    given = config.model_dump(exclude_unset=True)
    found: dict[str, str] = {}
    for row in WITHOUT_EFFECT:
        if row.holds(config):
            found |= {key: row.why for key in row.keys if key not in found}
    return [
        Problem(key, allowed=f"has no effect {why}")
        for key, why in found.items()
        if value_at(given, keys()[key].loc) not in (None, False)
    ]

"""The keys below mappings that ftl does not honour: a slip in one is told even where the whole is set aside."""

_FSDP = (
    *("offload_params", "state_dict_type", "transformer_layer_cls_to_wrap", "sharding_strategy", "auto_wrap_policy"),
    *("limit_all_gathers", "sync_module_states", "use_orig_params", "cpu_ram_efficient_loading"),
    *("backward_prefetch", "forward_prefetch", "activation_checkpointing", "reshard_after_forward", "min_num_params"),
    *("final_state_dict_type", "mixed_precision_policy"),
)

NESTED: dict[str, tuple[str, ...]] = {
    "gradient_checkpointing_kwargs": ("use_reentrant",),
    "fsdp_config": (*_FSDP, *(f"fsdp_{name}" for name in _FSDP), "fsdp_version", "version"),
    "peft": ("loftq_config",),
    "peft.loftq_config": ("loftq_bits", "loftq_iter"),
    "accelerator_config": (
        *("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler", "non_blocking"),
        "gradient_accumulation_kwargs",
    ),
    "accelerator_config.gradient_accumulation_kwargs": ("sync_each_batch", "sync_with_dataloader", "num_steps"),
    "trl": (
        *("beta", "max_completion_length", "num_generations", "temperature", "top_p", "top_k", "min_p"),
        *("repetition_penalty", "generation_kwargs", "chat_template_kwargs", "reward_funcs", "reward_weights"),
        *("scale_rewards", "loss_type", "epsilon", "epsilon_high", "num_iterations", "mask_truncated_completions"),
        *("multi_objective_aggregation", "importance_sampling_level", "use_liger_loss", "log_completions"),
        *("num_completions_to_print", "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
        *("async_prefetch", "rollout_func", "use_vllm", "vllm_mode", "vllm_server_host", "vllm_server_port"),
        *("vllm_server_timeout", "vllm_guided_decoding_regex", "vllm_enable_sleep_mode"),
    ),
    "vllm": (
        *("host", "port", "device", "dtype", "tensor_parallel_size", "data_parallel_size", "gpu_memory_utilization"),
        *("max_model_len", "enable_prefix_caching", "enable_reasoning", "reasoning_parser", "enforce_eager"),
        "serve_module",
    ),
    "ebft": (
        *("alignment_coef", "diversity_coef", "ce_coef", "rl_coef", "embed_method", "feature_layers", "mode"),
        *("use_whitening", "advantage_estimator", "context_length", "generate_max_len", "n_samples_per_prompt"),
        *("stride", "temperature", "top_p", "min_completion_prefix"),
    ),
    "diffusion": (
        *("eps", "noise_schedule", "min_mask_ratio", "max_mask_ratio", "num_diffusion_steps", "mask_token_id"),
        *("importance_weighting", "generate_samples", "generation_interval", "num_generation_samples"),
        *("generation_steps", "generation_temperature", "generation_max_length"),
    ),
    "flex_attn_compile_kwargs": ("dynamic", "mode", "fullgraph", "backend", "options"),
    "llmcompressor": ("recipe", "save_compressed"),
}
"""Dotted name -> its keys."""

OPEN: tuple[str, ...] = (
    *("chat_template_kwargs", "overrides_of_model_config", "model_config", "overrides_of_model_kwargs"),
    *("model_kwargs", "model_quantization_config_kwargs", "lr_scheduler_kwargs", "optim_args"),
    *("rope_scaling", "device_map", "max_memory", "deepspeed", "resources_per_worker", "comet_experiment_config"),
    *("trl.generation_kwargs", "trl.chat_template_kwargs", "llmcompressor.recipe"),
)
"""Mappings that take any key: they go to a library, or to a template, as they stand."""

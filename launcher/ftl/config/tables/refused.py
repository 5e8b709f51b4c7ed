"""Keys that ftl will not honour: what to write in their place, or why there is nothing to write."""

from ftl.config.dialect import Aside
from ftl.config.tables.aside import aside
from ftl.config.tables.unbuilt import UNBUILT

_SECRET = "a secret does not belong in a file; put it in the environment as"
_CLOUD = "belongs in the cloud file, which says where to train: `ftl train CFG --cloud FILE`"
_LONG_CONTEXT = (
    "the patch it asked for is gone; today longer contexts come from"
    " overrides_of_model_config: {rope_scaling: {rope_type: yarn, factor: ...}}"
)

_TRACKERS = "ftl reports to wandb, mlflow, comet, tensorboard and trackio; events.jsonl of the run has every number"
_DELIVERED = "trackers get numbers; the model goes, hashed and whole, to output_dir or with hub_model_id to the Hub"

REFUSED: dict[str, Aside] = {
    **UNBUILT,
    **aside(
        ("vllm",),
        "completions are drawn by the model in training itself, by transformers; the images hold no vLLM",
        {},
    ),
    **aside(("hub_token",), f"{_SECRET} HF_TOKEN"),
    **aside(("comet_api_key",), f"{_SECRET} COMET_API_KEY"),
    **aside(
        ("save_only_model",),
        "nothing could go on from a checkpoint without the optimizer's states; the model in output_dir has none",
    ),
    **aside(
        ("dynamic_checkpoint",),
        "`ftl stop ID` saves at the step at hand, and `ftl resume ID` goes on from there",
        {"enabled": False},
    ),
    **aside(
        (
            *("use_swanlab", "swanlab_project", "swanlab_workspace", "swanlab_experiment_name", "swanlab_description"),
            *("swanlab_mode", "swanlab_log_model", "swanlab_log_completions", "swanlab_completion_log_interval"),
            *("swanlab_completion_max_buffer", "use_otel_metrics", "otel_metrics_host", "otel_metrics_port"),
        ),
        _TRACKERS,
    ),
    **aside(
        ("do_bench_eval", "bench_dataset"),
        "it asks multiple-choice questions of a data set of axolotl's; `lm_eval_tasks: [mmlu]` asks the same ones",
    ),
    **aside(("wandb_log_model", "hf_mlflow_log_artifacts"), _DELIVERED, "", "false"),
    **aside(
        ("wandb_watch",),
        "it draws histograms of all gradients in the backward pass; grad_norm of every logged step is reported anyway",
        "",
        "false",
    ),
    **aside(
        ("llmcompressor",),
        "its recipes are carried out by llm-compressor itself, on the model in output_dir; `ftl quantize` rounds that "
        "to int8, int4 or fp8",
    ),
    **aside(
        ("use_onebitllms",),
        "training in 1.58 bits needs kernels of the package onebitllms; the fewest bits here are `qat: {weight_dtype: "
        "int4}`",
    ),
    **aside(("landmark_attention", "xpos_rope"), _LONG_CONTEXT),
    **aside(
        ("gemma4_hybrid_attn_impl",),
        "it has flash_attention_2 leave the layers with heads of 512 alone; remove it and `attn_implementation`, and "
        "the fastest that takes all layers is used, with the same numbers",
    ),
    **aside(
        ("flex_attn_compile_kwargs",),
        "says how transformers is to compile flex_attention, and it compiles it in one way alone",
    ),
    **aside(
        ("llama4_linearized_experts",),
        "experts stay stacked as transformers has them; an adapter reaches them by lora_target_parameters: "
        "[feed_forward.experts.gate_up_proj, feed_forward.experts.down_proj]",
    ),
    **aside(
        ("dsv4_fp4_grouped_mode",),
        "it multiplies experts held in NVFP4, by kernels that are in no package that can be installed; take the base "
        "in bf16, with adapter: qlora to hold it in 4 bits",
    ),
    **aside(("s2_attention",), f"shifted sparse attention: {_LONG_CONTEXT}"),
    **aside(
        ("device_map",),
        "every GPU holds a whole copy of the model; one that does not fit is loaded in 4 bits (adapter: qlora) or "
        "sharded with `deepspeed` or `fsdp_config`",
        "auto",
    ),
    **aside(
        ("expert_parallel_size", "expert_parallel_num_nvl_bytes", "expert_parallel_token_capacity"),
        "experts on different GPUs exchange tokens through the kernels of DeepEP, which need GPUs joined by NVLink and "
        "have not been built into any image; fsdp_config shards the experts like all other weights",
        1,
    ),
    **aside(("max_memory",), "every GPU holds a whole copy of the model; gpu_memory_limit says what it may take"),
    **aside(
        ("tokenizer_use_mistral_common",),
        "masks are made with the tokenizer.json of a base; mistral-common has none, and the bases that transformers "
        "reads bring one",
    ),
    "tokenizer_use_fast": Aside("only fast tokenizers are read; a base with a tokenizer.json has one", (True,)),
    **aside(
        (
            *("gpu", "gpu_count", "node_count", "provider", "memory", "memory_preprocess", "timeout"),
            *("timeout_preprocess", "volumes", "secrets", "env", "branch", "docker_tag", "dockerfile_commands"),
        ),
        _CLOUD,
    ),
}

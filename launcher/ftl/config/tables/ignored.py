"""Keys without which the training is the same: they are set aside with a note, so that old files go on working."""

from ftl.config.dialect import Aside
from ftl.config.tables.aside import aside

_FAMILY = "the model's config.json says what it is"
_PACKING = "packing is exact here and needs no estimate"
_GPTQ = "the quantization_config of a GPTQ base says it"
_STACKED = (
    "stacked experts are computed by torch's grouped product (`experts_implementation`); the numbers are the same"
)
_PAGE = "belongs to a page for trying the model, which no training opens"

IGNORED: dict[str, Aside] = {
    **aside(("dataset_prepared_path",), "tokens are cached by their content, in a place of ftl's own"),
    **aside(
        ("skip_prepare_dataset",),
        "pictures are read when their batch is made, and tokens are kept for the next run, with or without it",
    ),
    **aside(("dataset_processes", "dataset_num_proc"), "ftl decides how many processes read the data"),
    **aside(("dataset_keep_in_memory",), "tokens are mapped from disk, so they take no memory of their own"),
    **aside(
        ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor"),
        "tokens are mapped from disk, so no process is needed to fetch them",
        0,
        True,
    ),
    **aside(("remove_unused_columns",), "only the columns of the format are read"),
    **aside(("collator_pad_to_longest",), "rows are padded to the longest of their batch unless pad_to_sequence_len"),
    **aside(
        (
            *("sample_packing_eff_est", "sample_packing_group_size", "sample_packing_bin_size", "total_num_tokens"),
            "sample_packing_seq_len_multiplier",
        ),
        _PACKING,
    ),
    **aside(("dpo_use_logits_to_keep",), "logits of a prompt are never made where the model can leave them out", True),
    **aside(("dpo_padding_free",), "answers are padded to the longest of their batch, with the same numbers"),
    **aside(("strict",), "ftl always refuses keys it does not know", True),
    **aside(("debug",), "it is a flag of `preprocess`, never of a config"),
    **aside(("test_value",), "only axolotl's own tests read it", True),
    **aside(("local_rank",), "ranks are given by the process that starts them"),
    "ddp": Aside("several GPUs always train data parallel", (True,)),
    "save_safetensors": Aside("weights are always written as safetensors", (True,)),
    **aside(("auto_resume_from_checkpoints",), "a run always goes on from its newest verified checkpoint", True),
    **aside(("include_tokens_per_second",), "every step event has the speed", True),
    **aside(("gradient_checkpointing_kwargs",), "both ways of recomputing give the same gradients, and ftl picks one"),
    **aside(("hf_use_auth_token",), "HF_TOKEN of the environment is used wherever it is needed", True),
    "tokenizer_legacy": Aside("the tokenizer's own files say how it splits", ()),
    **aside(
        ("heads_k_stride", "ring_attn_func"),
        "with context_parallel_size a rank gathers the keys and values of all tokens at once: the numbers are the same",
    ),
    **aside(("experimental_skip_move_to_device",), "weights go to the GPU once, when they are needed there", True),
    **aside(("low_cpu_mem_usage",), "weights are always read without a second copy of them", True),
    **aside(
        ("qlora_sharded_model_loading",),
        "with `fsdp_config` the base is quantised a weight at a time and cut up a layer at a time, so no GPU holds it "
        "whole; without it each GPU holds a copy",
    ),
    **aside(("torchdistx_path",), "torchdistx is no longer developed"),
    **aside(("spectrum_model_name",), "how much signal a weight has is told from the weight itself"),
    **aside(("lora_on_cpu",), "an adapter is always read in main memory"),
    **aside(("lora_fan_in_fan_out",), "the layer's class says how its weights lie"),
    **aside(
        ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"),
        "LoRA on plain linear layers is always computed by a fused kernel, with dropout too",
    ),
    **aside(
        (
            *("liger_cross_entropy", "liger_fused_linear_cross_entropy", "cut_cross_entropy"),
            "chunked_cross_entropy",
        ),
        "the loss is always computed in chunks, without the logits where the model allows it",
    ),
    **aside(("lora_embedding_kernel",), "LoRA on embeddings is computed by peft, with the same numbers"),
    **aside(("liger_rms_norm_gated",), "gated norms are the model's own; the numbers are the same"),
    **aside(("fused_attn_kernel",), "what stands around attention is the model's own; the numbers are the same"),
    **aside(
        ("use_kernels",),
        "it has compiled code fetched from the Hub while a run starts; the image brings all kernels that are run",
    ),
    **aside(("use_scattermoe", "use_sonicmoe"), _STACKED),
    **aside(
        ("use_dsv4_kernels", "use_glm_dsa_kernels"),
        "sparse attention is transformers' own, which gives the same numbers in more time and memory",
    ),
    **aside(("tiled_mlp_use_original_mlp",), "it is always the model's own MLP that is computed in tiles", True),
    **aside(("flash_attn_fuse_qkv",), "the projections are layers of their own; the numbers are the same"),
    **aside(("gptq_groupsize", "gptq_model_v1", "gptq_disable_exllama"), _GPTQ, True),
    **aside(
        (
            *("is_llama_derived_model", "is_falcon_derived_model", "is_mistral_derived_model"),
            "is_qwen_derived_model",
        ),
        _FAMILY,
        True,
    ),
    **aside(
        (
            *("gradio_title", "gradio_share", "gradio_server_name", "gradio_server_port", "gradio_max_new_tokens"),
            "gradio_temperature",
        ),
        _PAGE,
    ),
}

"""The 94 checks that axolotl 0.7.1 makes of a config, one by one: what ftl says of the same config, on the laptop.

A row is the number of the check, a config that it is about, and ftl's answer: a problem, a note, or none because there
is nothing to tell, with the reason beside it. Keys that cannot be trained yet are borne, as `ftl check` does.
"""

from pathlib import Path

import pytest
import yaml

from ftl.config.load import load_train
from ftl.errors import ConfigError

BASE = {"base_model": "m", "learning_rate": 1e-4, "datasets": [{"path": "d.jsonl", "type": "alpaca"}]}
PAIRS = "datasets: [{path: d.jsonl, type: chatml.intel}]"
NOTHING = ""

ROWS: list[tuple[str, str, str]] = [
    (
        "VR-1",
        "max_packed_sequence_len: 1024",
        "note: max_packed_sequence_len = 1024: read as sample_packing = true, sequence_len = 1024",
    ),
    # It is put where it belongs, under overrides_of_model_config.
    ("VR-2", "rope_scaling: {type: linear, factor: 2}", NOTHING),
    # Older names are read as today's.
    ("VR-3", "noisy_embedding_alpha: 5", NOTHING),
    ("VR-4", "{rl: dpo, dpo_beta: 0.1, datasets: [{path: d.jsonl, type: chatml.intel}]}", NOTHING),
    ("VR-5", "{evaluation_strategy: epoch, val_set_size: 0.1}", NOTHING),
    ("VR-6", "chat_template: jinja", "chat_template = 'jinja': needs the template itself"),
    ("VR-7", "load_in_8bit: true", "load_in_8bit = true: needs an `adapter`"),
    # Merging is a command of its own, which reads no load_in_*; what contradicts qlora is told in any case.
    ("VR-8", "{adapter: qlora, load_in_8bit: true}", "load_in_8bit = true: contradicts `adapter` qlora"),
    ("VR-9", "{adapter: qlora, gptq: true}", "gptq = true: contradicts `adapter` qlora"),
    ("VR-10", "{adapter: qlora, load_in_4bit: true}", NOTHING),
    ("VR-11", "{adapter: qlora, load_in_8bit: true}", "load_in_8bit = true: contradicts `adapter` qlora"),
    ("VR-12", "{adapter: qlora, gptq: true}", "gptq = true: contradicts `adapter` qlora: the base is quantised"),
    # qlora says 4 bits itself; only the opposite is wrong.
    ("VR-13", "{adapter: qlora, load_in_4bit: false}", "load_in_4bit = false: contradicts `adapter` qlora"),
    ("VR-14", "trust_remote_code: true", "note: trust_remote_code = true: runs whatever code a repository"),
    ("VR-15", "{batch_size: 8, micro_batch_size: 2}", "note: batch_size = 8: read as gradient_accumulation_steps = 4"),
    ("VR-16", "wandb_run_id: x", "note: wandb_run_id = 'x': is an id, which a second run would go on under"),
    ("VR-17", "datasets: [{path: d.jsonl, type: sharegpt}]", "note: datasets.0.type = 'sharegpt': read as type ="),
    # One row at a time and no accumulation are what is left out.
    ("VR-18", "micro_batch_size: 2", NOTHING),
    (
        "VR-19",
        "{datasets: null, pretraining_dataset: [{path: d.jsonl, type: pretrain}]}",
        "max_steps: must be given with `pretraining_dataset`",
    ),
    (
        "VR-20",
        "{datasets: null, pretraining_dataset: [{path: d.jsonl, type: pretrain}], max_steps: 5, group_by_length: true}",
        "note: group_by_length = true: has no effect on a pretraining_dataset",
    ),
    # A revision is no trouble to the loader of GPTQ bases that is pinned.
    ("VR-21", "{gptq: true, adapter: lora, revision_of_model: main}", NOTHING),
    (
        "VR-22",
        "{sample_packing: true, xformers_attention: true}",
        "note: xformers_attention = true: read as attn_implementation = 'sdpa'",
    ),
    (
        "VR-23",
        "datasets: [{path: d.jsonl, type: chat_template, chat_template: jinja}]",
        "datasets.0.chat_template = 'jinja': needs the template itself",
    ),
    # The runtime keeps documents apart with every attention: by positions where that suffices, else by a mask.
    ("VR-24", "{sample_packing: true, eager_attention: true}", NOTHING),
    (
        "VR-25",
        "{batch_flattening: true, sdp_attention: true, micro_batch_size: 2}",
        "batch_flattening = true: needs flash attention, and `attn_implementation` says otherwise",
    ),
    (
        "VR-26",
        "{batch_flattening: true, sample_packing: true, micro_batch_size: 2}",
        "batch_flattening = true: lays rows end to end, which `sample_packing` does already",
    ),
    (
        "VR-27",
        "{batch_flattening: true, micro_batch_size: 1}",
        "note: batch_flattening = true: has no effect with `micro_batch_size` 1",
    ),
    (
        "VR-28",
        "{rl: dpo, sample_packing: true, datasets: [{path: d.jsonl, type: chatml.intel}]}",
        "sample_packing = true: cannot be used with `objective` dpo",
    ),
    # Padding to a fixed length is not needed for anything here, and costs time.
    ("VR-29", "sample_packing: true", NOTHING),
    ("VR-30", "{reward_model: true, datasets: [{path: d.jsonl, type: bradley_terry.chat_template}]}", NOTHING),
    (
        "VR-31",
        "{batch_size: 8, micro_batch_size: 2, gradient_accumulation_steps: 2}",
        "batch_size = 8: contradicts `gradient_accumulation_steps`",
    ),
    # Evaluation keeps no activations, so a larger batch there is a choice like any other.
    ("VR-32", "{eval_batch_size: 4, micro_batch_size: 2, val_set_size: 0.1}", NOTHING),
    # The token of the environment is used without being asked for.
    ("VR-33", "push_dataset_to_hub: org/name", NOTHING),
    ("VR-34", "{base_model: tiiuae/falcon-7b, fsdp: [full_shard]}", "fsdp = ['full_shard']: cannot shard the Falcon"),
    # MPT in the pinned transformers can recompute activations.
    ("VR-35", "{base_model: mosaicml/mpt-7b, gradient_checkpointing: true}", NOTHING),
    # BetterTransformer became sdpa, which goes with adapters and with every number format.
    (
        "VR-36",
        "{flash_optimum: true, adapter: lora}",
        "note: flash_optimum = true: read as attn_impl",
    ),
    ("VR-37", "{flash_optimum: true, bf16: true}", "note: flash_optimum = true: read as attn_impl"),
    ("VR-38", "flash_optimum: true", "note: flash_optimum = true: read as attn_impl"),
    ("VR-39", "{optimizer: sgd, adam_beta1: 0.8}", "note: adam_beta1 = 0.8: has no effect on an optimizer that is not"),
    ("VR-40", "{save_strategy: epoch, save_steps: 5}", "save_strategy = 'epoch': contradicts `save_steps`"),
    ("VR-41", "{saves_per_epoch: 2, save_steps: 5}", "saves_per_epoch = 2: cannot be given together with `save_steps`"),
    # The finished model is pushed all the same.
    ("VR-42", "{hub_model_id: org/m, save_strategy: no}", NOTHING),
    (
        "VR-43",
        "{eval_strategy: epoch, eval_steps: 5, val_set_size: 0.1}",
        "eval_strategy = 'epoch': contradicts `eval_steps`",
    ),
    ("VR-44", "{eval_strategy: steps, eval_steps: 5}", "eval_steps = 5: there is nothing to evaluate on"),
    (
        "VR-45",
        "{evals_per_epoch: 2, eval_steps: 5, val_set_size: 0.1}",
        "evals_per_epoch = 2: cannot be given together with `eval_steps`",
    ),
    (
        "VR-46",
        "{evals_per_epoch: 2, eval_strategy: epoch, val_set_size: 0.1}",
        "eval_strategy = 'epoch': contradicts `evals_per_epoch`",
    ),
    # Evaluation is at the end of each epoch unless it is switched off.
    (
        "VR-47",
        "{do_bench_eval: true, eval_strategy: no, val_set_size: 0.1}",
        "do_bench_eval = true: it asks multiple-choice questions of a data set of axolotl's",
    ),
    # A benchmark brings its own rows.
    ("VR-48", "do_bench_eval: true", "do_bench_eval = true: it asks multiple-choice questions"),
    (
        "VR-49",
        # Prompts are taken from the documents, packed or not.
        "{eval_table_size: 5, sample_packing: true, val_set_size: 0.1}",
        NOTHING,
    ),
    (
        "VR-50",
        "{warmup_steps: 5, warmup_ratio: 0.1}",
        "warmup_ratio = 0.1: cannot be given together with",
    ),
    (
        "VR-51",
        "{noisy_embedding_alpha: 5, neftune_noise_alpha: 6}",
        "noisy_embedding_alpha = 5: contradicts `neftune_noise_alpha`",
    ),
    ("VR-52", "neftune_noise_alpha: -1.0", "neftune_noise_alpha = -1.0: must be above 0"),
    # The warmup is a share of the steps for every objective.
    ("VR-53", "{rl: simpo, warmup_ratio: 0.1, datasets: [{path: d.jsonl, type: chatml.intel}]}", NOTHING),
    (
        "VR-54",
        "{adapter: lora, unfrozen_parameters: [a], peft_layers_to_transform: [1]}",
        "unfrozen_parameters = ['a']: cannot be used together with `peft_layers_to_transform`",
    ),
    (
        "VR-55",
        "{adapter: lora, peft_layers_pattern: [a]}",
        "peft_layers_pattern = ['a']: needs `peft_layers_to_transform` beside it",
    ),
    # Weights that are trained are held in fp32, so fp16 is only computed in.
    ("VR-56", "{fp16: true, sample_packing: true}", NOTHING),
    (
        "VR-57",
        "{adapter: lora, flash_attn_fuse_qkv: true}",
        "flash_attn_fuse_qkv = true: replaces the linear layers that the `adapter` sits on",
    ),
    # LoRA on an unquantised base is as good a choice.
    ("VR-58", "adapter: lora", NOTHING),
    # Early stopping looks at each evaluation, whenever that is, and saves the best as it finds it.
    ("VR-59", "{early_stopping_patience: 3, evals_per_epoch: 4, saves_per_epoch: 1, val_set_size: 0.1}", NOTHING),
    ("VR-60", "{early_stopping_patience: 3, eval_steps: 3, save_steps: 10, val_set_size: 0.1}", NOTHING),
    ("VR-61", "relora_steps: 100", "relora_steps = 100: needs `adapter` lora or qlora"),
    (
        "VR-62",
        "{relora_steps: 100, adapter: lora, fsdp: [full_shard]}",
        "relora_steps = 100: cannot be used together with `fsdp`",
    ),
    (
        "VR-63",
        "{relora_steps: 100, adapter: lora, deepspeed: zero2}",
        "relora_steps = 100: cannot be used together with `deepspeed`",
    ),
    (
        "VR-64",
        "{relora_steps: 100, adapter: lora, lr_scheduler: one_cycle}",
        "relora_steps = 100: restarts the warmup after each merge, which `lr_scheduler` one_cycle cannot",
    ),
    (
        "VR-65",
        "{relora_steps: 100, adapter: lora, flash_attn_fuse_mlp: true}",
        "relora_steps = 100: cannot be used together with `flash_attn_fuse_mlp`",
    ),
    (
        "VR-66",
        "{max_memory: {0: 20GB}, gpu_memory_limit: 20}",
        "max_memory = {0}: every GPU holds a whole copy of the model; gpu_memory_limit says what it may take",
    ),
    # ftl picks the way of recomputing itself, so no wrong one can be asked for.
    (
        "VR-67",
        "{unfrozen_parameters: [a], gradient_checkpointing_kwargs: {use_reentrant: true}}",
        "note: gradient_checkpointing_kwargs = {use_reentrant}: is not used",
    ),
    (
        "VR-68",
        "{adapter: qlora, deepspeed: zero2, gradient_checkpointing_kwargs: {use_reentrant: false}}",
        "note: gradient_checkpointing_kwargs = {use_reentrant}: is not used",
    ),
    (
        "VR-69",
        "{val_set_size: 0.1, test_datasets: [{path: t.jsonl, type: alpaca}]}",
        "val_set_size = 0.1: cannot be given together with `test_datasets`",
    ),
    (
        "VR-70",
        "{optimizer: adamw_bnb_8bit, fsdp: [full_shard, offload]}",
        "optimizer = 'adamw_bnb_8bit': keeps its 8-bit states on the GPU, and `fsdp_config` offloads the parameters",
    ),
    # The finished model is safetensors whatever the checkpoints are.
    (
        "VR-71",
        "{save_safetensors: true, fsdp: [full_shard], fsdp_config: {fsdp_state_dict_type: SHARDED_STATE_DICT}}",
        "save_safetensors = true: contradicts SHARDED_STATE_DICT",
    ),
    (
        "VR-72",
        "{do_causal_lm_eval: true, sample_packing: true, val_set_size: 0.1}",
        NOTHING,
    ),
    (
        "VR-73",
        "eval_causal_lm_metrics: perplexity",
        "eval_causal_lm_metrics = 'perplexity': must be a list",
    ),
    ("VR-74", "eval_causal_lm_metrics: [rouge]", "eval_causal_lm_metrics = ['rouge']: must be a list of sacrebleu"),
    ("VR-75", "datasets: null", "datasets: is missing; list what to train on"),
    (
        "VR-76",
        "{flash_attn_cross_entropy: true, unsloth_cross_entropy_loss: true}",
        "unsloth_cross_entropy_loss = true: computes the same loss as `flash_attn_cross_entropy`",
    ),
    (
        "VR-77",
        "{adapter: lora, load_in_8bit: true, unsloth_lora_mlp: true}",
        "unsloth_lora_mlp = true: cannot be used together with `load_in_8bit`",
    ),
    (
        "VR-78",
        "{adapter: lora, load_in_8bit: true, lora_mlp_kernel: true}",
        "lora_mlp_kernel = true: cannot be used together with `load_in_8bit`",
    ),
    (
        "VR-79",
        "{adapter: lora, unsloth_lora_mlp: true, lora_mlp_kernel: true}",
        "unsloth_lora_mlp = true: is the same as `lora_mlp_kernel`",
    ),
    (
        "VR-80",
        "{torch_compile: true, deepspeed: zero2}",
        "torch_compile = true: has not been tried on the engine of `deepspeed`",
    ),
    # Ascend NPUs: no backend of ftl has one, so nothing of a config can be wrong for them.
    ("VR-81", "sample_packing: true", NOTHING),
    ("VR-82", "{optimizer: adamw_torch_fused, flash_attention: true}", NOTHING),
    ("VR-83", "{adapter: lora, load_in_8bit: true}", NOTHING),
    ("VR-84", "tf32: true", NOTHING),
    (
        "VR-85",
        "{rl: kto, sample_packing: true, datasets: [{path: d.jsonl, type: chatml.argilla}]}",
        "sample_packing = true: cannot be used with `objective` kto",
    ),
    # Only the columns of a format are read, and ftl picks the way of recomputing.
    ("VR-86", "{rl: kto, datasets: [{path: d.jsonl, type: chatml.argilla}]}", NOTHING),
    ("VR-87", "{rl: kto, gradient_checkpointing: true, datasets: [{path: d.jsonl, type: chatml.argilla}]}", NOTHING),
    # Known once there is a cloud file: see test_precheck.py, "bf16".
    ("VR-88", "bf16: true", NOTHING),
    # Documents are kept apart by positions or a mask, which sdpa computes in bf16 on every GPU that has it.
    ("VR-89", "{sample_packing: true, sdp_attention: true, bf16: true}", NOTHING),
    ("VR-90", "{deepspeed: zero2, fsdp: [full_shard]}", "deepspeed = 'zero2': cannot be used together with `fsdp`"),
    # unsloth's own kernels are gone; what stands for them is not tied to one GPU.
    (
        "VR-91",
        "{adapter: lora, unsloth_lora_qkv: true}",
        "note: unsloth_lora_qkv = true: is not used: LoRA on plain linear layers is always computed by a fused kernel,"
        " with dropout too",
    ),
    (
        "VR-92",
        "{adapter: lora, lora_o_kernel: true, fsdp: [full_shard]}",
        "lora_o_kernel = true: cannot be used together with `fsdp`",
    ),
    (
        "VR-93",
        "{adapter: lora, lora_o_kernel: true, deepspeed: zero2}",
        "lora_o_kernel = true: cannot be used together with `deepspeed`",
    ),
    # The image's torch is newer.
    ("VR-94", "optimizer: adopt_adamw", NOTHING),
]


def answers(snippet: str, folder: Path) -> list[str]:
    """Problems, or else notes, without the place in the file."""
    path = folder / "cfg.yml"
    path.write_text(yaml.safe_dump(BASE | yaml.safe_load(snippet), sort_keys=False))
    try:
        loaded = load_train(path, bear_unbuilt=True)
    except ConfigError as error:
        return [str(problem).removeprefix(f"{path}").partition(": ")[2] for problem in error.problems]
    return [f"note: {note.partition(': ')[2]}" for note in loaded.notes]


def test_table_has_every_check_once() -> None:
    assert [row[0] for row in ROWS] == [f"VR-{number}" for number in range(1, 95)]


@pytest.mark.parametrize(("snippet", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_config_is_answered(snippet: str, expected: str, tmp_path: Path) -> None:
    found = answers(snippet, tmp_path)
    if expected == NOTHING:
        assert found == []
    else:
        assert any(answer.startswith(expected) for answer in found), found


@pytest.mark.parametrize(
    ("snippet", "expected"),
    [
        ("adapter: qlora", []),
        ("{cut_cross_entropy: true, liger_fused_linear_cross_entropy: true}", ["cut_cross_entropy"]),
        ("gptq: true", ["gptq"]),
        ("early_stopping_patience: 3", ["early_stopping_patience"]),
        ("{load_best_model_at_end: true, val_set_size: 0.1, eval_strategy: no}", ["load_best_model_at_end"]),
        ("{load_in_8bit: true, load_in_4bit: true, adapter: lora}", ["load_in_8bit"]),
        ("{dpo_beta: 0.1, rl_beta: 0.2}", ["dpo_beta"]),
        ("{base_model: tiiuae/Falcon3-7B-Base, fsdp: [full_shard]}", []),
        ("{optimizer: adamw_torch_8bit, fsdp: [full_shard, offload]}", ["optimizer"]),
        ("{optimizer: galore_adamw, fsdp_config: {version: 2}}", ["optimizer"]),
        ("{optimizer: muon, deepspeed: zero1}", ["optimizer"]),
        ("{optimizer: muon, fsdp: [full_shard]}", ["optimizer"]),
        ("{optimizer: adamw_torch_8bit, fsdp_config: {offload_params: true}}", ["optimizer"]),
        ("{optimizer: adamw_torch_8bit, fsdp: [full_shard]}", ["optimizer"]),
        # DD-12. Source: github.com/huggingface/transformers/issues/30404, on the second gathering.
        (
            "{fsdp: [full_shard], fsdp_config: {fsdp_offload_params: true}, gradient_checkpointing: true}",
            ["note: fsdp_config", "note: gradient_checkpointing"],
        ),
        ("{fsdp_config: {offload_params: true, activation_checkpointing: true}}", []),
        (
            "{fsdp_config: {activation_checkpointing: true}, gradient_checkpointing: true}",
            ["gradient_checkpointing"],
        ),
        (
            "{fsdp: [full_shard], fsdp_config: {fsdp_activation_checkpointing: true}, gradient_checkpointing: true}",
            ["gradient_checkpointing"],
        ),
        ("{fsdp_config: {activation_checkpointing: true}, gradient_checkpointing: false}", []),
        # The form of FSDP2: no `fsdp`, plain names in `fsdp_config`.
        ("{relora_steps: 100, adapter: lora, fsdp_config: {reshard_after_forward: true}}", ["relora_steps"]),
        ("{adapter: lora, lora_o_kernel: true, fsdp_config: {reshard_after_forward: true}}", ["lora_o_kernel"]),
        ("{base_model: tiiuae/falcon-7b, fsdp_config: {reshard_after_forward: true}}", ["fsdp_config"]),
        ("{deepspeed: zero2, fsdp_config: {reshard_after_forward: true}}", ["deepspeed"]),
        ("{optimizer: adamw_bnb_8bit, fsdp_version: 2, fsdp_config: {reshard_after_forward: true}}", ["optimizer"]),
        ("{optimizer: paged_adamw_8bit, fsdp_config: {fsdp_version: 2}}", ["optimizer"]),
        (
            "{optimizer: adamw_torch, fsdp_version: 2, fsdp_config: {reshard_after_forward: true}}",
            [],
        ),
        ("{optimizer: adamw_bnb_8bit, fsdp: [full_shard]}", ["optimizer"]),
        # ReLoRA is told at the key that asks for it.
        ("relora: true", ["relora"]),
        ("{relora: true, relora_steps: 100}", ["relora"]),
        ("{relora_steps: 99, adapter: lora, fsdp_config: {reshard_after_forward: true}}", ["relora_steps"]),
        ("{relora: true, jagged_restart_steps: 99, adapter: lora, lr_scheduler: one_cycle}", ["relora"]),
        ("{batch_flattening: true, attn_implementation: flex_attention, micro_batch_size: 2}", ["batch_flattening"]),
        ("{batch_flattening: true, attn_implementation: flash_attention_2, micro_batch_size: 2}", []),
        ("{batch_flattening: true, attn_implementation: varlen, micro_batch_size: 2}", []),
        ("{batch_flattening: true, pad_to_sequence_len: true, micro_batch_size: 2}", ["batch_flattening"]),
        (f"{{batch_flattening: true, objective: dpo, micro_batch_size: 2, {PAIRS}}}", ["batch_flattening"]),
        (f"{{batch_flattening: auto, objective: dpo, pad_to_sequence_len: true, {PAIRS}}}", []),
        ("{trust_remote_code: true, model_revision: 0123abc}", []),
        ("{eval_table_size: 5, sample_packing: true, eval_sample_packing: false, val_set_size: 0.1}", []),
        ("{sample_packing: true, val_set_size: 1}", []),
        ("{batch_flattening: auto, micro_batch_size: 1}", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_that_cannot_be_trained_yet_are_held_to_the_rules(
    snippet: str, expected: list[str], tmp_path: Path
) -> None:
    assert [answer.partition(" = ")[0] for answer in answers(snippet, tmp_path)] == expected


NVME = {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}


def test_contradictions_are_told_beside_what_is_not_built_yet(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yml"
    path.write_text(yaml.safe_dump({**BASE, "deepspeed": NVME, "fsdp": ["full_shard"], "learning_rate": 0}))
    with pytest.raises(ConfigError) as caught:
        load_train(path)
    told = [str(problem).partition(": ")[2].partition(":")[0] for problem in caught.value.problems]
    assert told == ["deepspeed = {zero_optimization}", "deepspeed = {zero_optimization}", "learning_rate = 0"]

from typing import Annotated

import pytest

from ftl.config.data import DatasetSection
from ftl.config.dialect import translate
from ftl.config.flat import CONVERT, DATASET, IGNORED, REFUSED, TRAIN, _derive, flag_kinds, keys
from ftl.config.marker import Flat
from ftl.config.train import TrainConfig
from ftl.section import Section


def modern(**given):
    """The modern keys of a top-level mapping; fails when something is refused."""
    result = translate(given, TRAIN)
    assert result.problems == []
    return result.values


def refusals(**given):
    result = translate(given, TRAIN)
    return [(problem.where, problem.allowed) for problem in [*result.problems, *result.unbuilt]]


@pytest.mark.parametrize("dialect", [TRAIN, DATASET], ids=["train", "dataset"])
def test_every_key_is_in_exactly_one_table(dialect):
    names = dialect.names()
    assert len(names) == len(set(names))
    assert set(dialect.values) <= dialect.derived


def test_every_aside_key_has_a_reason():
    asides = [*REFUSED.values(), *IGNORED.values(), *DATASET.refused.values(), *DATASET.ignored.values()]
    assert all(entry.reason for entry in asides)
    conversions = [*CONVERT.values(), *TRAIN.values.values(), *DATASET.convert.values(), *DATASET.values.values()]
    assert all(conversion.reason and conversion.becomes for conversion in conversions)


def test_every_field_of_a_section_is_reached_by_a_key():
    reached = {key.loc for key in keys().values()}
    fields = {
        (section, name)
        for section, kind in TrainConfig.model_fields.items()
        if section not in ("adapter", "objective")
        for name in kind.annotation.model_fields
    }
    assert fields <= reached


def test_a_key_claimed_twice_is_refused():
    class One(Section):
        a: Annotated[int, Flat("same")] = 1

    class Two(Section):
        b: Annotated[int, Flat("same")] = 1

    class Both(Section):
        one: One = One()
        two: Two = Two()

    with pytest.raises(TypeError, match="'same' is claimed by"):
        _derive(Both)


def test_keys_tell_place_and_type():
    key = keys()["lora_alpha"]
    assert key.loc == ("adapter", "alpha")
    assert key.annotation is float
    assert not key.is_bool
    assert keys()["eval_sample_packing"].is_bool


def test_flag_kinds():
    kinds = flag_kinds()
    assert (kinds["learning_rate"], kinds["sample_packing"], kinds["flash_attention"]) == ("value", "switch", "switch")
    assert kinds["hub_token"] == "either"


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"batch_size": 8, "micro_batch_size": 2}, {"micro_batch_size": 2, "gradient_accumulation_steps": 4}),
        ({"revision_of_model": "main"}, {"model_revision": "main"}),
        ({"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch"}),
        ({"evaluation_strategy": False}, {"eval_strategy": "no"}),
        ({"save_strategy": False}, {"save_strategy": "no"}),
        ({"adam_eps": 1e-6}, {"adam_epsilon": 1e-6}),
        ({"optimizer": "adamw_hf"}, {"optimizer": "adamw_torch"}),
        ({"flash_attention": True}, {"attn_implementation": "flash_attention_2"}),
        ({"flex_attention": True}, {"attn_implementation": "flex_attention"}),
        ({"flash_attention": False}, {"attn_implementation": "sdpa"}),
        ({"flash_attention": False, "eager_attention": True}, {"attn_implementation": "eager"}),
        ({"flash_attention": False, "attn_implementation": "eager"}, {"attn_implementation": "eager"}),
        ({"sdp_attention": False}, {}),
        ({"bf16": True, "fp16": False}, {"precision": "bf16"}),
        ({"bf16": "auto"}, {"precision": "auto"}),
        ({"bf16": "auto", "fp16": True}, {"precision": "fp16"}),
        ({"bf16": False, "fp16": True}, {"precision": "fp16"}),
        ({"bf16": False}, {"precision": "fp32"}),
        ({"fp16": False}, {}),
        ({"float32": True}, {"precision": "fp32"}),
        ({"bfloat16": True}, {"precision": "bf16", "weights_dtype": "bf16"}),
        ({"tokens": {"bos_token": "<s>"}}, {"special_tokens": {"bos_token": "<s>"}}),
        ({"tokens": ["<x>"]}, {"tokens": ["<x>"]}),
        ({"max_packed_sequence_len": 64, "sequence_len": 64}, {"sample_packing": True, "sequence_len": 64}),
        ({"resume_from_checkpoint": False}, {}),
        ({"evals_per_epoch": 0, "saves_per_epoch": 2}, {"eval_strategy": "no", "saves_per_epoch": 2}),
        ({"warmup_steps": 0.1}, {"warmup_ratio": 0.1}),
        ({"warmup_steps": 10}, {"warmup_steps": 10}),
        ({"optimizer": "paged_adamw"}, {"optimizer": "paged_adamw_32bit"}),
        ({"optimizer": "adamw_8bit"}, {"optimizer": "adamw_bnb_8bit"}),
        ({"optimizer": "galore_adamw_layerwise"}, {"optimizer": "galore_adamw"}),
        (
            {"optim_args": "rank=64, scale=2e-1,proj_type=std"},
            {"optim_args": {"rank": 64, "scale": 0.2, "proj_type": "std"}},
        ),
        ({"eta_min": 1e-5, "learning_rate": 1e-4}, {"cosine_min_lr_ratio": 0.1, "learning_rate": 1e-4}),
        ({"lr_div_factor": 10}, {"lr_scheduler_kwargs": {"div_factor": 10}}),
        ({"plugins": ["axolotl.integrations.grokfast.GrokfastPlugin"]}, {"grokfast_alpha": 0.98}),
        ({"xformers_attention": True}, {"attn_implementation": "sdpa"}),
        ({"attn_implementation": "xformers"}, {"attn_implementation": "sdpa"}),
        ({"flash_optimum": True}, {"attn_implementation": "sdpa"}),
        ({"gradient_checkpointing": "unsloth"}, {"gradient_checkpointing": True}),
        (
            {"gradient_checkpointing": "offload"},
            {"gradient_checkpointing": True, "activation_offloading": True},
        ),
        ({"activation_offloading": "legacy"}, {"activation_offloading": True}),
        ({"unsloth_rope": True}, {"liger_rope": True}),
        ({"plugins": ["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"]}, {}),
        ({"torch_dtype": "bfloat16"}, {"precision": "bf16", "weights_dtype": "bf16"}),
        ({"bf16": "full"}, {"precision": "bf16", "weights_dtype": "bf16"}),
        ({"peft": {"loftq_config": {"loftq_bits": 4}}}, {"peft_init_lora_weights": "loftq"}),
        ({"peft_init_lora_weights": "pissa_niter_16"}, {"peft_init_lora_weights": "pissa_niter_16"}),
        ({"adapter": False}, {}),
        ({"full_finetune": True}, {}),
        ({"plugins": ["axolotl.integrations.liger.LigerPlugin"]}, {}),
        ({"streaming_multipack_buffer_size": 10}, {"pretrain_multipack_buffer_size": 10}),
        ({"hf_use_auth_token": True, "device_map": "auto", "expert_parallel_size": 1}, {}),
        (
            {"base_model": "a", "base_model_config": "a", "base_model_ignore_patterns": "pytorch*"},
            {"base_model": "a", "base_model_ignore_patterns": ["pytorch*"]},
        ),
        ({"gpu_memory_limit": "20GiB"}, {"gpu_memory_limit": 20.0}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            {"overrides_of_model_config": {"rope_scaling": {"type": "linear", "factor": 2.0}}},
        ),
        ({"adapter": "qlora"}, {"adapter": "qlora", "load_in_4bit": True}),
        ({"adapter": "qlora", "load_in_4bit": True}, {"adapter": "qlora", "load_in_4bit": True}),
        ({"quantize_moe_experts": False, "fsdp": [], "wandb_watch": "", "wandb_log_model": "false"}, {}),
        ({"project_name": "x"}, {"wandb_project": "x"}),
        ({"report_to": ["wandb", "comet_ml"]}, {"use_wandb": True, "use_comet": True}),
        ({"report_to": "none"}, {}),
        ({"generate_samples": True}, {"eval_table_size": 3}),
        ({"eval_table_max_new_tokens": 9}, {"eval_max_new_tokens": 9}),
        ({"save_safetensors": True}, {}),
    ],
    ids=str,
)
def test_translate_gives_modern_keys(given, values):
    assert modern(**given) == values


@pytest.mark.parametrize(
    ("given", "where", "words"),
    [
        ({"batch_size": 7, "micro_batch_size": 2}, "batch_size", "must be a multiple of micro_batch_size, which is 2"),
        ({"batch_size": 8}, "batch_size", "needs `micro_batch_size` beside it"),
        ({"batch_size": 8, "micro_batch_size": 2, "gradient_accumulation_steps": 1}, "batch_size", "contradicts"),
        ({"bf16": True, "fp16": True}, "fp16", "contradicts `bf16`"),
        ({"bf16": "maybe"}, "bf16", "must be true, false, auto or full"),
        ({"peft": {"loftq_config": {"loftq_bits": 8}}}, "peft", "must be loftq_bits 4 and loftq_iter 1"),
        ({"peft": {"loftq": 4}}, "peft", "must be {loftq_config: {loftq_bits: 4}}"),
        ({"peft_init_lora_weights": "eva"}, "peft_init_lora_weights", "not built yet: eva starts from what the data"),
        ({"peft_init_lora_weights": "pisa"}, "peft_init_lora_weights", "must be true, false, gaussian"),
        ({"flash_attention": True, "sdp_attention": True}, "sdp_attention", "contradicts `flash_attention`"),
        ({"optimizer": "lomo"}, "optimizer", "use apollo_adamw or paged_adamw_8bit"),
        ({"optimizer": "dion"}, "optimizer", "muon makes the same orthogonal steps"),
        ({"lr_scheduler": "greedy"}, "lr_scheduler", "reduce_lr_on_plateau follows the loss"),
        ({"optim_args": "rank"}, "optim_args", "must be a mapping, or text as name=value"),
        ({"eta_min": "low", "learning_rate": 1e-4}, "eta_min", "must be a learning rate"),
        ({"hub_token": "me"}, "hub_token", "HF_TOKEN"),
        ({"eval_causal_lm_metrics": ["chrf", "comet"]}, "eval_causal_lm_metrics", "loads a model of 2 GB"),
        ({"wandb_watch": "gradients"}, "wandb_watch", "grad_norm of every logged step"),
        ({"report_to": "all"}, "report_to", "must be none, or a list of wandb, mlflow"),
        ({"max_packed_sequence_len": 64, "sequence_len": 32}, "max_packed_sequence_len", "contradicts `sequence_len`"),
        ({"resume_from_checkpoint": True}, "resume_from_checkpoint", "`ftl resume ID`"),
        ({"s2_attention": True}, "s2_attention", "rope_scaling"),
        ({"landmark_attention": True}, "landmark_attention", "rope_type: yarn"),
        ({"tokenizer_use_fast": False}, "tokenizer_use_fast", "only fast tokenizers are read"),
        ({"gpu": "h100"}, "gpu", "`ftl train CFG --cloud FILE`"),
        ({"full_finetune": True, "adapter": "lora"}, "full_finetune", "contradicts `adapter`"),
        ({"streaming": True}, "streaming", "not built yet for `datasets`"),
        ({"rl": "ppo"}, "rl", "neither does ftl"),
        ({"sampel_packing": True}, "sampel_packing", "unknown key"),
    ],
    ids=str,
)
def test_translate_refuses_with_the_reason(given, where, words):
    assert [(key, words in allowed) for key, allowed in refusals(**given)] == [(where, True)]


def test_ignored_key_is_noted_with_the_reason():
    notes = translate({"dataset_prepared_path": "x"}, TRAIN).notes
    assert [str(note) for note in notes] == [
        "dataset_prepared_path: is not used: tokens are cached by their content, in a place of ftl's own"
    ]


@pytest.mark.parametrize(("key", "value"), [("save_safetensors", False), ("ddp", False), ("tokenizer_legacy", False)])
def test_ignored_key_is_noted_where_false_asks_for_something(key, value):
    (note,) = translate({key: value}, TRAIN).notes
    assert str(note).startswith(f"{key}: is not used: ")


def test_conversion_that_changes_much_is_noted():
    notes = translate({"batch_size": 8, "micro_batch_size": 2}, TRAIN).notes
    assert [str(note) for note in notes] == [
        "batch_size: read as gradient_accumulation_steps = 4: batch_size / micro_batch_size"
    ]


def test_dataset_fields_of_messages_become_one_mapping():
    result = translate({"message_field_role": "from", "message_field_content": "value"}, DATASET)
    assert result.problems == []
    assert result.values == {"message_property_mappings": {"role": "from", "content": "value"}}
    assert set(DatasetSection.model_fields) >= set(result.values)


SHAREGPT = {"type": "chat_template", "field_messages": "conversations"}


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (
            {"type": "sharegpt"},
            {**SHAREGPT, "message_property_mappings": {"role": "from", "content": "value"}},
        ),
        (
            {"type": "sharegpt:chat", "conversation": "chatml"},
            {
                **SHAREGPT,
                "message_property_mappings": {"role": "from", "content": "value"},
                "chat_template": "chatml",
            },
        ),
        (
            {"type": "sharegpt_simple.load_role"},
            {**SHAREGPT, "message_property_mappings": {"role": "role", "content": "value"}},
        ),
        (
            {"type": "sharegpt", "field_messages": "items", "message_field_role": "who"},
            {
                "type": "chat_template",
                "field_messages": "items",
                "message_property_mappings": {"role": "who", "content": "value"},
            },
        ),
        (
            {"type": "sharegpt", "field_human": "me", "field_model": "bot"},
            {
                **SHAREGPT,
                "message_property_mappings": {"role": "from", "content": "value"},
                "roles": {
                    "user": ["human", "user", "me"],
                    "assistant": ["gpt", "assistant", "bot"],
                    "system": ["system"],
                    "tool": ["tool"],
                },
            },
        ),
        (
            {"field_model": "human"},
            {
                "roles": {
                    "user": ["user"],
                    "assistant": ["gpt", "assistant", "human"],
                    "system": ["system"],
                    "tool": ["tool"],
                }
            },
        ),
        ({"field_model": "bot", "roles": {"user": ["me"]}}, {"roles": {"user": ["me"], "assistant": ["bot"]}}),
        ({"type": "alpaca"}, {"type": "alpaca"}),
        ({"type": {"field_output": "o"}}, {"type": {"field_output": "o"}}),
        ({"train_on_split": "train[:1%]"}, {"split": "train[:1%]"}),
    ],
    ids=str,
)
def test_dataset_keys_of_other_years_become_todays(given, values):
    result = translate(given, DATASET)
    assert result.problems == []
    assert result.values == values


def test_sharegpt_is_noted():
    (note,) = translate({"type": "sharegpt"}, DATASET).notes
    assert str(note).startswith("type: read as type = 'chat_template', field_messages = 'conversations'")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"message_field_role": "from", "message_property_mappings": {"role": "who", "content": "value"}},
            "message_field_role: contradicts `message_property_mappings`, which gives `message_property_mappings` too;"
            " keep one of them",
        ),
        (
            {"split": "train", "train_on_split": "test"},
            "train_on_split: contradicts `split`, which gives `split` too; keep one of them",
        ),
        (
            {"conversation": "vicuna_v1.1"},
            "conversation: no chat template writes this; give one as `chat_template_jinja`, or remove the key",
        ),
        (
            {"conversation": ["chatml"]},
            "conversation: no chat template writes this; give one as `chat_template_jinja`, or remove the key",
        ),
        ({"trust_remote_code": True}, "trust_remote_code: datasets are data: no code of theirs is run"),
    ],
    ids=str,
)
def test_dataset_keys_are_refused_with_the_reason(given, sentence):
    assert [str(problem) for problem in translate(given, DATASET).problems] == [sentence]


@pytest.mark.parametrize(
    ("given", "where", "told"),
    [
        ({"rl": "rloo"}, "rl", "not built yet: training on completions"),
        ({"plugins": ["my.Plugin"]}, "plugins", "not built yet: my.Plugin"),
    ],
    ids=str,
)
def test_what_an_old_key_stands_for_is_refused_in_its_name(given, where, told):
    assert [(key, allowed.startswith(told)) for key, allowed in refusals(**given)] == [(where, True)]


def test_slip_below_a_refused_key_is_told_with_its_place():
    result = translate({"diffusion": {"noise_schedul": "linear"}}, TRAIN)
    assert [str(problem) for problem in result.problems] == [
        "diffusion.noise_schedul: diffusion.noise_schedul: unknown key; did you mean `noise_schedule`?"
    ]


@pytest.mark.parametrize(
    ("given", "winner", "values"),
    [
        ({"evaluation_strategy": "epoch", "eval_strategy": False}, "eval_strategy", {"eval_strategy": "no"}),
        ({"eval_strategy": "epoch", "evaluation_strategy": "no"}, "evaluation_strategy", {"eval_strategy": "no"}),
        ({"bf16": True, "fp16": True}, "fp16", {"precision": "fp16"}),
        ({"precision": "bf16", "bf16": False}, "bf16", {"precision": "fp32"}),
        (
            {"attn_implementation": "flash_attention_2", "flash_attention": False},
            "flash_attention",
            {"attn_implementation": "sdpa"},
        ),
        ({"rl": "dpo", "objective": "sft"}, "objective", {"objective": "sft"}),
        (
            {"attn_implementation": "flex_attention", "flash_attention": True},
            "flash_attention",
            {"attn_implementation": "flash_attention_2"},
        ),
        (
            {"max_packed_sequence_len": 64, "sequence_len": 32},
            "sequence_len",
            {"sequence_len": 32, "sample_packing": True},
        ),
        (
            {"batch_size": 8, "micro_batch_size": 2, "gradient_accumulation_steps": 1},
            "gradient_accumulation_steps",
            {"micro_batch_size": 2, "gradient_accumulation_steps": 1},
        ),
        (
            {"tokens": {"pad_token": "a", "bos_token": "b"}, "special_tokens": {"pad_token": "c"}},
            "special_tokens",
            {"special_tokens": {"pad_token": "c", "bos_token": "b"}},
        ),
    ],
    ids=str,
)
def test_what_the_command_line_says_displaces_the_file(given, winner, values):
    result = translate(given, TRAIN, frozenset([winner]))
    assert [*result.problems, *result.unbuilt] == []
    assert result.values == values


@pytest.mark.parametrize("value", [[[]], {"wandb": True}, 3, ["wandb", "elsewhere"]], ids=str)
def test_trackers_that_are_no_names_are_refused(value):
    assert [key for key, _ in refusals(report_to=value)] == ["report_to"]

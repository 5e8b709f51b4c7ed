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
    return [(problem.where, problem.allowed) for problem in translate(given, TRAIN).problems]


@pytest.mark.parametrize("dialect", [TRAIN, DATASET], ids=["train", "dataset"])
def test_every_key_is_in_exactly_one_table(dialect):
    names = dialect.names()
    assert len(names) == len(set(names))
    assert set(dialect.values) <= dialect.derived


def test_every_aside_key_has_a_reason():
    assert all(entry.reason for entry in (REFUSED | IGNORED).values())
    assert all(conversion.reason for conversion in CONVERT.values())


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


def test_keys_tell_place_type_and_doc():
    key = keys()["lora_alpha"]
    assert key.loc == ("adapter", "alpha")
    assert key.annotation is float
    assert key.doc == "The update is scaled by alpha / rank."
    assert not key.is_bool
    assert keys()["eval_sample_packing"].is_bool


def test_flag_kinds():
    kinds = flag_kinds()
    assert (kinds["learning_rate"], kinds["sample_packing"], kinds["flash_attention"]) == ("value", "switch", "switch")
    assert kinds["hub_model_id"] == "either"


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
        ({"bfloat16": True}, {"precision": "bf16"}),
        ({"tokens": {"bos_token": "<s>"}}, {"special_tokens": {"bos_token": "<s>"}}),
        ({"tokens": ["<x>"]}, {"tokens": ["<x>"]}),
        ({"max_packed_sequence_len": 64, "sequence_len": 64}, {"sample_packing": True, "sequence_len": 64}),
        ({"resume_from_checkpoint": False}, {}),
        ({"load_in_8bit": False, "fsdp": [], "wandb_mode": "disabled", "wandb_project": ""}, {}),
        ({"save_safetensors": True, "tokenizer_type": "AutoTokenizer"}, {}),
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
        ({"bf16": "full"}, "bf16", "not built yet"),
        ({"bf16": "maybe"}, "bf16", "must be true, false or auto"),
        ({"flash_attention": True, "sdp_attention": True}, "sdp_attention", "contradicts `flash_attention`"),
        ({"adapter": "qlora"}, "adapter", "qlora is not built yet"),
        ({"optimizer": "adamw_bnb_8bit"}, "optimizer", "not built yet"),
        ({"load_in_4bit": True}, "load_in_4bit", "not built yet"),
        ({"hub_model_id": "me/x"}, "hub_model_id", "`ftl pull` copies the model"),
        ({"wandb_project": "x"}, "wandb_project", "not built yet: trackers"),
        ({"max_packed_sequence_len": 64, "sequence_len": 32}, "max_packed_sequence_len", "contradicts `sequence_len`"),
        ({"resume_from_checkpoint": True}, "resume_from_checkpoint", "`ftl resume ID`"),
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


def test_sharegpt_says_what_to_write():
    (problem,) = translate({"type": "sharegpt"}, DATASET).problems
    assert "field_messages: conversations" in str(problem)

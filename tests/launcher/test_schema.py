import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftl.commands.schema import run
from ftl.config.flat import DATASET, TRAIN
from ftl.config.load import load_train
from ftl.errors import ConfigError
from ftl.manual.schema import config_schema
from ftl.yamlfile import read

ROOT = Path(__file__).parents[2]
MINIMAL = "base_model: x\nlearning_rate: 1e-4\nadapter: lora\ndatasets: [{path: a.jsonl, type: alpaca}]\n"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def complaints(node: dict[str, Any], value: Any, root: dict[str, Any], place: str = "") -> Iterator[str]:
    """What a validator of JSON Schema says, for the few words that our schema uses."""
    known = {"$ref", "anyOf", "enum", "type", "properties", "additionalProperties", "required", "items", "minLength"}
    bounds = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "pattern"}
    assert set(node) <= known | bounds | {"$schema", "$defs", "title", "description", "default", "deprecated"}, node
    if "$ref" in node:
        yield from complaints(root["$defs"][node["$ref"].rpartition("/")[2]], value, root, place)
    if "anyOf" in node and all(list(complaints(form, value, root, place)) for form in node["anyOf"]):
        yield f"{place}: none of the forms"
    if "enum" in node and not any(value == choice and type(value) is type(choice) for choice in node["enum"]):
        yield f"{place}: not a choice"
    if node.get("type") == "null" and value is not None:
        yield f"{place}: not null"
    is_bool_for_number = isinstance(value, bool) and node.get("type") in ("integer", "number")
    if node.get("type") in TYPES and (not isinstance(value, TYPES[node["type"]]) or is_bool_for_number):
        yield f"{place}: not {node['type']}"
        return
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < node.get("minimum", value) or value > node.get("maximum", value):
            yield f"{place}: out of bounds"
        if value <= node.get("exclusiveMinimum", value - 1) or value >= node.get("exclusiveMaximum", value + 1):
            yield f"{place}: out of bounds"
    if isinstance(value, str) and (
        len(value) < node.get("minLength", 0) or not re.search(node.get("pattern", ""), value)
    ):
        yield f"{place}: not such a text"
    if isinstance(value, list) and "items" in node:
        for item in value:
            yield from complaints(node["items"], item, root, f"{place}[]")
    if isinstance(value, dict):
        yield from (f"{place}: without {key}" for key in node.get("required", []) if key not in value)
        for key, item in value.items():
            inner = node.get("properties", {}).get(key, node.get("additionalProperties", {}))
            yield from [f"{key}: unknown"] if inner is False else complaints(inner, item, root, key)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return config_schema()


@pytest.mark.parametrize(
    "config",
    sorted(set(ROOT.glob("examples/*/*.yml")) - set(ROOT.glob("examples/*/cloud.yml"))),
    ids=lambda path: path.name,
)
def test_examples_are_valid(config: Path, schema: dict[str, Any]) -> None:
    assert list(complaints(schema, read(config).data, schema)) == []


@pytest.mark.parametrize(
    ("more", "is_valid"),
    [
        ("lora_r: 8", True),
        ("lora_r: 0", False),
        ("lora_r:", True),
        ("lora_rr: 8", False),
        ("adam_epsilon: 0", False),
        ("optimizer: adamw_hf", True),
        ("optimizer: adamw", False),
        ("attn_implementation: xformers", True),
        ("lora_target_modules: q_proj", True),
        ("lora_modules_to_save: lm_head", True),
        ("lora_modules_to_save: {a: 1}", False),
        ("warmup_steps: 0.1", True),
        ("warmup_steps: 1.5", False),
        ("save_strategy: no", True),
        ("gradient_checkpointing: unsloth", True),
        ("bf16: auto", True),
        ("bf16: maybe", False),
        ("adam_eps: 1e-7", True),
        ("adam_eps: 0", False),
        ("load_in_4bit: false", True),
        ("bnb_config_kwargs: {bnb_4bit_quant_type: fp4}", True),
        ("bnb_config_kwargs: {bnb_4bit_quant_typ: fp4}", False),
        ("quantize_moe_experts: true", False),
        ("gpu_count: 2", False),
        ("strict: false", True),
        ("tokens: {pad_token: <p>}", True),
        ("tokens: {pad_tokn: <p>}", False),
        ("special_tokens: {additional_special_tokens: <a>}", True),
        ("special_tokens: {pad_tokn: <p>}", False),
        ("gradient_checkpointing_kwargs: {use_reentrant: true}", True),
        ("gradient_checkpointing_kwargs: {use_entrant: true}", False),
        ("test_datasets: {path: b.jsonl, type: alpaca}", True),
        ("test_datasets: [{path: b.jsonl, type: {field_instruction: q, format: '{instruction}'}}]", True),
        ("test_datasets: [{path: b.jsonl, type: {field_instructions: q}}]", False),
        ("test_datasets: [{path: b.jsonl, type: chat_template, roles: {user: me}}]", True),
        ("test_datasets: [{path: b.jsonl, type: chat_template, message_field_role: from}]", True),
        ("test_datasets: [{path: b.jsonl, shards: 0}]", False),
        ("test_datasets: [{path: b.jsonl, trust_remote_code: true}]", False),
    ],
)
def test_schema_and_ftl_agree_on_keys_and_values(
    more: str, is_valid: bool, schema: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "cfg.yml"
    config.write_text(MINIMAL + more)
    assert (not list(complaints(schema, read(config).data, schema))) is is_valid
    try:
        load_train(config)
    except ConfigError:
        assert not is_valid
    else:
        assert is_valid


def test_every_key_of_the_dialect_is_in_the_schema(schema: dict[str, Any]) -> None:
    assert set(schema["properties"]) == set(TRAIN.names())
    assert set(schema["$defs"]["DatasetSection"]["properties"]) == set(DATASET.names())


def test_keys_that_are_not_todays_are_deprecated_and_say_why(schema: dict[str, Any]) -> None:
    properties = schema["properties"]
    assert {name for name, node in properties.items() if node.get("deprecated")} == set(properties) - TRAIN.derived
    assert properties["rl"]["description"].startswith("Today: objective. ")
    assert properties["s2_attention"]["description"].startswith("Refused: ")
    assert properties["strict"]["description"].startswith("Ignored: ")


def test_key_has_the_words_and_the_default_of_its_field(schema: dict[str, Any]) -> None:
    node = schema["properties"]["sequence_len"]
    assert node["description"] == "Tokens in a row at most."
    assert node["default"] == 512


def test_json_and_yaml_are_the_same_schema(capsys: pytest.CaptureFixture[str]) -> None:
    run("json", field=None)
    as_json = json.loads(capsys.readouterr().out)
    run("yaml", field=None)
    assert yaml.safe_load(capsys.readouterr().out) == as_json == json.loads(json.dumps(config_schema()))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("gradient_accumulation_steps", {"type": "integer", "minimum": 1}),
        ("datasets.shards", {"type": "integer", "minimum": 1}),
        ("special_tokens.pad_token", {"type": "string"}),
    ],
)
def test_field_prints_one_node(field: str, expected: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("json", field=field)
    node = json.loads(capsys.readouterr().out)
    assert expected in node["anyOf"]


def test_unknown_format_and_field_are_sentences() -> None:
    with pytest.raises(ConfigError, match="must be one of json, yaml, markdown"):
        run("xml", field=None)
    with pytest.raises(ConfigError, match="unknown key; did you mean `lora_r`"):
        run("json", field="lora_rr")


def test_committed_reference_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    run("markdown", field=None)
    made = capsys.readouterr().out
    assert (ROOT / "docs/config-reference.md").read_text("utf-8") == made, (
        "make it again: ftl schema --format markdown > docs/config-reference.md"
    )


def test_reference_has_a_row_for_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    run("markdown", field=None)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    keys = {row.split("`")[1] for row in rows}
    assert {*TRAIN.names(), *(f"datasets.{name}" for name in DATASET.names())} <= keys
    assert [row for row in rows if not row.endswith(" |")] == [], "a row is one line"

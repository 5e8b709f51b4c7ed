"""Rows and what they become, written by hand: one JSON file a case in cases/.

    {"kind": "sft|dpo|ipo|simpo|orpo|kto|reward|prm",
     "type": what `type` of the dataset is: a name, a mapping or null,
     "config": further keys of the config; datasets[0] or pretraining_dataset[0], if there, holds those of the dataset,
     "tokenizer": "bos" (adds <s>, ends with </s>) or "nobos" (adds nothing, ends with <|im_end|>),
     "files": {name: text} beside the config, which the case may name as ./name,
     "rows": [...], "expected": [one for each row]}

An expected value is what `ftl preview --json` says of the row: for sft {"segments": [{"text", "train"}]}, special
tokens literal, runs of equal `train` joined; for prm the same with "label" (null, 0 or 1) in place of "train";
{"prompt", "chosen", "rejected"}, {"prompt", "completion", "label"} and, for reward, {"chosen", "rejected"} as texts;
{"error": a part of the sentence}.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from ftl.config.load import load_train
from ftl.errors import ConfigError
from ftl.formats.example import Judged, Pair, Preference, Sample, Steps
from ftl.formats.format import ABSENT, INLINE
from ftl.formats.render import FORMATS
from ftl.tokens import MASKED, Recipe, TokenizerView, encode

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))

OBJECTIVES: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {"rl": "dpo"},
    "ipo": {"rl": "ipo"},
    "simpo": {"rl": "simpo"},
    "orpo": {"rl": "orpo"},
    "kto": {"rl": "kto"},
    "reward": {"reward_model": True},
    "prm": {"process_reward_model": True},
}
SPECIAL = [
    *("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|begin_of_text|>", "<start_of_turn>", "<end_of_turn>", "<|end|>"),
]
TOKENS = {"bos": {"bos_token": "<s>", "eos_token": "</s>"}, "nobos": {"eos_token": "<|im_end|>"}}


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the tokenizers "bos" and "nobos", whose tokens are bytes and SPECIAL."""
    root = tmp_path_factory.mktemp("tokenizers")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for name, tokens in TOKENS.items():
        tokenizer = Tokenizer(models.BPE({char: id for id, char in enumerate(alphabet)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(SPECIAL)
        if name == "bos":
            tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
        (root / name).mkdir()
        tokenizer.save(str(root / name / "tokenizer.json"))
        (root / name / "tokenizer_config.json").write_text(json.dumps({**tokens, "pad_token": "<pad>"}))
    return root


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_rows_become_what_the_case_says(
    file: Path, tokenizers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = json.loads(file.read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    for name, text in case.get("files", {}).items():
        Path(name).write_text(text, "utf-8")
    given = preview(case, tokenizers / case["tokenizer"], tmp_path)
    assert len(given) == len(case["expected"])
    for row, (said, expected) in enumerate(zip(given, case["expected"], strict=True)):
        if "error" in expected and "error" in said:
            assert expected["error"] in said["error"], f"row {row}"
        else:
            assert said == expected, f"row {row}"


TRIED_ELSEWHERE = ("kd", "grpo")
"""Families whose rows need more than text: test_teacher.py, and tests/runtime/objectives/test_grpo.py."""


@pytest.mark.parametrize(
    ("family", "type"),
    [(family, type) for family, formats in FORMATS.items() if family not in TRIED_ELSEWHERE for type in formats],
)
def test_every_format_has_a_case(family: str, type: str) -> None:
    assert (family, type) in {named_by(json.loads(file.read_text("utf-8"))) for file in CASES}


def named_by(case: dict[str, Any]) -> tuple[str, str]:
    family = "dpo" if case["kind"] in ("ipo", "simpo") else case["kind"]
    type = case["type"]
    return family, type if isinstance(type, str) else ABSENT if type is None else INLINE


def preview(case: dict[str, Any], tokenizer: Path, directory: Path) -> list[dict[str, Any]]:
    """What the case's rows become, by way of a config file."""
    config = case.get("config", {})
    datasets = "pretraining_dataset" if "pretraining_dataset" in config else "datasets"
    (keys,) = config.get(datasets, [{}])
    dataset = {"path": "data.jsonl", "type": case["type"], **keys}
    more = {"base_model": str(tokenizer), "learning_rate": 1e-4, datasets: [dataset]}
    (directory / "cfg.yml").write_text(json.dumps({**OBJECTIVES[case["kind"]], **config, **more}), "utf-8")
    try:
        loaded = load_train(directory / "cfg.yml", bear_unbuilt=True).config
        view = TokenizerView.load(
            tokenizer, loaded.model.special_tokens, loaded.model.tokens, loaded.model.renamed_tokens
        )
        recipe = Recipe.of(getattr(loaded.data, datasets)[0], loaded.data, loaded.objective.kind, view)
    except ConfigError as e:
        return [{"error": str(e)}] * len(case["rows"])
    return [preview_row(recipe, row, view) for row in case["rows"]]


def preview_row(recipe: Recipe, row: dict[str, Any], view: TokenizerView) -> dict[str, Any]:
    try:
        sample = recipe.sample(row)
    except ConfigError as e:
        return {"error": str(e)}
    if isinstance(sample, Preference):
        return {"prompt": sample.prompt, "chosen": sample.chosen, "rejected": sample.rejected}
    if isinstance(sample, Judged):
        return {"prompt": sample.prompt, "completion": sample.completion, "label": sample.label}
    if isinstance(sample, Pair):
        return {side: text_of(getattr(sample, side), view) for side in ("chosen", "rejected")}
    return {"segments": segments_of(sample, view)}


def text_of(sample: Sample, view: TokenizerView) -> str:
    (tokens,) = encode([sample], view)
    return view.tokenizer.decode(tokens.ids, skip_special_tokens=False)


def segments_of(sample: Sample, view: TokenizerView) -> list[dict[str, Any]]:
    (tokens,) = encode([sample], view)
    if isinstance(sample, Steps):
        marks = [None if label == MASKED else label for label in tokens.labels]
    else:
        assert all(label in (id, MASKED) for id, label in zip(tokens.ids, tokens.labels, strict=True))
        marks = [label != MASKED for label in tokens.labels]
    key = "label" if isinstance(sample, Steps) else "train"
    runs = groupby(zip(tokens.ids, marks, strict=True), key=lambda pair: pair[1])
    return [
        {"text": view.tokenizer.decode([id for id, _ in run], skip_special_tokens=False), key: mark}
        for mark, run in runs
    ]

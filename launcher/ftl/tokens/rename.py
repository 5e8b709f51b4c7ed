"""Added tokens under other texts: `added_tokens_overrides`, for the tokens that a vocabulary keeps in reserve."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftl.errors import ConfigError, Problem

_KEY = "added_tokens_overrides"
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
Json = Any  # Any: what a JSON file holds


def copy_renamed(source: Path, target: Path, texts: Mapping[int, str]) -> None:
    """Copy the files of a tokenizer from one directory into another, with other texts for those ids.

    Raises ConfigError as `rename`, and where there is no tokenizer.json.
    """
    file = source / "tokenizer.json"
    if not file.is_file():
        remedy = "save the tokenizer in the fast format, or remove the key"
        raise ConfigError(Problem(_KEY, str(source), "has no tokenizer.json, which names the added tokens", remedy))
    for path in source.iterdir():
        if path.is_file() and path.suffix not in _WEIGHTS:
            shutil.copyfile(path, target / path.name)
    tokenizer, renamed = rename(json.loads(file.read_bytes()), texts)
    (target / file.name).write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    for name in _CONFIGS:
        if (source / name).is_file():
            config = with_texts(json.loads((source / name).read_bytes()), renamed)
            (target / name).write_text(json.dumps(config, ensure_ascii=False), "utf-8")


def rename(tokenizer: Json, texts: Mapping[int, str]) -> tuple[Json, dict[str, str]]:
    """What tokenizer.json holds with other texts for those ids, and old text -> new text.

    Raises ConfigError for an id that is no added token's, or a text that is another token's.
    """
    added = {token["id"]: token["content"] for token in tokenizer.get("added_tokens") or ()}
    vocabulary = _vocabulary(tokenizer)
    taken = {content: id for id, content in added.items()} | vocabulary
    for id, text in texts.items():
        if id not in added:
            allowed = f"is no added token of the tokenizer, which has {_ranges(sorted(added))}"
            raise ConfigError(Problem(f"{_KEY}.{id}", text, allowed, "take one of those ids"))
        holder = taken.get(text, id)
        if holder != id:
            raise ConfigError(Problem(f"{_KEY}.{id}", text, f"is token {holder} already", "take another text"))
        taken[text] = id
    renamed = {added[id]: text for id, text in texts.items()}
    of_model = {old: new for old, new in renamed.items() if old in vocabulary}
    return {
        **tokenizer,
        "added_tokens": [
            {**token, "content": texts.get(token["id"], token["content"])} for token in tokenizer["added_tokens"]
        ],
        "post_processor": with_texts(tokenizer.get("post_processor"), renamed),
        "model": _with_vocabulary(tokenizer["model"], of_model),
    }, renamed


def with_texts(value: Json, renamed: Mapping[str, str]) -> Json:
    """`value` with every text, and every key of a mapping, that is one of the old ones in its place."""
    match value:
        case str():
            return renamed.get(value, value)
        case list():
            return [with_texts(item, renamed) for item in value]
        case dict():
            return {renamed.get(key, key): with_texts(item, renamed) for key, item in value.items()}
    return value


def _vocabulary(tokenizer: Json) -> dict[str, int]:
    """The model's own tokens, which may be added ones too."""
    pieces = tokenizer["model"].get("vocab") or {}
    return pieces if isinstance(pieces, dict) else {piece: id for id, (piece, _) in enumerate(pieces)}


def _with_vocabulary(model: Json, renamed: Mapping[str, str]) -> Json:
    pieces = model.get("vocab")
    if isinstance(pieces, dict):
        model = {**model, "vocab": {renamed.get(piece, piece): id for piece, id in pieces.items()}}
    elif isinstance(pieces, list):
        model = {**model, "vocab": [[renamed.get(piece, piece), score] for piece, score in pieces]}
    return {**model, "unk_token": renamed[model["unk_token"]]} if model.get("unk_token") in renamed else model


def _ranges(ids: list[int]) -> str:
    """Numbers for people: 3, 7 to 9."""
    if not ids:
        return "none"
    ranges: list[list[int]] = []
    for id in ids:
        if ranges and ranges[-1][1] == id - 1:
            ranges[-1][1] = id
        else:
            ranges.append([id, id])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges)

"""What the data needs of a tokenizer, read from its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ftl.config.model import SpecialTokens
from ftl.errors import ConfigError, Problem
from ftl.tokens.rename import copy_renamed
from ftl.tokens.words import WordIds

_PROBE = "a"  # any text shows what is put before and what behind it
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, eq=False)
class TokenizerView:
    """What the data needs of a tokenizer."""

    tokenizer: Tokenizer
    """Without truncation and padding."""
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None
    named_tokens: Mapping[str, str | list[str]]
    """The special tokens by the names that chat templates use: bos_token, eos_token, image_token, ..."""
    prefix_ids: tuple[int, ...]
    """What the tokenizer puts in front of a text: BOS, or nothing."""

    @classmethod
    def load(
        cls,
        directory: Path,
        special: SpecialTokens | None = None,
        tokens: tuple[str, ...] = (),
        renamed: Mapping[int, str] | None = None,
    ) -> "TokenizerView":
        """The tokenizer in a directory, with the config's special tokens in place of its own and `tokens` added.

        `renamed` gives added tokens another text. Reads the files that save_pretrained of transformers 4 and 5 writes.
        Raises ConfigError without tokenizer.json.
        """
        if renamed:
            with TemporaryDirectory() as copy:
                copy_renamed(directory, Path(copy), renamed)
                return cls.load(Path(copy), special, tokens)
        tokenizer = _read_tokenizer(directory)
        config = _read_json(directory / "tokenizer_config.json")
        special = special or SpecialTokens()
        given = {name: token for name in NAMES if (token := getattr(special, name, None))}
        added = [*given.values(), *special.additional_special_tokens]
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in added])
        tokenizer.add_tokens(list(tokens))
        named = {**_named_tokens(_read_json(directory / "special_tokens_map.json")), **_named_tokens(config), **given}
        bos_token, eos_token, pad_token = (_one(named.get(name)) for name in ("bos_token", "eos_token", "pad_token"))
        return cls(
            tokenizer=tokenizer,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            chat_template=_own_template(directory, config),
            named_tokens=named,
            prefix_ids=_prefix_ids(tokenizer, bos_token, config.get("add_bos_token")),
        )

    @cached_property
    def eos_id(self) -> int:
        """Raises ConfigError when the tokenizer has no EOS token."""
        id = self.tokenizer.token_to_id(self.eos_token) if self.eos_token else None
        if id is None:
            raise ConfigError(
                Problem(
                    "special_tokens",
                    f"eos_token = {self.eos_token}",
                    "must be a token of the tokenizer",
                    "set eos_token",
                )
            )
        return id

    @cached_property
    def pad_id(self) -> int:
        """The id that fills rows up; EOS where there is no pad token, since padding is masked anyway."""
        id = self.tokenizer.token_to_id(self.pad_token) if self.pad_token else None
        return self.eos_id if id is None else id

    @cached_property
    def last_id(self) -> int:
        """The greatest id of a token; those below it need not all be tokens."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def words(self) -> WordIds | None:
        """The ids of texts with less work than the tokenizer has; None where they might differ from its own."""
        return WordIds.of(self.tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all that decides which ids a text gets. The chat template is not part of it."""
        parts = [self.tokenizer.to_str(), self.named_tokens, self.prefix_ids]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read_tokenizer(directory: Path) -> Tokenizer:
    file = directory / "tokenizer.json"
    if not file.is_file():
        slow = next((f"; {slow.name} alone is not enough" for slow in directory.glob("*.model")), "")
        remedy = "save the tokenizer in the fast format: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        raise ConfigError(Problem(str(file), f"no such file{slow}", remedy=remedy))
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as e:  # the tokenizers library raises nothing narrower
        raise ConfigError(Problem(str(file), f"no tokenizer ({e})", remedy="save the tokenizer again")) from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_json(file: Path) -> dict[str, Any]:  # Any: JSON
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as e:
        raise ConfigError(Problem(str(file), f"not valid JSON ({e})", remedy="save the tokenizer again")) from e
    return content if isinstance(content, dict) else {}


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """The special tokens in a file of transformers. Those beyond NAMES stand in a mapping or in a list."""
    named: dict[str, str | list[str]] = {name: token for name in NAMES if (token := _token_text(config.get(name)))}
    for key in ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"):
        more = config.get(key)
        if isinstance(more, dict):
            named |= {name: text for name, token in more.items() if (text := _token_text(token))}
        elif isinstance(more, list):
            named["additional_special_tokens"] = [text for token in more if (text := _token_text(token))]
    return named


def _token_text(value: Any) -> str | None:
    """A token, where it is a text or an AddedToken written as an object."""
    return value.get("content") if isinstance(value, dict) else value


def _one(token: str | list[str] | None) -> str | None:
    return token if isinstance(token, str) else None


def _own_template(directory: Path, config: Mapping[str, Any]) -> str | None:
    """The template beside the tokenizer or in its config; of several by name, the default one."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = config.get("chat_template") or _read_json(directory / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        only = next(iter(named.values())) if len(named) == 1 else None
        template = named.get("default", only)
    if template is not None and not isinstance(template, str):
        allowed = "must be the text of a chat template"
        raise ConfigError(Problem(str(directory / "tokenizer_config.json"), "chat_template", allowed))
    return template


def _prefix_ids(tokenizer: Tokenizer, bos_token: str | None, adds_bos: bool | None) -> tuple[int, ...]:
    """As transformers decides: `add_bos_token` of the tokenizer's config, else the tokenizer's post-processor."""
    bos_id = tokenizer.token_to_id(bos_token) if bos_token else None
    if adds_bos is not None:
        return (bos_id,) if adds_bos and bos_id is not None else ()
    bare = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    ids = tokenizer.encode(_PROBE, add_special_tokens=True).ids
    begins = (start for start in range(len(ids)) if ids[start : start + len(bare)] == bare)
    return tuple(ids[: next(begins, 0)][:1])

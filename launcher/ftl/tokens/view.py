"""What the data needs of a tokenizer, read from its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ftl.config.model import SpecialTokens
from ftl.errors import ConfigError, Problem


@dataclass(frozen=True, eq=False)
class TokenizerView:
    """What the data needs of a tokenizer."""

    tokenizer: Tokenizer
    """Without truncation and padding."""
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None
    prefix_ids: tuple[int, ...]
    """What the tokenizer puts in front of a text: BOS, or nothing."""

    @classmethod
    def load(
        cls, directory: Path, special: SpecialTokens | None = None, tokens: tuple[str, ...] = ()
    ) -> "TokenizerView":
        """The tokenizer in a directory, with the config's special tokens in place of its own and `tokens` added.

        Reads tokenizer.json, tokenizer_config.json and chat_template.jinja. Raises ConfigError without the first.
        """
        file = directory / "tokenizer.json"
        if not file.is_file():
            remedy = "save the tokenizer in the fast format: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            raise ConfigError(Problem(str(file), "no such file", remedy=remedy))
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config_file = directory / "tokenizer_config.json"
        config = json.loads(config_file.read_text("utf-8")) if config_file.is_file() else {}
        special = special or SpecialTokens()
        added = [t for t in (special.bos_token, special.eos_token, special.unk_token, special.pad_token) if t]
        tokenizer.add_special_tokens(
            [AddedToken(t, special=True) for t in (*added, *special.additional_special_tokens)]
        )
        tokenizer.add_tokens(list(tokens))
        bos_token = special.bos_token or _token_text(config.get("bos_token"))
        return cls(
            tokenizer=tokenizer,
            bos_token=bos_token,
            eos_token=special.eos_token or _token_text(config.get("eos_token")),
            pad_token=special.pad_token or _token_text(config.get("pad_token")),
            chat_template=_own_template(directory, config),
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
    def fingerprint(self) -> str:
        """sha256 over all that decides which ids a text gets. The chat template is not part of it."""
        parts = [self.tokenizer.to_str(), self.bos_token, self.eos_token, self.pad_token, self.prefix_ids]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _token_text(value: Any) -> str | None:
    """A token of tokenizer_config.json, where it is a text or an AddedToken written as an object."""
    return value.get("content") if isinstance(value, dict) else value


def _own_template(directory: Path, config: Mapping[str, Any]) -> str | None:
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        return next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template


def _prefix_ids(tokenizer: Tokenizer, bos_token: str | None, adds_bos: bool | None) -> tuple[int, ...]:
    """As transformers decides: `add_bos_token` of the tokenizer's config, else the tokenizer's post-processor."""
    bos_id = tokenizer.token_to_id(bos_token) if bos_token else None
    if adds_bos is not None:
        return (bos_id,) if adds_bos and bos_id is not None else ()
    ids = tokenizer.encode("", add_special_tokens=True).ids
    return tuple(ids[:1])

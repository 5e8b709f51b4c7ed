"""Conversations with what a teacher expected in the place of their tokens: rows to distil from.

A row has an entry for each token: nothing, or the teacher's likeliest tokens there with their log-probabilities. They
are read as vLLM writes them ({"11": {"logprob": -0.1}, ...}), as its server does when asked for tokens as ids
([{"token": "token_id:11", "logprob": -0.1}, ...], also as `top_logprobs` below the token itself), or as plain numbers
with the ids in a column of their own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ftl.formats.example import FormatOptions, RowError, Target, TaughtConversation
from ftl.formats.format import MASK_KEYS, TEMPLATE_KEYS, Format
from ftl.formats.jsontext import kind_of, parse_json
from ftl.formats.messages import read_conversation
from ftl.formats.rows import Row, list_of, names_of, shorten

IDS_COLUMN = "target_token_ids"
_PREFIX = "token_id:"
_LEAST = -9999.0  # what vLLM's server writes for a probability of 0
_ROUNDING = 1e-3


def read_taught(row: Row, options: FormatOptions) -> TaughtConversation:
    """The conversation and an entry a token, aligned with nothing yet. Raises RowError for what is no distribution."""
    column = options.logprobs_field
    if column not in row:
        remedy = "set `logprobs_field` to the column with the teacher's log-probabilities"
        raise RowError(f"no column `{column}`: the row has {names_of(row)}; {remedy}")
    value = row[column]
    if isinstance(value, Mapping) and "content" in value:  # the `logprobs` of an answer of OpenAI's interface
        value = value["content"]
    entries = parse_json(value, f"`{column}`", list, "a list with an entry for each token")
    ids = _ids_beside(row, column, entries)
    targets = tuple(
        _target(entry, ids[place] if ids else None, f"{column}[{place}]", options.temperature)
        for place, entry in enumerate(entries)
    )
    if not any(targets):
        raise RowError(f"`{column}` says nothing about any token: remove the row")
    return TaughtConversation(read_conversation(row, options), targets)


def _ids_beside(row: Row, column: str, entries: list[Any]) -> list[Any] | None:
    """The ids of entries that are plain numbers."""
    if not any(isinstance(entry, list) and entry and not isinstance(entry[0], Mapping) for entry in entries):
        return None
    ids = list_of(row, IDS_COLUMN, f"entries of `{column}` are numbers, whose tokens that column has to name")
    if len(ids) != len(entries):
        raise RowError(f"`{IDS_COLUMN}` has {len(ids)} entries and `{column}` {len(entries)}: must be as many")
    return ids


def _target(entry: Any, ids: Any, where: str, temperature: float) -> Target | None:  # Any: the user's JSON
    if not entry:
        return None
    found: dict[int, float] = {}
    for id, logprob in _pairs(entry, ids, where):
        if not isinstance(logprob, int | float) or isinstance(logprob, bool) or not logprob <= _ROUNDING:
            raise RowError(f"{where}: {shorten(logprob)} is no log-probability: must be a number, at most 0")
        if logprob > _LEAST:
            found.setdefault(id, temperature * logprob)
    return Target(tuple(found), tuple(found.values())) if found else None


def _pairs(entry: Any, ids: Any, where: str) -> Iterator[tuple[int, Any]]:  # Any: the user's JSON
    """Tokens and what is said to be their log-probabilities."""
    if isinstance(entry, Mapping) and "token" in entry:
        entry = entry.get("top_logprobs") or [entry]
    if isinstance(entry, Mapping):
        for key, value in entry.items():
            if value is not None:  # columnar files add the keys of other entries
                yield _id(key, where), value.get("logprob") if isinstance(value, Mapping) else value
    elif isinstance(entry, list) and ids is not None:
        if not isinstance(ids, list) or len(ids) != len(entry):
            raise RowError(f"{where}: must be as many numbers as `{IDS_COLUMN}` has ids there")
        yield from ((_id(id, where), logprob) for id, logprob in zip(ids, entry, strict=True))
    elif isinstance(entry, list) and all(isinstance(item, Mapping) for item in entry):
        yield from ((_id(item.get("token_id", item.get("token")), where), item.get("logprob")) for item in entry)
    else:
        raise RowError(f"{where} is {kind_of(entry)}: must be a list of tokens with their `logprob`")


def _id(token: Any, where: str) -> int:  # Any: the user's JSON
    digits = token.removeprefix(_PREFIX) if isinstance(token, str) else token
    if isinstance(digits, str) and digits.isascii() and digits.isdigit():
        digits = int(digits)
    if isinstance(digits, bool) or not isinstance(digits, int) or digits < 0:
        raise RowError(
            f"{where}: {shorten(token)} is no id of a token: must be a number, or {_PREFIX}N, "
            "which vLLM's server gives with return_tokens_as_token_ids"
        )
    return digits


_TAUGHT = Format(
    read_taught,
    ("field_messages", "field_system", "logprobs_field", "temperature", *TEMPLATE_KEYS, *MASK_KEYS),
    needs_template=True,
)

KD: Mapping[str, Format] = {
    "chat_template": _TAUGHT,
    "axolotl.integrations.kd.chat_template": _TAUGHT,
    "axolotl.integrations.kd.chat_template.load_legacy": _TAUGHT,
}

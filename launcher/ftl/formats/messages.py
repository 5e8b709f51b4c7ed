"""The messages of a row as turns: roles translated, texts joined, and which of them are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftl.formats.example import Conversation, FormatOptions, RowError, Turn
from ftl.formats.jsontext import kind_of, parse_json, without_nulls
from ftl.formats.rows import names_of
from ftl.formats.thinking import split_reasoning

THINKING = "reasoning_content"  # what most templates call the reasoning of a message

_Ranges = tuple[tuple[int, int], ...]
_Message = Mapping[str, Any]  # Any: the user's JSON


def read_conversation(row: Mapping[str, Any], options: FormatOptions) -> Conversation:
    """The conversation in a row; the messages and the tools may be lists or the JSON texts of lists.

    The column `system` (or `field_system`) opens a conversation that begins without a system message.
    Raises RowError when the messages or one of their roles or contents has another type than expected.
    """
    turns = read_messages(row, options.field_messages, options)
    if _lacks(turns):
        turns = (*_system_turn(row.get(options.field_system or "system"), options), *turns)
    if options.drop_system_message and not _lacks(turns):
        turns = turns[1:]
    if _lacks(turns):
        turns = (*_system_turn(options.default_system_message, options), *turns)
    if not turns:
        raise RowError(f"`{options.field_messages}` holds a system message alone: remove the row")
    return Conversation(turns, options.train_on_eos, options.train_on_eot, _tools(row, options))


def read_messages(row: Mapping[str, Any], column: str, options: FormatOptions) -> tuple[Turn, ...]:
    """The messages in a column, at least one. Raises RowError as `read_conversation` does."""
    if column not in row:
        raise RowError(
            f"no column `{column}`: the row has {names_of(row)}; set `field_messages` to the column with the messages"
        )
    messages = parse_json(row[column], f"`{column}`", list, "a list of messages")
    if not messages:
        raise RowError(f"`{column}` is empty: must hold at least one message; remove the row")
    roles = _Roles.of(options)
    return tuple(
        _turn(message, f"{column}[{position}]", options, roles, is_last=position == len(messages) - 1)
        for position, message in enumerate(messages)
    )


@dataclass(frozen=True)
class _Roles:
    of_name: Mapping[str, str]
    """What the data calls a role -> what the template calls it."""
    trained: frozenset[str]

    @classmethod
    def of(cls, options: FormatOptions) -> "_Roles":
        of_name = {name: role for role, names in options.role_names.items() for name in names}
        return cls(of_name, frozenset(of_name.get(name, name) for name in options.roles_to_train))


def _lacks(turns: tuple[Turn, ...]) -> bool:
    return not turns or turns[0].role != "system"


def _system_turn(text: Any, options: FormatOptions) -> tuple[Turn, ...]:
    if not isinstance(text, str) or not text:
        return ()
    return (Turn("system", text, options.train_on_inputs or "system" in _Roles.of(options).trained),)


def _turn(message: Any, where: str, options: FormatOptions, roles: _Roles, *, is_last: bool) -> Turn:
    if not isinstance(message, dict):
        needed = f"must be an object with `{options.role_key}` and `{options.content_key}`"
        raise RowError(f"{where} is {kind_of(message)}: {needed}")
    name = _property(message, options.role_key, where, "role")
    if not isinstance(name, str):
        raise RowError(f"{where}.{options.role_key} is {kind_of(name)}: must be text")
    role = roles.of_name.get(name, name)
    is_named = is_last if options.last_message_only else role in roles.trained
    flag = _flag(message, options.message_field_training, where)
    train = options.train_on_inputs or is_named if flag is None else flag
    texts: dict[str, str] = {}
    parts: dict[str, _Ranges] = {}
    extra = _extra(message, where, options)
    for key, value in (("content", _content(message, where, options, extra)), _thinking(message, options)):
        if value is not None:
            texts[key], ranges = _joined(value, f"{where}.{key}", is_trained=train)
            parts |= {} if ranges is None else {key: ranges}
    detail = message.get(options.message_field_training_detail or "")
    if detail:
        parts["content"] = _detail(detail, len(texts["content"]), f"{where}.{options.message_field_training_detail}")
    if options.split_thinking and role == "assistant" and len(texts) == 1:
        texts |= _split(texts["content"], parts, where, options)
    content = texts.pop("content")
    if flag is False:
        return Turn(role, content, False, {**extra, **texts})
    return Turn(role, content, train or any(parts.values()), {**extra, **texts}, parts)


def _flag(message: _Message, key: str | None, where: str) -> bool | None:
    """What a message says itself about its training; 0 and 1 count too, as OpenAI's `weight` has them."""
    value = message.get(key) if key is not None else None
    if value is None or (isinstance(value, int) and value in (0, 1)):
        return None if value is None else bool(value)
    raise RowError(f"{where}.{key} is {value!r}: must be true or false")


def _property(message: _Message, key: str, where: str, what: str) -> Any:
    if key not in message:
        raise RowError(
            f"{where} has no `{key}`: it has {names_of(message)}; "
            f"set `message_property_mappings: {{{what}: ...}}` to the key with the {what}"
        )
    return message[key]


def _content(message: _Message, where: str, options: FormatOptions, extra: Mapping[str, Any]) -> Any:
    """The content; the empty text where it is null or absent beside calls of tools."""
    if message.get(options.content_key) is None and extra.get("tool_calls"):
        return ""
    value = _property(message, options.content_key, where, "content")
    if value is None:
        raise RowError(f"{where}.{options.content_key} is null: must be text or a list of texts")
    return value


def _thinking(message: _Message, options: FormatOptions) -> tuple[str, Any]:
    """What the template calls the reasoning, and the reasoning."""
    key = options.template_thinking_key or THINKING
    return key, message.get(options.field_thinking or key)


def _joined(value: Any, where: str, *, is_trained: bool) -> tuple[str, _Ranges | None]:
    """A text, or the texts of a list of parts joined; with the trained ranges if a part has a key `train`."""
    if isinstance(value, str):
        return value, None
    if not isinstance(value, list):
        raise RowError(f"{where} is {kind_of(value)}: must be text or a list of texts")
    text = ""
    flags = []
    ranges = []
    for position, part in enumerate(value):
        piece = _text_of_part(part, f"{where}[{position}]")
        flag = _flag(part, "train", f"{where}[{position}]") if isinstance(part, dict) else None
        if is_trained if flag is None else flag:
            ranges.append((len(text), len(text) + len(piece)))
        flags.append(flag)
        text += piece
    return text, None if all(flag is None for flag in flags) else tuple(ranges)


def _text_of_part(part: Any, where: str) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
    if not isinstance(text, str):
        given = f"of type {part['type']}" if isinstance(part, dict) and "type" in part else kind_of(part)
        raise RowError(f"{where} is {given}: only parts of type text, with a key `text`, can be trained")
    return text


def _detail(value: Any, num_chars: int, where: str) -> _Ranges:
    """The ranges to train among [{begin_offset, end_offset, train}, ...], whose ends are inclusive."""
    ranges = []
    done = 0
    for entry in sorted(parse_json(value, where, list, "a list of ranges"), key=_begin(where)):
        begin, end, train = entry.get("begin_offset"), entry.get("end_offset"), _flag(entry, "train", where)
        if not isinstance(end, int) or not done <= begin <= end < num_chars:
            raise RowError(
                f"{where} has the range {begin} to {end}: ranges must lie within the {num_chars} characters of the "
                "message (the first one is 0, ends are inclusive) and not overlap"
            )
        ranges += [(begin, end + 1)] if train else []
        done = end + 1
    return tuple(ranges)


def _begin(where: str) -> Any:
    def begin(entry: Any) -> int:
        offset = entry.get("begin_offset") if isinstance(entry, dict) else None
        if not isinstance(offset, int):
            raise RowError(f"{where} must be a list of objects with begin_offset, end_offset and train")
        return offset

    return begin


def _split(content: str, parts: Mapping[str, Any], where: str, options: FormatOptions) -> dict[str, str]:
    found = split_reasoning(content)
    if found is None:
        return {}
    if parts:
        raise RowError(f"{where}: `split_thinking` moves the text that its ranges to train count in; use one of them")
    return {"content": found[1], options.template_thinking_key or THINKING: found[0]}


def _extra(message: _Message, where: str, options: FormatOptions) -> dict[str, Any]:
    """The other properties of a message, by the names that the template uses."""
    key_of = {"role": "role", "content": "content", **options.message_property_mappings}
    thinking = options.field_thinking or options.template_thinking_key or THINKING
    taken = {"role", "content", thinking, *key_of.values()}
    extra = {key: value for key, value in message.items() if key not in taken and value is not None}
    extra |= {
        name: message[key]
        for name, key in options.message_property_mappings.items()
        if name not in ("role", "content") and message.get(key) is not None
    }
    calls = extra.pop("tool_calls", None)
    if calls:
        extra["tool_calls"] = _tool_calls(calls, f"{where}.tool_calls")
    return extra


def _tool_calls(value: Any, where: str) -> list[Any]:
    """The calls, their arguments as objects: templates print those as JSON."""
    calls = []
    for position, call in enumerate(parse_json(value, where, list, "a list of calls")):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise RowError(f"{where}[{position}] is {kind_of(call)}: must be an object with the called function")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            name = f"{where}[{position}].arguments"
            arguments = parse_json(arguments or "{}", name, dict, "an object, or the JSON text of one")
            function = {**without_nulls(function), "arguments": arguments}
        else:
            function = without_nulls(function)
        calls.append({**without_nulls(call), "function": function} if "function" in call else function)
    return calls


def _tools(row: Mapping[str, Any], options: FormatOptions) -> tuple[Mapping[str, Any], ...]:
    value = row.get(options.field_tools)
    if not value:
        return ()
    where = f"`{options.field_tools}`"
    tools = parse_json(value, where, list, "a list of tools")
    return tuple(without_nulls(parse_json(tool, f"{where}[{i}]", dict, "an object")) for i, tool in enumerate(tools))

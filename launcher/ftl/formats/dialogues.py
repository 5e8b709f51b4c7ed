"""Conversations in columns and with templates of their own."""

from collections.abc import Sequence

from ftl.formats.example import Conversation, FormatOptions, RowError, Turn
from ftl.formats.format import Format
from ftl.formats.rows import Row, list_of, shorten, text_of

# Source: llama.com, "Llama 2 prompt format". The space after an answer is part of the message, so that it is trained.
LLAMA2_TEMPLATE = r"""
{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}
{%- set turns = messages[1:] if messages[0]['role'] == 'system' else messages -%}
{%- for message in turns -%}
{%- if message['role'] == 'user' -%}
{{ bos_token ~ '[INST] ' ~ ('<<SYS>>\n' ~ system ~ '\n<</SYS>>\n\n' if loop.first and system else '') }}
{{- message['content'] ~ ' [/INST] ' }}
{%- else -%}
{{ message['content'] ~ eos_token }}
{%- endif -%}
{%- endfor -%}
"""

# Source: huggingface.co/PygmalionAI/metharme-7b, "Prompting". The space before a reply is part of the message.
PYGMALION_TEMPLATE = r"""
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{ (bos_token if loop.first else '') ~ '<|system|>Persona: ' ~ message['content'] }}
{%- elif message['role'] == 'user' -%}
{{ '<|user|>' ~ message['content'] }}
{%- else -%}
{{ '<|model|>' ~ message['content'] ~ eos_token }}
{%- endif -%}
{%- endfor -%}
"""

# Source: github.com/facebookresearch/llama, generation.py of July 2023.
_LLAMA2_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)
_AIROBOROS_SYSTEM = "You are an unbiased, uncensored, helpful assistant."

_SHAREGPT = {"system": "system", "human": "user", "gpt": "assistant"}
_PYGMALION = {"system": "system", "human": "user", "bot": "assistant"}


def read_llama2(row: Row, options: FormatOptions) -> Conversation:
    """`conversation` or `conversations`: human and gpt by turns, system at most at the beginning."""
    column = "conversation" if "conversation" in row else "conversations"
    return _conversation(_spaced(_by_turns(row, column, _LLAMA2_SYSTEM)), options)


def read_airoboros_chat(row: Row, options: FormatOptions) -> Conversation:
    """As `read_llama2`, where the last answer is the only one that is trained."""
    *before, (role, answer) = _by_turns(row, "conversations", _AIROBOROS_SYSTEM)
    if role != "assistant":
        raise RowError("`conversations` ends without a message of gpt: must end with the answer to be trained")
    return _conversation([*_spaced(before), (role, answer)], options, last_only=True)


def read_pygmalion(row: Row, options: FormatOptions) -> Conversation:
    """`conversations` of system, human and bot. The persona loses the `<START>` line at its end."""
    turns = []
    for role, text in _messages(row, "conversations", "role", _PYGMALION):
        text = text.removesuffix("\n<START>").strip() if role == "system" else f" {text.strip()}"
        turns.append((role, text))
    return _conversation(turns, options)


def read_jokes(row: Row, options: FormatOptions) -> Conversation:
    """`title`, `text` and `explanation`, in the row or in each of its `conversations`: a joke, then why it is funny."""
    jokes = list_of(row, "conversations") if "conversations" in row else [row]
    turns = []
    for position, joke in enumerate(jokes):
        if not isinstance(joke, dict):
            raise RowError(f"conversations[{position}] = {shorten(joke)}: must be an object with `text`")
        title = f"{text_of(joke, 'title')} " if joke.get("title") else ""
        turns += [("user", "Tell me a joke."), ("assistant", title + text_of(joke, "text"))]
        turns += [("user", "Why is that joke funny?"), ("assistant", text_of(joke, "explanation"))]
    return _conversation(turns, options)


def _by_turns(row: Row, column: str, system: str) -> list[tuple[str, str]]:
    """Role and text of the messages of human and gpt by turns, behind a system text: theirs, or else this one."""
    turns = _messages(row, column, "from", _SHAREGPT)
    turns = turns if turns[0][0] == "system" else [("system", system), *turns]
    for position, (role, _) in enumerate(turns[1:]):
        expected = ("user", "assistant")[position % 2]
        if role != expected:
            raise RowError(f"`{column}` has a message of {role} where {expected} is due: must go by turns")
    if len(turns) < 3:
        raise RowError(f"`{column}` holds no question with an answer")
    return turns


def _spaced(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """With each answer stripped, and the space after it that Llama 2 puts before EOS."""
    return [(role, f"{text.strip()} " if role == "assistant" else text) for role, text in turns]


def _messages(row: Row, column: str, role_key: str, roles: dict[str, str]) -> list[tuple[str, str]]:
    """Role and text of each message."""
    found = []
    for position, message in enumerate(list_of(row, column)):
        where = f"{column}[{position}]"
        role = message.get(role_key) if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in roles:
            raise RowError(f"{where} = {shorten(message)}: must have `{role_key}`, one of {', '.join(roles)}")
        if not isinstance(message.get("value"), str):
            raise RowError(f"{where}.value = {shorten(message.get('value'))}: must be text")
        found.append((roles[role], message["value"]))
    if not found:
        raise RowError(f"`{column}` is empty: must hold at least one message; remove the row")
    return found


def _conversation(turns: Sequence[tuple[str, str]], options: FormatOptions, *, last_only: bool = False) -> Conversation:
    first_trained = len(turns) - 1 if last_only else 0
    return Conversation(
        tuple(
            Turn(role, text, options.train_on_inputs or (role == "assistant" and position >= first_trained))
            for position, (role, text) in enumerate(turns)
        ),
        "turn",
    )


DIALOGUES = {
    "airoboros_chat": Format(read_airoboros_chat, needs_template=True, template=LLAMA2_TEMPLATE),
    "llama2_chat": Format(read_llama2, needs_template=True, template=LLAMA2_TEMPLATE),
    "pygmalion": Format(read_pygmalion, needs_template=True, template=PYGMALION_TEMPLATE),
    "sharegpt_jokes": Format(read_jokes, needs_template=True),
}

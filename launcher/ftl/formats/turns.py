"""Turns out of columns, and the conversation before an answer."""

from collections.abc import Sequence

from ftl.formats.example import FormatOptions, RowError, Turn
from ftl.formats.messages import read_messages
from ftl.formats.rows import Row, names_of, text_of

Turns = tuple[Turn, ...]


def opening(row: Row, prompt: str) -> Turns:
    """The turns before the first answer: the text in `system`, unless it is empty, and the prompt."""
    return (*system_turns(row), Turn("user", prompt, False))


def system_turns(row: Row) -> Turns:
    """One turn with the text in the column `system`; none where that is absent, null or empty."""
    text = text_of(row, "system") if row.get("system") is not None else ""
    return (Turn("system", text, False),) if text else ()


def read_turns(row: Row, column: str, options: FormatOptions) -> Turns:
    """The messages in a column, where one message may stand without a list. Raises RowError."""
    if column not in row:
        raise RowError(f"no column `{column}`: the row has {names_of(row)}; it must hold messages")
    if isinstance(row[column], dict):
        row = {**row, column: [row[column]]}
    return read_messages(row, column, options)


def split_answer(turns: Turns, column: str) -> tuple[Turns, Turn]:
    """The turns before the last one, and the last one, which must be the assistant's. Raises RowError."""
    *before, answer = turns
    if answer.role != "assistant":
        raise RowError(
            f"the last message of `{column}` is of {answer.role}: must be of assistant; "
            "`roles` says which names of the data mean assistant"
        )
    return tuple(before), answer


def check_same(prompt: Sequence[Turn], other: Sequence[Turn], column: str, other_column: str) -> None:
    """Raises RowError unless both answers are to the same turns."""
    if [(turn.role, turn.content) for turn in prompt] != [(turn.role, turn.content) for turn in other]:
        raise RowError(
            f"`{column}` and `{other_column}` begin with different messages: "
            "both must hold the same conversation up to the last message"
        )


def check_alternating(turns: Sequence[Turn], column: str) -> None:
    """Raises RowError unless the turns are of user and assistant by turns, an answer at the end."""
    roles = [turn.role for turn in turns]
    if len(roles) % 2 or any(role != ("user", "assistant")[number % 2] for number, role in enumerate(roles)):
        raise RowError(
            f"`{column}` has messages of {', '.join(roles)}: must be of user and assistant by turns, an even number; "
            "a system text belongs in the column `system`"
        )


def with_columns(row: Row, turns: Turns, column: str) -> Turns:
    """The turns before an answer, where the columns `system` and `prompt` may say them too. Raises RowError.

    The prompt stands for the user's only message; of a longer conversation it is a part already.
    """
    if row.get("prompt") is not None and len(turns) < 2:
        return opening(row, text_of(row, "prompt"))
    if not turns:
        raise RowError(f"`{column}` has no message before the answer: must begin with one of the user")
    return turns if turns[0].role == "system" else (*system_turns(row), *turns)


def with_default_system(turns: Turns, options: FormatOptions) -> Turns:
    """The turns before an answer as `drop_system_message` and `default_system_message` want them. Raises RowError."""
    if options.drop_system_message and turns[0].role == "system":
        turns = turns[1:]
    if not turns:
        raise RowError("no message but the system's comes before the answer: remove the row")
    if options.default_system_message and turns[0].role != "system":
        return (Turn("system", options.default_system_message, False), *turns)
    return turns


def first_column(row: Row, names: Sequence[str]) -> str:
    """The first of these columns that the row has a value for. Raises RowError when it has none of them."""
    found = next((name for name in names if row.get(name) is not None), None)
    if found is None and len(names) > 1:
        wanted = " or ".join(f"`{name}`" for name in names)
        raise RowError(f"no value in {wanted}: the row has {names_of(row)}; rename a column, or set `type`")
    return found or names[0]

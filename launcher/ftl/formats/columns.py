"""Columns made from those of a row, for formats that need more than a text with slots."""

import re

import yaml

from ftl.formats.example import RowError
from ftl.formats.rows import Row, fill, list_of, shorten, text_of


def listed_choices(row: Row) -> Row:
    """`choices`, a list of texts, as a line for each."""
    choices = list_of(row, "choices")
    for choice in choices:
        if not isinstance(choice, str):
            raise RowError(f"`choices` holds {shorten(choice)}: must be a list of texts")
    return {**row, "choices": "\n".join(f'- "{choice}"' for choice in choices)}


def with_evaluation(row: Row) -> Row:
    """`evaluation`: the columns `scores` and `critiques` as YAML."""
    for column in ("scores", "critiques"):
        if row.get(column) is None:
            raise RowError(f"`{column}` is absent or null: must be a text or an object")
    return {**row, "evaluation": _to_yaml(row, "scores") + _to_yaml(row, "critiques")}


def with_afterthought(template: str, row: Row) -> Row:
    """`afterthought`: `template` with the answer, a reflection on it and a better answer; empty if one is missing."""
    is_whole = all(fill(f"{{{name}}}", row, required=False) for name in ("output", "reflection", "corrected"))
    return {**row, "afterthought": fill(template, row, required=True) if is_whole else ""}


def split_at_bot(row: Row) -> Row:
    """`question` and `answer` out of a `text` "<human>: ...\\n<bot>: ..."."""
    text = text_of(row, "text")
    question, mark, answer = text.partition("\n<bot>: ")
    if not mark:
        raise RowError(f"`text` = {shorten(text)}: must hold <human>: and, on a line of its own, <bot>:")
    return {**row, "question": question.replace("<human>: ", ""), "answer": answer.partition("\n<bot>: ")[0]}


def airoboros_prompt(row: Row) -> Row:
    """`prompt` and `answer` as airoboros up to 2.2.1 words them.

    An instruction that ends with PLAINFORMAT, which asks for an answer without markup, keeps the word on its line.
    """
    instruction = text_of(row, "instruction").strip()
    answer = fill("{response}", row, required=False).strip()
    if row.get("skip_prompt_formatting"):
        prompt = f"{instruction}\n"
    else:
        instruction = re.sub(r"\s+PLAINFORMAT$", " PLAINFORMAT", instruction)
        system = fill("{system}", row, required=False) or "A chat."
        prompt = f"{system.strip()}\nUSER: {instruction}\nASSISTANT: "
    return {**row, "prompt": prompt, "answer": f"{answer}\n" if answer else ""}


def _to_yaml(row: Row, column: str) -> str:
    try:
        written: str = yaml.safe_dump(row[column], default_flow_style=False)
    except yaml.YAMLError as e:  # columnar files hold what JSON does not
        raise RowError(f"`{column}` = {shorten(row[column])}: must be texts and plain numbers") from e
    return written

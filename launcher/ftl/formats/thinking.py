"""Reasoning that stands in the text of an answer, told from the answer itself."""

_REASONING = (
    ("<think>", "</think>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")


def split_reasoning(content: str) -> tuple[str, str] | None:
    """The reasoning that a text begins with, and the answer after it, both without the tags; None without tags.

    Of an answer in the tags of a solution, what follows the tags is left out.
    """
    text = content.lstrip()
    for opening, closing in _REASONING:
        if text.startswith(opening) and closing in text:
            reasoning, _, answer = text.removeprefix(opening).partition(closing)
            return reasoning.strip(), _without_solution_tags(answer.lstrip())
    return None


def _without_solution_tags(answer: str) -> str:
    opening, closing = _SOLUTION
    if answer.startswith(opening) and closing in answer:
        return answer.removeprefix(opening).partition(closing)[0].strip()
    return answer

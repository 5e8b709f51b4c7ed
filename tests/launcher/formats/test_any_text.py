"""Whatever a column holds is in what the row becomes, letter by letter, and is never run or formatted."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ftl.formats.example import Conversation, Example, FormatOptions, RowError, Steps
from ftl.formats.render import find_format
from ftl.formats.rows import pieces
from ftl.formats.sft import SFT
from ftl.formats.stepwise import PRM
from ftl.formats.table import SINGLE_TURN

TRICKY = [
    "{instruction}",
    "{0}",
    "{{x}}",
    "}{",
    "{row.__class__}",
    "%s %(a)s",
    "{% x %}",
    "{{ messages }}",
    "\\n\r\n\x00",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ANY_TEXT = st.one_of(TEXT, st.sampled_from(TRICKY), st.builds("{}{}".format, TEXT, st.sampled_from(TRICKY)))

# The columns of rows that a function looks at first.
LOOKED_AT = {
    "listed_choices": ["question", "solution"],
    "with_evaluation": ["instruction", "answer"],
    "airoboros_prompt": ["instruction", "response"],
    "split_at_bot": [],
}


NAMES = st.sampled_from(
    [
        *("instruction", "input", "output", "system", "question", "answer", "choices", "text", "segments", "label"),
        *("prompt", "completions", "labels", "input_ids", "attention_mask", "conversations", "conversation", "from"),
        *("role", "value", "scores", "critiques", "revision", "article", "response", "title", "explanation"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-101, 3) | st.sampled_from(["human", "gpt", "system", "bot"]) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def columns_of(type: str) -> list[str]:
    layout = SINGLE_TURN[type]
    looked_at = LOOKED_AT.get(getattr(layout.derive, "__name__", ""))
    if looked_at is not None:
        return looked_at
    if layout.derive is not None:
        return ["instruction", "input", "output", "reflection", "corrected"]
    templates = (layout.instruction, layout.input, layout.answers[0], layout.system)
    return [name for template in templates for _, name in pieces(template) if name is not None]


def text_of(rendered: object) -> str:
    if isinstance(rendered, Conversation):
        return "".join(turn.content for turn in rendered.turns)
    assert isinstance(rendered, Example)
    return "".join(segment.text for segment in rendered.segments)


@settings(max_examples=400, deadline=None)
@given(type=st.sampled_from(sorted(SINGLE_TURN)), texts=st.lists(ANY_TEXT, min_size=5, max_size=5))
def test_single_turn_formats_keep_every_column(type: str, texts: list[str]) -> None:
    row: dict[str, Any] = dict(zip(columns_of(type), texts, strict=False))
    more = {"choices": [texts[4]], "scores": "1", "critiques": "2", "text": f"<human>: {texts[0]}\n<bot>: {texts[1]}"}
    text = text_of(find_format(type, "sft").read({**more, **row}, FormatOptions()))
    for value in row.values():
        assert (value.strip() if type == "airoboros" else value) in text


@settings(deadline=None)
@given(instruction=ANY_TEXT, input=ANY_TEXT, system=ANY_TEXT, output=ANY_TEXT)
def test_inline_type_keeps_every_column(instruction: str, input: str, system: str, output: str) -> None:
    options = FormatOptions(inline={"format": "Q {instruction} ({input})\n", "system_format": "[{system}]"})
    row = {"instruction": instruction, "input": input, "system": system, "output": output}
    example = find_format({}, "sft").read(row, options)
    assert isinstance(example, Example)
    assert [segment.text for segment in example.segments] == [f"[{system}]Q {instruction} ({input})\n", output]


@settings(deadline=None)
@given(question=ANY_TEXT, answer=ANY_TEXT, column=st.sampled_from(["text", "segments", "completions", "conversations"]))
def test_other_formats_keep_every_text(question: str, answer: str, column: str) -> None:
    if column == "text":
        assert text_of(find_format("completion", "sft").read({column: answer}, FormatOptions())) == answer
    elif column == "segments":
        row = {column: [{"text": question, "label": False}, {"text": answer, "label": True}]}
        assert text_of(find_format("input_output", "sft").read(row, FormatOptions())) == question + answer
    elif column == "completions":
        row = {"prompt": question, column: [answer], "labels": [True]}
        steps = find_format("stepwise_supervised", "prm").read(row, FormatOptions(family="prm"))
        assert isinstance(steps, Steps) and (steps.prompt, steps.steps) == (question, (answer,))
    else:
        said = [{"role": "human", "value": question}, {"role": "bot", "value": answer}]
        text = text_of(find_format("pygmalion", "sft").read({column: said}, FormatOptions()))
        assert text == f" {question.strip()} {answer.strip()}"


@settings(max_examples=400, deadline=None)
@given(type=st.sampled_from(sorted(SFT)), row=st.dictionaries(NAMES, JSON, max_size=8))
def test_any_row_is_rendered_or_refused_in_one_sentence(type: str, row: dict[str, Any]) -> None:
    try:
        SFT[type].read(row, FormatOptions())
    except RowError as e:
        assert str(e) and "\n" not in str(e)


@settings(deadline=None)
@given(row=st.fixed_dictionaries({"prompt": JSON, "completions": JSON, "labels": JSON}))
def test_any_steps_are_read_or_refused_in_one_sentence(row: dict[str, Any]) -> None:
    try:
        PRM["stepwise_supervised"].read(row, FormatOptions(family="prm"))
    except RowError as e:
        assert str(e) and "\n" not in str(e)

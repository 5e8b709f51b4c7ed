"""Chat templates: a conversation to text, with the trained parts marked in it."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ftl.config.data import DataSection, DatasetSection
from ftl.errors import ConfigError, Problem
from ftl.formats.example import Conversation, Example, RowError, Segment, TrainOn, Turn
from ftl.formats.templates import TEMPLATES
from ftl.tokens.view import TokenizerView

MAX_EOS_DISTANCE = 3  # tokens between the end of a turn's content and the EOS that closes it, at most

_FALLBACK = "tokenizer_default_fallback_"

_Span = tuple[int, int]  # first character, and the one after the last


def chat_template_source(data: DataSection, dataset: DatasetSection | None, view: TokenizerView) -> str:
    """The text of the chat template that a dataset uses, or the whole config where `dataset` is None.

    Raises ConfigError when the name is unknown, or names a template that is not there.
    """
    chosen = (dataset and dataset.chat_template) or data.chat_template
    name = chosen or ("jinja" if data.chat_template_jinja else "tokenizer_default")
    if name == "jinja":
        if data.chat_template_jinja:
            return data.chat_template_jinja
        raise ConfigError(
            Problem("chat_template = jinja", "no chat_template_jinja", remedy="give the template's text there")
        )
    if name == "tokenizer_default" or name.startswith(_FALLBACK):
        if view.chat_template:
            return view.chat_template
        if name == "tokenizer_default":
            remedy = f"set chat_template to one of {', '.join(TEMPLATES)}, or jinja"
            raise ConfigError(
                Problem("chat_template = tokenizer_default", "the tokenizer has no chat template", remedy=remedy)
            )
        name = name.removeprefix(_FALLBACK)
    if name not in TEMPLATES:
        allowed = f"must be tokenizer_default, jinja, {_FALLBACK}NAME or one of {', '.join(TEMPLATES)}"
        raise ConfigError(Problem(f"chat_template = {name}", allowed=allowed))
    return TEMPLATES[name]


class ChatTemplate:
    """A chat template, compiled in the environment that transformers gives it."""

    def __init__(self, source: str, view: TokenizerView) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as e:
            raise ConfigError(Problem(f"chat template, line {e.lineno}", f"not valid Jinja: {e.message}")) from e
        tokens = {"bos_token": view.bos_token, "eos_token": view.eos_token, "pad_token": view.pad_token}
        self._variables = {name: token for name, token in tokens.items() if token is not None}
        self._eos = view.eos_token
        self._num_tokens = lru_cache(lambda text: len(view.tokenizer.encode(text, add_special_tokens=False).ids))

    def render(self, turns: Sequence[Turn]) -> str:
        """The whole conversation as one text. Raises RowError when the template refuses it."""
        messages = [{"role": turn.role, "content": turn.content, **turn.extra} for turn in turns]
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=False, **self._variables
            )
        except Exception as e:  # a template is a program of the user's, so any exception is its verdict on the row
            raise RowError(f"the chat template refuses the row: {e}") from e

    def example(self, conversation: Conversation) -> Example:
        """The conversation as the template prints it, its trained turns and end-of-turn tokens marked.

        An empty turn trains nothing, not even its EOS. Raises RowError when the template refuses the conversation, or
        does not print a turn that is to be trained.
        """
        turns = conversation.turns
        text = self.render(turns)
        spans = _locate(text, turns, self.render)
        trained = []
        for position, (turn, span) in enumerate(zip(turns, spans, strict=True)):
            if turn.train and span is None:
                raise RowError(
                    f"message {position} ({turn.role}) is to be trained, but the chat template does not print it: "
                    "remove it, or use another chat_template"
                )
            if turn.train and span is not None:
                trained.append(span)
        trained += self._trained_eos(text, turns, spans, conversation.train_on_eos)
        return Example(_segments(text, sorted(trained)), bos=False, num_eos=0, is_one_text=True)

    def _trained_eos(
        self, text: str, turns: Sequence[Turn], spans: Sequence[_Span | None], which: TrainOn
    ) -> list[_Span]:
        found = []
        for position, span in enumerate(spans):
            if span is None or span[0] == span[1]:
                continue
            following = next((s[0] for s in spans[position + 1 :] if s is not None), len(text))
            eos = self._find_eos(text, span[1], following)
            if eos is not None:
                found.append((eos, turns[position].train))
        if which == "none":
            return []
        if which == "last":
            return [eos for eos, _ in found[-1:]]
        return [eos for eos, is_trained in found if which == "all" or is_trained]

    def _find_eos(self, text: str, start: int, stop: int) -> _Span | None:
        position = text.find(self._eos, start, stop) if self._eos else -1
        if position == -1 or not self._eos:
            return None
        is_near = position == start or self._num_tokens(text[start:position]) <= MAX_EOS_DISTANCE
        return (position, position + len(self._eos)) if is_near else None


def _locate(text: str, turns: Sequence[Turn], render: Callable[[Sequence[Turn]], str]) -> list[_Span | None]:
    """Where each turn's content stands in the rendered text; None for one that the template does not print."""
    # Private use characters are in nobody's template, and no filter changes them or a digit.
    marks = [f"\ue000{position}\ue001" for position in range(len(turns))]
    marked = [_with_content(turn, mark) for turn, mark in zip(turns, marks, strict=True)]
    try:
        spans = _match(text, render(marked), marks, [turn.content for turn in turns])
    except RowError:
        spans = None
    if spans is not None:
        return list(spans)
    return [_differ(text, turns, position, marks[position], render) for position in range(len(turns))]


def _match(text: str, marked: str, marks: Sequence[str], contents: Sequence[str]) -> list[_Span] | None:
    """The spans, if `text` is `marked` with each mark replaced by its content, possibly stripped; else None."""
    if any(marked.count(mark) != 1 for mark in marks):
        return None
    pieces = []
    for mark in marks:
        before, _, marked = marked.partition(mark)
        pieces.append(before)
    pieces.append(marked)
    spans = []
    end = len(pieces[0])
    is_match = text.startswith(pieces[0])
    for content, following in zip(contents, pieces[1:], strict=True):
        forms = (content, content.strip(), content.lstrip(), content.rstrip())
        shown = next((form for form in forms if text.startswith(form + following, end)), None)
        if shown is None:
            return None
        spans.append((end, end + len(shown)))
        end += len(shown) + len(following)
    return spans if is_match and end == len(text) else None


def _differ(
    text: str, turns: Sequence[Turn], position: int, mark: str, render: Callable[[Sequence[Turn]], str]
) -> _Span | None:
    """Where the text changes when one turn's content is replaced: what a template made of that content."""
    replaced = [_with_content(t, mark) if i == position else t for i, t in enumerate(turns)]
    try:
        other = render(replaced)
    except RowError:
        return None
    start = _num_common(text, other)
    most = min(len(text), len(other)) - start
    end = len(text) - min(most, _num_common(text[::-1], other[::-1]))
    is_printed = mark in other and (start < end or not turns[position].content.strip())
    return (start, end) if is_printed else None


def _num_common(a: str, b: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _with_content(turn: Turn, content: str) -> Turn:
    return Turn(turn.role, content, turn.train, turn.extra)


def _segments(text: str, trained: Sequence[_Span]) -> tuple[Segment, ...]:
    """The text cut at the edges of the trained spans, which are sorted; spans that touch become one."""
    segments: list[Segment] = []
    done = 0
    for start, end in trained:
        if start > done:
            segments.append(Segment(text[done:start], False))
        if end > start and segments and segments[-1].train and start <= done:
            segments[-1] = Segment(segments[-1].text + text[done:end], True)
        elif end > start:
            segments.append(Segment(text[start:end], True))
        done = max(done, end)
    if done < len(text):
        segments.append(Segment(text[done:], False))
    return tuple(segments)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own tojson escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _GenerationBlock(Extension):
    """{% generation %}...{% endgeneration %}, which transformers' templates may have: prints its body."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)

"""Chat templates: a conversation to text, with the trained parts marked in it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache, partial
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.formats.example import Conversation, ConversationPair, Example, Preference, RowError, Segment, TrainOn, Turn
from ftl.formats.messages import THINKING
from ftl.formats.pictures import MARK, parts_of
from ftl.tokens.environment import TODAY, EndlessTemplateError, compile_template, variables_of
from ftl.tokens.locate import Place, Shown, Skeleton, Span, apart, differ, match, skeleton, with_calls
from ftl.tokens.view import TokenizerView

MAX_EOS_DISTANCE = 3  # tokens between the end of a turn's content and the EOS that closes it, at most

DATE_VARIABLE = "strftime_now"  # in chat_template_kwargs: the day, as 2026-01-31, that strftime_now() tells

_Tools = Sequence[Mapping[str, Any]]  # Any: JSON of the user's


class ChatTemplate:
    """A chat template, compiled, with the variables it is given and the tokens that end a turn in it."""

    def __init__(
        self,
        source: str,
        view: TokenizerView,
        variables: Mapping[str, Any] | None = None,  # Any: a text or a number
        eot_tokens: Sequence[str] = (),
        thinking_key: str | None = None,
        *,
        sees_pictures: bool = False,
    ) -> None:
        """`sees_pictures`: contents are given to it as lists of parts, where it prints such.

        Raises ConfigError for a template that is not valid Jinja, or a token that the tokenizer does not have."""
        self.identity = {"source": source, "variables": dict(variables or {}), "eot_tokens": list(eot_tokens)}
        """All that decides what the template prints and where turns end, the tokenizer apart."""
        variables = dict(variables or {})
        self._template = compile_template(source, _day(variables.pop(DATE_VARIABLE, None)))
        self.prints_tools = "tools" in variables_of(source)
        """The template looks at the tools that a conversation may call; others leave them out."""
        self._variables = {**view.named_tokens, **variables}
        self._eos_tokens = (view.eos_token,) if view.eos_token else ()
        self._eot_tokens = tuple(eot_tokens)
        for token in eot_tokens:
            if view.tokenizer.token_to_id(token) is None:
                allowed = "must be a token of the tokenizer"
                raise ConfigError(Problem("eot_tokens", token, allowed, "add it to `tokens`, or correct it"))
        self._thinking_key = thinking_key or THINKING
        self._tokenizer = view.tokenizer
        self._num_tokens = lru_cache(lambda text: len(view.tokenizer.encode(text, add_special_tokens=False).ids))
        self._takes_parts = sees_pictures and self._prints_parts()
        self._skeletons: dict[tuple[object, ...], Skeleton | None] = {}

    def render(self, turns: Sequence[Turn], tools: _Tools = (), *, add_generation_prompt: bool = False) -> str:
        """The whole conversation as one text. Raises RowError when the template refuses it.

        Raises EndlessTemplateError for a template that would go on and on.
        """
        messages = [{"role": turn.role, "content": self._content(turn), **turn.extra} for turn in turns]
        variables = {"documents": None, **self._variables, "tools": list(tools) or None}
        try:
            return self._template.render(variables, messages=messages, add_generation_prompt=add_generation_prompt)
        except EndlessTemplateError:
            raise
        except Exception as e:  # a template is a program of the user's, so any exception is its verdict on the row
            reason = " ".join(str(e).split()) or type(e).__name__
            raise RowError(f"the chat template refuses the row: {reason}") from e

    def example(self, conversation: Conversation) -> Example:
        """The conversation as the template prints it, its trained turns and end-of-turn tokens marked.

        An empty turn trains nothing, not even its EOS. Raises RowError when the template refuses the conversation, or
        does not print a turn that is to be trained.
        """
        turns = conversation.turns
        text = self.render(turns, conversation.tools)
        if conversation.pictures:
            self._check_pictures(text, conversation)
        places = self._locate(text, turns, conversation.tools)
        trained = []
        for position, turn in enumerate(turns):
            if turn.train:
                spans = _trained_spans(turn, places.get(position), position)
                trained += self._whole_tokens(text, spans, places[position], turn, position) if turn.parts else spans
        on_eot = conversation.train_on_eot or conversation.train_on_eos
        trained += self._ends(text, turns, places, self._eos_tokens, conversation.train_on_eos)
        trained += self._ends(text, turns, places, self._eot_tokens, on_eot)
        segments = _segments(text, sorted(trained))
        return Example(segments, bos=False, num_eos=0, is_one_text=True, pictures=conversation.pictures)

    def preference(self, pair: ConversationPair) -> Preference:
        """The prompt up to where an answer begins, and both answers. Raises RowError as `example` does."""
        prompt = self.render(pair.prompt, add_generation_prompt=True)
        begins, answers = [], []
        for turns in (pair.chosen, pair.rejected):
            text = self.render([*pair.prompt, *turns])
            begin = prompt if text.startswith(prompt) else self._before_answer(text, pair.prompt, turns)
            begins.append(begin)
            answers.append(text[len(begin) :])
        if begins[0] != begins[1]:
            raise RowError("the chat template prints another prompt for each of the answers: use another chat_template")
        return Preference(begins[0], *answers)

    def _content(self, turn: Turn) -> str | list[dict[str, str]]:
        return parts_of(turn.content) if self._takes_parts else turn.content

    def _prints_parts(self) -> bool:
        """Whether it prints the texts of a content that is a list of parts, and not the list itself."""
        messages = [{"role": "user", "content": parts_of("probe")}]
        variables = {"documents": None, **self._variables, "tools": None}
        try:
            printed = self._template.render(variables, messages=messages, add_generation_prompt=False)
        except Exception:  # a template is a program of the user's; one that takes no list may fail in any way
            return False
        return "probe" in printed and "'probe'" not in printed

    def _check_pictures(self, text: str, conversation: Conversation) -> None:
        """Raises RowError unless the template prints a place for the pictures."""
        bare = [replace(turn, content=turn.content.replace(MARK, "")) for turn in conversation.turns]
        if not self._takes_parts or self.render(bare, conversation.tools) == text:
            raise RowError(
                "the chat template prints no place for pictures: remove `chat_template`, so that the base's own is "
                "used, or give one that is made for pictures"
            )

    def _before_answer(self, text: str, prompt: Sequence[Turn], answer: Sequence[Turn]) -> str:
        place = self._locate(text, (*prompt, *answer), ()).get(len(prompt))
        if place is None:
            raise RowError("the chat template does not print the answer: use another chat_template")
        return text[: place.span[0]]

    def _whole_tokens(self, text: str, spans: Sequence[Span], place: Place, turn: Turn, position: int) -> list[Span]:
        """The spans without tokens that hold characters of the turn that are not to be trained, too."""
        ranged = [shown.span for key, shown in place.texts.items() if key in turn.parts]
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        wanted, found = _joined(spans), []
        for start, stop in wanted:
            if any(begin < start < end for begin, end in ranged):
                start = next((end for begin, end in offsets if begin < start < end), start)
            if any(begin < stop < end for begin, end in ranged):
                stop = next((begin for begin, end in offsets if begin < stop < end), stop)
            found += [(start, stop)] if start < stop else []
        if wanted and not found:
            raise RowError(f"message {position}: no token is whole in its ranges to train: make them longer")
        return found

    def _locate(self, text: str, turns: Sequence[Turn], tools: _Tools) -> dict[int, Place]:
        """The places of the turns that are printed."""
        bones = self._skeleton(turns, tools)
        places = None if bones is None else match(text, bones, turns)
        render = partial(self.render, tools=tools)
        if places is None:
            places = {}
            for position in range(len(turns)):
                place = differ(text, turns, position, self._thinking_key, render)
                places |= {} if place is None else {position: place}
            places = apart(places, turns)
        for position, turn in enumerate(turns):
            if MARK in turn.content and position not in places:
                place = differ(text, turns, position, self._thinking_key, render)
                places |= {} if place is None else {position: place}
        for position, turn in enumerate(turns):
            if "tool_calls" in turn.extra:
                place = with_calls(text, turns, position, self._thinking_key, render, places)
                places |= {} if place is None else {position: place}
        return places

    def _skeleton(self, turns: Sequence[Turn], tools: _Tools) -> Skeleton | None:
        """The marked text. Turns with nothing but texts have the same one in every conversation of their shape."""
        key = self._thinking_key
        render = partial(self.render, tools=tools)
        if tools or any(turn.extra.keys() - {key} or MARK in turn.content for turn in turns):
            return skeleton(turns, key, render)
        shape = tuple((turn.role, *_blankness(turn.content), *_blankness(turn.extra.get(key))) for turn in turns)
        if shape not in self._skeletons:
            self._skeletons[shape] = skeleton(turns, key, render)
        return self._skeletons[shape]

    def _ends(
        self, text: str, turns: Sequence[Turn], places: Mapping[int, Place], tokens: Sequence[str], which: TrainOn
    ) -> list[Span]:
        """The trained ones among the tokens that end turns."""
        if which == "none" or not tokens:
            return []
        found = []
        begins = [*(place.span[0] for place in places.values()), len(text)]
        for position, place in sorted(places.items()):
            end = place.span[1]
            span = self._find_end(text, end, min(begin for begin in begins if begin >= end), tokens)
            if span is not None and place.span[0] < end:
                found.append((span, turns[position].train))
        if which == "last":
            return [span for span, _ in found[-1:]]
        return [span for span, is_trained in found if which == "all" or is_trained]

    def _find_end(self, text: str, start: int, stop: int, tokens: Sequence[str]) -> Span | None:
        """The first of the tokens from start on, at most MAX_EOS_DISTANCE tokens away."""
        begins = [(text.find(token, start, stop), token) for token in tokens]
        begin, token = min((pair for pair in begins if pair[0] != -1), default=(-1, ""))
        if begin == -1 or (begin > start and self._num_tokens(text[start:begin]) > MAX_EOS_DISTANCE):
            return None
        return begin, begin + len(token)


def _day(given: Any) -> date:
    try:
        return TODAY if given is None else date.fromisoformat(given)
    except (TypeError, ValueError) as e:
        allowed = "must be a day such as 2026-01-31"
        raise ConfigError(Problem(f"chat_template_kwargs.{DATE_VARIABLE}", repr(given), allowed)) from e


def _blankness(text: Any) -> tuple[bool, str]:
    """Whether a text is marked, and the text itself where it is not."""
    is_marked = isinstance(text, str) and bool(text.strip())
    return is_marked, "" if is_marked else str(text)


def _trained_spans(turn: Turn, place: Place | None, position: int) -> list[Span]:
    """What is trained of a turn that is trained. Raises RowError when that is not printed."""
    if place is None:
        if not turn.content.strip() and "tool_calls" not in turn.extra:
            return []
        raise RowError(
            f"message {position} ({turn.role}) is to be trained, but the chat template does not print it: "
            "remove it, or use another chat_template"
        )
    if not turn.parts:
        return [place.span]
    spans = []
    done = place.span[0]
    for key, shown in sorted(place.texts.items(), key=lambda item: item[1].span):
        spans += [] if key in turn.parts else [shown.span]
        done = shown.span[1]
        for part in turn.parts.get(key, ()):
            spans += _shown_part(shown, part, position)
    return [*spans, (done, place.span[1])]  # the last one: calls of tools


def _joined(spans: Sequence[Span]) -> list[Span]:
    """The spans that are not empty, those that touch as one."""
    joined: list[Span] = []
    for start, stop in (span for span in spans if span[0] < span[1]):
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return joined


def _shown_part(shown: Shown, part: Span, position: int) -> list[Span]:
    """Where some characters of a text are printed; nothing where they are stripped."""
    if shown.num_stripped is None:
        raise RowError(
            f"message {position}: the chat template rewrites the text, so its ranges to train have no place in it: "
            "remove them, or use another chat_template"
        )
    start, stop = (min(max(shown.span[0] + at - shown.num_stripped, shown.span[0]), shown.span[1]) for at in part)
    return [(start, stop)] if start < stop else []


def _segments(text: str, trained: Sequence[Span]) -> tuple[Segment, ...]:
    """The text cut at the edges of the trained spans, which are sorted; spans that touch become one."""
    segments: list[Segment] = []
    done = 0
    for start, end in trained:
        if start > done:
            segments.append(Segment(text[done:start], False))
        if end > done and segments and segments[-1].train and start <= done:
            segments[-1] = Segment(segments[-1].text + text[done:end], True)
        elif end > max(start, done):
            segments.append(Segment(text[max(start, done) : end], True))
        done = max(done, end, start)
    if done < len(text):
        segments.append(Segment(text[done:], False))
    return tuple(segments)

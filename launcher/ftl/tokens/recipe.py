"""The recipe of a dataset: how its rows become samples."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ftl.config.data import DataSection, DatasetSection, InlineType
from ftl.config.objective import ObjectiveKind
from ftl.errors import ConfigError
from ftl.formats.example import (
    FAMILIES,
    Conversation,
    ConversationPair,
    Example,
    FormatOptions,
    Opening,
    Pair,
    Preference,
    Rendered,
    RowError,
    Sample,
    Segment,
    TaughtConversation,
    TokenRow,
)
from ftl.formats.format import Format
from ftl.formats.pictures import read_pictured, with_pictures
from ftl.formats.render import find_format
from ftl.tokens.chat import ChatTemplate
from ftl.tokens.choice import chat_template_source, configured_template
from ftl.tokens.encode import encode
from ftl.tokens.environment import compile_template
from ftl.tokens.teacher import taught_row
from ftl.tokens.view import TokenizerView


@dataclass(frozen=True)
class Recipe:
    """A format with its options, and the chat template where the format needs one."""

    type: str | Mapping[str, Any] | None  # Any: texts, or null
    format: Format
    options: FormatOptions
    template: ChatTemplate | None
    view: TokenizerView | None

    @classmethod
    def of(
        cls, dataset: DatasetSection, data: DataSection, kind: ObjectiveKind, view: TokenizerView | None
    ) -> "Recipe":
        """The recipe of one dataset of a config. Raises ConfigError for an unknown type or chat template.

        Without a tokenizer, `sample` works for the formats that need no template, and of a chat template nothing is
        known but what the config says.
        """
        family = FAMILIES[kind]
        keys = dataset.model_dump()
        type = keys["type"] if isinstance(dataset.type, InlineType) else dataset.type
        options = FormatOptions.read(
            keys,
            family=family,
            train_on_inputs=data.train_on_inputs,
            default_system_message=data.default_system_message,
        )
        format = find_format(type, family)
        if data.processor is not None:
            format = with_pictures(format)
        if format.check is not None:
            format.check(options)
        template = None
        if view is None:
            _check_template(format, data, dataset)
        elif (source := _template_source(format, data, dataset, view)) is not None:
            template = ChatTemplate(
                source,
                view,
                variables=data.chat_template_kwargs,
                eot_tokens=data.eot_tokens,
                thinking_key=dataset.template_thinking_key,
                sees_pictures=data.processor is not None,
            )
        return cls(type, format, options, template, view)

    def read(self, row: Mapping[str, Any]) -> Rendered:
        """The row before a chat template sees it. Raises RowError when it cannot be used."""
        try:
            return self.format.read(row, self.options)
        except RecursionError as e:
            raise RowError("is nested too deeply") from e

    def sample(self, row: Mapping[str, Any]) -> Sample:
        """What a row becomes. Raises RowError when it cannot be used."""
        rendered = self.read(row)
        if isinstance(rendered, TokenRow) and self.view is not None:
            _check_ids(rendered, self.view)
        if isinstance(rendered, Conversation):
            return self._written(rendered)
        if isinstance(rendered, Opening):
            text = self._template().render(rendered.turns, add_generation_prompt=True)
            return Example((Segment(text, False),), bos=False, num_eos=0, is_one_text=True)
        if isinstance(rendered, TaughtConversation):
            assert self.view is not None, "without a tokenizer rows are only read"
            taught = taught_row(encode([self._written(rendered.conversation)], self.view)[0], rendered.targets)
            _check_targets(taught, self.view)
            return taught
        if isinstance(rendered, ConversationPair):
            return self._of_pair(rendered)
        return rendered

    def _written(self, conversation: Conversation) -> Example:
        return self._template().example(conversation)

    def _template(self) -> ChatTemplate:
        if self.template is None:
            raise RowError(
                "messages need a chat template, and the tokenizer has none: set chat_template to the name of one"
            )
        return self.template

    def _of_pair(self, pair: ConversationPair) -> Preference | Pair:
        assert self.template is not None, "a format with conversations says that it needs a template"
        texts = self.template.preference(pair)
        if self.options.family == "reward":
            return Pair(_whole(texts.prompt + texts.chosen), _whole(texts.prompt + texts.rejected))
        if self.options.family == "dpo":  # an answer ends with its turn, not with what stands between two turns
            return Preference(texts.prompt, texts.chosen.rstrip(), texts.rejected.rstrip())
        return texts

    @property
    def identity(self) -> dict[str, Any]:  # Any: JSON
        """All that decides what a row becomes, the tokenizer and our own code apart."""
        template = None if self.template is None else self.template.identity
        program = self.format.program_sha256
        found = {"type": self.type, "options": asdict(self.options), "template": template, "program": program}
        return {**found, "pictures": True} if self.format.read is read_pictured else found


def _template_source(format: Format, data: DataSection, dataset: DatasetSection, view: TokenizerView) -> str | None:
    if format.needs_template is False or format.template is not None:
        return format.template
    try:
        return chat_template_source(data, dataset, view)
    except ConfigError:
        if format.needs_template:
            raise
        return None  # a function that gives segments needs none


def _check_template(format: Format, data: DataSection, dataset: DatasetSection) -> None:
    """Raises ConfigError for a chat template that the config names and that is none, or is not valid Jinja."""
    if format.needs_template and format.template is None:
        source = configured_template(data, dataset)
        if source is not None:
            compile_template(source)


def _check_ids(row: TokenRow, view: TokenizerView) -> None:
    """Raises RowError for an id that no token has: the embeddings have no place for it."""
    id = max(row.ids, default=0)
    if id > view.last_id:
        raise RowError(
            f"`input_ids` holds {id}, and the last token of the tokenizer is {view.last_id}; "
            "set tokenizer_config to the tokenizer that made the rows"
        )


def _check_targets(row: TokenRow, view: TokenizerView) -> None:
    """Raises RowError for a token of the teacher that the tokenizer does not have."""
    id = max(max(target.ids) for target in row.targets if target is not None)
    if id > view.last_id:
        raise RowError(
            f"the teacher expects token {id}, and the last one of the tokenizer is {view.last_id}: "
            "teacher and model must have one tokenizer"
        )


def _whole(text: str) -> Example:
    """A text of which no token is a label: a reward model scores it."""
    return Example((Segment(text, False),), bos=False, num_eos=0, is_one_text=True)

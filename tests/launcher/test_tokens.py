"""Ids and labels, written here as the pieces of text they stand for; `train` is the second of each pair."""

import json
from itertools import groupby
from pathlib import Path
from typing import Literal

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from ftl.config.data import DataSection, DatasetSection
from ftl.config.model import SpecialTokens
from ftl.errors import ConfigError
from ftl.formats.example import Conversation, Example, RowError, Segment, TrainOn, Turn
from ftl.formats.templates import TEMPLATES
from ftl.tokens import MASKED, ChatTemplate, TokenizerView, Tokens, chat_template_source, encode

SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|eot_id|>"]


def save_byte_tokenizer(directory: Path, *, adds_bos: bool = True, **config: object) -> Path:
    """A tokenizer whose tokens are bytes and SPECIAL."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: id for id, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture
def view(tmp_path: Path) -> TokenizerView:
    return TokenizerView.load(save_byte_tokenizer(tmp_path))


def pieces(view: TokenizerView, tokens: Tokens) -> list[tuple[str, bool]]:
    assert all(label in (id, MASKED) for id, label in zip(tokens.ids, tokens.labels, strict=True))
    pairs = zip(tokens.ids, (label != MASKED for label in tokens.labels), strict=True)
    groups = [(train, [id for id, _ in group]) for train, group in groupby(pairs, key=lambda pair: pair[1])]
    return [(view.tokenizer.decode(ids, skip_special_tokens=False), train) for train, ids in groups]


def encoded(view: TokenizerView, *segments: tuple[str, bool]) -> list[tuple[str, bool]]:
    (tokens,) = encode([Example(tuple(Segment(text, train) for text, train in segments))], view)
    return pieces(view, tokens)


def chat(view: TokenizerView, template: str, *turns: Turn, train_on_eos: TrainOn = "turn") -> list[tuple[str, bool]]:
    example = ChatTemplate(template, view).example(Conversation(turns, train_on_eos))
    (tokens,) = encode([example], view)
    return pieces(view, tokens)


def user(content: str) -> Turn:
    return Turn("user", content, False)


def assistant(content: str) -> Turn:
    return Turn("assistant", content, True)


def test_bos_goes_before_the_prompt_and_eos_after_the_answer(view: TokenizerView) -> None:
    assert encoded(view, ("q é", False), ("ä ☕", True)) == [("<s>q é", False), ("ä ☕</s>", True)]


def test_trained_prompt_trains_its_bos(view: TokenizerView) -> None:
    assert encoded(view, ("q", True), ("a", True)) == [("<s>qa</s>", True)]


def test_answer_that_ends_with_eos_gets_no_second_one(view: TokenizerView) -> None:
    assert encoded(view, ("q", False), ("a</s>", True)) == [("<s>q", False), ("a</s>", True)]


def test_empty_answer_gets_no_eos(view: TokenizerView) -> None:
    assert encoded(view, ("q", False), ("", True)) == [("<s>q", False)]


def test_example_may_ask_for_several_eos(view: TokenizerView) -> None:
    example = Example((Segment("q", False), Segment("a</s>", True)), num_eos=3)
    (tokens,) = encode([example], view)
    assert pieces(view, tokens) == [("<s>q", False), ("a</s></s></s>", True)]


@pytest.mark.parametrize(
    ("empty_ends", "adds_bos", "is_trained"),
    [("no", True, False), ("yes", False, True), ("if_bos", True, True), ("if_bos", False, False)],
)
def test_empty_answer_may_train_eos_alone(
    tmp_path: Path, empty_ends: Literal["no", "yes", "if_bos"], adds_bos: bool, is_trained: bool
) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path, adds_bos=adds_bos))
    example = Example((Segment("q", False), Segment("", True)), empty_ends=empty_ends)
    (tokens,) = encode([example], view)
    prompt = ("<s>q" if adds_bos else "q", False)
    assert pieces(view, tokens) == ([prompt, ("</s>", True)] if is_trained else [prompt])


def test_bos_in_the_text_is_text(view: TokenizerView) -> None:
    assert encoded(view, ("<s>text", True)) == [("<s><s>text</s>", True)]


def test_example_without_text_has_no_tokens(view: TokenizerView) -> None:
    assert encoded(view, ("", True)) == []


def test_tokenizer_that_adds_no_bos_gets_none(tmp_path: Path) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path, adds_bos=False))
    assert encoded(view, ("q", False), ("a", True)) == [("q", False), ("a</s>", True)]


@pytest.mark.parametrize("adds_bos", [False, True])
def test_add_bos_token_of_the_config_decides_over_the_post_processor(tmp_path: Path, adds_bos: bool) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path, adds_bos=not adds_bos, add_bos_token=adds_bos))
    assert encoded(view, ("a", True)) == [("<s>a</s>" if adds_bos else "a</s>", True)]


def test_examples_of_both_kinds_keep_their_order_in_a_batch(view: TokenizerView) -> None:
    joined = Example((Segment("x", False), Segment("y", True)), bos=False, num_eos=0, is_one_text=True)
    apart = Example((Segment("q", False), Segment("a", True)))
    given = [pieces(view, tokens) for tokens in encode([apart, joined, apart], view)]
    alone = [("<s>q", False), ("a</s>", True)]
    assert given == [alone, [("x", False), ("y", True)], alone]


def test_chatml_trains_each_answer_and_its_end(tmp_path: Path) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path), SpecialTokens(eos_token="<|im_end|>"))
    assert chat(view, TEMPLATES["chatml"], user("u1"), assistant("é 1"), user("u2"), assistant(" a2\n")) == [
        ("<|im_start|>user\nu1<|im_end|>\n<|im_start|>assistant\n", False),
        ("é 1<|im_end|>", True),
        ("\n<|im_start|>user\nu2<|im_end|>\n<|im_start|>assistant\n", False),
        (" a2\n<|im_end|>", True),
        ("\n", False),
    ]


def test_llama3_trains_the_trimmed_text(tmp_path: Path) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path), SpecialTokens(eos_token="<|eot_id|>"))
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert chat(view, TEMPLATES["llama3"], user(" u "), assistant("\n a \n")) == [
        (f"<s>{header.format('user')}u<|eot_id|>{header.format('assistant')}", False),
        ("a<|eot_id|>", True),
    ]


def test_mistral_puts_the_system_text_into_the_last_user_turn(view: TokenizerView) -> None:
    turns = [Turn("system", "sys", False), user("u1"), assistant("a1"), user("u2"), assistant("a2")]
    assert chat(view, TEMPLATES["mistral_v2v3"], *turns) == [
        ("<s>[INST] u1[/INST] ", False),
        ("a1</s>", True),
        ("[INST] sys\n\nu2[/INST] ", False),
        ("a2</s>", True),
    ]


def test_gemma_trains_the_answer_alone_while_its_end_is_not_eos(view: TokenizerView) -> None:
    assert chat(view, TEMPLATES["gemma"], user("u"), assistant("a")) == [
        ("<s><start_of_turn>user\nu<end_of_turn>\n<start_of_turn>model\n", False),
        ("a", True),
        ("<end_of_turn>\n", False),
    ]


def test_alpaca_chat_template(view: TokenizerView) -> None:
    assert chat(view, TEMPLATES["alpaca"], Turn("system", "sys", False), user("u"), assistant("a")) == [
        ("<s>sys\n\n### Instruction:\nu\n\n### Response:\n", False),
        ("a</s>", True),
    ]


CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.mark.parametrize(
    ("train_on_eos", "expected"),
    [
        ("turn", [("[user]u1</s>[assistant]", False), ("a</s>", True), ("[user]u2</s>", False)]),
        ("none", [("[user]u1</s>[assistant]", False), ("a", True), ("</s>[user]u2</s>", False)]),
        ("last", [("[user]u1</s>[assistant]", False), ("a", True), ("</s>[user]u2", False), ("</s>", True)]),
        (
            "all",
            [
                ("[user]u1", False),
                ("</s>", True),
                ("[assistant]", False),
                ("a</s>", True),
                ("[user]u2", False),
                ("</s>", True),
            ],
        ),
    ],
)
def test_train_on_eos(view: TokenizerView, train_on_eos: TrainOn, expected: list[tuple[str, bool]]) -> None:
    assert chat(view, CHAT, user("u1"), assistant("a"), user("u2"), train_on_eos=train_on_eos) == expected


@pytest.mark.parametrize(("gap", "is_trained"), [("abc", True), ("abcd", False)])
def test_eos_counts_up_to_three_tokens_after_the_content(view: TokenizerView, gap: str, is_trained: bool) -> None:
    template = "{% for m in messages %}{{ m.content }}" + gap + "{{ eos_token }}{% endfor %}"
    expected = [("x", True), (gap, False), ("</s>", True)] if is_trained else [("x", True), (f"{gap}</s>", False)]
    assert chat(view, template, assistant("x")) == expected


def test_empty_turn_trains_nothing(view: TokenizerView) -> None:
    assert chat(view, CHAT, user("u"), assistant("")) == [("[user]u</s>[assistant]</s>", False)]


def test_equal_contents_are_told_apart(view: TokenizerView) -> None:
    assert chat(view, CHAT, user("ok"), assistant("ok"), user("ok"), assistant("ok")) == [
        ("[user]ok</s>[assistant]", False),
        ("ok</s>", True),
        ("[user]ok</s>[assistant]", False),
        ("ok</s>", True),
    ]


def test_content_that_a_template_rewrites_is_trained_as_printed(view: TokenizerView) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content.split('|')[-1] | upper }}{{ eos_token }}{% endfor %}"
    assert chat(view, template, user("q|u"), assistant("think|a")) == [
        ("[user]U</s>[assistant]", False),
        ("A</s>", True),
    ]


def test_trained_turn_that_is_not_printed_is_an_error(view: TokenizerView) -> None:
    template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(RowError, match=r"message 1 \(assistant\) is to be trained, but the chat template does not"):
        ChatTemplate(template, view).example(Conversation((user("u"), assistant("a")), "turn"))


def test_row_that_the_template_refuses_is_an_error_with_its_words(view: TokenizerView) -> None:
    with pytest.raises(RowError, match="the chat template refuses the row: System role not supported"):
        ChatTemplate(TEMPLATES["gemma"], view).example(Conversation((Turn("system", "s", False),), "turn"))


def test_template_cannot_reach_out_of_its_sandbox(view: TokenizerView) -> None:
    with pytest.raises(RowError, match="unsafe"):
        ChatTemplate("{{ messages.__class__.__mro__ }}", view).render((user("u"),))


def test_template_has_what_transformers_gives_it(view: TokenizerView) -> None:
    template = """\
{% for m in messages %}
    {% if loop.index0 == 1 %}
        {% break %}
    {% endif %}
    {% generation %}
{{ m.extra | tojson }} {{ strftime_now('%Y') | length }} {{ bos_token }}
    {% endgeneration %}
{% endfor %}
"""
    turns = (Turn("user", "u", False, {"extra": {"é": "<"}}), user("never"))
    assert ChatTemplate(template, view).render(turns) == '{"é": "<"} 4 <s>\n'


def test_broken_template_is_named_by_its_line(view: TokenizerView) -> None:
    with pytest.raises(ConfigError, match="chat template, line 2: not valid Jinja"):
        ChatTemplate("{{ 1 }}\n{% if %}", view)


def save_prefix_space_tokenizer(directory: Path) -> Path:
    """A SentencePiece-like tokenizer: a space belongs to the word after it."""
    vocab = {piece: id for id, piece in enumerate(["<unk>", "▁", "▁hi", "hi", "[I]", "▁yo", "</s>"])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens(["[I]", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    return directory


def test_word_that_takes_the_space_of_the_template_is_trained(tmp_path: Path) -> None:
    view = TokenizerView.load(save_prefix_space_tokenizer(tmp_path))
    template = "{% for m in messages %}[I] {{ m.content }}{% endfor %}</s>"
    (tokens,) = encode([ChatTemplate(template, view).example(Conversation((assistant("hi yo"),), "turn"))], view)
    assert [view.tokenizer.id_to_token(id) for id in tokens.ids] == ["[I]", "▁hi", "▁yo", "</s>"]
    assert [label == MASKED for label in tokens.labels] == [True, False, False, False]


def data(**keys: object) -> DataSection:
    return DataSection.model_validate({"datasets": [{"path": "a", "type": "chat_template"}], **keys})


def test_chat_template_of_the_dataset_wins(view: TokenizerView) -> None:
    dataset = DatasetSection(path="a", type="chat_template", chat_template="llama3")
    assert chat_template_source(data(chat_template="chatml"), dataset, view) == TEMPLATES["llama3"]


def test_jinja_text_alone_implies_jinja(view: TokenizerView) -> None:
    assert chat_template_source(data(chat_template_jinja="{{ x }}"), None, view) == "{{ x }}"


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"chat_template": "own"}, "own"),
        ({"chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "own"}]}, "own"),
        ({}, TEMPLATES["chatml"]),
    ],
    ids=["text", "list", "absent"],
)
def test_tokenizer_default_with_a_fallback(tmp_path: Path, saved: dict[str, object], expected: str) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path, **saved))
    assert chat_template_source(data(chat_template="tokenizer_default_fallback_chatml"), None, view) == expected


def test_template_file_wins_over_the_tokenizers_config(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path, chat_template="old")
    (tmp_path / "chat_template.jinja").write_text("file")
    assert TokenizerView.load(tmp_path).chat_template == "file"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "chat_template = tokenizer_default: the tokenizer has no chat template; set chat_template to one of"),
        ({"chat_template": "inst"}, "chat_template = inst: must be tokenizer_default, jinja,"),
        ({"chat_template": "jinja"}, "chat_template = jinja: no chat_template_jinja"),
    ],
)
def test_template_that_is_not_there_is_refused(view: TokenizerView, keys: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chat_template_source(data(**keys), None, view)
    assert said in str(caught.value)


def test_special_tokens_of_the_config_are_added(tmp_path: Path) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path), SpecialTokens(eos_token="<end>"), ("<extra>",))
    assert encoded(view, ("<extra>", True)) == [("<s><extra><end>", True)]
    assert len(view.tokenizer.encode("<extra><end>", add_special_tokens=False).ids) == 2


def test_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path, eos_token=None))
    with pytest.raises(ConfigError, match="eos_token"):
        encode([Example((Segment("a", True),))], view)


def test_directory_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.json: no such file"):
        TokenizerView.load(tmp_path)


def test_fingerprint_changes_with_the_tokens_only(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    plain = TokenizerView.load(tmp_path).fingerprint
    assert TokenizerView.load(tmp_path).fingerprint == plain
    assert TokenizerView.load(tmp_path, tokens=("<x>",)).fingerprint != plain
    assert TokenizerView.load(tmp_path, SpecialTokens(eos_token="<|im_end|>")).fingerprint != plain

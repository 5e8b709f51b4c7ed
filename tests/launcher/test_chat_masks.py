"""What of a chat is trained, as the pieces of text that the tokens stand for; `train` is the second of each pair."""

import json
from pathlib import Path

import pytest
from byte_tokenizer import pieces, save_byte_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from ftl.config.model import SpecialTokens
from ftl.errors import ConfigError
from ftl.formats.example import Conversation, ConversationPair, Preference, RowError, TrainOn, Turn
from ftl.formats.templates import TEMPLATES
from ftl.tokens import MASKED, ChatTemplate, TokenizerView, encode


@pytest.fixture
def view(tmp_path: Path) -> TokenizerView:
    return TokenizerView.load(save_byte_tokenizer(tmp_path))


def chat(view: TokenizerView, template: str, *turns: Turn, train_on_eos: TrainOn = "turn") -> list[tuple[str, bool]]:
    example = ChatTemplate(template, view).example(Conversation(turns, train_on_eos))
    (tokens,) = encode([example], view)
    return pieces(view, tokens)


def user(content: str) -> Turn:
    return Turn("user", content, False)


def assistant(content: str) -> Turn:
    return Turn("assistant", content, True)


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
    with pytest.raises(ConfigError, match="chat_template: line 2 of the template: is not valid Jinja"):
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


@pytest.mark.parametrize(
    ("ranges", "trained"),
    [
        (((0, 5),), ["▁hi", "▁yo"]),
        (((0, 2),), ["▁hi"]),
        (((0, 4),), ["▁hi"]),
        (((1, 5),), ["▁yo"]),
        (((0, 4), (4, 5)), ["▁hi", "▁yo"]),
    ],
    ids=["all", "a word", "a part of the last", "a part of the first", "ranges that touch"],
)
def test_word_is_trained_where_all_of_it_is_in_a_range(
    tmp_path: Path, ranges: tuple[tuple[int, int], ...], trained: list[str]
) -> None:
    view = TokenizerView.load(save_prefix_space_tokenizer(tmp_path))
    turn = Turn("assistant", "hi yo", True, parts={"content": ranges})
    template = ChatTemplate("{% for m in messages %}[I] {{ m.content }}{% endfor %}</s>", view)
    (tokens,) = encode([template.example(Conversation((turn,), "none"))], view)
    assert [view.tokenizer.id_to_token(label) for label in tokens.labels if label != MASKED] == trained


def test_range_without_a_whole_word_is_an_error(tmp_path: Path) -> None:
    view = TokenizerView.load(save_prefix_space_tokenizer(tmp_path))
    turn = Turn("assistant", "hi yo", True, parts={"content": ((0, 1),)})
    with pytest.raises(RowError, match="message 0: no token is whole in its ranges to train: make them longer"):
        ChatTemplate("[I] {{ messages[0].content }}</s>", view).example(Conversation((turn,), "none"))


def by_template(tmp_path: Path, name: str, *turns: Turn) -> list[tuple[str, bool]]:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path), SpecialTokens(eos_token="<|im_end|>"))
    example = ChatTemplate(TEMPLATES[name], view).example(Conversation(turns, "turn"))
    (tokens,) = encode([example], view)
    return pieces(view, tokens)


def test_reasoning_that_the_template_drops_from_an_earlier_answer_is_not_trained(tmp_path: Path) -> None:
    first = Turn("assistant", "a1", True, {"reasoning_content": "r1"})
    last = Turn("assistant", "a2", True, {"reasoning_content": "r2"})
    assert by_template(tmp_path, "qwen3", user("u1"), first, user("u2"), last) == [
        ("<|im_start|>user\nu1<|im_end|>\n<|im_start|>assistant\n", False),
        ("a1<|im_end|>", True),
        ("\n<|im_start|>user\nu2<|im_end|>\n<|im_start|>assistant\n<think>\n", False),
        ("r2\n</think>\n\na2<|im_end|>", True),
        ("\n", False),
    ]


def test_reasoning_that_the_template_finds_in_the_text_is_trained(tmp_path: Path) -> None:
    assert by_template(tmp_path, "qwen3", user("u"), assistant("<think>r</think>a")) == [
        ("<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n<think>\n", False),
        ("r\n</think>\n\na<|im_end|>", True),
        ("\n", False),
    ]


def test_question_that_decides_about_reasoning_moves_no_mask(tmp_path: Path) -> None:
    response = "<tool_response>x</tool_response>"
    assert by_template(tmp_path, "qwen3", user(response), assistant("a")) == [
        (f"<|im_start|>user\n{response}<|im_end|>\n<|im_start|>assistant\n", False),
        ("a<|im_end|>", True),
        ("\n", False),
    ]


WEATHER = {"type": "function", "id": "123456789", "function": {"name": "weather", "arguments": {"city": "Z"}}}


def test_calls_of_tools_are_trained_with_the_text_before_them(tmp_path: Path) -> None:
    turns = (user("u"), Turn("assistant", "Look.", True, {"tool_calls": [WEATHER]}), Turn("tool", "3", False))
    assert by_template(tmp_path, "qwen3", *turns, assistant("3 C")) == [
        ("<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n", False),
        ('Look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Z"}}\n</tool_call><|im_end|>', True),
        (
            "\n<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
            False,
        ),
        ("3 C<|im_end|>", True),
        ("\n", False),
    ]


def test_calls_are_found_where_the_template_refuses_the_chat_without_them(view: TokenizerView) -> None:
    call = Turn("assistant", "", True, {"tool_calls": [WEATHER]})
    turns = (user("u"), call, Turn("tool", "3", False, {"tool_call_id": "123456789"}), assistant("3 C"))
    assert chat(view, TEMPLATES["mistral_v3_tekken"], *turns) == [
        ("<s>[INST]u[/INST]", False),
        ('[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Z"}, "id": "123456789"}]</s>', True),
        ('[TOOL_RESULTS]{"content": 3, "call_id": "123456789"}[/TOOL_RESULTS]', False),
        ("3 C</s>", True),
    ]


def test_calls_that_are_not_printed_are_an_error(view: TokenizerView) -> None:
    turns = (user("u"), Turn("assistant", "", True, {"tool_calls": [WEATHER]}))
    with pytest.raises(RowError, match=r"message 1 \(assistant\) is to be trained, but the chat template does not"):
        ChatTemplate(CHAT, view).example(Conversation(turns, "turn"))


def test_ranges_count_in_the_text_before_it_is_stripped(view: TokenizerView) -> None:
    template = "{% for m in messages %}[{{ m.content | trim }}]{{ eos_token }}{% endfor %}"
    turn = Turn("assistant", "  abcdef ", True, parts={"content": ((0, 4), (6, 7))})
    assert chat(view, template, turn) == [
        ("[", False),
        ("ab", True),
        ("cd", False),
        ("e", True),
        ("f]", False),
        ("</s>", True),
    ]


def test_ranges_of_a_text_that_the_template_rewrites_are_an_error(view: TokenizerView) -> None:
    template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(RowError, match="message 0: the chat template rewrites the text"):
        ChatTemplate(template, view).example(
            Conversation((Turn("assistant", "abc", True, parts={"content": ((0, 1),)}),), "turn")
        )


def test_trained_turns_that_the_template_mixes_are_an_error(view: TokenizerView) -> None:
    template = "{{ messages[0].content }}{{ messages[1].content }}{{ messages[0].content }}"
    with pytest.raises(RowError, match="messages 0 and 1 are to be trained, but the chat template mixes them"):
        ChatTemplate(template, view).example(Conversation((assistant("a"), assistant("b")), "turn"))


@pytest.mark.parametrize(
    ("on_eot", "expected"),
    [
        (None, [("[user]u<|eot_id|></s>[assistant]", False), ("a<|eot_id|></s>", True)]),
        ("none", [("[user]u<|eot_id|></s>[assistant]", False), ("a", True), ("<|eot_id|>", False), ("</s>", True)]),
    ],
)
def test_eot_tokens_are_trained_as_eos_unless_said_otherwise(
    view: TokenizerView, on_eot: TrainOn | None, expected: list[tuple[str, bool]]
) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|eot_id|>{{ eos_token }}{% endfor %}"
    chat_template = ChatTemplate(template, view, eot_tokens=("<|eot_id|>",))
    example = chat_template.example(Conversation((user("u"), assistant("a")), "turn", on_eot))
    (tokens,) = encode([example], view)
    assert pieces(view, tokens) == expected


def test_eot_token_that_the_tokenizer_lacks_is_refused(view: TokenizerView) -> None:
    with pytest.raises(ConfigError, match="eot_tokens: <end>: must be a token"):
        ChatTemplate(CHAT, view, eot_tokens=("<end>",))


@pytest.mark.parametrize("content", ["\ue0001\ue0010\ue002", "{{ bos_token }}{% for %}", "[assistant]ok</s>", "\x00"])
def test_text_that_looks_like_marks_or_templates_is_text(view: TokenizerView, content: str) -> None:
    assert chat(view, CHAT, user(content), assistant(content)) == [
        (f"[user]{content}</s>[assistant]", False),
        (f"{content}</s>", True),
    ]


def test_variables_of_the_config_reach_the_template(view: TokenizerView) -> None:
    assert ChatTemplate("{{ a }}{{ tools }}", view, {"a": 1, "tools": 2}).render((user("u"),)) == "1None"


def test_today_is_the_same_day_every_day_unless_the_config_says_another(view: TokenizerView) -> None:
    template = "{{ strftime_now('%Y-%m-%d') }}"
    assert ChatTemplate(template, view).render((user("u"),)) == "2024-07-26"
    assert ChatTemplate(template, view, {"strftime_now": "2026-01-31"}).render((user("u"),)) == "2026-01-31"
    with pytest.raises(ConfigError, match="must be a day such as 2026-01-31"):
        ChatTemplate(template, view, {"strftime_now": "today"})


def test_preference_is_cut_where_the_answers_begin(view: TokenizerView) -> None:
    pair = ConversationPair((user("q"),), (assistant("good"),), (assistant("bad"),))
    assert ChatTemplate(TEMPLATES["zephyr"], view).preference(pair) == Preference(
        prompt="<|user|>\nq</s>\n<|assistant|>\n", chosen="good</s>\n", rejected="bad</s>\n"
    )


def test_preference_is_cut_at_the_answer_where_the_prompt_is_printed_otherwise_before_it(view: TokenizerView) -> None:
    template = "{% for m in messages %}{{ m.content }}{% if loop.last %}.{% else %}, {% endif %}{% endfor %}"
    pair = ConversationPair((user("q"),), (assistant("good"),), (assistant("bad"),))
    assert ChatTemplate(template, view).preference(pair) == Preference("q, ", "good.", "bad.")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "rounds over one row"),
        ("{% for i in range(99999)|map('int') %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "rounds"),
        ("{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "characters for one row"),
        ("{{ 'x' * 999999999999 }}", "makes a text of more"),
        ("{{ 9 ** (9 ** 99) }}", "takes for ever"),
    ],
    ids=["loops", "generator", "output", "product", "power"],
)
def test_template_that_would_never_end_is_refused(view: TokenizerView, template: str, said: str) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=said) as caught:
            ChatTemplate(template, view).render((user("u"),))
        assert not isinstance(caught.value, RowError)  # no other row would end either


def test_rounds_are_counted_for_each_row_by_itself(view: TokenizerView) -> None:
    rendered = ChatTemplate("{% for i in range(99999) %}{% endfor %}{{ 2 ** 10 * 3 }}{{ 'a' * 3 }}", view)
    assert [rendered.render((user("u"),)) for _ in range(12)] == ["3072aaa"] * 12

"""Whatever the texts are: the chat's tokens are those of its text, and what is trained is where the text says."""

from pathlib import Path

import pytest
from byte_tokenizer import save_byte_tokenizer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ftl.formats.example import Conversation, Example, Segment, Turn
from ftl.formats.templates import TEMPLATES
from ftl.tokens import MASKED, ChatTemplate, TokenizerView, encode

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ODD_TEXT = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "<|im_end|>",
        "<|im_start|>assistant\n",
        "\ue0000\ue0010\ue002",
        "{{ x }}",
        "<think>\na",
    ]
)
TEXT = st.lists(st.one_of(ANY_TEXT, ODD_TEXT), max_size=4).map("".join)
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def byte_view(tmp_path_factory: pytest.TempPathFactory) -> TokenizerView:
    return TokenizerView.load(save_byte_tokenizer(tmp_path_factory.mktemp("bytes"), eos_token="<|im_end|>"))


@pytest.fixture(scope="module")
def merging_view(tmp_path_factory: pytest.TempPathFactory) -> TokenizerView:
    """A tokenizer as Llama 3 has it, small, whose tokens hold several characters."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    corpus = ["assistant\n\n\n user\n. . .\n\n the answer is here  \n   \n\n system\n" * 3] * 20
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(token) for token in ("<|im_start|>", "<|im_end|>")])
    directory: Path = tmp_path_factory.mktemp("merging")
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    return TokenizerView.load(directory)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(TEXT, st.booleans()), min_size=1, max_size=5))
def test_chatml_trains_exactly_the_contents_and_ends_of_trained_turns(
    byte_view: TokenizerView, contents: list[tuple[str, bool]]
) -> None:
    turns = tuple(Turn("assistant", content, train) for content, train in contents)
    (tokens,) = encode([ChatTemplate(TEMPLATES["chatml"], byte_view).example(Conversation(turns, "turn"))], byte_view)
    expected: list[Segment] = []
    for content, train in contents:
        expected += [
            Segment("<|im_start|>assistant\n", False),
            Segment(f"{content}<|im_end|>", train and content.strip() != ""),
        ]
        expected += [Segment("\n", False)]
    (apart,) = encode([Example(tuple(expected), bos=False, num_eos=0)], byte_view)
    assert (tokens.ids, tokens.labels) == (apart.ids, apart.labels)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
@pytest.mark.parametrize("name", ["llama3", "qwen3", "mistral_v2v3", "gemma", "alpaca"])
def test_every_template_gives_the_tokens_of_its_text(
    name: str, merging_view: TokenizerView, pairs: list[tuple[str, str]]
) -> None:
    assume(not any("</think>" in a for _, a in pairs))  # nothing may be left to train behind it, which is an error
    turns = [turn for q, a in pairs for turn in (Turn("user", q, False), Turn("assistant", a, True))]
    template = ChatTemplate(TEMPLATES[name], merging_view, {"bos_token": "<s>"})
    (tokens,) = encode([template.example(Conversation(tuple(turns), "turn"))], merging_view)
    text = template.render(turns)
    assert tokens.ids == merging_view.tokenizer.encode(text, add_special_tokens=False).ids
    assert merging_view.tokenizer.decode(tokens.ids, skip_special_tokens=False) == text
    is_trained = any(label != MASKED for label in tokens.labels)
    assert is_trained == any(answer.strip() for _, answer in pairs)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(TEXT, st.booleans()), max_size=6))
def test_a_token_of_joined_segments_is_trained_if_any_of_its_characters_is(
    merging_view: TokenizerView, pieces: list[tuple[str, bool]]
) -> None:
    segments = tuple(Segment(text, train) for text, train in pieces)
    (tokens,) = encode([Example(segments, bos=False, num_eos=0, is_one_text=True)], merging_view)
    text = "".join(text for text, _ in pieces)
    marks = [train for piece, train in pieces for _ in piece]
    encoding = merging_view.tokenizer.encode(text, add_special_tokens=False)
    assert tokens.ids == encoding.ids
    assert [label != MASKED for label in tokens.labels] == [any(marks[a:b]) for a, b in encoding.offsets]

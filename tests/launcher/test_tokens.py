"""Ids and labels, written here as the pieces of text they stand for; `train` is the second of each pair."""

import json
from pathlib import Path
from typing import Literal

import pytest
from byte_tokenizer import pieces, save_byte_tokenizer
from tokenizers import Tokenizer, models, processors

from ftl.config.data import DataSection, DatasetSection
from ftl.config.model import SpecialTokens
from ftl.errors import ConfigError
from ftl.formats.example import Example, Judged, Pair, Preference, Segment, Steps, TokenRow
from ftl.formats.templates import TEMPLATES
from ftl.tokens import MASKED, TokenizerView, Tokens, chat_template_source, encode, encode_any


@pytest.fixture
def view(tmp_path: Path) -> TokenizerView:
    return TokenizerView.load(save_byte_tokenizer(tmp_path))


def encoded(view: TokenizerView, *segments: tuple[str, bool]) -> list[tuple[str, bool]]:
    (tokens,) = encode([Example(tuple(Segment(text, train) for text, train in segments))], view)
    return pieces(view, tokens)


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


def test_steps_have_their_label_on_the_last_token_of_their_separator(view: TokenizerView) -> None:
    steps = Steps("q", ("a", "b", "c"), (1, None, 0), separator=" \n", max_completion_length=None)
    (tokens,) = encode([steps], view)
    assert view.tokenizer.decode(tokens.ids, skip_special_tokens=False) == "<s>qa \nb \nc \n"
    assert [label for label in tokens.labels if label != MASKED] == [1, 0]
    assert (tokens.labels[4], tokens.labels[-1]) == (1, 0)


def test_steps_are_cut_at_their_greatest_length(view: TokenizerView) -> None:
    steps = Steps("q", ("a", "b"), (1, 0), separator="\n", max_completion_length=3)
    (tokens,) = encode([steps], view)
    assert view.tokenizer.decode(tokens.ids, skip_special_tokens=False) == "<s>qa\nb"
    assert tokens.labels == [MASKED, MASKED, MASKED, 1, MASKED]


def test_tokens_are_taken_as_they_are(view: TokenizerView) -> None:
    assert encode([TokenRow((7, 8), (MASKED, 8))], view) == [Tokens([7, 8], [MASKED, 8])]


def test_rows_of_every_kind_of_sample(view: TokenizerView) -> None:
    whole = Example((Segment("x", False),))
    samples = [
        Preference("q", "a</s>", "b"),
        Judged("<s>q", "a", True),
        Pair(whole, whole),
        Example((Segment("t", True),)),
    ]
    assert [[pieces(view, tokens) for tokens in rows] for rows in encode_any(samples, view)] == [
        [[("<s>q", False), ("a</s>", True)], [("<s>q", False), ("b", True)]],
        [[("<s>q", False), ("a", True)]],
        [[("<s>x</s>", False)], [("<s>x</s>", False)]],
        [[("<s>t</s>", True)]],
    ]


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
        ({"chat_template": [{"name": "only", "template": "own"}]}, "own"),
        ({}, TEMPLATES["chatml"]),
    ],
    ids=["text", "list", "single", "absent"],
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


def test_tokenizer_in_the_slow_format_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no such file; tokenizer.model alone is not enough; save the tokenizer in"):
        TokenizerView.load(tmp_path)


def test_broken_tokenizer_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer.json: no tokenizer"):
        TokenizerView.load(tmp_path)


def test_special_tokens_come_from_every_file_that_transformers_writes(tmp_path: Path) -> None:
    extra = {"image_token": "<img>", "eoi_token": {"content": "</img>"}}
    save_byte_tokenizer(tmp_path, bos_token={"content": "<s>"}, model_specific_special_tokens=extra)
    special = {"eos_token": "no", "unk_token": "<unk>", "additional_special_tokens": ["<a>", {"content": "<b>"}]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    assert TokenizerView.load(tmp_path).named_tokens == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "additional_special_tokens": ["<a>", "<b>"],
        "image_token": "<img>",
        "eoi_token": "</img>",
    }


def test_fingerprint_changes_with_the_tokens_only(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    plain = TokenizerView.load(tmp_path).fingerprint
    assert TokenizerView.load(tmp_path).fingerprint == plain
    assert TokenizerView.load(tmp_path, tokens=("<x>",)).fingerprint != plain
    assert TokenizerView.load(tmp_path, SpecialTokens(eos_token="<|im_end|>")).fingerprint != plain


def test_tokenizer_that_only_appends_eos_puts_nothing_in_front(tmp_path: Path) -> None:
    view = TokenizerView.load(save_byte_tokenizer(tmp_path, adds_bos=False))
    appends = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 257)])
    view.tokenizer.post_processor = appends
    view.tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert TokenizerView.load(tmp_path).prefix_ids == ()


def test_token_that_stands_for_unknown_characters_on_both_sides_of_an_edge_is_trained(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>", fuse_unk=True))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    view = TokenizerView.load(tmp_path)
    example = Example((Segment("a??", False), Segment("!!a", True)), bos=False, num_eos=0, is_one_text=True)
    assert encode([example], view) == [Tokens([1, 0, 1], [MASKED, 0, 1])]

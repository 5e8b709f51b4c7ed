"""Entries of a teacher laid on the tokens of a row."""

import json
from pathlib import Path

import pytest
from byte_tokenizer import save_byte_tokenizer

from ftl.cli import app
from ftl.formats.example import RowError, Target
from ftl.tokens import MASKED, Tokens
from ftl.tokens.teacher import taught_row

# Prompt, answer of two, prompt, answer of three, and what the template prints after it.
IDS = [1, 2, 11, 12, 3, 21, 22, 23, 4]
LABELS = [MASKED, MASKED, 11, 12, MASKED, 21, 22, 23, MASKED]
ROW = Tokens(IDS, LABELS)


def entries(*ids):
    return [None if id is None else Target((id, 99), (-0.1, -2.0)) for id in ids]


def laid(row):
    """The first token that is expected in each place."""
    return [None if target is None else target.ids[0] for target in row.targets]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (IDS, IDS),
        ([11, 12, 21, 22, 23], [None, None, 11, 12, None, 21, 22, 23, None]),
        ([21, 22, 23], [None, None, None, None, None, 21, 22, 23, None]),
        ([21, 22, 23, 4], [None, None, None, None, None, 21, 22, 23, 4]),
        ([21, None, 23], [None, None, None, None, None, 21, None, 23, None]),
    ],
    ids=["all", "trained", "answer", "rest", "gap"],
)
def test_entries_are_laid_where_their_number_says(given, expected):
    assert laid(taught_row(ROW, entries(*given))) == expected


def test_where_two_places_fit_the_expected_tokens_decide():
    row = Tokens([1, 11, 2, 21, 3], [MASKED, 11, MASKED, 21, MASKED])
    assert laid(taught_row(row, entries(11, 21))) == [None, 11, None, 21, None]
    assert laid(taught_row(row, entries(21, 3))) == [None, None, None, 21, 3]


@pytest.mark.parametrize(
    ("row", "given", "told"),
    [
        (ROW, entries(11, 12), r"has 2 entries, .*: 9 \(all\), 5 \(trained\), 3 \(last answer\), 4 \(from the last"),
        (ROW, entries(1, *[None] * 8), "says nothing of any token that is trained"),
        (Tokens([1, *range(40, 48)], [MASKED, *range(40, 48)]), entries(*range(8)), "expects none of the 8 trained"),
    ],
    ids=["number", "untrained", "elsewhere"],
)
def test_entries_that_do_not_fit_are_told(row, given, told):
    with pytest.raises(RowError, match=told):
        taught_row(row, given)


def test_check_names_the_row_whose_entries_do_not_fit(tmp_path: Path, monkeypatch, capsys):
    """The answer is `yes` and EOS, four tokens; the template prints a line break after it."""
    monkeypatch.chdir(tmp_path)
    save_byte_tokenizer(tmp_path / "base", eos_token="<|im_end|>")
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "yes"}]
    targets = [[{str(id): -0.1} for id in range(count)] for count in (4, 5, 3)]
    targets[1][0] = {"262": -0.1}  # bytes and six special tokens are 0 to 261
    rows = [{"messages": messages, "logprobs": target} for target in targets]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"path": "rows.jsonl", "type": "axolotl.integrations.kd.chat_template", "logprobs_field": "logprobs"}
    config = {"base_model": "./base", "reinit_weights": True, "learning_rate": 1e-4, "chat_template": "chatml"}
    config |= {"kd_trainer": True, "plugins": ["axolotl.integrations.kd.KDPlugin"], "datasets": [dataset]}
    (tmp_path / "base/config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "cfg.yml").write_text(json.dumps(config))
    assert app(["check", "cfg.yml", "--json", "--no-network"], standalone_mode=False) == 2
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [event["text"] for event in events if event["event"] == "problem"]
    assert [text.split(": ")[0] for text in told] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert "expects token 262, and the last one of the tokenizer is 261" in told[0]
    assert "3 entries" in told[1] and "4 (trained), 4 (last answer), 5 (from the last answer on)" in told[1]

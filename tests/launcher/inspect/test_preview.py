"""`ftl preview` as a program and as a person calls it."""

import json
from pathlib import Path
from typing import Any

import pytest
from letters import MakeConfig

from ftl.cli import app
from ftl.errors import ConfigError


@pytest.fixture
def preview(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run `ftl preview --json`; the objects it prints."""

    def run(config: Path, *arguments: str) -> list[dict[str, Any]]:
        assert app(["preview", str(config), "--json", *arguments], standalone_mode=False) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_prompt_is_masked_and_answer_is_trained(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"segments": [{"text": "Q: é?", "label": False}, {"text": " A: ☕", "label": True}]}]
    assert preview(make_config(rows, dataset={"type": "input_output"})) == [
        {"dataset": 0, "row": 0, "segments": [{"text": "Q: é?", "train": False}, {"text": " A: ☕", "train": True}]}
    ]


def test_bos_and_eos_are_literal_and_runs_are_joined(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    (row,) = preview(make_config([{"text": "a</s>b"}]))
    assert row["segments"] == [{"text": "<s>a</s>b</s>", "train": True}]


def test_ids_come_with_their_labels(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"input_ids": [0, 1, 2], "labels": [-100, 1, 2]}]
    (row,) = preview(make_config(rows, dataset={"type": None}), "--ids")
    assert (row["input_ids"], row["labels"]) == ([0, 1, 2], [-100, 1, 2])


def test_more_rows_than_a_machine_can_count_are_all_rows(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    assert len(preview(make_config([{"text": "a"}, {"text": "b"}]), "-n", str(10**20))) == 2


def test_text_longer_than_a_row_gives_several_samples(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    (row,) = preview(make_config([{"text": "abcdefgh"}], sequence_len=4))
    assert row["samples"] == [
        {"segments": [{"text": "<s>abc", "train": True}]},
        {"segments": [{"text": "defg", "train": True}]},
        {"segments": [{"text": "h</s>", "train": True}]},
    ]


def test_cut_inside_a_character_is_shown_as_bytes(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    (row,) = preview(make_config([{"text": "☕☕"}], sequence_len=3))
    assert row["samples"][0] == {"segments": [{"bytes_hex": "3c733ee298", "train": True}]}


def test_rows_that_give_nothing_say_why(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"segments": [{"text": "x" * 100, "label": True}]}, "{broken", {"segments": []}]
    long, broken, short = preview(make_config(rows, dataset={"type": "input_output"}))
    assert long == {"dataset": 0, "row": 0, "dropped": "100 tokens, more than sequence_len = 64"}
    assert (broken["row"], broken["error"].partition(": ")[0]) == (1, "rows.jsonl:2")
    assert short == {"dataset": 0, "row": 2, "dropped": "0 tokens, fewer than 2"}


def test_truncated_row_shows_what_is_left(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"segments": [{"text": "question", "label": False}, {"text": "answer", "label": True}]}]
    config = make_config(rows, dataset={"type": "input_output"}, sequence_len=10, excess_length_strategy="truncate")
    assert preview(config)[0]["segments"] == [{"text": "question", "train": False}, {"text": "an", "train": True}]


def test_preference_is_its_texts(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"prompt": "p", "chosen": "good", "rejected": "bad"}]
    config = make_config(rows, dataset={"type": None}, rl="dpo")
    assert preview(config) == [{"dataset": 0, "row": 0, "prompt": "p", "chosen": "good", "rejected": "bad"}]
    (row,) = preview(config, "--ids")
    assert row["labels"]["rejected"][:2] == [-100, -100]
    assert len(row["input_ids"]["chosen"]) == len("+pgood")


def test_judged_answer_has_its_label(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"prompt": "p", "completion": "c", "label": False}]
    (row,) = preview(make_config(rows, dataset={"type": None}, rl="kto"))
    assert row == {"dataset": 0, "row": 0, "prompt": "p", "completion": "c", "label": False}


def test_steps_carry_labels_and_not_whether_they_are_trained(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}]
    config = make_config(rows, dataset={"type": "stepwise_supervised"}, process_reward_model=True)
    assert preview(config)[0]["segments"] == [
        {"text": "<s>pone", "label": None},
        {"text": "\n", "label": 1},
        {"text": "two", "label": None},
        {"text": "\n", "label": 0},
    ]


def test_rows_come_in_the_order_of_the_file(preview, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    config = make_config([{"text": f"t{i}"} for i in range(9)], shuffle_merged_datasets=True)
    assert [row["row"] for row in preview(config)] == [0, 1, 2]
    assert [row["row"] for row in preview(config, "-n", "5")] == [0, 1, 2, 3, 4]
    (row,) = preview(config, "--row", "7")
    assert (row["row"], row["segments"][0]["text"]) == (7, "<s>t7</s>")


def test_one_dataset_can_be_chosen(preview, make_config: MakeConfig, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "test.jsonl").write_text('{"text": "tested"}\n')
    config = make_config([{"text": "trained"}], test_datasets=[{"path": "test.jsonl", "type": "completion"}])
    assert [row["dataset"] for row in preview(config)] == [0, 1]
    (row,) = preview(config, "--dataset", "1")
    assert (row["dataset"], row["segments"][0]["text"]) == (1, "<s>tested</s>")


@pytest.mark.parametrize(("option", "number"), [("--dataset", "1"), ("--row", "3")])
def test_what_is_not_there_is_a_sentence(make_config: MakeConfig, option: str, number: str) -> None:
    config = make_config([{"text": "a"}, {"text": "b"}])
    with pytest.raises(ConfigError, match=option):
        app(["preview", str(config), "--json", option, number], standalone_mode=False)


def test_config_with_a_problem_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="wrong_key"):
        app(["preview", str(make_config([{"text": "a"}], wrong_key=1))], standalone_mode=False)


def test_terminal_without_colours_marks_what_is_trained(
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"segments": [{"text": "ask ", "label": False}, {"text": "tell", "label": True}]}]
    app(["preview", str(make_config(rows, dataset={"type": "input_output"}))], standalone_mode=False)
    assert "ask {+tell+}" in capsys.readouterr().out


def test_ids_are_shown_beside_each_token(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"input_ids": [0, 1, 257], "labels": [-100, 1, 257]}]
    app(["preview", str(make_config(rows, dataset={"type": None})), "--ids"], standalone_mode=False)
    assert '!(-100, 0) "(1, 1) </s>(257, 257)' in capsys.readouterr().out


def test_text_cannot_move_the_cursor(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    app(["preview", str(make_config([{"text": "a\x1b[2Jb\u202ec"}]))], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "a\\u001b[2Jb\\u202ec" in shown
    assert "\x1b[2J" not in shown


def test_reward_rows_are_scored_and_not_trained(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"system": "", "input": "q", "chosen": "good", "rejected": "bad"}]
    config = make_config(rows, dataset={"type": "bradley_terry.chatml.icr"}, reward_model=True, sequence_len=512)
    app(["preview", str(config)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert shown.count("tokens, scored as a whole") == 2
    assert "{+" not in shown.split("\n", 1)[1]

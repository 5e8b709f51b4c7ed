"""`ftl check` as a program calls it: its events and its exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from letters import MakeConfig

from ftl.cli import app
from ftl.console import console

Events = list[dict[str, Any]]
ROW = {"segments": [{"text": "ask", "label": False}, {"text": "tell", "label": True}]}


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run `ftl check --json`; the exit code and the events."""

    def run(config: Path, *arguments: str) -> tuple[int, Events]:
        code = app(["check", str(config), "--json", "--no-network", *arguments], standalone_mode=False)
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def only(events: Events, kind: str) -> dict[str, Any]:
    (found,) = [event for event in events if event["event"] == kind]
    return found


def texts(events: Events, kind: str = "problem") -> list[str]:
    return [event["text"] for event in events if event["event"] == kind]


def test_dataset_is_counted_as_it_will_be_trained(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    masked, trained = {"text": "ask", "label": False}, {"text": "tell", "label": True}
    rows = [
        {"segments": [masked, trained]},
        {"segments": [masked, trained]},
        {"segments": [masked]},
        {"segments": [{"text": "x" * 100, "label": True}]},
    ]
    code, events = check(make_config(rows, dataset={"type": "input_output"}))
    assert code == 0
    assert only(events, "dataset") == {
        "event": "dataset",
        "key": "datasets.0",
        "path": "rows.jsonl",
        "rows": 4,
        "broken": 0,
        "tokenised": True,
        "samples": 3,
        "tokens": 7 + 7 + 3,
        "trained_tokens": 4 + 4,
        "truncated": 0,
        "split": 0,
        "too_long": 1,
        "too_short": 0,
        "duplicates": 1,
        "untrained_samples": 1,
        "untrained_turns": 0,
        "length": {"mean": 29.2, "p50": 7, "p95": 100, "p99": 100, "max": 100},
    }
    assert only(events, "result")["ok"] is True


def test_missing_column_is_a_problem_with_its_line_and_the_columns(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    code, events = check(make_config([{"text": "fine"}, {"body": "not"}]))
    assert code == 2
    (said,) = texts(events)
    assert said.startswith("rows.jsonl:2: ")
    assert "`text`" in said
    assert "`body`" in said


def test_broken_rows_are_named_up_to_the_limit_then_counted(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    code, events = check(make_config(["{broken"] * 7), "--max-problems", "2")
    said = texts(events)
    assert code == 2
    assert [line.partition(": ")[0] for line in said] == ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl"]
    assert said[2] == "rows.jsonl: 5 more broken rows"


def test_problems_of_keys_and_rows_come_together_in_the_order_of_the_file(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    config = make_config(["{broken"], lora_r=0, adapter="lora", wrong_key=1, val_set_size=0.1)
    code, events = check(config)
    assert code == 2
    wheres = [said.partition(": ")[0] for said in texts(events)]
    assert wheres == ["rows.jsonl:1", "cfg.yml:6", "cfg.yml:8"]


def test_config_without_learning_rate_has_its_data_checked(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    config = make_config(["{broken"])
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "learning_rate" not in line))
    _, events = check(config)
    assert any("`learning_rate` is missing" in said for said in texts(events))
    assert any(said.startswith("rows.jsonl:1") for said in texts(events))


def test_data_is_left_alone_while_its_own_keys_are_wrong(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    code, events = check(make_config([{"body": "x"}], dataset={"fieldd": "body"}))
    assert code == 2
    assert len(texts(events)) == 1
    assert "fieldd" in texts(events)[0]
    assert not [event for event in events if event["event"] == "dataset"]


def test_data_beside_a_key_that_is_not_built_is_counted(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"prompt": "p", "chosen": "good", "rejected": "bad"}]
    code, events = check(make_config(rows, dataset={"type": None}, rl="simpo", use_eaft=True))
    assert code == 2
    assert any("not built yet" in said for said in texts(events))
    # <s>, the prompt and the answer, twice; the answers are the labels
    counts = only(events, "dataset")
    assert (counts["tokens"], counts["trained_tokens"]) == (2 + 4 + 2 + 3, 4 + 3)


def test_data_beside_a_key_that_is_not_built_is_counted_beside_a_problem(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"prompt": "p", "chosen": "good", "rejected": "bad"}]
    _, events = check(make_config(rows, dataset={"type": None}, use_eaft=True, rl="simpo", learning_rate="fast"))
    assert only(events, "dataset")["rows"] == 1
    assert len([said for said in texts(events) if "not built yet" in said]) == 1


def test_nothing_trained_is_a_problem(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"instruction": "a", "input": "", "output": ""}]
    code, events = check(make_config(rows, dataset={"type": "alpaca"}, sequence_len=256))
    assert code == 2
    assert "nothing is trained in any of 1 rows" in texts(events)[0]


def test_all_rows_too_long_is_a_problem_with_a_remedy(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"instruction": "a", "output": "b"}] * 3
    code, events = check(make_config(rows, dataset={"type": "alpaca"}, sequence_len=16))
    assert code == 2
    assert texts(events) == [
        "rows.jsonl: none of 3 rows is usable: 3 have more than sequence_len = 16 tokens; "
        "raise sequence_len, or set excess_length_strategy: truncate"
    ]


def test_too_long_row_is_broken_where_the_config_forbids_it(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"instruction": "a", "output": "b"}]
    config = make_config(rows, dataset={"type": "alpaca"}, sequence_len=16, excess_length_strategy="raise")
    _, events = check(config)
    assert texts(events)[0].startswith("rows.jsonl:1: ")
    assert "excess_length_strategy: raise forbids it" in texts(events)[0]


def test_evaluation_split_must_leave_a_row(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    code, events = check(make_config([{"text": "one"}, {"text": "two"}], val_set_size=2))
    assert code == 2
    (said,) = texts(events)
    assert said.startswith("cfg.yml:6: val_set_size")
    assert "takes 2 of 2 samples" in said


def test_split_and_packing_are_in_the_result(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    # <s>, eight letters, </s>: ten tokens a row, of which all are trained
    _, events = check(make_config([{"text": f"letters{i}"} for i in range(10)], val_set_size=2, sample_packing=True))
    result = only(events, "result")
    assert result["train"] == {"samples": 8, "tokens": 80, "trained": 80, "packed_rows": 2}
    assert result["eval"] == {"samples": 2, "tokens": 20, "trained": 20, "packed_rows": 1}


def test_evaluation_in_one_packed_row_is_told(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"text": f"letters{i}"} for i in range(10)]
    _, events = check(make_config(rows, val_set_size=2, sample_packing=True))
    (said,) = texts(events, "note")
    assert said.startswith("the 2 samples to evaluate on are packed into one row")
    _, events = check(make_config(rows, val_set_size=2, sample_packing=True, eval_sample_packing=False))
    assert texts(events, "note") == []


def test_template_file_lies_beside_the_config(  # type: ignore[no-untyped-def]
    check, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m.content }}</s>{% endfor %}")
    rows = [{"messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]}]
    config = make_config(rows, dataset={"type": "chat_template"}, chat_template_jinja="own.jinja").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, events = check(config)
    assert code == 0
    assert only(events, "dataset")["trained_tokens"] == len("tell") + 1


def test_template_that_trains_no_end_of_a_turn_is_told(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]}]
    template = "{% for m in messages %}{{ m.content }}|{% endfor %}"
    config = make_config(rows, dataset={"type": "chat_template"}, chat_template_jinja=template)
    _, events = check(config)
    assert any("the model will not learn to stop" in said for said in texts(events, "note"))


def test_samples_of_the_test_set_that_are_trained_too_are_told(check, make_config: MakeConfig, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "test.jsonl").write_text('{"text": "seen"}\n{"text": "unseen"}\n')
    rows = [{"text": "seen"}, {"text": "other"}]
    _, events = check(make_config(rows, test_datasets=[{"path": "test.jsonl", "type": "completion"}]))
    assert any("test_datasets.0: 1 of its samples are also trained on" in said for said in texts(events, "note"))


def test_without_a_tokenizer_rows_are_still_rendered(check, make_config: MakeConfig, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = make_config([{"text": "fine"}, {"body": "not"}], tokenizer_config="org/not-on-this-machine")
    code, events = check(config)
    assert code == 2
    assert any(said.startswith("rows are read and rendered, not tokenised") for said in texts(events, "note"))
    assert only(events, "dataset")["tokenised"] is False
    assert texts(events)[0].startswith("rows.jsonl:2: ")


def test_no_data_reads_no_row(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    code, events = check(make_config(["{broken"]), "--no-data")
    assert (code, [event["event"] for event in events]) == (0, ["result"])


def test_cloud_file_and_its_secrets_are_checked(  # type: ignore[no-untyped-def]
    check, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FTL_TEST_ABSENT", raising=False)
    (tmp_path / "cloud.yml").write_text("provider: local\nsecrets: [FTL_TEST_ABSENT]\n")
    (tmp_path / "wrong.yml").write_text("provider: nowhere\n")
    config = make_config([{"text": "fine"}])
    code, events = check(config, "--cloud", "cloud.yml")
    assert code == 2
    assert texts(events) == ["secret FTL_TEST_ABSENT: not set in this shell; `export FTL_TEST_ABSENT=...`"]
    code, events = check(config, "--cloud", "wrong.yml")
    assert code == 2
    assert texts(events)[0].startswith("wrong.yml:1")


def test_flag_overrides_the_file(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    config = make_config([{"text": "x" * 100}])
    _, events = check(config, "--sequence-len", "200")
    assert only(events, "dataset")["split"] == 0
    _, events = check(config)
    assert only(events, "dataset")["split"] == 1


def test_panels_fit_a_narrow_terminal(  # type: ignore[no-untyped-def]
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 80)
    config = make_config([{"text": "x" * i} for i in range(1, 200)], val_set_size=0.1, sample_packing=True)
    app(["check", str(config), "--no-network"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "datasets.0" in shown
    assert "what will be trained" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", b'{"model"', "tokenizer.json: no tokenizer ("),
        ("tokenizer_config.json", b"\xff", "tokenizer_config.json: not valid JSON"),
        ("tokenizer_config.json", b'{"chat_template": 5}', "tokenizer_config.json: chat_template: must be the text of"),
        ("chat_template.jinja", b"\xff", "model: the tokenizer cannot be read: 'utf-8' codec can't decode"),
    ],
)
def test_broken_tokenizer_on_this_machine_is_a_problem(  # type: ignore[no-untyped-def]
    check, make_config: MakeConfig, file: str, content: bytes, said: str
) -> None:
    config = make_config([{"text": "abc"}])
    Path("model", file).write_bytes(content)
    code, events = check(config)
    assert (code, len(texts(events))) == (2, 1)
    assert said in texts(events)[0]


def test_nothing_is_said_of_the_hub_where_a_local_path_is_missing(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    code, events = check(make_config([{"text": "abc"}], dataset={"path": "./gone.jsonl"}, base_model="./base"))
    assert code == 2
    assert texts(events) == [
        "cfg.yml:1: base_model: ./base: no such file or directory: looked in . or the working directory",
        "cfg.yml:5: datasets.0.path: ./gone.jsonl: no such file or directory: looked in . or the working directory",
    ]
    assert texts(events, "note") == ["rows are read and rendered, not tokenised: ./base: no such directory"]


def test_directory_of_data_files_that_is_not_there_is_a_problem(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    code, events = check(make_config([{"text": "abc"}], dataset={"path": "./gone", "data_files": "a.jsonl"}))
    assert code == 2
    (said,) = texts(events)
    assert said.startswith("cfg.yml:5: datasets.0.path: ./gone: no such file or directory")


def test_token_ids_and_labels_that_no_token_has_are_problems_of_the_row(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    rows = [{"input_ids": [258], "labels": [258]}, {"input_ids": [1, 259], "labels": [1, 259]}]
    rows.append({"input_ids": [1], "labels": [1.0]})
    code, events = check(make_config(rows, dataset={"type": None}))
    assert code == 2
    assert texts(events) == [
        "rows.jsonl:2: `input_ids` holds 259, and the last token of the tokenizer is 258; "
        "set tokenizer_config to the tokenizer that made the rows",
        "rows.jsonl:3: labels[0] = 1.0: must be -100, or 1 as input_ids[0]",
    ]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
PLAIN_TEMPLATE = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "notes"),
    [
        (PLAIN_TEMPLATE, ["datasets.0: the chat template prints no tools; 2 rows have them"]),
        ("{% if tools %}{{ tools | tojson }}{% endif %}" + PLAIN_TEMPLATE, []),
    ],
)
def test_tools_that_the_chat_template_leaves_out_are_told(  # type: ignore[no-untyped-def]
    check, make_config: MakeConfig, template: str, notes: list[str]
) -> None:
    tools = [[TOOL], json.dumps([TOOL]), [], "[]", None]
    rows = [
        {"messages": [{"role": "assistant", "content": str(number)}], "tools": value}
        for number, value in enumerate(tools)
    ]
    dataset = {"type": "chat_template"}
    config = make_config(rows, dataset=dataset, chat_template_jinja=template, sequence_len=256)
    code, events = check(config)
    assert code == 0
    assert texts(events, "note") == notes


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.usefixtures("_no_gpu")
def test_setting_for_gpus_is_a_note_where_no_machine_was_asked_for(check, make_config: MakeConfig) -> None:  # type: ignore[no-untyped-def]
    config = make_config([ROW], dataset={"type": "input_output"}, flash_attention=True)
    code, events = check(config)
    assert code == 0
    (note,) = [text for text in texts(events, "note") if "attn_implementation" in text]
    assert note.endswith(
        "attn_implementation: flash_attention_2: needs a GPU, and this machine has none; "
        "with --cloud FILE it is checked against the machine asked for"
    )


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize(
    ("cloud", "told"),
    [
        ("provider: local\n", "needs a GPU; ask for one, or use sdpa"),
        ("provider: local\ngpu: 1\ngpu_kind: T4\n", "needs compute capability 8.0, and T4 has 7.5; use sdpa, or ask"),
        ("provider: docker\ngpu: 1\ngpu_kind: V100\n", "needs compute capability 8.0, and V100 has 7.0; use sdpa"),
    ],
)
def test_setting_for_gpus_is_a_problem_of_the_machine_asked_for(  # type: ignore[no-untyped-def]
    cloud: str, told: str, check, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config([ROW], dataset={"type": "input_output"}, flash_attention=True)
    (tmp_path / "cloud.yml").write_text(cloud)
    code, events = check(config, "--cloud", str(tmp_path / "cloud.yml"))
    assert code == 2
    (problem,) = texts(events)
    assert told in problem


def test_gpu_of_the_machine_asked_for_that_can_has_no_problem(check, make_config: MakeConfig, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = make_config([ROW], dataset={"type": "input_output"}, flash_attention=True)
    (tmp_path / "cloud.yml").write_text("provider: docker\ngpu: all\ngpu_kind: RTX 4090\n")
    assert check(config, "--cloud", str(tmp_path / "cloud.yml"))[0] == 0

import json
from pathlib import Path

from ftl.config.data import DatasetSection
from ftl.formats.check import check_dataset, check_file
from ftl.formats.example import FormatOptions

GOOD = '{"instruction": "q", "output": "a"}'


def problems(path: Path, lines: list[str], max_rows: int | None = None) -> list[str]:
    path.write_text("\n".join(lines) + "\n")
    return [str(problem) for problem in check_file(path, "alpaca", FormatOptions(), max_rows)]


def test_good_file_has_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path / "a.jsonl", [GOOD, GOOD]) == []


def test_bad_row_in_the_middle_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert problems(path, [GOOD, '{"instruction": 1, "output": "a"}', GOOD]) == [
        f"{path}:2: `instruction` = 1: must be text"
    ]


def test_only_five_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    found = problems(path, [GOOD, *["{"] * 4, *['{"output": "a"}'] * 4])
    assert [sentence.split(": ")[0] for sentence in found] == [*(f"{path}:{n}" for n in range(2, 7)), str(path)]
    assert found[-1] == f"{path}: 3 more broken rows"


def test_rows_past_max_rows_are_not_looked_at(tmp_path: Path) -> None:
    assert problems(tmp_path / "a.jsonl", [GOOD, "{"], max_rows=1) == []


def test_file_whose_answers_are_all_missing_is_a_problem(tmp_path: Path) -> None:
    (sentence,) = problems(tmp_path / "a.jsonl", ['{"instruction": "q", "Output": "a"}'] * 3)
    assert "no row has a text to train on" in sentence


def test_missing_file_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    (problem,) = check_file(tmp_path / "gone.jsonl", "alpaca", FormatOptions())
    assert "no such file" in str(problem)


def test_dataset_keys_are_read_as_the_config_dumps_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"talk": [{"from": "gpt", "value": "a"}]}))
    dataset = DatasetSection(
        path="a.jsonl",
        type="chat_template",
        field_messages="talk",
        message_property_mappings={"role": "from", "content": "value"},
    )
    assert check_dataset(path, dataset.type, dataset.model_dump()) == []

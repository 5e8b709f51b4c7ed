from pathlib import Path

import pytest

from ftl.config.data import DataSection, DatasetSection
from ftl.errors import ConfigError
from ftl.formats.example import Example, FormatOptions, RowError, Segment
from ftl.formats.python import strategy_file, with_strategy_file
from ftl.formats.render import find_format
from ftl.tokens import Recipe

GOOD = "def render(row, options):\n    return [{'text': row['q'], 'train': options['train_on_inputs']}]\n"


def write(directory: Path, program: str) -> str:
    file = directory / "prompts.py"
    file.write_text(program)
    return f"{file}:render"


def said(directory: Path, program: str) -> str:
    with pytest.raises(ConfigError) as caught:
        find_format(write(directory, program), "sft").read({"q": "x"}, FormatOptions())
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence.replace(f"{directory}/", "")


@pytest.mark.parametrize(
    ("type", "path"),
    [
        ("./prompts.py:render", "./prompts.py"),
        ("/a b/c.py:load_x", "/a b/c.py"),
        ("bundle:files/c.py:f", "bundle:files/c.py"),
        ("alpaca:chat", None),
        ("prompts.py", None),
        ({"format": "x.py:y"}, None),
        (None, None),
    ],
)
def test_strategy_file_is_the_path_in_the_type(type: str | dict[str, str] | None, path: str | None) -> None:
    assert strategy_file(type) == path


def test_type_with_another_file_keeps_its_function() -> None:
    assert with_strategy_file("./prompts.py:render", "/job/prompts.py") == "/job/prompts.py:render"


def test_function_gets_the_keys_of_the_dataset(tmp_path: Path) -> None:
    format = find_format(write(tmp_path, GOOD), "sft")
    assert format.read({"q": "x"}, FormatOptions(train_on_inputs=True)) == Example((Segment("x", True),))


def test_function_cannot_change_the_row(tmp_path: Path) -> None:
    program = "def render(row, options):\n    return [{'text': row.pop('q'), 'train': True}]\n"
    row = {"q": "x"}
    find_format(write(tmp_path, program), "sft").read(row, FormatOptions())
    assert row == {"q": "x"}


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("def render(row, options):\n    return row['gone']\n", "prompts.py:2: KeyError: 'gone'"),
        ("def render(row, options)\n", "prompts.py:1: SyntaxError: expected ':'; the file must run by itself"),
        ("x = 1\n\nimport no_such_package_at_all\n", "prompts.py:3: ModuleNotFoundError: No module named"),
        ("def rendr(row, options):\n    return []\n", "prompts.py: has no function render: has rendr"),
        ("render = 3\n", "prompts.py: has no function render: has none"),
        ("def render(row, options):\n    return 'text'\n", "prompts.py:render gave 'text': must be a list of segments"),
        ("def render(row, options):\n    return []\n", "prompts.py:render gave []: must be a list of segments"),
        (
            "def render(row, options):\n    return [{'text': 1, 'train': True}]\n",
            "segment 0 with text = 1: must be text",
        ),
        (
            "def render(row, options):\n    return [{'text': 'a'}]\n",
            "segment 0 with train = null: must be True or False",
        ),
        ("import sys\n\nsys.exit(0)\n", "prompts.py:3: SystemExit: 0; the file must run by itself"),
        ("def render(row, options):\n    raise SystemExit\n", "prompts.py:2: SystemExit"),
        (
            "def render(row, options):\n    return [{'text': '\\ud800', 'train': True}]\n",
            "gave half of a surrogate pair",
        ),
        ("def render(row):\n    return []\n", "TypeError: render() takes 1 positional argument but 2 were given"),
    ],
)
def test_mistake_in_the_file_is_one_sentence(tmp_path: Path, program: str, sentence: str) -> None:
    assert sentence in said(tmp_path, program)


def test_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"type = gone.py:render: gone.py cannot be read: No such file or directory"):
        find_format("gone.py:render", "sft")


def test_what_the_file_prints_is_kept_from_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "print('loaded')\ndef render(row, options):\n    print('called')\n    return [{'text': 'a', 'train': True}]\n"
    )
    find_format(write(tmp_path, program), "sft").read({}, FormatOptions())
    assert capsys.readouterr() == ("", "loaded\ncalled\n")


def test_preference_data_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no format of dpo data"):
        find_format(write(tmp_path, GOOD), "dpo")


def test_identity_of_a_recipe_follows_the_bytes_of_the_file(tmp_path: Path) -> None:
    type = write(tmp_path, GOOD)
    dataset = DatasetSection(path="a.jsonl", type=type)
    before = Recipe.of(dataset, DataSection(datasets=(dataset,)), "sft", None).identity
    again = Recipe.of(dataset, DataSection(datasets=(dataset,)), "sft", None).identity
    write(tmp_path, GOOD + "# edited\n")
    after = Recipe.of(dataset, DataSection(datasets=(dataset,)), "sft", None).identity
    assert before == again != after


def test_messages_without_a_chat_template_are_one_sentence(tmp_path: Path) -> None:
    program = "def render(row, options):\n    return [{'role': 'assistant', 'content': row['q']}]\n"
    dataset = DatasetSection(path="a.jsonl", type=write(tmp_path, program))
    recipe = Recipe.of(dataset, DataSection(datasets=(dataset,)), "sft", None)
    with pytest.raises(RowError, match="messages need a chat template, and the tokenizer has none: set chat_template"):
        recipe.sample({"q": "x"})

import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from ftl.errors import ConfigError
from ftl.section import Section
from ftl.yamlfile import YamlFile, parse_value, read, show_value, to_problems


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write `cfg.yml` into the working directory and give its relative path, so that messages are short."""
    monkeypatch.chdir(tmp_path)

    def write(content: str | bytes) -> Path:
        Path("cfg.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return Path("cfg.yml")

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1e-4", 0.0001),
        ("1E6", 1000000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("0x10", 16),
        ("0123", "0123"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_", "1_"),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("${HF_TOKEN}", "${HF_TOKEN}"),
        ("[a, 1]", ["a", 1]),
        ("9" * 60, "9" * 60),
        ("1e400000", "1e400000"),
    ],
)
def test_parse_value_types_scalars_as_people_mean_them(text, value):
    parsed = parse_value(text, "--set")
    assert parsed == value
    assert type(parsed) is type(value)


def test_read_gives_data_and_lines(write):
    file = read(write("a: 1\n\nb:\n  - x: 2\n  - y: 3\nno: n\n"))
    assert file.data == {"a": 1, "b": [{"x": 2}, {"y": 3}], "no": "n"}
    assert file.line_of(("a",)) == 1
    assert file.line_of(("b", 1, "y")) == 5
    assert file.line_of(("b", 1, "absent")) == 5
    assert file.line_of(("absent",)) is None


def test_read_merges_below_own_keys(write):
    file = read(write("base: &b {x: 1, y: 1}\nnext:\n  <<: *b\n  y: 2\n"))
    assert file.data["next"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\na: 2\n", "cfg.yml:2: `a` is given twice, first in line 1; remove one"),
        ("a:\n  - {b: 1, b: 2}\n", "cfg.yml:2: `b` is given twice, first in line 2; remove one"),
        ("a:\n\tb: 1\n", "cfg.yml:2: not valid YAML: a tab indents this line; indent with spaces"),
        ("a: @x\n", "cfg.yml:1: not valid YAML: a value cannot start with this character; put the value in quotes"),
        (
            "a: b: c\n",
            "cfg.yml:1: not valid YAML: mapping values are not allowed in this context;"
            " a value that holds `: ` needs quotes",
        ),
        (b"a: 1\nb: \xff\n", "cfg.yml:2: byte 0xff is not UTF-8: save as UTF-8"),
        ("a: \x01\n", "cfg.yml:1: not valid YAML: control characters are not allowed"),
        (
            "a: 1\nb: !!python/object/apply:os.system [id]\n",
            "cfg.yml:2: tag `!!python/object/apply:os.system` is not allowed; text that starts with ! needs quotes",
        ),
        ("a: *x\n", "cfg.yml:1: `*x` refers to nothing above; text that starts with * needs quotes"),
        ("a: &x [*x]\n", "cfg.yml:1: `*x` refers to nothing above; text that starts with * needs quotes"),
        ("a: .inf\n", "cfg.yml:1: .inf is not a finite number"),
        ("a: 1e999\n", "cfg.yml:1: 1e999 is not a finite number"),
        ("[a, b]: 1\n", "cfg.yml:1: a key must be text; text that starts with [ or { needs quotes"),
        ("a: 1\n---\nb: 1\n", "cfg.yml:2: a second document starts here; keep one document a file; remove `---`"),
        ("", "cfg.yml: the file is empty: must hold `key: value` lines"),
        ("# only a comment\n", "cfg.yml: the file is empty: must hold `key: value` lines"),
        ("- a\n", "cfg.yml:1: the file must hold `key: value` lines: it holds a list"),
        ("just text\n", "cfg.yml:1: the file must hold `key: value` lines: it holds a single value"),
    ],
)
def test_read_refuses_with_the_line(write, content, message):
    assert refusal(write(content)) == message


def test_read_of_alias_bomb_ends_early(write):
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12))
    started = time.perf_counter()
    assert "more than 100,000 values" in refusal(write(f"l0: &l0 [x]\n{levels}\n"))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("content", ["a: " + "[" * 400_000, "".join(" " * n + "a:\n" for n in range(900))])
def test_read_of_deep_nesting_is_refused(write, content):
    assert "nested deeper than 64 levels" in refusal(write(content))


def test_read_of_nested_aliases_is_refused_when_deep(write):
    deep = "[" * 50 + "]" * 50
    assert refusal(write(f"a: &a {deep}\nb: {'[' * 50}*a{']' * 50}\n")).startswith("cfg.yml:2: nested deeper")


def test_read_of_large_file_is_refused(write):
    assert "larger than 1 MiB" in refusal(write("a: " + "x" * 2**20))


def test_read_of_missing_file_names_near_ones(write):
    write("a: 1")
    assert refusal(Path("cgf.yml")) == "cgf.yml: there is no such file; . has cfg.yml"


@pytest.mark.parametrize(
    "content",
    [
        "a: 1\nhub_token: hf_canary0\n",
        "a: 1\nbase_model: hf_AbCdEfGhIjKlMnOpQrStUvWxYz\n",
        "a: 1\nenv: {WANDB_API_KEY: canary0}\n",
        "a: 1\npath: https://u:hf_AbCdEfGhIjKlMnOpQrStUvWxYz@huggingface.co/x\n",
    ],
)
def test_read_refuses_secrets_without_showing_them(write, content):
    message = refusal(write(content))
    assert message.startswith("cfg.yml:2: ")
    assert "looks like a secret" in message
    assert "canary" not in message
    assert "hf_Ab" not in message


@pytest.mark.parametrize(
    "line", ["path: hf_data/train.jsonl", "hf_use_auth_token: true", "hub_token:", "secrets: [HF_TOKEN]"]
)
def test_read_takes_names_that_only_sound_like_secrets(write, line):
    assert read(write(f"{line}\n")).data


class Inner(Section):
    rank: Annotated[int, Field(ge=1)] = 1
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    kind: Literal["lora", "full"] = "lora"


class Outer(Section):
    name: str
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()
    words: tuple[str, ...] | str | None = None
    is_on: bool = False


def problems(file: YamlFile) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(file.data)
    return [str(problem) for problem in to_problems(caught.value, file, Outer)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: 5", "cfg.yml:1: name = 5: must be text; put it in quotes"),
        ("inner: {rank: 1}", "cfg.yml: `name` is missing"),
        ("name: x\ninner:\n  rank: 0", "cfg.yml:3: inner.rank = 0: must be at least 1"),
        ("name: x\ninner: {rank: 1.5}", "cfg.yml:2: inner.rank = 1.5: must be a whole number"),
        ("name: x\ninner: {share: 1}", "cfg.yml:2: inner.share = 1: must be below 1"),
        (
            "name: x\ninner: {kind: lorra}",
            "cfg.yml:2: inner.kind = 'lorra': must be lora or full; did you mean `lora`?",
        ),
        ("name: x\ninner: 3", "cfg.yml:2: inner = 3: must be a mapping"),
        ("name: x\nitems:\n- {rank: 1}\n- {rnak: 2}", "cfg.yml:4: items.1.rnak: unknown key; did you mean `rank`?"),
        ("name: x\nzzz: 1", "cfg.yml:2: zzz: unknown key; known here: name, inner, items, words, is_on"),
        ("name: x\nwords: [1]", "cfg.yml:2: words.0 = 1: must be text; put it in quotes"),
        ("name: x\nwords: {a: 1}", "cfg.yml:2: words = {a}: must be a list or text"),
        ("name: x\nis_on: maybe", "cfg.yml:2: is_on = 'maybe': must be true or false"),
    ],
)
def test_to_problems_speaks_plainly(write, text, sentence):
    assert problems(read(write(text))) == [sentence]


def test_to_problems_reports_all_at_once(write):
    found = problems(read(write("nmae: x\nitems:\n- {rank: 0, share: 2}\n")))
    assert found == [
        "cfg.yml: `name` is missing",
        "cfg.yml:3: items.0.rank = 0: must be at least 1",
        "cfg.yml:3: items.0.share = 2: must be below 1",
        "cfg.yml:1: nmae: unknown key; did you mean `name`?",
    ]


def test_value_from_an_option_is_placed_there(write):
    file = read(write("name: x\nitems: [{rank: 1}]\n")).with_value(("items", 0, "rank"), 0, "--set")
    assert problems(file) == ["--set: items.0.rank = 0: must be at least 1"]


def test_with_value_leaves_the_first_file_alone(write):
    file = read(write("name: x\nitems: [{rank: 1}]\n"))
    changed = file.with_value(("items", 1, "rank"), 2, "--set")
    assert changed.data["items"] == [{"rank": 1}, {"rank": 2}]
    assert file.data["items"] == [{"rank": 1}]


def test_with_value_beyond_the_list_is_refused(write):
    with pytest.raises(ConfigError, match="no item 7: the list has 1"):
        read(write("items: [{rank: 1}]\n")).with_value(("items", 7, "rank"), 2, "--set")


def test_show_value_is_short_and_hides_secrets():
    assert show_value("hf_AbCdEfGhIjKlMnOpQrStUvWxYz") == "'***'"
    assert len(show_value("x" * 500)) == 62
    assert show_value([1, None, True, "a", 5]) == "[1, null, true, 'a', ...]"

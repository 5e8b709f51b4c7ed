"""docs/formats.md names every type and every template, and no others; what its examples and tables say is so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from byte_tokenizer import save_byte_tokenizer

from ftl.cli import app
from ftl.formats.example import Family, RowError, Turn
from ftl.formats.format import ABSENT, INLINE
from ftl.formats.render import FORMATS
from ftl.formats.templates import TEMPLATES
from ftl.tokens import ChatTemplate, TokenizerView

DOC = (Path(__file__).parents[3] / "docs/formats.md").read_text("utf-8")

HEADINGS: dict[Family, str] = {
    "sft": "## Instructions and texts",
    "dpo": "### dpo, ipo, simpo",
    "orpo": "### orpo",
    "kto": "### kto",
    "reward": "### Reward models",
    "prm": "### Process reward models",
    "kd": "### Distillation",
    "grpo": "### Prompts",
}
IN_WORDS = {ABSENT: "*no type*", INLINE: "*a mapping*"}

QUESTION, ANSWER = Turn("user", "Q", False), Turn("assistant", "A", True)
TOOL = {"type": "function", "function": {"name": "swim", "description": "", "parameters": {}}}


def section(heading: str) -> str:
    """The text below a heading, down to the next one of its level or above."""
    level = heading.index(" ")
    return re.split(rf"\n#{{1,{level}}} ", DOC.split(f"\n{heading}\n")[1])[0]


def table_rows(text: str, first: str) -> Iterator[list[str]]:
    """The cells of each row of the tables whose first column is called that."""
    is_wanted = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        is_wanted = bool(cells) and (is_wanted or cells[0] == first)
        if is_wanted and cells[0] not in (first, "---"):
            yield cells


def names_in(cell: str) -> list[str]:
    return [name.strip("`") for name in re.findall(r"`[^`]+`|\*[^*]+\*", cell)]


def said_of_templates() -> dict[str, tuple[str, str]]:
    """Template -> what its row says of tools and of reasoning."""
    rows = table_rows(section("## Chat templates"), "template")
    return {name: (tools, reasoning) for names, _, tools, reasoning in rows for name in names_in(names)}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TokenizerView:
    return TokenizerView.load(save_byte_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.mark.parametrize("family", FORMATS)
def test_types_of_a_family_are_named_once_each(family: Family) -> None:
    named = [name for cells in table_rows(section(HEADINGS[family]), "type") for name in names_in(cells[0])]
    assert sorted(named) == sorted(IN_WORDS.get(name, name) for name in FORMATS[family])


def test_templates_are_named() -> None:
    assert sorted(said_of_templates()) == sorted(TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_does_with_tools_and_reasoning_what_its_row_says(name: str, view: TokenizerView) -> None:
    template = ChatTemplate(TEMPLATES[name], view)
    tools, reasoning = said_of_templates()[name]
    thoughtful = Turn("assistant", "A", True, {"reasoning_content": "because"})
    assert ("because" in template.render((QUESTION, thoughtful))) == (reasoning == "yes")
    if tools == "refused":
        with pytest.raises(RowError, match="tools are not supported"):
            template.render((QUESTION, ANSWER), (TOOL,))
    else:
        assert ("swim" in template.render((QUESTION, ANSWER), (TOOL,))) == (tools == "yes")


@pytest.mark.parametrize("heading", ["### A mapping", "### A Python function"])
def test_example_becomes_what_is_shown(
    heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = dict(re.findall(r"```\w+ (\S+)\n(.*?)```", section(heading), re.DOTALL))
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    save_byte_tokenizer(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    app(["preview", "cfg.yml", "--json"], standalone_mode=False)
    rows = [json.loads(line)["segments"] for line in capsys.readouterr().out.splitlines()]
    (shown,) = re.findall(r"```text\n(.*?)```", section(heading), re.DOTALL)
    assert "\n\n".join(map(marked, rows)) + "\n" == shown


def marked(segments: list[dict[str, str | bool]]) -> str:
    """The text with its trained parts between the marks that `ftl preview` prints without colours."""
    return "".join(f"{{+{part['text']}+}}" if part["train"] else str(part["text"]) for part in segments)

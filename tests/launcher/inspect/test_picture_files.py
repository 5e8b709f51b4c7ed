"""Pictures on the laptop: found, looked at, told with their row, and put into the bundle."""

import json
from pathlib import Path
from typing import Any

import pytest
from letters import MakeConfig

from ftl import bundle
from ftl.cli import app
from ftl.config.load import load_train
from ftl.errors import ConfigError
from ftl.inspect.pictures import all_pictures
from ftl.references import references
from ftl.sources.pictures import name_in_bundle

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
TEMPLATE = (
    "{% for m in messages %}{% for part in m.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}</s>{% endfor %}"
)
KEYS = {"processor_type": "AutoProcessor", "chat_template": "jinja", "chat_template_jinja": TEMPLATE}


def row(*parts: dict[str, Any]) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": "what?"}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "cat"}]}


def image(path: str) -> dict[str, Any]:
    return {"type": "image", "path": path}


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Write the config of a base that sees pictures, with these rows."""

    def make(*rows: dict[str, Any], **keys: Any) -> Path:
        path = make_config(list(rows), dataset={"type": "chat_template"}, **{**KEYS, **keys})
        (tmp_path / "model" / "config.json").write_text('{"model_type": "llava", "vision_config": {}}')
        (tmp_path / "a.png").write_bytes(PNG)
        return path

    return make


def problems(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    app(["check", str(path), "--json", "--no-network"], standalone_mode=False)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [event["text"] for event in events if event["event"] == "problem"]


def test_rows_whose_pictures_are_there_are_right(config, capsys) -> None:  # type: ignore[no-untyped-def]
    assert problems(config(row(image("a.png")), row()), capsys) == []


def test_missing_picture_and_one_that_is_none_are_told_with_their_row(config, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "b.png").write_text("<html>")
    found = problems(config(row(image("a.png")), row(image("none.png")), row(image("b.png"))), capsys)
    assert found == [
        f"rows.jsonl:2: picture none.png: no such file in {tmp_path}",
        "rows.jsonl:3: picture b.png is no picture: must be PNG, JPEG, WebP, GIF, BMP or TIFF",
    ]


def test_template_without_places_for_pictures_is_told(config, capsys) -> None:  # type: ignore[no-untyped-def]
    texts = TEMPLATE.replace("<image>", "")
    (found,) = problems(config(row(image("a.png")), chat_template_jinja=texts), capsys)
    assert found.startswith("rows.jsonl:1: the chat template prints no place for pictures")


def test_base_that_sees_no_pictures_is_told(config, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = config(row(image("a.png")))
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (found,) = problems(path, capsys)
    assert "processor_type: AutoProcessor: needs a base that sees pictures, and base_model is a llama" in found


def test_bundle_holds_each_picture_once_by_the_name_that_the_run_looks_for(config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.JPG").write_bytes(b"\xff\xd8\xff" + bytes(20))
    loaded = load_train(config(row(image("a.png")), row(image("sub/c.JPG"), image("a.png"))))
    files = all_pictures(loaded)
    expected = {"a.png": tmp_path / "a.png", "sub/c.JPG": tmp_path / "sub" / "c.JPG"}
    assert files == {name_in_bundle("datasets.0", given): path for given, path in expected.items()}
    refs, _ = references(loaded.config, loaded.path)
    with_pictures, without = bundle.pack(loaded.config, refs, files), bundle.pack(loaded.config, refs)
    assert with_pictures.files.items() >= files.items()
    assert with_pictures.bundle.sha256 != without.bundle.sha256


def test_run_is_not_started_without_its_pictures(config) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"rows.jsonl:1: picture none.png: no such file"):
        all_pictures(load_train(config(row(image("none.png")))))

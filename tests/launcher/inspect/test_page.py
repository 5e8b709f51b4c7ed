"""The page of `ftl preview --html`: what it says, and in headless Chromium what it does."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from letters import MakeConfig

from ftl.cli import app

HOSTILE = [
    "<script>document.title = 'taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "</span></mark></div></article><svg onload=\"document.title='taken'\">",
    "' onmouseover='document.title=1' x='",
    "&lt;script&gt; &amp; <!-- --> <style>*{display:none}</style>",
]


class Elements(HTMLParser):
    """The tags and attributes of a page, and its text without style sheets."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._is_style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._is_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._is_style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._is_style else data


@pytest.fixture
def page(make_config: MakeConfig, tmp_path: Path):  # type: ignore[no-untyped-def]
    """The path of the page of such rows."""

    def write(rows, **keys):  # type: ignore[no-untyped-def]
        config = make_config(rows, **{"sequence_len": 4096, **keys})
        app(["preview", str(config), "-n", "100", "--html", "page.html"], standalone_mode=False)
        return tmp_path / "page.html"

    return write


@pytest.fixture
def chromium() -> str:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return program


def rendered(chromium: str, page: Path, *options: str, width: int = 1200) -> str:
    """The document after Chromium has loaded it."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--virtual-time-budget=2000"]
    command = [chromium, *flags, *options, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def segments(asked: str, told: str) -> dict[str, object]:
    return {"segments": [{"text": asked, "label": False}, {"text": told, "label": True}]}


def test_trained_text_is_marked_and_counted(page) -> None:  # type: ignore[no-untyped-def]
    html = page([segments("ask ", "tell")], dataset={"type": "input_output"}).read_text()
    assert "1 row, 8 tokens, 4 trained (50.0%)" in html
    (marked,) = re.findall(r"<mark>(<span.*?)</mark>", html)
    assert re.sub(r"<.*?>", "", marked) == "tell"


def test_character_of_several_tokens_is_shown_whole_with_all_its_ids(page) -> None:  # type: ignore[no-untyped-def]
    html = page([{"text": "☕"}]).read_text()
    (title,) = re.findall(r'<span title="([^"]*)">☕</span>', html)
    assert title.count("id ") == 3


def test_rows_that_give_nothing_say_why(page) -> None:  # type: ignore[no-untyped-def]
    html = page(["{broken", {"segments": []}], dataset={"type": "input_output"}).read_text()
    assert "cannot be used: rows.jsonl:1: " in html
    assert "dropped: 0 tokens, fewer than 2" in html


def test_page_needs_nothing_from_elsewhere_and_runs_nothing(page) -> None:  # type: ignore[no-untyped-def]
    elements = Elements(page([{"text": text} for text in HOSTILE]).read_text()).found
    assert not {tag for tag, _ in elements} & {"script", "img", "svg", "link", "iframe", "object", "base", "form"}
    attributes = {name for _, attrs in elements for name in attrs}
    assert not {name for name in attributes if name.startswith("on")} | attributes & {"src", "href", "style"}


def test_text_of_rows_is_shown_as_it_is(page) -> None:  # type: ignore[no-untyped-def]
    text = Elements(page([{"text": text} for text in HOSTILE]).read_text()).text
    assert all(hostile in text for hostile in HOSTILE)


def test_chromium_runs_nothing_that_rows_bring(page, chromium: str) -> None:  # type: ignore[no-untyped-def]
    document = rendered(chromium, page([{"text": text} for text in HOSTILE]))
    assert "<title>cfg.yml: rows as the model sees them</title>" in document
    assert document.count("<article>") == len(HOSTILE)


@pytest.mark.parametrize("width", [360, 1200])
def test_page_is_no_wider_than_the_screen(page, chromium: str, tmp_path: Path, width: int) -> None:  # type: ignore[no-untyped-def]
    rows = [{"text": "x" * 500}, {"text": "many words " * 100}, {"text": "\n\tindented\n"}, "{broken" + "y" * 300]
    shown = page(rows)
    # Chromium makes no window narrower than 500, so that a phone is a frame. The frame tells how wide its page is.
    shown.write_text(shown.read_text().replace("<details>", "<details open>"))
    (tmp_path / "phone.html").write_text(
        f'<title>?</title><iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe>'
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument.documentElement;"
        " document.title = `${page.scrollWidth} of ${page.clientWidth}`; }</script>"
    )
    document = rendered(
        chromium, tmp_path / "phone.html", "--allow-file-access-from-files", "--hide-scrollbars", width=1300
    )
    assert f"<title>{width} of {width}</title>" in document

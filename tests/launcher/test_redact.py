"""What becomes *** in text that somebody reads."""

import base64
import io
from collections.abc import Callable

import pytest

from ftl import redact
from ftl.redact import RedactedStream, has_secret_form, hide, redacted, redacted_data, settled, settled_words


@pytest.fixture(autouse=True)
def knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_named", set())
    monkeypatch.setattr(redact, "_values", set())


@pytest.mark.parametrize(
    "text, shown",
    [
        ("token hf_AbCdEfGhIjKlMnOpQrSt.", "token ***."),
        ("key=sk-proj-AbCdEfGhIjKlMnOp1234", "key=***"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("GET https://ann:pass/word@host/x", "GET https://ann:pass/word@host/x"),
        ("GET https://ann:pa55@host/x", "GET https://***@host/x"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Date=20260101&X-Amz-Signature=abc123&x=1",
            "https://b.s3.amazonaws.com/k?X-Amz-Date=20260101&X-Amz-Signature=***&x=1",
        ),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ("hf_raise_for_status(response) in task-manager-of-everything", None),
        ("https://host:8080/a@b and s3://bucket/key", None),
    ],
)
def test_text_of_a_secrets_form_is_hidden_and_nothing_else(text: str, shown: str | None) -> None:
    assert redacted(text) == (shown or text)
    assert has_secret_form(text) == (redacted(text) != text)


def test_values_of_the_environment_are_hidden_in_each_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cr/t+v")
    monkeypatch.setenv("MY_PASSWORD", "abc")  # too short to be told from a word
    assert redacted("s3cr/t+v s3cr%2Ft%2Bv abc") == "*** *** abc"


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode], ids=["plain", "url-safe"])
def test_secret_in_base64_is_hidden_wherever_it_begins(
    before: str, encode: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cr?t>v~\u00fc-of-mine"
    monkeypatch.setenv("MY_TOKEN", secret)
    encoded = encode(f"{before}{secret} and more".encode()).decode()
    shown = redacted(f"[{encoded}]")
    # All but the characters that hold bits of the neighbours, and those of "and more".
    assert "***" in shown
    assert len(shown) <= len("[***]") + -(-len(before) * 4 // 3) + 1 + -(-len(" and more") * 4 // 3) + 4


@pytest.mark.parametrize(
    "text, settled_part, settled_words_part",
    [
        ("a line\nhalf of", "a line\n", "a line\nhalf "),
        ("10%\r20%", "10%\r", "10%\r"),
        ("all told\n", "all told\n", "all told\n"),
        ("Authorization: Bearer ", "", ""),
        ("with two wo", "", "with "),  # the secret is two words
        ("a\nfirst line of it\n", "a\n", "a\n"),
    ],
)
def test_only_what_no_later_text_can_make_secret_is_settled(
    text: str, settled_part: str, settled_words_part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "two words")
    monkeypatch.setenv("MY_KEY", "first line of it\nand the last")
    assert text[: settled(text)] == settled_part
    assert text[: settled_words(text)] == settled_words_part


def test_working_directory_and_places_of_keys_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PWD", "/somewhere/else")
    monkeypatch.setenv("MY_KEY", str(tmp_path))
    assert redacted(f"/somewhere/else {tmp_path}") == f"/somewhere/else {tmp_path}"


def test_named_variables_are_secrets_whatever_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE", "canary0")
    assert redacted("canary0") == "canary0"
    hide(["DATABASE"])
    assert redacted_data({"a": ["canary0", 1], "b": None}) == {"a": ["***", 1], "b": None}


def test_environment_of_a_job_is_hidden_by_whoever_starts_it() -> None:
    hide(["DATABASE"], {"DATABASE": "canary0", "HF_TOKEN": "canary1", "LEVEL": "canary2"})
    assert redacted("canary0 canary1 canary2") == "*** *** canary2"


def test_stream_hides_what_is_written_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary0")
    stream = io.StringIO()
    print("a canary0", file=RedactedStream(stream))
    assert stream.getvalue() == "a ***\n"

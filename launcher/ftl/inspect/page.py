"""Rows as one HTML page that needs nothing else: no script, no font, no picture, readable on a phone."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ftl.atomic import write_atomic
from ftl.inspect.datasets import Listed
from ftl.inspect.preview import Pieces, PreviewRow, characters, extent, runs

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #5b6470; --line: #d5dae1;
  --trained: #c9f2d4; --trained-text: #06371a; --zero: #fbe7a8; --bad: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --back: #12161c; --text: #e6eaf0; --soft: #9aa5b4; --line: #313a46;
  --trained: #14532d; --trained-text: #d7fbe3; --zero: #5c4708; --bad: #ff8a98; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: .9rem; font-weight: 600; margin: 0 0 .5rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-weight: 400; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; margin: 0 0 .75rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font: .875rem/1.6 ui-monospace, monospace; color: var(--soft);
  margin: 0 0 .5rem; }
mark { background: var(--trained); color: var(--trained-text); border-radius: .15rem; }
mark.zero { background: var(--zero); color: inherit; }
.text i::before { content: "\\21b5"; opacity: .55; font-style: normal; }
.text span:hover { outline: 1px solid currentColor; }
.bad { color: var(--bad); overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; padding: .25rem 0; }
.ids { display: flex; flex-wrap: wrap; gap: .25rem; font: .8rem/1.4 ui-monospace, monospace; }
.ids code { border: 1px solid var(--line); border-radius: .25rem; padding: 0 .25rem; overflow-wrap: anywhere;
  white-space: pre-wrap; font: inherit; }
.ids code.on { background: var(--trained); color: var(--trained-text); }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_page(path: Path, config: Path, shown: Sequence[tuple[Listed, Sequence[PreviewRow]]]) -> None:
    """Write the page; a file that is there is replaced."""
    write_atomic(path, page(config.name, shown).encode())


def page(title: str, shown: Sequence[tuple[Listed, Sequence[PreviewRow]]]) -> str:
    """The page with the rows of each dataset."""
    sections = "".join(_section(dataset, rows) for dataset, rows in shown)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}: rows as the model sees them</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1>"
        '<p>Rows as the model sees them: <mark>trained</mark>, <span class="soft">not trained</span>. '
        "Point at a token for its id, or open the list of tokens below a row.</p></header>\n"
        f"<main>{sections}</main></body></html>\n"
    )


def _section(dataset: Listed, rows: Sequence[PreviewRow]) -> str:
    type = dataset.section.type
    kind = type if isinstance(type, str) else "own format" if type else ""
    sequences = [(pieces, row) for row in rows for sample in row.samples for pieces in sample.values()]
    tokens = sum(len(pieces) for pieces, _ in sequences)
    trained = sum(piece.is_trained for pieces, row in sequences if not row.is_scored for piece in pieces)
    rows_shown = "1 row" if len(rows) == 1 else f"{len(rows):,} rows"
    counts = f"{rows_shown}, {tokens:,} tokens, {trained:,} trained ({trained / max(tokens, 1):.1%})"
    head = f'<h2>{escape(dataset.key)} {escape(dataset.name)} <span class="soft">{escape(kind)}<br>{counts}</span></h2>'
    return f"<section>{head}\n" + "".join(_article(row) for row in rows) + "</section>\n"


def _article(row: PreviewRow) -> str:
    head = f'row {row.row} <span class="soft">&middot; {escape(row.where)}'
    if row.error is not None or row.dropped is not None:
        what, why = ("cannot be used", row.error) if row.error is not None else ("dropped", row.dropped)
        return f'<article><h3>{head}</span></h3><p class="bad">{what}: {escape(str(why))}</p></article>\n'
    parts = []
    for number, sample in enumerate(row.samples, start=1):
        of = f" sample {number} of {len(row.samples)}" if len(row.samples) > 1 else ""
        parts.append(_sample(sample, row, f"{head}{of}"))
    return "".join(parts)


def _sample(sample: Mapping[str, Pieces], row: PreviewRow, head: str) -> str:
    parts = []
    for name, pieces in sample.items():
        verdict = row.texts.get("label") if row.texts else None
        said = name or ("" if verdict is None else f"label {str(verdict).lower()}")
        facts = f"{escape(said)} &middot; {extent(pieces, row)}</span>"
        parts.append(f'<h3>{head} {facts}</h3>\n<div class="text">{_text(pieces, row)}</div>\n{_token_list(pieces)}')
    return f"<article>{''.join(parts)}</article>\n"


def _text(pieces: Pieces, row: PreviewRow) -> str:
    shown = []
    for run, mark in runs(pieces, by_label=row.has_step_labels):
        inner = "".join(_span(text, tokens) for text, tokens in characters(run))
        if mark is None or mark is False or row.is_scored:
            shown.append(inner)
        else:
            shown.append(f'<mark class="zero">{inner}</mark>' if mark == 0 else f"<mark>{inner}</mark>")
    return "".join(shown)


def _span(text: str, tokens: Pieces) -> str:
    said = ", ".join(f"id {piece.id} label {piece.label}" for piece in tokens)
    return f'<span title="{said}">{_escaped(text)}</span>'


def _token_list(pieces: Pieces) -> str:
    codes = []
    for piece in pieces:
        text = _escaped(piece.text.decode(errors="backslashreplace"))
        kind = ' class="on"' if piece.is_trained else ""
        codes.append(f"<code{kind}>{text}({piece.label}, {piece.id})</code>")
    return f'<details><summary>tokens</summary><div class="ids">{"".join(codes)}</div></details>\n'


def _escaped(text: str) -> str:
    """The text for HTML; a line break is also drawn, since it may be trained."""
    return escape(text, quote=True).replace("\r", "&#13;").replace("\n", "<i></i>\n")

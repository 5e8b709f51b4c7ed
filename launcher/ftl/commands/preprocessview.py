"""What `ftl preprocess` shows: counts of each dataset, and documents token by token."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from ftl.console import console
from ftl.contract import DatasetUse

_MASKED = -100
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ALWAYS = ("rows", "samples", "tokens", "trained")
_COUNTS = (*_ALWAYS, "too_long", "too_short", "duplicates", "truncated", "split", "untrained")


def show_data(
    uses: Sequence[DatasetUse],
    data: Mapping[str, Any],  # Any: see ftl.contract.Event
    names: Mapping[str, str],
) -> None:
    """A line for each dataset, then what they came to and where the tokens are. `names` are the user's, by key."""
    if not uses:
        return
    for use in uses:
        counts = {name: getattr(use, name) for name in _COUNTS}
        told = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count or name in _ALWAYS]
        origin = "found in the cache" if use.was_cached else "tokenised now"
        line = f" {names.get(use.key, use.label)}: {', '.join(told)}; {origin}"
        console.print(Text.assemble((use.key, "bold"), line), soft_wrap=True)
    for split, extent in (("train", data.get("train")), ("eval", data.get("eval"))):
        if extent:
            rows = f" {extent['documents']:,} documents in {extent['rows']:,} rows"
            filled = f"{extent['tokens']:,} tokens, {extent['fill']:.2%} full"
            console.print(Text.assemble((split, "bold"), f"{rows}, {filled}"), soft_wrap=True)
    console.print(Text.assemble(("cache", "bold"), f" {data.get('cache')}"), soft_wrap=True)


def show_documents(lines: Sequence[str], *, text_only: bool, as_json: bool) -> None:
    """Documents, each a JSON list of [text, label, id]: green is trained, red is masked."""
    for line in lines:
        if as_json:
            sys.stdout.write(json.dumps({"document": json.loads(line)}) + "\n")
            continue
        tokens = json.loads(line)
        shown = Text()
        for text, label, id in tokens:
            visible = _UNPRINTED.sub(_escaped, text)
            style = "red" if label == _MASKED else "green"
            shown.append(visible if text_only else f"{visible}({label}, {id})", style)
            shown.append("" if text_only else " ")
        console.print(shown, soft_wrap=True)
        num_labels = sum(label != _MASKED for _, label, _ in tokens)
        console.print(f"Total input len: {len(tokens)}\nCount of labels: {num_labels}\n", highlight=False)


def _escaped(found: re.Match[str]) -> str:
    return {"\n": "\\n", "\t": "\\t"}.get(found[0], f"\\u{ord(found[0]):04x}")

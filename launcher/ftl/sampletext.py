"""Samples of what a model writes, as lines for a terminal."""

from collections.abc import Mapping, Sequence

_WIDTH = 110
_SHOWN = 3


def sample_lines(samples: Sequence[Mapping[str, str]]) -> list[str]:
    """Three lines a sample: the end of its prompt, and the beginnings of what was expected and what was written."""
    lines = []
    for sample in samples[:_SHOWN]:
        prompt = " ".join(str(sample.get("prompt", "")).split())
        lines.append("  prompt     " + (prompt if len(prompt) <= _WIDTH else f"...{prompt[3 - _WIDTH :]}"))
        for name in ("expected", "generated"):
            text = " ".join(str(sample.get(name, "")).split())
            lines.append(f"  {name:<10} " + (text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."))
    if len(samples) > _SHOWN:
        lines.append(f"  and {len(samples) - _SHOWN} more in events.jsonl")
    return lines

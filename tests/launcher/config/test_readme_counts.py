"""README's table of keys is what the code knows."""

from pathlib import Path

from ftl.config.flat import counts

README = Path(__file__).parents[3] / "README.md"
ROWS = {"top": "of a config", "dataset": "of a dataset", "nested": "inside other keys"}


def table() -> str:
    lines = ["| keys | honoured | read in today's words | set aside with a note | not built yet | refused |"]
    lines.append("|---|---|---|---|---|---|")
    for level, found in counts().items():
        cells = [found[name] for name in ("derived", "convert", "ignored", "unbuilt", "refused")]
        lines.append(f"| {ROWS[level]} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def test_readme_counts_the_keys_that_the_code_knows():
    assert table() in README.read_text(), f"put this into README.md:\n{table()}"

"""ftl merge-lora: the base and the adapter trained on it as one model."""

from pathlib import Path

from ftl.commands import finished
from ftl.commands.finished import How
from ftl.commands.overrides import read_overrides
from ftl.config.load import load_train

MERGED_DIR = "merged"
_OPTIONS = ("--lora-model-dir", "--cloud", "--set", "--detach", "--dry-run", "--json")


def run(config: Path, *, flags: list[str], assignments: list[str], adapter: Path | None, how: How) -> int:
    """Merge the adapter of a finished training of CFG, or that in `adapter`, into its base below output_dir."""
    loaded = load_train(config, read_overrides(flags, assignments, _OPTIONS))
    merging = finished.on_adapter(loaded, adapter)
    return finished.start(loaded, merging, "merge", finished.output_dir(loaded) / MERGED_DIR, how)

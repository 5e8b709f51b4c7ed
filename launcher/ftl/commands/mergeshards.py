"""ftl merge-sharded-fsdp-weights: a model that was written in shards, as whole safetensors."""

from pathlib import Path

from ftl.commands import finished
from ftl.commands.finished import How
from ftl.commands.merge import MERGED_DIR
from ftl.commands.overrides import read_overrides
from ftl.config.load import load_train

_OPTIONS = ("--shards-dir", "--cloud", "--set", "--detach", "--dry-run", "--json")


def run(config: Path, *, flags: list[str], assignments: list[str], shards: Path | None, how: How) -> int:
    """Put together the shards of a finished training of CFG, or those in `shards`, below output_dir."""
    loaded = load_train(config, read_overrides(flags, assignments, _OPTIONS))
    merging = finished.on_shards(loaded, shards)
    return finished.start(loaded, merging, "merge-shards", finished.output_dir(loaded) / MERGED_DIR, how)

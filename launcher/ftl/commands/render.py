"""ftl render: the exact task of a run, for whoever wants to take it elsewhere."""

import sys
from pathlib import Path

from ftl import bundle, jobs
from ftl.cloudfile import load_cloud
from ftl.commands import show
from ftl.commands.overrides import read_overrides
from ftl.commands.prepare import Preparation, name_of
from ftl.config.load import load_train
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.render import OTHERS, OWN, TARGETS
from ftl.render.asked import asked
from ftl.yamlout import dump

OPTIONS = ("--cloud", "--set", "--to")


def run(config: Path, *, flags: list[str], assignments: list[str], cloud: Path | None, target: str) -> int:
    """Print the task as YAML. The bundle that it names is written; nothing is started."""
    if target not in TARGETS:
        raise ConfigError(Problem("--to", target, f"must be one of {', '.join(TARGETS)}"))
    loaded = load_train(config, read_overrides(flags, assignments, OPTIONS))
    backend = load_cloud(cloud)
    provider = backend.cloud.provider
    if target in OWN and OWN[target] != provider:
        told = f"is for {provider}, and --to {target} prints the request of a cloud file for {OWN[target]}"
        remedy = f"give one: `ftl fetch cloud_templates` has examples; or --to {', '.join(OTHERS)}"
        raise ConfigError(Problem("--cloud", str(cloud or "none given"), told, remedy))
    prepared = Preparation(backend).prepare(loaded)
    spec = prepared.spec(backend, jobs.new_id(name_of(loaded.path)))
    packed = prepared.packed.bundle
    if target in OWN:
        text = dump(backend.describe(spec, packed, jobs.runs_dir() / spec.run_id))
    else:
        text = OTHERS[target](asked(backend.cloud, spec, packed, target))
    bundle.write(prepared.packed)
    for note in prepared.notes:
        show.note(note)
    sys.stdout.write(text)
    return ExitCode.DONE

"""ftl lm-eval: a finished model measured with the tasks of lm-eval."""

import time
from pathlib import Path

from ftl.commands import finished
from ftl.commands.finished import How
from ftl.commands.overrides import read_overrides
from ftl.config.load import load_train
from ftl.config.rules.harness import tasks_have_names
from ftl.errors import ConfigError, Problem
from ftl.inspect.datasets import located

RESULTS_DIR = "lm_eval_results"
_OPTIONS = ("--tasks", "--cloud", "--set", "--detach", "--dry-run", "--json")


def run(config: Path, *, flags: list[str], assignments: list[str], tasks: str | None, how: How) -> int:
    """Measure the model that CFG has trained, or that `lm_eval_model` names; `tasks` are those in place of CFG's."""
    loaded = load_train(config, read_overrides(flags, assignments, _OPTIONS))
    measuring = finished.on_model(loaded, loaded.config.harness.model, "lm_eval_model")
    if tasks is not None:
        named = tuple(name.strip() for name in tasks.split(",") if name.strip())
        measuring = measuring.model_copy(update={"harness": measuring.harness.model_copy(update={"tasks": named})})
    if not measuring.harness.tasks:
        remedy = "name some, e.g. `lm_eval_tasks: [arc_easy, hellaswag]`, or with --tasks arc_easy,hellaswag"
        raise ConfigError(Problem("lm_eval_tasks", allowed="is missing", remedy=remedy))
    if problem := tasks_have_names(measuring):
        raise ConfigError(located(problem, loaded))
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
    return finished.start(loaded, measuring, "lm-eval", finished.output_dir(loaded) / RESULTS_DIR / stamp, how)

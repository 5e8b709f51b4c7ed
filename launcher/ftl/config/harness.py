"""The tasks that finished models are measured with, by EleutherAI's lm-eval."""

from typing import Annotated

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class HarnessSection(Section):
    tasks: Annotated[tuple[str, ...], Flat("lm_eval_tasks")] = ()
    """Tasks of lm-eval by name, such as arc_easy, or mmlu:5 with five examples; or ./a folder of your own, with YAML
    files and their data."""
    batch_size: Annotated[int, Flat("lm_eval_batch_size"), Field(ge=1)] = 8
    """Texts that are computed together."""
    after_training: Annotated[bool, Flat("lm_eval_post_train")] = True
    """Measure the finished model at the end of its training; else with `ftl lm-eval` alone."""
    model: Annotated[str | None, Flat("lm_eval_model")] = None
    """What `ftl lm-eval` measures: a directory or a Hub repository; the model in output_dir when absent."""


def is_folder(task: str) -> bool:
    """Whether an entry of `tasks` is a path rather than a name."""
    return task.startswith((".", "/", "~")) or "/" in task


def name_and_examples(task: str) -> tuple[str, int | None]:
    """The name of a task, and how many examples come before each of its questions; None as the task itself says.

    Raises ValueError for a number that is none.
    """
    name, colon, number = task.rpartition(":")
    if not colon:
        return task, None
    if not number.isdigit() or not name:
        raise ValueError(f"{task}: must be the name of a task, or name:examples such as mmlu:5")
    return name, int(number)

"""What is written, evaluated and logged, and when."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

Every = Annotated[float, Field(gt=0)]


class OutputSection(Section):
    output_dir: Annotated[str, Flat("output_dir"), Field(min_length=1)] = "./model-out"
    """Where the finished model is put on the launching machine."""
    save_strategy: Annotated[Literal["steps", "epoch", "best", "no"] | None, Flat("save_strategy")] = None
    """When checkpoints are written; steps if save_steps is given, else each epoch; best: after each evaluation that is
    better than all before. Stopping saves in any case."""
    save_steps: Annotated[Every | None, Flat("save_steps")] = None
    """Every so many steps, or this share of all steps if below 1."""
    saves_per_epoch: Annotated[int | None, Flat("saves_per_epoch"), Field(ge=1)] = None
    """Checkpoints in each epoch, evenly spaced."""
    save_total_limit: Annotated[int, Flat("save_total_limit"), Field(ge=1)] = 4
    """Newest checkpoints kept, and beside them that of the best evaluation where it decides."""
    eval_strategy: Annotated[Literal["steps", "epoch", "no"] | None, Flat("eval_strategy")] = None
    """When the evaluation set is scored; steps if eval_steps is given, else each epoch."""
    eval_steps: Annotated[Every | None, Flat("eval_steps")] = None
    """Every so many steps, or this share of all steps if below 1."""
    evals_per_epoch: Annotated[int | None, Flat("evals_per_epoch"), Field(ge=1)] = None
    """Evaluations in each epoch, evenly spaced."""
    logging_steps: Annotated[int, Flat("logging_steps"), Field(ge=1)] = 1
    """The loss is reported every so many steps, as the mean over them."""
    resume_from_checkpoint: Annotated[str | None, Flat("resume_from_checkpoint")] = None
    """A checkpoint directory written by ftl to start from. A run's own newer checkpoint wins."""

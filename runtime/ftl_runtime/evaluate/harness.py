"""Finished models measured with the tasks of EleutherAI's lm-eval, as others measure theirs.

lm_eval is imported only where there is something to measure: that takes seconds.
"""

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ftl.config.harness import HarnessSection, is_folder, name_and_examples
from ftl.config.train import TrainConfig
from ftl.contract import BUNDLE_SCHEME, MOUNT_SCHEME, Scores
from ftl.errors import BackendError, ConfigError
from ftl_runtime import preflight
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Context
from ftl_runtime.evaluate.generate import plain_attention
from ftl_runtime.merge.lora import load_finished
from ftl_runtime.output import finish_task, sealed_output
from ftl_runtime.train.args import compute_dtype

RESULTS_FILE = "results.json"
Results = dict[str, Any]  # Any: lm-eval's own, task -> numbers and texts


def lm_eval(cfg: TrainConfig, ctx: Context) -> None:
    """Measure the model that `cfg` names, and write the numbers to RUN/output and into the result."""
    if missing := preflight.missing_harness(cfg.harness):
        raise BackendError(missing)
    model, tokenizer, facts = load_finished(cfg, ctx)
    model.to(ctx.device.kind, compute_dtype(cfg.precision, ctx.device))  # type: ignore[arg-type]
    ctx.phase("measuring")
    found = measure(model, tokenizer, cfg.harness, ctx)
    with storage_errors(ctx.run_dir):
        with sealed_output(ctx, step=0) as stage:
            (stage / RESULTS_FILE).write_text(json.dumps(found, indent=1, default=str))
        finish_task(ctx, facts | {"tasks": ", ".join(found)}, scores_of(found))


def after_training(
    harness: HarnessSection, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype, ctx: Context
) -> Callable[[nn.Module], Scores] | None:
    """What measures the trained model, computing in `dtype`; None where that is not asked for.

    A training is not lost because a task could not be read or fetched: that is a warning, and there are no scores.
    """
    if not harness.tasks or not harness.after_training:
        return None

    def measured(model: nn.Module) -> Scores:
        ctx.phase("measuring")
        try:
            return scores_of(measure(model, tokenizer, harness, ctx, autocast=dtype))
        except Exception as error:
            ctx.warn(
                f"the model is trained and kept, but was not measured: {_first_line(error)}; "
                "`ftl lm-eval CFG` does that alone"
            )
            return {}

    return measured


def measure(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    harness: HarnessSection,
    ctx: Context,
    *,
    autocast: torch.dtype = torch.float32,
) -> Results:
    """What lm-eval says of each task, computed in the format of the weights, or in `autocast` where that is shorter.

    Raises ConfigError for a task that it does not know or cannot read.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    found: Results = {}
    held: Any = model  # Any: nn.Module does not know what transformers and peft add
    base = held.get_base_model() if hasattr(held, "get_base_model") else held
    with plain_attention(base):
        writer = HFLM(
            pretrained=held,
            tokenizer=tokenizer,
            batch_size=harness.batch_size,
            mixed_precision_dtype=None if autocast == torch.float32 else autocast,
        )
        loaded = TaskManager(include_defaults=False)  # they come loaded
        for num_examples, tasks in _by_examples(harness.tasks, ctx).items():
            given = simple_evaluate(
                writer, tasks=tasks, num_fewshot=num_examples, log_samples=False, task_manager=loaded
            )
            assert given is not None, "rank 0 is told what was found"
            found |= given["results"]
    return found


def scores_of(results: Results) -> Scores:
    """The numbers among what lm-eval says: acc, stderr of acc, exact_match (strict-match)."""
    found: Scores = {}
    for task, measures in results.items():
        numbers = {
            _shown(name): float(value)
            for name, value in measures.items()
            if "," in name and isinstance(value, int | float) and math.isfinite(value)
        }
        if numbers:
            found[task] = numbers
    return found


def _shown(name: str) -> str:
    measure, _, filter = name.partition(",")
    is_error = measure.endswith("_stderr")
    plain = measure.removesuffix("_stderr") + ("" if filter == "none" else f" ({filter})")
    return f"stderr of {plain}" if is_error else plain


def _by_examples(tasks: tuple[str, ...], ctx: Context) -> dict[int | None, list[Any]]:  # Any: tasks of lm-eval
    """Tasks by how many examples come before each question, None for as many as the task itself says."""
    from lm_eval.tasks import TaskManager

    found: dict[int | None, list[Any]] = {}
    known = None
    for number, given in enumerate(tasks):
        is_path = given.startswith((BUNDLE_SCHEME, MOUNT_SCHEME)) or is_folder(given)
        num_examples: int | None = None
        try:
            if is_path:
                loaded = _of_folder(ctx.resolve(given))
            else:
                known = known or TaskManager()
                name, num_examples = name_and_examples(given)
                built = known.load([name])
                loaded = [*built["groups"].values()] or [*built["tasks"].values()]
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise ConfigError(f"lm_eval_tasks.{number}: {given}: {_first_line(error)}") from error
        found.setdefault(num_examples, []).extend(loaded)
    return found


def _of_folder(folder: Path) -> list[Any]:  # Any: tasks of lm-eval
    """The tasks whose YAML files are in the folder. Paths of data in them count from there."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folder, include_defaults=False)
    if not manager.all_subtasks:
        raise ValueError("has no YAML file with a `task`")
    with contextlib.chdir(folder):
        return [*manager.load(list(manager.all_subtasks))["tasks"].values()]


def _first_line(error: Exception) -> str:
    told = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return told.strip().splitlines()[0] if told.strip() else type(error).__name__

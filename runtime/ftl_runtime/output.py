"""What a run leaves behind: RUN/output, whole or not at all, and after it RUN/result.json."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftl.contract import OUTPUT_DIR, RESULT_FILE, Scores, TaskResult
from ftl_runtime import preflight
from ftl_runtime.checkpoint import manifest
from ftl_runtime.context import Context


@contextmanager
def sealed_output(ctx: Context, *, step: int) -> Iterator[Path]:
    """A directory to write into, which becomes RUN/output with its manifest when the block ends without an error.

    An output of an earlier attempt, killed before its result, gives way as a whole.
    """
    _remove_leftovers(ctx.run_dir)
    stage = _beside(ctx.run_dir)
    final = ctx.run_dir / OUTPUT_DIR
    try:
        stage.mkdir()
        yield stage
        manifest.seal(stage, run_id=ctx.job.run_id, step=step)
        if final.exists():
            final.rename(_beside(ctx.run_dir))
        stage.rename(final)
        manifest.sync_directory(ctx.run_dir)
    finally:
        _remove_leftovers(ctx.run_dir)


def finish_task(ctx: Context, facts: dict[str, str], scores: Scores | None = None) -> None:
    """Write the result of a task on a finished model, whose presence means done."""
    result = TaskResult(
        run_id=ctx.job.run_id,
        attempt=ctx.job.attempt,
        task=ctx.job.task,
        seconds=ctx.seconds(),
        facts=facts,
        scores=scores or {},
        versions=preflight.versions(),
    )
    manifest.replace_synced(ctx.run_dir / RESULT_FILE, result.model_dump_json(indent=1).encode())
    ctx.emit("result", result.model_dump(mode="json"))


def _beside(run_dir: Path) -> Path:
    return run_dir / f".tmp-output-{uuid.uuid4().hex[:12]}"


def _remove_leftovers(run_dir: Path) -> None:
    for leftover in run_dir.glob(".tmp-output-*"):
        shutil.rmtree(leftover, ignore_errors=True)

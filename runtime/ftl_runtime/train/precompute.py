"""What the reference says of every row, found once before training: it then takes no memory and no time."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftl_runtime import ranks
from ftl_runtime.checkpoint import manifest
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Context
from ftl_runtime.data.compare import ComparedRow, ComparedRows, JudgedRows
from ftl_runtime.data.dataset import TokenRows
from ftl_runtime.data.stream import Stream
from ftl_runtime.data.training import TrainingData
from ftl_runtime.objectives.terms import Batch
from ftl_runtime.train.scoring import Inputs, ModelScorer, Reference

_DIRECTORY = "reference"

Collate = Callable[[list[ComparedRow]], Batch]


def with_reference(
    data: TrainingData,
    find_reference: Callable[[], Reference],
    collate: Collate,
    inputs: Inputs,
    *,
    batch_size: int,
    dtype: torch.dtype,
    ctx: Context,
) -> TrainingData:
    """The data with the log-probabilities that the reference gives to every answer.

    They are kept in the run directory, so that a resumed run reads the same numbers and asks for no reference.
    """
    splits = {"train": data.train, "eval": data.eval}
    missing = [name for name, rows in splits.items() if rows is not None and not _file(rows, ctx).exists()]
    if ranks.share(missing, ctx.device):
        ctx.phase("measuring the reference")
        measure = _Measure(find_reference(), collate, inputs, batch_size, dtype, ctx)
        for rows in splits.values():
            if rows is not None:
                measure(rows)
    ranks.wait(ctx.device)
    for rows in splits.values():
        if rows is not None:
            ctx.mesh.bring_file(_file(rows, ctx))
    train, evaluation = (None if rows is None else _known(rows, ctx) for rows in splits.values())
    assert train is not None
    return replace(data, train=train, eval=evaluation)


class _Measure:
    """Every rank takes its share of the batches, and the main one writes them down."""

    def __init__(
        self,
        reference: Reference,
        collate: Collate,
        inputs: Inputs,
        batch_size: int,
        dtype: torch.dtype,
        ctx: Context,
    ) -> None:
        self._scorer = ModelScorer(reference.model, inputs, reference)
        self._collate = collate
        self._batch_size = batch_size
        self._dtype = dtype
        self._ctx = ctx
        kind = ctx.device.kind
        if next(reference.model.parameters()).device.type != kind:
            reference.model.to(kind)

    def __call__(self, rows: Any) -> None:  # Any: as _compared takes them
        compared, device = _compared(rows), self._ctx.device
        starts = range(0, len(compared), self._batch_size)
        mine = {start: self._batch(compared, start) for start in starts[device.rank :: device.num_ranks]}
        found = {start: values for share in ranks.gather(mine, device) for start, values in share.items()}
        if device.is_main:
            file = _file(compared, self._ctx)
            with storage_errors(self._ctx.run_dir):
                file.parent.mkdir(exist_ok=True)
                temporary = file.with_suffix(".tmp.npy")
                np.save(temporary, np.concatenate([found[start] for start in starts]))
                temporary.rename(file)
                manifest.sync_directory(file.parent)

    def _batch(self, rows: ComparedRows | JudgedRows, start: int) -> np.ndarray:
        """[B, 2], of each text of each row."""
        kind = self._ctx.device.kind
        batch = self._collate([rows[row] for row in range(start, min(start + self._batch_size, len(rows)))])
        halves = [batch, batch["stranger"]] if "stranger" in batch else [batch]
        with torch.autocast(kind, dtype=self._dtype, enabled=self._dtype != torch.float32):
            values = torch.cat([self._scorer.reference(_moved(half, kind)) for half in halves])
        measured: np.ndarray = values.view(2, -1).T.float().cpu().numpy()
        return measured


def _moved(batch: Batch, kind: str) -> Batch:
    return {key: value.to(kind) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _known(rows: Any, ctx: Context) -> ComparedRows | JudgedRows:  # Any: as _compared takes them
    compared = _compared(rows)
    return replace(compared, reference_R2=np.load(_file(compared, ctx)))


def _compared(rows: TokenRows | ComparedRows | JudgedRows | Stream) -> ComparedRows | JudgedRows:
    assert isinstance(rows, ComparedRows | JudgedRows), "only such rows are compared with a reference"
    return rows


def _file(rows: Any, ctx: Context) -> Path:  # Any: as _compared takes them
    """Named by the rows; all else that decides the numbers is the same for a whole run."""
    tokens = _compared(rows).rows
    content = hashlib.sha256("".join(file.key for file in tokens.files).encode())
    for part in (tokens.documents_D3, tokens.packing.order_D, tokens.packing.row_offsets_R1):
        content.update(np.ascontiguousarray(part).tobytes())
    return ctx.run_dir / _DIRECTORY / f"{content.hexdigest()[:32]}.npy"

"""All the data of one training: rows from the cache or from a stream, in their order."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ftl.config.data import DataSection, DatasetSection
from ftl.config.train import TrainConfig
from ftl.contract import BUNDLE_SCHEME, SHOWN_FILE, DatasetUse
from ftl.formats.python import strategy_file, with_strategy_file
from ftl.sources import Source, open_source
from ftl.tokens import Recipe, TokenizerView
from ftl_runtime.checkpoint.provenance import public_name
from ftl_runtime.context import Context
from ftl_runtime.data.compare import ComparedRows, JudgedRows
from ftl_runtime.data.dataset import Open, Splits, TokenRows, build_splits
from ftl_runtime.data.layout import rows_of
from ftl_runtime.data.pictured import PicturedRows
from ftl_runtime.data.prompts import Prompt, PromptOrder, PromptRows, read_prompts
from ftl_runtime.data.push import configuration_of, open_target, push_rows
from ftl_runtime.data.sampler import BatchOrder, GivenOrder, LengthOrder, ReadingOrder
from ftl_runtime.data.stream import Mark, Stream, open_stream
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.train.progress import Progress

Rows = TokenRows | ComparedRows | JudgedRows | PicturedRows | PromptRows
_DOWNLOADS = "downloads"
Order = BatchOrder | GivenOrder | LengthOrder | PromptOrder | ReadingOrder


@dataclass(frozen=True)
class TrainingData:
    train: Rows | Stream
    eval: Rows | None
    order: Order
    used: tuple[DatasetUse, ...]


def open_data(cfg: TrainConfig, view: TokenizerView, progress: Progress, ctx: Context) -> TrainingData:
    """The data to train on, a stream from where `progress` left it. Raises ConfigError for data that cannot be used."""
    if cfg.objective.grpo is not None and cfg.objective.kind == "grpo":
        return _open_prompts(cfg, view, ctx, num_copies=cfg.objective.grpo.num_generations)
    seed = _seed(cfg)
    rows_per_batch = cfg.optim.micro_batch_size * ctx.device.num_copies
    evaluation: TokenRows | None = None
    used: tuple[DatasetUse, ...] = ()
    if cfg.data.datasets or cfg.data.test_datasets:
        splits = _build(cfg, view, ctx)
        evaluation, used = splits.eval, splits.used
        if splits.train is not None:
            order: Order = BatchOrder(len(splits.train), seed)
            if cfg.data.keep_order:
                order = GivenOrder(len(splits.train))
            elif cfg.data.group_by_length:
                order = LengthOrder(splits.train.row_lengths, rows_per_batch, seed)
            as_rows: Callable[[TokenRows], Rows] = partial(
                rows_of, OBJECTIVES[cfg.objective.kind].layout, sequence_len=cfg.data.sequence_len
            )
            if cfg.data.processor is not None:
                as_rows = partial(PicturedRows, keys=tuple(use.key for use in used), find=_in_bundle(ctx))
            return TrainingData(as_rows(splits.train), None if evaluation is None else as_rows(evaluation), order, used)
    assert cfg.optim.max_steps is not None, "config.rules asks for it beside pretraining_dataset"
    stream = open_stream(
        _with_programs(cfg.data, ctx),
        view,
        seed=seed,
        open=_finder(cfg, ctx, is_streamed=True),
        num_rows=cfg.optim.max_steps * cfg.optim.gradient_accumulation_steps * rows_per_batch,
        start=Mark.read(progress.stream) if progress.stream else None,
        emit=ctx.emit,
    )
    return TrainingData(stream, evaluation, ReadingOrder(len(stream)), (*used, *stream.used))


def _open_prompts(cfg: TrainConfig, view: TokenizerView, ctx: Context, *, num_copies: int) -> TrainingData:
    """All of them in memory: nothing is cached, because nothing of them is trained."""
    find = _finder(cfg, ctx)
    prompts: list[Prompt] = []
    used: list[DatasetUse] = []
    for number, dataset in enumerate(cfg.data.datasets):
        recipe = Recipe.of(dataset, cfg.data, cfg.objective.kind, view)
        key = f"datasets.{number}"
        found, use = read_prompts(key, dataset, find(dataset), recipe, view, cfg.data.sequence_len)
        if use.too_long:
            ctx.warn(f"{key}: {use.label}: {use.too_long} prompts left out, which fill sequence_len: raise it")
        prompts += found
        used.append(use)
    ctx.emit("data", {"datasets": [use.model_dump(mode="json") for use in used], "cache": str(ctx.cache_dir)})
    rows = PromptRows(tuple(prompts), num_copies)
    order = PromptOrder(
        rows,
        per_step=cfg.optim.micro_batch_size * cfg.optim.gradient_accumulation_steps,
        num_ranks=ctx.device.num_ranks,
        seed=_seed(cfg),
        is_shuffled=cfg.data.shuffle and not cfg.data.keep_order,
    )
    return TrainingData(rows, None, order, tuple(used))


def prepare_data(cfg: TrainConfig, view: TokenizerView, ctx: Context) -> None:
    """Fill the cache with all that a training of `cfg` would tokenise before its first step."""
    if cfg.data.pretraining_dataset:
        ctx.warn("pretraining_dataset: is tokenised while it is trained on, so there is nothing to prepare")
    if not cfg.data.datasets and not cfg.data.test_datasets:
        return
    splits = _build(cfg, view, ctx)
    if splits.train is not None:
        _show(splits.train, ctx.job.num_shown, view, ctx.run_dir / SHOWN_FILE)


def _build(cfg: TrainConfig, view: TokenizerView, ctx: Context) -> Splits:
    """The rows from the cache, pushed to the Hub where the config says so: where that fails, nothing is trained."""
    pushed_to = cfg.data.push_to_hub if ctx.device.is_main else None
    target = open_target(pushed_to) if pushed_to else None  # before hours of tokenising
    splits = build_splits(
        _with_programs(cfg.data, ctx),
        view,
        seed=_seed(cfg),
        open=_finder(cfg, ctx),
        cache_dir=ctx.cache_dir,
        emit=ctx.emit,
        kind=cfg.objective.kind,
        max_prompt_len=cfg.objective.max_prompt_len,
    )
    if target is not None:
        ctx.phase(f"pushing the rows to {target.id}, configuration {configuration_of(splits)}")
        push_rows(splits, target)
    return splits


def _with_programs(data: DataSection, ctx: Context) -> DataSection:
    """The section with the strategy files that its types name where they are in the job."""
    lists = data.lists().items()
    return data.model_copy(
        update={key: tuple(_with_program(dataset, ctx) for dataset in datasets) for key, datasets in lists}
    )


def _with_program(dataset: DatasetSection, ctx: Context) -> DatasetSection:
    file = strategy_file(dataset.type) if isinstance(dataset.type, str) else None
    if file is None or not isinstance(dataset.type, str):
        return dataset
    return dataset.model_copy(update={"type": with_strategy_file(dataset.type, str(ctx.resolve(file)))})


def _in_bundle(ctx: Context) -> Callable[[str], Path]:
    return lambda name: ctx.resolve(BUNDLE_SCHEME + name)


def _seed(cfg: TrainConfig) -> int:
    return cfg.optim.seed if cfg.data.data_seed is None else cfg.data.data_seed


def _finder(cfg: TrainConfig, ctx: Context, *, is_streamed: bool = False) -> Open:
    downloads = ctx.cache_dir / _DOWNLOADS

    def find(dataset: DatasetSection) -> Source:
        return open_source(
            dataset, resolve, seed=_seed(cfg), download_dir=downloads, is_streamed=is_streamed, called=public_name
        )

    def resolve(reference: str) -> Path | None:
        path = ctx.resolve(reference)
        return path if path.exists() else None

    return find


def _show(rows: TokenRows, num_documents: int, view: TokenizerView, path: Path) -> None:
    """Write the first documents, one a line: a list of [text, label, id] for its tokens."""
    documents = [document for r in range(min(num_documents, len(rows))) for document in rows[r]][:num_documents]
    with path.open("w") as file:
        for document in documents:
            ids = document.ids.tolist()
            texts = [view.tokenizer.decode([id], skip_special_tokens=False) for id in ids]
            file.write(json.dumps(list(zip(texts, document.labels.tolist(), ids, strict=True))) + "\n")

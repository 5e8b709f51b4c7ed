"""Pushes tokenised rows, and loads them again: a worker, see worker.py.

in:   {"push": "me/rows", "data": {section...}, "directory": "..."}   or   {"load": "me/rows", "name": "..."}
out:  {"repo", "name"}                                                or   {"train": [rows...], "test": [...]}
"""

from pathlib import Path
from typing import Any

from worker import Worker, serve

from ftl.config.data import DataSection
from ftl.sources import open_source
from ftl.tokens import TokenizerView
from ftl_runtime.data.dataset import build_splits
from ftl_runtime.data.push import configuration_of, open_target, push_rows


class PushWorker(Worker):
    file = __file__


def _push(id: str, data: dict[str, Any], directory: Path) -> dict[str, Any]:  # Any: JSON
    repo = open_target(id)
    splits = build_splits(
        DataSection.model_validate(data),
        TokenizerView.load(directory),
        seed=0,
        open=lambda dataset: open_source(dataset, lambda path: directory / path, seed=0, download_dir=None),
        cache_dir=directory / "cache",
        emit=lambda event, fields: None,
    )
    push_rows(splits, repo)
    return {"repo": repo.id, "name": configuration_of(splits)}


def _load(id: str, name: str) -> dict[str, Any]:  # Any: JSON
    import datasets

    datasets.disable_progress_bars()
    return {split: rows.to_list() for split, rows in datasets.load_dataset(id, name).items()}


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    if "load" in request:
        return _load(request["load"], request["name"])
    return _push(request["push"], request["data"], Path(request["directory"]))


if __name__ == "__main__":
    serve(_answer)

"""The tokenised rows as a private dataset of the Hub, each version a configuration (subset) of its own.

A document is a row of input_ids, attention_mask and labels: what `type:` left empty reads again.
"""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ftl.errors import ConfigError, Problem
from ftl_runtime.data.dataset import Document, Splits, TokenRows

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KEY = "push_dataset_to_hub"
_BATCH_DOCUMENTS = 1000
_NAME_LENGTH = 16
_NEW_CARD = "---\n{{ card_data }}\n---\n\nTokenised by ftl.\n"
_SPLITS = {"train": "train", "eval": "test"}


def push_rows(splits: Splits, repo: str, api: "HfApi | None" = None) -> str:
    """The name of the configuration, uploaded unless the repository has it. The token is that of the environment.

    Raises ConfigError when the repository cannot be written.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = api or HfApi()
    name = splits.key[:_NAME_LENGTH]
    try:
        api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        if api.file_exists(repo, _place(name, "train"), repo_type="dataset"):
            return name
        with tempfile.TemporaryDirectory() as scratch:
            written = dict(_write_splits(splits, name, Path(scratch)))
            operations = [CommitOperationAdd(place, file) for place, file in written.items()]
            operations.append(CommitOperationAdd("README.md", _card(api, repo, name, list(written)).encode()))
            api.create_commit(repo, operations, commit_message=f"Add {name}", repo_type="dataset")
    except (HfHubHTTPError, OSError) as e:
        said = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        remedy = "set HF_TOKEN to a token that may write there, or remove the key"
        raise ConfigError(Problem(f"{KEY}: {repo}", said, remedy=remedy)) from e
    return name


def _place(name: str, split: str) -> str:
    return f"{name}/{_SPLITS[split]}.parquet"


def _write_splits(splits: Splits, name: str, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Place in the repository and file of every split."""
    for split, rows in (("train", splits.train), ("eval", splits.eval)):
        if rows is not None:
            file = scratch / f"{split}.parquet"
            _write(rows, file)
            yield _place(name, split), file


def _write(rows: TokenRows, file: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    ids = pa.list_(pa.int32())
    schema = pa.schema({"input_ids": ids, "attention_mask": pa.list_(pa.int8()), "labels": ids})
    with ParquetWriter(file, schema, compression="zstd") as writer:
        documents = rows.documents()
        while batch := list(islice(documents, _BATCH_DOCUMENTS)):
            writer.write_table(pa.Table.from_pydict(_columns(batch), schema))


def _columns(documents: list[Document]) -> dict[str, list[list[int]]]:
    return {
        "input_ids": [document.ids.tolist() for document in documents],
        "attention_mask": [[1] * len(document.ids) for document in documents],
        "labels": [document.labels.tolist() for document in documents],
    }


def _card(api: "HfApi", repo: str, name: str, places: list[str]) -> str:
    """The repository's README.md with this configuration in its list, which is how readers find configurations."""
    from huggingface_hub import DatasetCard, DatasetCardData

    if api.file_exists(repo, "README.md", repo_type="dataset"):
        card = DatasetCard.load(api.hf_hub_download(repo, "README.md", repo_type="dataset"))
    else:
        card = DatasetCard.from_template(
            DatasetCardData(), template_str="---\n{{ card_data }}\n---\n\nTokenised by ftl.\n"
        )
    files = [{"split": Path(place).stem, "path": place} for place in places]
    others = [config for config in card.data.to_dict().get("configs", []) if config["config_name"] != name]
    card.data.configs = [*others, {"config_name": name, "data_files": files}]
    return str(card)

"""The tokenised rows as a private dataset of the Hub, each version a configuration (subset) of its own.

A document is a row of input_ids, attention_mask and labels: what `type:` left empty reads again. The token is that of
the environment. What fails in passing is tried again as ftl.sources.retry says.
"""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftl.errors import ConfigError, Problem
from ftl.sources.hubrepo import Repo, ask_hub
from ftl.sources.retry import PassingError
from ftl_runtime.data.dataset import Document, Splits, TokenRows

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_KEY = "push_dataset_to_hub"
_BATCH_DOCUMENTS = 1000
_NAME_LENGTH = 16
_NEW_CARD = "---\n{{ card_data }}\n---\n\nTokenised by ftl.\n"
_SPLITS = {"train": "train", "eval": "test"}


def open_target(id: str) -> Repo:
    """The repository to push to, made if it is not there, under its full name.

    Raises ConfigError when it cannot be written with the token, or is public; UnreachableError when the Hub does not
    answer.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        remedy = "set HF_TOKEN to a token that may write there, or remove the key"
        raise ConfigError(Problem(_KEY, f"{id}: pushing needs a token, and there is none", None, remedy))
    api, asked = HfApi(), Repo(id, key=_KEY)
    made = ask_hub(asked, lambda: api.create_repo(id, repo_type="dataset", private=True, exist_ok=True))
    repo = Repo(made.repo_id, key=_KEY)
    # Where the token may not make the repository, `create_repo` is content with one that it may read.
    ask_hub(repo, lambda: api.auth_check(repo.id, repo_type="dataset", write=True))
    if not ask_hub(repo, lambda: api.dataset_info(repo.id)).private:
        given = f"{repo.id}: is public, and everyone could read what is trained"
        raise ConfigError(Problem(_KEY, given, None, "make it private in its settings, or name another"))
    return repo


def configuration_of(splits: Splits) -> str:
    """The name under which these rows are in the repository."""
    return splits.key[:_NAME_LENGTH]


def push_rows(splits: Splits, repo: Repo) -> None:
    """Add the rows to the repository in one commit, unless it has them; safe to repeat after any failure.

    Raises ConfigError when the repository refuses them, and UnreachableError when the Hub does not answer.
    """
    from huggingface_hub import HfApi

    api, name = HfApi(), configuration_of(splits)
    # The commit that adds a configuration adds all its files, so the first of them speaks for it.
    witness = _place(name, next(split for split, _ in _parts(splits)))
    if ask_hub(repo, lambda: api.file_exists(repo.id, witness, repo_type="dataset")):
        return
    with tempfile.TemporaryDirectory() as scratch:
        written = dict(_write_splits(splits, name, Path(scratch)))
        ask_hub(repo, lambda: _commit(api, repo, name, written))


def _commit(api: "HfApi", repo: Repo, name: str, written: dict[str, Path]) -> None:
    """Raises PassingError when another commit came in between: its configurations would be lost from the card."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError

    newest = api.dataset_info(repo.id).sha
    assert newest is not None, "the Hub tells it unless asked for other fields alone"
    if api.file_exists(repo.id, next(iter(written)), repo_type="dataset", revision=newest):
        return  # an earlier try got through, and its answer was lost
    operations = [CommitOperationAdd(place, file) for place, file in written.items()]
    operations.append(_card(api, repo, newest, name, list(written)))
    try:
        api.create_commit(repo.id, operations, commit_message=f"Add {name}", repo_type="dataset", parent_commit=newest)
        return
    except HfHubHTTPError as e:
        if e.response.status_code != 412:
            raise
    raise PassingError("others commit to it")


def _parts(splits: Splits) -> list[tuple[str, TokenRows]]:
    return [(split, rows) for split, rows in (("train", splits.train), ("eval", splits.eval)) if rows is not None]


def _place(name: str, split: str) -> str:
    return f"{name}/{_SPLITS[split]}.parquet"


def _write_splits(splits: Splits, name: str, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Place in the repository and file of every split."""
    for split, rows in _parts(splits):
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


def _card(api: "HfApi", repo: Repo, revision: str, name: str, places: list[str]) -> "CommitOperationAdd":
    """The repository's README.md with this configuration in its list, which is how readers find configurations."""
    from huggingface_hub import CommitOperationAdd, DatasetCard, DatasetCardData

    if api.file_exists(repo.id, "README.md", repo_type="dataset", revision=revision):
        card = _read_card(repo, api.hf_hub_download(repo.id, "README.md", repo_type="dataset", revision=revision))
    else:
        card = DatasetCard.from_template(DatasetCardData(), template_str=_NEW_CARD)
    files = [{"split": Path(place).stem, "path": place} for place in places]
    card.data.configs = [*(card.data.to_dict().get("configs") or ()), {"config_name": name, "data_files": files}]
    return CommitOperationAdd("README.md", str(card).encode())


def _read_card(repo: Repo, path: str) -> Any:  # Any: the library's class is imported only where it is used
    import yaml
    from huggingface_hub import DatasetCard

    try:
        return DatasetCard.load(path)
    except (ValueError, yaml.YAMLError) as e:
        given = f"{repo.id}: the YAML at the top of its README.md cannot be read"
        raise ConfigError(Problem(_KEY, given, None, "mend it, or name another repository")) from e

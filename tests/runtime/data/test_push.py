"""The push of tokenised rows to a Hub on loopback, by the real client in a process of its own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from byte_tokenizer import save_byte_tokenizer
from hub_repository import Repository
from hub_server import HubServer
from push_worker import PushWorker

ANN = {"name": "ann", "type": "user", "auth": {"accessToken": {"role": "write"}}}
READER = {"name": "ann", "type": "user", "auth": {"accessToken": {"role": "read"}}}
ROWS = [
    {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [-100, 6, 7]},
    {"input_ids": [8, 9], "attention_mask": [1, 1], "labels": [-100, 9]},
    {"input_ids": [3, 2, 1, 0], "attention_mask": [1, 1, 1, 1], "labels": [3, 2, 1, 0]},
]
Push = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(server: HubServer) -> HubServer:
    """Without repositories, and with one account."""
    server.repositories.clear()
    server.objects.clear()
    server.heal()
    server.accounts["hf_ann"] = ANN
    return server


@pytest.fixture(scope="module")
def worker(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushWorker]:
    worker = PushWorker({"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path_factory.mktemp("hf"))})
    yield worker
    worker.close()


@pytest.fixture
def push(worker: PushWorker, tmp_path: Path) -> Push:
    """Push ROWS, prepared with such keys, as `token`."""
    save_byte_tokenizer(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def call(repo: str = "ann/rows", token: str = "hf_ann", **keys: Any) -> dict[str, Any]:
        data = {"datasets": [{"path": "rows.jsonl", "type": ""}], "shuffle": False, **keys}
        return worker.ask(push=repo, data=data, directory=str(tmp_path), env={"HF_TOKEN": token} if token else {})

    return call


def pushed(hub: HubServer, id: str = "ann/rows") -> Repository:
    return hub.repositories["dataset", id]


def test_pushed_rows_are_read_by_datasets_as_they_are_trained(hub: HubServer, push: Push, worker: PushWorker) -> None:
    done = push()
    assert pushed(hub).is_private
    loaded = worker.ask(load="ann/rows", name=done["name"], env={"HF_TOKEN": "hf_ann"})
    assert loaded["train"] == ROWS


def test_rows_held_out_are_the_test_split(push: Push, worker: PushWorker) -> None:
    done = push(val_set_size=1)
    loaded = worker.ask(load="ann/rows", name=done["name"], env={"HF_TOKEN": "hf_ann"})
    assert (len(loaded["train"]), len(loaded["test"])) == (2, 1)
    assert sorted(row["input_ids"] for row in loaded["train"] + loaded["test"]) == [[3, 2, 1, 0], [5, 6, 7], [8, 9]]


def test_name_without_owner_is_a_repository_of_the_token(hub: HubServer, push: Push) -> None:
    assert push("rows")["repo"] == "ann/rows"
    assert pushed(hub).is_private


def test_same_rows_are_pushed_once(hub: HubServer, push: Push) -> None:
    first = push()
    num_commits = len(pushed(hub).commits)
    assert push() == first
    assert len(pushed(hub).commits) == num_commits == 2  # the Hub's own, and ours


def test_other_rows_are_a_configuration_beside_it(hub: HubServer, push: Push) -> None:
    first, second = push()["name"], push(sequence_len=3)["name"]
    facts = yaml.safe_load(pushed(hub).files["README.md"].decode().split("---")[1])
    assert facts["configs"] == [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/train.parquet"}]}
        for name in (first, second)
    ]
    assert {f"{first}/train.parquet", f"{second}/train.parquet"} < set(pushed(hub).files)


def test_text_of_a_card_stays(hub: HubServer, push: Push) -> None:
    card = b"---\nlicense: mit\n---\n\nOur rows.\n"
    hub.add("dataset", "ann/rows", {"README.md": card}, is_private=True, readers=("hf_ann",), writers=("hf_ann",))
    push()
    kept = pushed(hub).files["README.md"].decode()
    assert "license: mit" in kept
    assert "Our rows." in kept


def test_token_is_in_no_file(hub: HubServer, push: Push) -> None:
    push()
    assert not [name for name, content in pushed(hub).files.items() if b"hf_ann" in content]


@pytest.mark.parametrize(
    ("account", "target", "said"),
    [
        (None, "ann/rows", "the Hub does not know your token; log in again"),
        (
            READER,
            "ann/rows",
            'the Hub answered 403: You don\'t have the rights to create a dataset under the namespace "ann"; '
            "set HF_TOKEN to a token with that right",
        ),
        (
            ANN,
            "org/theirs",
            "the Hub answered 403: You do not have write access to this repository; "
            "set HF_TOKEN to a token with that right",
        ),
        (
            ANN,
            "ann/public",
            "is public, and everyone could read what is trained; make it private in its settings, or name another",
        ),
    ],
    ids=["unknown token", "reads only", "others'", "public"],
)
def test_repository_that_cannot_be_used_is_one_sentence(
    hub: HubServer, push: Push, account: dict[str, Any] | None, target: str, said: str
) -> None:
    hub.add("dataset", "org/theirs", {"README.md": b""})
    hub.add("dataset", "ann/public", {"README.md": b""}, writers=("hf_ann",))
    hub.accounts["hf_ann"] = account
    assert push(target) == {"refused": f"push_dataset_to_hub: {target}: {said}", "kind": "ConfigError", "waits": []}


def test_without_a_token_nothing_is_asked(hub: HubServer, push: Push) -> None:
    sentence = "push_dataset_to_hub: ann/rows: pushing needs a token, and there is none; "
    assert push(token="")["refused"] == f"{sentence}set HF_TOKEN to a token that may write there, or remove the key"
    assert hub.requests == []


def test_card_that_cannot_be_read_is_one_sentence(hub: HubServer, push: Push) -> None:
    card = {"README.md": b"---\na: [\n---\n"}
    hub.add("dataset", "ann/rows", card, is_private=True, readers=("hf_ann",), writers=("hf_ann",))
    assert push()["refused"] == (
        "push_dataset_to_hub: ann/rows: the YAML at the top of its README.md cannot be read; "
        "mend it, or name another repository"
    )


@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/objects/batch", "/_objects/", "/commit/"])
@pytest.mark.parametrize("status", [429, 503])
def test_outage_that_passes_is_waited_for(hub: HubServer, push: Push, path: str, status: int) -> None:
    hub.fail(status, times=1, path=path)
    done = push()
    assert "refused" not in done
    assert 0 < sum(done["waits"]) <= 5
    assert f"{done['name']}/train.parquet" in pushed(hub).files


def test_outage_that_lasts_ends_within_the_budget(hub: HubServer, push: Push) -> None:
    hub.fail(503, times=99, path="/commit/")
    done = push()
    sentence = f"push_dataset_to_hub: ann/rows: {hub.url} answered 503, 3 times in 15 s; try again later"
    assert done == {"refused": sentence, "kind": "UnreachableError", "waits": [5, 10]}
    assert len(pushed(hub).commits) == 1


def test_commit_whose_answer_is_lost_is_made_once(hub: HubServer, push: Push) -> None:
    hub.fail(503, times=1, path="/commit/", is_answer_lost=True)
    assert push()["waits"] == [5]
    assert len(pushed(hub).commits) == 2


def test_push_that_others_came_before_is_tried_again(hub: HubServer, push: Push) -> None:
    hub.fail(412, times=1, path="/commit/")
    done = push()
    assert done["waits"] == [5]
    assert f"{done['name']}/train.parquet" in pushed(hub).files


def test_hub_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    worker = PushWorker({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_ann"})
    try:
        done = worker.ask(push="ann/rows", data={}, directory=str(tmp_path))
    finally:
        worker.close()
    sentence = "http://127.0.0.1:9 does not answer (ConnectError), 3 times in 15 s; try again later"
    assert done == {
        "refused": f"push_dataset_to_hub: ann/rows: {sentence}",
        "kind": "UnreachableError",
        "waits": [5, 10],
    }

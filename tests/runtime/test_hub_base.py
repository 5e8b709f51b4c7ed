"""A whole training on a base model of the Hub."""

import json

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from hub_server import HubServer  # noqa: E402

LORA = {"kind": "lora", "rank": 4, "alpha": 8}


def test_base_of_the_hub_is_downloaded_trained_and_named_by_its_commit(make_attempt, weights, tmp_path):
    with HubServer() as hub:
        commit = hub.add("model", "org/base", {path.name: path.read_bytes() for path in weights.iterdir()})
        attempt = make_attempt(model="org/base", adapter=LORA, optim__num_epochs=1)
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        assert attempt.finish(attempt.start(env=online)) == 0, attempt.output
    result = json.loads((attempt.run / "result.json").read_text())
    assert result["base_revision"] == commit
    assert result["train_loss_last"] < result["train_loss_first"]
    downloads = [event["data"] for event in attempt.events("phase") if "total_bytes" in event["data"]]
    assert downloads[-1]["label"] == "org/base"
    assert downloads[-1]["bytes"] == downloads[-1]["total_bytes"] > (weights / "model.safetensors").stat().st_size

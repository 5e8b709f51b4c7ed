"""Inputs that are attacks, where no other file tests the part that meets them. The table is docs/security.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftl.config.load import load_train
from ftl.errors import ConfigError

_CONFIG = "base_model: {base}\ndatasets: [{{path: d.jsonl, type: alpaca}}]\nlearning_rate: 1e-4\n"


def config(tmp_path: Path, base: str = "./m") -> Path:
    path = tmp_path / "cfg.yml"
    path.write_text(_CONFIG.format(base=base))
    return path


def test_hyperparameter_with_a_flag_in_it_is_one_wrong_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learning_rate = '1 --trust_remote_code': must be a number"):
        load_train(config(tmp_path), [("learning_rate", "1 --trust_remote_code")])


def test_variables_are_not_put_into_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary0")
    assert load_train(config(tmp_path, base="${HF_TOKEN}/$HF_TOKEN")).config.model.base == "${HF_TOKEN}/$HF_TOKEN"


def test_hub_that_sends_a_client_elsewhere_does_not_send_the_token_along(tmp_path: Path) -> None:
    from hub_repository import etag_of
    from hub_server import HubServer

    content = b"rows"
    with HubServer() as hub, HubServer() as other:
        for server in (hub, other):
            commit = server.add("model", "ann/model", {"file.txt": content})
        place = {"Location": f"{other.url}/ann/model/resolve/main/file.txt", "X-Repo-Commit": commit}
        place |= {"ETag": f'"{etag_of("file.txt", content)}"', "X-Linked-Size": str(len(content))}
        hub.fail(302, times=9, path="/resolve/", headers=place | {"Content-Length": "2"})
        code = (
            "import sys; from huggingface_hub import hf_hub_download; print(hf_hub_download('ann/model', 'file.txt'))"
        )
        mine = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_ann", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        environment = {**os.environ, **mine, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        got = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert Path(got.stdout.strip()).read_bytes() == content
        assert {request.token for request in hub.requests} == {"hf_ann"}
        assert other.requests and {request.token for request in other.requests} == {None}

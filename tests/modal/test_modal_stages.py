"""What needs no GPU gets none on Modal, seen with the real runtime: tokens are made before, and adapters merged after.

There is no GPU here, so the job is told so; functions, containers, volumes and what runs in them are the real ones.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from modal_emulator import ModalEmulator

from ftl import jobs
from ftl.backends import modal_plan
from ftl.backends.modal import ModalBackend
from ftl.commands import merge, train
from ftl.commands.finished import How
from ftl.contract import JobSpec
from ftl.jobs import RunRecord

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from project import make_project

pytestmark = [pytest.mark.torch, pytest.mark.e2e]


@pytest.fixture
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    real = modal_plan._job

    def told(spec: JobSpec, *, is_on_cpu: bool) -> JobSpec:
        return real(spec, is_on_cpu=True)

    monkeypatch.setattr(modal_plan, "_job", told)
    monkeypatch.setattr(ModalBackend, "poll_s", 0.3)


def events(server: ModalEmulator, record: RunRecord) -> list[dict[str, Any]]:
    content = server.committed("ftl")[f"runs/{record.id}/run/events.jsonl"]
    return [json.loads(line) for line in content.splitlines()]


def gpus(server: ModalEmulator, run_id: str) -> list[tuple[str, str]]:
    """Each call of a run's app, in order: the function, and the GPU that its container was asked with."""
    state = server.state
    (app_id,) = [app["id"] for app in state["apps"].values() if app["name"] == f"ftl-{run_id}"]
    asked = {
        request["function"]["function_name"]: request["function"]["resources"].get("gpu_config", {})
        for request in server.requests("FunctionCreate")
        if request["app_id"] == app_id
    }
    calls = sorted((c for c in state["calls"].values() if c["app_id"] == app_id), key=lambda call: call["created_at"])
    names = [state["functions"][call["function_id"]]["name"] for call in calls]
    return [(name, asked[name].get("gpu_type", "")) for name in names]


def test_gpu_finds_its_tokens_made_and_its_adapter_is_merged_without_one(
    modal_server: ModalEmulator, without_a_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True, "lora_dropout": 0.0}
    config = make_project(
        tmp_path / "project", num_rows=83, num_epochs=1, save_steps=50, **lora
    )  # rows of no other test
    cloud = tmp_path / "modal.yml"
    cloud.write_text("provider: modal\nimage: cpu\ngpu: T4\nenv: {OMP_NUM_THREADS: '1'}\n")
    code = train.run(config, flags=[], assignments=[], cloud=cloud, detach=False, dry_run=False, as_json=True)
    assert code == 0
    (trained,) = jobs.all_records()
    assert gpus(modal_server, trained.id) == [("prepare", ""), ("train", "T4")]
    told = events(modal_server, trained)
    (of_prepare, made), (of_train, used) = [(n, event) for n, event in enumerate(told) if event["event"] == "data"]
    assert of_prepare < of_train
    assert [one["was_cached"] for one in made["data"]["datasets"]] == [False]
    assert [one["was_cached"] for one in used["data"]["datasets"]] == [True], "nothing is tokenised on the GPU"
    assert any(path.endswith("/tokens.bin") for path in modal_server.volume("ftl-cache")["tree"])

    how = How(cloud=cloud, detach=False, dry_run=False, as_json=True)
    assert merge.run(config, flags=[], assignments=[], adapter=None, how=how) == 0
    assert (tmp_path / "project/out/merged/model.safetensors").exists()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[-1]["state"] == "done"
    assert said[-1]["result"]["facts"]["layers merged"] == "14", "seven matrices in each of two layers"
    assert gpus(modal_server, said[-1]["run"]) == [("train", "")]

"""What is delivered of a finished run: the card, the record, and no place of the machine it was made on."""

import json
import os
from pathlib import Path

import pytest
import yaml

from ftl.config.train import TrainConfig
from ftl.contract import DatasetUse, JobSpec, Paths, Provenance, Resources, RunResult
from ftl_runtime.checkpoint import lossplot, manifest, publish
from ftl_runtime.checkpoint.card import card
from ftl_runtime.checkpoint.provenance import public_name

COMMIT, IDENTITY = "c" * 40, "d" * 64


@pytest.fixture
def job(tmp_path: Path) -> JobSpec:
    """A finished run of an adapter, below a directory whose name nobody is to read."""
    secret_place = tmp_path / "home-of-joe"
    run, bundle = secret_place / "runs/ab-cd", secret_place / "bundles/x"
    (run / "output").mkdir(parents=True)
    (bundle / "files").mkdir(parents=True)
    config = TrainConfig.model_validate(
        {
            "model": {"base": "org/base"},
            "data": {"datasets": [{"path": "bundle:files/0123456789ab-rows.jsonl", "type": "alpaca"}]},
            "optim": {"learning_rate": 1e-4},
            "adapter": {"kind": "lora", "rank": 4},
            "output": {"output_dir": f"{secret_place}/out"},
            "hub": {"repo": "me/tuned"},
        }
    )
    (bundle / "config.json").write_text(config.model_dump_json())
    files = {"files/0123456789ab-rows.jsonl": "e" * 64, "code/ftl/cli.py": "f" * 64}
    (bundle / "manifest.json").write_text(json.dumps({"version": 1, "files": files}))
    (run / "output/adapter_model.safetensors").write_bytes(b"weights")
    (run / "output/adapter_config.json").write_text(
        json.dumps({"r": 4, "base_model_name_or_path": f"{secret_place}/bundles/x/files/model"})
    )
    manifest.seal(run / "output", run_id="ab-cd", step=20)
    used = (
        DatasetUse(
            key="datasets.0", label=f"{bundle}/files/0123456789ab-rows.jsonl", identity=IDENTITY, samples=9, tokens=1234
        ),
        DatasetUse(key="datasets.1", label="org/rows", revision="a" * 40, identity=IDENTITY, samples=5, tokens=10),
    )
    result = RunResult(
        run_id="ab-cd",
        attempt=2,
        steps=20,
        epochs=1.0,
        tokens=5000,
        train_loss_first=2.5,
        train_loss_last=1.25,
        seconds=1.0,
        num_parameters=100,
        num_trainable=10,
        base_revision=COMMIT,
        ranks=2,
        versions={"torch": "2.13.0"},
        datasets=used,
    )
    (run / "result.json").write_text(result.model_dump_json())
    events = [
        {"t": 1000.0, "attempt": 1, "event": "phase", "data": {"name": "starting"}},
        {"t": 2800.0, "attempt": 1, "event": "step", "data": {"step": 1, "loss": 2.5}},
        {"t": 90000.0, "attempt": 2, "event": "phase", "data": {"name": "starting"}},
        {"t": 91800.0, "attempt": 2, "event": "step", "data": {"step": 20, "loss": 1.25}},
    ]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"t": 9')
    return JobSpec(
        run_id="ab-cd",
        attempt=2,
        cloud={"provider": "docker", "gpu": 2},
        image="repo/image@sha256:" + "9" * 64,
        resources=Resources(gpus=2),
        paths=Paths(bundle=str(bundle), run=str(run), cache=str(secret_place / "cache")),
    )


def test_delivered_files_name_no_place_of_the_machine(job: JobSpec) -> None:
    stage = publish.prepare(job, "me/tuned")
    contents = {path.name: path.read_bytes() for path in stage.iterdir()}
    assert not [name for name, content in contents.items() if b"home-of-joe" in content]
    assert json.loads(contents["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    assert manifest.check(stage, run_id="ab-cd", step=20) == sum(
        len(content) for name, content in contents.items() if name != "manifest.json"
    )
    publish.clear(stage)
    assert (Path(str(job.paths and job.paths.run)) / "output/adapter_model.safetensors").read_bytes() == b"weights"


def test_record_has_config_inputs_and_hours_of_all_attempts(job: JobSpec) -> None:
    stage = publish.prepare(job, "me/tuned")
    record = Provenance.read_json((stage / "ftl-run.json").read_bytes())
    assert record.config["datasets"] == [{"path": "./rows.jsonl", "type": "alpaca"}]
    assert "output_dir" not in record.config
    assert record.inputs == {"rows.jsonl": "e" * 64}
    assert record.hours == pytest.approx(1.0)  # half an hour each, and nothing of the day between
    assert record.gpu_hours == pytest.approx(2.0)
    assert record.result.datasets[0].label == "./rows.jsonl"


def test_card_says_what_it_is_and_what_it_is_made_of(job: JobSpec) -> None:
    stage = publish.prepare(job, "me/tuned")
    _, head, body = (stage / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "peft",
        "tags": ["ftl", "lora", "adapter"],
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "datasets": ["org/rows"],
    }
    assert body.startswith("\n# tuned\n")
    for said in (
        f"[org/base](https://huggingface.co/org/base) at commit `{COMMIT}`",
        "| training loss | 2.5000 -> 1.2500 |",
        "| took | 2.00 GPU hours (2) |",
        f"| rows.jsonl | `{'e' * 64}` | 9 samples | 1,234 |",
        f"| org/rows | `{'a' * 40}` | 5 samples | 10 |",
        f"| image | `{job.image}` |",
        'AutoPeftModelForCausalLM.from_pretrained("me/tuned")',
        "![Loss by step](loss.png)",
        "learning_rate: 0.0001",
    ):
        assert said in body


def test_base_that_nobody_else_has_is_named_without_its_place(job: JobSpec) -> None:
    stage = publish.prepare(job, None)
    record = Provenance.read_json((stage / "ftl-run.json").read_bytes())
    config = {**record.config, "base_model": "./model"}
    text = card(record.model_copy(update={"config": config}), repo=None, is_adapter=False, plot=None)
    assert "base_model:" not in text.split("---\n")[1]
    assert "A fine-tune of `model`" in text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("bundle:files/0123456789ab-rows.jsonl", "./rows.jsonl"),
        ("mount:model-0123456789ab", "./model"),
        ("mount:model-0123456789ab/sub", "./model/sub"),
        ("/home/joe/data/rows.jsonl", "./rows.jsonl"),
        ("org/rows", "org/rows"),
        ("s3://lake/rows.jsonl", "s3://lake/rows.jsonl"),
        ("alpaca", "alpaca"),
    ],
)
def test_public_names(given: str, told: str) -> None:
    assert public_name(given) == told


def test_losses_are_drawn(tmp_path: Path) -> None:
    from PIL import Image

    assert lossplot.draw([(1, 2.0), (2, 1.0)], [(2, 1.5)], tmp_path / "loss.png")
    colours = {colour for _, colour in Image.open(tmp_path / "loss.png").getcolors(1 << 20)}
    assert {(0x21, 0x66, 0xAC), (0xD6, 0x60, 0x4D)} <= colours  # a line of each
    assert not lossplot.draw([], [], tmp_path / "none.png")
    assert lossplot.draw([(1, 2.0)], [], tmp_path / "one.png")
    assert not (tmp_path / "none.png").exists()


def test_step_that_was_trained_twice_counts_once(tmp_path: Path) -> None:
    lines = [(1, 3.0), (2, 2.0), (2, 1.5), (3, None)]
    text = "".join(json.dumps({"event": "step", "data": {"step": s, "loss": v}}) + os.linesep for s, v in lines if v)
    (tmp_path / "events.jsonl").write_text(text + '{"event": "step", "data": {"step": 3, "loss": null}}\n')
    assert lossplot.losses_of(tmp_path / "events.jsonl") == ([(1, 3.0), (2, 1.5)], [])


def test_losses_of_a_lost_machine_are_drawn_too(tmp_path: Path) -> None:
    events = [
        {"event": "history", "data": {"train": [[1, 3.0], [2, 2.5]], "eval": [[2, 2.75]]}},
        {"event": "step", "data": {"step": 3, "loss": 2.0}},
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert lossplot.losses_of(tmp_path / "events.jsonl") == ([(1, 3.0), (2, 2.5), (3, 2.0)], [(2, 2.75)])

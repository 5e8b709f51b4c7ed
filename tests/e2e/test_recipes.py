"""Every recipe of examples/ trains: the very file, with a tiny model, made-up rows and few steps written over it."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commandline import Ftl

pytest.importorskip("torch")

from ftl import bundle
from ftl.cloudfile import load_cloud
from ftl.commands.overrides import read_overrides
from ftl.commands.prepare import Preparation
from ftl.config.load import load_train
from ftl.contract import JobSpec, Paths

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import tiny  # noqa: E402

LN_VOCAB = math.log(tiny.VOCAB_SIZE)
"""What a model that knows nothing gives: every token is as likely as any other."""


def trained(recipe: str, place: Path, directory: Path) -> list[dict[str, Any]]:
    """The step events of the recipe, trained in this process from the bundle that `ftl train` would send."""
    from ftl_runtime.run import do_job
    from ftl_runtime.stop import StopFlag

    overrides = read_overrides([], [*tiny.assignments(recipe, place), f"output_dir={directory / 'out'}"], ())
    backend = load_cloud(None)
    prepared = Preparation(backend).prepare(load_train(tiny.config_of(recipe), overrides))
    spec = prepared.spec(backend, "tiny")
    assert backend.preflight(spec) == []
    packed = bundle.write(prepared.packed)
    (directory / "run").mkdir()
    paths = Paths(bundle=packed.path, run=str(directory / "run"), cache=str(directory / "cache"))
    job = JobSpec.model_validate({**spec.model_dump(), "paths": paths})
    steps: list[dict[str, Any]] = []

    def emit(event: str, data: dict[str, Any]) -> None:
        if event == "step":
            steps.append(data)

    do_job(job, emit, StopFlag())
    assert (directory / "run/result.json").is_file()
    return steps


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model that all recipes share is made once."""
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTL_STARTED", str(time.time()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# Recipe, losses that its first step may have, how far off it may be, what the mean of the last three steps is below.
CASES = [
    # Logits of random weights are small but not 0: the loss is off ln V by about half of their variance.
    ("airoboros-qlora-70b", [LN_VOCAB], 0.08, 5.4),
    ("alpaca-lora/16bit", [LN_VOCAB], 0.08, 5.4),
    ("alpaca-lora/8bit", [LN_VOCAB], 0.08, 5.4),
    ("alpaca-lora/4bit", [LN_VOCAB], 0.08, 5.4),
    ("llama-3-lora-1b", [LN_VOCAB], 0.08, 5.4),
    ("pretrain-stream", [LN_VOCAB], 0.08, 2.0),
    # Policy and reference are one model before the first step: -ln sigmoid(0).
    ("dpo", [math.log(2)], 1e-4, 0.5),
    # The supervised loss, and a tenth of -ln sigmoid of a log odds ratio near 0.
    ("orpo", [LN_VOCAB + 0.1 * math.log(2)], 0.08, 5.2),
    # 1 - sigmoid(0) for each of four answers, of which any number is good and weighs 0.2.
    ("kto", [0.5 * (0.2 * good + (4 - good)) / 4 for good in range(5)], 1e-4, 0.2),
    # Scores of a head that was just drawn are near 0.
    ("reward", [math.log(2)], 0.08, 0.5),
    ("prm", [math.log(2)], 0.08, 0.4),
]


@pytest.mark.parametrize(("recipe", "firsts", "bound", "last"), [pytest.param(*case, id=case[0]) for case in CASES])
def test_recipe_begins_at_the_loss_of_chance_and_learns(
    place: Path, tmp_path: Path, recipe: str, firsts: list[float], bound: float, last: float
) -> None:
    losses = [step["loss"] for step in trained(recipe, place, tmp_path)]
    assert len(losses) == 20
    assert min(abs(losses[0] - first) for first in firsts) < bound
    assert sum(losses[-3:]) / 3 < last


@pytest.mark.parametrize(
    ("recipe", "last", "spread"), [("airoboros-zero2", 3.0, "ZeRO"), ("fsdp-qlora", 5.5, "FSDP2")], ids=str
)
def test_recipe_for_several_gpus_trains_on_two_processes(
    place: Path, tmp_path: Path, ftl: Ftl, recipe: str, last: float, spread: str
) -> None:
    """By the command line, which starts the ranks: without a second one there is nothing to share."""
    (tmp_path / "two.yml").write_text("provider: local\nprocesses: 2\n")
    command = ["train", str(tiny.config_of(recipe)), "--cloud", str(tmp_path / "two.yml"), "--json"]
    for assignment in [*tiny.assignments(recipe, place), f"output_dir={tmp_path / 'out'}"]:
        command += ["--set", assignment]
    done = ftl(*command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    losses = [each["data"]["loss"] for each in objects if each.get("event") == "step"]
    assert losses[0] == pytest.approx(LN_VOCAB, abs=0.08)
    assert sum(losses[-3:]) / 3 < last
    assert spread in objects[-1]["result"]["spread"]
    assert objects[-1]["result"]["ranks"] == 2


def test_every_recipe_is_tried() -> None:
    """But for GPTQ, which needs gptqmodel and a GPU, and the quickstart, which needs nothing written over it."""
    files = (path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*/*.yml") if path.name != "cloud.yml")
    shipped = {file.removesuffix(".yml").removesuffix("/cfg") for file in files}
    elsewhere = {"airoboros-zero2", "fsdp-qlora", "alpaca-lora/gptq", "quickstart", "quickstart/pretrain"}
    assert shipped - elsewhere == {case[0] for case in CASES}

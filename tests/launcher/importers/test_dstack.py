from pathlib import Path

import pytest
import yaml

from ftl.cloudfile import load_cloud
from ftl.errors import ConfigError
from ftl.importers.dstack import import_dstack

IMAGE = """
type: task
image: winglian/axolotl-cloud:main-latest
env:
  - HUGGING_FACE_HUB_TOKEN
  - WANDB_API_KEY
commands:
  - accelerate launch -m axolotl.cli.train config.yaml
ports:
  - 6006
resources:
  gpu:
    memory: 24GB..
    count: 2
"""
PYTHON = """
type: task
name: axolotl-train
python: "3.11"
env:
  - HF_TOKEN
  - WANDB_PROJECT
  - WANDB_ENTITY=team
  - NCCL_P2P_LEVEL=NVL
commands:
  - git clone https://example.invalid/axolotl && cd axolotl
  - pip install -e .
  - python -m axolotl.cli.preprocess ../config.yaml
  - accelerate launch --num_processes 4 -m axolotl.cli.train ../config.yaml --lora_r 8
resources:
  gpu: A100:40GB:8
  shm_size: 16GB
  memory: 64GB..
  disk: 200GB
spot_policy: auto
max_price: 3.5
max_duration: 6h
retry: true
"""


def task(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.dstack.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "cloud", "arguments"),
    [
        (IMAGE, {"provider": "docker", "gpu": 2, "secrets": ["HF_TOKEN", "WANDB_API_KEY"]}, ("config.yaml",)),
        (
            PYTHON,
            {
                "provider": "docker",
                "gpu": 4,
                "secrets": ["HF_TOKEN"],
                "env": {"NCCL_P2P_LEVEL": "NVL"},
                "shm": 16.0,
                "timeout": "6h",
            },
            ("../config.yaml", "--lora_r", "8"),
        ),
    ],
    ids=["image", "python"],
)
def test_task_becomes_a_cloud_file(text: str, cloud: dict, arguments: tuple[str, ...], tmp_path: Path) -> None:
    imported = import_dstack(str(task(tmp_path, text)))
    assert imported.cloud == cloud
    assert imported.config == {}
    assert imported.arguments == arguments


def test_cloud_file_of_a_task_is_one_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "cloud.yml"
    path.write_text(yaml.safe_dump(import_dstack(str(task(tmp_path, PYTHON))).cloud))
    assert load_cloud(path).cloud.timeout == 6 * 3600


@pytest.mark.parametrize(
    ("text", "given", "why"),
    [
        (IMAGE, "image: winglian/axolotl-cloud:main-latest", "ftl trains in a pinned image of its own"),
        (IMAGE, "ports: [6006]", "the job serves nothing"),
        (PYTHON, "pip install -e .", "the image has what training needs"),
        (PYTHON, "python -m axolotl.cli.preprocess ../config.yaml", "`ftl train` prepares the data itself"),
        (PYTHON, "WANDB_PROJECT", "its value is only in your shell"),
        (
            PYTHON,
            "spot_policy: auto",
            "docker trains on the machine you have; cloud_templates",
        ),
        (PYTHON, "resources.memory: 64GB..", "the least a machine must have; `memory` here is a limit"),
        (PYTHON, "resources.gpu: A100:40GB:8", "the launcher names how many. use a machine with A100"),
        (PYTHON, "retry: true", "a run that lost its machine is started again"),
    ],
)
def test_what_has_no_place_is_dropped_with_the_reason(text: str, given: str, why: str, tmp_path: Path) -> None:
    (line,) = [line for line in import_dstack(str(task(tmp_path, text))).lines if line.given == given]
    assert line.became == ""
    assert line.why.startswith(why)


def test_command_line_of_dstack_is_read_too(tmp_path: Path) -> None:
    imported = import_dstack(f"dstack run . -f {task(tmp_path, IMAGE)} --spot -d")
    assert imported.arguments == ("config.yaml", "--detach")
    assert [(line.given, line.became) for line in imported.lines[:2]] == [
        ("--spot", ""),
        ("-d", "ftl train --detach"),
    ]


def test_flags_of_dstack_are_placed_with_their_values(tmp_path: Path) -> None:
    command = f"dstack run . --file={task(tmp_path, IMAGE)} --gpu A100:2 --max-price 1.5 -e A=1 --max-duration 6h -y"
    imported = import_dstack(command)
    assert (imported.cloud["gpu"], imported.cloud["timeout"]) == (2, "6h")
    by_flag = {line.given: line for line in imported.lines}
    assert by_flag["--gpu A100:2"].became == "cloud file: gpu: 2"
    assert by_flag["--max-price 1.5"].why.startswith("docker trains on the machine you have")
    assert by_flag["-y"].why == "`ftl train` asks nothing before it starts"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("dstack run .", "command: dstack run .: names no task file; add -f FILE"),
        ("dstack run . -f", "command: dstack run . -f: names no task file; add -f FILE"),
        ("dstack ps", "command: dstack ps: must be dstack run or dstack apply; or name the task file"),
        ("dstack", "command: dstack: must be dstack run or dstack apply; or name the task file"),
    ],
)
def test_command_of_dstack_that_starts_nothing_is_refused(command: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_dstack(command)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("value", ["5", "true"])
def test_commands_that_are_no_list_are_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"commands = {value}: must be a list of commands"):
        import_dstack(str(task(tmp_path, f"type: task\ncommands: {value}\n")))


def test_memory_of_a_gpu_names_kinds_that_have_it(tmp_path: Path) -> None:
    (line,) = [
        line for line in import_dstack(str(task(tmp_path, IMAGE))).lines if line.given.startswith("resources.gpu")
    ]
    assert line.became == "cloud file: gpu: 2"
    assert line.why.startswith("use a machine with 24GB.. a GPU, such as A10, A10G, RTX3090, L4: docker trains")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("type: service\ncommands: [x]", "type = service: must be a task: only those train and end"),
        ("type: task\ncommands: [python x.py]", "commands: no command trains an axolotl config; for other programs"),
        ("type: task\nenv: [HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz]\ncommands: [x]", "env.0: looks like a secret"),
    ],
)
def test_what_is_no_training_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        import_dstack(str(task(tmp_path, text)))
    assert sentence in str(caught.value)


def test_number_of_processes_behind_the_config_is_the_number_of_gpus(tmp_path):
    task = tmp_path / "task.yaml"
    task.write_text(
        "type: task\ncommands:\n"
        "  - accelerate launch -m axolotl.cli.train cfg.yml --num_processes 2 --run_name 'a b' --num-processes=2\n"
    )
    imported = import_dstack(str(task))
    assert imported.arguments == ("cfg.yml", "--run_name", "a b")
    assert imported.cloud["gpu"] == 2

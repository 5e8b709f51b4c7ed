"""Reward functions are read on the laptop, and never run."""

import json
import re
from pathlib import Path

import pytest

from ftl.bundle import pack
from ftl.config.load import load_train
from ftl.errors import ConfigError
from ftl.references import references
from ftl.rewards import reward_problems

BASE = {"base_model": "org/name", "learning_rate": 1e-4, "micro_batch_size": 8, "rl": "grpo"}
REWARDS = "raise SystemExit('is never run')\n\ndef right(completions, **kwargs):\n    return [1.0]\n"


@pytest.fixture
def load(tmp_path: Path):
    def start(trl, rewards=REWARDS, **keys):
        (tmp_path / "rows.jsonl").write_text('{"prompt": "Q"}\n')
        (tmp_path / "rewards.py").write_text(rewards)
        (tmp_path / "cfg.yml").write_text(json.dumps(BASE | {"datasets": [{"path": "rows.jsonl"}], "trl": trl} | keys))
        return load_train(tmp_path / "cfg.yml")

    return start


def problems_of(loaded) -> list[str]:
    refs, missing = references(loaded.config, loaded.path)
    return [str(problem) for problem in (*missing, *reward_problems(loaded.config, refs))]


def test_module_and_function_are_a_file_beside_the_config(load):
    loaded = load({"reward_funcs": ["rewards.right"], "scale_rewards": False, "use_vllm": False, "epsilon": 0.2})
    assert loaded.config.objective.grpo.reward_funcs == ("./rewards.py:right",)
    assert loaded.config.objective.grpo.scale_rewards == "none"
    assert problems_of(loaded) == []


def test_file_goes_into_the_bundle(load):
    loaded = load({"reward_funcs": ["rewards.right"]})
    refs, _ = references(loaded.config, loaded.path)
    packed = pack(loaded.config, refs)
    (function,) = packed.config.objective.grpo.reward_funcs
    place, _, name = function.removeprefix("bundle:").partition(":")
    assert name == "right"
    assert packed.files[place].name == "rewards.py"


@pytest.mark.parametrize(
    ("name", "rewards", "told"),
    [
        ("other.right", REWARDS, "./other.py: no such file"),
        ("rewards.wrong", REWARDS, "rewards.py has no function wrong: it has right"),
        ("rewards.right", "def right(completions):\n    return []\n", "rewards.py:1: right must take [*][*]kwargs"),
        ("rewards.right", "def right(texts, **kwargs):\n    return []\n", "rewards.py:1: right takes none of prompts"),
        ("rewards.right", "def right(:\n", "rewards.py:1 cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(load, name, rewards, told):
    (problem,) = problems_of(load({"reward_funcs": [name]}, rewards))
    assert re.search(told, problem), problem


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"trl": {"reward_funcs": ["rewards.right"], "use_vllm": True}},
            "use_vllm: completions are drawn by",
        ),
        ({"trl": {"reward_funcs": ["rewards.right"], "num_iterations": 2}}, "num_iterations = 2: not built yet"),
        ({"trl": {"reward_funcs": ["org/model"]}}, "'org/model': must be module.function"),
        ({"trl": {"reward_funcs": ["rewards.right"], "reward_weights": [1, 2]}}, "2 reward_weights for 1 reward_funcs"),
        ({"trl": {"reward_funcs": ["rewards.right"], "num_generations": 3}}, "a step of one GPU takes 8 completions"),
        ({"trl": None}, "grpo needs rewards"),
        ({"val_set_size": 0.1}, "val_set_size.*is not built yet for `objective` grpo"),
        ({"vllm": {"port": 8000}}, "the images hold no vLLM"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(load, keys, told):
    with pytest.raises(ConfigError, match=told):
        load(keys.pop("trl", {"reward_funcs": ["rewards.right"]}), **keys)

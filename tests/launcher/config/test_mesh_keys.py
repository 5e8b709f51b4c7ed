"""Keys that have several processes work on one copy of the model: what they are read as, and what rules them out."""

import pytest
import yaml

from ftl import precheck
from ftl.config.load import load_train
from ftl.contract import Resources
from ftl.errors import ConfigError

BASE = {"base_model": "./base", "learning_rate": 1e-4, "datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]}


def read(tmp_path, **keys):
    path = tmp_path / "cfg.yml"
    path.write_text(yaml.safe_dump({**BASE, **keys}))
    return load_train(path).config


@pytest.mark.parametrize(
    ("key", "other", "told"),
    [
        ("tensor_parallel_size", {"adapter": "lora"}, "`adapter`, which has been tried on whole weights only"),
        ("tensor_parallel_size", {"optimizer": "lion_32bit"}, "`optimizer`, which has not been tried on weights"),
        ("tensor_parallel_size", {"fsdp_config": {"reshard_after_forward": True}}, "`fsdp_config`, which spreads"),
        ("context_parallel_size", {"tensor_parallel_size": 2}, "`tensor_parallel_size`, which has not been tried"),
        ("context_parallel_size", {"rl": "orpo"}, "`objective`, which compares or scores whole rows"),
        ("context_parallel_size", {"kd_trainer": True}, "`objective`, which compares or scores"),
        ("context_parallel_size", {"neftune_noise_alpha": 5}, "`neftune_noise_alpha`, which depends on the length"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_go_together_is_refused_unless_the_size_is_one(tmp_path, key, other, told):
    with pytest.raises(ConfigError, match=f"{key} = 2: cannot be used together with {told}"):
        read(tmp_path, **{key: 2}, **other)
    if not {"tensor_parallel_size", "rl", "kd_trainer"} & set(other):
        read(tmp_path, **{key: 1}, **other)


@pytest.mark.parametrize(
    ("keys", "resources", "told"),
    [
        ({"tensor_parallel_size": 2}, Resources(gpus=3), ["tensor_parallel_size: 2: must divide the 3 processes"]),
        ({"context_parallel_size": 4}, Resources(gpus=("0", "1")), ["context_parallel_size: 4: must divide the 2"]),
        ({"context_parallel_size": 2}, Resources(processes=4), []),
        ({"tensor_parallel_size": 2}, Resources(gpus="all"), []),
        ({"tensor_parallel_size": 2, "use_ray": True, "ray_num_workers": 2}, Resources(), []),
        ({"use_ray": True, "ray_num_workers": 2}, Resources(processes=2), ["processes: 2: has no effect with use_ray"]),
    ],
    ids=["gpus", "gpu ids", "processes", "all", "ray", "ray and processes"],
)
def test_sizes_must_divide_the_processes_that_there_will_be(tmp_path, keys, resources, told):
    found = [str(problem) for problem in precheck.machine_problems(read(tmp_path, **keys), resources)]
    assert [problem[: len(start)] for problem, start in zip(found, told, strict=True)] == told


def test_ray_takes_at_most_one_gpu_a_worker(tmp_path):
    assert read(tmp_path, use_ray=True, resources_per_worker={"GPU": 1}).ray.resources == {"GPU": 1.0}
    with pytest.raises(ConfigError, match="GPU must be 0 or 1: each rank trains on one GPU"):
        read(tmp_path, use_ray=True, resources_per_worker={"GPU": 2})

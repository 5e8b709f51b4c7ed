"""What a training process leaves out, told by a process of its own: sys.modules of this one would stay changed."""

import json
import subprocess
import sys

import pytest

from ftl.contract import JobSpec, Paths, Resources

pytestmark = pytest.mark.torch

PROGRAM = """
import json, sys
from pathlib import Path
from ftl.contract import JobSpec
from ftl_runtime.lean import leave_out_unused
leave_out_unused(JobSpec.read_json(Path(sys.argv[1]).read_bytes()))
print(json.dumps(sorted(name for name, module in sys.modules.items() if module is None)))
"""


def left_out(directory, *, quantisation=None, **config) -> list[str]:
    bundle = directory / "bundle"
    (bundle / "base").mkdir(parents=True)
    base = {"model_type": "llama"} | ({"quantization_config": quantisation} if quantisation else {})
    (bundle / "base" / "config.json").write_text(json.dumps(base))
    whole = {
        "model": {"base": "bundle:base"},
        "data": {"datasets": [{"path": "bundle:rows.jsonl", "type": "completion"}]},
        "optim": {"learning_rate": 1e-3},
    }
    (bundle / "config.json").write_text(json.dumps(whole | config))
    job = JobSpec(
        run_id="r-1",
        resources=Resources(gpus=0),
        paths=Paths(bundle=str(bundle), run=str(directory), cache=str(directory)),
    )
    (directory / "job.json").write_text(job.model_dump_json())
    asked = [sys.executable, "-c", PROGRAM, str(directory / "job.json")]
    return json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)


def test_plain_training_on_local_rows_leaves_out_every_optional_package(tmp_path):
    assert left_out(tmp_path) == ["bitsandbytes", "comet_ml", "datasets", "deepspeed", "torchao"]


@pytest.mark.parametrize(
    "config",
    [
        {"optim": {"learning_rate": 1e-3}, "quant": {"in_4bit": True}},
        {"model": {"base": "org/name"}},
        {"quantisation": {"quant_method": "bitsandbytes"}},
    ],
    ids=["asked for", "base on the Hub", "quantised base"],
)
def test_quantisation_stays_where_it_may_be_used(tmp_path, config):
    assert left_out(tmp_path, **config) == ["comet_ml", "datasets", "deepspeed"]


def test_datasets_stay_for_a_repository(tmp_path):
    data = {"datasets": [{"path": "org/rows", "type": "completion"}]}
    assert "datasets" not in left_out(tmp_path, data=data)


def test_datasets_stay_for_the_tasks_of_lm_eval(tmp_path):
    assert "datasets" not in left_out(tmp_path, harness={"tasks": ["arc_easy"]})


def test_deepspeed_stays_where_the_config_asks_for_it(tmp_path):
    asked = {"parallel": {"deepspeed": {"zero_optimization": {"stage": 1}}}}
    assert left_out(tmp_path, **asked) == ["bitsandbytes", "comet_ml", "datasets", "torchao"]

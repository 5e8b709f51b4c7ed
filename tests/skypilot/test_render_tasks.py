"""ftl render: what each target prints is what its own parser takes."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sky_places import SKY_PYTHON, make_home
from tokenizers import Tokenizer, models
from typer.testing import CliRunner

from ftl.cli import app
from ftl.errors import FtlError

IMAGE = "ghcr.io/me/ftl:1@sha256:" + "a" * 64
SKY = f"provider: skypilot\ninfra: gcp\ngpu: A100-80GB:2\nspot: prefer\ncontroller: local\nimage: {IMAGE}\n" + (
    "checkpoints: gs://bucket/place\nsecrets: [HF_TOKEN]\nenv: {COLOUR: blue}\ntimeout: 2h\ndisk: 200\ncpus: 8\n"
    "max_usd_per_hour: 4.5\n"
)
DOCKER = f"provider: docker\nimage: {IMAGE}\ngpu: 1\n"
PARSE = """
import json, sys, yaml
import sky
from dstack._internal.core.models.configurations import parse_apply_configuration
for path in sys.argv[1:]:
    if path.endswith("sky.yml"):
        task = sky.Task.from_yaml(path)
        print(json.dumps({"name": task.name, "gpus": sorted({k for r in task.resources for k in r.accelerators})}))
    else:
        task = parse_apply_configuration(yaml.safe_load(open(path)))
        print(json.dumps({"name": task.name, "gpus": task.resources.gpu.name, "type": task.type,
                          "memory": str(task.resources.gpu.memory), "env": sorted(task.env), "s": task.max_duration,
                          "usd": task.max_price}))
"""


@pytest.fixture
def rendered(tmp_path: Path) -> Callable[[str, str], str]:
    """What `ftl render` prints for a cloud file and a target."""
    (tmp_path / "model").mkdir()
    tokenizer = Tokenizer(models.WordLevel({"hello": 0, "</s>": 1}, unk_token="hello"))
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    (tmp_path / "model/tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "quick.yml").write_text(
        f"base_model: {tmp_path}/model\nreinit_weights: true\nlearning_rate: 1e-4\n"
        f"datasets:\n  - path: {tmp_path}/rows.jsonl\n    type: completion\n"
    )

    def render(cloud: str, target: str) -> str:
        (tmp_path / "cloud.yml").write_text(cloud)
        words = ["render", str(tmp_path / "quick.yml"), "--cloud", str(tmp_path / "cloud.yml"), "--to", target]
        done = CliRunner().invoke(app, words, catch_exceptions=True)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.stdout

    return render


def test_sky_and_dstack_take_what_is_printed_for_them(
    rendered: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = os.environ.get("FTL_SKYPILOT_PYTHON") or str(SKY_PYTHON)
    if not Path(python).exists():
        pytest.skip("needs `make .venv/sky/complete`")
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    for target in ("sky", "dstack"):
        text = rendered(SKY, target)
        assert "hf_canary" not in text
        (tmp_path / f"{target}.yml").write_text(text)
    home = make_home(tmp_path / "home")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"HOME": str(home)}
    command = [python, "-c", PARSE, str(tmp_path / "sky.yml"), str(tmp_path / "dstack.yml")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    sky, dstack = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert sky["gpus"] == ["A100-80GB"]
    assert sky["name"].startswith("ftl-")
    assert (dstack["type"], dstack["gpus"], dstack["memory"]) == ("task", ["A100"], "80GB")
    assert dstack["env"] == ["COLOUR", "HF_TOKEN"]
    assert (dstack["s"], dstack["usd"]) == (7200 + 25, 4.5)


@pytest.mark.parametrize(
    ("target", "left_out"),
    [("dstack", "infra, controller"), ("kubernetes", "infra, spot, max_usd_per_hour, controller")],
)
def test_what_a_target_cannot_say_is_told(target: str, left_out: str, rendered: Callable[[str, str], str]) -> None:
    assert f"# The cloud file's {left_out} cannot be said here.\n" in rendered(SKY, target)
    assert "cannot be said" not in rendered(DOCKER, target)


def test_kubernetes_job_asks_for_the_same_and_goes_on_after_75_alone(rendered: Callable[[str, str], str]) -> None:
    claim, job = yaml.safe_load_all(rendered(SKY, "kubernetes"))
    assert claim["kind"] == "PersistentVolumeClaim"
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    container: dict[str, Any] = pod["containers"][0]
    assert container["image"] == IMAGE
    assert container["resources"] == {"requests": {"cpu": "8"}, "limits": {"nvidia.com/gpu": 2}}
    secret = {"secretKeyRef": {"name": "ftl-secrets", "key": "HF_TOKEN"}}
    assert container["env"] == [{"name": "COLOUR", "value": "blue"}, {"name": "HF_TOKEN", "valueFrom": secret}]
    rule = job["spec"]["podFailurePolicy"]["rules"][0]
    assert (rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"]) == ("NotIn", [75])
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert {"/ftl/bundle", "/ftl/run", "/ftl/cache", "/dev/shm"} <= mounted


def test_script_holds_the_job_that_the_runtime_reads(rendered: Callable[[str, str], str]) -> None:
    script = yaml.safe_load(rendered(DOCKER, "dstack"))["commands"][0]
    job = json.loads(script.partition("<<'FTL_JOB'\n")[2].partition("\nFTL_JOB")[0])
    assert job["paths"]["bundle"] == "/ftl/bundle"
    assert job["resources"]["gpus"] == 1
    assert script.rstrip().endswith("exec python -m ftl_runtime /ftl/run/job.json")


@pytest.mark.parametrize(
    ("cloud", "target", "told"),
    [
        pytest.param(DOCKER, "sky", "for docker, and --to sky prints", id="another provider"),
        pytest.param(DOCKER, "podman", "must be one of", id="unknown target"),
        pytest.param("provider: local\n", "dstack", "names no image", id="this machine"),
        pytest.param("provider: docker\n", "kubernetes", "is not published", id="image of this machine"),
        pytest.param("provider: skypilot\nimage: none\n", "dstack", "names no image", id="bare machine"),
        pytest.param(
            f"provider: skypilot\nimage: {IMAGE}\nnodes: 2\nshared: /nfs\n",
            "dstack",
            "one machine",
            id="several machines",
        ),
    ],
)
def test_what_a_target_cannot_express_is_one_sentence(
    cloud: str, target: str, told: str, rendered: Callable[[str, str], str]
) -> None:
    with pytest.raises(FtlError, match=told) as caught:
        rendered(cloud, target)
    assert "\n" not in str(caught.value)

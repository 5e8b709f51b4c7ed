"""The task that SkyPilot is asked for, and which cloud files are refused before anybody is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ftl.backends.skypilot import SkypilotBackend
from ftl.backends.skypilot_cloud import SkypilotCloud
from ftl.backends.skypilot_faults import lasting_problems
from ftl.backends.skypilot_plan import job_name, merged, task
from ftl.contract import Bundle, HubRef, JobSpec, Mount, StoreRef, UrlRef

BUNDLE = Bundle(sha256="b" * 64, path="/state/bundles/b", size_bytes=1)
IMAGE = "ghcr.io/me/ftl@sha256:" + "a" * 64
MANAGED = {"spot": True, "controller": "local"}


def cloud_of(**keys: Any) -> SkypilotCloud:
    return SkypilotCloud.model_validate({"provider": "skypilot", **keys})


def spec_of(cloud: SkypilotCloud, **fields: Any) -> JobSpec:
    decided = SkypilotBackend(cloud).spec_fields()
    return JobSpec.model_validate({"run_id": "abc234-quick", "secrets": cloud.secrets, **decided, **fields})


def asked(image: str | None = IMAGE, **keys: Any) -> dict[str, Any]:
    cloud = cloud_of(**keys)
    return task(spec_of(cloud), cloud, BUNDLE, image=image)


def resources(**keys: Any) -> dict[str, Any]:
    found = asked(**keys)["resources"]
    assert isinstance(found, dict)
    return found


def order_in(made: dict[str, Any]) -> dict[str, Any]:
    """What the entry reads on its standard input."""
    text = made["run"].partition("<<'FTL_ORDER'\n")[2].partition("\nFTL_ORDER")[0]
    order = json.loads(text)
    assert isinstance(order, dict)
    return order


def test_one_machine_on_demand_ends_itself_after_its_job() -> None:
    assert resources(infra="aws/us-east-1", gpu="H100:8", disk=500, cpus=32, memory=256) == {
        "infra": "aws/us-east-1",
        "accelerators": "H100:8",
        "cpus": "32+",
        "memory": "256+",
        "disk_size": 500,
        "image_id": f"docker:{IMAGE}",
        "autostop": {"idle_minutes": 10, "down": True},
    }


def test_spot_machine_is_started_again_after_75_and_after_nothing_else() -> None:
    found = resources(infra="gcp", gpu="L4", **MANAGED)
    assert found["use_spot"] is True
    assert found["job_recovery"] == {
        "strategy": "EAGER_NEXT_REGION",
        "max_restarts_on_errors": 0,
        "recover_on_exit_codes": [75],
    }
    assert "autostop" not in found


def test_preferred_spot_comes_first_and_falls_back_to_any_other_machine() -> None:
    found = resources(infra="aws", gpu="L4", spot="prefer", controller="local")
    assert found["ordered"] == [
        {"infra": "aws", "accelerators": "L4:1", "use_spot": True},
        {"infra": "aws", "accelerators": "L4:1"},
    ]


def test_places_in_order_are_tried_in_order_and_others_by_price() -> None:
    assert [one["infra"] for one in resources(ordered=["gcp", "aws/us-east-1"])["ordered"]] == ["gcp", "aws/us-east-1"]
    assert [one["infra"] for one in resources(any_of=["gcp", "aws"])["any_of"]] == ["gcp", "aws"]
    assert [one["infra"] for one in resources(infra="aws", regions=["us-east-1", "us-west-2"])["any_of"]] == [
        "aws/us-east-1",
        "aws/us-west-2",
    ]


def test_gpus_are_taken_in_order_of_preference() -> None:
    cloud = cloud_of(infra="aws", gpu=["H100:8", "A100:4"])
    assert [one["accelerators"] for one in asked(infra="aws", gpu=["H100:8", "A100:4"])["resources"]["ordered"]] == [
        "H100:8",
        "A100:4",
    ]
    assert spec_of(cloud).resources.gpus == "all"
    assert spec_of(cloud_of(infra="aws", gpu="H100", gpu_count=2)).resources.gpus == 2


def test_bundle_mounts_and_secrets_are_files_and_no_value_is_in_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    cloud = cloud_of(infra="aws", secrets=["HF_TOKEN"])
    mount = Mount(name="model-1", source="/models/big", fingerprint="f")
    made = task(spec_of(cloud, mounts=[mount]), cloud, BUNDLE, image=IMAGE)
    assert made["file_mounts"]["~/.ftl/bundles/bbbbbbbbbbbbbbbb"] == "/state/bundles/b"
    assert made["file_mounts"]["~/.ftl/mounts/model-1"] == "/models/big"
    paths = order_in(made)["job"]["paths"]
    assert paths["mounts"] == {"model-1": "~/.ftl/mounts/model-1"}
    assert paths["secrets"] in made["file_mounts"]
    assert "hf_canary" not in json.dumps(made)
    assert "secrets" not in made
    assert "envs" not in made


def test_what_a_run_brings_along_is_mounted_where_its_entry_looks_for_it() -> None:
    cloud = cloud_of()
    spec = spec_of(cloud, carried=("checkpoints/checkpoint-5", "events.jsonl"), attempt=2)
    made = task(spec, cloud, BUNDLE, image=IMAGE, run_dir=Path("/state/runs/r"))
    place = order_in(made)["carried"]
    assert place == "~/.ftl/carried/abc234-quick-2"
    assert made["file_mounts"][f"{place}/checkpoints/checkpoint-5"] == "/state/runs/r/checkpoints/checkpoint-5"
    assert made["file_mounts"][f"{place}/events.jsonl"] == "/state/runs/r/events.jsonl"


def test_machine_without_image_installs_the_lock_once() -> None:
    made = asked(infra="slurm/lab", gpu="H100", image=None)
    assert "image_id" not in made["resources"]
    assert "--require-hashes" in made["setup"]
    assert "requirements-cu130.txt" in made["setup"]
    assert any(source.endswith("images/requirements-cu130.txt") for source in made["file_mounts"].values())


def test_own_python_installs_nothing_and_runs_that() -> None:
    made = asked(infra="slurm/lab", python="/opt/venv/bin/python", image=None)
    assert "setup" not in made
    assert 'exec "/opt/venv/bin/python" -m ftl_runtime.sky_entry' in made["run"]


@pytest.mark.parametrize(
    ("keys", "place"), [({"shared": "/nfs/me/ftl"}, "/nfs/me/ftl"), ({}, "~/.ftl")], ids=["shared", "apart"]
)
def test_several_machines_keep_the_run_where_all_see_it_or_each_at_home(keys: dict[str, Any], place: str) -> None:
    made = asked(infra="slurm/lab", nodes=2, image=None, **keys)
    assert made["num_nodes"] == 2
    paths = order_in(made)["job"]["paths"]
    assert (paths["run"], paths["cache"]) == (f"{place}/runs/abc234-quick", f"{place}/cache")


def test_sky_mapping_is_put_over_the_task_and_its_setup_goes_first() -> None:
    made = asked(infra="slurm/lab", image=None, sky={"resources": {"disk_tier": "best"}, "setup": "module load cuda"})
    assert made["resources"]["disk_tier"] == "best"
    assert made["resources"]["infra"] == "slurm/lab"
    assert made["setup"].startswith("module load cuda\nset -e\n")
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_name_tells_run_and_attempt() -> None:
    spec = spec_of(cloud_of(infra="aws"), attempt=2)
    assert job_name(spec) == "ftl-abc234-quick-2"


def test_managed_job_counts_its_starts() -> None:
    assert spec_of(cloud_of(infra="aws", **MANAGED)).restarts
    assert not spec_of(cloud_of(infra="aws")).restarts


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        pytest.param({"infra": "awz"}, "infra", id="unknown cloud"),
        pytest.param({"infra": "aws//a"}, "infra", id="empty region"),
        pytest.param({"infra": "aws", "any_of": ["gcp"]}, "any_of", id="two ways to say where"),
        pytest.param({"infra": "aws/us-east-1", "regions": ["us-west-2"]}, "regions", id="region twice"),
        pytest.param({"regions": ["us-west-2"]}, "regions", id="regions of no cloud"),
        pytest.param({"spot": True}, "controller", id="managed without controller"),
        pytest.param({"controller": "local"}, "controller", id="controller of nothing"),
        pytest.param({"strategy": "FAILOVER"}, "strategy", id="strategy of nothing"),
        pytest.param({**MANAGED, "strategy": "NOPE"}, "strategy", id="unknown strategy"),
        pytest.param({**MANAGED, "recover": False}, "recover", id="spot that does not recover"),
        pytest.param({"grace": 60}, "grace", id="more grace than SkyPilot gives"),
        pytest.param({"python": "/p", "image": "cuda"}, "python", id="python and image"),
        pytest.param({"sky": {"secrets": {"HF_TOKEN": None}}}, "sky.secrets", id="secrets past ftl"),
        pytest.param({"sky": {"run": "echo"}}, "sky.run", id="another command"),
        pytest.param({"infra": "k8s", "max_usd_per_hour": 2}, "max_usd_per_hour: SkyPilot has no", id="unpriced"),
    ],
)
def test_cloud_file_that_cannot_work_is_refused_with_its_key(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        cloud_of(**keys)


@pytest.mark.parametrize(
    ("keys", "stores", "named"),
    [
        pytest.param({"infra": "aws", **MANAGED}, [], "spot", id="spot without a store"),
        pytest.param({"infra": "aws", "recover": True, "controller": "cloud"}, [], "recover", id="managed without one"),
        pytest.param({"infra": "aws"}, [UrlRef(url="file:///data")], "checkpoints", id="store on the machine"),
        pytest.param({"infra": "aws", **MANAGED}, [UrlRef(url="s3://b/p")], None, id="bucket"),
        pytest.param({"infra": "aws", **MANAGED}, [HubRef(repo="me/m")], None, id="hub"),
        pytest.param({"infra": "aws"}, [], None, id="on demand without a store"),
        pytest.param({"infra": "slurm/lab"}, [UrlRef(url="file:///nfs")], None, id="directory of a cluster"),
    ],
)
def test_run_that_would_leave_nothing_behind_is_refused(
    keys: dict[str, Any], stores: list[StoreRef], named: str | None
) -> None:
    cloud = cloud_of(**keys)
    found = lasting_problems(spec_of(cloud, stores=[store.model_dump() for store in stores]), cloud)
    assert [problem.where for problem in found] == ([named] if named else [])

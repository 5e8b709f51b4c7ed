"""What machines on Modal cost, by its price list and by hand."""

import pytest

from ftl.backends.modal import ModalBackend
from ftl.backends.modal_cloud import MAX_GPUS, ModalCloud
from ftl.backends.modal_plan import plan
from ftl.backends.modal_prices import USD_PER_GPU_S, spent
from ftl.contract import Bundle, JobSpec
from ftl.cost import Price, sentence


def price(**keys: object) -> Price:
    backend = ModalBackend(ModalCloud(**keys))
    return backend.price(JobSpec.model_validate({"run_id": "abcdef-cats", **backend.spec_fields()}))


def test_every_gpu_has_a_price() -> None:
    assert set(USD_PER_GPU_S) == set(MAX_GPUS)


@pytest.mark.parametrize(
    ("keys", "least", "most"),
    [
        ({"gpu": "T4", "cpus": 2, "memory": 8}, 0.748656, 0.748656),
        ({"gpu": "H100:8"}, 35.148672, 35.148672),
        ({"gpu": ["H100", "A100-80GB"]}, 2.942784, 4.393584),
        ({"gpu": "T4", "cpus": 2, "memory": 8, "regions": ["us-east"]}, 0.93582, 1.87164),
        ({"gpu": "T4", "cpus": 2, "memory": 8, "disk": 1024}, 1.0939104, 1.0939104),
        ({}, 0.316512, 0.316512),
        ({"gpu": ["H100", "T4"], "usd_per_hour": 2}, 2, 2),
    ],
    ids=["t4", "eight", "preferences", "region", "disk-counts-as-memory", "no-gpu", "own-price"],
)
def test_price_by_the_hour(keys: dict[str, object], least: float, most: float) -> None:
    found = price(**keys)
    assert (found.usd_per_hour, found.most_usd_per_hour) == pytest.approx((least, most))


def test_price_names_its_list_and_date() -> None:
    assert sentence(price(gpu="T4", cpus=2, memory=8), None).startswith(
        "costs $0.75 an hour for T4 (Modal's price list of 2026-06-27); nothing ends it early"
    )


def test_order_tells_containers_the_budget_and_what_each_stage_costs_at_most() -> None:
    cloud = ModalCloud(gpu="T4", cpus=2, memory=8, memory_preprocess=16, max_usd=5)
    spec = JobSpec.model_validate({"run_id": "abcdef-cats", **ModalBackend(cloud).spec_fields()})
    order = plan(spec, cloud, Bundle(sha256="b" * 64, path="", size_bytes=0)).order
    assert (order["max_usd"], order["usd_per_hour"]) == (5, {"prepare": 0.3165, "train": 0.7487})


def test_spent_weighs_each_stage_by_its_own_price() -> None:
    found = spent({"prepare": 1800, "train": 5400}, {"prepare": 0.4, "train": 4.0})
    assert found is not None
    assert (found.hours, found.usd) == pytest.approx((2.0, 6.2))
    assert spent({}, {}) is None

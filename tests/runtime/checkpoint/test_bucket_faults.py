"""What goes wrong between a run and S3 or GCS: on whatever a push or a restore asks for, twice."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from hub_faults import Kind
from store_place import Place, gs_env, s3_env
from store_worker import StoreRaisedError, StoreWorker

from ftl_runtime.checkpoint import manifest

STATUSES = (403, 404, 500)
KINDS: tuple[Kind, ...] = ("away", "reset", "hang", "truncate", "flip", "page")
VERBS: dict[str, tuple[str, ...]] = {"s3": ("GET", "HEAD", "PUT"), "gs": ("GET", "POST")}


@pytest.fixture(params=["s3", "gs"])
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(request: pytest.FixtureRequest, service: str) -> Iterator[FaultProxy]:
    with FaultProxy(request.getfixturevalue(service)) as proxy:
        yield proxy


@pytest.fixture
def place(worker: StoreWorker, proxy: FaultProxy, service: str, tmp_path: Path) -> Place:
    env = s3_env(proxy.url) if service == "s3" else gs_env(proxy.url)
    ref = {"kind": "url", "url": f"{service}://lake/{tmp_path.name.replace('_', '-')}"}
    place = Place(worker, ref, tmp_path, env)
    place.ask("claim", owner="1-a")
    place.put(1)
    return place


def outcome(place: Place, call: str, step: int) -> Any:
    """What comes of a call, or the failure that may pass; anything else is raised."""
    try:
        if call == "fetch":
            manifest.check(place.fetch(step), run_id="run-a", step=step)
            return None
        return place.put(step) if call == "put" else place.ask("steps")
    except manifest.BrokenCheckpoint:
        return "broken"
    except StoreRaisedError as raised:
        if raised.kind == "BrokenCheckpoint":
            return "broken"
        assert raised.kind in ("UnreachableError", "ConfigError")
        assert f"checkpoints: {place.ref['url']}/run-a: " in str(raised)
        return "failed"


@pytest.mark.parametrize("fault", [*STATUSES, *KINDS])
def test_fault_leaves_nothing_half_and_passes(place: Place, proxy: FaultProxy, service: str, fault: Any) -> None:
    step = 1
    for method in VERBS[service]:
        if fault == "flip" and method != "GET":
            continue  # nothing of an answer that is not content is believed

        def disturb(method: str = method) -> None:
            if isinstance(fault, int):
                proxy.fail(fault, times=2, method=method)
            else:
                proxy.disturb(fault, times=1 if fault == "hang" else 2, method=method)

        step += 1
        disturb()
        assert outcome(place, "put", step) in (None, "failed"), method
        proxy.heal()
        place.put(step)
        manifest.check(place.fetch(step), run_id="run-a", step=step)
        disturb()
        assert outcome(place, "steps", step) in ("failed", list(range(1, step + 1))), method
        proxy.heal()
        disturb()
        assert outcome(place, "fetch", step) in (None, "failed", "broken"), method
        proxy.heal()
        assert place.ask("steps") == list(range(1, step + 1)), method
    assert proxy.num_outwaited == 0


@pytest.mark.parametrize("fault", [403, 500, "reset"])
def test_fault_while_older_ones_are_dropped_loses_none_that_stays(place: Place, proxy: FaultProxy, fault: Any) -> None:
    place.put(2)
    for step, method in enumerate(("DELETE", "POST"), start=3):  # one by one, and many at once
        times = 1 if fault == "hang" else 2
        if isinstance(fault, int):
            proxy.fail(fault, times=times, method=method)
        else:
            proxy.disturb(fault, times=times, method=method)
        with suppress(StoreRaisedError):
            place.put(step, drop=(step - 2,))
        proxy.heal()
        assert {step - 1} <= set(place.ask("steps")) <= {step - 2, step - 1, step}, method
        place.put(step, drop=(step - 2,))
        assert place.ask("steps") == [step - 1, step], method
        manifest.check(place.fetch(step), run_id="run-a", step=step)

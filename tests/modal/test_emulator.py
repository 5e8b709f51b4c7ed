"""The emulated Modal, proved with the bare modal client and its real container entrypoint."""

from collections.abc import Iterator
from typing import Any

import emulator_jobs
import modal
import pytest
from modal_emulator import ModalEmulator

APP = "emulator"


@pytest.fixture(scope="module")
def functions(modal_client: ModalEmulator) -> Iterator[dict[str, Any]]:
    """One deployed app with every function of emulator_jobs."""
    app = modal.App(APP, include_source=False)
    image = modal.Image.debian_slim().env({"LAYER": "of the image"}).add_local_python_source("emulator_jobs")
    volume = modal.Volume.from_name("emulator", create_if_missing=True, version=2)
    usual = {"image": image, "volumes": {"/vol": volume}, "single_use_containers": True, "timeout": 3600}
    secret = modal.Secret.from_dict({"KEY": "of the secret"})
    app.function(name="hello", secrets=[secret], **usual)(emulator_jobs.hello)
    app.function(name="fail_once", retries=modal.Retries(max_retries=2, initial_delay=0.0), **usual)(
        emulator_jobs.fail_once
    )
    for job in (
        emulator_jobs.wait_for_interrupt,
        emulator_jobs.ignore_interrupt,
        emulator_jobs.commit_half,
        emulator_jobs.wait_for_cancellation,
        emulator_jobs.read_while_open,
        emulator_jobs.exit_once,
    ):
        app.function(name=job.__name__, **usual)(job)
    app.function(name="double", image=image, max_containers=1)(emulator_jobs.double)
    app.function(name="meet", **usual)(modal.clustered(size=2)(emulator_jobs.meet))
    app.deploy(name=APP)
    jobs = [name for name, job in vars(emulator_jobs).items() if getattr(job, "__module__", "") == "emulator_jobs"]
    yield {name: modal.Function.from_name(APP, name) for name in jobs}
    modal.App.lookup(APP).stop()


def test_a_function_runs_in_a_container_and_its_result_logs_and_files_come_back(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    call = functions["hello"].spawn("ann")
    result = call.get(timeout=30)
    assert (result["name"], result["cwd"]) == ("ann", "/root")
    assert result["env"]["LAYER"] == "of the image"
    assert result["env"]["KEY"] == "of the secret"
    assert not any(name.startswith(("MODAL_TOKEN", "PYTEST")) for name in result["env"])
    assert "home" not in result["root"]
    for line in ("a warning\n", "hello ann\n"):  # a container sends its log beside the result
        modal_server.wait_for_log(line)
    assert sorted(entry.message for entry in call.logs.stream()) == ["a warning\n", "hello ann\n"]
    assert sorted(entry.message for entry in call.logs.tail(10)) == ["a warning\n", "hello ann\n"]
    modal_server.wait_for_end(call.object_id)
    assert modal_server.committed("emulator")["hello.txt"] == b"ann"
    assert modal_server.unknown == {}


def test_a_failure_is_tried_again_and_counts_as_a_retry(modal_server: ModalEmulator, functions: dict[str, Any]) -> None:
    call = functions["fail_once"].spawn()
    assert call.get(timeout=30) == 2
    assert modal_server.ends(call.object_id) == ["failure", "success"]
    assert modal_server.input(call.object_id)["retry_count"] == 1
    assert "ValueError: the first try fails" in modal_server.log_text(call.object_id)


def test_a_preempted_input_starts_again_and_burns_no_retry(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    call = functions["wait_for_interrupt"].spawn()
    modal_server.wait_for_log("waiting\n")
    modal_server.preempt(modal_server.wait_for_container(call.object_id))
    assert call.get(timeout=30) == "saved in time"
    assert modal_server.ends(call.object_id) == ["preempted", "success"]
    assert modal_server.input(call.object_id)["retry_count"] == 0


def test_what_does_not_end_in_its_grace_is_killed_but_for_what_was_committed_in_the_background(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    modal_server.behave(preemption_grace_s=0.3, background_commit_s=0.1)
    call = functions["ignore_interrupt"].spawn()
    modal_server.wait_for_log("deaf\n")
    modal_server.wait_until(lambda _: "ignored.txt" in modal_server.committed("emulator"), "it is committed")
    modal_server.preempt(modal_server.wait_for_container(call.object_id))
    assert call.get(timeout=30) == "committed in the background"
    assert modal_server.ends(call.object_id) == ["preempted", "success"]


def test_at_its_timeout_a_container_is_killed_and_what_it_did_not_commit_is_lost(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    call = functions["commit_half"].spawn()
    modal_server.wait_for_log("half committed\n")
    modal_server.advance(3601)
    with pytest.raises(modal.exception.FunctionTimeoutError):
        call.get(timeout=30)
    assert modal_server.ends(call.object_id) == ["timeout"]
    files = modal_server.committed("emulator")
    assert files["committed.txt"] == b"committed"
    assert "lost.txt" not in files


@pytest.mark.parametrize("is_hard", [False, True], ids=["told", "killed"])
def test_cancelling_tells_the_function_or_kills_its_container(
    modal_server: ModalEmulator, functions: dict[str, Any], is_hard: bool
) -> None:
    call = functions["wait_for_cancellation"].spawn()
    modal_server.wait_until(lambda _: "working\n" in modal_server.log_text(call.object_id), "it works")
    if is_hard:
        modal.Volume.from_name("emulator").remove_file("cancelled.txt")
    call.cancel(terminate_containers=is_hard)
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=30)
    modal_server.wait_for_end(call.object_id)
    assert modal_server.input(call.object_id)["status"] == "TERMINATED"
    assert ("cancelled.txt" in modal_server.committed("emulator")) == (not is_hard)


def test_a_reload_needs_every_file_closed_and_brings_what_others_wrote(
    modal_server: ModalEmulator, functions: dict[str, Any], tmp_path: Any
) -> None:
    call = functions["read_while_open"].spawn()
    modal_server.wait_for_log("waiting for later.txt\n")
    (tmp_path / "later.txt").write_text("from outside")
    with modal.Volume.from_name("emulator").batch_upload(force=True) as batch:
        batch.put_file(tmp_path / "later.txt", "/later.txt")
    said, brought = call.get(timeout=30)
    assert "open files" in said and "opened.txt" in said
    assert brought == "from outside"


def test_a_crash_of_the_container_starts_the_input_again_without_a_retry(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    call = functions["exit_once"].spawn()
    assert call.get(timeout=30) == "survived"
    assert modal_server.ends(call.object_id) == ["crashed", "success"]
    assert modal_server.input(call.object_id)["retry_count"] == 0


def test_with_one_container_at_most_the_second_call_waits_its_turn(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    calls = [functions["double"].spawn(number) for number in (1, 2)]
    (two, first), (four, second) = [call.get(timeout=30) for call in calls]
    assert (two, four) == (2, 4)
    assert first == second


def test_a_cluster_is_preempted_as_one_and_its_containers_reach_each_other(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    call = functions["meet"].spawn()
    for rank in (0, 1):
        modal_server.wait_for_log(f"rank {rank} waits to be preempted\n")
    modal_server.preempt(modal_server.wait_for_container(call.object_id))
    assert call.get(timeout=30) == {"rank": 0, "heard": "1", "num_addresses": 2}
    members = [c for c in modal_server.state["containers"].values() if c["cluster_id"]]
    assert sorted(c["rank"] for c in members) == [0, 0, 1, 1]
    assert len({c["cluster_id"] for c in members}) == 2
    assert modal_server.ends(call.object_id) == ["preempted", "success"]


def test_a_frozen_container_is_given_up_and_its_input_started_elsewhere(
    modal_server: ModalEmulator, functions: dict[str, Any]
) -> None:
    modal_server.behave(heartbeat_timeout_s=60.0)
    call = functions["wait_for_cancellation"].spawn()
    container = modal_server.wait_for_container(call.object_id)
    modal_server.freeze(container)
    modal_server.advance(61)
    assert modal_server.wait_for_container(call.object_id, attempt=2) != container
    assert modal_server.ends(call.object_id)[0] == "lost"
    call.cancel(terminate_containers=True)
    modal_server.wait_for_end(call.object_id)


def test_results_expire_after_seven_days(modal_server: ModalEmulator, functions: dict[str, Any]) -> None:
    call = functions["double"].spawn(4)
    assert call.get(timeout=30)[0] == 8
    modal_server.advance(7 * 86400 - 60)
    assert call.get(timeout=0)[0] == 8
    modal_server.advance(61)
    with pytest.raises(modal.exception.OutputExpiredError):
        call.get(timeout=0)

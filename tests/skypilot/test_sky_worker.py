"""What the worker makes of what SkyPilot knows of a name; SkyPilot itself answers in the tests beside this one."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftl.backends import sky_worker
from ftl.backends.sky_worker import attempt, errors, everything, logs, lookup, standing

NOW = 1_800_000_000.0
NAME = {"name": "ftl-quick-1", "request": None, "next": "ftl-quick-2"}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What there is: a managed job, a launch that has not ended, a cluster, a request."""
    found: dict[str, Any] = {"job": None, "launching": None, "cluster": None, "request": None}
    found["requests"] = []
    monkeypatch.setattr(lookup, "managed_job", lambda name: found["job"])
    monkeypatch.setattr(lookup, "launching", lambda name, managed: found["launching"])
    monkeypatch.setattr(lookup, "cluster_of", lambda name: found["cluster"])
    monkeypatch.setattr(lookup, "request_of", lambda request: found["request"])
    monkeypatch.setitem(sys.modules, "sky", SimpleNamespace(api_status=lambda **which: found["requests"]))
    return found


@pytest.mark.parametrize("managed", [False, True])
def test_name_that_skypilot_does_not_know_is_to_be_launched(managed: bool, known: dict[str, Any]) -> None:
    assert sky_worker.find({**NAME, "managed": managed}) is None


def test_launch_that_is_under_way_is_found_before_its_half_made_cluster(known: dict[str, Any]) -> None:
    why = "Launching (pending: Resources)"
    known |= {"launching": "r-1", "cluster": SimpleNamespace(init_status_reason=why)}
    assert sky_worker.find({**NAME, "managed": False}) == {"request": "r-1"}
    assert sky_worker.state({**NAME, "managed": False}) == {"status": "LAUNCHING", "text": why}


def test_cluster_without_a_launch_is_found_and_not_launched_again(known: dict[str, Any]) -> None:
    known["cluster"] = object()
    assert sky_worker.find({**NAME, "managed": False}) == {}


def test_launch_that_a_server_has_forgotten_and_that_left_nothing_is_gone(known: dict[str, Any]) -> None:
    assert sky_worker.state({**NAME, "managed": False})["status"] == "GONE"


def test_launch_that_was_cancelled_is_neither_refused_nor_lost(known: dict[str, Any]) -> None:
    """The first would be the user's mistake, the second would be started again."""
    known |= {"request": {"id": "r-1", "status": "CANCELLED"}}
    assert sky_worker.state({**NAME, "managed": False})["status"] == "CANCELLED"


def asked(name: str, *, seconds_ago: float | None = 3600.0, status: str = "SUCCEEDED") -> SimpleNamespace:
    finished_at = None if seconds_ago is None else NOW - seconds_ago
    return SimpleNamespace(name=f"sky.{name}", status=status, finished_at=finished_at)


@pytest.mark.parametrize(
    ("requests", "status"),
    [
        pytest.param([asked("job_status")], "GONE", id="by nobody"),
        pytest.param([asked("down"), asked("job_status")], "ENDED", id="sky down"),
        pytest.param([asked("down", status="FAILED")], "GONE", id="in vain"),
        pytest.param([asked("down", seconds_ago=2)], "UNKNOWN", id="perhaps to be started again"),
        pytest.param([asked("down", seconds_ago=None, status="RUNNING")], "UNKNOWN", id="about to end"),
        pytest.param([asked("cancel", seconds_ago=2), asked("down", seconds_ago=1)], "ENDED", id="stopped"),
        pytest.param([asked("cancel", status="FAILED")], "ENDED", id="stopped before the cancel came"),
    ],
)
def test_machine_that_somebody_ended_is_not_lost(
    requests: list[SimpleNamespace], status: str, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "time", SimpleNamespace(time=lambda: NOW))
    known["requests"] = requests
    assert sky_worker.state({**NAME, "managed": False})["status"] == status


def test_machine_that_was_ended_to_start_the_run_again_was_lost(
    known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows the run from another computer goes on with the next one."""
    known["requests"] = [asked("down")]
    clusters = {"ftl-quick-2": cluster()}
    monkeypatch.setattr(lookup, "cluster_of", clusters.get)
    assert sky_worker.state({**NAME, "managed": False})["status"] == "GONE"


def test_stop_copies_its_file_to_the_cluster_and_leaves_a_word_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def exec_(task: dict[str, Any], cluster_name: str) -> tuple[int, None]:
        done.append((cluster_name, [path.name for path in Path(task["workdir"]).iterdir()]))
        return 2, None

    def cancel(name: str, job_ids: list[int]) -> None:
        done.append((name, job_ids))
        raise RuntimeError("the cluster is gone")

    sky = SimpleNamespace(exec=exec_, cancel=cancel, get=lambda answer: answer)
    monkeypatch.setitem(sys.modules, "sky", sky)  # type: ignore[arg-type]
    monkeypatch.setattr(lookup, "task_of", lambda config: config)
    sky_worker.stop({**NAME, "managed": False, "file": "ftl-stop-0a"})
    assert done == [("ftl-quick-1", ["ftl-stop-0a"]), ("ftl-quick-1", [2])]


def test_log_goes_on_after_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """SkyPilot gives None where a job has said nothing for half a minute, as one that loads a model does."""
    lines = iter(["one\n", None, "two\n"])
    monkeypatch.setitem(sys.modules, "sky", SimpleNamespace(tail_logs=lambda *names, **how: lines))
    monkeypatch.setattr(logs.threading, "Thread", Now)
    stream = logs.Stream({**NAME, "managed": False})
    assert (stream.text, stream.ended) == (["one\n", "two\n"], "")


class Now:
    """A thread that has run when it is started."""

    def __init__(self, target: Callable[[], None], daemon: bool) -> None:
        self.start = target


def cluster(*, status: str = "UP", ends_itself: bool = True) -> SimpleNamespace:
    autostop = (10, True) if ends_itself else (-1, False)
    return SimpleNamespace(
        name="ftl-quick-1",
        status=SimpleNamespace(value=status),
        autostop=autostop[0],
        to_down=autostop[1],
        launched_at=1.0,
        handle=None,
        init_status_reason=None,
    )


@pytest.mark.parametrize(
    ("job", "ends_itself", "request_", "status"),
    [
        pytest.param("UNKNOWN", False, None, "GONE", id="killed before ssh"),
        pytest.param("LAUNCHING", False, None, "GONE", id="killed in setup"),
        pytest.param("UNKNOWN", True, None, "UNKNOWN", id="machine that cannot be asked"),
        pytest.param("RUNNING", True, None, "RUNNING", id="server that was started again"),
        pytest.param("LAUNCHING", True, {"status": "SUCCEEDED"}, "LAUNCHING", id="job to come"),
    ],
)
def test_launch_that_was_broken_off_is_gone_and_a_job_is_not(
    job: str,
    ends_itself: bool,
    request_: dict[str, str] | None,
    status: str,
    known: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known |= {"cluster": cluster(ends_itself=ends_itself), "request": request_}
    monkeypatch.setattr(standing, "job_on", lambda name: {"status": job, "text": ""})
    assert sky_worker.state({**NAME, "managed": False})["status"] == status


class Sky:
    """SkyPilot with one cluster, whose autostop cannot be set: nobody gets there."""

    class exceptions:  # noqa: N801  # SkyPilot's own names
        class ClusterNotUpError(Exception): ...

        class CommandError(Exception): ...

        class ClusterDoesNotExist(Exception): ...  # noqa: N818  # SkyPilot's own name

    def __init__(self, machine: SimpleNamespace) -> None:
        self._machine = machine
        self.done: list[str] = []

    def get(self, answer: Any) -> Any:
        return answer

    def status(self) -> list[SimpleNamespace]:
        return [self._machine]

    def autostop(self, name: str, minutes: int, *, down: bool) -> None:
        raise self.exceptions.ClusterNotUpError("not properly set up")

    def down(self, name: str) -> None:
        self.done.append(f"down {name}")


def test_machine_that_another_request_ends_meanwhile_has_been_ended(
    known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ftl rm` right after the end of a run, whose machine is on its way out."""

    class EndedError(Exception): ...

    def get(request: str) -> None:
        raise EndedError(f"{request}: the cluster does not exist")

    known["cluster"] = cluster()
    exceptions = SimpleNamespace(ClusterDoesNotExist=EndedError)
    sky = SimpleNamespace(down=lambda name: f"down {name}", get=get, exceptions=exceptions)
    monkeypatch.setitem(sys.modules, "sky", sky)  # type: ignore[arg-type]
    sky_worker.down({**NAME, "managed": False, "wait": True})


@pytest.mark.parametrize("status", ["INIT", "UP"])
def test_collect_ends_a_machine_that_was_never_set_up(
    status: str, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sky = Sky(cluster(status=status, ends_itself=False))
    monkeypatch.setitem(sys.modules, "sky", sky)  # type: ignore[arg-type]
    monkeypatch.setattr(standing, "job_on", lambda name: {"status": "UNKNOWN", "text": ""})
    (told,) = sky_worker.collect({"prefix": "ftl-", "autostop": 10})
    assert told["what"] == "ended"
    assert sky.done == ["down ftl-quick-1"]


@pytest.mark.parametrize("ends_itself", [True, False], ids=["has autostop", "is being launched"])
def test_collect_leaves_alone_what_ends_itself_or_is_being_launched(
    ends_itself: bool, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sky = Sky(cluster(ends_itself=ends_itself))
    known["launching"] = None if ends_itself else "r-1"
    monkeypatch.setitem(sys.modules, "sky", sky)  # type: ignore[arg-type]
    assert sky_worker.collect({"prefix": "ftl-", "autostop": 10}) == []
    assert sky.done == []


@pytest.mark.parametrize("own", [None, ["echo mine"]], ids=["none", "one"])
def test_command_for_the_first_boot_stands_after_the_user_s_own(
    own: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(get_nested=lambda keys, default_value: own, override_skypilot_config=lambda given: given)
    monkeypatch.setitem(sys.modules, "sky", SimpleNamespace(skypilot_config=config))
    sent = attempt._at_first_boot("watch")
    assert sent == {"aws": {"post_provision_runcmd": [*(own or []), "watch"]}}


def test_refusal_of_aws_is_found_in_a_log() -> None:
    log = (
        "\x1b[33mcreate_instances: Attempt failed with An error occurred (VcpuLimitExceeded) when calling the "
        "RunInstances operation (reached max retries: 0): You have requested more vCPU capacity than allowed.\x1b[0m\n"
    )
    (found,) = standing._AWS_REFUSAL.findall(errors.ANSI.sub("", log))
    assert found == ("VcpuLimitExceeded", "You have requested more vCPU capacity than allowed.")


def test_script_of_a_task_is_read_behind_the_header_of_a_managed_job() -> None:
    task = "name: ftl-quick-1\nrun: |\n  python -m train\n"
    assert everything._script(task) == "python -m train\n"
    assert everything._script("name: ftl-quick-1\n---\n" + task) == "python -m train\n"
    assert everything._script(None) == everything._script("run: [") == ""


@pytest.mark.parametrize("module", sorted(Path(sky_worker.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_worker_needs_nothing_of_ftl_and_no_newer_python_than_skypilot_itself(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=(3, 9))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] == "ftl"]

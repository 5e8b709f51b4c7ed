"""When to ask for a stop, whether a save still fits, how long what is left may be sent."""

import json
import os
import time

import pytest

from ftl.contract import JobSpec
from ftl_runtime import uploads
from ftl_runtime.link import Asked
from ftl_runtime.measured import Measured, fits, lead_s, where_sent
from ftl_runtime.notices import Notice
from ftl_runtime.runlog import RunLog
from ftl_runtime.stop import StopOrder
from ftl_runtime.verdict import Verdict
from ftl_runtime.watch import Requests, SendLimit, Watch, limit_at


def line(event="checkpoint", **data):
    return json.dumps({"t": 0.0, "attempt": 1, "event": event, "data": data}) + "\n"


def test_measured_takes_the_newest_of_each(tmp_path):
    path = tmp_path / "events.jsonl"
    assert Measured(path).read().save_s is None
    path.write_text(
        line(state="saved", step=2, seconds=1.0)
        + line(state="verified", step=2, seconds=9.0)
        + line(state="pushed", step=2, store="s3://a", seconds=30.0)
        + line("step", step=3, why='"checkpoint"')
        + line(state="verified", step=4, seconds=3.0)
        + line(state="pushed", step=4, store="hf://b", seconds=4.0)
    )
    measured = Measured(path).read()
    assert (measured.save_s, measured.push_s, measured.sent) == (3.0, 30.0, {"s3://a": 2, "hf://b": 4})
    with path.open("a") as file:
        file.write(line(state="pushed", step=4, store="s3://a", seconds=5.0) + '{"event": "checkpoint", "da')
    measured.read()
    assert (measured.push_s, measured.sent["s3://a"]) == (5.0, 4)


@pytest.mark.parametrize(
    ("save_s", "left_s", "expected"), [(None, 0.0, True), (10.0, 12.0, True), (10.0, 11.9, False), (0.5, 0.0, False)]
)
def test_save_fits_with_a_fifth_to_spare(save_s, left_s, expected):
    assert fits(save_s, left_s) is expected


@pytest.mark.parametrize(
    ("timeout_s", "grace_s", "save_s", "push_s", "expected"),
    [
        (3600, 60, None, None, 60),
        (3600, 60, 10, 20, 60),  # 12 + 30 s are less than the grace time
        (3600, 60, 50, 200, 360),  # 60 + 300
        (3600, 60, 50, None, 60),
        (100, 60, None, None, 50),  # half of it is for training
        (400, 60, 50, 200, 200),
    ],
)
def test_deadline_leaves_time_to_save_and_to_send(timeout_s, grace_s, save_s, push_s, expected):
    assert lead_s(timeout_s, grace_s, save_s, push_s) == expected


def test_where_the_newest_checkpoint_is():
    assert where_sent({}) == "no checkpoint is in a store yet"
    assert where_sent({"s3://a": 2, "hf://b": 4}) == "the newest checkpoint in a store is step 4 in hf://b"


def test_first_request_leaves_the_grace_time_and_a_second_one_nothing():
    num_signals = 0
    requests = Requests(lambda: num_signals)
    limit = SendLimit(requests, send_by=None, grace_s=0.05)
    assert limit() is None
    num_signals = 1
    assert limit() is None
    time.sleep(0.06)
    assert limit() == "the time to stop in was over before all was sent"
    unlimited = SendLimit(requests, send_by=time.monotonic() + 600, grace_s=0.0)
    assert unlimited() is None
    num_signals = 2
    assert unlimited() == "it was asked a second time to stop before all was sent"


def test_notice_gives_the_time_the_machine_has_and_is_no_first_signal():
    num_signals = 0
    requests = Requests(lambda: num_signals, lambda: Notice("AWS takes it", time.time() + 120))
    assert requests.any()
    assert 118 < requests.allowed_s(60) <= 120
    num_signals = 1  # the signal that follows is of somebody who waits no longer than the grace time
    assert requests.allowed_s(60) == 60
    assert SendLimit(requests, send_by=None, grace_s=60)() is None
    assert Requests(lambda: 0, lambda: Notice("for maintenance")).allowed_s(60) == 60
    assert Requests(lambda: 0, lambda: Notice("long ago", 1.0)).allowed_s(60) == 60  # and yet it lives


def test_order_reaches_the_trainers_and_a_broken_one_is_none(tmp_path):
    assert StopOrder.read(tmp_path) is None
    order = StopOrder(12.5, "AWS takes it")
    order.write(tmp_path)
    assert StopOrder.read(tmp_path) == order
    (tmp_path / ".stop.json").write_text("{")
    assert StopOrder.read(tmp_path) is None
    assert 9 < StopOrder(time.time() + 10).left_s(60) <= 10
    assert StopOrder(time.time() - 1e8).left_s(60) == 60  # and yet it lives
    StopOrder.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sending_is_killed_with_the_reason(tmp_path, monkeypatch):
    # A sender that hangs, in place of the real one.
    popen = uploads.subprocess.Popen
    monkeypatch.setattr(uploads.subprocess, "Popen", lambda _, **rest: popen(["sleep", "600"], **rest))
    sending = uploads.Uploads(tmp_path / "job.json", dict(os.environ), RunLog(tmp_path / "log.txt"))
    started = time.monotonic()
    ending = sending.finish(has_output=True, must_end=lambda: "asked twice" if time.monotonic() > started else None)
    assert ending.undelivered == "asked twice"
    assert time.monotonic() - started < 5


class Ranks:
    """Trainers whose exit statuses are given."""

    def __init__(self, statuses):
        self.statuses = statuses

    def poll(self):
        return self.statuses


BEREFT = Verdict(70, "crash", "the training crashed: RuntimeError: Connection closed by peer")


def verdict_after(tmp_path, told, *turns):
    """The verdict when the ranks have these statuses at these turns."""
    ranks = Ranks(turns[0])
    watch = Watch(JobSpec(run_id="r"), ranks, tmp_path, time.monotonic())
    for statuses in turns[:-1]:
        ranks.statuses = statuses
        watch.turn(Requests(lambda: 0), is_superseded=False)
    ranks.statuses = turns[-1]
    return watch.verdict(told, newest=3)


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param([[None, -9], [70, -9]], id="seen first"),
        pytest.param([[70, -9]], id="seen at once"),
        pytest.param([[-9, None], [-9, 70]], id="rank 0"),
    ],
)
def test_rank_killed_alone_is_a_killed_run_not_a_crash_of_the_rank_that_is_left(tmp_path, turns):
    verdict = verdict_after(tmp_path, BEREFT, *turns)
    assert (verdict.exit_code, verdict.cause) == (137, "killed")


def test_rank_that_dies_of_a_signal_is_named_and_not_what_its_peer_says(tmp_path):
    verdict = verdict_after(tmp_path, BEREFT, [None, -11], [70, -11])
    assert verdict.message == "the trainer ended with SIGSEGV; its last words are in log.txt"


def test_crash_of_one_rank_is_told_although_the_other_is_killed_for_waiting(tmp_path):
    crash = Verdict(70, "crash", "the training crashed: ValueError: odd; the traceback is in log.txt")
    assert verdict_after(tmp_path, crash, [70, None], [70, -9]) == crash
    stopped = Verdict(75, "signal", "stopped at step 3 of 9; it can be resumed from there")
    assert verdict_after(tmp_path, stopped, [75, -9]) == stopped


def test_limit_of_all_attempts_counts_from_the_first_and_else_from_this_one(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    assert limit_at(JobSpec(run_id="r"), 40.0) is None
    assert limit_at(JobSpec(run_id="r", timeout_s=600), 40.0) == 640.0
    assert limit_at(JobSpec(run_id="r", timeout_s=600, limit_from=9_900.0), 40.0) == 50.0 + 500.0
    assert limit_at(JobSpec(run_id="r", timeout_s=600, limit_from=9_000.0), 40.0) == 50.0 - 400.0
    # The clock of whoever submitted it is ahead: that gives it no more than the limit.
    assert limit_at(JobSpec(run_id="r", timeout_s=600, limit_from=10_100.0), 40.0) == 650.0


class Others:
    """A link, as far as a Watch asks."""

    def __init__(self, *, gone=(), ended=None):
        self.gone, self.ended = list(gone), ended or {}

    def has_failed(self):
        return bool(self.gone) or any(verdict.exit_code for verdict in self.ended.values())

    def tell_stop(self, reason, why, left_s):
        pass


def test_machine_that_nobody_asked_sends_what_is_left_for_as_long_as_it_takes(tmp_path):
    ranks = Ranks([None])
    ranks.signal = lambda number: None
    now = time.monotonic()
    elsewhere = Requests(lambda: 0, elsewhere=lambda: Asked("signal", "machine 1 was asked to stop", now + 5))
    here = Requests(lambda: 1)
    for requests, expected in ((elsewhere, False), (here, True)):
        watch = Watch(JobSpec(run_id="r", grace_s=5), ranks, tmp_path, now, Others())
        watch.turn(requests, is_superseded=False)
        assert (watch.send_by(75) is not None) is expected


@pytest.mark.parametrize(
    ("told", "status", "expected"),
    [
        (Verdict(75, "lost", "the connection", is_bereft=True), 75, True),
        (None, -6, True),  # NCCL's watchdog has ended it
        (Verdict(70, "crash", "ours"), 70, False),
        (Verdict(75, "lost", "the connection", is_bereft=True), -9, False),  # it lost a peer of this machine
    ],
    ids=["connection", "abort", "crash", "killed"],
)
def test_only_what_another_machine_can_have_done_is_asked_of_it(tmp_path, told, status, expected):
    watch = Watch(JobSpec(run_id="r"), Ranks([status]), tmp_path, time.monotonic(), Others())
    watch.turn(Requests(lambda: 0), is_superseded=False)
    watch.verdict(told, newest=3)
    assert watch.is_bereft is expected


def test_trainers_that_wait_for_a_machine_that_is_gone_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("ftl_runtime.watch.STRAGGLER_S", 0.0)
    ranks = Ranks([None])
    ranks.kill = lambda: setattr(ranks, "statuses", [-9])
    watch = Watch(JobSpec(run_id="r"), ranks, tmp_path, time.monotonic(), Others(gone=[1]))
    watch.turn(Requests(lambda: 0), is_superseded=False)
    assert ranks.statuses == [-9]
    watch.verdict(None, newest=3)
    assert watch.is_bereft

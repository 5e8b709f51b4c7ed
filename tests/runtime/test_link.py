"""Supervisors in touch: who meets, what they tell each other, and how an attempt ended where another one failed."""

import json
import socket
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from ftl.errors import BackendError
from ftl_runtime import link as links
from ftl_runtime.agreement import agreed
from ftl_runtime.link import Link
from ftl_runtime.rendezvous import Rendezvous, free_port, interface_of
from ftl_runtime.verdict import Verdict

DONE = Verdict(0, "done")
LOST = Verdict(75, "lost", "lost the connection to another machine", is_bereft=True)


@contextmanager
def machines(number, *, is_done=False):
    """Links of so many machines that have met."""
    port = free_port()
    with ExitStack() as stack:
        found, met = [], [None] * number
        for node in range(number):
            one = Link(Rendezvous(number, node, "127.0.0.1", port), "tiny", 1)
            stack.callback(one.close)
            found.append(one)

        def meet(node):
            met[node] = found[node].meet(is_done=is_done and node == 0, must_end=lambda: False, patience_s=20)

        threads = [threading.Thread(target=meet, args=(node,)) for node in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield found, met


def until(is_so, timeout_s=10):
    give_up = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class Log:
    """What is asked of a log; its end is what was said last."""

    def __init__(self):
        self.written = []

    def end(self, num_bytes):
        return "Traceback: the last words\n"[:num_bytes]

    def write(self, line):
        self.written.append(line)


def settle(own, link, newest=None, log=None):
    return agreed(own, link, log or Log(), is_bereft=own.is_bereft, newest=newest)


def test_machines_learn_where_their_trainers_meet_and_that_all_is_done():
    with machines(3, is_done=True) as (_, met):
        assert len({meeting.port for meeting in met}) == 1
        assert [meeting.is_done for meeting in met] == [True] * 3
        assert met[2].address_here == "127.0.0.1"


def test_request_to_stop_reaches_all_with_its_reason_and_the_time_there_is():
    with machines(3) as (found, _):
        found[2].tell_stop("signal", "Google Cloud takes this spot machine back", 25.0)
        until(lambda: found[0].asked and found[1].asked)
        for one in found[:2]:
            assert one.asked.reason == "signal"
            assert one.asked.why == "Google Cloud takes this spot machine back"
            assert 20 < one.asked.until - time.monotonic() <= 25
        assert found[2].asked is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (Verdict(137, "killed", "the trainer was killed"), (75, "lost", "machine 2: the trainer was killed")),
        (Verdict(74, "storage", "the disk is full"), (74, "storage", "machine 2: the disk is full")),
        (Verdict(70, "crash", "ZeroDivisionError"), (70, "crash", "machine 2: ZeroDivisionError")),
        (
            Verdict(75, "signal", "killed before it could save; there is"),
            (75, "signal", "machine 2: killed before it could save"),
        ),
    ],
    ids=["killed", "storage", "crash", "stopped"],
)
def test_machines_that_lost_another_end_as_it_did_and_a_killed_one_is_gone_on_from(told, expected):
    """Though the one that has nothing to say of itself says so first."""
    with machines(3) as (found, _):
        found[1].tell_ended(LOST)
        until(lambda: 1 in found[0].ended)
        threading.Timer(0.2, lambda: settle(told, found[2])).start()
        log = Log()
        verdict = settle(LOST, found[0], newest=4, log=log)
        last = (
            []
            if told.exit_code == 75
            else [f"The log of machine 2 ends with:\nTraceback: the last words\n{expected[2]}"]
        )
        assert log.written == last
        went_on = "; it goes on from step 4" if expected[0] == 75 else ""
        assert (verdict.exit_code, verdict.cause, verdict.message) == (*expected[:2], expected[2] + went_on)


def test_machine_that_leaves_without_a_word_is_gone():
    with machines(3) as (found, _):
        found[2]._wires[0]._connection.shutdown(socket.SHUT_RDWR)
        assert settle(LOST, found[0], newest=2).message == "machine 2 is gone; it goes on from step 2"
        assert settle(LOST, found[1]).message == "machine 2 is gone"


def test_silent_machine_is_gone(monkeypatch):
    monkeypatch.setattr(links, "SILENCE_S", 0.3)
    monkeypatch.setattr(links, "BEAT_S", 0.1)
    with machines(2) as (found, _):
        time.sleep(0.6)
        assert not found[0].gone
        found[1]._is_closed = True  # its beat stops, as that of a machine without power
        until(lambda: found[0].gone == [1])


def test_own_verdict_stands_and_a_finished_run_is_done_for_all():
    crash = Verdict(70, "crash", "ours")
    with machines(2) as (found, _):
        assert settle(crash, found[0]) == crash
    with machines(2) as (found, _):
        assert settle(DONE, found[0]) == DONE
        assert settle(LOST, found[1]) == DONE


def test_machine_that_has_ended_is_not_gone_when_it_leaves():
    with machines(2) as (found, _):
        found[1].tell_ended(DONE)
        found[1].close()
        until(lambda: 1 in found[0].ended)
        time.sleep(0.1)
        assert not found[0].gone and not found[0].has_failed()


@pytest.mark.parametrize(
    ("place", "run", "ranks", "told"),
    [
        ((2, 1), "other", 1, "another run meets at 127.0.0.1:"),
        ((3, 1), "tiny", 1, "this one says it is 1 of 3"),
        ((2, 1), "tiny", 8, "machine 1 starts 8 trainers and machine 0 1: all must have as many GPUs"),
    ],
    ids=["run", "number", "ranks"],
)
def test_stranger_is_refused_in_one_sentence(place, run, ranks, told):
    port = free_port()
    first = Link(Rendezvous(2, 0, "127.0.0.1", port), "tiny", 1)
    other = Link(Rendezvous(*place, "127.0.0.1", port), run, ranks)
    with pytest.raises(BackendError, match=told):
        other.meet(is_done=False, must_end=lambda: False, patience_s=10)
    with socket.create_connection(("127.0.0.1", port)) as noise:
        noise.sendall(b"GET / HTTP/1.1\r\n\r\n" + json.dumps(["hello"]).encode() + b"\n")
    with pytest.raises(BackendError, match=r"machines 1 have not come to 127\.0\.0\.1:"):
        first.meet(is_done=False, must_end=lambda: False, patience_s=0.2)
    for one in (first, other):
        one.close()


def test_address_that_is_taken_is_told_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"machines cannot meet at 127.0.0.1:{port}: .*MASTER_PORT"):
            Link(Rendezvous(2, 0, "127.0.0.1", port), "tiny", 1)


def test_loopback_names_no_interface():
    assert interface_of("127.0.0.1") is None
    assert interface_of("192.0.2.1") is None

"""Notices of providers, asked of real HTTP servers on loopback that answer as theirs do."""

import time

import pytest
from metadata_server import MetadataServer

from ftl_runtime.notices import Aws, Gcp, Notice, NoticeWatch, service_of


@pytest.fixture
def server():
    with MetadataServer() as running:
        yield running


def wait_until(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_spot_machine_of_aws(server):
    aws = Aws(server.url)
    assert aws.look() == (None, None)
    server.instance_action = '{"action": "terminate", "time": "2026-11-27T12:00:00Z"}'
    sentence = "AWS takes this spot machine back (terminate at 2026-11-27T12:00:00Z)"
    assert aws.look() == (Notice(sentence, 1795780800.0), None)
    assert server.asked.count("PUT /latest/api/token") == 1


def test_token_that_has_run_out_is_asked_for_anew(server):
    aws = Aws(server.url)
    aws.look()
    server.token, server.instance_action = "token-2", "stop, but not in JSON"
    assert aws.look() == (Notice("AWS takes this spot machine back"), None)


def test_rebalance_recommendation_is_a_warning_only(server):
    server.rebalance = '{"noticeTime": "2026-11-27T11:00:00Z"}'
    notice, warning = Aws(server.url).look()
    assert notice is None
    assert "may soon take this spot machine back" in warning


def test_machine_of_google(server):
    google = Gcp(server.url)
    assert google.look() == (None, None)
    server.maintenance = "MIGRATE_ON_HOST_MAINTENANCE"
    assert google.look() == (None, None)
    server.maintenance = "TERMINATE_ON_HOST_MAINTENANCE"
    assert google.look() == (Notice("Google Cloud ends this machine for maintenance"), None)
    server.preempted = "TRUE"
    notice, _ = google.look()
    assert notice.sentence == "Google Cloud takes this spot machine back"
    assert 25 < notice.until - time.time() <= 30


@pytest.mark.parametrize("provider", [Aws, Gcp])
def test_service_that_does_not_answer_is_told_once_and_asked_on(server, provider):
    service = provider(server.url)
    service.poll_s = 0.01
    server.status = 503
    told = []
    watch = NoticeWatch(service, told.append)
    wait_until(lambda: len(server.asked) > 8)
    assert len(told) == 1
    assert "does not answer" in told[0]
    server.instance_action, server.preempted, server.status = "{}", "TRUE", None
    wait_until(lambda: watch.notice is not None)


@pytest.mark.parametrize(
    ("dmi", "env", "expected"),
    [
        ({"sys_vendor": "Amazon EC2\n"}, {}, Aws),
        ({"sys_vendor": "Google\n", "product_name": "Google Compute Engine\n"}, {}, Gcp),
        ({"sys_vendor": "Google\n", "product_name": "Rammus\n"}, {}, None),  # a Chromebook
        ({"sys_vendor": "QEMU\n"}, {}, None),
        ({}, {}, None),
        ({}, {"FTL_NOTICES": "aws"}, Aws),
        ({"sys_vendor": "Amazon EC2\n"}, {"FTL_NOTICES": "off"}, None),
    ],
)
def test_only_machines_of_a_provider_ask(tmp_path, dmi, env, expected):
    for name, text in dmi.items():
        (tmp_path / name).write_text(text)
    service = service_of(env, tmp_path)
    assert service is None if expected is None else isinstance(service, expected)


def test_nothing_is_asked_elsewhere(server):
    assert NoticeWatch(None, pytest.fail).notice is None
    assert server.asked == []

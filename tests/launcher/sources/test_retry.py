"""The budget of the retries."""

import pytest

from ftl.sources import retry


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waited.append)
    return waited


def failing(times: int, after_s: float | None = None) -> "retry.Callable[[], str]":
    failures = iter(range(times))

    def call() -> str:
        if next(failures, None) is not None:
            raise retry.PassingError("answered 503", after_s)
        return "done"

    return call


@pytest.mark.parametrize(
    ("times", "after_s", "waited"),
    [(0, None, []), (1, None, [5.0]), (2, None, [5.0, 10.0]), (1, 20.0, [20.0]), (2, 3600.0, [30.0, 30.0])],
)
def test_call_is_tried_again_after_a_wait(
    times: int, after_s: float | None, waited: list[float], waits: list[float]
) -> None:
    assert retry.with_retries(failing(times, after_s)) == "done"
    assert waits == waited


def test_third_failure_is_the_last_and_tells_the_budget(waits: list[float]) -> None:
    with pytest.raises(retry.PassingError, match="answered 503, 3 times in 15 s"):
        retry.with_retries(failing(3))
    assert waits == [5.0, 10.0]


def test_other_failures_are_not_tried_again(waits: list[float]) -> None:
    def call() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        retry.with_retries(call)
    assert waits == []

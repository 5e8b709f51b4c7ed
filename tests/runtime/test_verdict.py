import pytest

from ftl.errors import BackendError, ConfigError, DeliveryError, PreemptedError, StorageError, TrainingError
from ftl_runtime.verdict import receive, verdict_of


@pytest.mark.parametrize(
    ("error", "code", "cause"),
    [
        (ConfigError("x"), 2, "config"),
        (BackendError("x"), 3, "environment"),
        (TrainingError("x"), 70, "crash"),
        (StorageError("x"), 74, "storage"),
        (PreemptedError("x"), 75, "signal"),
        (DeliveryError("x"), 76, "undelivered"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 70, "out-of-memory"),
        (MemoryError(), 70, "out-of-memory"),
        (ZeroDivisionError("by zero"), 70, "crash"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_error_becomes_exit_code_and_cause(error, code, cause):
    verdict = verdict_of(error)
    assert (verdict.exit_code, verdict.cause) == (code, cause)


def test_message_of_an_ftl_error_is_its_sentence():
    assert verdict_of(ConfigError("cfg.yml:3: no")).message == "cfg.yml:3: no"


def test_out_of_memory_gives_advice():
    assert "micro_batch_size" in (verdict_of(RuntimeError("CUDA out of memory")).message or "")


def test_half_a_verdict_is_none():
    assert receive(b'{"exit_code": 70, "ca') is None
    assert receive(b"") is None

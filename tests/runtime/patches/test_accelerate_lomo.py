import pytest

pytestmark = pytest.mark.torch


def test_steps_after_the_first_do_not_look_for_the_package_again(monkeypatch):
    import accelerate.optimizer

    from ftl_runtime.patches import accelerate_lomo  # before the original is hidden: it keeps that

    monkeypatch.setattr(accelerate.optimizer, "is_lomo_available", None)  # put back after the test
    accelerate_lomo.apply()
    is_available = accelerate.optimizer.is_lomo_available
    assert is_available() == is_available()
    assert is_available.cache_info().misses == 1

"""The backends that the conformance tests run over."""

import pytest

from ftl.backends import Backend, load


@pytest.fixture(params=["local"])
def backend(request: pytest.FixtureRequest) -> Backend:
    kind = load(request.param)
    return kind(kind.Cloud.model_validate({"provider": request.param}))

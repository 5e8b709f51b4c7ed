"""Compiled layers: the losses of uncompiled ones, nothing compiled twice, and a resume to the last bit.

Inductor itself takes a C++ compiler a quarter of a minute; what it is given is the same.
"""

import os

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402

from ftl.config.kernels import KernelsSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models.compile import compile_layers, compiler_problem  # noqa: E402
from ftl_runtime.models.recompute import NOTHING  # noqa: E402

COMPILED = {"kernels__is_compiled": True, "kernels__compile_backend": "aot_eager"}
SHAPE = {"optim__max_steps": 6, "data__val_set_size": 0, "output__save_steps": 2}


@pytest.mark.parametrize(
    "adapter", [None, {"kind": "lora", "rank": 2, "targets": ["q_proj", "up_proj"]}], ids=["full", "lora"]
)
def test_steps_after_the_second_compile_nothing_and_give_the_same_losses(monkeypatch, make_attempt, weights, adapter):
    from torch._dynamo.utils import counters

    common = {"model": weights, "adapter": adapter, **SHAPE}
    plain, straight, resumed = (
        make_attempt("plain", **common),
        make_attempt("straight", **common, **COMPILED),
        make_attempt("resumed", **common, **COMPILED),
    )
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/as-inductor-puts-it-there")
    torch._dynamo.reset()
    counters.clear()
    resumed.train(stop_at=2)
    num_graphs = counters["stats"]["unique_graphs"]
    resumed.train()
    assert 0 < num_graphs == counters["stats"]["unique_graphs"]
    straight.train()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(straight.directory / "cache" / "compiled")
    plain.train()
    assert resumed.losses() == straight.losses()
    expected = plain.losses()
    assert len(expected) == 6
    assert straight.losses() == pytest.approx(expected, rel=1e-5)


def test_compiler_that_is_missing_is_told_where_it_is_needed(monkeypatch):
    monkeypatch.setattr("ftl_runtime.models.compile.shutil.which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    told = compiler_problem(KernelsSection(is_compiled=True))
    assert told is not None and "there is no g++ here" in told
    assert compiler_problem(KernelsSection(is_compiled=True, compile_backend="aot_eager")) is None
    assert compiler_problem(KernelsSection()) is None


def test_model_without_layers_is_refused():
    with pytest.raises(ConfigError, match="torch_compile: no decoder layers"):
        compile_layers(nn.Linear(2, 2), KernelsSection(is_compiled=True), NOTHING, None)

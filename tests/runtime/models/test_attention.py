import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from transformers import (  # noqa: E402
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from ftl.errors import BackendError, ConfigError  # noqa: E402
from ftl_runtime.context import Device  # noqa: E402
from ftl_runtime.models.attention import AttentionPlan, plan_attention  # noqa: E402

CPU = Device("cpu", has_bf16=True, rank=0, num_ranks=1)
AMPERE = Device("cuda", has_bf16=True, rank=0, num_ranks=1, has_flash=True)
TURING = Device("cuda", has_bf16=False, rank=0, num_ranks=1)


def plan(config, architecture, wanted=None, *, is_packed=True, device=CPU, dtype=torch.bfloat16, **keys):
    return plan_attention(wanted, config, architecture, is_packed=is_packed, device=device, dtype=dtype, **keys)


@pytest.mark.parametrize("device", [CPU, AMPERE], ids=["cpu", "ampere"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_documents_are_attended_to_one_by_one_where_the_model_lets_them(device, is_packed):
    assert plan(LlamaConfig(), LlamaForCausalLM, is_packed=is_packed, device=device) == AttentionPlan(
        "varlen", "borders"
    )


@pytest.mark.parametrize(
    ("keys", "config", "architecture", "expected"),
    [
        (
            {"device": TURING, "dtype": torch.float16},
            LlamaConfig(),
            LlamaForCausalLM,
            AttentionPlan("sdpa", "positions"),
        ),
        (
            {"device": AMPERE, "dtype": torch.float32},
            LlamaConfig(),
            LlamaForCausalLM,
            AttentionPlan("sdpa", "positions"),
        ),
        ({"gives_borders": False}, LlamaConfig(), LlamaForCausalLM, AttentionPlan("sdpa", "positions")),
        ({}, LlamaConfig(attention_dropout=0.1), LlamaForCausalLM, AttentionPlan("sdpa", "positions")),
        ({}, FalconConfig(), FalconForCausalLM, AttentionPlan("sdpa", "mask")),
        ({}, Gemma2Config(), Gemma2ForCausalLM, AttentionPlan("eager", "positions")),
        ({}, MptConfig(), MptForCausalLM, AttentionPlan("eager", "mask")),
        ({"is_packed": False}, BloomConfig(), BloomForCausalLM, AttentionPlan("eager", "positions")),
        ({"wanted": "eager"}, LlamaConfig(), LlamaForCausalLM, AttentionPlan("eager", "positions")),
    ],
    ids=["turing", "fp32", "pairs", "dropout", "falcon", "gemma2", "mpt", "bloom unpacked", "asked for"],
)
def test_else_the_fastest_that_keeps_documents_apart(keys, config, architecture, expected):
    assert plan(config, architecture, **keys) == expected


def test_flash_attention_is_torchs_own_where_the_package_is_missing(monkeypatch):
    monkeypatch.setattr("ftl_runtime.models.attention.find_spec", lambda name: None)
    assert plan(LlamaConfig(), LlamaForCausalLM, "flash_attention_2", device=AMPERE).implementation == "varlen"
    with pytest.raises(BackendError, match="a falcon model needs the flash-attn package"):
        plan(FalconConfig(), FalconForCausalLM, "flash_attention_2", is_packed=False, device=AMPERE)


def test_packing_is_refused_where_nothing_keeps_documents_apart(monkeypatch):
    with pytest.raises(ConfigError, match="cannot be kept apart in a bloom model"):
        plan(BloomConfig(), BloomForCausalLM)
    monkeypatch.setattr("ftl_runtime.models.attention.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="flash_attention_2 cannot keep documents apart in a falcon model"):
        plan(FalconConfig(), FalconForCausalLM, "flash_attention_2", device=AMPERE)


def test_varlen_is_refused_where_it_cannot_be():
    with pytest.raises(ConfigError, match="cannot be used for a falcon model in bfloat16 here"):
        plan(FalconConfig(), FalconForCausalLM, "varlen")

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
HOPPER = Device("cuda", has_bf16=True, rank=0, num_ranks=1, has_flash=True, is_hopper=True)
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


FLASH_3, FLEX = "flash_attention_3", "flex_attention"
SPOILT = LlamaConfig(attention_dropout=0.1)


# What is asked for, of which GPU, with which packages -> the plan, or the words of the refusal.
@pytest.mark.parametrize(
    ("wanted", "packages", "keys", "config", "architecture", "expected"),
    [
        (None, {"flash_attn_interface"}, {}, LlamaConfig(), LlamaForCausalLM, ("varlen", "borders")),
        (FLASH_3, {"flash_attn_interface"}, {}, LlamaConfig(), LlamaForCausalLM, (FLASH_3, "borders")),
        (
            *(FLASH_3, {"flash_attn_interface"}, {"gives_borders": False}, LlamaConfig(), LlamaForCausalLM),
            (FLASH_3, "positions"),
        ),
        (FLASH_3, {"flash_attn"}, {}, LlamaConfig(), LlamaForCausalLM, "needs the flash-attn-3 package"),
        (
            *(FLASH_3, {"flash_attn_interface"}, {"dtype": torch.float32}, LlamaConfig(), LlamaForCausalLM),
            "in bf16 or fp16 only",
        ),
        (FLASH_3, {"flash_attn_interface"}, {"is_packed": False}, MptConfig(), MptForCausalLM, "a mpt model cannot"),
        (FLASH_3, {"flash_attn_interface"}, {}, FalconConfig(), FalconForCausalLM, "cannot keep documents apart"),
        (FLEX, set(), {}, LlamaConfig(), LlamaForCausalLM, (FLEX, "positions")),
        (FLEX, set(), {"dtype": torch.float32}, LlamaConfig(), LlamaForCausalLM, (FLEX, "positions")),
        (FLEX, set(), {"device": TURING}, LlamaConfig(), LlamaForCausalLM, (FLEX, "positions")),
        (FLEX, set(), {}, SPOILT, LlamaForCausalLM, "knows no dropout"),
        (FLEX, set(), {"is_packed": False}, MptConfig(), MptForCausalLM, "a mpt model cannot"),
        (FLEX, set(), {}, FalconConfig(), FalconForCausalLM, "cannot keep documents apart"),
    ],
)
def test_attention_asked_for_is_had_or_refused_with_the_reason(
    monkeypatch, wanted, packages, keys, config, architecture, expected
):
    monkeypatch.setattr("ftl_runtime.models.attention.find_spec", lambda name: name in packages or None)
    given = {"device": HOPPER} | keys
    if isinstance(expected, tuple):
        assert plan(config, architecture, wanted, **given) == AttentionPlan(*expected)
    else:
        with pytest.raises((ConfigError, BackendError), match=expected):
            plan(config, architecture, wanted, **given)


def test_varlen_is_refused_where_it_cannot_be():
    with pytest.raises(ConfigError, match="cannot be used for a falcon model in bfloat16 here"):
        plan(FalconConfig(), FalconForCausalLM, "varlen")
